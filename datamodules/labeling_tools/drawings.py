"""Objects as labeling tools draw them, in pixels, and what a source needs of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.objects import ImageTable, Objects, usable_boxes
from ..loading.targets import boxes_of_masks

CIRCLE_POINTS = 64
"""Number of points of the polygon that approximates a circle or an ellipse."""


class Drawing(NamedTuple):
    """An object.

    Attributes:
        image: Index of its image.
        name: Its place, for messages.
        label: Name of its class.
        polygons: x1, y1, x2, y2, … of each of its parts.
        mask: ``[H, W]`` uint8; its pixels, beside the polygons; None: no mask.
    """

    image: int
    name: str
    label: str
    polygons: list[list[float]]
    mask: np.ndarray | None = None


@dataclass(eq=False)
class Drawings:
    """The images of a data set, and the objects drawn on them.

    Attributes:
        root: Folder of the images.
        file: File of the objects, or the folder of their files.
        unit: What the names of objects are, see `Fault`.
        names: Path of each image below `root`.
        sizes: Width and height of each image.
        objects: The objects, image by image.
        unusable: Name of each shape that is not an object, and why.
    """

    root: Path
    file: Path
    unit: str
    names: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    objects: list[Drawing] = field(default_factory=list)
    unusable: list[tuple[str, str]] = field(default_factory=list)

    def labels(self) -> list[str]:
        """Return the names of the classes, sorted."""
        return sorted({drawing.label for drawing in self.objects})

    def select(self, images: Sequence[int]) -> "Drawings":
        """Return some of the images, by index, with their objects."""
        position = {image: index for index, image in enumerate(images)}
        objects = [one._replace(image=position[one.image]) for one in self.objects if one.image in position]
        names, sizes = [self.names[image] for image in images], [self.sizes[image] for image in images]
        objects.sort(key=lambda one: one.image)
        return Drawings(self.root, self.file, self.unit, names, sizes, objects, self.unusable)

    def table(self) -> ImageTable:
        """Return the table of all images, with their sizes."""
        return ImageTable.of_names(self.root, self.names, np.array(self.sizes, np.int32).reshape(-1, 2))

    def usable_objects(self, class_names: Sequence[str], with_masks: bool, strict: bool) -> Objects:
        """Return the objects that can be used; the others are counted.

        Args:
            class_names: Names of the classes.
            with_masks: Whether masks are needed.
            strict: Whether to stop at an object that cannot be used, instead of counting it.
        """
        kept, errors = [], AnnotationErrors(self.file, strict)
        for name, problem in self.unusable:
            errors.add("unusable-annotation", [name], self.unit, problem)
        for drawing in self.objects:
            if drawing.label in class_names:
                kept.append(drawing)
            else:
                remedy = f"add it to class_names{did_you_mean(drawing.label, class_names)}"
                record_error(Fault("label-outside", self.file, [drawing.name], self.unit, f"{drawing.label!r}", remedy))
        labels = {name: label for label, name in enumerate(class_names)}
        sizes = np.array([self.sizes[one.image] for one in kept], np.int64).reshape(-1, 2)
        boxes = np.array([box_of(one) for one in kept], np.float64).reshape(-1, 4)
        names = np.array([one.name for one in kept], object)
        usable = usable_boxes(boxes, sizes, names, errors, self.unit)
        builder, masks = ObjectMasksBuilder(), []
        for index in np.flatnonzero(usable) if with_masks else ():
            width, height = self.sizes[kept[index].image]
            if defect := builder.add(segmentation_of(kept[index], height, width), height, width):
                errors.add("bad-mask", [kept[index].name], self.unit, defect)
                usable[index] = False
            else:
                masks.append(index)
        errors.warn()
        order = np.flatnonzero(usable)
        return Objects.grouped(
            len(self.names),
            np.array([kept[index].image for index in order], np.int64),
            boxes[order],
            np.array([labels[kept[index].label] for index in order], np.int64),
            masks=builder.build() if with_masks else None,
            errors=errors,
        )


def image_size(width: Any, height: Any) -> tuple[int, int] | None:
    """Return the size of an image as a file states it; None: these are not numbers of pixels.

    >>> image_size(640, 480), image_size(640, None), image_size(0, 480)
    ((640, 480), None, None)
    """
    is_size = all(type(side) is int and 0 < side < 2**31 for side in (width, height))
    return (width, height) if is_size else None


def box_of(drawing: Drawing) -> list[float]:
    """Return x1, y1, x2, y2 around all parts of an object."""
    boxes = [np.array(polygon, np.float64).reshape(-1, 2) for polygon in drawing.polygons]
    sides = [np.concatenate([points.min(axis=0), points.max(axis=0)]) for points in boxes if len(points)]
    if drawing.mask is not None and drawing.mask.any():
        sides.append(boxes_of_masks(drawing.mask[None])[0].astype(np.float64))
    if not sides:
        return [math.nan] * 4
    return [*np.min(sides, axis=0)[:2].tolist(), *np.max(sides, axis=0)[2:].tolist()]


def segmentation_of(drawing: Drawing, height: int, width: int) -> object:
    """Return the mask of an object in COCO's form: polygons, or run lengths if a part of it is a mask."""
    if drawing.mask is None:
        return drawing.polygons
    from hotcoco import mask as rle  # takes a quarter of a second to import

    mask = drawing.mask.copy()
    for polygon in drawing.polygons:
        mask |= rle.decode(rle.fr_poly(polygon, height, width))
    runs = rle.encode(np.asfortranarray(mask))
    return {"size": [height, width], "counts": runs["counts"]}


def rectangle(x1: float, y1: float, x2: float, y2: float) -> list[float]:
    """Return a box as a polygon, its four corners clockwise."""
    return [x1, y1, x2, y1, x2, y2, x1, y2]


def ellipse(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0) -> list[float]:
    """Return the polygon of an ellipse that is rotated clockwise."""
    angles = np.arange(CIRCLE_POINTS) * 2 * np.pi / CIRCLE_POINTS
    turn = np.deg2rad(degrees)
    across, down = radius_x * np.cos(angles), radius_y * np.sin(angles)
    points = np.stack(
        [x + across * np.cos(turn) - down * np.sin(turn), y + across * np.sin(turn) + down * np.cos(turn)]
    )
    return [float(side) for side in points.T.ravel()]
