"""ResNets for small images such as CIFAR's: torchvision's blocks after a first layer that keeps the resolution."""

from collections import OrderedDict
from typing import Any

import torchvision
from torch import nn

from ..ops.checks import check_choice
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .base import Backbone

NAMES = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "resnext50_32x4d")
"""Torchvision's networks that `SmallImageResNet` supports."""


class SmallImageResNet(Backbone):
    """A torchvision ResNet whose first layer is a 3x3 convolution of stride 1, without the pooling after it.

    The ImageNet network reduces 32 pixels to 8 before its first block. This one starts its blocks at 32 and ends at 4.
    It returns four maps, of strides 1, 2, 4 and 8.

    Args:
        name: One of `NAMES`.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        out_indices: Indices of the returned maps, increasing from 0. ``None``: all four.
        weights: Path of a checkpoint to load the trunk from. ``None``: torchvision's initialization.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``.

    Raises:
        ValueError: ``name`` is unknown, or ``weights`` does not match.

    Reference:
        He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, for the blocks. Its CIFAR
        networks (section 4.2) start in the same way but have three narrow stages; this variant is widely used.
    """

    def __init__(
        self,
        name: str = "resnet18",
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
        out_indices: tuple[int, ...] | None = None,
        weights: str | None = None,
    ) -> None:
        check_choice(NAMES, name=name)
        net: Any = torchvision.models.get_model(name, weights=None)
        conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(conv1.weight, mode="fan_out", nonlinearity="relu")  # as in torchvision
        first = nn.Sequential(OrderedDict(conv1=conv1, bn1=net.bn1, relu=net.relu, layer1=net.layer1))
        width = net.fc.in_features // 8  # channels of layer1; each later layer doubles them
        super().__init__(
            [first, net.layer2, net.layer3, net.layer4],
            channels=[width * factor for factor in (1, 2, 4, 8)],
            strides=[1, 2, 4, 8],
            mean=mean,
            std=std,
            out_indices=out_indices,
        )
        self._load_trunk(weights)
