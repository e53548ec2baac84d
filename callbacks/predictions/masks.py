"""Predicted masks as files, and the pixels of each class as rows of a table."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from torch import Tensor

from ...datamodules.export.voc import palette
from ...datamodules.export.writer import write_indexed
from ..drawing.canvas import class_name


class MaskWriter:
    """Writes masks as PNG files with VOC's palette, whose indices are the classes: ``masks/NAME.png``.

    NAME is the image's without its suffix, as an evaluation server wants it; images that share theirs with another have
    their number in front, ``00012_NAME.png``. `MaskFolder` and `VOCSegmentation` read such files.

    Args:
        folder: of the run.
        dataset: what is predicted, if it says which files those are (``dataset.source.paths``); otherwise every name
            has its number in front.
    """

    def __init__(self, folder: Path, dataset: Any = None) -> None:
        self._folder, self._palette = folder / "masks", palette()
        paths = getattr(getattr(dataset, "source", None), "paths", None)
        # names that differ by case alone are one file on some systems
        self._stems = None if paths is None else Counter(Path(path).stem.lower() for path in paths)

    def header(self, task: pl.LightningModule) -> list[str]:
        """The names of `write`'s columns."""
        return ["path", "width", "height", "mask", *(class_name(k, _names(task)) for k in range(_count(task)))]

    def write(self, path: str, index: int, mask: Tensor, task: pl.LightningModule) -> list[Any]:
        """Write one mask, and give its row: path, width, height, the mask's file, pixels of each class.

        Shape:
            - mask: ``[H, W]`` uint8.
        """
        stem = Path(path).stem
        alone = self._stems is not None and self._stems[stem.lower()] == 1
        name = f"{stem}.png" if alone else f"{index:05d}_{stem}.png"
        values = mask.cpu().numpy().astype(np.uint8, copy=False)
        write_indexed(self._folder / name, values, self._palette)
        areas = np.bincount(values.ravel(), minlength=_count(task)).tolist()
        return [path, values.shape[1], values.shape[0], f"masks/{name}", *areas]


def _names(task: pl.LightningModule) -> list[str]:
    return list(getattr(task, "class_names", []))


def _count(task: pl.LightningModule) -> int:
    return int(getattr(task, "num_classes", None) or len(_names(task)))
