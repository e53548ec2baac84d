"""Rows of the W&B logger, recorded by a stand-in for the client's run."""

import logging
from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch

from striate.callbacks import WandbRecord
from striate.callbacks.tracking.wandb_logger import FATAL, RunLogger
from striate.callbacks.tracking.wandb_record import restore_history


class Run:
    """Keeps what is logged; a key in `fails` raises."""

    def __init__(self, folder):
        self.rows, self.summary, self.exit_code, self.axes = [], {}, None, {}
        self.fails, self._pending = set(), {}
        self.settings = SimpleNamespace(
            sync_dir=str(folder / "wandb" / "run-1"), log_internal=str(folder / "internal.log")
        )

    def log(self, data, commit=True):
        """Add to the row at hand, as W&B does."""
        if self.fails & data.keys():
            raise RuntimeError("refused")
        self._pending |= data
        if commit:
            self.rows.append(self._pending)
            self._pending = {}

    def define_metric(self, name, step_metric=None):
        """Keep the axis of a metric."""
        self.axes[name] = step_metric

    def finish(self, exit_code):
        """Keep the exit code."""
        if self.exit_code == "hangs":
            raise TimeoutError
        self.exit_code = exit_code


@pytest.fixture
def logger(tmp_path, caplog, monkeypatch):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "pytorch_lightning")
    return RunLogger(Run(tmp_path), tmp_path, timeout=10, offline=False)


def steps(logger):
    return [row["trainer/global_step"] for row in logger.experiment.rows]


def test_metrics_and_media_of_a_step_are_one_row(logger, caplog):
    run = logger.experiment
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, 9)
    logger.log_media("pictures", lambda: {"val/pictures": ["image"]}, 9)
    logger.log_metrics({"val/acc": 0.5, "epoch": 0}, 9)
    assert not run.rows
    logger.log_metrics({"train/loss": 0.5, "epoch": 1}, 10)
    assert run.rows == [
        {"train/loss": 1.0, "val/acc": 0.5, "epoch": 0, "val/pictures": ["image"], "trainer/global_step": 9}
    ]
    assert run.axes == {
        "train/loss": "trainer/global_step",
        "val/acc": "epoch",
        "epoch": None,
        "trainer/global_step": None,
    }
    run.fails = {"val/pictures"}
    logger.log_media("pictures", lambda: {"val/pictures": ["image"]}, 10)
    logger.log_media("tables", lambda: 1 / 0, 10)
    logger.finalize("success")
    assert run.rows[1] == {"train/loss": 0.5, "epoch": 1, "trainer/global_step": 10}  # the numbers are kept
    about = [line.getMessage() for line in caplog.records]
    assert len(about) == 2 and "tables failed (division by zero)" in about[0]
    assert "recording val/pictures failed (refused)" in about[1] and about[1].endswith("its record is in wandb/run-1")


