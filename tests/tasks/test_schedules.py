"""Learning-rate schedules against hand-computed values."""

import math

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from striate.datamodules.loading.collate import collate
from striate.tasks import Classification, Constant, Cosine, Plateau, Polynomial, Steps
from striate.tasks.schedules import Horizon
from striate.tests.helpers.fixtures import TinyNet, noisy_image


def rates(schedule, steps, horizon):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
    scheduler = schedule.build(optimizer, horizon, "val/acc", "max")["scheduler"]
    learning_rates = []
    for _ in range(steps):
        learning_rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return learning_rates


def test_steps_reduce_at_each_milestone():
    assert rates(Steps([2, 4], gamma=0.1), 6, Horizon(60, 10)) == pytest.approx([2, 2, 0.2, 0.2, 0.02, 0.02])


def test_warmup_scales_the_schedule_linearly():
    assert rates(Steps([5], warmup=4, warmup_start=0.25, unit="step"), 6, Horizon(6, 3)) == pytest.approx(
        [0.5, 0.875, 1.25, 1.625, 2.0, 0.2]
    )


def test_cosine_starts_after_the_warmup():
    got = rates(Cosine(final=0.1, warmup=2), 7, Horizon(6, 3))
    expected = [0.0, 1.0, 2.0] + [2 * (0.1 + 0.45 * (1 + math.cos(math.pi * k / 4))) for k in (1, 2, 3, 4)]
    assert got == pytest.approx(expected)
    assert got[-1] == pytest.approx(0.2)


def test_polynomial():
    assert rates(Polynomial(power=2, unit="epoch"), 5, Horizon(40, 10)) == pytest.approx([2, 1.125, 0.5, 0.125, 0])


def test_only_constant_works_without_an_end_of_training():
    assert rates(Constant(warmup=2), 4, Horizon(math.inf, 3)) == pytest.approx([0, 1, 2, 2])
    with pytest.raises(ValueError, match="Cosine needs the length of training.*max_epochs"):
        rates(Cosine(), 1, Horizon(math.inf, 3))


def test_invalid_arguments():
    with pytest.warns(UserWarning, match="before the full learning rate.*10 steps, training of 6"):
        assert rates(Cosine(warmup=10), 3, Horizon(6, 3)) == pytest.approx([0, 0.2, 0.4])
    with pytest.raises(ValueError, match="warmup.*got -1"):
        Cosine(warmup=-1)
    with pytest.raises(ValueError, match=r"milestones.*got \[3, 1\]"):
        Steps([3, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Steps([3], gamma=10), r"^gamma: must be in \(0, 1\], got 10; 0.1 divides"),
        (lambda: Steps([3], gamma=0), r"^gamma: .*got 0"),
        (lambda: Steps([-3, 2]), r"^milestones\[0\]: must be >= 0, got -3"),
        (lambda: Cosine(final=-0.1), r"^final: must be in \[0, 1\], got -0.1"),
        (lambda: Polynomial(final=2), r"^final: must be in \[0, 1\], got 2"),
        (lambda: Constant(warmup=3, warmup_start=10), r"^warmup_start: must be in \[0, 1\], got 10"),
        (lambda: Constant(unit="epochs"), "^unit: must be one of 'step', 'epoch', got 'epochs'; did you mean 'epoch'"),
    ],
)
def test_factors_that_would_raise_or_reverse_the_learning_rate(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(Polynomial, "power"), (Plateau, "factor"), (Plateau, "patience"), (Plateau, "threshold"), (Plateau, "min_lr")],
)
def test_numbers_out_of_range(schedule, name):
    with pytest.raises(ValueError, match=f"^{name}: must be .*got -5"):
        schedule(**{name: -5})


def test_plateau_uses_the_metric_and_direction_of_the_task():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    built = Plateau(factor=0.5, patience=0).build(optimizer, Horizon(6, 3), "val/acc", "max")
    assert built["monitor"] == "val/acc" and built["interval"] == "epoch"
    for accuracy, rate in ((0.5, 1.0), (0.6, 1.0), (0.6, 0.5), (0.7, 0.5), (0.2, 0.25)):
        built["scheduler"].step(accuracy)
        assert optimizer.param_groups[0]["lr"] == rate


@pytest.mark.parametrize("accumulate, unit", [(1, "step"), (2, "step"), (2, "epoch")])
def test_the_trainer_provides_the_horizon(accumulate, unit, tmp_path):
    class Data(list):
        pass

    samples = [{"image": noisy_image(k % 2, k, 8), "label": k % 2, "index": k, "unreadable": []} for k in range(12)]
    loader = DataLoader(Data(samples), batch_size=2, collate_fn=collate)
    task = Classification(
        TinyNet(), optimizer=lambda groups: torch.optim.SGD(groups, lr=1.0), scheduler=Polynomial(1.0, unit=unit)
    )
    learning_rates = []

    class Watch(pl.Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            learning_rates.append(optimizer.param_groups[0]["lr"])

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=3, accumulate_grad_batches=accumulate, callbacks=[Watch()], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    with pytest.warns(UserWarning, match="no `val_dataloader`"):
        trainer.fit(task, loader)
    steps = 18 // accumulate
    if unit == "step":
        assert learning_rates == pytest.approx([1 - k / steps for k in range(steps)])
    else:
        assert learning_rates == pytest.approx([1.0] * 3 + [2 / 3] * 3 + [1 / 3] * 3)
