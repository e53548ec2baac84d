"""Counts and distributions of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..loading.targets import box_areas
from .records import SplitRecord


@dataclass
class SplitStatistics:
    """Counts of one split.

    Attributes:
        name: Name of the split.
        images, readable: Number of images, and of those that could be read.
        objects: Number of objects without crowds.
        counts: ``[K]``, objects of each class (images, in classification; pixels, in semantic masks).
        images_with: ``[K]``, images that contain each class.
        per_image: ``[N]``, objects of each readable image.
        empty: Images without objects; None: each has a label.
        widths, heights: ``[N]``, of the readable images.
        box_widths, box_heights: ``[M]``, of objects other than crowds, in pixels.
        box_fractions: ``[M]``, square roots of their areas as fractions of the short sides of their images.
    """

    name: str
    images: int
    readable: int
    objects: int
    counts: np.ndarray
    images_with: np.ndarray
    per_image: np.ndarray
    empty: int | None
    widths: np.ndarray
    heights: np.ndarray
    box_widths: np.ndarray
    box_heights: np.ndarray
    box_fractions: np.ndarray

    @property
    def box_sides(self) -> np.ndarray:
        """Square roots of the areas of the boxes: ``[M]``, in pixels."""
        return np.sqrt((self.box_widths * self.box_heights).clip(min=0))


@dataclass
class Suggestion:
    """What a statistic implies, and the YAML lines that follow from it."""

    title: str
    text: str
    yaml: str = ""


@dataclass
class Statistics:
    """Statistics of all splits.

    Attributes:
        kind: Kind of the targets: ``labels``, ``boxes``, ``pixels``, or ``nothing``.
        class_names: Names of the classes.
        splits: One entry per split.
        one_each: Whether each image has one object, as in localization.
        suggestions: What follows from the statistics.
    """

    kind: str
    class_names: list[str]
    splits: list[SplitStatistics]
    one_each: bool = False
    suggestions: list[Suggestion] = field(default_factory=list)


def statistics_of(records: Sequence[SplitRecord], class_names: Sequence[str], one_each: bool = False) -> Statistics:
    """Count images, objects and pixels of all splits."""
    counted = [_split_statistics(record, len(class_names)) for record in records]
    kinds = [kind for kind, _ in counted]
    kind = next((kind for kind in ("pixels", "boxes", "labels") if kind in kinds), "nothing")
    return Statistics(kind, list(class_names), [split for _, split in counted], one_each)


def _split_statistics(record: SplitRecord, num_classes: int) -> tuple[str, SplitStatistics]:
    """The kind of the targets of a split, and its counts."""
    table, readable = record.objects(), record.inspected & record.readable
    boxes = table.boxes[table.with_box]
    short_sides = record.sizes[table.image[table.with_box]].min(axis=1)
    counted = table.not_crowd & (table.labels >= 0) & (table.labels < max(num_classes, 1))
    pairs = np.unique(np.column_stack([table.image[counted], table.labels[counted]]), axis=0)
    per_image = np.bincount(table.image[table.not_crowd], minlength=len(record))[readable]
    kind = "boxes" if len(boxes) else "labels" if len(table.labels) else "nothing"
    counts = np.bincount(table.labels[counted], minlength=num_classes)
    images_with = np.bincount(pairs[:, 1], minlength=num_classes) if len(pairs) else np.zeros(num_classes, np.int64)
    empty: int | None = int((per_image == 0).sum())
    if record.class_pixels is not None:
        kind, counts, images_with = "pixels", record.class_pixels, record.masks_with_class
        empty = int((readable & ~record.has_foreground).sum())
    elif kind == "labels":
        empty = empty or None
    return kind, SplitStatistics(
        record.name,
        len(record),
        int(readable.sum()),
        int(table.not_crowd.sum()),
        counts,
        images_with,
        per_image,
        empty,
        record.sizes[record.readable, 0],
        record.sizes[record.readable, 1],
        boxes[:, 2] - boxes[:, 0],
        boxes[:, 3] - boxes[:, 1],
        np.sqrt(box_areas(boxes).clip(min=0)) / np.maximum(short_sides, 1),
    )
