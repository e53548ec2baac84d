"""Overlaps of regions within each image, computed over all images at once.

Regions are boxes or masks: the functions take a `PairOverlap`, which returns the IoU of pairs. Shape legend: M regions
and N candidates in all images together, P pairs of a region and a candidate of the same image.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

PairOverlap = Callable[[Integers, Integers], Floats]
"""Indices of P regions and of P candidates -> the IoU of each pair, ``[P]``."""

PAIRS = 2**20  # pairs per block, which bounds the memory


def pairs_of_images(image: Integers, candidate_image: Integers) -> Iterator[tuple[Integers, Integers]]:
    """Yield all pairs of a box and a candidate of its image: the indices of both, ``[P]`` each, block by block.

    All pairs of a box are in one block, one after the other, with the candidates in their order.

    Shape:
        - image: ``[M]``, in any order
        - candidate_image: ``[N]``, ascending
    """
    starts, stops = (np.searchsorted(candidate_image, image, side) for side in ("left", "right"))
    counts = stops - starts
    paired = np.flatnonzero(counts)
    totals = np.cumsum(counts[paired])
    cuts = np.searchsorted(totals, np.arange(PAIRS, totals[-1] if len(totals) else 0, PAIRS))
    for boxes in np.split(paired, cuts):
        sizes = counts[boxes]
        begins = np.cumsum(sizes) - sizes
        candidates = np.arange(sizes.sum()) + np.repeat(starts[boxes] - begins, sizes)
        yield np.repeat(boxes, sizes), candidates


def overlaps(boxes: Floats, candidates: Floats, pixel: float = 0.0, of_box: bool = False) -> Floats:
    """IoU of each box with its candidate, ``[P]``; 0 where neither has an area.

    Args:
        boxes: x1, y1, x2, y2.
        candidates: The same, one for each box.
        pixel: Added to the difference of a box's edges to get its sides: 1 where edges name pixels.
        of_box: Compute the share of the box's area that is inside the candidate, instead of the IoU.

    Shape:
        - boxes: ``[P, 4]``
        - candidates: ``[P, 4]``
    """
    top_left, bottom_right = np.maximum(boxes[:, :2], candidates[:, :2]), np.minimum(boxes[:, 2:], candidates[:, 2:])
    intersection = np.clip(bottom_right - top_left + pixel, 0, None).prod(1)
    whole = (boxes[:, 2:] - boxes[:, :2] + pixel).prod(1)
    if not of_box:
        whole += (candidates[:, 2:] - candidates[:, :2] + pixel).prod(1) - intersection
    return np.divide(intersection, whole, out=np.zeros_like(intersection), where=whole > 0)


def best_overlaps(
    overlap: PairOverlap,
    image: Integers,
    candidate_image: Integers,
    unlike: tuple[Integers, Integers] | None = None,
) -> tuple[Integers, Floats]:
    """For each region, the candidate of its image with the highest IoU (the first on ties), and that IoU.

    Where the image has no candidate, the IoU is -1 and the index has no meaning. With `unlike`, labels ``[M]`` and
    ``[N]``, only candidates of another label are compared.

    Shape:
        - image: ``[M]``, in any order
        - candidate_image: ``[N]``, ascending
        - output: ``[M]`` each
    """
    best, highest_iou = np.zeros(len(image), np.int64), np.full(len(image), -1.0)
    for region, candidate in pairs_of_images(image, candidate_image):
        ious = overlap(region, candidate)
        if unlike is not None:
            ious[unlike[0][region] == unlike[1][candidate]] = -1
        begins = np.flatnonzero(np.diff(region, prepend=-1))
        unique = region[begins]
        highest_iou[unique] = np.maximum.reduceat(ious, begins) if len(begins) else ious
        highest = np.flatnonzero(ious == highest_iou[region])
        best[unique] = candidate[highest[np.searchsorted(highest, begins)]]
    return best, highest_iou


def match_greedily(
    overlap: PairOverlap, image: Integers, candidate_image: Integers, iou: float
) -> tuple[Integers, Integers]:
    """Match each region in turn to the free candidate with the highest IoU of at least `iou`; return both indices.

    Shape:
        - image: ``[M]``, of the regions by descending priority
        - candidate_image: ``[N]``, ascending
        - output: ``[matches]`` each
    """
    blocks: list[tuple[Integers, Integers, Floats]] = []
    for region, candidate in pairs_of_images(image, candidate_image):
        ious = overlap(region, candidate)
        close = ious >= iou
        blocks.append((region[close], candidate[close], ious[close]))
    if not blocks:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    region, candidate, ious = (np.concatenate(column) for column in zip(*blocks, strict=True))
    order = np.lexsort((-ious, region))
    free = np.ones(len(candidate_image), bool)
    matches: dict[int, int] = {}
    for index, best in zip(region[order].tolist(), candidate[order].tolist(), strict=True):
        if free[best] and index not in matches:
            matches[index] = best
            free[best] = False
    return np.array(list(matches), np.int64), np.array(list(matches.values()), np.int64)
