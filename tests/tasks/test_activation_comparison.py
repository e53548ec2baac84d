"""Activation comparison: error counts, separate learning rates, crossing of the threshold, resuming."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from striate.callbacks import ActivationComparisonPlot
from striate.callbacks.reports.activation_comparison import error_curves_figure
from striate.models import ActivationPair
from striate.tasks import ActivationComparison
from striate.tasks.activation_comparison import epochs_to_error

from ..helpers.fixtures import batch


def tiny(**arguments: Any) -> ActivationComparison:
    torch.manual_seed(1)
    model = ActivationPair(num_classes=2, widths=(4, 4, 4))
    return ActivationComparison(model, optimizer=lambda p: torch.optim.SGD(p, lr=0.05), **arguments)


def loader() -> DataLoader:
    return DataLoader([batch([0, 1, 1, 0]), batch([1, 1, 0])], batch_size=None)


def trainer(folder: Path, epochs: int, callbacks: tuple[pl.Callback, ...] = ()) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_checkpointing=any(isinstance(callback, pl.callbacks.Checkpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([], None),
        ([0.9, 0.3], None),
        ([0.9, 0.25], 2.0),
        ([0.8, 0.4, 0.2], 2.75),  # three quarters of the way from 0.4 to 0.2
        ([0.1], 1.0),
        ([0.5, 0.2, 0.6, 0.1], 1 + 5 / 6),  # the first crossing counts
    ],
)
def test_crossing_of_the_threshold(errors: list[float], expected: float | None) -> None:
    assert epochs_to_error(errors, 0.25) == (None if expected is None else pytest.approx(expected))


class Recount(pl.Callback):
    """Counts the misclassified images of each network independently, before each training step."""

    def __init__(self) -> None:
        self.wrong: list[dict[str, int]] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.wrong.append({"relu": 0, "tanh": 0})

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        with torch.no_grad():
            for name, logits in pl_module.model(batch["image"]).items():
                self.wrong[-1][name] += int((logits.argmax(1) != batch["label"]).sum())


def test_training_error_is_the_share_of_misclassified_images_per_epoch(tmp_path: Path) -> None:
    task, recount = tiny(), Recount()
    run = trainer(tmp_path, 3, (recount,))
    run.fit(task, loader(), loader())
    for name in ("relu", "tanh"):
        assert task.errors[name] == pytest.approx([wrong[name] / 7 for wrong in recount.wrong])
        assert float(run.callback_metrics[f"train/error_{name}"]) == pytest.approx(task.errors[name][-1])
        assert 0 <= run.callback_metrics[f"val/acc_{name}"] <= 1
    assert len({e for errors in task.errors.values() for e in errors}) > 1


def test_each_network_trains_as_if_alone_at_its_own_learning_rate(tmp_path: Path) -> None:
    task = tiny(tanh_lr_factor=0.2)
    torch.manual_seed(1)
    alone = ActivationPair(num_classes=2, widths=(4, 4, 4))
    for name, rate in (("relu", 0.05), ("tanh", 0.01)):
        optimizer = torch.optim.SGD(alone.runners[name].parameters(), lr=rate)
        for data in loader():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(alone.runners[name](data["image"]), data["label"]).backward()
            optimizer.step()
    trainer(tmp_path, 1).fit(task, loader(), loader())
    for key, value in alone.state_dict().items():
        torch.testing.assert_close(task.model.state_dict()[key], value)


def test_ratio_and_summary() -> None:
    task = tiny()
    task.errors = {"relu": [0.6, 0.2], "tanh": [0.8, 0.5, 0.4]}
    assert task.ratio() is None
    assert task.summary() == "25 % training error: relu after 1.9 epochs, tanh not within 3 epochs"
    task.errors["tanh"] += [0.3, 0.25]
    assert task.ratio() == pytest.approx(5 / 1.875)
    assert task.summary().endswith("relu after 1.9 epochs, tanh after 5.0 epochs: ReLU is 2.7 times as fast")


def test_a_resumed_comparison_has_all_epochs(tmp_path: Path) -> None:
    whole, first = tiny(), tiny()
    trainer(tmp_path, 4).fit(whole, loader(), loader())
    run = trainer(tmp_path, 2)
    run.fit(first, loader(), loader())
    run.save_checkpoint(tmp_path / "two.ckpt")
    second = tiny()
    run = trainer(tmp_path, 4)
    run.fit(second, loader(), loader(), ckpt_path=tmp_path / "two.ckpt", weights_only=True)
    assert second.errors == whole.errors
    assert [len(errors) for errors in second.errors.values()] == [4, 4]


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")
def test_checkpoints_written_after_validation_lose_no_epoch(tmp_path: Path) -> None:
    whole = tiny()
    save = pl.callbacks.ModelCheckpoint(tmp_path, "after-{epoch}", save_top_k=-1, monitor=None)
    run = trainer(tmp_path, 3, (save,))
    run.fit(whole, loader(), loader())
    again = tiny()
    path = tmp_path / "after-epoch=1.ckpt"
    trainer(tmp_path, 3).fit(again, loader(), loader(), ckpt_path=path, weights_only=True)
    assert again.errors == whole.errors


def test_error_curves_plot(tmp_path: Path) -> None:
    errors = {"relu": [0.6, 0.2, 0.1], "tanh": [0.8, 0.5, 0.4]}
    picture = error_curves_figure(errors, 0.25)
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert not np.array_equal(picture, error_curves_figure(errors, 0.35))
    assert not np.array_equal(picture, error_curves_figure({"relu": errors["tanh"], "tanh": errors["relu"]}, 0.25))
    trainer(tmp_path, 1, (ActivationComparisonPlot(),)).fit(tiny(), loader(), loader())
    assert (tmp_path / "pictures" / "training_error.png").stat().st_size > 5000


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="threshold.*got 25"):
        tiny(threshold=25)
    with pytest.raises(ValueError, match="tanh_lr_factor.*got 0"):
        tiny(tanh_lr_factor=0)
