"""NaN and infinite losses: training stops with a message, and checkpoints stay intact."""

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from striate.tasks import Classification
from striate.tasks.nonfinite import NonFiniteError, NonFiniteGuard, check_weights, image_names
from striate.tests.helpers.fixtures import TinyNet, batch
from striate.tests.helpers.training import run_script


class Poisoned(TinyNet):
    """Its logits are NaN from the n-th training batch on."""

    def __init__(self, after, value=float("nan")):
        super().__init__()
        self.after, self.value, self.count = after, value, 0

    def forward(self, images):
        self.count += self.training
        return super().forward(images) * (self.value if self.training and self.count > self.after else 1.0)


class NanGradient(Poisoned):
    """Its gradients are NaN from the n-th training batch on, but not its loss: the square root of zero."""

    def forward(self, images):
        self.value = 1.0
        logits = super().forward(images)
        return logits + (self.head.weight * 0).sum().sqrt() if self.count > self.after else logits


def batches(count, first=0):
    made = []
    for number in range(count):
        one = batch([0, 1])
        one["index"] = torch.arange(2) + first + 2 * number
        made.append(one)
    return DataLoader(made, batch_size=None)


def fit(task, folder, count=6, **settings):
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, enable_progress_bar=False, enable_model_summary=False, logger=False,
        limit_val_batches=0,
        callbacks=[ModelCheckpoint(folder, "last", every_n_train_steps=1, enable_version_counter=False)], **settings,
    )  # fmt: skip
    trainer.fit(task, batches(count), batches(1))
    return trainer


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_training_stops_with_step_losses_and_images(tmp_path, value):
    task = Classification(Poisoned(after=3, value=value), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(NonFiniteError) as caught:
        fit(task, tmp_path)
    message = str(caught.value)
    assert message.startswith("loss: ") and "at step 3 (epoch 0): loss_class nan; " in message
    assert ": sample 6, sample 7." in message
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    # the gradients of this step were never computed
    assert all(torch.equal(value, saved["state_dict"][key]) for key, value in task.state_dict().items()
               if "num_batches" not in key and "running" not in key)  # fmt: skip


def test_nan_weights_do_not_overwrite_a_checkpoint(tmp_path):
    task = Classification(NanGradient(after=2), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    with pytest.raises(NonFiniteError, match=r"weights: .*at step 3 \(epoch 0\), the first: model"):
        fit(task, tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2


def test_nonfinite_weights_are_counted_and_named():
    model = TinyNet()
    check_weights(model, "here")
    model.head.bias.data[1] = float("inf")
    with pytest.raises(NonFiniteError, match=r"^weights: .*1 of 6 parameters here, the first: head.bias\."):
        check_weights(model, "here")


def test_images_are_named_by_path_id_or_index():
    assert image_names({"path": ["a.png"], "index": torch.tensor([3])}) == ["a.png"]
    targets = [{"image_id": torch.tensor(139)}, {"image_id": torch.tensor(285)}]
    assert image_names({"target": targets, "index": torch.tensor([0, 1])}) == ["image_id 139", "image_id 285"]
    assert image_names({"target": [{}], "index": torch.tensor([4])}) == ["sample 4"]
    assert image_names({}) == []


def test_each_loss_is_named_and_a_long_batch_is_cut():
    guard, losses = NonFiniteGuard(), {"loss_a": torch.tensor(1.5), "loss_b": torch.tensor(float("inf"))}
    with pytest.raises(NonFiniteError) as caught:
        guard.check(sum(losses.values()), losses, {"index": torch.arange(20)}, "somewhere")
    assert "somewhere: loss_a 1.5, loss_b inf, their sum inf; " in str(caught.value)
    assert ": sample 0, " in str(caught.value) and "sample 15 and 4 more." in str(caught.value)


def test_a_finite_step_does_not_affect_a_later_one():
    guard = NonFiniteGuard()
    guard.check(torch.tensor(1.0), {"loss": torch.tensor(1.0)}, {}, "first")
    guard.flush()
    with pytest.raises(NonFiniteError, match="second"):
        guard.check(torch.tensor(torch.nan), {"loss": torch.tensor(torch.nan)}, {}, "second")
    guard.flush()  # reported once


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_check_comes_one_step_later_and_before_saving():
    good, bad = torch.tensor(1.0, device="cuda"), torch.tensor(torch.nan, device="cuda")
    guard = NonFiniteGuard()
    guard.check(bad, {"loss": bad}, {"index": torch.tensor([5])}, "at step 0")
    with pytest.raises(NonFiniteError, match="at step 0: loss nan; the batch: sample 5"):
        guard.check(good, {"loss": good}, {}, "at step 1")
    guard.flush()
    guard.check(bad, {"loss": bad}, {}, "at step 2")
    with pytest.raises(NonFiniteError, match="at step 2"):
        guard.flush()


DDP_SCRIPT = """
import os
from striate.tasks import Classification
from striate.tasks.nonfinite import NonFiniteError
from striate.tests.tasks.test_nonfinite import Poisoned, batches
rank = int(os.environ.get("LOCAL_RANK", 0))
# only the second rank computes a NaN
task = Classification(Poisoned(2 if rank else 99), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
trainer = ddp_trainer(use_distributed_sampler=False)
try:
    trainer.fit(task, batches(6, first=100 * rank))
except NonFiniteError as error:
    report(trainer, str(error))
    sys.exit(3)
"""


def test_two_processes_stop_together_and_name_the_rank_of_the_batch(tmp_path):
    message = run_script(DDP_SCRIPT, tmp_path, 2, exit_code=3)
    assert "at step 2 (epoch 0): rank 1: loss_class nan; " in message and ": sample 104, sample 105." in message
