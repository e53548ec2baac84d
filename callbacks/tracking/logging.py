"""Output of plots and tables to the run's folder and to the trainer's loggers."""

import csv
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from ..compat import logged_step, wandb_image
from .guarded_loggers import guard_of
from .other_loggers import log_other_picture, log_other_table
from .wandb_logger import RunLogger


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run. All ranks agree on it, so every rank must call this at the same time."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def log_picture(trainer: pl.Trainer, picture: np.ndarray, path: Path, key: str, on_wandb: bool = True) -> None:
    """Save a plot as PNG, and log it under `key` on every logger that takes images.

    Args:
        trainer: Its loggers are used. Call this on the first rank only.
        picture: RGB uint8 ``[H, W, 3]``.
        path: The PNG file; its folder is created.
        key: Key of the plot, such as ``val/pictures``.
        on_wandb: Log it on W&B too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            if on_wandb:
                log_media(logger, key, lambda: [wandb_image(picture)], logged_step(trainer))
        else:
            call = partial(log_other_picture, logger, picture, path, key, logged_step(trainer))
            guard_of(logger).call("recording", call, waits=True)


def log_media(logger: WandbLogger, key: str, build: Callable[[], Any], step: int) -> None:
    """Log media on W&B under the step whose metrics they belong to; failures become one line.

    Args:
        logger: A W&B logger, also one that is not striate's.
        key: Key of the media.
        build: Returns the media; it may fail.
        step: Training step.
    """
    if isinstance(logger, RunLogger):
        logger.log_media(key, lambda: {key: build()}, step)
    else:
        guard_of(logger).call("recording", lambda: logger.log_metrics({key: build()}, step), waits=True)


def log_table(trainer: pl.Trainer, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path, key: str) -> None:
    """Save a table as CSV, and log it under `key` on the loggers. Call this on the first rank only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            data = [list(row) for row in rows]
            log_media(logger, key, partial(wandb_table, columns, data), logged_step(trainer))
        else:
            call = partial(log_other_table, logger, columns, rows, path, key, logged_step(trainer))
            guard_of(logger).call("recording", call, waits=True)


def wandb_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Any:
    """A table of W&B; the cells of a column are of one type, or None."""
    import wandb

    return wandb.Table(columns=list(columns), data=[list(row) for row in rows])
