"""COCO's annotation files: from JSON to flat arrays, and what is wrong with them."""

import contextlib
import gc
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import ImageTable, Objects, confined, usable_boxes
from .problems import Problems, collected
from .segmentations import SegmentationBuilder, Segmentations
from .trees import suggestion


@dataclass(frozen=True, eq=False)
class CocoFile:
    """What an annotation file says.

    Attributes:
        images: in the file's order.
        objects: those that can be used, image by image, each image's in the file's order.
        class_names: of the categories, in the order of their ids.
        category_ids: the file's own number of each class, ascending: class k is category ``category_ids[k]``.
    """

    images: ImageTable
    objects: Objects
    class_names: list[str]
    category_ids: list[int]


def read_coco(
    file: Path, folder: Path, with_boxes: bool = True, with_masks: bool = False, strict: bool = False
) -> CocoFile:
    """Read an annotation file.

    Args:
        file: JSON with ``images``, ``annotations`` and ``categories``.
        folder: of the images.
        with_boxes: leave out objects whose boxes cannot be used.
        with_masks: take masks too, and leave out objects whose masks cannot be used.
        strict: stop at an object that cannot be used, instead of counting it.

    Raises:
        ValueError: for a file that is not such JSON, numbers that are there twice, a path that leads out of `folder`,
            or an annotation of an image or a category that is not listed; when strict, for an object that cannot be
            used.
    """
    with _no_collection():
        return _read(file, folder, with_boxes, with_masks, strict)


@contextlib.contextmanager
def _no_collection() -> Iterator[None]:
    """Leave the search for cycles alone: among millions of new objects it takes a third of the time, and finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _read(file: Path, folder: Path, with_boxes: bool, with_masks: bool, strict: bool) -> CocoFile:
    content = read_json(file)
    parts = []
    for key in ("images", "annotations", "categories"):
        part = content.pop(key, None) if isinstance(content, dict) else None
        if not isinstance(part, list):
            known = list(content) if isinstance(content, dict) else type(content).__name__
            hint = suggestion(key, content) if isinstance(content, dict) else ""
            raise ValueError(f"{file}: no list {key!r} in it, but {known}{hint}; expected COCO's instances_*.json")
        parts.append(part)
    images = _images(file, folder, parts[0])
    ids, names = _categories(file, parts[2])
    objects = _objects(file, parts[1], images, np.array(ids, np.int64), with_boxes, with_masks, strict)
    return CocoFile(images, objects, names, ids)


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: where it is malformed; the message has the line.
    """
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg}); is the file complete?"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not JSON, which is text in UTF-8 ({error})") from error


def _column(file: Path, what: str, items: Sequence[Any], key: str, kind: type | tuple[type, ...]) -> list[Any]:
    """One field of each item, which each must have, of one kind."""
    try:
        values = [item[key] for item in items]
    except (KeyError, TypeError, IndexError):
        values = []
    if len(values) < len(items) or not all(isinstance(value, kind) for value in values):
        for number, item in enumerate(items):
            if not isinstance(item, dict) or not isinstance(item.get(key), kind):
                found = repr(item.get(key)) if isinstance(item, dict) and key in item else "not there"
                raise ValueError(f"{file}, {what}[{number}]: {key} is {found}, and must be {_named(kind)}")
    return values


def _named(kind: type | tuple[type, ...]) -> str:
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return {int: "a whole number", str: "text", list: "a list"}.get(kinds[0], kinds[0].__name__)


def _unique(file: Path, what: str, ids: Sequence[int]) -> None:
    if len(set(ids)) < len(ids):
        twice = next(number for number, count in Counter(ids).items() if count > 1)
        raise ValueError(f"{file}: the id {twice} is there more than once among the {what}")


def _images(file: Path, folder: Path, items: list[Any]) -> ImageTable:
    if not items:
        raise ValueError(f"{file}: its list of images is empty")
    ids = _column(file, "images", items, "id", int)
    _unique(file, "images", ids)
    names = _column(file, "images", items, "file_name", str)
    for name in names:
        if not confined(name):
            raise ValueError(
                f"{file}: the image {name!r} leads out of its folder {str(folder)!r}; name it relative to that"
            )
    sizes = [_column(file, "images", items, key, int) for key in ("width", "height")]
    return ImageTable(
        folder,
        np.array([os.fsencode(name) for name in names], np.bytes_),
        np.array(sizes, np.int32).T.copy(),
        np.array(ids, np.int64),
    )


