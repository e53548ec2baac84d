"""DeepLabV3+: atrous spatial pyramid pooling on a dilated backbone, and a small decoder.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes; the stride of a map is the number
of pixels of the image to a cell of it.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..backbones import Backbone, as_backbone
from ..ops.checks import check_dropout, check_min
from .layers import (
    conv_norm_relu,
    init_score_layer,
    init_weights,
    resize,
)

OutputStride = Literal[8, 16]
FINE_STRIDE = 4
"""Stride of the map that the decoder adds, in pixels."""


class ImagePooling(nn.Sequential):
    """The mean of the whole map, through a 1x1 convolution, at every cell.

    Shape:
        - maps: ``[B, in_channels, h, w]``; output: ``[B, out_channels, h, w]``
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(in_channels, out_channels, kernel=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Gives the pooled features.

        Raises:
            ValueError: A batch of one image in training, whose one cell has no variance to normalise by.
        """
        if self.training and len(maps) == 1:
            raise ValueError(
                "a batch of 1 image: the pooled branch of DeepLabV3Plus normalises over the images of a batch and "
                "needs 2 at least in training; set batch_size: 2 or more (and leave no last batch of 1)"
            )
        return super().forward(maps).expand(-1, -1, *maps.shape[-2:])


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: a map seen at several reaches at once, and as a whole.

    A 1x1 convolution, a 3x3 convolution for each rate and the image's mean, side by side, then a 1x1 convolution over
    them all.

    Args:
        in_channels: Channels of the map.
        rates: Dilation of each 3x3 convolution, in cells.
        channels: Channels of each branch, and of the output.
        separable: Whether the 3x3 convolutions are separable.
        dropout: Probability that a number of the output is zeroed in training.

    Shape:
        - maps: ``[B, in_channels, h, w]``; output: ``[B, channels, h, w]``

    Reference:
        Chen et al., "Rethinking atrous convolution for semantic image segmentation", 2017, section 3.3.
    """

    def __init__(
        self, in_channels: int, rates: Sequence[int], channels: int = 256, separable: bool = False, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [
                conv_norm_relu(in_channels, channels, kernel=1),
                *(conv_norm_relu(in_channels, channels, dilation=rate, separable=separable) for rate in rates),
                ImagePooling(in_channels, channels),
            ]
        )
        self.project = conv_norm_relu(len(self.branches) * channels, channels, kernel=1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, maps: Tensor) -> Tensor:
        """Gives the map of all branches."""
        return self.dropout(self.project(torch.cat([branch(maps) for branch in self.branches], dim=1)))


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+: a backbone whose last strides became dilation, a pyramid on its last map, and a decoder at stride 4.

    The pyramid's map, brought to stride 4, meets the backbone's map there, reduced to 48 channels; two 3x3 convolutions
    and a 1x1 convolution give logits, which are brought to the image's size. Images may have any size.

    Weights do not depend on ``output_stride``: a network trained at 16 can be evaluated at 8, as in the paper.

    Args:
        backbone: A backbone, or the name of one (see `build_backbone`); one with a map of stride 4. Where its last
            map is coarser than ``output_stride``, it is dilated in place, which torchvision's ResNets can
            (`TorchvisionBackbone.dilate`); timm's get ``options: {output_stride: 16}`` when they are built.
        num_classes: Number K of classes, the background among them.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        output_stride: Stride of the backbone's last map, in pixels: 16, or 8 for finer features at four times the
            work there.
        rates: Dilation of the pyramid's 3x3 convolutions, in cells. ``None``: 6, 12, 18 at stride 16, and twice that at
            8.
        channels: Channels of the pyramid and of the decoder.
        fine_channels: Channels that the map of stride 4 is reduced to.
        separable: Whether the 3x3 convolutions of pyramid and decoder are separable, which takes a fraction of the
            work.
        dropout: Probability that a number of the pyramid's output is zeroed in training.
        auxiliary: Whether there is an auxiliary head for training, on the backbone's last map but one: a 3x3
            convolution to a quarter of its channels, dropout 0.1, and a 1x1 convolution. The paper has none; PSPNet's
            (Zhao et al., 2017, section 3.3), with a weight of 0.4, is customary.

    Attributes:
        backbone: The trunk; a task may give it a learning rate of its own.
        pyramid: An `AtrousPyramid`.
        reduce: From the map of stride 4 to ``fine_channels``.
        decoder: Two 3x3 convolutions.
        head: The last convolution, to logits.
        auxiliary: The auxiliary head, or None.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone takes, B at least 2 in training.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: The backbone has no map of stride 4 or cannot be brought to ``output_stride``, or a number is out
            of its range; in ``forward``: the images are too small for the backbone, or a batch of 1 in training.

    Reference:
        Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-decoder with atrous separable convolution for semantic image
        segmentation", ECCV 2018, sections 3.1 and 4.1 (48 channels, two 3x3 convolutions: Tables 1 and 2). Where this
        leaves the paper:

        - Maps are interpolated between the centres of cells; the authors' code aligns the corners, which fits images
          whose sides are one more than a multiple of the stride (513).
        - A torchvision ResNet has its stride in the 3x3 convolution of a block and one 7x7 convolution first; the
          authors' has three 3x3 there. The blocks of the last stage share one dilation: no multi-grid.
        - Batch normalisation is torch's (momentum 0.1), the authors' decays by 0.9997; batches of at least 12 images
          are what they advise for training it.
        - Dropout of 0.1 after the pyramid is the authors' code's, of which the paper says nothing.

    Example:
        >>> images = torch.zeros(1, 3, 65, 90, dtype=torch.uint8)
        >>> DeepLabV3Plus("resnet18", num_classes=21, channels=32).eval()(images).shape
        torch.Size([1, 21, 65, 90])
    """

    def __init__(
        self,
        backbone: Backbone | str,
        num_classes: int,
        weights: str | None = None,
        output_stride: OutputStride = 16,
        rates: Sequence[int] | None = None,
        channels: int = 256,
        fine_channels: int = 48,
        separable: bool = False,
        dropout: float = 0.1,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        check_dropout(dropout=dropout)
        self.num_classes = num_classes
        if output_stride not in get_args(OutputStride):
            raise ValueError(f"output_stride={output_stride}: choose 16 or 8")
        if rates is not None and (not rates or min(rates) < 1):
            raise ValueError(f"rates={list(rates)}: give the dilation of each 3x3 convolution, 1 cell or more")
        self.output_stride = output_stride
        self.rates = tuple(rates) if rates is not None else tuple(n * 16 // output_stride for n in (6, 12, 18))
        self.backbone = dilated(as_backbone(backbone, weights), output_stride)
        strides, widths = self.backbone.strides, self.backbone.channels
        self._fine = len(strides) - 1 - strides[::-1].index(FINE_STRIDE)
        self.pyramid = AtrousPyramid(widths[-1], self.rates, channels, separable, dropout)
        self.reduce = conv_norm_relu(widths[self._fine], fine_channels, kernel=1)
        self.decoder = nn.Sequential(
            conv_norm_relu(channels + fine_channels, channels, separable=separable),
            conv_norm_relu(channels, channels, separable=separable),
        )
        self.head = nn.Conv2d(channels, num_classes, 1)
        self.auxiliary = _auxiliary_head(widths[-2], num_classes) if auxiliary else None
        for part in (self.pyramid, self.reduce, self.decoder):
            init_weights(part)
        init_score_layer(self.head)

    def _decode(self, maps: list[Tensor], size: torch.Size) -> Tensor:
        fine = self.reduce(maps[self._fine])
        coarse = resize(self.pyramid(maps[-1]), fine.shape[-2:])
        return resize(self.head(self.decoder(torch.cat([coarse, fine], dim=1))), size)

    def forward(self, images: Tensor) -> Tensor:
        """Gives the logits of a batch."""
        return self._decode(self.backbone(images), images.shape[-2:])

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Gives the logits, and those of the auxiliary head, if there is one.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K, H, W]``, and a list of none or one ``[B, K, H, W]``
        """
        maps, size = self.backbone(images), images.shape[-2:]
        others = [] if self.auxiliary is None else [resize(self.auxiliary(maps[-2]), size)]
        return self._decode(maps, size), others


def dilated(backbone: Backbone, output_stride: int) -> Backbone:
    """The backbone, with its last strides turned into dilation where its last map is too coarse.

    Raises:
        ValueError: It has no map of stride 4, or cannot give one of ``output_stride`` at last.
    """
    name = getattr(backbone, "name", type(backbone).__name__)
    if FINE_STRIDE not in backbone.strides[:-1]:
        raise ValueError(
            f"DeepLabV3Plus needs a map of stride {FINE_STRIDE} besides the last; {name} gives the strides "
            f"{backbone.strides}: choose other out_indices, or another backbone"
        )
    if backbone.strides[-1] > output_stride:
        dilate = getattr(backbone, "dilate", None)
        if dilate is None:
            raise ValueError(
                f"the last map of {name} has a stride of {backbone.strides[-1]}, and it cannot be dilated to "
                f"output_stride={output_stride}: take a ResNet of torchvision's, or give timm's networks options: "
                f"{{output_stride: {output_stride}}}"
            )
        dilate(output_stride)
    if backbone.strides[-1] != output_stride:
        raise ValueError(
            f"the last map of {name} has a stride of {backbone.strides[-1]}, finer than output_stride={output_stride}: "
            "set the stride that it has, or let it have more stages"
        )
    return backbone


def _auxiliary_head(in_channels: int, num_classes: int) -> nn.Sequential:
    hidden = max(in_channels // 4, 1)
    head = nn.Sequential(
        *conv_norm_relu(in_channels, hidden), nn.Dropout(0.1), scores := nn.Conv2d(hidden, num_classes, 1)
    )
    init_weights(head)
    init_score_layer(scores)
    return head
