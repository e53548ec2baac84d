"""Overlaps, sums and boundaries of masks, computed from their run lengths.

Shape legend: M and N masks of the same image, P pairs of them that overlap, E edges.
"""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .masks import RunLengths

BLOCK = 2**18  # columns of pairs at a time, which bounds the memory

Integers = NDArray[np.integer[Any]]


class _Columns(NamedTuple):
    """The runs of M masks, R after cutting them at the ends of columns, and where those of each column are.

    C is the number of columns of all boxes together.
    """

    top: Integers  # [R], first row of each run
    bottom: Integers  # [R], last row plus 1
    first: Integers  # [C + 1], index of the first run of each column of each mask's box, and R
    base: Integers  # [M], where column 0 of the image would be among them
    boxes: Integers  # [M, 4], zeros for an empty mask


def mask_intersections(first: RunLengths, second: RunLengths) -> tuple[Tensor, Tensor, Tensor]:
    """Find the pairs of masks that have pixels in common, and how many; computed on the CPU.

    Only pairs whose boxes overlap are compared, in the columns that they share. The IoU of a pair is ``pixels / (area +
    area - pixels)``.

    Args:
        first: M masks.
        second: N masks of the same image.

    Shape:
        - output: indices in `first` and in `second`, and numbers of pixels above 0; int64 ``[P]`` each, by the first
          index, then by the second

    Raises:
        ValueError: The images differ in size.
    """
    if first.size != second.size:
        raise ValueError(f"second: must have masks of {first.size} pixels (height, width), got {second.size}")
    one, other = _columns(first), _columns(second)
    near = np.ones((len(first), len(second)), bool)
    for low, high in ((0, 2), (1, 3)):
        near &= one.boxes[:, None, low] < other.boxes[None, :, high]
        near &= other.boxes[None, :, low] < one.boxes[:, None, high]
    rows, columns = near.nonzero()
    left = np.maximum(one.boxes[rows, 0], other.boxes[columns, 0])
    widths = np.minimum(one.boxes[rows, 2], other.boxes[columns, 2]) - left
    cuts = np.flatnonzero(np.diff(np.cumsum(widths) // BLOCK)) + 1
    parts = zip(*(np.split(each, cuts) for each in (rows, columns, left, widths)), strict=True)
    pixels = np.concatenate([_common_pixels(one, other, *part) for part in parts])
    kept = pixels > 0
    index, other_index, common = (torch.from_numpy(each[kept]) for each in (rows, columns, pixels))
    return index, other_index, common


def _columns(masks: RunLengths) -> _Columns:
    """Cut the runs of masks at the ends of columns."""
    height, edges, offsets = masks.size[0], masks.edges.cpu().numpy(), masks.offsets.cpu().numpy()
    starts, ends = edges[0::2], edges[1::2]
    column = starts // height
    pieces = (ends - 1) // height - column + 1
    run = np.repeat(np.arange(len(starts)), pieces)
    before = np.cumsum(pieces) - pieces  # pieces of earlier runs
    column = (column - before)[run] + np.arange(len(run))
    top, bottom = starts[run] - column * height, ends[run] - column * height
    top, bottom = np.maximum(top, 0), np.minimum(bottom, height)
    mask = np.repeat(np.arange(len(masks)), np.diff(offsets) // 2)[run]
    filled = np.flatnonzero(np.diff(offsets))
    begins = before[offsets[filled] // 2]  # first piece of each mask
    boxes = np.zeros((len(masks), 4), np.int64)
    boxes[filled] = np.stack(
        [
            reduce.reduceat(values, begins) if len(begins) else begins
            for reduce, values in (
                (np.minimum, column),
                (np.minimum, top),
                (np.maximum, column + 1),
                (np.maximum, bottom),
            )
        ],
        1,
    )
    widths = boxes[:, 2] - boxes[:, 0]
    base = np.cumsum(widths) - widths - boxes[:, 0]
    counts = np.bincount(base[mask] + column, minlength=int(widths.sum()))
    return _Columns(top, bottom, np.append(0, np.cumsum(counts)), base, boxes)


def _common_pixels(
    one: _Columns, other: _Columns, row: Integers, column: Integers, left: Integers, widths: Integers
) -> Integers:
    """Number of pixels that P pairs of masks have in common: int64 ``[P]``.

    All columns of all pairs are merged at once: in each step the first run of either mask, then the one that ends first
    is left behind.

    Args:
        one: Masks.
        other: Masks.
        row: The mask of each pair in `one`.
        column: The mask of each pair in `other`.
        left: The first column that both boxes have.
        widths: The number of such columns, above 0.

    Shape:
        - row: ``[P]``
        - column: ``[P]``
        - left: ``[P]``
        - widths: ``[P]``
    """
    begins = np.cumsum(widths) - widths
    index = np.repeat(one.base[row] + left - begins, widths) + np.arange(widths.sum())
    other_index = index + np.repeat(other.base[column] - one.base[row], widths)
    run, stop, other_run, other_stop = (
        one.first[index],
        one.first[index + 1],
        other.first[other_index],
        other.first[other_index + 1],
    )
    pixels, active = np.zeros(len(index), np.int64), np.arange(len(index))
    while True:
        alive = np.flatnonzero((run < stop) & (other_run < other_stop))
        if not len(alive):
            return np.add.reduceat(pixels, begins) if len(begins) else pixels
        if len(alive) < len(active):
            active, run, stop, other_run, other_stop = (
                each[alive] for each in (active, run, stop, other_run, other_stop)
            )
        bottom, other_bottom = one.bottom[run], other.bottom[other_run]
        common = np.minimum(bottom, other_bottom) - np.maximum(one.top[run], other.top[other_run])
        pixels[active] += np.maximum(common, 0)
        ends = bottom <= other_bottom
        run, other_run = run + ends, other_run + ~ends


def sum_masks(masks: RunLengths, sums: Tensor, weights: Tensor, count: int, threshold: float) -> RunLengths:
    """Add masks with weights, each to one of several sums, and binarize the sums.

    A sum changes only at the edges of runs, so that memory and time depend on their number and not on that of pixels.

    Args:
        masks: The masks.
        sums: Index of the sum to which each mask is added.
        weights: Weight of each mask.
        count: Number of sums.
        threshold: Pixels with at least this sum are ones. Above 0: pixels in no mask are zeros.

    Shape:
        - sums: int64 ``[M]``
        - weights: ``[M]``

    Returns:
        One mask per sum; empty without a mask.
    """
    lengths = masks.offsets.diff()
    signed = weights.double().repeat_interleave(lengths)
    signed[1::2] *= -1  # a run starts at each even edge and ends at the next one
    positions = masks.size[0] * masks.size[1] + 1  # an edge may be at the end of the image
    keys, order = (sums.repeat_interleave(lengths) * positions + masks.edges).sort()
    keys, index = keys.unique_consecutive(return_inverse=True)
    # every run ends in its own sum, so that each sum starts at 0
    level = torch.zeros(len(keys), dtype=torch.float64, device=keys.device).index_add_(0, index, signed[order])
    inside = level.cumsum(0) >= threshold
    before = torch.cat([inside.new_zeros(1), inside[:-1]])
    edges = keys[inside != before]
    counts = torch.bincount(edges // positions, minlength=count)
    return RunLengths(edges % positions, torch.cat([counts.new_zeros(1), counts.cumsum(0)]), masks.size)


def mask_boundaries(masks: RunLengths, ratio: float = 0.02) -> RunLengths:
    """Reduce masks to their pixels near their boundary, inside the mask.

    A pixel is kept if a pixel outside the mask, or outside the image, is at most d away in both directions. The
    distance d is `ratio` times the diagonal of the image, rounded, at least 1.

    Args:
        masks: The masks.
        ratio: Width of a boundary, as a fraction of the diagonal of the image.

    Raises:
        ValueError: `ratio` is not above 0.

    Reference:
        Cheng et al., "Boundary IoU: improving object-centric image segmentation evaluation", CVPR 2021, section 4; with
        the erosion of its code, by a square.
    """
    if not ratio > 0:
        raise ValueError(f"boundary: must be > 0, a fraction of the diagonal such as 0.02, got {ratio}")
    distance = max(1, round(ratio * math.hypot(*masks.size)))
    windows = []
    for pixels, x, y in masks.windows():
        eroded = pixels.int()
        for dim in (0, 1):
            eroded = _all_near(eroded, distance, dim)
        windows.append((pixels & ~eroded.bool(), x, y))
    return RunLengths.from_windows(windows, masks.size, masks.device)


def _all_near(values: Tensor, distance: int, dim: int) -> Tensor:
    """Whether all values 0 or 1 up to a distance along a dimension are 1, int32 ``[w, h]``; 0 outside."""
    padding = [0, 0, 0, 0]
    padding[2 * (1 - dim)], padding[2 * (1 - dim) + 1] = distance + 1, distance
    sums = torch.nn.functional.pad(values, padding).cumsum(dim, dtype=torch.int32)
    length, side = values.shape[dim], 2 * distance + 1
    return (sums.narrow(dim, side, length) - sums.narrow(dim, 0, length) == side).int()
