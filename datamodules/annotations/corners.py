"""Boxes of two corners where a corner or a center and a size are expected."""

import numpy as np

_SLACK = 0.02
"""Fraction of an image's side by which boxes may extend beyond it."""
_MANY = 3
"""Boxes that are not all like corners by chance, whatever their areas say."""


def are_corners(
    numbers: np.ndarray, sizes: np.ndarray, areas: np.ndarray | None = None, centered: bool = False
) -> bool:
    """Return whether boxes that should be x, y, width, height are x1, y1, x2, y2.

    They are if all ascend and lie in their images as corners, and either the areas are those of corners, or most
    extend beyond their images as sizes. Of one or two boxes, no area may be that of a size; of more, it may have been
    computed from the wrong numbers.

    Args:
        numbers: The four numbers of each box as they are written.
        sizes: Width and height of each box's image, in the same unit.
        areas: Area of each object, as written; NaN: unknown; None: all unknown.
        centered: Whether x, y should be the center of the box, not its first corner.

    Shape:
        - numbers: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - areas: ``[N]``.

    >>> are_corners(np.array([[40.0, 30, 60, 45]]), np.array([[64, 48]]))
    True
    """
    finite = np.isfinite(numbers).all(axis=1)
    numbers, sizes = numbers[finite], np.asarray(sizes)[finite]
    first, second, slack = numbers[:, :2], numbers[:, 2:], _SLACK * sizes
    if not len(numbers) or not ((first >= -slack) & (second > first) & (second <= sizes + slack)).all():
        return False
    low, high = (first - second / 2, first + second / 2) if centered else (first, first + second)
    beyond = ((low < -slack) | (high > sizes + slack)).any(axis=1)
    most_beyond = bool(2 * beyond.sum() > len(numbers))
    if most_beyond and len(numbers) >= _MANY:
        return True
    areas = np.full(len(numbers), np.nan) if areas is None else areas[finite]
    of_corners, of_sizes = (second - first).prod(axis=1), second.prod(axis=1)
    if (np.abs(areas - of_sizes) <= 0.01 * of_sizes).any():
        return False
    return most_beyond or bool((np.abs(areas - of_corners) <= 0.01 * of_corners).all())
