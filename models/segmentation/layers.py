"""Layers shared by the segmentation networks: convolution blocks and resizing.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1, separable: bool = False
) -> nn.Sequential:
    """Build a convolution that keeps the size of the map, batch normalization and ReLU.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the kernel, odd.
        dilation: Dilation of the kernel, in cells.
        separable: Whether to use a depthwise and a 1x1 convolution, each with batch normalization and ReLU.

    Shape:
        - input: ``[B, in_channels, h, w]``; output: ``[B, out_channels, h, w]``
    """
    if separable and kernel > 1:
        depthwise = nn.Conv2d(
            in_channels,
            in_channels,
            kernel,
            padding=dilation * (kernel // 2),
            dilation=dilation,
            groups=in_channels,
            bias=False,
        )
        return nn.Sequential(
            depthwise,
            nn.BatchNorm2d(in_channels),
            nn.ReLU(inplace=True),
            *conv_norm_relu(in_channels, out_channels, kernel=1),
        )
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, padding=dilation * (kernel // 2), dilation=dilation, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def resize(maps: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    """Resize maps by bilinear interpolation between the centers of cells.

    Shape:
        - maps: ``[B, C, h, w]``; output: ``[B, C, *size]``
    """
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)
