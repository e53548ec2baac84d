"""SSD's trunk: VGG-16 whose fc6 and fc7 are convolutions on a map of stride 16, thinned out from the classifier's."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.layers import named_layers, scale_channels
from ...ops.init import init_he
from ...ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ...pretrained import find_weights
from ...segmentation.fcn_backbones import _VGG16, vgg16_names
from ...weights import State, match_weights, pretrained_is_skipped

CAFFE_MEAN = (0.48235, 0.45882, 0.40784)
"""What the original VGG-16 subtracts from pixels in [0, 1], as torchvision has it: 123, 117 and 104 of 255."""
CAFFE_STD = (1 / 255,) * 3
"""What it divides by: nothing is left of the scaling to [0, 1]."""

_FULLY_CONNECTED = ("stages.4.fc6", "stages.4.fc7")


class SSDVGG16(Backbone):
    """VGG-16 up to fc7 as SSD has it: conv4_3 at stride 8 and fc7 at stride 16.

    Five maps, of which SSD takes the last two: conv1_2, conv2_2, conv3_3, conv4_3 and fc7, of strides 1 to 16. pool3
    rounds up (75 cells become 38), pool5 is 3 x 3 of stride 1, fc6 a 3 x 3 convolution of dilation 6, fc7 a 1 x 1;
    there is no dropout.

    Args:
        weights: Torchvision's name for VGG-16's weights, or the path of a checkpoint: torchvision's file, a
            classification checkpoint of ours with ``Classifier("vgg16")``, an FCN's, an SSD's, or the authors' own
            ("reduced") weights as ssd.pytorch numbers them, which need `CAFFE_MEAN` and `CAFFE_STD`. Where it holds no
            usable fc6 and fc7 (``IMAGENET1K_FEATURES``, the original Caffe weights), these two are drawn at random, as
            torchvision's SSD does. ``None``: N(0, 2 / fan-in).
        width: Factor on the convolutions' channel counts, which are rounded to multiples of 8.
        hidden: Channels of fc6 and fc7.
        frozen_stages: How many of the five stages, from the first, do not train.
        out_indices: Which maps are returned; ``None``: all.
        mean: Subtracted from pixels in [0, 1]; ``None``: what belongs to the weights, without weights ImageNet's.
        std: Divides pixels in [0, 1]; ``None``: as for ``mean``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``
        - output: for 300 pixels ``[B, 512, 38, 38]`` and ``[B, 1024, 19, 19]``; for 512 64 and 32 cells

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``weights`` does not hold VGG-16's convolutions.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, section 3, whose authors start from the "reduced"
        VGG-16 of DeepLab (Chen et al., ICLR 2015). That file's thinning is not documented; here every fourth channel of
        fc6 and fc7 is taken, and of fc6's 7 x 7 cells every third, the outermost among them (`thinned`).
    """

    def __init__(
        self,
        weights: str | None = None,
        width: float = 1.0,
        hidden: int = 1024,
        frozen_stages: int = 0,
        out_indices: tuple[int, ...] | None = (3, 4),
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        source = find_weights("vgg16", weights)
        own_mean, own_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        stages, channels = _stages(width, hidden)
        super().__init__(
            stages,
            channels,
            (1, 2, 4, 8, 16),
            own_mean if mean is None else mean,
            own_std if std is None else std,
            frozen_stages,
            out_indices=out_indices,
        )
        init_he(self)
        if source and not pretrained_is_skipped():
            self._load(source.state(), source.origin)

    def _load(self, state: State, origin: str) -> None:
        own = self.state_dict()
        ours, *others = vgg16_names()
        others.append([*(name.removeprefix("features.") for name in others[0][:-2]), "31", "33"])
        aliases = {
            f"{theirs}.{part}": f"{name}.{part}"
            for names in others
            for theirs, name in zip(names, ours, strict=True)
            for part in ("weight", "bias")
            if f"{name}.{part}" in own
        }
        state = _with_thinned(state, own, aliases)
        fitting, report = match_weights(self, state, aliases=aliases)
        missing = [name for name in report.missing if not name.startswith(_FULLY_CONNECTED)]
        if missing or report.mismatched:
            shown = replace(report, missing=tuple(missing), unexpected=() if fitting else report.unexpected)
            raise ValueError(
                f"{origin} does not hold VGG-16 as it is wanted here ({len(fitting)} of {len(own)} tensors fit):\n"
                f"{shown.describe()}"
            )
        for name in _FULLY_CONNECTED:
            if f"{name}.weight" in report.missing:
                init_uniform(self.get_submodule(name))
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, unexpected=(), origin=origin)


def _stages(width: float, hidden: int) -> tuple[list[nn.Sequential], list[int]]:
    """Each block begins with the pooling before it."""
    stages, channels, before = [], [], 3
    for block, widths in enumerate(_VGG16, start=1):
        layers: dict[str, nn.Module] = {}
        if block > 1:
            layers[f"pool{block - 1}"] = nn.MaxPool2d(2, 2, ceil_mode=block == 4)
        for number, full in enumerate(widths, start=1):
            here = scale_channels(full, width)
            layers[f"conv{block}_{number}"] = nn.Conv2d(before, here, 3, padding=1)
            layers[f"relu{block}_{number}"] = nn.ReLU(inplace=True)
            before = here
        if block == 5:
            layers |= {
                "pool5": nn.MaxPool2d(3, 1, padding=1),
                "fc6": nn.Conv2d(before, hidden, 3, padding=6, dilation=6),
                "relu6": nn.ReLU(inplace=True),
                "fc7": nn.Conv2d(hidden, hidden, 1),
                "relu7": nn.ReLU(inplace=True),
            }
        stages.append(named_layers(**layers))
        channels.append(hidden if block == 5 else before)
    return stages, channels


def thinned(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Every n-th entry of a tensor in each dimension, beginning with the first, for a smaller shape.

    n is the larger size by the smaller one, rounded up: of 7 cells to become 3, the first, the fourth and the seventh.

    Raises:
        ValueError: The shapes are not alike in number of dimensions, or no such steps lead from one to the other.

    Example:
        >>> thinned(torch.arange(7), [3])
        tensor([0, 3, 6])
    """
    steps = [-(-large // small) for large, small in zip(weight.shape, shape, strict=False)]
    result = weight[tuple(slice(None, None, step) for step in steps)]
    if len(weight.shape) != len(shape) or result.shape != torch.Size(shape):
        raise ValueError(f"a tensor of shape {list(weight.shape)} cannot be thinned out to {list(shape)}")
    return result


def _with_thinned(state: State, own: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict whose fc6 and fc7 have the shapes wanted; without them where they hold no finite numbers."""
    names = {name: own[ours] for name, ours in {**{n: n for n in own}, **aliases}.items() if ours in own}
    names = {name: like for name, like in names.items() if re.search(r"(fc[67]|classifier\.\d|body\.\d)\.\w+$", name)}
    result = dict(state)
    for key, value in state.items():
        like = next((like for name, like in names.items() if key == name or key.endswith(f".{name}")), None)
        if like is None or value.shape == like.shape:
            continue
        if value.ndim == 2:  # a fully connected layer, of a map that is flattened channel by channel
            side = round((value.shape[1] / (like.shape[1] if like.shape[-1] > 1 else value.shape[1])) ** 0.5)
            if value.shape[1] % (side * side) == 0:
                value = value.reshape(len(value), -1, side, side)
        if value.ndim == like.ndim and all(a >= b for a, b in zip(value.shape, like.shape, strict=True)):
            result[key] = thinned(value, like.shape)
            if not result[key].isfinite().all():
                del result[key]
    return result


@torch.no_grad()
def init_uniform(module: nn.Module) -> None:
    """Draws convolutions' weights uniformly, of variance 1 / fan-in, and sets biases to 0: what Caffe calls xavier."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
