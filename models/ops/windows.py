"""Overlapping windows that cover an image, for images too large for one pass of a network."""

import math
from collections.abc import Sequence


def window_sides(window: Sequence[int] | int | None, overlap: float) -> tuple[int, int] | None:
    """Check the options of windows, which all tasks share, and return height and width of a window in pixels.

    Args:
        window: Height and width in pixels; one number: square windows. None: no windows.
        overlap: Minimum overlap of neighboring windows, as a fraction of the window.

    Raises:
        ValueError: A side is below 1, or ``overlap`` is outside [0, 1).

    Example:
        >>> window_sides(256, 0.5), window_sides(None, 0.5)
        ((256, 256), None)
    """
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: must be in [0, 1), a fraction of the window, got {overlap}")
    if window is None:
        return None
    sides = (window, window) if isinstance(window, int) else tuple(window)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"window: must be a height and a width in pixels, both >= 1, got {window}")
    return sides[0], sides[1]


def window_starts(length: int, window: int, overlap: float) -> list[int]:
    """Compute the starts of the fewest windows that cover a side with at least the given overlap, evenly spaced.

    Args:
        length: Length of the side, in pixels.
        window: Length of a window, in pixels.
        overlap: Minimum fraction of a window that overlaps with the next one, in [0, 1).

    >>> window_starts(10, 4, 0.5), window_starts(9, 4, 0.0), window_starts(3, 4, 0.5)
    ([0, 2, 4, 6], [0, 3, 5], [0])
    """
    if window >= length:
        return [0]
    step = max(1, math.floor(window * (1 - overlap)))  # at most this far apart
    steps = math.ceil((length - window) / step)
    # rounded to the nearest pixel
    return [(2 * k * (length - window) + steps) // (2 * steps) for k in range(steps + 1)]


def image_windows(size: Sequence[int], window: Sequence[int], overlap: float) -> list[tuple[int, int, int, int]]:
    """Compute the windows of an image: x1, y1, x2, y2 in pixels, row by row. A shorter side is not split.

    Args:
        size: Height and width of the image, in pixels.
        window: Height and width of a window, in pixels.
        overlap: Minimum fraction of a window that overlaps with the next one, in [0, 1).

    >>> image_windows((3, 6), (4, 4), 0.5)
    [(0, 0, 4, 3), (2, 0, 6, 3)]
    """
    tops, lefts = (window_starts(length, side, overlap) for length, side in zip(size, window, strict=True))
    height, width = (min(length, side) for length, side in zip(size, window, strict=True))
    return [(left, top, left + width, top + height) for top in tops for left in lefts]
