"""A small convolutional network without padding, whose maps of an image contain those of each of its windows."""

from collections.abc import Sequence

from torch import nn

from ..ops.checks import check_length, check_min, indexed
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from .base import Backbone


class UnpaddedCNN(Backbone):
    """Stages of a convolution without padding, batch normalization, ReLU and max pooling.

    Nothing is padded, so a cell of a map depends only on the pixels below it. `SlidingWindowDetector` relies on this to
    classify all windows of an image in one pass.

    Args:
        widths: Channels of each stage.
        kernels: Side of each stage's kernel, in cells of the previous map.
        pools: Side and stride of each stage's pooling; 1: no pooling.
        weights: Path of a checkpoint. ``None``: He's initialization.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: one map per stage; with the defaults, images of 24 pixels have ``[B, 32, 10, 10]`` and ``[B, 64, 4,
          4]``.

    Raises:
        ValueError: The lists differ in length or are empty, a number is below 1, or ``weights`` does not match.
    """

    def __init__(
        self,
        widths: Sequence[int] = (32, 64),
        kernels: Sequence[int] = (5, 3),
        pools: Sequence[int] = (2, 2),
        weights: str | None = None,
    ) -> None:
        if not widths:
            raise ValueError("widths: must have a number of channels for each stage, got an empty list")
        check_length(len(widths), kernels=kernels, pools=pools)
        for name, values in (("widths", widths), ("kernels", kernels), ("pools", pools)):
            check_min(1, **indexed(name, values))
        stages, strides, stride = [], [], 1
        for before, width, kernel, pool in zip((3, *widths), widths, kernels, pools, strict=False):
            layers = [nn.Conv2d(before, width, kernel, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            stages.append(nn.Sequential(*layers, *([nn.MaxPool2d(pool)] if pool > 1 else [])))
            strides.append(stride := stride * pool)
        super().__init__(stages, channels=widths, strides=strides, mean=IMAGENET_MEAN, std=IMAGENET_STD)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self._load_trunk(weights)
