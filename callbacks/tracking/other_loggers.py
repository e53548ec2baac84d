"""Plots and tables on loggers other than W&B's: TensorBoard, MLflow, Comet, and any with ``log_image``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from pytorch_lightning.loggers import CometLogger, Logger, MLFlowLogger, TensorBoardLogger


@runtime_checkable
class LogsImages(Protocol):
    """A logger that takes images, as W&B's does."""

    def log_image(self, key: str, images: list[Any]) -> None:
        """Log images ``[H, W, 3]`` uint8 under one key."""
        ...


def log_other_picture(logger: Logger, picture: np.ndarray, path: Path, key: str, step: int) -> None:
    """Log a plot, if the logger can hold plots; a CSV logger cannot.

    Args:
        logger: Any logger but W&B's.
        picture: RGB uint8 ``[H, W, 3]``.
        path: The plot as PNG file, which MLflow stores as an artifact.
        key: Key of the plot, such as ``val/pictures``.
        step: Training step.
    """
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(key, picture, step, dataformats="HWC")
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "pictures")
    elif isinstance(logger, CometLogger):
        logger.experiment.log_image(picture, name=key, step=step)
    elif isinstance(logger, LogsImages):
        logger.log_image(key, [picture])


def log_other_table(
    logger: Logger, columns: Sequence[str], rows: Sequence[Sequence[Any]], path: Path, key: str, step: int
) -> None:
    """Log a table, if the logger can hold tables: TensorBoard as text, MLflow and Comet as the CSV file at `path`."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_text(key, markdown_table(columns, rows), step)
    elif isinstance(logger, MLFlowLogger):
        logger.experiment.log_artifact(logger.run_id, str(path), "tables")
    elif isinstance(logger, CometLogger):
        logger.experiment.log_table(str(path))


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown; None is an empty cell.

    >>> print(markdown_table(["class", "IoU"], [["a|b", 0.5], ["c", None]]))
    | class | IoU |
    | --- | --- |
    | a&#124;b | 0.5 |
    | c |  |
    """

    def text(cell: Any) -> str:
        return "" if cell is None else str(cell).replace("|", "&#124;").replace("\n", " ")

    texts = [[text(cell) for cell in row] for row in (columns, ["---"] * len(columns), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in texts)
