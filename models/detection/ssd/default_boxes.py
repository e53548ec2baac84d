"""SSD's default boxes: the boxes that each cell of each feature map predicts.

Shape legend: L feature maps, map k of ``H_k`` by ``W_k`` cells; A default boxes in total. Boxes are ``x1, y1, x2, y2``
in pixels of the network's input.
"""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from ...ops.boxes import clip_boxes
from ...ops.checks import check_choice, check_min

Clip = Literal["corners", "sides"]


def ssd_scales(num_maps: int, first: int = 10, second: int = 20, last: int = 90) -> list[int]:
    """Sides of the square default boxes of each map, in percent of the image's, as the authors' scripts compute them.

    The first map has a separate scale. From the second on, scales increase by whole percents. There is one more than
    there are maps, since each map also has a square with the geometric mean of its scale and the next.

    Args:
        num_maps: Number of maps L.
        first: Scale of the first map, in percent. VOC: 10, or 7 for 512 pixels; COCO: 7, or 4 for 512 pixels.
        second: Scale of the second map, in percent. VOC: 20, or 15 for 512 pixels; COCO: 15, or 10 for 512 pixels.
        last: Maximum scale of the last map, in percent.

    Returns:
        L + 1 percentages, increasing.

    Raises:
        ValueError: There is no map, or scales do not increase.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, equation 4, and the authors' ``ssd_pascal.py`` and
        ``ssd_coco.py``. The equation gives 20, 34, 48, … for six maps; the scripts give the values here,
        and the paper's results are theirs.

    Example:
        >>> ssd_scales(6)
        [10, 20, 37, 54, 71, 88, 105]
    """
    check_min(1, num_maps=num_maps)
    if not 0 < first < second <= last:
        raise ValueError(f"first: must be above 0 and first < second <= last, got {first}, {second} and {last}")
    step = (last - second) // max(num_maps - 2, 1)
    if num_maps > 2 and step < 1:
        raise ValueError(
            f"last: must leave {num_maps - 1} increasing whole percents from second on, got {last} and second={second}"
        )
    return [first, *(second + step * k for k in range(num_maps))]


def ssd_aspects(num_maps: int) -> list[list[float]]:
    """Aspect ratios of each map's default boxes, without 1: 2 and 3, but only 2 in the first and the last two maps.

    Example:
        >>> ssd_aspects(6)
        [[2.0], [2.0, 3.0], [2.0, 3.0], [2.0, 3.0], [2.0], [2.0]]
    """
    return [[2.0] if k == 0 or k >= num_maps - 2 else [2.0, 3.0] for k in range(num_maps)]


def whole_pixels(scales: Sequence[float], image_size: int) -> list[int]:
    """Convert scales in percent to sides in pixels, rounded down as in the authors' layer, which stores whole numbers.

    For 300 pixels this changes nothing; for 512 the first box has 35 pixels and not 35.84.

    Raises:
        ValueError: A side is less than a pixel, or sides do not increase.
    """
    sides = [int(image_size * scale / 100) for scale in scales]
    if min(sides) < 1 or sorted(set(sides)) != sides:
        raise ValueError(
            f"scales: must be sides that increase from 1 pixel on, got {list(scales)} percent of {image_size} pixels, "
            f"which are {sides} pixels"
        )
    return sides


def box_shapes(side: float, next_side: float, aspects: Sequence[float]) -> list[tuple[float, float]]:
    """Width and height of the default boxes of a cell, in pixels, in the authors' order.

    The first is the square of ``side``, the second the square of its geometric mean with ``next_side``. For each
    aspect ratio a follow the box ``side * sqrt(a)`` wide and ``side / sqrt(a)`` high, and the same box upright.

    Example:
        >>> box_shapes(10.0, 40.0, [4.0])
        [(10.0, 10.0), (20.0, 20.0), (20.0, 5.0), (5.0, 20.0)]
    """
    mean = math.sqrt(side * next_side)
    shapes = [(side, side), (mean, mean)]
    for aspect in aspects:
        long, short = side * math.sqrt(aspect), side / math.sqrt(aspect)
        shapes += [(long, short), (short, long)]
    return shapes


def default_boxes(
    grids: Sequence[tuple[int, int]],
    image_size: int,
    sides: Sequence[float],
    aspects: Sequence[Sequence[float]],
    steps: Sequence[float] | None = None,
    clip: Clip | None = None,
) -> Tensor:
    """Compute all default boxes, map by map, row by row, cell by cell.

    Args:
        grids: Rows and columns of each map.
        image_size: Side of the input, in pixels.
        sides: Sides of the squares of each map and one more, in pixels.
        aspects: Aspect ratios of each map, without 1.
        steps: Distance of neighboring cells in each map, in pixels. The center of the first cell is at half of it.
            None: the image's side divided by the map's. The authors use round numbers: 38 cells of 8 pixels extend
            beyond the image of 300.
        clip: ``"corners"``: boxes end at the image's edge, as in the paper's first version. ``"sides"``: no side is
            longer than the image's, as in torchvision. None: neither, as in the authors' final scripts.

    Shape:
        - output: float32 ``[A, 4]``

    Raises:
        ValueError: An argument does not have one entry per map, or ``clip`` is unknown.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2, and the authors' ``prior_box_layer.cpp``.
    """
    # sides are the argument scales of SSD, in pixels
    for name, values, count in (("scales", sides, len(grids) + 1), ("aspects", aspects, len(grids))):
        _check_length(name, values, count, len(grids))
    if steps is not None:
        _check_length("steps", steps, len(grids), len(grids))
    check_choice((None, *get_args(Clip)), clip=clip)
    maps = []
    for k, (rows, columns) in enumerate(grids):
        step_y, step_x = (image_size / rows, image_size / columns) if steps is None else (steps[k], steps[k])
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * step_y
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * step_x
        centers = torch.stack([x.expand(rows, -1), y[:, None].expand(-1, columns)], dim=-1)  # [H_k, W_k, 2]
        half = torch.tensor(box_shapes(sides[k], sides[k + 1], aspects[k]), dtype=torch.float64) / 2
        if clip == "sides":
            half = half.clamp(max=image_size / 2)
        corners = torch.cat([centers[:, :, None] - half, centers[:, :, None] + half], dim=-1)  # [H_k, W_k, n, 4]
        maps.append(corners.flatten(0, 2))
    boxes = torch.cat(maps)
    return (clip_boxes(boxes, image_size, image_size) if clip == "corners" else boxes).float()


def _check_length(name: str, values: Sequence[object], count: int, num_maps: int) -> None:
    if len(values) != count:
        raise ValueError(f"{name}: must have length {count} for {num_maps} feature maps, got {len(values)}")