def test_a_resumed_run_sends_what_is_missing_and_nothing_twice(logger, tmp_path):
    """The server has steps 0 to 3; it lacks those up to 5, where a validation was interrupted."""
    logger.last_step = 3
    lines = [f"{step},{step // 6},{step / 10},0.1," for step in range(6)]
    (tmp_path / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,lr,val/acc", *lines]))
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    trainer.fit_loop.epoch_loop._batches_that_stepped = 5
    trainer.strategy.optimizers = [torch.optim.SGD([torch.zeros(1)], 0.1)]
    restore_history(trainer, logger, tmp_path / "metrics.csv")
    logger.log_metrics({"val/acc": 0.75, "epoch": 0}, 5)  # the validation is repeated
    logger.log_metrics({"train/loss": 0.6, "epoch": 1}, 6)
    logger.finalize("success")
    assert steps(logger) == [4, 5, 6]
    assert logger.experiment.rows[1] == {
        "train/loss": 0.5, "lr-SGD": 0.1, "val/acc": 0.75, "epoch": 0, "trainer/global_step": 5
    }  # fmt: skip


def test_a_table_that_is_damaged_does_not_stop_training(logger, tmp_path, caplog):
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n0,0,1\n1,0,0.5#\n")
    trainer = pl.Trainer(
        logger=logger,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    trainer.ckpt_path = "last.ckpt"
    trainer.strategy.optimizers = [torch.optim.SGD([torch.zeros(1)], 0.1)]
    WandbRecord()._restore(trainer, logger, tmp_path)
    assert "W&B: sending the missing rows of metrics.csv failed (could not convert" in caplog.records[-1].getMessage()


def test_steps_that_the_server_has_are_not_sent_again(logger, tmp_path, caplog):
    """Training resumes after step 2; the server has steps up to 5, without the metrics of its validation."""
    logger.last_step = 5
    (tmp_path / "metrics.csv").write_text("step,epoch,train/loss\n" + "".join(f"{step},0,1\n" for step in range(6)))
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    trainer.fit_loop.epoch_loop._batches_that_stepped = 2
    restore_history(trainer, logger, tmp_path / "metrics.csv")
    assert "W&B: steps 3 to 5 are in the run already" in caplog.records[-1].getMessage()
    for step in range(3, 8):
        logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step)
        if step == 5:
            logger.log_media("pictures", lambda: {"val/pictures": ["image"]}, step)
            logger.log_metrics({"val/acc": 0.5, "epoch": 0}, step)
    logger.finalize("success")
    assert steps(logger) == [5, 6, 7] and logger.experiment.rows[0].keys() >= {"val/acc", "val/pictures"}
    assert "train/loss" not in logger.experiment.rows[0] and logger.experiment.rows[1]["train/loss"] == 1


@pytest.mark.parametrize("end", ["complete", "refused", "late"])
def test_one_line_says_what_became_of_the_record(logger, tmp_path, caplog, end):
    (tmp_path / "internal.log").write_text(f'{{"msg":"{FATAL}: 401"}}' if end == "refused" else "fine")
    logger.experiment.exit_code = "hangs" if end == "late" else None
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finish(1)
    assert steps(logger) == [0]
    about = [line.getMessage() for line in caplog.records]
    if end == "complete":
        assert not about and logger.experiment.exit_code == 1
    else:
        (line,) = about
        reason = {"refused": "the server has refused it", "late": "not done after 10 s"}[end]
        assert line.startswith(
            f"W&B: the record is not complete on the server ({reason}), but in wandb/run-1. To send what is "
        )
        assert "--ckpt_path last" in line and "wandb sync --include-online --id NEW_ID wandb/run-1" in line
    logger.log_metrics({"train/loss": 1.0}, 1)  # after the end: nothing
    logger.finish(0)
    assert steps(logger) == [0]


@pytest.mark.parametrize("mode, best", [("max", (0.75, 1)), ("min", (0.25, 3))])
def test_the_summary_holds_the_best_value_and_its_epoch(logger, mode, best):
    record, task = WandbRecord(), SimpleNamespace(monitor="val/x", mode=mode)
    trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    trainer.state.fn = "fit"
    for epoch, value in enumerate((float("nan"), 0.75, 0.5, 0.25, 0.75)):
        trainer.fit_loop.epoch_progress.current.processed = trainer.fit_loop.epoch_progress.current.completed = epoch
        trainer.fit_loop.epoch_loop._batches_that_stepped = 10 * (epoch + 1)
        trainer._logger_connector._callback_metrics = {"val/x": torch.tensor(value)}
        record.on_validation_end(trainer, task)
        if epoch == 2:  # interrupted and resumed
            state = record.state_dict()
            record = WandbRecord()
            record.load_state_dict(state)
    value, epoch = best
    expected = {"best/val/x": value, "best/epoch": epoch, "best/step": 10 * (epoch + 1) - 1}
    assert logger.experiment.summary == expected
