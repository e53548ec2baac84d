"""Convert masks to polygons along the edges of their pixels, without loss."""

import numpy as np


def outline(mask: np.ndarray) -> np.ndarray:
    """Return one closed polygon around a mask.

    It successors the edges between pixels, not their centers. If a mask has several parts, or holes, their outlines are
    joined by lines that are traversed in both directions and so enclose no area: filled by the even-odd or the nonzero
    rule, the polygon reproduces the mask exactly (and so does COCO's rasterization).

    Args:
        mask: Mask of an object, nonzero inside; not empty.

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
    """Return the corners of each closed boundary of a mask ``[H, W]``, with the inside on the right."""
    inside = np.pad(mask != 0, 1)
    successors: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # for each side of a pixel whose neighbor there is outside: from its start to its end, clockwise
    for shift, axis, start, end in ((1, 0, (0, 0), (1, 0)), (1, 1, (0, 1), (0, 0)), (-1, 0, (1, 1), (0, 1)),
                                    (-1, 1, (1, 0), (1, 1))):  # fmt: skip
        rows, columns = np.nonzero(inside & ~np.roll(inside, shift, axis))
        for x, y in zip((columns - 1).tolist(), (rows - 1).tolist(), strict=True):
            successors.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    rings = []
    while successors:
        point = next(iter(successors))
        ring = [point]
        while point in successors:
            ends = successors[point]
            end = ends.pop()
            if not ends:
                del successors[point]
            point = end
            ring.append(point)
        rings.append(_corners(ring[:-1]))
    return rings


def _corners(ring: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Remove the points of a closed line at which its direction does not change."""
    before, after = [*ring[-1:], *ring[:-1]], [*ring[1:], *ring[:1]]
    return [
        b
        for a, b, c in zip(before, ring, after, strict=True)
        if (b[0] - a[0], b[1] - a[1]) != (c[0] - b[0], c[1] - b[1])
    ]
