"""COCO's annotation files: from JSON columns to image table and objects, and the checks of both."""

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault, record_error, recording
from ..annotations.dataset_layout import warn_about_repeated_files
from ..annotations.object_masks import ObjectMasks, ObjectMasksBuilder
from ..annotations.objects import ImageTable, Objects, confined, usable_boxes
from ..images.file_names import resolve_names
from .checks import check_box_units, check_crowds, check_masks, plausible_areas
from .classes import CocoClasses, read_classes
from .json_columns import CocoColumns, coco_columns, is_path, record_bad_entry
from .options import CocoOptions


@dataclass(frozen=True, eq=False)
class CocoFile:
    """Content of an annotation file.

    Attributes:
        images: Images, in the order of the file.
        objects: Usable objects, image by image, and in the order of the file within an image.
        class_names: Names of the classes, in the order of the ids of their categories.
        category_ids: Id of each class, ascending: class k is category ``category_ids[k]``, and any others that were
            merged with it.
    """

    images: ImageTable
    objects: Objects
    class_names: list[str]
    category_ids: list[int]


def read_coco(
    file: Path,
    folder: Path,
    with_boxes: bool = True,
    with_masks: bool = False,
    strict: bool = False,
    options: CocoOptions | None = None,
) -> CocoFile:
    """Read an annotation file.

    Args:
        file: JSON with ``images``, ``annotations`` and ``categories``.
        folder: Folder of the images.
        with_boxes: Whether to leave out objects whose boxes cannot be used. Without, objects are merged into one mask
            per image, with a background.
        with_masks: Whether to read masks too, and leave out objects whose masks cannot be used.
        strict: Whether to stop at an object that cannot be used, instead of counting it.
        options: How to read what can be understood in two ways.

    Raises:
        DataError: The file is not such JSON, an id occurs twice, a path leads out of `folder`, or an annotation
            belongs to an unlisted image or category; numbers are in another unit; if `strict`, an object cannot be
            used.
    """
    options = options or CocoOptions()
    with _no_garbage_collection():
        columns = _check_images(file, folder, coco_columns(file, with_masks))
        ids = np.array(columns.image_ids, np.int64)
        names = resolve_names(folder, columns.image_names)
        images = ImageTable.of_names(folder, names, columns.image_sizes, ids)
        warn_about_repeated_files(file, names, "and each entry has only a part of the objects")
        classes = read_classes(file, columns, options.merge_similar_classes, with_background=not with_boxes)
        objects = _objects(file, columns, images, classes, _Task(with_boxes, with_masks, strict), options)
        return CocoFile(images, objects, classes.names, classes.category_ids)


def is_coco(file: Path) -> bool:
    """Return whether a file is COCO's by its content, under any name."""
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= content.keys()


class _Task(NamedTuple):
    """Which parts of the objects a task needs; see `read_coco`."""

    with_boxes: bool
    with_masks: bool
    strict: bool


@contextlib.contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Disable the search for reference cycles, which takes a third of the time among millions of new objects."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _check_images(file: Path, folder: Path, columns: CocoColumns) -> CocoColumns:
    """Check that each image has a unique id, a path in `folder`, and a size.

    Returns:
        The columns; within `record_faults`, without the images that fail and without their annotations.

    Raises:
        ValueError: An image fails.
    """
    if not columns.image_ids:
        raise DataError(f"{file}: images must list at least one image, got []")
    valid, ids = np.ones(len(columns.image_ids), np.bool_), set()
    entries = zip(columns.image_ids, columns.image_names, columns.image_sizes.tolist(), strict=True)
    for index, (number, name, size) in enumerate(entries):
        problem = None
        if number in ids:
            problem = f"id must be unique, got {number} more than once"
        elif not confined(name):
            problem = f"file_name leads out of its folder {str(folder)!r}; make it relative to that folder"
        elif not is_path(name):
            problem = f"file_name must be the path of a file, got {name!r}"
        elif min(size) < 1:
            problem = f"width and height must be numbers of pixels, got {size[0]} and {size[1]}"
        if problem is not None:
            record_bad_entry(file, "images", {"file_name": name}, index, problem)
            valid[index] = False
        ids.add(number)
    return columns if valid.all() else columns.select_images(valid)


