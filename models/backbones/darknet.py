"""The convolutional trunks of YOLO and Fast YOLO, which are pretrained as classifiers."""

from collections import OrderedDict
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Literal, get_args

import torch
from torch import nn

from ..classification.alexnet import scaled
from .base import Backbone

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
"""Kernel and filters of each convolution, by stage; a pooling lies between two stages."""


class YOLOv1Backbone(Backbone):
    """The convolutions of YOLO that are pretrained on ImageNet: 20 of 24, or 7 of Fast YOLO's 9.

    ``yolo`` gives five maps of 64, 192, 512, 1024, 1024 channels and strides 2, 4, 8, 16, 32; ``fast`` seven of 16 to
    1024 channels and strides 1 to 64. Between two stages lies a maximum pooling of 2 x 2; every convolution keeps the
    size of its map, but ``yolo``'s first, which halves it, and is followed by a leaky ReLU. In a `Classifier` it is the
    network of the pretraining: average pooling and one linear layer follow.

    Args:
        variant: ``yolo`` or ``fast``.
        width: Factor on all channel counts, which are rounded to multiples of 8.
        batch_norm: Whether each convolution is followed by a batch normalisation, and loses its bias; the paper has
            none.
        weights: A checkpoint file, such as one of the pretraining, of which the trunk is taken. None: He's
            initialisation.
        frozen_stages: How many stages, from the first, do not train.
        freeze_norm: Whether every batch normalisation keeps its running statistics and its scale and shift.
        out_indices: Which of the maps are returned, increasing from 0; None: all.
        mean: Subtracted from pixels in [0, 1].
        std: Divides pixels in [0, 1].

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: for ``yolo`` and 448 pixels ``[B, 64, 224, 224]``, ``[B, 192, 112, 112]``, ``[B, 512, 56, 56]``,
          ``[B, 1024, 28, 28]``, ``[B, 1024, 14, 14]``

    Raises:
        ValueError: if there is no such variant, ``width`` leaves a layer without channels, or weights do not fit.

    Reference:
        Redmon, Divvala, Girshick, Farhadi, "You only look once: unified, real-time object detection", CVPR 2016,
        section 2.1, Fig. 3 and section 2.2. What the paper does not say is taken from the authors' code of November
        2015 (``cfg/yolo.cfg`` and ``cfg/yolo-tiny.cfg`` as first released): pixels from -1 to 1; the filters of Fast
        YOLO, and that the seven of its convolutions which are those of the "Darknet reference" classifier
        (``cfg/darknet.cfg``) come before its detection layers. Weights are drawn from a normal distribution; the code
        draws them evenly, at a third of the variance.
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
        if variant not in _STAGES:
            near = get_close_matches(str(variant), get_args(Variant), n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(get_args(Variant))}"
            raise ValueError(f"variant={variant!r} is no trunk of YOLO's; {hint}")
        plan = _STAGES[variant]
        stages, channels, strides = [], [], []
        last, number, stride = 3, 1, 1
        for index, layers in enumerate(plan):
            stage: OrderedDict[str, nn.Module] = OrderedDict()
            if index:
                stage[f"pool{index}"] = nn.MaxPool2d(2, 2)
                stride *= 2
            for kernel, filters in layers:
                step = 2 if kernel == 7 else 1
                stage[f"conv{number}"] = convolution(last, scaled(filters, width), kernel, step, batch_norm)
                last, number, stride = scaled(filters, width), number + 1, stride * step
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
    """A convolution that keeps the size of its map (at stride 1), perhaps a batch normalisation, and a leaky ReLU."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, bias=not batch_norm),
        nn.LeakyReLU(LEAK, inplace=True),
    ]
    if batch_norm:
        layers.insert(1, nn.BatchNorm2d(out_channels))
    return nn.Sequential(*layers)


@torch.no_grad()
def init_leaky(module: nn.Module) -> None:
    """Draws weights so that activations keep their size through leaky ReLUs, and sets biases to 0, in place."""
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, a=LEAK, nonlinearity="leaky_relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
