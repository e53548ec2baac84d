"""Base class of the prediction writers, one per kind of task, and the one of classification."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...tasks import Task
from ..drawing.canvas import captions, class_name, panel
from ..drawing.colors import NEUTRAL
from ..drawing.overlays import MIN_SCORE, drawable_fields, legible_side, score_note, select_objects, target_panel

CORNERS = ("x1", "y1", "x2", "y2")

SIDE = 448
"""Usual longer side of a plot, in pixels."""


class TaskWriter:
    """Writes the predictions of one kind of task: rows of ``predictions.csv``, files beside it, and plots.

    This class writes classes: path, label, score, then label and score of the next classes. Subclasses write boxes,
    masks and objects.

    Args:
        task: The task whose predictions are written.
        folder: Folder of the run.
        rank: Rank of this process.
        paths: Files of all images to predict, in order, for writers that name files or number images by them; None:
            unknown.

    Attributes:
        min_score: Minimum score of the objects in tables and plots.
    """

    def __init__(self, task: Task, folder: Path, rank: int, paths: Sequence[str] | None = None) -> None:
        self.task, self.folder, self.rank = task, folder, rank
        self.min_score = MIN_SCORE

    @property
    def names(self) -> Sequence[str]:
        """The class names that the task knows."""
        return self.task.class_names

    def header(self, prediction: dict[str, Any]) -> list[str]:
        """Return the column names for predictions with the fields of this one."""
        columns = ["path"]
        for rank in range(len(prediction["top_labels"])):
            suffix = f"_{rank + 1}" if rank else ""
            columns += [f"{name}{suffix}" for name in ("label", "score", *self._box_columns(prediction, rank))]
        return columns

    def rows(self, path: str, index: int, prediction: dict[str, Any], size: tuple[int, int]) -> list[list[Any]]:
        """Write the files of one prediction, and return its rows of the table.

        Args:
            path: File of the image.
            index: Index of the image among those to predict.
            prediction: One item of the list that `Task.predict` returns.
            size: Height and width of the image in its file, in pixels.
        """
        row: list[Any] = [path]
        for rank, (label, score) in enumerate(zip(prediction["top_labels"], prediction["top_scores"], strict=True)):
            row += [class_name(label, self.names), f"{score:.6f}", *self._box_cells(prediction, rank)]
        return [row]

    def draw(self, image: np.ndarray, name: str, prediction: dict[str, Any], side: int | None = None) -> np.ndarray:
        """Plot a prediction on its image.

        Args:
            image: RGB uint8.
            name: File name of the image, for the caption.
            prediction: One item of the list that `Task.predict` returns.
            side: Longer side of the plot, in pixels; None: chosen for the image.

        Shape:
            - image: ``[H, W, 3]``.
            - Output: ``[h, w, 3]`` uint8.
        """
        lines = [*captions(prediction, {}, self.names), (name, NEUTRAL)]
        return panel(image, lines, side=side or SIDE, square=False)

    def count_header(self) -> list[str]:
        """Return the column names of ``counts.csv``, one row per image; empty: the task has no such table."""
        return []

    def counts(self, path: str, prediction: dict[str, Any]) -> list[Any]:
        """Return the row of ``counts.csv`` of an image, with the path of its file first."""
        return [path]

    def join(self) -> None:
        """Merge the files of all ranks; called on the first rank, when all are done."""

    def _box_columns(self, prediction: dict[str, Any], rank: int) -> Sequence[str]:
        return ()

    def _box_cells(self, prediction: dict[str, Any], rank: int) -> list[str]:
        return []


class OverlayWriter(TaskWriter):
    """Base class of the writers that draw predictions over the image."""

    labels = True

    def draw(self, image: np.ndarray, name: str, prediction: dict[str, Any], side: int | None = None) -> np.ndarray:
        """Draw a prediction over its image ``[H, W, 3]``, to ``[h, w, 3]`` uint8 (`TaskWriter.draw`)."""
        note = name + score_note(prediction, self.min_score)
        if side is None:
            shown, _ = select_objects(drawable_fields(prediction), self.min_score)
            side = legible_side(image, shown, SIDE, 2 * SIDE)
        return target_panel(image, prediction, self.names, note, side, self.min_score, square=False, labels=self.labels)


class BoxWriter(OverlayWriter):
    """Writes the predictions of localization: like classes, with ``x1, y1, x2, y2`` in pixels of the file.

    The corners follow the score and, for a model with one box per class, the scores of the next classes (``x1_2``, …).
    """

    def _box_columns(self, prediction: dict[str, Any], rank: int) -> Sequence[str]:
        return CORNERS if rank == 0 or "top_boxes" in prediction else ()

    def _box_cells(self, prediction: dict[str, Any], rank: int) -> list[str]:
        boxes = prediction.get("top_boxes", [prediction["box"]])
        return [f"{side:.2f}" for side in boxes[rank].tolist()] if rank < len(boxes) else []


def file_size(batch: dict[str, Any], index: int) -> tuple[int, int]:
    """Height and width of an image in its file; of the image itself if the batch does not have them."""
    sizes = batch.get("file_size")
    if sizes is not None:
        height, width = sizes[index].tolist()
        return height, width
    image: Tensor = batch["image"][index]
    return image.shape[-2], image.shape[-1]
