"""Faster R-CNN's anchors: boxes of nine shapes at every cell of a feature map.

Shape legend: A anchors per cell, h x w cells of ``stride`` pixels. Boxes are ``x1, y1, x2, y2`` in pixels, with
coordinates between pixels. The reference counts the last pixel inside, so its ``x2`` and ``y2`` are 1 less.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def cell_anchors(
    base: int = 16, scales: Sequence[float] = (8, 16, 32), ratios: Sequence[float] = (0.5, 1.0, 2.0)
) -> Tensor:
    """Anchors of the first cell, at the upper left corner of the image, by ratio and then by scale.

    A square of ``base`` pixels is reshaped to each ratio at about the same area. Its sides are rounded to whole pixels
    (half to even) and then scaled about its center.

    Args:
        base: Side of the square, in pixels. All anchors have its center.
        scales: Factors of the sides.
        ratios: Aspect ratios, height over width.

    Shape:
        - output: ``[A, 4]``, float32

    Raises:
        ValueError: An argument is empty or not above 0, or a side rounds to 0 pixels.

    Reference:
        Ren et al., "Faster R-CNN", NIPS 2015, section 3.1.1: areas of 128^2, 256^2 and 512^2 pixels. The rounding, and
        with it the table of nine, is that of the authors' code (py-faster-rcnn), in which the areas differ a
        little: 184 x 96, 128 x 128 and 88 x 176 pixels for the first.

    Example:
        >>> cell_anchors(scales=(8,))
        tensor([[-84., -40., 100.,  56.],
                [-56., -56.,  72.,  72.],
                [-36., -80.,  52.,  96.]])
    """
    for name, values in {
        "anchor_base": (base,),
        "anchor_scales": tuple(scales),
        "anchor_ratios": tuple(ratios),
    }.items():
        if not values or not min(values) > 0:
            raise ValueError(f"{name}: must be numbers above 0, got {list(values)}")
    shapes = []
    for ratio in ratios:
        width = np.round(np.sqrt(base * base / ratio))
        height = np.round(width * ratio)
        if min(width, height) < 1:
            raise ValueError(
                f"anchor_base: must give sides of 1 pixel or more at a ratio of {ratio}, got {base}, which gives "
                f"{width:.0f} x {height:.0f} pixels; raise it and lower anchor_scales"
            )
        shapes += [(width * scale, height * scale) for scale in scales]
    sides = torch.tensor(np.array(shapes), dtype=torch.float32)  # [A, 2]
    return torch.cat([base / 2 - sides / 2, base / 2 + sides / 2], dim=1)


def grid_anchors(cell: Tensor, stride: int, rows: int, columns: int) -> Tensor:
    """Anchors of all cells of a map, row by row, cell by cell.

    Args:
        cell: Anchors of the first cell.
        stride: Distance of neighboring cells, in pixels.
        rows: Number of rows of the map.
        columns: Number of columns of the map.

    Shape:
        - cell: ``[A, 4]``
        - output: ``[rows * columns * A, 4]``
    """
    y = torch.arange(rows, dtype=cell.dtype, device=cell.device) * stride
    x = torch.arange(columns, dtype=cell.dtype, device=cell.device) * stride
    corner = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).repeat(1, 1, 2)  # [rows, columns, 4]
    return (corner[:, :, None] + cell).reshape(-1, 4)


def inside(anchors: Tensor, size: tuple[int, int]) -> Tensor:
    """Which anchors ``[A, 4]`` lie inside an image of ``size`` (height, width): bool ``[A]``."""
    height, width = size
    return (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] <= width) & (anchors[:, 3] <= height)
