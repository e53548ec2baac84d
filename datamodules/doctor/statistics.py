"""Counts and distributions of a data set."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..proposals.recall import ProposalRecall
from .records import SplitRecord
from .tiny_boxes import size_limit_of, tiny_boxes


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
        box_widths, box_heights: ``[M]``, of objects other than crowds and tiny ones, in pixels.
        box_images: ``[M, 2]``, width and height of their images.
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
    box_images: np.ndarray

    @property
    def box_fractions(self) -> np.ndarray:
        """Square roots of the areas of the boxes as fractions of the short sides of their images: ``[M]``."""
        return self.box_sides / np.maximum(self.box_images.min(axis=1), 1)

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
        proposals: Recall of the stored proposals of each split.
    """

    kind: str
    class_names: list[str]
    splits: list[SplitStatistics]
    one_each: bool = False
    suggestions: list[Suggestion] = field(default_factory=list)
    proposals: list[ProposalRecall] = field(default_factory=list)


def statistics_of(records: Sequence[SplitRecord], class_names: Sequence[str], one_each: bool = False) -> Statistics:
    """Count images, objects and pixels of all splits."""
    limit = size_limit_of(records)
    counted = [_split_statistics(record, len(class_names), limit) for record in records]
    kinds = [kind for kind, _ in counted]
    kind = next((kind for kind in ("pixels", "boxes", "labels") if kind in kinds), "nothing")
    return Statistics(kind, list(class_names), [split for _, split in counted], one_each)


def _split_statistics(record: SplitRecord, num_classes: int, limit: float) -> tuple[str, SplitStatistics]:
    """The kind of the targets of a split, and its counts; boxes below the `limit` of sizes have no statistics."""
    table, readable = record.objects(), record.inspected & record.readable
    boxes, has_boxes = table.boxes[table.with_box], bool(table.with_box.any())
    box_images = record.sizes[table.image[table.with_box]]
    meant = ~tiny_boxes(boxes, box_images, limit) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
    boxes, box_images = boxes[meant], box_images[meant]
    counted = table.not_crowd & (table.labels >= 0) & (table.labels < max(num_classes, 1))
    pairs = np.unique(np.column_stack([table.image[counted], table.labels[counted]]), axis=0)
    per_image = np.bincount(table.image[table.not_crowd], minlength=len(record))[readable]
    kind = "boxes" if has_boxes else "labels" if len(table.labels) else "nothing"
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
        box_images,
    )
