"""Hierarchical grouping of regions: the most similar two neighbors are joined until one region is left.

Shape legend: R initial regions; P pairs of neighbors; D bins of the histograms that a strategy compares.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Literal

import numpy as np

from .color_spaces import Floats
from .regions import Integers, Regions

Measure = Literal["color", "texture", "size", "fill"]


@dataclass(frozen=True)
class Hierarchy:
    """The regions of a grouping: the R initial ones, then R - 1 joined ones in the order of joining.

    Attributes:
        boxes: Smallest box around each region, ``[2 * R - 1, 4]``. The last region is the whole image.
        parts: The two regions that each joined one consists of, lower first, ``[R - 1, 2]``.
    """

    boxes: Integers
    parts: Integers


class _Growing:
    """Sizes, boxes and histograms of all regions, with room for those to come.

    The similarity of two regions is the sum of the measures, without weights:

    - color and texture: the intersection of the histograms, the sum of the smaller of two bins;
    - size: 1 - (size of both) / (size of the image), so that small regions are joined early;
    - fill: 1 - (size of the box around both - size of both) / (size of the image), so that holes are filled.
    """

    def __init__(self, regions: Regions, measures: Sequence[Measure]) -> None:
        count = len(regions.sizes)
        room = 2 * count - 1
        histograms = [getattr(regions, name) for name in ("color", "texture") if name in measures]
        self.size, self.fill = "size" in measures, "fill" in measures
        self.sizes = np.zeros(room, dtype=np.int64)
        self.boxes = np.zeros((room, 4), dtype=np.int64)  # -x1, -y1, x2, y2: joining is one maximum
        self.bins = np.zeros((room, sum(part.shape[1] for part in histograms)))
        self.sizes[:count] = regions.sizes
        self.boxes[:count] = regions.boxes * [-1, -1, 1, 1]
        if histograms:
            np.concatenate(histograms, axis=1, out=self.bins[:count])
        self.image_size = int(regions.sizes.sum())

    def similarities(self, one: Integers | int, others: Integers) -> Floats:
        """The similarity of regions ``[P]``, or of one region, to others ``[P]``."""
        sizes = self.sizes[one] + self.sizes[others]
        total = np.zeros(len(others))
        if self.bins.shape[1]:
            total += np.minimum(self.bins[others], self.bins[one]).sum(axis=1)
        if self.size:
            total += 1 - sizes / self.image_size
        if self.fill:
            boxes = np.maximum(self.boxes[others], self.boxes[one])
            area = (boxes[:, 0] + boxes[:, 2]) * (boxes[:, 1] + boxes[:, 3])
            total += 1 - (area - sizes) / self.image_size
        return total

    def join(self, one: int, other: int, joined: int) -> None:
        """Write the region that two become. Its histograms are the means of theirs, weighted by size."""
        first, second = int(self.sizes[one]), int(self.sizes[other])
        self.sizes[joined] = first + second
        np.maximum(self.boxes[one], self.boxes[other], out=self.boxes[joined])
        if self.bins.shape[1]:
            self.bins[joined] = (first * self.bins[one] + second * self.bins[other]) / (first + second)


def group_regions(regions: Regions, measures: Sequence[Measure]) -> Hierarchy:
    """Join the two most similar neighbors, again and again, until one region is left.

    On ties the pair with the lowest regions is joined.

    Args:
        regions: The initial regions.
        measures: What similarity is the sum of.
    """
    count = len(regions.sizes)
    growing = _Growing(regions, measures)
    neighbors: list[set[int] | None] = [set() for _ in range(count)]
    for one, other in regions.pairs.tolist():
        neighbors[one].add(other)
        neighbors[other].add(one)
    first, second = regions.pairs.T
    heap = list(zip((-growing.similarities(first, second)).tolist(), first.tolist(), second.tolist(), strict=True))
    heapify(heap)
    parts = np.zeros((count - 1, 2), dtype=np.int64)
    for joined in range(count, 2 * count - 1):
        near = None
        while near is None:  # pairs of regions that are parts of others by now are skipped
            _, one, other = heappop(heap)
            of_one, of_other = neighbors[one], neighbors[other]
            if of_one is not None and of_other is not None:
                near = (of_one | of_other) - {one, other}
        parts[joined - count] = one, other
        growing.join(one, other, joined)
        neighbors[one] = neighbors[other] = None
        neighbors.append(near)
        if near:
            around = list(near)
            for number in around:
                touching = neighbors[number]
                assert touching is not None
                touching -= {one, other}
                touching.add(joined)
            similar = growing.similarities(joined, np.array(around))
            for negative, number in zip((-similar).tolist(), around, strict=True):
                heappush(heap, (negative, number, joined))
    return Hierarchy(growing.boxes * np.array([-1, -1, 1, 1]), parts)