def _categories(file: Path, items: list[Any]) -> tuple[list[int], list[str]]:
    if not items:
        raise ValueError(f"{file}: its list of categories is empty")
    ids, names = _column(file, "categories", items, "id", int), _column(file, "categories", items, "name", str)
    _unique(file, "categories", ids)
    order = sorted(range(len(ids)), key=ids.__getitem__)
    return [ids[place] for place in order], [names[place] for place in order]


def _places(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is in `known`, or -1."""
    order = np.argsort(known, kind="stable")
    found = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[found] == wanted, found, -1)


def _objects(
    file: Path,
    items: list[Any],
    images: ImageTable,
    categories: np.ndarray,
    with_boxes: bool,
    with_masks: bool,
    strict: bool,
) -> Objects:
    image_ids = np.array(_column(file, "annotations", items, "image_id", int), np.int64)
    category_ids = np.array(_column(file, "annotations", items, "category_id", int), np.int64)
    ids = np.array([item.get("id", number) for number, item in enumerate(items)])
    of_image, labels = _places(image_ids, images.ids), _places(category_ids, categories)
    for places, own, article, what, listed in (
        (of_image, image_ids, "an", "image", "images"),
        (labels, category_ids, "a", "category", "categories"),
    ):
        unknown = places < 0
        if unknown.any() and not collected(file, f"{article} {what} that is not listed", ids[unknown]):
            first, count = int(np.argmax(unknown)), int(unknown.sum())
            raise ValueError(
                f"{file}, annotation {ids[first]}: its {what}_id {own[first]} is not among the {listed} listed"
                f"{f' (and so for {count - 1} more)' if count > 1 else ''}; list it, or remove the annotation"
            )
    listed_too = (of_image >= 0) & (labels >= 0)
    if not listed_too.all():  # only while problems are collected
        items = [item for item, kept in zip(items, listed_too, strict=True) if kept]
        of_image, labels, ids = of_image[listed_too], labels[listed_too], ids[listed_too]
    problems = Problems(file, strict, lambda number: str(images.path(of_image[number])))
    boxes = _boxes(file, items)
    usable = np.ones(len(items), np.bool_)
    if with_boxes:
        usable = usable_boxes(boxes, images.sizes[of_image], ids, problems)
    order = np.argsort(of_image, kind="stable")
    order = order[usable[order]]
    masks = None
    if with_masks:
        order, masks = _masks(items, order, images.sizes[of_image], ids, problems)
    problems.report()
    area = np.array([item.get("area", np.nan) for item in items], np.float64)
    width_height = boxes[:, 2:] - boxes[:, :2]
    area = np.where(np.isfinite(area), area, width_height.prod(axis=1))
    return Objects(
        np.searchsorted(of_image[order], np.arange(len(images.names) + 1)),
        boxes[order].astype(np.float32),
        labels[order].astype(np.int32),
        np.array([bool(item.get("iscrowd", 0)) for item in items], np.bool_)[order],
        np.zeros(len(order), np.bool_),
        area[order].astype(np.float32),
        masks,
    )


def _boxes(file: Path, items: list[Any]) -> np.ndarray:
    """x1, y1, x2, y2 of COCO's x, y, width, height: ``[N, 4]`` float64."""
    given = _column(file, "annotations", items, "bbox", list)
    try:
        boxes = np.array(given, np.float64).reshape(len(items), 4)
    except (ValueError, TypeError) as error:
        for number, box in enumerate(given):
            if len(box) != 4 or not all(isinstance(side, int | float) for side in box):
                raise ValueError(
                    f"{file}, annotations[{number}]: bbox is {box}, and must be four numbers, x, y, width, height"
                ) from error
        raise
    with np.errstate(invalid="ignore"):  # infinite ones are counted later
        boxes[:, 2:] += boxes[:, :2]
    return boxes


def _masks(
    items: list[Any], order: np.ndarray, sizes: np.ndarray, ids: np.ndarray, problems: Problems
) -> tuple[np.ndarray, Segmentations]:
    """The masks of the objects of `order`, and what is left of it."""
    builder, taken = SegmentationBuilder(), []
    for number in order.tolist():
        width, height = sizes[number].tolist()
        if wrong := builder.add(items[number].get("segmentation"), height, width):
            problems.add(wrong, [ids[number]], places=[number])
        else:
            taken.append(number)
    return np.array(taken, np.int64), builder.build()
