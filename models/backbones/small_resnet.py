"""ResNets for small images, such as CIFAR's: the same blocks behind a first layer that keeps the resolution."""

from collections import OrderedDict
from difflib import get_close_matches
from typing import Any

import torchvision
from torch import nn

from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .base import Backbone

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d")
"""Torchvision's networks that `SmallImageResNet` is made of."""


class SmallImageResNet(Backbone):
    """A torchvision ResNet whose first layer is a 3x3 convolution of stride 1, without the pooling after it.

    The network for ImageNet has brought 32 pixels down to 8 before its first block; this one starts its blocks at the
    full 32 and ends at 4. Four maps, of strides 1, 2, 4 and 8.

    Args:
        name: One of `NAMES`.
        mean: Mean of each channel, of values in [0, 1].
        std: Standard deviation of each channel, of values in [0, 1].
        out_indices: Which of the four maps are returned, increasing from 0. ``None``: all.
        weights: A checkpoint file, of which the trunk is taken. ``None``: torchvision's initialisation.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ValueError: There is no such network, or ``weights`` does not fit.

    Reference:
        He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, for the blocks. Its CIFAR
        networks (section 4.2) begin in the same way, but have three narrow stages; this arrangement is common usage.
    """

    def __init__(
        self,
        name: str = "resnet18",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        out_indices: tuple[int, ...] | None = None,
        weights: str | None = None,
    ) -> None:
        if name not in NAMES:
            near = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(NAMES)}"
            raise ValueError(f"there is no ResNet {name!r} for small images; {hint}")
        net: Any = torchvision.models.get_model(name, weights=None)
        conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's convolutions
        first = nn.Sequential(OrderedDict(conv1=conv1, bn1=net.bn1, relu=net.relu, layer1=net.layer1))
        width = net.fc.in_features // 8
        super().__init__(
            [first, net.layer2, net.layer3, net.layer4],
            channels=[width * factor for factor in (1, 2, 4, 8)],
            strides=[1, 2, 4, 8],
            mean=mean,
            std=std,
            out_indices=out_indices,
        )
        self._load_trunk(weights)
