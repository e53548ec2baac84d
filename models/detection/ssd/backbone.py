"""SSD's backbone: VGG-16 with fc6 and fc7 as convolutions of stride 16, subsampled from the classifier's weights."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ...backbones.base import Backbone
from ...backbones.layers import named_layers
from ...backbones.vgg16 import vgg16_blocks, vgg16_names
from ...ops.init import init_he
from ...ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ...pretrained import find_weights
from ...weights import State, match_weights, pretrained_is_skipped

CAFFE_MEAN = (0.48235, 0.45882, 0.40784)
"""Mean that the original VGG-16 subtracts from pixels in [0, 1], as in torchvision: 123, 117 and 104 of 255."""

CAFFE_STD = (1 / 255,) * 3
"""Its divisor, which undoes the scaling to [0, 1]."""

_FULLY_CONNECTED = ("stages.4.fc6", "stages.4.fc7")


class SSDVGG16(Backbone):
    """VGG-16 up to fc7 as in SSD: conv4_3 at stride 8 and fc7 at stride 16.

    It has five maps, of which SSD uses the last two: conv1_2, conv2_2, conv3_3, conv4_3 and fc7, with strides 1 to 16.
    pool3 rounds up (75 cells become 38), pool5 is 3 x 3 with stride 1, fc6 is a 3 x 3 convolution with dilation 6, and
    fc7 is 1 x 1. There is no dropout.

    Args:
        weights: torchvision's name for weights of VGG-16, or the path of a checkpoint: torchvision's file, one of our
            ``Classifier("vgg16")``, of an FCN or an SSD, or the authors' own ("reduced") weights as ssd.pytorch numbers
            them, which need `CAFFE_MEAN` and `CAFFE_STD`. If the file holds no usable fc6 and fc7
            (``IMAGENET1K_FEATURES``, the original Caffe weights), these two are drawn at random, as in torchvision's
            SSD. None: random weights, N(0, 2 / fan-in).
        width: Factor on the number of channels of the convolutions, rounded to multiples of 8.
        hidden: Number of channels of fc6 and fc7.
        frozen_stages: Number of stages, from the first, that are not trained; 0 to 5.
        out_indices: Indices of the maps that are returned. None: all.
        mean: Mean of each channel that is subtracted from pixels in [0, 1]. None: the weights' mean, or ImageNet's
            without weights.
        std: Standard deviation of each channel that divides pixels in [0, 1]. None: as for ``mean``.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: for 300 pixels ``[B, 512, 38, 38]`` and ``[B, 1024, 19, 19]``; for 512 pixels 64 and 32 cells

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``weights`` does not hold VGG-16's convolutions.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, section 3. Its authors start from the "reduced"
        VGG-16 of DeepLab (Chen et al., ICLR 2015). How that file was subsampled is not documented. Here every fourth
        channel of fc6 and fc7 is kept, and every third of fc6's 7 x 7 cells, the outermost included (`subsample`).
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
        default_mean, default_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        stages, channels = _stages(width, hidden)
        super().__init__(
            stages,
            channels,
            (1, 2, 4, 8, 16),
            default_mean if mean is None else mean,
            default_std if std is None else std,
            frozen_stages,
            out_indices=out_indices,
        )
        init_he(self)
        if source and not pretrained_is_skipped():
            self._load(source.state(), source.origin)

    def _load(self, state: State, origin: str) -> None:
        expected = self.state_dict()
        ours, *others = vgg16_names()
        # ssd.pytorch's numbers of the layers
        others.append([*(name.removeprefix("features.") for name in others[0][:-2]), "31", "33"])
        aliases = {
            f"{theirs}.{part}": f"{name}.{part}"
            for names in others
            for theirs, name in zip(names, ours, strict=True)
            for part in ("weight", "bias")
            if f"{name}.{part}" in expected
        }
        state = _with_subsampled(state, expected, aliases)
        fitting, report = match_weights(self, state, aliases=aliases)
        missing = [name for name in report.missing if not name.startswith(_FULLY_CONNECTED)]
        if missing or report.mismatched:
            relevant = replace(report, missing=tuple(missing), unexpected=() if fitting else report.unexpected)
            raise ValueError(
                f"weights: {origin} does not match this VGG-16, {len(fitting)} of {len(expected)} tensors fit:\n"
                f"{relevant.describe()}"
            )
        for name in _FULLY_CONNECTED:
            if f"{name}.weight" in report.missing:
                init_uniform(self.get_submodule(name))
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, unexpected=(), origin=origin)


