"""Masks as one polygon each, along the edges of their pixels, so that no pixel is lost."""

import numpy as np


def outline(mask: np.ndarray) -> np.ndarray:
    """One closed polygon around a mask.

    It follows the edges between pixels, not their centres. Where a mask has several parts, or holes, their outlines
    are joined by lines that are gone there and back, and so enclose nothing: filled by the even-odd or by the
    non-zero rule, the polygon gives the mask again, to the pixel (so does COCO's own rasterisation).

    Args:
        mask: not zero inside; not empty.

    Shape:
        - mask: ``[H, W]``.
        - Output: ``[N, 2]`` int64, x and y of the corners.

    >>> outline(np.array([[0, 1, 1], [0, 1, 1]])).tolist()
    [[1, 0], [3, 0], [3, 2], [1, 2]]
    """
    rings = _rings(mask)
    first = rings[0]
    if len(rings) == 1:
        return np.array(first)
    path = list(first)
    for ring in rings[1:]:
        path += [first[0], *ring, ring[0]]
    return np.array([*path, first[0]])


def _rings(mask: np.ndarray) -> list[list[tuple[int, int]]]:
    """The corners of each closed line between inside and outside, with the inside on the right hand."""
    inside = np.pad(mask != 0, 1)
    follows: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # a side of an inner pixel whose neighbour there is outside: from its one end to its other, clockwise
    for shift, axis, start, end in ((1, 0, (0, 0), (1, 0)), (1, 1, (0, 1), (0, 0)), (-1, 0, (1, 1), (0, 1)),
                                    (-1, 1, (1, 0), (1, 1))):  # fmt: skip
        rows, columns = np.nonzero(inside & ~np.roll(inside, shift, axis))
        for x, y in zip((columns - 1).tolist(), (rows - 1).tolist(), strict=True):
            follows.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while follows:
        at = next(iter(follows))
        ring = [at]
        while at in follows:
            ends = follows[at]
            following = ends.pop()
            if not ends:
                del follows[at]
            at = following
            ring.append(at)
        rings.append(_corners(ring[:-1]))
    return rings


def _corners(ring: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """A closed line of single steps without the points where it goes straight on."""
    before, after = [*ring[-1:], *ring[:-1]], [*ring[1:], *ring[:1]]
    return [
        b
        for a, b, c in zip(before, ring, after, strict=True)
        if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
    ]
