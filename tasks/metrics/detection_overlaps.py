"""Which detection overlaps which object, over all images at once.

Shape legend: M boxes and N others in all images together, P pairs of a box and another of the same image.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PAIRS = 2**20  # computed at once


def pairs_of_images(image: Integers, image_of_others: Integers) -> Iterator[tuple[Integers, Integers]]:
    """All pairs of a box and another of its image: the numbers of both, ``[P]`` each, piece by piece.

    All pairs of a box are in one piece, one after the other, its others in their order.

    Shape:
        - image: ``[M]``, in any order
        - image_of_others: ``[N]``, rising
    """
    starts, stops = (np.searchsorted(image_of_others, image, side) for side in ("left", "right"))
    counts = stops - starts
    paired = np.flatnonzero(counts)
    totals = np.cumsum(counts[paired])
    cuts = np.searchsorted(totals, np.arange(PAIRS, totals[-1] if len(totals) else 0, PAIRS))
    for boxes in np.split(paired, cuts):
        sizes = counts[boxes]
        begins = np.cumsum(sizes) - sizes
        others = np.arange(sizes.sum()) + np.repeat(starts[boxes] - begins, sizes)
        yield np.repeat(boxes, sizes), others


def overlaps(boxes: Floats, others: Floats, pixel: float = 0.0, of_box: bool = False) -> Floats:
    """IoU of each box with its other, ``[P]``; 0 where both are without area.

    Args:
        boxes: ``[P, 4]``, x1 y1 x2 y2.
        others: ``[P, 4]``.
        pixel: what a box's sides have more than the difference of its edges.
        of_box: the part of the box that is within the other, in place of the IoU.
    """
    corners = np.maximum(boxes[:, :2], others[:, :2]), np.minimum(boxes[:, 2:], others[:, 2:])
    shared = np.clip(corners[1] - corners[0] + pixel, 0, None).prod(1)
    whole = (boxes[:, 2:] - boxes[:, :2] + pixel).prod(1)
    if not of_box:
        whole += (others[:, 2:] - others[:, :2] + pixel).prod(1) - shared
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def most_overlapped(
    boxes: Floats, image: Integers, others: Floats, image_of_others: Integers, pixel: float = 0.0
) -> tuple[Integers, Floats]:
    """For each box the other of its image that it overlaps most, the first of them at a draw; and the IoU.

    Where the image has no other the IoU is -1 and the other's number means nothing.

    Shape:
        - boxes: ``[M, 4]``
        - image: ``[M]``, in any order
        - others: ``[N, 4]``
        - image_of_others: ``[N]``, rising
        - output: ``[M]`` each
    """
    best, overlap = np.zeros(len(boxes), np.int64), np.full(len(boxes), -1.0)
    for mine, other in pairs_of_images(image, image_of_others):
        ious = overlaps(boxes[mine], others[other], pixel)
        begins = np.flatnonzero(np.diff(mine, prepend=-1))
        each = mine[begins]
        overlap[each] = np.maximum.reduceat(ious, begins) if len(begins) else ious
        highest = np.flatnonzero(ious == overlap[mine])
        best[each] = other[highest[np.searchsorted(highest, begins)]]
    return best, overlap


def match_in_turn(
    boxes: Floats, image: Integers, others: Floats, image_of_others: Integers, iou: float
) -> tuple[Integers, Integers]:
    """Give each box in turn the free other that it overlaps most, if by `iou` at least: numbers of both.

    Shape:
        - boxes: ``[M, 4]``, those that choose first in front
        - image: ``[M]``
        - others: ``[N, 4]``
        - image_of_others: ``[N]``, rising
        - output: ``[matches]`` each
    """
    near: list[tuple[Integers, Integers, Floats]] = []
    for mine, other in pairs_of_images(image, image_of_others):
        ious = overlaps(boxes[mine], others[other])
        close = ious >= iou
        near.append((mine[close], other[close], ious[close]))
    if not near:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    mine, other, ious = (np.concatenate(column) for column in zip(*near, strict=True))
    order = np.lexsort((-ious, mine))
    free = np.ones(len(others), bool)
    chosen: dict[int, int] = {}
    for box, wanted in zip(mine[order].tolist(), other[order].tolist(), strict=True):
        if free[wanted] and box not in chosen:
            chosen[box] = wanted
            free[wanted] = False
    return np.array(list(chosen), np.int64), np.array(list(chosen.values()), np.int64)
