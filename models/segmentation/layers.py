"""What the segmentation networks share: their backbone, blocks of convolutions, and resizing.

Shape legend: B images, C channels, h x w a feature map, H x W the image, K classes.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int = 3, dilation: int = 1, separable: bool = False
) -> nn.Sequential:
    """Convolution, batch normalisation, ReLU, at the size of the map.

    Args:
        in_channels: Channels of the map that comes in.
        out_channels: Channels of the map that goes out.
        kernel: Side of the kernel, odd.
        dilation: Cells between neighbouring taps of the kernel.
        separable: Convolve each channel by itself, then mix them by a 1x1 convolution, each with its norm and ReLU.

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
    """Bilinear interpolation between the centres of cells.

    Shape:
        - maps: ``[B, C, h, w]``; output: ``[B, C, *size]``
    """
    return F.interpolate(maps, size=tuple(size), mode="bilinear", align_corners=False)


@torch.no_grad()
def init_weights(module: nn.Module) -> None:
    """He's weights in every convolution before a ReLU, no bias, norms that change nothing; in place."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


@torch.no_grad()
def init_score_layer(layer: nn.Conv2d) -> nn.Conv2d:
    """Small weights (Glorot's) and no bias in a layer that scores classes; the layer itself."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
