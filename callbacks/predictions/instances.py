"""Predictions of instance segmentation: COCO's files with run lengths, masks of object ids, and their classes."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...datamodules.export.writer import write_indexed
from ...tasks import InstanceSegmentation
from ...tasks.interfaces import RunLengths
from ..drawing.canvas import class_name
from .detection import DetectionWriter


class InstanceWriter(DetectionWriter):
    """Writes what `DetectionWriter` writes, with masks.

    - ``predictions.csv`` has two more columns: ``area``, the number of pixels of the mask, and ``id``, the value of its
      pixels in the file of ids.
    - ``detections.json`` has each mask as compressed run lengths, ``segmentation``. pycocotools evaluates it as boxes
      and as masks. As masks, it takes the area of the box as the size of an unmatched detection, unless you remove
      ``bbox``.
    - ``instances/NAME.png`` has the objects of the tables: 0 is background, and each other value an object, 1, 2, … by
      descending score. Where masks overlap, the object of higher score is on top; one that is covered has no pixels. 8
      bits, or 16 for more than 255 objects. NAME is the path of the image without suffix, below the folder that all
      images are in, with the index of the image in front where two are the same or paths are unknown.
    - ``instances.csv`` has the class of each: ``path`` (the image's, below the same folder), ``id``, ``label``.

    `InstanceMasks` reads the images, the masks and, as its ``class_file``, the table.

    Args:
        task: See `TaskWriter`.
        folder: See `TaskWriter`.
        rank: See `TaskWriter`.
        paths: See `TaskWriter`.
    """

    task: InstanceSegmentation

    def __init__(self, task: InstanceSegmentation, folder: Path, rank: int, paths: Sequence[str] | None = None) -> None:
        super().__init__(task, folder, rank, paths)
        folders = [Path(path).absolute().parent for path in paths or ()]
        self._root = os.path.commonpath(folders) if folders else None
        # some file systems do not distinguish names that differ only in case
        self._names = Counter(str(self._name(path)).lower() for path in paths or ())
        self._classes = folder / f"instances.rank{rank}.csv"
        self._classes.unlink(missing_ok=True)

    def _name(self, path: str) -> Path:
        """The path of an image below the folder of all images, without suffix."""
        return Path(os.path.relpath(Path(path).absolute(), self._root) if self._root else Path(path).name).with_suffix(
            ""
        )

    def header(self, prediction: dict[str, Any]) -> list[str]:
        """Return the column names of a table with one row per object."""
        return [*super().header(prediction), "area", "id"]

    def mask_fields(
        self, path: str, index: int, prediction: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """Write the ids of the objects of an image and their classes; return run lengths, areas and ids of all."""
        from hotcoco import mask as rle  # takes a quarter of a second to import

        masks: RunLengths = prediction["masks"]
        shown = self._shown(prediction).nonzero()[:, 0]
        order = shown[prediction["scores"][shown].argsort(descending=True, stable=True)]
        ids = np.zeros(masks.size, np.uint8 if len(order) <= 255 else np.uint16)
        numbers = list(range(len(order), 0, -1))  # lower scores first, so that higher scores are on top
        for number, (pixels, x, y) in zip(numbers, masks[order.flip(0)].windows(), strict=True):
            window = ids[y : y + pixels.shape[1], x : x + pixels.shape[0]]
            window[pixels.numpy().T] = number
        name = self._name(path)
        unique = self._names[str(name).lower()] == 1
        file = name if unique else name.with_name(f"{index:05d}_{name.name}")
        write_indexed(self.folder / "instances" / f"{file}.png", ids)
        number_of = dict(zip(order.tolist(), reversed(numbers), strict=True))
        labels = prediction["labels"].tolist()
        rows = [[f"{file}{Path(path).suffix}", n, class_name(labels[k], self.names)] for k, n in number_of.items()]
        with self._classes.open("a", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows([index, *row] for row in rows)
        fields: list[dict[str, Any]] = []
        for runs in masks.coco():
            packed = rle.fr_py_objects(runs, *masks.size)
            fields.append({"segmentation": {"size": runs["size"], "counts": packed["counts"].decode()}})
        return fields, [[area, number_of.get(k, 0)] for k, area in enumerate(masks.area().tolist())]

    def join(self) -> None:
        """Merge the files of all ranks, by index of the image."""
        super().join()
        parts = sorted(self.folder.glob("instances.rank*.csv"))
        rows: list[list[str]] = []
        for part in parts:
            with part.open(newline="", encoding="utf-8") as file:
                rows += csv.reader(file)
            part.unlink()
        rows.sort(key=lambda row: int(row[0]))  # stable
        if parts:
            with (self.folder / "instances.csv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([["path", "id", "label"], *(row[1:] for row in rows)])
