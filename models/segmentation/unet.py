"""U-Net with any backbone as its contracting half.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes; the stride of a map is the number
of pixels of the image to a cell of it.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_min
from .layers import conv_norm_relu, init_score_layer, init_weights

Upsampling = Literal["nearest", "bilinear"]
WIDTH_PER_STRIDE: Final = 16
"""Channels of a decoder's map for each pixel of its stride: 16 at the image's size, 256 at a stride of 16."""


class UNetBlock(nn.Module):
    """Brings a map to a finer one's size, puts the finer one beside it, and convolves both twice.

    Args:
        in_channels: Channels of the coarser map.
        skip_channels: Channels of the finer map; 0 where there is none.
        out_channels: Channels that come out.
        upsampling: How the coarser map is brought to size.

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
        """Gives the map of the finer size."""
        if maps.shape[-2:] != size:
            centred = {"align_corners": False} if self.upsampling == "bilinear" else {}
            maps = F.interpolate(maps, size=size, mode=self.upsampling, **centred)
        if skip is not None:
            maps = torch.cat([maps, skip], dim=1)
        return self.conv2(self.conv1(maps))


class UNet(nn.Module):
    """U-Net: from a backbone's coarsest map back to the image's size, with each finer map put beside on the way.

    From coarse to fine there is one block for each finer map of the backbone, then one for each halving that is left
    until the image's size. With ResNet-34 this is the network that segmentation-models-pytorch has as
    ``Unet("resnet34")``: with the same weights the same outputs. Images may have any size, since a map is brought to
    the size of the one that it meets; where the sides are multiples of the backbone's stride, that is doubling.

    Args:
        backbone: A backbone, or the name of one (see `build_backbone`). All of its maps are used.
        num_classes: Number K of classes, the background among them.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        widths: Channels of the decoder's maps, coarse to fine, one number for each block. ``None``: 16 for each pixel
            of the map's stride; 256, 128, 64, 32, 16 above a backbone of strides 2 to 32.
        upsampling: How maps are brought to the finer size: ``nearest`` or ``bilinear``.

    Attributes:
        backbone: The contracting half; a task may give it a learning rate of its own.
        blocks: The expanding half, coarse to fine.
        head: The last convolution, 3x3 with bias, to logits.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone takes.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: ``num_classes`` is below 1, ``widths`` does not have a number above 0 for each block, or
            ``upsampling`` is unknown; in ``forward``: the images are too small for the backbone.

    Reference:
        Ronneberger, Fischer, Brox, "U-Net: convolutional networks for biomedical image segmentation", MICCAI 2015,
        section 2 and Fig. 1. Where this leaves the paper:

        - The contracting half is any backbone, with its strides and norms, in place of ten 3x3 convolutions and four
          poolings; so that it can begin from ImageNet's weights. Nothing is left at the image's own size to be put
          beside the last map, as a rule; the paper has its first two convolutions there.
        - Convolutions are padded, so that output and input have one size; the paper's are not, and its maps are cut.
        - Batch normalisation, which came in the same year.
        - Upsampling repeats cells, and the convolution after it sees both maps; the paper's up-convolution (2x2, stride
          2) halves the channels first.
        - No dropout at the end of the contracting half, and no weight map in the loss: that is the task's.

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
            raise ValueError(f"upsampling={upsampling!r}: choose 'nearest' or 'bilinear'")
        self.backbone = as_backbone(backbone, weights)
        self.strides = _block_strides(self.backbone.strides)
        widths = [WIDTH_PER_STRIDE * stride for stride in self.strides] if widths is None else list(widths)
        if len(widths) != len(self.strides) or min(widths, default=1) < 1:
            raise ValueError(
                f"widths={widths}: the decoder above maps of strides {self.backbone.strides} has {len(self.strides)} "
                f"blocks, of strides {', '.join(map(str, self.strides))}, and needs a number above 0 for each"
            )
        ins = [self.backbone.channels[-1], *widths]
        skips = [*self.backbone.channels[-2::-1], *[0] * len(widths)]
        self.blocks = nn.ModuleList(
            UNetBlock(a, skip, b, upsampling) for (a, b), skip in zip(pairwise(ins), skips, strict=False)
        )
        self.head = nn.Conv2d(ins[-1], num_classes, 3, padding=1)
        init_weights(self.blocks)
        init_score_layer(self.head)

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        height, width = images.shape[-2:]
        maps, *skips = reversed(self.backbone(images))
        for index, (block, stride) in enumerate(zip(self.blocks, self.strides, strict=True)):
            skip = skips[index] if index < len(skips) else None
            size = (-(-height // stride), -(-width // stride)) if skip is None else skip.shape[-2:]
            maps = block(maps, tuple(size), skip)
        return self.head(maps)


def _block_strides(strides: Sequence[int]) -> list[int]:
    """Strides of the blocks' outputs: the finer maps', then halves of the finest until 1."""
    found = list(strides[-2::-1])
    finest = strides[0]
    while finest > 1:
        finest //= 2
        found.append(finest)
    return found
