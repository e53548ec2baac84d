"""U-Net with any backbone as its contracting path.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes. The stride of a map is the number
of image pixels per cell.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_min
from ..ops.init import init_glorot, init_he
from .layers import conv_norm_relu

Upsampling = Literal["nearest", "bilinear"]
WIDTH_PER_STRIDE: Final = 16
"""Channels of a decoder map per pixel of its stride: 16 at the image's resolution, 256 at a stride of 16."""


class UNetBlock(nn.Module):
    """Resizes a map to a finer one, concatenates both, and applies two convolutions.

    Args:
        in_channels: Channels of the coarser map.
        skip_channels: Channels of the finer map; 0 without one.
        out_channels: Channels of the output.
        upsampling: Interpolation of the coarser map.

    Shape:
        - maps: ``[B, in_channels, h, w]``; skip: ``[B, skip_channels, *size]``
        - output: ``[B, out_channels, *size]``
    """

    def __init__(self, in_channels: int, skip_channels: int, out_channels: int, upsampling: Upsampling) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.conv1 = conv_norm_relu(in_channels + skip_channels, out_channels)
        self.conv2 = conv_norm_relu(out_channels, out_channels)

    def forward(self, maps: Tensor, size: tuple[int, int], skip: Tensor | None = None) -> Tensor:
        """Return the map ``[B, out_channels, *size]``."""
        if maps.shape[-2:] != size:
            options = {"align_corners": False} if self.upsampling == "bilinear" else {}
            maps = F.interpolate(maps, size=size, mode=self.upsampling, **options)
        if skip is not None:
            maps = torch.cat([maps, skip], dim=1)
        return self.conv2(self.conv1(maps))


class UNet(nn.Module):
    """U-Net: upsamples a backbone's coarsest map to the image's size, with a skip connection from each finer map.

    From coarse to fine, there is one block for each finer map of the backbone, then one for each remaining doubling to
    the image's size. With ResNet-34 this is ``Unet("resnet34")`` of segmentation-models-pytorch; the same weights give
    the same outputs. Images may have any size, since each map is resized to the next finer one. If the sides are
    multiples of the backbone's stride, this doubles the map.

    Args:
        backbone: A backbone, or its name (see `build_backbone`). All of its maps are used.
        num_classes: Number K of classes, including the background.
        weights: Name of published weights or path of a checkpoint, for a backbone given by name.
        widths: Channels of the decoder's maps from coarse to fine, one per block. ``None``: 16 per pixel of the map's
            stride, which is 256, 128, 64, 32, 16 for a backbone of strides 2 to 32.
        upsampling: Interpolation of maps to the finer size: ``nearest`` or ``bilinear``.

    Attributes:
        backbone: The contracting path; a task may train it at a separate learning rate.
        blocks: The expanding path, coarse to fine.
        head: The last convolution, 3x3 with bias, which computes the logits.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone accepts.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: ``num_classes`` is below 1, ``widths`` does not have a positive number for each block, or
            ``upsampling`` is unknown; in ``forward``, the images are too small for the backbone.

    Reference:
        Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015,
        section 2 and Fig. 1. Deviations from the paper:

        - The contracting path is any backbone, with its strides and norms, instead of ten 3x3 convolutions and four
          poolings, so that it can start from ImageNet's weights. Most backbones have no map at the image's resolution
          for the last skip connection; the paper has that of its first two convolutions.
        - Convolutions are padded, so that output and input have the same size; the paper's are not, and it crops maps.
        - Batch normalization is added; it was published in the same year.
        - Upsampling repeats cells, and the next convolution is applied to both maps; the paper's up-convolution (2x2,
          stride 2) halves the channels first.
        - There is no dropout at the end of the contracting path, and no weight map in the loss, which belongs to the
          task.

    Example:
        >>> images = torch.zeros(1, 3, 50, 75, dtype=torch.uint8)
        >>> UNet("plain", num_classes=3)(images).shape
        torch.Size([1, 3, 50, 75])
    """

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        weights: str | None = None,
        widths: Sequence[int] | None = None,
        upsampling: Upsampling = "nearest",
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        self.num_classes = num_classes
        if upsampling not in get_args(Upsampling):
            raise ValueError(f"upsampling: must be 'nearest' or 'bilinear', got {upsampling!r}")
        self.backbone = as_backbone(backbone, weights)
        self.strides = _block_strides(self.backbone.strides)
        widths = [WIDTH_PER_STRIDE * stride for stride in self.strides] if widths is None else list(widths)
        if len(widths) != len(self.strides) or min(widths, default=1) < 1:
            raise ValueError(
                f"widths: must have {len(self.strides)} positive numbers, for decoder maps of strides "
                f"{', '.join(map(str, self.strides))}, got {widths}"
            )
        ins = [self.backbone.channels[-1], *widths]  # input channels of each block, and the output of the last
        # blocks finer than the maps of the backbone have no skip
        skips = [*self.backbone.channels[-2::-1], *[0] * len(widths)]
        self.blocks = nn.ModuleList(
            UNetBlock(a, skip, b, upsampling) for (a, b), skip in zip(pairwise(ins), skips, strict=False)
        )
        self.head = nn.Conv2d(ins[-1], num_classes, 3, padding=1)
        init_he(self.blocks)
        init_glorot(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        maps, *skips = reversed(self.backbone(images))
        height, width = images.shape[-2:]
        for index, (block, stride) in enumerate(zip(self.blocks, self.strides, strict=True)):
            skip = skips[index] if index < len(skips) else None
            # rounded up, like padded strided layers
            size = (-(-height // stride), -(-width // stride)) if skip is None else skip.shape[-2:]
            maps = block(maps, tuple(size), skip)
        return self.head(maps)


def _block_strides(strides: Sequence[int]) -> list[int]:
    """Return the strides of the blocks' outputs: those of the finer maps, then halves of the finest down to 1."""
    block_strides = list(strides[-2::-1])
    finest = strides[0]
    while finest > 1:
        finest //= 2
        block_strides.append(finest)
    return block_strides
