"""Mask values that come from smoothed edges (antialiasing, interpolation) instead of from annotations."""

import cv2
import numpy as np

_MOST = 0.75
"""Fraction of a value's pixels that must lie between a lower and a higher value."""


def edge_values(mask: np.ndarray) -> np.ndarray:
    """Return the values of a mask that occur only along edges, between a lower and a higher value.

    Such a value has no pixel whose eight neighbors equal it, and nearly all of its pixels have a lower and a higher
    neighbor. An object of a few pixels is not affected: beside it there is nothing but background.

    Shape:
        - mask: ``[H, W]`` of whole numbers, 0 or greater.
        - Output: ``[K]`` int64, ascending; empty if none but the lowest has an interior.

    >>> edge_values(np.array([[0, 0, 80, 255, 255, 255]] * 3)).tolist()
    [80]
    """
    if not mask.size:
        return np.zeros(0, np.int64)
    levels, kernel = mask.astype(np.float64), np.ones((3, 3), np.uint8)
    low, high = cv2.erode(levels, kernel), cv2.dilate(levels, kernel)
    counts, cores, rims = (
        np.bincount(mask[where], minlength=int(mask.max()) + 1)
        for where in (np.ones(mask.shape, np.bool_), low == high, (low < levels) & (levels < high))
    )
    if not cores[int(mask.min()) + 1 :].any():
        return np.zeros(0, np.int64)
    return np.flatnonzero((counts > 0) & (cores == 0) & (rims >= _MOST * counts))


def count_smoothed(mask: np.ndarray, white: int = 255) -> int:
    """Count the `edge_values` of a mask that looks smoothed: they are most of its values, and at least three.

    If it is white on 0, as thresholded masks are, one is enough, unless there is another value.

    Args:
        mask: Values, or their ranks if these are large; 0 is the background.
        white: Value or rank of white; -1: none.

    Returns:
        Their number; 0: the mask does not look smoothed.

    Shape:
        - mask: ``[H, W]`` of whole numbers, 0 or greater.
    """
    values = np.unique(mask[mask > 0])
    count = len(edge_values(mask)) if len(values) > 1 else 0
    is_white = count == len(values) - 1 and values[-1:] == [white]
    return count if (count >= 3 and 2 * count > len(values)) or is_white else 0
