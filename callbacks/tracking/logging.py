"""Writing pictures and tables into the run's folder and to whatever loggers the trainer has."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger


def run_folder(trainer: pl.Trainer) -> Path:
    """The folder of the run. It is agreed among all ranks, so every rank must ask, at the same time."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def log_picture(trainer: pl.Trainer, picture: np.ndarray, path: Path, key: str) -> None:
    """Save a picture as PNG and show it under `key` on every logger that can show pictures.

    Args:
        trainer: its loggers are used; call this on the first rank only.
        picture: RGB uint8 ``[H, W, 3]``.
        path: the PNG file; its folder is made.
        key: such as ``val/pictures``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)
    for logger in trainer.loggers:
        _show(logger, picture, key, trainer.global_step)


def _show(logger: Logger, picture: np.ndarray, key: str, step: int) -> None:
    if isinstance(logger, WandbLogger):
        logger.log_image(key, [picture])
    elif isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(key, picture, step, dataformats="HWC")
    elif callable(log_image := getattr(logger, "log_image", None)):
        log_image(key, [picture])


def log_table(trainer: pl.Trainer, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path, key: str) -> None:
    """Save a table as CSV, and show it on W&B under `key`; call this on the first rank only."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns=list(columns), data=[list(row) for row in rows])
