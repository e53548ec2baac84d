"""YOLO's label files: from text to flat arrays, in parts of an image's width and height until its pixels are there."""

import math
import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault, record_error, recording
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.objects import ImageTable, Objects, ObjectSource, usable_boxes
from ..images.sizes import image_sizes
from ..loading.sources import Sample

_BOX = 5  # numbers in a line: the class, and a box
_POINTS = 7  # the class, and the three points that a polygon has at least
_PIXELS = 2.0  # no part of an image is this large, whatever leaves it at the side
_ALONE = "a box alone, where masks are required"
UNKNOWN_SIZE = (0, 0)
SLIVER = 1e-6  # of a side: narrower boxes may have no width left in float32 pixels


class Defect(NamedTuple):
    """What is wrong with a label: the code, and the words of `Fault`."""

    code: str
    found: str = ""
    remedy: str = ""


class RelativeObjectSource(ObjectSource):
    """Images whose objects are held in parts of the image's width and height: pixels are made when it is read."""

    def __getitem__(self, index: int) -> Sample:
        sample = super().__getitem__(index)
        height, width = sample["image"].shape[:2]
        sample["boxes"] = (sample["boxes"] * (width, height, width, height)).astype(np.float32)
        del sample["area"]  # of the pixels, then
        return sample


def label_path(root: str, name: str) -> str:
    """The label file of an image.

    The last folder ``images`` on its path, from `root`'s own name on, becomes ``labels``; without one, the labels are
    beside the image.

    Args:
        root: the folder of the data set.
        name: of the image, below that.

    >>> label_path("data/pets", "images/train/a.b.jpg")
    'data/pets/labels/train/a.b.txt'
    >>> label_path("data/pets", "train/a.jpg")
    'data/pets/train/a.txt'
    """
    above, own = os.path.split(root.rstrip(os.sep))
    stem = os.path.splitext(f"/{own}/{name}")[0]  # noqa: PTH122 - a hundred thousand times
    before, found, after = stem.rpartition("/images/")
    return os.path.join(above, f"{before}/labels/{after}"[1:] if found else stem[1:]) + ".txt"  # noqa: PTH118


def read_labels(
    images: ImageTable, class_names: Sequence[str], with_masks: bool = False, strict: bool = False
) -> tuple[Objects, int]:
    """The objects of some images.

    Args:
        images: where the images are.
        class_names: the classes.
        with_masks: take the polygons as masks, and leave out objects that have none.
        strict: stop at an object that cannot be used, instead of counting it.

    Returns:
        The objects, with boxes (float64) and masks in parts of their images' width and height, and no areas; and how
        many of the images have a label file.

    Raises:
        ValueError: for a line that is not a label's; the message names its file and number.
    """
    reader = _Reader(len(class_names), with_masks)
    root, found = str(images.root), 0
    ends = np.zeros(len(images.names) + 1, np.int64)
    for image, name in enumerate(images.names):
        path = label_path(root, os.fsdecode(name))
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - a hundred thousand times
                text = file.read()
            found += 1
        except FileNotFoundError:  # an image without objects, as Ultralytics has it
            text = b""
        reader.add(path, text)
        ends[image + 1] = len(reader.labels)
    return reader.objects(images, ends, strict), found


