"""Training with a Trainer: learning, exact resuming, gradient accumulation, and metrics under DDP."""

import pytest
import pytorch_lightning as pl
import torch

from striate.callbacks import RandomState
from striate.datamodules import ImageFolder
from striate.tasks import Classification, Cosine
from striate.tests.helpers.fixtures import TinyNet, batch, make_folder, noisy_image, write_image
from striate.tests.helpers.training import SaveAndStop, make_trainer, run_script


def make_task(dropout=0.0, rate=0.05, scheduler=None):
    torch.manual_seed(3)
    return Classification(
        TinyNet(dropout=dropout),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=rate, momentum=0.9),
        scheduler=scheduler,
    )


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data", per_class=10)


@pytest.mark.parametrize("smoothing, weights", [(0.0, None), (0.1, None), (0.0, [1.0, 2.0])])
def test_one_batch_is_overfitted(smoothing, weights):
    torch.manual_seed(0)
    task = Classification(
        TinyNet(width=8), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05),
        label_smoothing=smoothing, class_weights=weights,
    )  # fmt: skip
    data = batch([0, 1, 1, 0, 1, 0])
    optimizer = task.configure_optimizers()
    task.train()
    for _ in range(80):
        loss = task.losses(data)[0]["loss_class"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    task.eval()
    assert [one["label"] for one in task.predict(data["image"])] == [0, 1, 1, 0, 1, 0]
    assert task.losses(data)[0]["loss_class"] < 0.25


def weights_of(task):
    return torch.cat([p.detach().flatten() for p in task.model.state_dict().values()])


@pytest.mark.parametrize("stop_after", [3, 4, 6])  # within an epoch, at its end, in the second epoch
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(folder, tmp_path, stop_after):
    import albumentations as A

    def run(steps, ckpt_path=None):
        data = ImageFolder(
            str(folder), val_fraction=0.2, batch_size=4, num_workers=0, train_transform=[A.RandomResizedCrop((24, 24))]
        )
        # dropout draws from torch's own generator, which RandomState continues
        task = make_task(dropout=0.5, scheduler=Cosine())
        trainer = make_trainer(max_epochs=3, callbacks=[RandomState(), SaveAndStop(steps, tmp_path / "mid.ckpt")])
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
        return task, trainer

    whole, _ = run(steps=None)
    _, stopped = run(steps=stop_after)
    assert stopped.global_step == stop_after
    torch.manual_seed(99)  # another generator state, as in a new process
    resumed, trainer = run(steps=None, ckpt_path=tmp_path / "mid.ckpt")
    assert trainer.global_step == 12
    assert torch.equal(weights_of(whole), weights_of(resumed))


@pytest.mark.parametrize("stop_after", [2, 3])  # at the end of an epoch, within the second
def test_overfit_batches_repeats_the_same_batches_and_resumes(folder, tmp_path, stop_after):
    import albumentations as A

    def run(steps, ckpt_path=None):
        crop = [A.RandomResizedCrop((24, 24))]
        data = ImageFolder(str(folder), val_fraction=0.2, batch_size=4, num_workers=0, train_transform=crop)
        task, recorder = make_task(scheduler=Cosine()), BatchRecorder()
        trainer = make_trainer(
            max_epochs=3, overfit_batches=2, callbacks=[recorder, SaveAndStop(steps, tmp_path / "mid.ckpt")]
        )
        trainer.fit(task, data, ckpt_path=ckpt_path, weights_only=True)
        assert ckpt_path or steps or "val/acc" in trainer.callback_metrics
        return task, recorder.batches

    whole, batches = run(steps=None)
    assert len(batches) == 6 and set(batches[0][1]) == {0, 1}  # drawn at random, not in the order of the folders
    for place in range(2):
        assert batches[place][0] == batches[place + 2][0] == batches[place + 4][0]
    run(steps=stop_after)
    resumed, rest = run(steps=None, ckpt_path=tmp_path / "mid.ckpt")
    assert [one[0] for one in rest] == [one[0] for one in batches[stop_after:]]
    assert torch.equal(weights_of(whole), weights_of(resumed))


class BatchRecorder(pl.Callback):
    """The pixels and the labels of each training batch."""

    def __init__(self):
        self.batches = []

    def on_train_batch_start(self, trainer, pl_module, batch, *args):
        self.batches.append((batch["image"].numpy().tobytes(), batch["label"].tolist()))


def test_accumulation_of_two_equals_a_double_batch(folder):
    def run(batch_size, accumulate):
        data = ImageFolder(str(folder), val_fraction=0.2, batch_size=batch_size, num_workers=0)
        task = make_task()
        task.model.backbone[1] = torch.nn.Identity()  # batch statistics do not accumulate, by definition
        make_trainer(max_epochs=2, accumulate_grad_batches=accumulate).fit(task, data)
        return weights_of(task)

    torch.testing.assert_close(run(8, 1), run(4, 2), rtol=1e-5, atol=1e-6)


def test_an_unreadable_training_image_is_replaced_and_counted(folder):
    whole = (folder / "dark" / "003.png").read_bytes()
    (folder / "dark" / "003.png").write_bytes(whole[:200])
    data = ImageFolder(str(folder), val_fraction=0.2, batch_size=4, num_workers=0)
    task = make_task()
    with pytest.warns(UserWarning, match=r"1 image\(s\) skipped.*003.png.*strict"):
        make_trainer(max_epochs=2).fit(task, data)
    strict = ImageFolder(str(folder), val_fraction=0.2, batch_size=4, num_workers=0, strict=True)
    with pytest.raises(ValueError, match=r"003.png: not a readable image"):
        make_trainer(max_epochs=2).fit(make_task(), strict)


def test_grayscale_and_alpha_files_train_like_any_other(folder):
    write_image(folder / "dark" / "gray.png", noisy_image(1, 50)[..., 0])
    data = ImageFolder(str(folder), val_fraction=0.2, batch_size=3, num_workers=0)
    task = make_task()
    make_trainer(max_epochs=1).fit(task, data)
    assert not task.unreadable.reasons


def test_a_wrong_number_of_classes_names_model_and_data(folder):
    data = ImageFolder(str(folder), val_fraction=0.2, num_workers=0)
    task = Classification(TinyNet(num_classes=5))
    with pytest.raises(ValueError, match="num_classes: .*ImageFolder has 2 .*bright.*got 5 .*TinyNet"):
        make_trainer(max_epochs=1).fit(task, data)


DDP_SCRIPT = """
from striate.datamodules import ImageFolder
from striate.tasks import Classification
from striate.tests.helpers.fixtures import TinyNet
data = ImageFolder("data", num_workers=0, batch_size=2)
task = Classification(TinyNet())
trainer = ddp_trainer()
(metrics,) = trainer.validate(task, data, verbose=False)
counted = int(task.confusion_matrix("val").sum())
if processes > 1:
    trainer.fit(task, data)
    assert_ranks_agree(trainer, task)
report(trainer, {**metrics, "counted": counted})
"""


def test_two_processes_count_each_validation_sample_once(tmp_path):
    make_folder(tmp_path / "data" / "train", 6)
    folder = make_folder(tmp_path / "data" / "val", 4).parent
    for number in range(3):  # 11 samples: odd, so that a padding sampler would count one twice
        write_image(folder / "val" / "bright" / f"more{number}.png", noisy_image(0, 40 + number))
    one, two = (run_script(DDP_SCRIPT, tmp_path, processes) for processes in (1, 2))
    assert one["counted"] == two["counted"] == 11
    assert one == pytest.approx(two, abs=1e-6)
