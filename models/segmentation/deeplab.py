"""DeepLabV3+: atrous spatial pyramid pooling on a dilated backbone, and a small decoder.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes. The stride of a map is the number
of image pixels per cell.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..backbones import Backbone, as_backbone, backbone_name, dilated_backbone
from ..ops.checks import check_dropout, check_min
from ..ops.init import init_glorot, init_he
from .layers import conv_norm_relu, resize

OutputStride = Literal[8, 16]
FINE_STRIDE = 4
"""Stride of the backbone's map that the decoder uses, in pixels."""


class ImagePooling(nn.Sequential):
    """The mean of the map after a 1x1 convolution, repeated at every cell.

    Shape:
        - maps: ``[B, in_channels, h, w]``; output: ``[B, out_channels, h, w]``
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(in_channels, out_channels, kernel=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return the pooled features ``[B, out_channels, h, w]`` of maps ``[B, in_channels, h, w]``.

        Raises:
            ValueError: A batch of one image in training, for which batch normalization has no variance.
        """
        if self.training and len(maps) == 1:
            raise ValueError(
                "batch_size: the pooled branch of DeepLabV3Plus normalizes over the images of a batch and needs at "
                "least 2 in training, got 1; raise batch_size (and avoid a last batch of 1)"
            )
        return super().forward(maps).expand(-1, -1, *maps.shape[-2:])


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: parallel branches with several receptive fields, and one with the image's mean.

    The branches are a 1x1 convolution, a 3x3 convolution for each rate, and `ImagePooling`. A 1x1 convolution of their
    concatenation follows.

    Args:
        in_channels: Channels of the map.
        rates: Dilation of each 3x3 convolution, in cells.
        channels: Channels of each branch, and of the output.
        separable: Whether the 3x3 convolutions are separable.
        dropout: Dropout probability of the output.

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
        """Return ``[B, channels, h, w]`` from maps ``[B, in_channels, h, w]``."""
        return self.dropout(self.project(torch.cat([branch(maps) for branch in self.branches], dim=1)))


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+: a dilated backbone, an atrous pyramid on its last map, and a decoder at stride 4.

    The output of the pyramid is resized to stride 4 and concatenated with the backbone's map of stride 4, which is
    reduced to 48 channels. Two 3x3 convolutions and a 1x1 convolution compute logits, which are resized to the image.
    Images may have any size.

    Weights do not depend on ``output_stride``: a network trained at 16 can be evaluated at 8, as in the paper.

    Args:
        backbone: A backbone with a map of stride 4, or its name (see `build_backbone`). If the stride of its last map
            exceeds ``output_stride``, it is dilated in place, which torchvision's ResNets support
            (`TorchvisionBackbone.dilate`). Build timm's networks with ``options: {output_stride: 16}``.
        num_classes: Number K of classes, including the background.
        weights: Name of published weights or path of a checkpoint, for a backbone given by name.
        output_stride: Stride of the backbone's last map, in pixels: 16, or 8 for finer features at four times the
            cost.
        rates: Dilation of the pyramid's 3x3 convolutions, in cells. ``None``: 6, 12, 18 at stride 16, and twice that at
            8.
        channels: Channels of the pyramid and of the decoder.
        fine_channels: Channels to which the map of stride 4 is reduced.
        separable: Whether the 3x3 convolutions of pyramid and decoder are separable, at a fraction of the cost.
        dropout: Dropout probability of the pyramid's output.
        auxiliary: Whether to add an auxiliary head for training on the backbone's second to last map: a 3x3
            convolution to a quarter of its channels, dropout 0.1, and a 1x1 convolution. The paper has none; PSPNet's
            (Zhao et al., 2017, section 3.3), with a weight of 0.4, is customary.

    Attributes:
        backbone: The trunk; a task may train it at a separate learning rate.
        pyramid: The `AtrousPyramid`.
        reduce: The 1x1 convolution of the map of stride 4 to ``fine_channels``.
        decoder: Two 3x3 convolutions.
        head: The last convolution, which computes the logits.
        auxiliary: The auxiliary head, or None.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; H and W of any size that the
          backbone accepts, B at least 2 in training.
        - output: logits ``[B, K, H, W]``.

    Raises:
        ValueError: The backbone has no map of stride 4 or cannot be dilated to ``output_stride``, or an argument is out
            of range; in ``forward``, the images are too small for the backbone, or a batch has 1 image in training.

    Reference:
        Chen, Zhu, Papandreou, Schroff, Adam, "Encoder-decoder with atrous separable convolution for semantic image
        segmentation", ECCV 2018, sections 3.1 and 4.1 (48 channels, two 3x3 convolutions: Tables 1 and 2). Deviations
        from the paper:

        - Maps are interpolated between the centers of cells. The authors' code aligns the corners, which suits images
          whose sides are one more than a multiple of the stride (513).
        - torchvision's ResNets have the stride in the 3x3 convolution of a block and start with one 7x7 convolution;
          the authors' start with three 3x3. The blocks of the last stage share one dilation (no multi-grid).
        - Batch normalization is PyTorch's, with a momentum of 0.1; the authors' has a decay of 0.9997, and they
          recommend batches of at least 12 images to train it.
        - Dropout of 0.1 after the pyramid is from the authors' code; the paper does not mention it.

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
        check_min(1, num_classes=num_classes, channels=channels, fine_channels=fine_channels)
        check_dropout(dropout=dropout)
        self.num_classes = num_classes
        if output_stride not in get_args(OutputStride):
            raise ValueError(f"output_stride: must be 16 or 8, got {output_stride}")
        if rates is not None and (not rates or min(rates) < 1):
            raise ValueError(f"rates: must have a positive dilation for each 3x3 convolution, got {list(rates)}")
        self.output_stride = output_stride
        self.rates = tuple(rates) if rates is not None else tuple(n * 16 // output_stride for n in (6, 12, 18))
        self.backbone = dilated(as_backbone(backbone, weights), output_stride)
        strides, widths = self.backbone.strides, self.backbone.channels
        self._fine = len(strides) - 1 - strides[::-1].index(FINE_STRIDE)  # the last map of stride 4
        self.pyramid = AtrousPyramid(widths[-1], self.rates, channels, separable, dropout)
        self.reduce = conv_norm_relu(widths[self._fine], fine_channels, kernel=1)
        self.decoder = nn.Sequential(
            conv_norm_relu(channels + fine_channels, channels, separable=separable),
            conv_norm_relu(channels, channels, separable=separable),
        )
        self.head = nn.Conv2d(channels, num_classes, 1)
        self.auxiliary = _auxiliary_head(widths[-2], num_classes) if auxiliary else None
        for part in (self.pyramid, self.reduce, self.decoder):
            init_he(part)
        init_glorot(self.head)

    def _decode(self, maps: list[Tensor], size: torch.Size) -> Tensor:
        """Compute the logits ``[B, K, *size]`` from the backbone's maps ``[B, C, h, w]``."""
        fine = self.reduce(maps[self._fine])  # [B, fine_channels, h, w] at stride 4
        coarse = resize(self.pyramid(maps[-1]), fine.shape[-2:])  # [B, channels, h, w] at stride 4
        return resize(self.head(self.decoder(torch.cat([coarse, fine], dim=1))), size)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``."""
        return self._decode(self.backbone(images), images.shape[-2:])

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits, and those of the auxiliary head, if there is one.

        Shape:
            - images: ``[B, 3, H, W]``
            - output: ``[B, K, H, W]``, and a list of none or one ``[B, K, H, W]``
        """
        maps, size = self.backbone(images), images.shape[-2:]
        # from the second to last map
        others = [] if self.auxiliary is None else [resize(self.auxiliary(maps[-2]), size)]
        return self._decode(maps, size), others


def dilated(backbone: Backbone, output_stride: int) -> Backbone:
    """Dilate a backbone in place if the stride of its last map exceeds ``output_stride``, and return it.

    Raises:
        ValueError: It has no map of stride 4, or its last map cannot have a stride of ``output_stride``.
    """
    name = backbone_name(backbone)
    if FINE_STRIDE not in backbone.strides[:-1]:
        raise ValueError(
            f"backbone: DeepLabV3Plus needs a map of stride {FINE_STRIDE} before the last, got {name} with the strides "
            f"{backbone.strides}; choose other out_indices, or another backbone"
        )
    return dilated_backbone(backbone, output_stride)


def _auxiliary_head(in_channels: int, num_classes: int) -> nn.Sequential:
    hidden = max(in_channels // 4, 1)
    head = nn.Sequential(
        *conv_norm_relu(in_channels, hidden), nn.Dropout(0.1), scores := nn.Conv2d(hidden, num_classes, 1)
    )
    init_he(head)
    init_glorot(scores)
    return head
