"""Predictions of semantic segmentation: masks as files, and the pixels of each class in a table."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datamodules.export.voc import palette
from ...datamodules.export.writer import write_indexed
from ...tasks import Task
from ..drawing.canvas import class_name
from .base import OverlayWriter


class MaskWriter(OverlayWriter):
    """Writes masks as PNG files with VOC's palette, whose indices are the classes: ``masks/NAME.png``.

    NAME is the image's without its suffix, as evaluation servers expect it. Images of the same name have their index in
    front, ``00012_NAME.png``, and so have all images if the paths are unknown. `MaskFolder` and `VOCSegmentation` read
    such files.

    A row of the table: path, width, height, the mask's file, and the number of pixels of each class.

    Args:
        task: See `TaskWriter`.
        folder: See `TaskWriter`.
        rank: See `TaskWriter`.
        paths: See `TaskWriter`.
    """

    def __init__(self, task: Task, folder: Path, rank: int, paths: Sequence[str] | None = None) -> None:
        super().__init__(task, folder, rank, paths)
        self._palette = palette()
        # some file systems do not distinguish names that differ only in case
        self._stems = Counter(Path(path).stem.lower() for path in paths or ())

    def header(self, prediction: dict[str, Any]) -> list[str]:
        """Return the column names, which end with the names of the classes."""
        names = (class_name(k, self.names) for k in range(self.task.num_classes))
        return ["path", "width", "height", "mask", *names]

    def rows(self, path: str, index: int, prediction: dict[str, Any], size: tuple[int, int]) -> list[list[Any]]:
        """Write one mask, and return its row."""
        stem = Path(path).stem
        name = f"{stem}.png" if self._stems[stem.lower()] == 1 else f"{index:05d}_{stem}.png"
        mask = prediction["mask"].cpu().numpy().astype(np.uint8, copy=False)  # [H, W]
        write_indexed(self.folder / "masks" / name, mask, self._palette)
        areas = np.bincount(mask.ravel(), minlength=self.task.num_classes).tolist()
        return [[path, mask.shape[1], mask.shape[0], f"masks/{name}", *areas]]
