"""Boxes that are too small to be meant: below 2 pixels, or far below the sizes of the others."""

from collections.abc import Iterator, Sequence

import numpy as np

from .findings import Finding, box_rows, class_label, format_box
from .records import SplitRecord

MIN_SIDE = 2 - 1e-3
"""Pixels below which a box is tiny; fractions of an image may be a little less than the pixels they stand for."""
FRACTION = 0.05
"""Fraction of the median size that a box far below it does not reach."""
DEVIATIONS = 4.0
"""Distance of such a box from the median, in robust standard deviations of the logarithm of the sizes."""
FEW = 20
"""Number of boxes below which they have no typical size."""


def size_limit(widths: np.ndarray, heights: np.ndarray) -> float:
    """Return the square root of an area, in pixels, below which a box is far smaller than the others.

    Shape:
        - widths, heights: ``[N]``, pixels.
    """
    areas = (widths * heights).astype(np.float64)
    if len(areas) < FEW:
        return 0.0
    logs = np.log(areas.clip(min=1e-6)) / 2
    median = float(np.median(logs))
    deviation = 1.4826 * float(np.median(np.abs(logs - median)))  # a normal distribution's standard deviation
    return float(np.exp(median) * min(FRACTION, np.exp(-DEVIATIONS * deviation)))


def tiny_boxes(boxes: np.ndarray, sizes: np.ndarray, limit: float) -> np.ndarray:
    """Return which boxes are tiny, but have an area; those as wide or high as their image are not, in this direction.

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        sizes: Width and height of each box's image.
        limit: See `size_limit`.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - Output: ``[N]`` bool.
    """
    sides = boxes[:, 2:].astype(np.float64) - boxes[:, :2]
    is_point = (sides < np.minimum(MIN_SIDE, np.maximum(sizes, 1))).any(axis=1)
    is_small = np.sqrt(sides.prod(axis=1).clip(min=0)) < limit
    return (is_point | is_small) & (sides > 0).all(axis=1)


def size_limit_of(records: Sequence[SplitRecord]) -> float:
    """Return `size_limit` of the boxes of all splits."""
    tables = [record.objects() for record in records]
    boxes = np.concatenate([table.boxes[table.with_box] for table in tables] or [np.zeros((0, 4))])
    return size_limit(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])


def tiny_box_findings(records: Sequence[SplitRecord], class_names: Sequence[str]) -> Iterator[Finding]:
    """Yield a finding for each tiny box that is not of a crowd."""
    limit = size_limit_of(records)
    for record in records:
        table = record.objects()
        tiny = tiny_boxes(table.boxes, record.sizes[table.image], limit) & table.with_box
        for number in np.flatnonzero(tiny).tolist():
            index, box = int(table.image[number]), table.boxes[number]
            name, path = class_label(class_names, int(table.labels[number])), record.paths[index]
            width, height = box[2:] - box[:2]
            detail = f"{name} {format_box(box)}, {width:.3g} x {height:.3g} pixels"
            location = path or f"sample {index}"
            yield Finding("box-tiny", location, detail, record.name, path, index, box_rows(box[None]))