class _Reader:
    """Collects the lines of label files."""

    def __init__(self, num_classes: int, with_masks: bool) -> None:
        self.num_classes, self.with_masks = num_classes, with_masks
        self.labels, self.lines, self.corners = array("i"), array("q"), array("d")
        self.masks = ObjectMasksBuilder(relative=True)
        self.wrong: list[tuple[int, Defect]] = []  # number of an object, and why it cannot be used

    def add(self, path: str, text: bytes) -> None:
        """Take the labels of the next image."""
        for number, line in enumerate(text.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
            words = line.split()
            if not words:
                continue
            parsed = parse_label(words, self.num_classes)
            if isinstance(parsed, Defect):
                record_error(Fault(parsed.code, Path(path), [number], "line", parsed.found, parsed.remedy))
            else:
                self._take(*parsed, number)

    def _take(self, label: int, numbers: list[float], line: int) -> None:
        corners = corners_of_label(numbers)
        if wrong := label_defect(numbers, self.with_masks):
            self.wrong.append((len(self.labels), wrong))
        self.labels.append(label)
        self.lines.append(line)
        self.corners.extend(corners)
        if self.with_masks:
            # a mask for each, so that their numbers stay those of the boxes; what is wrong is left out later
            self.masks.add([numbers if not wrong else [0.0] * 6], 1, 1)

    def objects(self, images: ImageTable, ends: np.ndarray, strict: bool) -> Objects:
        """All that can be used; the others are counted, or refused when `strict`."""
        root = str(images.root)
        of_image = np.repeat(np.arange(len(ends) - 1), np.diff(ends))

        def where(objects: np.ndarray) -> np.ndarray:
            paths = [label_path(root, os.fsdecode(images.names[of_image[k]])) for k in objects]
            shown = [path.removeprefix(root + os.sep) for path in paths]
            return np.array([f"{path}, line {self.lines[k]}" for path, k in zip(shown, objects, strict=True)])

        boxes = np.array(self.corners, np.float64).reshape(-1, 4)
        alone = sum(defect.found == _ALONE for _, defect in self.wrong)
        if alone and alone == len(boxes) and not recording():
            raise DataError(
                f"{images.root}: each of its {alone} labels is {_ALONE}; set data.init_args.task: detection, or give "
                "polygons"
            )
        errors = AnnotationErrors(images.root, strict)
        usable = np.ones(len(boxes), np.bool_)
        defects: dict[Defect, list[int]] = {}
        for number, defect in self.wrong:
            defects.setdefault(defect, []).append(number)
            usable[number] = False
        for defect, numbers in defects.items():
            errors.add(defect.code, where(np.array(numbers)).tolist(), "file", defect.found)
        # names are made only for boxes that something may be the matter with
        with np.errstate(invalid="ignore"):
            plain = ((boxes >= 0) & (boxes <= 1)).all(axis=1) & _solid(boxes)
        odd = np.flatnonzero(usable & ~plain)
        some = boxes[odd]
        pixel = _pixels(images, of_image[odd]) if recording() else 1.0
        good = usable_boxes(some, np.ones((len(odd), 2)), where(odd), errors, "file", pixel)
        thin = good & ~_solid(some)
        errors.add("box-outside", where(odd[thin]).tolist(), "file")
        boxes[odd], usable[odd] = some, good & ~thin
        errors.warn()
        kept = np.flatnonzero(usable)
        masks: dict[str, Any] = {"masks": self.masks.build().select(kept)} if self.with_masks else {}
        nothing = np.zeros(len(kept), np.bool_)
        return Objects(
            np.searchsorted(kept, ends),
            boxes[kept],
            np.array(self.labels, np.int32)[kept],
            nothing,
            nothing.copy(),
            np.full(len(kept), np.nan, np.float32),
            **masks,
        )


def pixels_of(sizes: Sequence[tuple[int, int]] | np.ndarray) -> np.ndarray:
    """What a pixel is of the width and the height of images of these sizes; a hundredth, where a size is not known.

    Shape:
        - sizes: ``[N, 2]``; 0: not known.
        - Output: ``[N, 2]``.
    """
    sides = np.asarray(sizes, np.float64)
    return np.divide(1, sides, out=np.full(sides.shape, 0.01), where=sides > 0)


def _pixels(images: ImageTable, places: np.ndarray) -> np.ndarray:
    """`pixels_of` the images at these places, whose headers are read."""
    different, of_place = np.unique(places, return_inverse=True)
    return pixels_of(image_sizes(map(images.path, different.tolist())))[of_place.reshape(-1)]


def corners_of_label(numbers: Sequence[float]) -> tuple[float, float, float, float]:
    """The box of a label, without its class: that of its polygon, where it is one; in parts of the image.

    >>> corners_of_label([0.5, 0.5, 0.5, 0.25]), corners_of_label([0.1, 0.9, 0.3, 0.2, 0.2, 0.4])
    ((0.25, 0.375, 0.75, 0.625), (0.1, 0.2, 0.3, 0.9))
    """
    if len(numbers) + 1 == _BOX:
        x, y, half_width, half_height = numbers[0], numbers[1], numbers[2] / 2, numbers[3] / 2
        return x - half_width, y - half_height, x + half_width, y + half_height
    if not math.isfinite(sum(numbers)):  # min and max may overlook a NaN
        return (math.nan,) * 4
    return min(numbers[::2]), min(numbers[1::2]), max(numbers[::2]), max(numbers[1::2])


def parse_label(words: Sequence[bytes | str], num_classes: int) -> "tuple[int, list[float]] | Defect":
    """The class and the numbers of a line, or what is wrong with it, whatever its box.

    Args:
        words: Of the line, at least one.
        num_classes: Number of classes.

    >>> parse_label("1 0.5 0.5 0.2 0.1".split(), 2), parse_label(["2"], 2).code
    ((1, [0.5, 0.5, 0.2, 0.1]), 'label-outside')
    """
    line = _shown(words)
    try:
        label, *numbers = map(float, words)
    except ValueError:
        return Defect("unusable-annotation", f"{line} is not a row of numbers")
    if not (label.is_integer() and 0 <= label < num_classes):
        return Defect("label-outside", f"{label:g}", f"there are {num_classes} classes, 0 to {num_classes - 1}")
    if len(words) % 2 == 0 or len(words) == 1:
        return Defect(
            "unusable-annotation",
            f"{line} has {len(words)} number(s)",
            "a label has 5, 'class x y width height', or, for a polygon, 7 or more, 'class x1 y1 x2 y2 x3 y3 …'",
        )
    return int(label), numbers


def label_defect(numbers: Sequence[float], with_masks: bool) -> "Defect | None":
    """What is wrong with a label apart from its box; None: nothing.

    Args:
        numbers: Of the label, without its class.
        with_masks: Whether masks are required.
    """
    if len(numbers) + 1 < _BOX:
        return Defect("bad-mask", "a polygon of fewer than three points")
    if any(_PIXELS < abs(number) < math.inf for number in numbers):
        found = f"a number beyond {_PIXELS:g}, but they are fractions of the image's width and height, not pixels"
        return Defect("unusable-annotation", found)
    if with_masks and len(numbers) + 1 < _POINTS:
        return Defect("bad-mask", _ALONE)
    if with_masks and not math.isfinite(sum(numbers)):
        return Defect("box-not-finite")
    return None


def _solid(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2:] - boxes[:, :2] >= SLIVER).all(axis=1)


def _shown(words: Sequence[bytes | str]) -> str:
    text = " ".join(word.decode(errors="replace") if isinstance(word, bytes) else word for word in words)
    return repr(text if len(text) <= 60 else text[:57] + "…")
