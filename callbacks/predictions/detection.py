"""Predictions of object detection: rows of a table, and COCO's files."""

import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...tasks import Detection
from ..drawing.canvas import class_name
from ..drawing.overlays import MIN_SCORE
from .base import CORNERS, OverlayWriter


class DetectionWriter(OverlayWriter):
    """Writes one row per object, the numbers of objects of each image, and COCO's ``detections.json``, ``images.json``.

    The tables, ``predictions.csv`` and ``counts.csv``, have the objects that plots show: all that the task predicts if
    its ``score_threshold`` is above 0, else those with a score of at least 0.5. ``detections.json`` has all objects.

    ``detections.json`` is a list of results. ``images.json`` is an annotation file without annotations: images with
    their ids, names and sizes, and categories. pycocotools reads both: ``COCO("images.json").loadRes
    ("detections.json")``. If the ids are those of the source, its annotation file can replace ``images.json``.

    - ``category_id``: the source's own, if the data module of the training has them (COCO's 1 … 90), else 1 … K, where
      class 0 is 1.
    - ``image_id``: the number in the file's name, as for COCO's files (``000000000139.jpg``: 139), if all files have
      such names and no number occurs twice; else 1, 2, … in the order of the images.
    - ``bbox``: x, y, width, height in pixels of the image in its file.

    Each image is written when it is predicted, as one line in a file of this rank. `join` merges the lines of all ranks
    into the two files, with one line in memory at a time.

    Args:
        task: See `TaskWriter`.
        folder: See `TaskWriter`.
        rank: See `TaskWriter`.
        paths: See `TaskWriter`. If unknown, images are numbered.
    """

    task: Detection

    def __init__(self, task: Detection, folder: Path, rank: int, paths: Sequence[str] | None = None) -> None:
        super().__init__(task, folder, rank, paths)
        self.min_score = 0.0 if task.score_threshold > 0 else MIN_SCORE
        self._lines = folder / f"detections.rank{rank}.jsonl"
        self._lines.unlink(missing_ok=True)
        self._image_ids = None if paths is None else image_ids(paths)

    def header(self, prediction: dict[str, Any]) -> list[str]:
        """Return the column names of a table with one row per object."""
        return ["path", "label", "score", *CORNERS]

    def rows(self, path: str, index: int, prediction: dict[str, Any], size: tuple[int, int]) -> list[list[Any]]:
        """Write the objects of an image, and return one row for each."""
        categories = category_ids(self.task)
        image_id = index + 1 if self._image_ids is None else self._image_ids[index]
        boxes: list[list[float]] = prediction["boxes"].tolist()
        labels: list[int] = prediction["labels"].tolist()
        scores: list[float] = prediction["scores"].tolist()
        shown: list[bool] = self._shown(prediction).tolist()
        image = {"id": image_id, "file_name": path, "height": size[0], "width": size[1]}
        results = [
            {
                "image_id": image_id,
                "category_id": categories[label],
                "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
            }
            for (x1, y1, x2, y2), label, score in zip(boxes, labels, scores, strict=True)
        ]
        more, cells = self.mask_fields(path, index, prediction)
        results = [result | fields for result, fields in zip(results, more, strict=True)]
        with self._lines.open("a", encoding="utf-8") as file:
            file.write(json.dumps([index, image, results]) + "\n")
        return [
            [
                path,
                class_name(labels[number], self.names),
                f"{scores[number]:.6f}",
                *(f"{side:.2f}" for side in box),
                *cells[number],
            ]
            for number, box in enumerate(boxes)
            if shown[number]
        ]

    def mask_fields(
        self, path: str, index: int, prediction: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[list[Any]]]:
        """Write the masks of an image, and return more fields of each object's result and more cells of its row.

        Args:
            path: File of the image.
            index: Index of the image among those to predict.
            prediction: The prediction of the image.
        """
        count = len(prediction["scores"])
        return [{}] * count, [[]] * count

    def _shown(self, prediction: dict[str, Any]) -> Tensor:
        """Which objects are in the tables and plots: bool ``[M]``, compared in float32 as the task does."""
        return prediction["scores"] >= self.min_score

    def count_header(self) -> list[str]:
        """Return the column names of ``counts.csv``: the path, the number of objects, and that of each class."""
        return ["path", "objects", *(class_name(k, self.names) for k in range(self.task.num_classes))]

    def counts(self, path: str, prediction: dict[str, Any]) -> list[Any]:
        """Return the number of objects of an image, in total and per class."""
        labels = prediction["labels"][self._shown(prediction)]
        return [path, len(labels), *torch.bincount(labels, minlength=self.task.num_classes).tolist()]

    def join(self) -> None:
        """Merge the lines of all ranks into ``detections.json`` and ``images.json``, by index of the image."""
        parts = sorted(self.folder.glob("detections.rank*.jsonl"))
        if not parts:
            return
        categories = [{"id": n, "name": class_name(k, self.names)} for k, n in enumerate(category_ids(self.task))]
        with (
            (self.folder / "detections.json").open("w", encoding="utf-8") as results_file,
            (self.folder / "images.json").open("w", encoding="utf-8") as images_file,
        ):
            results_file.write("[")
            images_file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [],\n"images": [')
            comma = ""
            for number, (_, image, results) in enumerate(
                heapq.merge(*map(_read_lines, parts), key=lambda line: line[0])
            ):
                images_file.write((",\n" if number else "\n") + json.dumps(image))
                for result in results:
                    results_file.write(f"{comma}\n{json.dumps(result)}")
                    comma = ","
            results_file.write("\n]\n")
            images_file.write("\n]}\n")
        for part in parts:
            part.unlink()


def _read_lines(path: Path) -> Iterator[list[Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def image_ids(paths: Sequence[Any]) -> list[int]:
    """Ids of images: the numbers in their names, if all have one and no two the same, else 1, 2, …

    >>> image_ids(["val2017/000000000139.jpg", "val2017/000000000285.jpg"])
    [139, 285]
    >>> image_ids(["a/1.jpg", "b/1.jpg"])
    [1, 2]
    """
    stems = [Path(path).stem for path in paths]
    if all(stem.isascii() and stem.isdigit() for stem in stems):
        numbers = [int(stem) for stem in stems]
        if len(set(numbers)) == len(numbers):
            return numbers
    return list(range(1, len(stems) + 1))


def category_ids(task: Detection) -> list[int]:
    """The source's category ids, if the task has them, else 1 … K."""
    return list(task.category_ids) or list(range(1, task.num_classes + 1))
