"""Overlaps, sums and boundaries of masks, computed from their run lengths.

Shape legend: M and N masks of the same image, P pairs of them that overlap, E edges.
"""

import math

import torch
from torch import Tensor

from .masks import RunLengths

BLOCK = 2**21  # edges of pairs at a time, which bounds the memory


def mask_intersections(first: RunLengths, second: RunLengths) -> tuple[Tensor, Tensor, Tensor]:
    """Find the pairs of masks that have pixels in common, and how many.

    Only pairs whose boxes overlap are compared. The IoU of a pair is ``pixels / (area + area - pixels)``.

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
    one, other = first.boxes(), second.boxes()
    near = torch.ones(len(first), len(second), dtype=torch.bool, device=first.device)
    for low, high in ((0, 2), (1, 3)):
        near &= (one[:, None, low] < other[None, :, high]) & (other[None, :, low] < one[:, None, high])
    rows, columns = near.nonzero(as_tuple=True)
    edges = first.offsets.diff()[rows].cumsum(0)
    blocks = int(edges[-1]) // BLOCK if len(edges) else 0
    cuts = torch.searchsorted(edges.cpu(), BLOCK * torch.arange(1, blocks + 1))
    parts = zip(rows.tensor_split(cuts), columns.tensor_split(cuts), strict=True)
    pixels = torch.cat([_common_pixels(first[row], second, column) for row, column in parts])
    kept = pixels > 0
    return rows[kept], columns[kept], pixels[kept]


def _common_pixels(masks: RunLengths, others: RunLengths, index: Tensor) -> Tensor:
    """Number of pixels that each of P masks has in common with the other one at its index (``[P]``): int64 ``[P]``."""
    span = masks.size[0] * masks.size[1] + 1
    lengths = others.offsets.diff()
    keys = others.edges + torch.arange(len(others), device=others.device).repeat_interleave(lengths) * span  # ascending
    ones = torch.zeros(len(others.edges) + 1, dtype=torch.int64, device=others.device)
    ones[2::2] = (others.edges[1::2] - others.edges[0::2]).cumsum(0)  # in the runs before the n-th edge, n even
    ones[1::2] = ones[0:-1:2]
    pair = masks.mask_of_edge()
    other = index[pair]
    position = torch.searchsorted(keys, masks.edges + other * span, right=True)
    inside = position % 2 == 1  # every mask has an even number of edges
    # pixels of the other mask before each edge
    before = ones[position] - ones[others.offsets[other]]
    before += torch.where(inside, masks.edges - others.edges[(position - 1).clamp(min=0)], 0) if len(keys) else 0
    signed = torch.where(torch.arange(len(pair), device=pair.device) % 2 == 1, before, -before)
    return torch.zeros(len(index), dtype=torch.int64, device=index.device).index_add_(0, pair, signed)


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
