"""What a run records on W&B beside its metrics: the best result, and rows lost by a kill."""

import csv
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from ..compat import logged_step, stepped_batches
from .logging import run_folder
from .wandb_logger import RunLogger

METRICS_FILE = "metrics.csv"
"""The rows of the history on disk."""


class WandbRecord(pl.Callback):
    """Completes the record of a run on W&B.

    The summary holds the best value of the monitored metric beside the last one: ``best/val/acc``, ``best/epoch`` and
    ``best/step``. Rows that a killed run could not send are sent when it is resumed. Checkpoints store which run on W&B
    they belong to.
    """

    def __init__(self) -> None:
        self._best: dict[str, Any] | None = None
        self._run: dict[str, str] | None = None
        self._restored = False

    def state_dict(self) -> dict[str, Any]:
        """Return the best result so far, and the identity of the run on W&B."""
        return {"best": self._best, "run": self._run}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best result."""
        self._best = state_dict["best"]

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Note which run of W&B this is."""
        for logger in run_loggers(trainer):
            self._run = logger.identity()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the rows that a killed run has lost."""
        folder = run_folder(trainer)
        for logger in run_loggers(trainer):
            self._restore(trainer, logger, folder)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Send the rows that are missing of a training that had ended already, which does not start again."""
        folder = run_folder(trainer)
        for logger in run_loggers(trainer):
            self._restore(trainer, logger, folder)

    def _restore(self, trainer: pl.Trainer, logger: RunLogger, folder: Path) -> None:
        if trainer.ckpt_path is not None and not self._restored:
            send = partial(restore_history, trainer, logger, folder / METRICS_FILE)
            logger.guard.call(f"sending the missing rows of {METRICS_FILE}", send)
        self._restored = True

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the best value of the monitored metric."""
        monitor, mode = getattr(pl_module, "monitor", None), getattr(pl_module, "mode", "min")
        if trainer.sanity_checking or trainer.state.fn != "fit" or monitor not in trainer.callback_metrics:
            return
        value = float(trainer.callback_metrics[monitor])
        best = self._best or {"value": -math.inf if mode == "max" else math.inf}
        if value > best["value"] if mode == "max" else value < best["value"]:  # NaN is no improvement
            self._best = {"value": value, "epoch": trainer.current_epoch, "step": logged_step(trainer)}
        for logger in run_loggers(trainer):
            if self._best is not None:
                best = {"epoch": self._best["epoch"], "step": self._best["step"], monitor: self._best["value"]}
                logger.update_summary({f"best/{key}": entry for key, entry in best.items()})


def run_loggers(trainer: pl.Trainer) -> list[RunLogger]:
    """The W&B loggers of this process that record the run: none on other ranks than the first."""
    return [logger for logger in trainer.loggers if isinstance(logger, RunLogger) and logger.active]


def restore_history(trainer: pl.Trainer, logger: RunLogger, path: Path) -> None:
    """Send the rows that are missing on W&B and that training will not repeat, and list those that are there already.

    Args:
        trainer: The trainer, about to continue.
        logger: The logger; rows after its `last_step` are missing.
        path: ``metrics.csv`` of the run.
    """
    resumed, last = stepped_batches(trainer), logger.last_step
    if not path.is_file():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = {int(row["step"]): parse_row(row, lr_name(trainer)) for row in csv.DictReader(file) if row.get("step")}
    # the table may have been cut at the checkpoint already
    logger.restored = logger.restored or rows.get(last, {}).keys()
    missing = [step for step in sorted(rows) if last < step <= resumed]
    for step in missing:
        logger.log_metrics(rows[step], step)
    if missing:
        rank_zero_info(f"W&B: {len(missing)} rows up to step {missing[-1]}, which it did not have, are sent again.")
    if last > resumed:
        rank_zero_info(
            f"W&B: steps {resumed + 1} to {last} are in the run already and are not sent again; if they will differ, "
            "as with another configuration, start a new run without --ckpt_path"
        )


def parse_row(row: dict[str, str], lr: str) -> dict[str, float]:
    """The numbers of a row of ``metrics.csv``, with the learning rate under its name on W&B."""
    values = {key: float(value) for key, value in row.items() if value and key != "step"}
    return {lr if key == "lr" else key: int(value) if key == "epoch" else value for key, value in values.items()}


def lr_name(trainer: pl.Trainer) -> str:
    """The name that Lightning's monitor gives the learning rate: that of the only parameter group, or ``lr``."""
    groups = [optimizer.param_groups for optimizer in trainer.optimizers]
    return f"lr-{type(trainer.optimizers[0]).__name__}" if list(map(len, groups)) == [1] else "lr"
