"""Reads YOLO's label files into arrays, in fractions of an image's width and height until its pixels are read."""

import math
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault, record_error, record_warning, recording
from ..annotations.clipping import ROUNDING
from ..annotations.corners import are_corners
from ..annotations.normalized import reject_pixels
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.objects import ImageTable, Objects, ObjectSource, usable_boxes
from ..annotations.text_files import decode, marked_encoding
from ..images.file_names import FileNames
from ..images.sizes import image_sizes
from ..loading.sources import Sample
from .keypoints import KeypointEvidence, Points, has_visibility

_BOX = 5  # numbers in a line with a box: class, x, y, width, height
_POINTS = 7  # numbers in a line with the smallest polygon: class, three points
_MAX_FRACTION = 2.0  # a larger number is in pixels; a fraction of an image may exceed 1 a little
_NO_POLYGON = "a box without polygon, but masks are required"
UNKNOWN_SIZE = (0, 0)
SLIVER = 1e-6  # fraction of a side; a narrower box may have no width in float32 pixels


class RelativeObjectSource(ObjectSource):
    """Images whose objects are stored in fractions of the image's width and height, and returned in pixels."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        height, width = sample["image"].shape[:2]
        sample["boxes"] = (sample["boxes"] * (width, height, width, height)).astype(np.float32)
        del sample["area"]  # recomputed from the boxes in pixels
        return sample


def label_path(root: str, name: str) -> str:
    """Return the label file of an image.

    The last folder ``images`` in its path, including the name of `root` itself, becomes ``labels``; without such a
    folder, the labels are beside the image.

    Args:
        root: Folder of the dataset.
        name: Path of the image below it.

    >>> label_path("data/pets", "images/train/a.b.jpg")
    'data/pets/labels/train/a.b.txt'
    >>> label_path("data/pets", "train/a.jpg")
    'data/pets/train/a.txt'
    """
    parent, root_name = os.path.split(root.rstrip(os.sep))
    stem = os.path.splitext(f"/{root_name}/{name}")[0]  # noqa: PTH122 - a hundred thousand times
    before, separator, after = stem.rpartition("/images/")
    labels = f"{before}/labels/{after}" if separator else stem
    return os.path.join(parent, labels[1:]) + ".txt"  # noqa: PTH118


def read_labels(
    images: ImageTable,
    class_names: Sequence[str],
    with_masks: bool = False,
    strict: bool = False,
    points: Points = "polygons",
    num_keypoints: int | None = None,
) -> tuple[Objects, int]:
    """Read the objects of images.

    Args:
        images: Images.
        class_names: Classes.
        with_masks: Whether to read the polygons as masks, and leave out objects without one.
        strict: Whether to stop at an object that cannot be used, instead of counting it.
        points: What more than four numbers are; ``auto``: a polygon, unless all look like a box with keypoints.
        num_keypoints: Count of the numbers of a label's keypoints, where it is known.

    Returns:
        The objects, without areas, with boxes (float64) and masks in fractions of their image's width and height; the
        number of images with a label file.

    Raises:
        DataError: A line is not a label, with the file and the line; most boxes are in pixels, or all are corners;
            labels look like keypoints.
    """
    collector = _LabelCollector(len(class_names), with_masks, points == "keypoints", num_keypoints)
    root, num_files, files = str(images.root), 0, FileNames()
    ends = np.zeros(len(images.names) + 1, np.int64)
    for image, name in enumerate(images.names):
        path = label_path(root, os.fsdecode(name))
        if not path.isascii():  # its image may be named in another Unicode form
            path = files.resolve(path) or path
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand times
                text = file.read()
            num_files += 1
        except FileNotFoundError:  # an image without objects, as in Ultralytics
            text = b""
        collector.add(path, text)
        ends[image + 1] = len(collector.labels)
    if points == "auto" and (found := collector.evidence.found()) is not None:
        remedy = "set points: keypoints to read the boxes alone, or points: polygons if they are polygons"
        record_error(Fault("keypoints", images.root, ["labels"], "entry", found, remedy))
        return read_labels(images, class_names, with_masks, strict, "keypoints")  # only while faults are recorded
    if points == "auto" and (found := collector.evidence.hint()) is not None:
        record_warning(
            Fault("maybe-keypoints", images.root, ["labels"], "entry", found),
            f"labels read as polygons, but {found} ({images.root}): set points: polygons if they are, or points: "
            "keypoints to read boxes with keypoints",
        )
    return collector.objects(images, ends, strict), num_files


class Defect(NamedTuple):
    """What is wrong with a label; see `Fault`.

    Attributes:
        code: Key of `KINDS`.
        found: Value or defect found.
        remedy: What would be right.
    """

    code: str
    found: str = ""
    remedy: str = ""


class _LabelCollector:
    """Collects the labels of images, one label file after another."""

    def __init__(self, num_classes: int, with_masks: bool, keypoints: bool, num_keypoints: int | None) -> None:
        self.num_classes, self.with_masks, self.keypoints = num_classes, with_masks, keypoints
        self.num_keypoints, self.evidence, self.num_polygons = num_keypoints, KeypointEvidence(), 0
        self.labels, self.lines, self.corners = array("i"), array("q"), array("d")
        self.masks = ObjectMasksBuilder(relative=True)
        self.defects: dict[Defect, list[int]] = {}  # indices of the objects with each defect

    def add(self, path: str, text: bytes) -> None:
        """Add the labels of the next image."""
        for number, line in enumerate(label_lines(path, text), start=1):
            words = line.split()
            if not words:
                continue
            parsed = parse_label(words, self.num_classes, self.keypoints, self.num_keypoints)
            if isinstance(parsed, Defect):
                record_error(Fault(parsed.code, Path(path), [number], "line", parsed.found, parsed.remedy))
                continue
            label, numbers = parsed
            self.evidence.add(numbers)
            self.num_polygons += len(numbers) + 1 > _BOX
            if defect := label_defect(numbers, self.with_masks):
                self.defects.setdefault(defect, []).append(len(self.labels))
            self.labels.append(label)
            self.lines.append(number)
            self.corners.extend(corners_of_label(numbers))
            if self.with_masks:
                # a placeholder for a bad mask, so that masks and boxes have the same indices
                self.masks.add([numbers if not defect else [0.0] * 6], 1, 1)

    def objects(self, images: ImageTable, ends: np.ndarray, strict: bool) -> Objects:
        """Return the usable objects; count the others, or stop at the first if `strict`.

        Args:
            images: Images.
            ends: ``[M + 1]``, number of objects before and after each image.
            strict: See `read_labels`.
        """
        root = str(images.root)
        image_of = np.repeat(np.arange(len(ends) - 1), np.diff(ends))

        def names(objects: np.ndarray) -> np.ndarray:
            """Return the names ``[N]`` of objects ``[N]`` in messages: label file and line."""
            paths = [label_path(root, os.fsdecode(images.names[image_of[k]])) for k in objects]
            relative = [path.removeprefix(root + os.sep) for path in paths]
            return np.array([f"{path}, line {self.lines[k]}" for path, k in zip(relative, objects, strict=True)])

        boxes = np.array(self.corners, np.float64).reshape(-1, 4)
        if self._in_other_units(boxes, images.root):
            return Objects.grouped(len(images.names), image_of[:0], boxes[:0], image_of[:0])
        without_polygon = len(self.defects.get(Defect("bad-mask", _NO_POLYGON), ()))
        if without_polygon and without_polygon == len(boxes) and not recording():
            raise DataError(
                f"{images.root}: masks need polygons, got {without_polygon} boxes and no polygon; set task: detection, "
                "or add polygons"
            )
        errors = AnnotationErrors(images.root, strict)
        usable = np.ones(len(boxes), np.bool_)
        for defect, indices in self.defects.items():
            usable[indices] = False
            errors.add(defect.code, names(np.array(indices)).tolist(), "file", defect.found)
        # names are made only for boxes that may have a fault
        with np.errstate(invalid="ignore"):
            plain = ((boxes >= 0) & (boxes <= 1)).all(axis=1) & _has_area(boxes)
        suspects = np.flatnonzero(usable & ~plain)
        clipped = boxes[suspects]
        pixel = _pixel_sizes(images, image_of[suspects]) if recording() else ROUNDING  # reads no image
        valid = usable_boxes(clipped, np.ones((len(suspects), 2)), names(suspects), errors, "file", pixel)
        slivers = valid & ~_has_area(clipped)
        errors.add("box-outside", names(suspects[slivers]).tolist(), "file")
        boxes[suspects], usable[suspects] = clipped, valid & ~slivers
        errors.warn()
        kept = np.flatnonzero(usable)
        no_flags = np.zeros(len(kept), np.bool_)
        return Objects(
            np.searchsorted(kept, ends),
            boxes[kept],
            np.array(self.labels, np.int32)[kept],
            no_flags,
            no_flags.copy(),
            np.full(len(kept), np.nan, np.float32),
            self.masks.build().select(kept) if self.with_masks else None,
            str(root),
            errors.summary(),
        )

    def _in_other_units(self, boxes: np.ndarray, root: Path) -> bool:
        """Reject boxes ``[N, 4]`` in pixels, or of two corners; return whether they are, while faults are recorded."""
        remedy = "divide x and width by the width of the image, y and height by its height"
        if len(boxes) > 1 and reject_pixels(boxes, root, "labels", remedy):
            return True
        with np.errstate(invalid="ignore"):
            written = np.concatenate([boxes[:, :2] + boxes[:, 2:], 2 * (boxes[:, 2:] - boxes[:, :2])], axis=1) / 2
        if self.num_polygons or not are_corners(written, np.ones((len(boxes), 2)), centered=True):
            return False
        found = f"all {len(boxes)} ascend, and most extend beyond their image as x, y, width, height"
        remedy = "write each label as 'class x y width height', where x, y is the center of the box"
        record_error(Fault("box-corners", root, ["labels"], "entry", found, remedy))
        return True


def label_lines(path: str | Path, text: bytes) -> list[bytes]:
    """Return the lines of a label file, in UTF-8 or in the encoding that its byte order mark states."""
    if marked := marked_encoding(text):
        text = decode(Path(path), text, marked).encode()
    return text.splitlines()


def pixels_of(sizes: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """Return the size of a pixel as a fraction of the image's width and height; 0.01 where these are unknown.

    Shape:
        - sizes: ``[N, 2]``; 0: unknown.
        - Output: ``[N, 2]``.
    """
    sides = np.asarray(sizes, np.float64)
    return np.divide(1, sides, out=np.full(sides.shape, 0.01), where=sides > 0)


def _pixel_sizes(images: ImageTable, indices: np.ndarray) -> np.ndarray:
    """Return `pixels_of` the images with the indices ``[N]``, from their headers: ``[N, 2]``."""
    distinct, inverse = np.unique(indices, return_inverse=True)
    return pixels_of(image_sizes(map(images.path, distinct.tolist())))[inverse.reshape(-1)]


def corners_of_label(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """Return the box of a label, in fractions of the image: the box as written, or the smallest around its polygon.

    Args:
        numbers: Numbers of the label after its class.

    >>> corners_of_label([0.5, 0.5, 0.5, 0.25]), corners_of_label([0.1, 0.9, 0.3, 0.2, 0.2, 0.4])
    ((0.25, 0.375, 0.75, 0.625), (0.1, 0.2, 0.3, 0.9))
    """
    if len(numbers) + 1 == _BOX:
        x, y, half_width, half_height = numbers[0], numbers[1], numbers[2] / 2, numbers[3] / 2
        return x - half_width, y - half_height, x + half_width, y + half_height
    if not math.isfinite(sum(numbers)):  # min and max may ignore a NaN
        return (math.nan,) * 4
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def parse_label(
    words: Sequence[bytes | str], num_classes: int, keypoints: bool = False, num_keypoints: int | None = None
) -> tuple[int, list[float]] | Defect:
    """Return the class of a label and its other numbers, or what is wrong with its line.

    Args:
        words: Words of the line, at least one.
        num_classes: Number of classes.
        keypoints: Whether keypoints follow the box; they are left out.
        num_keypoints: Count of their numbers; None: any whole number of points.

    >>> parse_label("1 0.5 0.5 0.2 0.1".split(), 2), parse_label(["2"], 2).code
    ((1, [0.5, 0.5, 0.2, 0.1]), 'label-outside')
    """
    try:
        label, *numbers = map(float, words)
    except ValueError:
        return Defect("unusable-annotation", f"a label must be numbers, got {_shorten(words)}")
    if not (label.is_integer() and 0 <= label < num_classes):
        return Defect("label-outside", f"{label:g}", f"there are {num_classes} classes, 0 to {num_classes - 1}")
    extra = len(words) - _BOX
    if keypoints:
        if extra < 0 or (extra != num_keypoints if num_keypoints is not None else extra % 2 and extra % 3):
            expected = f"{_BOX + num_keypoints} numbers" if num_keypoints is not None else "5 numbers and keypoints"
            return Defect("unusable-annotation", f"a label must have {expected}, got {len(words)} in {_shorten(words)}")
        return int(label), numbers[: _BOX - 1]
    if len(words) % 2 == 0 and has_visibility(numbers):
        return Defect("keypoints", f"{extra // 3} points", "set points: keypoints to read the boxes alone")
    if len(words) % 2 == 0 or len(words) == 1:
        return Defect(
            "unusable-annotation",
            f"a label must have 5 numbers, or an odd number from 7, got {len(words)} in {_shorten(words)}",
            "write a box as 'class x y width height', a polygon as 'class x1 y1 x2 y2 x3 y3 …'",
        )
    return int(label), numbers


def label_defect(numbers: Sequence[float], with_masks: bool) -> Defect | None:
    """Return what is wrong with a label apart from its class and its box; None: nothing.

    Args:
        numbers: Numbers of the label after its class.
        with_masks: Whether masks are required.
    """
    if len(numbers) + 1 < _BOX:
        return Defect("bad-mask", "a polygon of fewer than three points")
    if any(_MAX_FRACTION < abs(number) < math.inf for number in numbers):
        found = f"a number beyond {_MAX_FRACTION:g}, but they are fractions of the image's width and height, not pixels"
        return Defect("unusable-annotation", found)
    if with_masks and len(numbers) + 1 < _POINTS:
        return Defect("bad-mask", _NO_POLYGON)
    if with_masks and not math.isfinite(sum(numbers)):
        return Defect("box-not-finite")
    return None


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Return which boxes ``[N, 4]`` are wide and high enough to keep an area in float32 pixels: ``[N]`` bool."""
    return (boxes[:, 2:] - boxes[:, :2] >= SLIVER).all(axis=1)


def _shorten(words: Sequence[bytes | str]) -> str:
    text = " ".join(word.decode(errors="replace") if isinstance(word, bytes) else word for word in words)
    return repr(text if len(text) <= 60 else text[:57] + "…")
