"""Figures of a data set, and what they suggest."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .records import SplitRecord
from .samples import object_sizes


@dataclass
class SplitFigures:
    """Counts of one split.

    Attributes:
        name: of the split.
        images, readable: how many, and how many could be read.
        objects: how many, without crowds.
        counts: ``[K]``, objects (images, in classification) of each class; of semantic masks, pixels.
        images_with: ``[K]``, images that have each class.
        per_image: ``[N]``, objects of each image read.
        empty: images without objects; None where each has a label.
        widths, heights: ``[N]``, of the images read.
        box_widths, box_heights: ``[M]``, of objects other than crowds, pixels.
        box_shares: ``[M]``, the square roots of their areas as parts of the short sides of their images.
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
    box_shares: np.ndarray


@dataclass
class Suggestion:
    """What a figure implies, and the lines of YAML that would say so."""

    title: str
    text: str
    yaml: str = ""


@dataclass
class Statistics:
    """Figures of all splits.

    Attributes:
        kind: what the targets are: ``labels``, ``boxes``, ``pixels``, or ``nothing``.
        one_each: whether an image has one object, as localization has it.
        class_names: the classes.
        splits: one a split.
        suggestions: what follows.
    """

    kind: str
    class_names: list[str]
    splits: list[SplitFigures]
    one_each: bool = False
    suggestions: list[Suggestion] = field(default_factory=list)


def figures(records: Sequence[SplitRecord], class_names: Sequence[str], one_each: bool = False) -> Statistics:
    """Count what was read."""
    kinds, splits = [], []
    for record in records:
        kind, counted = _figures(record, len(class_names))
        kinds.append(kind)
        splits.append(counted)
    kind = next((kind for kind in ("pixels", "boxes", "labels") if kind in kinds), "nothing")
    return Statistics(kind, list(class_names), splits, one_each)


def _figures(record: SplitRecord, classes: int) -> tuple[str, SplitFigures]:
    table, seen, readable = record.objects(), record.seen, record.readable
    boxed = table.boxed
    short = record.sizes[table.image[table.with_box]].min(axis=1)
    real = table.real & (table.labels >= 0) & (table.labels < max(classes, 1))
    pairs = np.unique(np.column_stack([table.image[real], table.labels[real]]), axis=0)
    per_image = np.bincount(table.image[table.real], minlength=len(record))[seen & readable]
    has_boxes = len(boxed) > 0
    kind = "boxes" if has_boxes else "labels" if len(table.labels) else "nothing"
    counts = np.bincount(table.labels[real], minlength=classes)
    images_with = np.bincount(pairs[:, 1], minlength=classes) if len(pairs) else np.zeros(classes, np.int64)
    empty: int | None = int((per_image == 0).sum()) if kind != "labels" else None
    if record.pixels is not None and record.with_class is not None and record.foreground is not None:
        kind, counts, images_with = "pixels", record.pixels, record.with_class
        empty = int((seen & readable & ~record.foreground).sum())
    elif kind == "labels":
        has_none = per_image == 0
        empty = int(has_none.sum()) or None
    return kind, SplitFigures(
        record.name,
        len(record),
        int((seen & readable).sum()),
        int(table.real.sum()),
        counts,
        images_with,
        per_image,
        empty,
        record.sizes[readable, 0],
        record.sizes[readable, 1],
        boxed[:, 2] - boxed[:, 0],
        boxed[:, 3] - boxed[:, 1],
        object_sizes(boxed) / np.maximum(short, 1),
    )


def box_sides(split: SplitFigures) -> np.ndarray:
    """Square roots of the areas of a split's boxes: ``[M]``, pixels."""
    zeros = np.zeros_like(split.box_widths)
    return object_sizes(np.column_stack([zeros, zeros, split.box_widths, split.box_heights]))
