"""Predicted objects as rows of a table, and as COCO's files."""

import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch import Tensor

from ..drawing.canvas import class_name

COLUMNS = ("path", "label", "score", "x1", "y1", "x2", "y2")


class DetectionWriter:
    """Writes ``detections.json``, COCO's list of results, and ``images.json``, which says what its numbers mean.

    ``images.json`` has COCO's format without annotations: images with their numbers, names and sizes, and categories.
    So pycocotools takes both by ``COCO("images.json").loadRes("detections.json")``; where the numbers are the source's,
    its own annotation file does in place of the first.

    - ``category_id``: the source's own, where the data module that the task was trained with has them (COCO's 1 … 90),
      else 1 … K, class 0 being 1.
    - ``image_id``: the number that a file is named by, as COCO's are (``000000000139.jpg``: 139), where all files are
      and no two have the same; else 1, 2, … in the order of the images.
    - ``bbox``: x, y, width, height in pixels of the image as it is in its file.

    Images are written as they come, a line each, to a file of this rank; `join` makes the two files of all ranks', one
    line in memory at a time.

    Args:
        folder: of the run.
        rank: of this process.
        dataset: what is predicted, if it says which files those are (``dataset.source.paths``); otherwise images
            are numbered.
    """

    def __init__(self, folder: Path, rank: int, dataset: Any = None) -> None:
        self._folder = folder
        self._part = folder / f"detections.rank{rank}.jsonl"
        self._part.unlink(missing_ok=True)
        paths = getattr(getattr(dataset, "source", None), "paths", None)
        self._ids = None if paths is None else image_ids(paths)

    def write(
        self, path: str, index: int, size: tuple[int, int], prediction: dict[str, Any], task: pl.LightningModule
    ) -> list[list[Any]]:
        """Write the objects of an image, and give their rows, which have `COLUMNS`.

        Args:
            path: of the image.
            index: its place among the images.
            size: its height and width in its file.
            prediction: ``boxes``, ``scores`` and ``labels``.
            task: which knows the classes.
        """
        names, categories = getattr(task, "class_names", []), category_ids(task)
        number = index + 1 if self._ids is None else self._ids[index]
        boxes: list[list[float]] = prediction["boxes"].tolist()
        labels: list[int] = prediction["labels"].tolist()
        scores: list[float] = prediction["scores"].tolist()
        image = {"id": number, "file_name": path, "height": size[0], "width": size[1]}
        found = [
            {
                "image_id": number,
                "category_id": categories[label],
                "bbox": [round(side, 3) for side in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
            }
            for (x1, y1, x2, y2), label, score in zip(boxes, labels, scores, strict=True)
        ]
        with self._part.open("a", encoding="utf-8") as file:
            file.write(json.dumps([index, image, found]) + "\n")
        return [
            [path, class_name(label, names), f"{score:.6f}", *(f"{side:.2f}" for side in box)]
            for box, label, score in zip(boxes, labels, scores, strict=True)
        ]

    def join(self, task: pl.LightningModule) -> None:
        """Make the two files of the ranks' own; on the first rank, when all are done."""
        parts = sorted(self._folder.glob("detections.rank*.jsonl"))
        if not parts:
            return
        names = getattr(task, "class_names", [])
        categories = [{"id": n, "name": class_name(k, names)} for k, n in enumerate(category_ids(task))]
        with (
            (self._folder / "detections.json").open("w", encoding="utf-8") as results,
            (self._folder / "images.json").open("w", encoding="utf-8") as images,
        ):
            results.write("[")
            images.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [],\n"images": [')
            comma = ""
            for number, (_, image, found) in enumerate(heapq.merge(*map(_lines, parts), key=lambda line: line[0])):
                images.write((",\n" if number else "\n") + json.dumps(image))
                for one in found:
                    results.write(f"{comma}\n{json.dumps(one)}")
                    comma = ","
            results.write("\n]\n")
            images.write("\n]}\n")
        for part in parts:
            part.unlink()


def _lines(path: Path) -> Iterator[list[Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def image_ids(paths: Sequence[Any]) -> list[int]:
    """A number for each image: that of its name, where all are named by numbers that differ, else its place from 1 on.

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


def category_ids(task: pl.LightningModule) -> list[int]:
    """The source's numbers of the classes, where the task knows them, else 1 … K."""
    own: Any = getattr(task, "category_ids", None)
    if own:
        return list(own)
    count = int(getattr(task, "num_classes", None) or len(getattr(task, "class_names", [])))
    return list(range(1, count + 1))


def file_size(batch: dict[str, Any], place: int) -> tuple[int, int]:
    """Height and width of an image in its file; of the image itself where the batch does not say."""
    given = batch.get("file_size")
    if given is not None:
        height, width = given[place].tolist()
        return height, width
    image: Tensor = batch["image"][place]
    return image.shape[-2], image.shape[-1]
