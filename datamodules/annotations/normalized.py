"""Boxes in fractions of their image where pixels are expected, and the reverse: all of them, or some."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .annotation_errors import Fault, record_error, record_warning

TOLERANCE = 0.05
"""How far a fraction of an image may extend beyond 0 and 1."""
SMALLEST_SIDE = 3
"""Images with a shorter side are too small to tell fractions from pixels."""

PERCENT = 100
CHANCE = -4
"""Decimal logarithm of the probability above which randomly placed boxes may all lie in the first 100 pixels."""


def are_fractions(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Return whether all boxes lie in 0 to 1 although their images are larger, so that they are not in pixels.

    Boxes with a NaN or infinite coordinate or without area, and boxes of tiny images, do not count.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image; 0: unknown.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.

    >>> are_fractions(np.array([[0.1, 0.2, 0.5, 1.0]]), np.array([[640, 480]]))
    True
    """
    sides = np.asarray(sizes).reshape(-1, 2).min(axis=1)
    with np.errstate(invalid="ignore"):
        counted = np.isfinite(boxes).all(axis=1) & (boxes[:, :2] < boxes[:, 2:]).all(axis=1)
        counted &= (sides == 0) | (sides >= SMALLEST_SIDE)
        inside = ((boxes >= -TOLERANCE) & (boxes <= 1 + TOLERANCE)).all(axis=1)
    return bool(counted.any()) and not bool((counted & ~inside).any())


def reject_fractions(boxes: np.ndarray, sizes: np.ndarray, file: Path, entry: str, remedy: str) -> bool:
    """Reject boxes that are fractions of their image (`are_fractions`), where pixels are expected.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image; 0: unknown.
        file: Their file, or the folder of their files.
        entry: Where in the file they are, such as ``annotations, bbox``.
        remedy: What to do, such as the argument that reads fractions.

    Returns:
        Whether they are. This is only returned within `record_faults`; the caller then leaves out the boxes.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.

    Raises:
        DataError: They are, outside `record_faults`.
    """
    if not are_fractions(boxes, sizes):
        return False
    first = boxes[np.isfinite(boxes).all(axis=1)][0]
    found = f"all {len(boxes)} lie in 0 to 1 (first: {', '.join(f'{side:g}' for side in first)}); {remedy}"
    record_error(Fault("box-normalized", file, [entry], "entry", found))
    return True


def reject_pixels(boxes: np.ndarray, file: Path, entry: str, remedy: str) -> bool:
    """Reject boxes in pixels, where fractions of the image are expected: most have a coordinate beyond 2.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        file, entry, remedy: See `reject_fractions`.

    Returns:
        Whether they are. This is only returned within `record_faults`; the caller then leaves out the boxes.

    Shape:
        - boxes: ``[N, 4]``.

    Raises:
        DataError: They are, outside `record_faults`.
    """
    finite = boxes[np.isfinite(boxes).all(axis=1)]
    beyond = (np.abs(finite) > 2).any(axis=1)
    if 2 * beyond.sum() <= len(finite):
        return False
    found = (
        f"{int(beyond.sum())} of {len(boxes)} have a coordinate beyond 2, got "
        f"{', '.join(f'{side:g}' for side in finite[beyond][0])}; {remedy}"
    )
    record_error(Fault("box-in-pixels", file, [entry], "entry", found))
    return True


def warn_of_percent(boxes: np.ndarray, sizes: np.ndarray, file: Path, entry: str) -> None:
    """Warn of boxes that may be percentages: all lie in 0 to 100, but images are much larger, or most too small.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image; 0: unknown.
        file, entry: See `reject_fractions`.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
    """
    sizes = np.asarray(sizes, np.float64).reshape(-1, 2)
    with np.errstate(invalid="ignore"):
        inside = ((boxes >= 0) & (boxes <= PERCENT)).all()
    if not inside or not boxes.max(initial=0) > PERCENT / 2:
        return
    far_larger = not (sizes < 2 * PERCENT).any() and np.log10(PERCENT / sizes).sum() <= CHANCE
    beyond = int(((boxes[:, 2:] > (1 + TOLERANCE) * sizes) & (sizes > 0)).any(axis=1).sum())
    if far_larger or 2 * beyond > len(boxes) > 1:
        where = f"in images of at least {int(sizes.min())} pixels"
        where = where if far_larger else f"and {beyond} extend beyond their images as pixels"
        found = f"all {len(boxes)} lie in 0 to 100, {where}"
        record_warning(
            Fault("box-percent", file, [entry], "entry", found),
            f"boxes are read as pixels, but may be percentages of their images: {found} ({file}, {entry}); if they "
            "are, write them in pixels; run striate data check",
        )


def warn_of_mixed_units(
    boxes: np.ndarray,
    sizes: np.ndarray,
    normalized: bool,
    file: Path,
    names: Sequence[Any],
    unit: str = "annotation",
) -> None:
    """Warn of boxes in another unit than the others; call it after `reject_fractions` or `reject_pixels`.

    Where pixels are expected, these are boxes within 0 to 1 with a coordinate that is not a whole number, so smaller
    than a pixel; where fractions are expected, boxes with a coordinate beyond 2.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image; 0: unknown.
        normalized: Whether fractions are expected.
        file, names, unit: See `Fault`; a name for each box.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
    """
    with np.errstate(invalid="ignore"):
        if normalized:
            odd = np.isfinite(boxes).all(axis=1) & (np.abs(boxes) > 2).any(axis=1)
        else:
            sides = np.asarray(sizes).reshape(-1, 2).min(axis=1)
            odd = ((boxes >= -TOLERANCE) & (boxes <= 1 + TOLERANCE)).all(axis=1) & (boxes % 1 != 0).any(axis=1)
            odd &= (boxes[:, :2] < boxes[:, 2:]).all(axis=1) & ((sides == 0) | (sides >= SMALLEST_SIDE))
    if not odd.any():
        return
    where = np.flatnonzero(odd)
    place = "have a coordinate beyond 2" if normalized else "lie in 0 to 1"
    expected, consequence = ("fractions", "would cover or miss") if normalized else ("pixels", "would be a speck in")
    found = f"{len(where)} of {len(boxes)} {place}, but {expected} are expected"
    fault = Fault("box-mixed-units", file, [names[k] for k in where.tolist()], unit, found, boxes=boxes[where])
    first = ", ".join(f"{side:g}" for side in boxes[where[0]])
    record_warning(
        fault,
        f"{found}, so that each {consequence} its image (first: {fault.location(0)}, got {first}): write all boxes in "
        f"{expected}; run striate data check to list them",
    )
