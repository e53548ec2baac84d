"""Where the cells of feature maps lie in the image, and bilinear transposed convolutions between such grids.

Coordinates are pixels of the image along one axis, the centre of its first pixel at 0. Maps, kernels and strides are
square, so that one axis says it all.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Grid(NamedTuple):
    """Cell i of a map is centred on ``start + i * stride``, in pixels of the image."""

    stride: int
    start: float


def half_pixel_grid(stride: int) -> Grid:
    """The grid of a map that divides the image into squares, as resizing assumes it (``align_corners=False``)."""
    return Grid(stride, (stride - 1) / 2)


def stage_grids(stages: Iterable[nn.Module]) -> list[Grid]:
    """The grid of each stage's output, from the kernels, strides and paddings of its convolutions and poolings.

    Args:
        stages: Layers that run in sequence, from the image on; convolutions and max-poolings with square windows, and
            layers that act on each cell by itself.
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
                start += stride * (dilation * (kernel - 1) / 2 - padding)
                stride *= step
        grids.append(Grid(stride, start))
    return grids


def bilinear_kernel(size: int) -> Tensor:
    """Weights ``[size, size]`` with which a transposed convolution interpolates bilinearly.

    A triangle in each direction, of height 1: the kernel of stride f has a side of 2f, or 2f - 1 where the new cells
    are to include the old ones.

    Raises:
        ValueError: ``size`` is below 1.

    Example:
        >>> bilinear_kernel(4)[1]
        tensor([0.1875, 0.5625, 0.5625, 0.1875])
    """
    if size < 1:
        raise ValueError(f"size={size}: a kernel has 1 cell at least")
    factor = (size + 1) // 2
    triangle = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    return triangle[:, None] * triangle


class BilinearUpsample(nn.Module):
    """A transposed convolution with one filter a channel, which starts as bilinear interpolation and may stay so.

    Nothing is cropped: whoever calls it compares `grid` with the grid that he wants. With ``grow`` the map is first
    extended by copies of its border cells, and the result is what resizing with ``align_corners=False`` gives, up to
    the image's border; without, values fade to zero within a cell of the border, as in the FCN paper's nets, where that
    cell lies in the padding.

    Args:
        channels: Channels C.
        coarse: Grid of what comes in.
        factor: How many times finer the output is.
        target: A coordinate at which the output is to have the centre of a cell; it decides between the kernels of
            ``2 * factor - 1`` and ``2 * factor`` cells.
        learned: Whether the filters are parameters.
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
        # an odd kernel puts a fine cell on each coarse one, an even kernel puts them half a fine cell beside
        on_cell = ((coarse.start - target) / stride) % 1 == 0
        self.size = 2 * factor - 1 if on_cell else 2 * factor
        start = coarse.start - coarse.stride * grow
        self.grid = Grid(stride, start - stride * (self.size - 1) / 2)
        kernel = bilinear_kernel(self.size).expand(channels, 1, -1, -1).contiguous()
        if learned:
            self.weight = nn.Parameter(kernel)
        else:
            self.register_buffer("weight", kernel, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Upsamples."""
        if self.grow:
            maps = F.pad(maps, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(maps, self.weight, stride=self.factor, groups=self.channels)

    def extra_repr(self) -> str:
        """For ``print(model)``."""
        kind = "learned" if isinstance(self.weight, nn.Parameter) else "fixed"
        return f"{self.channels}, kernel_size={self.size}, stride={self.factor}, {kind}"


def crop(maps: Tensor, first: int, height: int, width: int) -> Tensor:
    """Cells ``first`` to ``first + height`` and ``first + width``; beyond the map, its border cells once more.

    Args:
        maps: ``[B, C, h, w]``.
        first: Row and column at which the window starts; may be negative.
        height: Rows wanted.
        width: Columns wanted.

    Shape:
        - output: ``[B, C, height, width]``
    """
    before = max(-first, 0)
    begin = max(first, 0)
    maps = maps[..., begin : begin + height, begin : begin + width]
    below, right = (max(want - have, 0) for want, have in zip((height, width), maps.shape[-2:], strict=True))
    if before or below or right:
        maps = F.pad(maps, (before, max(right - before, 0), before, max(below - before, 0)), mode="replicate")
        maps = maps[..., :height, :width]
    return maps


def align(first: Tensor, first_grid: Grid, second: Tensor, second_grid: Grid) -> tuple[Tensor, Tensor]:
    """The part of two maps of one stride where they overlap; it starts where the later of the two does.

    Shape:
        - first, second: ``[B, C, h, w]``, ``[B, C, h', w']``
        - output: two maps of one shape
    """
    shift = offset(first_grid, second_grid)
    first, second = first[..., max(shift, 0) :, max(shift, 0) :], second[..., max(-shift, 0) :, max(-shift, 0) :]
    height, width = (min(a, b) for a, b in zip(first.shape[-2:], second.shape[-2:], strict=True))
    return first[..., :height, :width], second[..., :height, :width]


def offset(first: Grid, second: Grid) -> int:
    """Number of the cell of ``first`` on which the first cell of ``second`` lies, both being of one stride."""
    return round((second.start - first.start) / second.stride)
