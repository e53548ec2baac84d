"""Ctrl-C at any time: the resumed run ends like one that was never interrupted."""

import signal

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from striate.callbacks import GracefulInterrupt, LastCheckpoint, RandomState
from striate.datamodules import ImageFolder
from striate.tasks import Classification, Plateau
from striate.tests.helpers.fixtures import TinyNet, make_folder
from striate.tests.helpers.training import RecordingLogger, SendSignal

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`, callbacks used to create"),
]


class DrawRandomNumbers(pl.Callback):
    """Makes validation draw random numbers."""

    def on_validation_batch_start(self, *_):
        torch.rand(1)


class Run:
    """A training run with 4 steps per epoch and 3 validation batches, which can be stopped and resumed."""

    def __init__(self, root, name, ema=False, **settings):
        self.images, self.folder, self.ema = root / "data", root / name, ema
        self.settings = {"max_epochs": 2} | settings
        self.logger = RecordingLogger(self.folder)

    def fit(self, *more, resume=False):
        torch.manual_seed(99 if resume else 3)  # a new process starts with other random numbers
        data = ImageFolder(str(self.images), val_fraction=0.25, batch_size=4, eval_batch_size=2, num_workers=0)
        task = Classification(
            TinyNet(dropout=0.5),
            optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
            scheduler=Plateau(factor=0.5, patience=0, threshold=10.0),  # halves the rate each epoch
        )
        self.checkpoints = self.folder / "checkpoints"
        keep = {"dirpath": self.checkpoints, "enable_version_counter": False}
        trainer = pl.Trainer(
            accelerator="cpu", enable_progress_bar=False, enable_model_summary=False, logger=self.logger,
            callbacks=[
                RandomState(), DrawRandomNumbers(), *([EMAWeightAveraging(decay=0.5)] if self.ema else []), *more,
                GracefulInterrupt(),
                ModelCheckpoint(filename="best", monitor="val/loss", **keep), ModelCheckpoint(filename="last", **keep),
            ],
            **self.settings,
        )  # fmt: skip
        trainer.fit(task, data, ckpt_path=self.checkpoints / "last.ckpt" if resume else None, weights_only=True)
        self.rate = trainer.optimizers[0].param_groups[0]["lr"]
        return self

    def stop(self, hook, time, number=signal.SIGINT, resume=False):
        with pytest.raises((KeyboardInterrupt, SystemExit, SIGTERMException)):
            self.fit(SendSignal(hook, time, number), resume=resume)
        return self

    def checkpoint(self, name):
        content = torch.load(self.checkpoints / f"{name}.ckpt", weights_only=True)
        parts = ("epoch", "global_step", "state_dict", "current_model_state", "averaging_state")
        momentum = content["optimizer_states"][0]["state"]
        return {key: content[key] for key in parts if key in content} | {"momentum": momentum}


def assert_same(run, whole):
    assert run.logger.validations == whole.logger.validations
    assert run.rate == whole.rate
    for name in ("best", "last"):
        torch.testing.assert_close(run.checkpoint(name), whole.checkpoint(name), rtol=0, atol=0)


@pytest.fixture
def root(tmp_path):
    make_folder(tmp_path / "data", per_class=11)
    return tmp_path


MOMENTS = [
    ("on_validation_batch_start", 2),  # in the first validation
    ("on_validation_batch_start", 4),  # at the start of the second
    ("on_validation_batch_start", 6),  # in its last batch
    ("on_train_batch_start", 2),  # in a step within an epoch, with half-epoch checks the last before a validation
    ("on_train_batch_start", 7),  # in a step within an epoch
    ("on_train_batch_start", 4),  # in the last step of an epoch
    ("on_train_batch_start", 8),  # in the last step of all
]


@pytest.mark.parametrize("hook, time", MOMENTS)
@pytest.mark.parametrize("settings", [{}, {"ema": True}, {"ema": True, "val_check_interval": 0.5}])
def test_a_run_stopped_at_any_time_ends_like_one_that_was_not(root, hook, time, settings):
    whole = Run(root, "whole", **settings).fit()
    assert len(whole.logger.validations) == (4 if "val_check_interval" in settings else 2)
    assert_same(Run(root, "stopped", **settings).stop(hook, time).fit(resume=True), whole)


def test_a_repeated_validation_can_be_stopped_again(root):
    run = Run(root, "stopped", ema=True).stop("on_validation_batch_start", 2)
    run.stop("on_validation_batch_start", 3, resume=True).stop("on_train_batch_start", 2, resume=True)
    assert_same(run.fit(resume=True), Run(root, "whole", ema=True).fit())


def test_the_last_validation_is_repeated_with_max_steps_too(root):
    settings = {"max_steps": 8, "max_epochs": -1}
    run = Run(root, "stopped", **settings).stop("on_validation_batch_start", 5).fit(resume=True)
    assert_same(run, Run(root, "whole", **settings).fit())
    assert run.checkpoint("last")["global_step"] == 8


def test_a_resumed_run_repeats_a_validation_only_once(root):
    run = Run(root, "stopped").stop("on_validation_batch_start", 2).fit(resume=True)
    run.settings["max_epochs"] = 3
    run.fit(resume=True)
    assert [metrics["epoch"] for metrics in run.logger.validations] == [0, 1, 2]


def test_sigterm_in_a_validation_with_averaged_weights(root):
    before = signal.getsignal(signal.SIGTERM)
    run = Run(root, "stopped", ema=True).stop("on_validation_batch_start", 2, signal.SIGTERM)
    signal.signal(signal.SIGTERM, before)
    assert_same(run.fit(resume=True), Run(root, "whole", ema=True).fit())


def test_the_message_announces_the_repeated_validation(root, caplog):
    Run(root, "stopped").stop("on_validation_batch_start", 2)
    messages = [record.getMessage() for record in caplog.records]
    assert any("Interrupted at epoch 0, step 4, in a validation, which will be repeated." in one for one in messages)


class StepLogger(RecordingLogger):
    """Records the steps whose loss is logged."""

    def log_metrics(self, metrics, step=None):
        if "train/loss" in metrics:
            self.validations.append(step)


def test_the_step_at_which_a_run_stops_is_logged(root):
    run = Run(root, "stopped", log_every_n_steps=1)
    run.logger = StepLogger(run.folder)
    run.stop("on_train_batch_start", 2).fit(resume=True)
    assert run.logger.validations == list(range(8))


class SeenBatches(pl.Callback):
    """Notes epoch, index and content of each training batch."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, task, batch, index):
        self.seen.append((trainer.current_epoch, index, trainer.global_step, batch["image"].float().mean().item()))


def train_steps(root, steps, validation, resume=False):
    """Train on 3 batches per epoch until `steps`; return the batches, and the weights in ``last.ckpt``."""
    torch.manual_seed(99 if resume else 3)
    data = ImageFolder(str(root / "data"), val_fraction=0.25, batch_size=5, num_workers=0)
    last, batches = LastCheckpoint(), SeenBatches()
    last.dirpath = str(root)
    trainer = pl.Trainer(
        max_steps=steps, accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=root, callbacks=[RandomState(), GracefulInterrupt(), batches, last], **validation,
    )  # fmt: skip
    task = Classification(TinyNet(dropout=0.5), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9))
    trainer.fit(task, data, ckpt_path=root / "last.ckpt" if resume else None, weights_only=True)
    return batches.seen, torch.load(root / "last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("validation", [{"limit_val_batches": 0}, {}, {"check_val_every_n_epoch": 2}])
def test_more_steps_continue_a_training_wherever_it_ended(root, validation):
    """Also at the end of an epoch, and within one: neither another batch nor the data of another epoch."""
    expected, weights = train_steps(root, 8, validation)
    assert [batch[:3] for batch in expected] == [(step // 3, step % 3, step) for step in range(8)]
    for steps in (2, 3, 6):
        seen, _ = train_steps(root, steps, validation)
        more, resumed = train_steps(root, 8, validation, resume=True)
        assert seen + more == expected, f"after {steps} steps"
        torch.testing.assert_close(resumed, weights, rtol=0, atol=0)
