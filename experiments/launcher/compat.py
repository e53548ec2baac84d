"""Private names of other libraries that the launcher depends on; each has a test that fails when the name moves."""

import csv
import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from jsonargparse import _typehints
from pytorch_lightning.callbacks import LearningRateFinder, RichProgressBar, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector

from ...callbacks.atomic_files import replace_file


class MetricsLogger(CSVLogger):
    """Lightning's CSV logger with the table of `MetricsWriter`."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of ``metrics.csv``."""
        if self._experiment is None:
            os.makedirs(self.log_dir, exist_ok=True)  # noqa: PTH103
            self._experiment = MetricsWriter(log_dir=self.log_dir)
        return self._experiment


class MetricsWriter(ExperimentWriter):
    """Writes one row per step, with six significant digits and one column for the learning rate.

    The last row on disk is rewritten when more metrics of its step arrive. A resumed run continues the file, from the
    step at which it resumes. The learning rate is the largest one of the parameter groups; a second optimizer has a
    column of its own.
    """

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir=log_dir)
        self._length: int | None = None  # of the file without its last row, in bytes
        self._unsaved = False
        self._rates: dict[str, float] = {}  # logged at the start of a step or epoch, for its row
        self._optimizers: list[str] = []

    def _check_log_dir_exists(self) -> None:
        """Keep an existing file, which Lightning's writer deletes."""

    def log_metrics(self, metrics_dict: dict[str, Any], step: int | None = None) -> None:
        """Add metrics to the row of a step. Learning rates alone wait for the row that follows."""
        rates: dict[str, float] = {}
        row: dict[str, Any] = {}
        for key, value in metrics_dict.items():
            number = value.item() if hasattr(value, "item") else value
            match = None if key.endswith(("-momentum", "-weight_decay")) else re.fullmatch(r"lr-([^/]+)(/.*)?", key)
            if match:
                rates[match[1]] = max(number, rates.get(match[1], number))
            else:
                row[key] = float(f"{number:.6g}") if isinstance(number, float) else number
        for optimizer, rate in rates.items():
            if optimizer not in self._optimizers:
                self._optimizers.append(optimizer)
            name = "lr" if optimizer == self._optimizers[0] else f"lr-{optimizer}"
            self._rates[name] = float(f"{rate:.6g}")
        if not row:
            return
        row |= {**self._rates, "step": step if step is not None else len(self.metrics)}
        self._rates = {}
        if self.metrics and self.metrics[-1]["step"] == row["step"]:
            self.metrics[-1] |= row
        else:
            self.metrics.append(row)
        self._unsaved = True

    def save(self) -> None:
        """Write the new rows, and the last row of before if it has changed."""
        if not self._unsaved:
            return
        self._unsaved = False
        path = Path(self.metrics_file_path)
        earlier: list[dict[str, Any]] | None = None
        if self._length is None:
            earlier = parse_rows(path.read_bytes()) if path.is_file() else []
            while earlier and int(earlier[-1].get("step") or 0) >= self.metrics[0]["step"]:
                overlap = earlier.pop()
                if int(overlap["step"]) == self.metrics[0]["step"]:
                    self.metrics[0] = {**overlap, **self.metrics[0]}
            self.metrics_keys = sorted(set().union(*earlier[:1]))
        changed = self._record_new_keys()
        finished, last = self._format(self.metrics[:-1]), self._format(self.metrics[-1:])
        if changed or earlier is not None:
            if earlier is None:
                earlier = parse_rows(path.read_bytes()[: self._length])
            before = self._format(earlier, header=True)
            with replace_file(path) as table:
                table.write(before + finished + last)
            self._length = len(before)
        else:
            with path.open("r+b") as file:
                file.seek(self._length or 0)
                file.write(finished + last)
                file.truncate()  # last, so that a kill in between loses no row
        self._length = (self._length or 0) + len(finished)
        del self.metrics[:-1]

    def _format(self, rows: Sequence[dict[str, Any]], header: bool = False) -> bytes:
        """Rows as CSV, with or without the line of column names."""
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, self.metrics_keys)
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()


def parse_rows(content: bytes) -> list[dict[str, Any]]:
    """The rows of a CSV file with a header, without a last one that a kill or a full disk has cut off."""
    complete = content[: content.rfind(b"\n") + 1]
    return list(csv.DictReader(io.StringIO(complete.decode(), newline="")))


class BarText:
    """What both progress bars show: the number of the epoch, as in files and metrics, and no number of the run."""

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        """Return the metrics that the bar shows."""
        metrics: dict[str, Any] = super().get_metrics(trainer, pl_module)  # type: ignore[misc]
        return {key: value for key, value in metrics.items() if key != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        """The epoch, counted from 0, and the progress in epochs, such as ``Epoch 0 (1 of 10)``."""
        epochs = self.trainer.max_epochs  # type: ignore[attr-defined]
        return f"Epoch {current_epoch}" + (f" ({current_epoch + 1} of {epochs})" if epochs not in (None, -1) else "")


class TerminalBar(BarText, RichProgressBar):
    """Lightning's progress bar for terminals, with `BarText`. It stops when a stage ends.

    Lightning stops it later, at teardown. Until then it would erase the last line that another callback prints.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar at the end of training."""
        self._stop_progress()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar, unless this validation is part of training."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn != "fit":
            self._stop_progress()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the progress bar after a test."""
        super().on_test_end(trainer, pl_module)
        self._stop_progress()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the bar after predictions."""
        super().on_predict_end(trainer, pl_module)
        self._stop_progress()


class PlainBar(BarText, TQDMProgressBar):
    """Lightning's progress bar for files and pipes, with `BarText`."""

    def on_train_epoch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        """Start the bar of an epoch."""
        super().on_train_epoch_start(trainer, *args)
        self.train_progress_bar.set_description(self._get_train_description(trainer.current_epoch))


def leave_rate_alone(finder: LearningRateFinder) -> None:
    """Let the finder search without setting the learning rate itself."""
    finder._update_attr = False


def discard_replaced_arguments(parser: Any, before: Any, value: Any) -> None:
    """Discard the arguments of a class that another class replaces.

    jsonargparse (4.53) keeps those that the new class accepts, among them the defaults of the old class, so that SGD
    would have AdamW's weight decay wherever AdamW is the default of the signature.

    Args:
        parser: Not used.
        before: The configuration of the old class; its arguments are removed in place.
        value: The configuration of the new class.
    """
    if not before or "init_args" not in before or before["class_path"] == value["class_path"]:
        return
    old, new = (_typehints.import_object(one["class_path"]) for one in (before, value))
    if old is not new:
        before["init_args"] = type(before["init_args"])()


def keep_own_defaults() -> None:
    """Let jsonargparse use `discard_replaced_arguments`."""
    _typehints.discard_init_args_on_class_path_change = discard_replaced_arguments


class FreshStart(_CheckpointConnector):
    """Ignores ``hpc_ckpt_N.ckpt`` in ``default_root_dir``, from which Lightning starts any job under SLURM."""

    _hpc_resume_path = None


def ignore_requeue_checkpoints(trainer: pl.Trainer) -> None:
    """Let a trainer load no other checkpoint than the one that it is given."""
    trainer._checkpoint_connector = FreshStart(trainer)
