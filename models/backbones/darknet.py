"""The convolutional trunks of YOLO and Fast YOLO, pretrained as classifiers."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from ..ops.checks import check_choice
from .base import Backbone
from .layers import scale_channels

Variant = Literal["yolo", "fast"]

LEAK = 0.1
"""Slope of YOLO's leaky ReLUs below 0 (the paper's equation 2)."""

HALF = (0.5, 0.5, 0.5)

_STAGES: dict[str, tuple[tuple[tuple[int, int], ...], ...]] = {
    "yolo": (
        ((7, 64),),
        ((3, 192),),
        ((1, 128), (3, 256), (1, 256), (3, 512)),
        (*((1, 256), (3, 512)) * 4, (1, 512), (3, 1024)),
        ((1, 512), (3, 1024)) * 2,
    ),
    "fast": (((3, 16),), ((3, 32),), ((3, 64),), ((3, 128),), ((3, 256),), ((3, 512),), ((3, 1024),)),
}
"""Kernel size and filters of each convolution, by stage; stages are separated by a pooling."""


class YOLOv1Backbone(Backbone):
    """The convolutions of YOLO that are pretrained on ImageNet: 20 of 24, or 7 of 9 for Fast YOLO.

    ``yolo`` returns five maps of 64, 192, 512, 1024, 1024 channels and strides 2, 4, 8, 16, 32; ``fast`` returns seven
    of 16 to 1024 channels and strides 1 to 64. Stages are separated by 2 x 2 max pooling. Every convolution is followed
    by a leaky ReLU and keeps the size of its map, except the first of ``yolo``, which halves it. In a `Classifier`,
    average pooling and a linear layer follow, which is the network used for pretraining.

    Args:
        variant: ``yolo`` or ``fast``.
        width: Factor on all channel counts, which are rounded to multiples of 8.
        batch_norm: Whether to add a batch normalization after each convolution, in place of its bias. The paper has
            none.
        weights: Path of a checkpoint, for example of the pretraining, to load the trunk from. ``None``: He's
            initialization.
        frozen_stages: Number of leading stages to freeze.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the returned maps, increasing from 0. ``None``: all.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: for ``yolo`` and 448 pixels ``[B, 64, 224, 224]``, ``[B, 192, 112, 112]``, ``[B, 512, 56, 56]``,
          ``[B, 1024, 28, 28]``, ``[B, 1024, 14, 14]``

    Raises:
        ValueError: ``variant`` is unknown, ``width`` leaves a layer without channels, or ``weights`` does not match.

    Reference:
        Redmon, Divvala, Girshick, Farhadi, "You only look once: unified, real-time object detection", CVPR 2016,
        section 2.1, Fig. 3 and section 2.2. Details missing in the paper are taken from the authors' code of November
        2015 (``cfg/yolo.cfg`` and ``cfg/yolo-tiny.cfg`` as first released): pixels from -1 to 1, and the filters of
        Fast YOLO, whose first seven convolutions are those of the "Darknet reference" classifier
        (``cfg/darknet.cfg``). Weights are drawn from a normal distribution; the authors' code draws them uniformly, at
        a third of the variance.
    """

    def __init__(
        self,
        variant: Variant = "yolo",
        width: float = 1.0,
        batch_norm: bool = False,
        weights: str | None = None,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: Sequence[int] | None = None,
        mean: Sequence[float] = HALF,
        std: Sequence[float] = HALF,
    ) -> None:
        check_choice(tuple(_STAGES), variant=variant)
        stages, channels, strides = [], [], []
        last, number, stride = 3, 1, 1
        for index, layers in enumerate(_STAGES[variant]):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if index:
                stage[f"pool{index}"] = nn.MaxPool2d(2, 2)
                stride *= 2
            for kernel, filters in layers:
                step = 2 if kernel == 7 else 1  # only conv1 of "yolo" is strided
                out_channels = scale_channels(filters, width)
                stage[f"conv{number}"] = convolution(last, out_channels, kernel, step, batch_norm)
                last, number, stride = out_channels, number + 1, stride * step
            stages.append(nn.Sequential(stage))
            channels.append(last)
            strides.append(stride)
        super().__init__(stages, channels, strides, mean, std, frozen_stages, freeze_norm, out_indices)
        self.variant = variant
        init_leaky(self)
        self._load_trunk(weights)


def convolution(
    in_channels: int, out_channels: int, kernel: int = 3, stride: int = 1, batch_norm: bool = False
) -> nn.Sequential:
    """Build a convolution that keeps the size of its map at stride 1, optional batch normalization, and leaky ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not batch_norm),
        nn.LeakyReLU(LEAK, inplace=True),
    ]
    if batch_norm:
        layers.insert(1, nn.BatchNorm2d(out_channels))  # between convolution and activation
    return nn.Sequential(*layers)


@torch.no_grad()
def init_leaky(module: nn.Module) -> None:
    """Draw weights by He's rule for leaky ReLUs, which preserves the activations' scale, and set biases to 0."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