def _stages(width: float, hidden: int) -> tuple[list[nn.Sequential], list[int]]:
    """Build the stages, each of which starts with the pooling before its block, and list their channels."""
    blocks, channels = vgg16_blocks(width)
    for number, block in enumerate(blocks[1:], start=1):
        blocks[number] = {f"pool{number}": nn.MaxPool2d(2, 2, ceil_mode=number == 3), **block}
    blocks[-1] |= {
        "pool5": nn.MaxPool2d(3, 1, padding=1),
        "fc6": nn.Conv2d(channels[-1], hidden, 3, padding=6, dilation=6),
        "relu6": nn.ReLU(inplace=True),
        "fc7": nn.Conv2d(hidden, hidden, 1),
        "relu7": nn.ReLU(inplace=True),
    }
    return [named_layers(**layers) for layers in blocks], [*channels[:-1], hidden]


def subsample(weight: Tensor, shape: Sequence[int]) -> Tensor:
    """Take every n-th entry of a tensor in each dimension, beginning with the first, to reach a smaller shape.

    n is the larger size divided by the smaller one, rounded up: from 7 to 3 cells, the first, the fourth and the
    seventh.

    Shape:
        - weight: ``[C, D, ...]``; output: ``shape``, with as many dimensions

    Raises:
        ValueError: The shapes differ in the number of dimensions, or no such steps lead from one to the other.

    Example:
        >>> subsample(torch.arange(7), [3])
        tensor([0, 3, 6])
    """
    steps = [-(-large // small) for large, small in zip(weight.shape, shape, strict=False)]
    result = weight[tuple(slice(None, None, step) for step in steps)]
    if len(weight.shape) != len(shape) or result.shape != torch.Size(shape):
        raise ValueError(f"shape: cannot be reached by steps from {list(weight.shape)}, got {list(shape)}")
    return result


def _with_subsampled(state: State, expected: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    """The state dict with fc6 and fc7 in the expected shapes; without them if they are not finite.

    fc6 is ``[4096, 25088]`` in a classifier and ``[hidden, C, 3, 3]`` here.
    """
    names = {name: expected[ours] for name, ours in {**{n: n for n in expected}, **aliases}.items() if ours in expected}
    names = {name: like for name, like in names.items() if re.search(r"(fc[67]|classifier\.\d|body\.\d)\.\w+$", name)}
    result = dict(state)
    for key, value in state.items():
        like = next((like for name, like in names.items() if key == name or key.endswith(f".{name}")), None)
        if like is None or value.shape == like.shape:
            continue
        if value.ndim == 2:  # a fully connected layer on a map flattened channel by channel: [units, C * side * side]
            side = round((value.shape[1] / (like.shape[1] if like.shape[-1] > 1 else value.shape[1])) ** 0.5)
            if value.shape[1] % (side * side) == 0:
                value = value.reshape(len(value), -1, side, side)
        if value.ndim == like.ndim and all(a >= b for a, b in zip(value.shape, like.shape, strict=True)):
            result[key] = subsample(value, like.shape)
            if not result[key].isfinite().all():
                del result[key]
    return result


@torch.no_grad()
def init_uniform(module: nn.Module) -> None:
    """Draw the weights of convolutions uniformly with variance 1 / fan-in, as Caffe's "xavier", and set biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="linear")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
