"""Output of plots and tables to the run's folder and to the trainer's loggers."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger


@runtime_checkable
class LogsImages(Protocol):
    """A logger that takes images, as W&B's does."""

    def log_image(self, key: str, images: list[Any]) -> None:
        """Log images ``[H, W, 3]`` uint8 under one key."""
        ...


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
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image(key, picture, trainer.global_step, dataformats="HWC")
        elif isinstance(logger, LogsImages) and (on_wandb or not isinstance(logger, WandbLogger)):
            logger.log_image(key, [picture])


def log_table(trainer: pl.Trainer, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path, key: str) -> None:
    """Save a table as CSV, and log it under `key` on W&B. Call this on the first rank only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
