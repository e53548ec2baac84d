"""Positions of feature map cells in the image, and bilinear transposed convolutions between such grids.

Coordinates are pixels of the image along one axis; the center of the first pixel is 0. Maps, kernels and strides are
square, so both axes are alike.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.checks import check_min


class Grid(NamedTuple):
    """Positions of a map's cells: cell i is centered on ``start + i * stride``, in pixels of the image."""

    stride: int
    start: float


def half_pixel_grid(stride: int) -> Grid:
    """Return the grid of a map that divides the image into squares, as in resizing with ``align_corners=False``."""
    return Grid(stride, (stride - 1) / 2)


def stage_grids(stages: Iterable[nn.Module]) -> list[Grid]:
    """Compute the grid of each stage's output from the kernels, strides and paddings of its layers.

    Args:
        stages: Sequences of layers, starting at the image: convolutions and max poolings with square windows, and
            layers that act on single cells.
    """
    stride, start = 1, 0.0
    grids = []
    for stage in stages:
        for layer in stage.modules():
            if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
                kernel, step, padding, dilation = (
                    int(value if isinstance(value, int) else value[0])
                    for value in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
                )
                start += stride * (dilation * (kernel - 1) / 2 - padding)  # the first window starts in the padding
                stride *= step
        grids.append(Grid(stride, start))
    return grids


def bilinear_kernel(size: int) -> Tensor:
    """Return the weights ``[size, size]`` of a transposed convolution for bilinear interpolation.

    The kernel is a triangle of height 1 in each direction. For stride f its side is 2f, or 2f - 1 if output cells
    coincide with input cells.

    Raises:
        ValueError: ``size`` is below 1.

    Example:
        >>> bilinear_kernel(4)[1]
        tensor([0.1875, 0.5625, 0.5625, 0.1875])
    """
    check_min(1, size=size)
    factor = (size + 1) // 2
    triangle = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor  # [size]
    return triangle[:, None] * triangle


class BilinearUpsample(nn.Module):
    """A transposed convolution with one filter per channel, initialized as bilinear interpolation.

    The output is not cropped; compare `grid` with the target grid to crop it. With ``grow`` the map is first extended
    by copies of its border cells, and the output equals resizing with ``align_corners=False`` up to the image's border.
    Without it, values decrease to zero within a cell of the border, as in the FCN paper's nets, where that cell is in
    the padding.

    Args:
        channels: Channels C.
        coarse: Grid of the input.
        factor: Upsampling factor.
        target: A coordinate at which the output must have the center of a cell. It determines the size of the kernel,
            ``2 * factor - 1`` or ``2 * factor`` cells.
        learned: Whether the filters are trained.
        grow: Whether the map is extended by a cell on each side.

    Attributes:
        grid: Grid of the output.
        weight: ``[C, 1, k, k]``; a buffer outside the state dict unless ``learned``.

    Shape:
        - input: ``[B, C, h, w]``
        - output: ``[B, C, (h - 1) * factor + k, (w - 1) * factor + k]``, with h + 2 and w + 2 for h and w if ``grow``
    """

    weight: Tensor

    def __init__(
        self, channels: int, coarse: Grid, factor: int, target: float, learned: bool = False, grow: bool = False
    ) -> None:
        super().__init__()
        self.channels, self.factor, self.grow = channels, factor, grow
        stride = coarse.stride // factor
        # with an odd kernel, fine cells coincide with coarse ones; with an even kernel they are half a cell apart
        on_cell = ((coarse.start - target) / stride) % 1 == 0
        self.size = 2 * factor - 1 if on_cell else 2 * factor
        start = coarse.start - coarse.stride * grow  # of the extended map
        self.grid = Grid(stride, start - stride * (self.size - 1) / 2)
        kernel = bilinear_kernel(self.size).expand(channels, 1, -1, -1).contiguous()
        if learned:
            self.weight = nn.Parameter(kernel)
        else:
            self.register_buffer("weight", kernel, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Upsample maps ``[B, C, h, w]``; see the class for the output's shape."""
        if self.grow:
            maps = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(maps, self.weight, stride=self.factor, groups=self.channels)

    def extra_repr(self) -> str:
        """Return the settings, for ``print(model)``."""
        kind = "learned" if isinstance(self.weight, nn.Parameter) else "fixed"
        return f"{self.channels}, kernel_size={self.size}, stride={self.factor}, {kind}"


def crop(maps: Tensor, first: int, height: int, width: int) -> Tensor:
    """Crop a window that starts at row and column ``first``; cells beyond the map repeat its border.

    Args:
        maps: Feature maps.
        first: First row and column of the window; may be negative.
        height: Height of the window, in cells.
        width: Width of the window, in cells.

    Shape:
        - maps: ``[B, C, h, w]``
        - output: ``[B, C, height, width]``
    """
    before = max(-first, 0)
    begin = max(first, 0)
    maps = maps[..., begin : begin + height, begin : begin + width]
    below, right = (max(target - size, 0) for target, size in zip((height, width), maps.shape[-2:], strict=True))
    if before or below or right:
        maps = F.pad(maps, (before, max(right - before, 0), before, max(below - before, 0)), mode="replicate")
        maps = maps[..., :height, :width]
    return maps


def align(first: Tensor, first_grid: Grid, second: Tensor, second_grid: Grid) -> tuple[Tensor, Tensor]:
    """Crop two maps of the same stride to their overlap.

    Shape:
        - first, second: ``[B, C, h, w]``, ``[B, C, h', w']``
        - output: two maps of the same shape
    """
    shift = offset(first_grid, second_grid)  # cells by which the second map starts later
    first, second = first[..., max(shift, 0) :, max(shift, 0) :], second[..., max(-shift, 0) :, max(-shift, 0) :]
    height, width = (min(a, b) for a, b in zip(first.shape[-2:], second.shape[-2:], strict=True))
    return first[..., :height, :width], second[..., :height, :width]


def offset(first: Grid, second: Grid) -> int:
    """Return the index of the cell in ``first`` at the first cell of ``second``, for grids of the same stride."""
    return round((second.start - first.start) / second.stride)
