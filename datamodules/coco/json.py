"""COCO's annotation files: from JSON to flat arrays, and what is wrong with them."""

import contextlib
import gc
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, Fault, record_error, recording
from ..annotations.object_masks import ObjectMasks, ObjectMasksBuilder
from ..annotations.objects import ImageTable, Objects, confined, usable_boxes
from .columns import Columns, coco_columns, refuse_entry


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
    columns = _check_images(file, folder, coco_columns(file, with_masks))
    images = _image_table(folder, columns)
    ids, names = _categories(file, columns)
    objects = _objects(file, columns, images, np.array(ids, np.int64), with_boxes, with_masks, strict)
    return CocoFile(images, objects, names, ids)


def _check_images(file: Path, folder: Path, columns: Columns) -> Columns:
    """The columns, if each image is of a number of its own, in its folder, and of some size.

    Raises:
        ValueError: if not. Within `record_faults` such images are left out, with their annotations.
    """
    if not columns.image_ids:
        raise ValueError(f"{file}: its list of images is empty")
    kept, seen = np.ones(len(columns.image_ids), np.bool_), set()
    entries = zip(columns.image_ids, columns.image_names, columns.image_sizes.tolist(), strict=True)
    for place, (number, name, size) in enumerate(entries):
        why = None
        if number in seen:
            why = f"the id {number} is there more than once"
        elif not confined(name):
            why = f"its file_name leads out of its folder {str(folder)!r}; name it relative to that"
        elif min(size) < 1:
            why = f"its width and height are {size[0]} and {size[1]}, and must be numbers of pixels"
        if why is not None:
            refuse_entry(file, "images", {"file_name": name}, place, why)
            kept[place] = False
        seen.add(number)
    return columns if kept.all() else columns.of_images(kept)


def _image_table(folder: Path, columns: Columns) -> ImageTable:
    names = np.array([os.fsencode(name) for name in columns.image_names], np.bytes_)
    return ImageTable(folder, names, columns.image_sizes, np.array(columns.image_ids, np.int64))


def _categories(file: Path, columns: Columns) -> tuple[list[int], list[str]]:
    """Ids and names of the categories, by the ids."""
    names: dict[int, str] = {}
    for place, (number, name) in enumerate(zip(columns.category_ids, columns.category_names, strict=True)):
        if number in names:
            refuse_entry(file, "categories", {"name": name}, place, f"the id {number} is there more than once")
        else:
            names[number] = name
    if not names:
        raise ValueError(f"{file}: its list of categories is empty")
    ids = sorted(names)
    return ids, [names[number] for number in ids]


def _places(wanted: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Where each of `wanted` is in `known`, or -1."""
    order = np.argsort(known, kind="stable")
    found = order[np.searchsorted(known, wanted, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[found] == wanted, found, -1)


def _objects(
    file: Path,
    columns: Columns,
    images: ImageTable,
    categories: np.ndarray,
    with_boxes: bool,
    with_masks: bool,
    strict: bool,
) -> Objects:
    ids, image_ids, category_ids = columns.ids, columns.of_image, columns.of_category
    of_image, labels = _places(image_ids, images.ids), _places(category_ids, categories)
    for code, places, numbers, key in (
        ("unknown-image", of_image, image_ids, "image_id"),
        ("label-outside", labels, category_ids, "category_id"),
    ):
        unknown = places < 0
        if unknown.any():
            found = f"{key} {numbers[unknown][0]}"
            record_error(
                Fault(code, file, ids[unknown].tolist(), found=found, remedy="list it, or remove the annotation")
            )
    listed_too = (of_image >= 0) & (labels >= 0)
    if not listed_too.all():  # only while faults are recorded
        columns = columns.part(listed_too)
        of_image, labels, ids = of_image[listed_too], labels[listed_too], columns.ids
    if with_masks and len(ids) and not any(map(_is_there, columns.segmentations)) and not recording():
        raise ValueError(
            f"{file}: none of its {len(ids)} annotations has a segmentation, and masks are asked for; set "
            "data.init_args.task: detection, or give annotations with masks"
        )
    errors = AnnotationErrors(file, strict, lambda number: images.path(of_image[number]))
    boxes = columns.boxes
    with np.errstate(invalid="ignore"):  # infinite ones are counted later
        boxes[:, 2:] += boxes[:, :2]
    usable = np.ones(len(ids), np.bool_)
    if with_boxes:
        usable = usable_boxes(boxes, images.sizes[of_image], ids, errors)
    order = np.argsort(of_image, kind="stable")
    order = order[usable[order]]
    masks = None
    if with_masks:
        order, masks = _masks(columns.segmentations, order, images.sizes[of_image], ids, boxes, errors)
    errors.warn()
    with np.errstate(invalid="ignore"):
        of_boxes = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    area = np.where(np.isfinite(columns.area), columns.area, of_boxes)
    return Objects(
        np.searchsorted(of_image[order], np.arange(len(images.names) + 1)),
        boxes[order].astype(np.float32),
        labels[order].astype(np.int32),
        columns.iscrowd[order],
        np.zeros(len(order), np.bool_),
        area[order].astype(np.float32),
        masks,
    )


def _is_there(segmentation: Any) -> bool:
    """Whether an annotation says anything of a mask, be it right or wrong."""
    if isinstance(segmentation, bytes):
        return segmentation.translate(None, b" \n\r\t") not in (b"null", b"[]", b"[[]]", b"{}")
    return segmentation not in (None, [], [[]], {})


def _masks(
    segmentations: Sequence[Any],
    order: np.ndarray,
    sizes: np.ndarray,
    ids: np.ndarray,
    boxes: np.ndarray,
    errors: AnnotationErrors,
) -> tuple[np.ndarray, ObjectMasks]:
    """The masks of the objects of `order`, and what is left of it."""
    builder, taken = ObjectMasksBuilder(), np.zeros(len(sizes), np.bool_)
    wanted = np.sort(order)  # as the file has them, since its text may still be on its way from the disk
    for number, (width, height) in zip(wanted.tolist(), sizes[wanted].tolist(), strict=True):
        if defect := builder.add(segmentations[number], height, width):
            errors.add("bad-mask", [ids[number]], found=defect, positions=[number], boxes=boxes[[number]])
        else:
            taken[number] = True
    place = np.cumsum(taken) - 1
    order = order[taken[order]]
    return order, builder.build().select(place[order])
