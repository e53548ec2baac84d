"""Position-sensitive pooling of regions, on a finer grid than the groups of the maps.

Shape legend: B images, maps of h by w cells; R regions of all images, concatenated; C values per group; g groups and s
bins per side. Boxes are ``x1, y1, x2, y2`` in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


def position_sensitive_pool(
    maps: Tensor,
    boxes: Sequence[Tensor],
    stride: int,
    groups: int = 7,
    size: int = 21,
    groups_first: bool = False,
) -> Tensor:
    """Average each bin of each region over the maps that belong to the bin's position.

    A region is divided into ``size x size`` bins and, more coarsely, into ``groups x groups`` groups, each of which has
    its own C maps. The bins of a group read these maps alone. torchvision's ``ps_roi_pool`` has one bin per group.

    The sides of a box are rounded to whole pixels; a region is at least 0.1 cells wide and high. A bin covers every
    cell that it touches, computed in whole numbers. A bin outside the map is 0. Memory grows with the number of cells
    in all bins, at most four per bin in regions of up to ``size`` cells. There is no loop over regions.

    Args:
        maps: Score maps. Channel ``(c * groups + i) * groups + j`` holds value c of the group in row i, column j.
        boxes: The regions of each image, in pixels.
        stride: Side of a cell, in pixels.
        groups: Number of groups g per side.
        size: Number of bins s per side.
        groups_first: Channel ``(i * groups + j) * C + c`` holds value c instead. From channels-last maps, which a
            network on channels-last images returns, nothing is copied then.

    Shape:
        - maps: ``[B, C * g * g, h, w]``
        - boxes: B tensors ``[R_i, 4]``
        - output: ``[R, C, s, s]``

    Raises:
        ValueError: The number of channels is no multiple of g * g, or the number of tensors of boxes is not B.

    Reference:
        Dai et al., "R-FCN", NIPS 2016, equation 1; Li et al., "Fully convolutional instance-aware semantic
        segmentation", CVPR 2017, with the rounding of the authors' code. There, x2 and y2 are the last pixels inside
        the box, and 1 is added after rounding; here they are the box's right and lower sides.
    """
    if maps.shape[1] % groups**2:
        raise ValueError(f"maps: channels must be a multiple of groups² = {groups**2}, got {maps.shape[1]}")
    if len(boxes) != len(maps):
        raise ValueError(f"boxes: must be one tensor per image, {len(maps)}, got {len(boxes)}")
    # a table with one row of C values per image, group and cell
    split = maps.unflatten(1, (groups**2, -1) if groups_first else (-1, groups**2))
    split = split.permute(0, 3, 4, 1, 2) if groups_first else split.permute(0, 3, 4, 2, 1)  # [B, h, w, g * g, C]
    cells = maps.shape[2] * maps.shape[3]
    if maps.is_contiguous(memory_format=torch.channels_last):
        steps = _Steps(1, groups**2)
    else:
        split, steps = split.permute(0, 3, 1, 2, 4), _Steps(cells, 1)  # the order in memory, which is fast to copy
    table = split.reshape(len(maps) * groups**2 * cells, -1).contiguous()
    bins = _bins(boxes, maps.shape[-2:], stride, groups, size, steps)
    pooled = F.embedding_bag(bins.cells, table, bins.starts, mode="mean")  # [R * s * s, C]; 0 for empty bins
    return pooled.unflatten(0, (-1, size, size)).permute(0, 3, 1, 2)


class _Steps(NamedTuple):
    """Distances in a table of rows."""

    group: int  # from a group to the next one
    cell: int  # from a cell to the next one


class _Bins(NamedTuple):
    """The cells of each bin, as indices into a table with one row per image, group and cell of a map."""

    cells: Tensor  # int64, the cells of all bins, one bin after another
    starts: Tensor  # int64 [R * s * s], where the cells of each bin start


def _bins(
    boxes: Sequence[Tensor], map_size: Sequence[int], stride: int, groups: int, size: int, steps: _Steps
) -> _Bins:
    """The cells of the bins of boxes ``[R_i, 4]`` of each image, on maps of height and width ``map_size``."""
    height, width = map_size
    device = boxes[0].device
    regions = torch.cat(list(boxes))
    image = torch.cat([torch.full((len(b),), index, device=device) for index, b in enumerate(boxes)])
    top, high = _cells_along(regions[:, 1], regions[:, 3], stride, size, height)
    left, wide = _cells_along(regions[:, 0], regions[:, 2], stride, size, width)
    group = torch.arange(size, device=device) * groups // size
    group = group[:, None] * groups + group  # [s, s]
    cell = top[:, :, None] * width + left[:, None, :]  # [R, s, s], the first one
    rows_per_image = groups**2 * height * width
    first = (image[:, None, None] * rows_per_image + group * steps.group + cell * steps.cell).flatten()
    counts = (high[:, :, None] * wide[:, None, :]).flatten()
    starts = counts.cumsum(0) - counts
    bin_of_cell = torch.arange(len(counts), device=device).repeat_interleave(counts)
    number = torch.arange(len(bin_of_cell), device=device) - starts[bin_of_cell]  # of a cell in its bin, row by row
    bin_width = wide[:, None, :].expand(-1, size, -1).flatten()[bin_of_cell]
    offset = number // bin_width * width + number % bin_width
    return _Bins(first[bin_of_cell] + offset * steps.cell, starts)


def _cells_along(low: Tensor, high: Tensor, stride: int, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """The first cell and the number of cells of each bin along one side: int64 ``[R, s]`` each, from sides ``[R]``."""
    start, stop = (torch.floor(side + 0.5).long()[:, None] for side in (low, high))  # half a pixel is rounded up
    length = (10 * (stop - start)).clamp(min=stride)  # in tenths of a pixel; at least a tenth of a cell
    cell = 10 * stride * size  # in the same units as the borders of bins
    borders = 10 * start * size + length * torch.arange(size + 1, device=low.device)  # [R, s + 1]
    first = borders[:, :-1].div(cell, rounding_mode="floor").clamp(0, limit)
    last = -(-borders[:, 1:]).div(cell, rounding_mode="floor")  # rounded up
    return first, (last.clamp(0, limit) - first).clamp(min=0)