def _positions(ids: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return the position of each of `ids` ``[N]`` in `known` ``[M]``, or -1: ``[N]`` int64."""
    order = np.argsort(known, kind="stable")
    positions = order[np.searchsorted(known, ids, sorter=order).clip(max=len(known) - 1)]
    return np.where(known[positions] == ids, positions, -1)


def _objects(
    file: Path, columns: CocoColumns, images: ImageTable, classes: CocoClasses, task: _Task, options: CocoOptions
) -> Objects:
    """Build the usable objects, sorted by image."""
    columns, image_of, labels = _known_objects(file, columns, images, classes)
    ids, sizes = columns.ids, images.sizes[image_of]
    if task.with_masks and len(ids) and not any(map(_has_mask, columns.segmentations)) and not recording():
        raise DataError(
            f"{file}: tasks with masks need segmentation, got {len(ids)} annotations without it; set task: detection, "
            "or add masks"
        )
    if task.with_boxes:
        check_box_units(file, columns, sizes, options.box_format)
    iscrowd = columns.iscrowd
    if options.crowds == "objects":
        iscrowd = np.zeros(len(ids), np.bool_)
    elif task.with_boxes:
        check_crowds(file, ids, iscrowd, labels, classes.names)
    errors = AnnotationErrors(file, task.strict, lambda number: images.path(image_of[number]))
    boxes = columns.boxes
    if options.box_format != "xyxy":
        with np.errstate(invalid="ignore", over="ignore"):  # infinite values are counted later
            boxes[:, 2:] += boxes[:, :2]
    usable = np.ones(len(ids), np.bool_)
    if task.with_boxes:
        usable = usable_boxes(boxes, sizes, ids, errors)
    else:  # a box of NaN or beyond float32 does not matter
        boxes = np.clip(np.nan_to_num(boxes), 0, np.tile(sizes, 2))
    order = np.argsort(image_of, kind="stable")
    order = order[usable[order]]
    masks = None
    if task.with_masks:
        order, masks = _masks(columns.segmentations, order, sizes, ids, boxes, errors)
        check_masks(file, ids[order], masks, sizes[order], boxes[order] if task.with_boxes else None)
    errors.warn()
    return Objects.grouped(
        len(images.names),
        image_of[order],
        boxes[order],
        labels[order],
        iscrowd=iscrowd[order],
        area=plausible_areas(file, columns.area[order], boxes[order], sizes[order], ids[order], masks),
        masks=masks,
        errors=errors,
    )


def _known_objects(
    file: Path, columns: CocoColumns, images: ImageTable, classes: CocoClasses
) -> tuple[CocoColumns, np.ndarray, np.ndarray]:
    """Return the objects of listed images and categories, the image of each ``[N]``, and the label of each ``[N]``."""
    image_of = _positions(columns.object_image_ids, images.ids)
    category_of = _positions(columns.object_category_ids, classes.known_ids)
    for code, positions, numbers, key in (
        ("unknown-image", image_of, columns.object_image_ids, "image_id"),
        ("label-outside", category_of, columns.object_category_ids, "category_id"),
    ):
        if (unknown := positions < 0).any():
            found, remedy = f"{key} {numbers[unknown][0]}", "list it, or remove the annotation"
            record_error(Fault(code, file, columns.ids[unknown].tolist(), found=found, remedy=remedy))
    known = (image_of >= 0) & (category_of >= 0)
    if not known.all():  # only while faults are recorded
        columns, image_of, category_of = columns.select_objects(known), image_of[known], category_of[known]
    return columns, image_of, classes.label_of[category_of]


def _has_mask(segmentation: Any) -> bool:
    """Return whether an annotation has a mask, usable or not."""
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
    """Read the masks of selected objects.

    Args:
        segmentations: Masks of all N objects, as in the file.
        order: Indices of the selected objects, ``[M]``.
        sizes: Width and height of each object's image, ``[N, 2]``.
        ids: Id of each object, ``[N]``.
        boxes: Box of each object, ``[N, 4]``.
        errors: Counts the masks that cannot be used.

    Returns:
        The indices of those with a usable mask, in the same order, ``[L]``; their masks.
    """
    builder, usable = ObjectMasksBuilder(), np.zeros(len(sizes), np.bool_)
    in_file_order = np.sort(order)  # the text may not be read from the disk yet
    for index, (width, height) in zip(in_file_order.tolist(), sizes[in_file_order].tolist(), strict=True):
        if problem := builder.add(segmentations[index], height, width):
            errors.add("bad-mask", [ids[index]], found=problem, positions=[index], boxes=boxes[[index]])
        else:
            usable[index] = True
    position = np.cumsum(usable) - 1  # of an object's mask in the builder
    order = order[usable[order]]
    return order, builder.build().select(position[order])
