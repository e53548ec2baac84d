"""SSD's default boxes: which boxes each cell of each feature map stands for.

Shape legend: L feature maps, map k of ``H_k`` by ``W_k`` cells; A default boxes in all. Boxes are ``x1, y1, x2, y2`` in
pixels of the network's input.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from ...ops.boxes import clip_boxes

Clip = Literal["corners", "sides"]


def ssd_scales(num_maps: int, first: int = 10, second: int = 20, last: int = 90) -> list[int]:
    """Sides of the square default boxes of each map, in percent of the image's, as the authors' scripts compute them.

    The first map has a scale of its own, and from the second on they rise by whole percents. One more than there are
    maps: each map also has a square of the geometric mean of its scale and the next.

    Args:
        num_maps: L.
        first: Of the first map. VOC: 10, or 7 for 512 pixels; COCO: 7, or 4 for 512 pixels.
        second: Of the second map. VOC: 20, or 15 for 512 pixels; COCO: 15, or 10 for 512 pixels.
        last: Of the last map, at most.

    Returns:
        L + 1 percentages, rising.

    Raises:
        ValueError: Fewer than one map, or scales that do not rise.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, equation 4, and the authors' ``ssd_pascal.py`` and
        ``ssd_coco.py``. The equation gives 20, 34, 48, … for six maps; the scripts give what is here, and the figures
        are theirs.

    Example:
        >>> ssd_scales(6)
        [10, 20, 37, 54, 71, 88, 105]
    """
    if num_maps < 1 or not 0 < first < second <= last:
        raise ValueError(
            f"num_maps={num_maps}, first={first}, second={second}, last={last}: give a map at least, and rising scales"
        )
    step = (last - second) // max(num_maps - 2, 1)
    if num_maps > 2 and step < 1:
        raise ValueError(f"second={second}, last={last}: no {num_maps - 1} whole percents rise from one to the other")
    return [first, *(second + step * k for k in range(num_maps))]


def ssd_aspects(num_maps: int) -> list[list[float]]:
    """Ratios of width and height of each map's default boxes besides 1: 2 and 3, in the first and last two maps 2 only.

    Example:
        >>> ssd_aspects(6)
        [[2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]]
    """
    return [[2.0] if k == 0 or k >= num_maps - 2 else [2.0, 3.0] for k in range(num_maps)]


def whole_pixels(scales: Sequence[float], image_size: int) -> list[int]:
    """Scales in percent as sides in pixels, rounded down: the authors' layer keeps them as whole numbers.

    For 300 pixels that changes nothing; for 512 the first box is one of 35 pixels, not of 35.84.

    Raises:
        ValueError: A scale is less than a pixel, or they do not rise.
    """
    sides = [int(image_size * scale / 100) for scale in scales]
    if min(sides) < 1 or sorted(set(sides)) != sides:
        raise ValueError(
            f"scales={list(scales)} percent of {image_size} pixels are boxes of {sides} pixels; give scales that rise "
            "by a pixel at least, from 1 pixel on"
        )
    return sides


def sides_of_defaults(side: float, next_side: float, aspects: Sequence[float]) -> list[tuple[float, float]]:
    """Width and height of the default boxes of a cell, in the authors' order.

    First the square of ``side``, then that of the geometric mean with the next map's, then for each aspect a the box
    ``side * sqrt(a)`` wide and ``side / sqrt(a)`` high and the same box upright.

    Example:
        >>> sides_of_defaults(10.0, 40.0, [4.0])
        [(10.0, 10.0), (20.0, 20.0), (20.0, 5.0), (5.0, 20.0)]
    """
    between = math.sqrt(side * next_side)
    sides = [(side, side), (between, between)]
    for aspect in aspects:
        long, short = side * math.sqrt(aspect), side / math.sqrt(aspect)
        sides += [(long, short), (short, long)]
    return sides


def default_boxes(
    grids: Sequence[tuple[int, int]],
    image_size: int,
    sides: Sequence[float],
    aspects: Sequence[Sequence[float]],
    steps: Sequence[float] | None = None,
    clip: Clip | None = None,
) -> Tensor:
    """All default boxes, map by map, row by row, cell by cell.

    Args:
        grids: Rows and columns of each map.
        image_size: Side of the input, pixels.
        sides: Of the squares of each map, and one more, in pixels.
        aspects: Of each map, its ratios besides 1.
        steps: Pixels from cell to cell in each map; the first cell's centre is at half of it. ``None``: the image's
            side by the map's. (The authors' are round numbers: 38 cells of 8 pixels leave the image of 300.)
        clip: ``"corners"``: boxes end at the image's edge, as the paper's first version had it. ``"sides"``: no side is
            longer than the image's, as torchvision has it. ``None``: neither, as in the authors' final scripts.

    Shape:
        - output: float32 ``[A, 4]``

    Raises:
        ValueError: Not one entry a map; or a ``clip`` that there is not.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2, and the authors' ``prior_box_layer.cpp``.
    """
    if len(aspects) != len(grids) or len(sides) != len(grids) + 1 or (steps is not None and len(steps) != len(grids)):
        raise ValueError(
            f"there are {len(grids)} feature maps, so {len(grids) + 1} scales, {len(grids)} lists of aspects and as "
            f"many steps are needed; got {len(sides)}, {len(aspects)} and {'none' if steps is None else len(steps)}"
        )
    if clip not in (None, "corners", "sides"):
        raise ValueError(f"clip={clip!r}: choose 'corners', 'sides' or null")
    maps = []
    for k, (rows, columns) in enumerate(grids):
        step_y, step_x = (image_size / rows, image_size / columns) if steps is None else (steps[k], steps[k])
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * step_y
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * step_x
        centres = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1)  # [H_k, W_k, 2]
        half = torch.tensor(sides_of_defaults(sides[k], sides[k + 1], aspects[k]), dtype=torch.float64) / 2
        if clip == "sides":
            half = half.clamp(max=image_size / 2)
        corners = torch.cat([centres[:, :, None] - half, centres[:, :, None] + half], dim=-1)  # [H_k, W_k, n, 4]
        maps.append(corners.flatten(0, 2))
    boxes = torch.cat(maps)
    return (clip_boxes(boxes, image_size, image_size) if clip == "corners" else boxes).float()
