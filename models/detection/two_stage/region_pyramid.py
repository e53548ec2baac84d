"""SPP-net's spatial pyramid: regions of a feature map, of any size, become vectors of one length.

Shape legend: B images, R regions of all images, C channels of a map of h by w cells, M bins of all levels. Boxes are
``x1, y1, x2, y2`` in pixels of the resized image; windows are the indices of the first and the last column and row,
``left, top, right, bottom``, both included.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_pool

from ...ops.boxes import check_boxes
from ...ops.checks import check_min

LEVELS = (6, 3, 2, 1)
"""Bins per side of each level of SPP-net's detector: 50 bins in all."""

SCALES = (480, 576, 688, 864, 1200)
"""Shorter sides of the resized images among which SPP-net's detector chooses for each region, in pixels."""


def project_windows(boxes: Tensor, stride: int, height: int, width: int) -> Tensor:
    """Project boxes onto a feature map: the cells whose centers lie inside the box.

    Cell i, counted from 0, is centered at pixel ``stride * i``, which padding of every layer by half its kernel
    ensures. The first column is ``floor(x1 / stride) + 1`` and the last one ``ceil(x2 / stride) - 1``: the first and
    the last whose center is strictly between the box's sides. A box between two centers has none; it gets the cell
    nearest to its center.

    Args:
        boxes: Boxes in pixels.
        stride: Pixels per cell.
        height: Rows of the map.
        width: Columns of the map.

    Shape:
        - boxes: ``[R, 4]``
        - output: int64 ``[R, 4]``, within the map, ``left <= right`` and ``top <= bottom``

    Raises:
        ValueError: Boxes are not ``[R, 4]``, or a number is below 1.

    Reference:
        He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks", ECCV 2014, appendix A, which
        leaves boxes between two centers open.

    Example:
        >>> project_windows(torch.tensor([[0.0, 16.0, 100.0, 20.0]]), 16, 10, 10)
        tensor([[1, 1, 6, 1]])
    """
    check_boxes(boxes, "boxes")
    check_min(1, stride=stride, height=height, width=width)
    first = (boxes[:, :2] / stride).floor() + 1
    last = (boxes[:, 2:] / stride).ceil() - 1
    nearest = ((boxes[:, :2] + boxes[:, 2:]) / (2 * stride)).round()
    between = last < first
    first, last = torch.where(between, nearest, first), torch.where(between, nearest, last)
    limits = boxes.new_tensor([width - 1, height - 1])
    return torch.cat([torch.minimum(first.clamp(min=0), limits), torch.minimum(last.clamp(min=0), limits)], 1).long()


def pyramid_pool(maps: Tensor, windows: Tensor, images: Tensor, levels: Sequence[int] = LEVELS) -> Tensor:
    """Pool windows of feature maps by maxima over the bins of a pyramid.

    Bin i of n along a side of m cells has the cells from ``floor(i m / n)`` to ``ceil((i + 1) m / n)``, the end
    excluded, as in ``AdaptiveMaxPool2d``. Bins overlap, and have at least one cell, where n does not divide m.

    Args:
        maps: Feature maps.
        windows: Windows of the maps, as from `project_windows`.
        images: Index of the map of each window.
        levels: Bins per side of each level.

    Shape:
        - maps: ``[B, C, h, w]``
        - windows: int64 ``[R, 4]``; images: int64 ``[R]``
        - output: ``[R, C, M]`` with M the sum of the squared levels; level by level, each row by row

    Raises:
        ValueError: There are no levels, or one is below 1.

    Reference:
        He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks", ECCV 2014, section 2.2.
    """
    if not levels:
        raise ValueError("levels: must have at least one number of bins, got none")
    check_min(1, **{f"levels[{index}]": level for index, level in enumerate(levels)})
    pooled: dict[int, Tensor] = {}
    for level in sorted(set(levels), reverse=True):
        # the bins of a divisor are unions of bins
        multiple = next((finer for finer in pooled if finer % level == 0), None)
        if multiple is None:
            bins = _bins(windows, level)  # [R, n * n, 4]
            owners = images[:, None, None].expand(-1, level**2, 1)
            # one region per bin: its start and end are included, and torchvision's own division into bins is inexact
            regions = torch.cat([owners, bins], dim=2).flatten(0, 1).to(maps.dtype)
            values = roi_pool(maps, regions, 1, 1.0)[:, :, 0, 0]  # [R * n * n, C]
            pooled[level] = values.unflatten(0, (len(windows), level**2)).transpose(1, 2).unflatten(2, (level, level))
        else:
            pooled[level] = F.max_pool2d(pooled[multiple], multiple // level)
    return torch.cat([pooled[level].flatten(2) for level in levels], dim=2)


def _bins(windows: Tensor, level: int) -> Tensor:
    """First and last cells of the bins of windows ``[R, 4]``, row by row: int64 ``[R, level * level, 4]``."""
    index = torch.arange(level, device=windows.device)
    sides = windows[:, 2:] - windows[:, :2] + 1  # [R, 2], in x and y
    start = windows[:, :2, None] + (sides[:, :, None] * index) // level  # [R, 2, n]
    end = windows[:, :2, None] - (-(sides[:, :, None] * (index + 1)) // level) - 1  # the last cell
    rows, columns = index.repeat_interleave(level), index.repeat(level)
    return torch.stack([start[:, 0, columns], start[:, 1, rows], end[:, 0, columns], end[:, 1, rows]], dim=2)


def nearest_scales(boxes: Tensor, height: int, width: int, scales: Sequence[int] = SCALES, side: int = 224) -> Tensor:
    """Choose for each box the scale of its image at which its area is nearest to that of a classifier's image.

    Args:
        boxes: Boxes in pixels of the original image.
        height: Height of the original image, in pixels.
        width: Width of the original image, in pixels.
        scales: Shorter sides of the resized images, in pixels.
        side: Side of the classifier's images, in pixels.

    Shape:
        - boxes: ``[R, 4]``
        - output: int64 ``[R]``, indices of ``scales``; the first one on ties

    Raises:
        ValueError: Boxes are not ``[R, 4]``, or there are no scales.
    """
    check_boxes(boxes, "boxes")
    if not scales:
        raise ValueError("scales: must have at least one side in pixels, got none")
    areas = (boxes[:, 2:] - boxes[:, :2]).double().prod(1)  # [R]
    factors = torch.tensor(scales, dtype=torch.float64, device=boxes.device) / min(height, width)
    return (areas[:, None] * factors.square() - side**2).abs().argmin(1)
