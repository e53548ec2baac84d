"""VGG-16 and AlexNet as fully convolutional backbones: fc6 and fc7 are convolutions with the same weights.

A fully connected layer on a map of C x n x n cells equals a convolution with an n x n kernel, which has one output
cell. On a larger map it has several, each with the classifier's output for one window (FCN paper, section 3.1).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
import torchvision
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..backbones.layers import named_layers, scale_channels
from ..backbones.vgg16 import vgg16_blocks, vgg16_names
from ..classification.layers import MEAN_PIXEL, PIXEL_UNIT, LocalResponseNorm
from ..ops.checks import check_choice, check_dropout, check_min
from ..ops.init import init_he
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ..pretrained import find_weights
from ..weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from .fcn_upsampling import Grid, stage_grids

PADDING = 100
"""Zeros around the image, in pixels, with which all maps cover an image of any size after cropping."""


def as_convolution(linear: nn.Linear, in_channels: int) -> nn.Conv2d:
    """Convert a linear layer on a flattened map to a convolution that applies it to each window of a larger map.

    Args:
        linear: A layer with ``in_channels * n * n`` inputs, for a map of n x n cells flattened channel by channel.
        in_channels: Channels of that map.

    Returns:
        A convolution with an n x n kernel, without padding, with copies of the layer's weights.

    Raises:
        ValueError: The inputs are not a square map with this number of channels.

    Example:
        >>> layer = nn.Linear(3 * 2 * 2, 5)
        >>> window = torch.rand(1, 3, 2, 2)
        >>> torch.allclose(as_convolution(layer, 3)(window).flatten(), layer(window.flatten()), atol=1e-6)
        True
    """
    side = round((linear.in_features / in_channels) ** 0.5)  # n of n x n cells
    if in_channels * side**2 != linear.in_features:
        raise ValueError(
            f"in_channels: the {linear.in_features} inputs of the linear layer are not a square map of this many "
            f"channels, got {in_channels}"
        )
    convolution = nn.Conv2d(in_channels, linear.out_features, side, bias=linear.bias is not None)
    convolution.to(linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.view_as(convolution.weight))
        if linear.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution


class FullyConvolutional(Backbone):
    """A classifier's trunk on the padded image, with fc6 and fc7 as convolutions.

    Args:
        stages: Named layers in sequence; each stage ends with a pooling, the last with fc7.
        channels: Channels of each stage's output.
        layers: Names of the layers with weights in the state dict, in order.
        others: Names of the same layers in classifiers' checkpoints, one list per kind of checkpoint.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        frozen_stages: Number of leading stages to freeze.
        out_indices: Indices of the returned maps, increasing from 0. ``None``: all.

    Attributes:
        grids: Position of the cells of each returned map in the image.
        load_report: Report of the last `load`, or None.
    """

    grids: tuple[Grid, ...]

    def __init__(
        self,
        stages: Sequence[nn.Module],
        channels: Sequence[int],
        layers: Sequence[str],
        others: Sequence[Sequence[str]],
        mean: Sequence[float],
        std: Sequence[float],
        frozen_stages: int = 0,
        out_indices: tuple[int, ...] | None = None,
    ) -> None:
        grids = stage_grids(stages)  # positions of cells, from which crop offsets follow
        strides = [grid.stride for grid in grids]
        super().__init__(stages, channels, strides, mean, std, frozen_stages, out_indices=out_indices)
        self.grids = tuple(grids[i] for i in self.out_indices)
        names_here = self.state_dict().keys()
        self._aliases = {
            f"{theirs}.{part}": f"{ours}.{part}"
            for names in others
            for theirs, ours in zip(names, layers, strict=True)
            for part in ("weight", "bias")
            if f"{ours}.{part}" in names_here
        }
        init_he(self)

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Load trunk, fc6 and fc7 from a classifier's or an FCN's weights; other tensors are ignored.

        Args:
            source: Path of a checkpoint, or tensors by name.
            origin: Name in messages of a ``source`` that is not a path.

        Returns:
            A report on the tensors that were loaded.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: A layer is missing, has another shape, or has NaN or infinite values.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        state = reshape_to_convolutions(source, self.state_dict(), self._aliases)
        fitting, report = match_weights(self, state, aliases=self._aliases, origin=origin)
        if report.missing or report.mismatched:
            total = len(fitting) + len(report.missing) + len(report.mismatched)
            # a list of unexpected tensors explains a wrong file only
            details = report if not fitting else replace(report, unexpected=())
            raise ValueError(
                f"{origin} does not match {type(self).__name__} ({len(fitting)} of {total} tensors match); give the "
                f"weights of this classifier including fc6 and fc7, or of an FCN with this backbone:\n"
                f"{details.describe()}"
            )
        if nonfinite := [name for name, value in fitting.items() if not value.isfinite().all()]:
            raise ValueError(
                f"{origin} has NaN or infinite values in {', '.join(nonfinite)}; use IMAGENET1K_V1 if these are "
                "torchvision's VGG-16 weights IMAGENET1K_FEATURES, which have no fc6 and fc7"
            )
        self.load_state_dict(fitting)
        self.load_report = replace(report, unexpected=())
        return self.load_report


def reshape_to_convolutions(
    state: State, module_state: Mapping[str, Tensor], aliases: Mapping[str, str]
) -> dict[str, Tensor]:
    """Reshape the matrices of fully connected layers in a state dict to the kernels of a module's convolutions.

    Args:
        state: Tensors by name, with any prefix; not modified.
        module_state: State dict of the module, with kernels ``[out_channels, in_channels, k, k]``.
        aliases: Alternative name -> name in the module.
    """
    names = {**{name: name for name in module_state}, **aliases}
    kernels = {name: module_state[ours].shape for name, ours in names.items() if module_state[ours].ndim == 4}
    result = dict(state)
    for key, value in state.items():
        if value.ndim == 2:  # a fully connected layer
            starts = [0] + [match.end() for match in re.finditer(r"\.", key)]
            for shape in (kernels[key[s:]] for s in starts if key[s:] in kernels):
                if shape[0] == value.shape[0] and shape.numel() == value.numel():
                    result[key] = value.reshape(shape)
    return result


def _fully_connected(in_channels: int, size: int, hidden: int, dropout: float) -> dict[str, nn.Module]:
    check_min(1, hidden=hidden)
    check_dropout(dropout=dropout)
    return {
        "fc6": nn.Conv2d(in_channels, hidden, size),
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(dropout),
        "fc7": nn.Conv2d(hidden, hidden, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(dropout),
    }


class VGG16FullyConvolutional(FullyConvolutional):
    """VGG-16 up to fc7 as convolutions: the backbone of FCN-32s, FCN-16s and FCN-8s.

    Five maps: pool1, pool2, pool3, pool4, and fc7 after dropout, of strides 2, 4, 8, 16 and 32.

    Args:
        weights: torchvision's name of published weights (``IMAGENET1K_V1``, ``DEFAULT``), or the path of a checkpoint:
            torchvision's file, a classification checkpoint of striate with ``Classifier("vgg16")``, or an FCN's.
            ``None``: N(0, 2 / fan-in).
        padding: Zeros around the normalized image, in pixels. With 1, the convolutions are those of VGG, and a
            224-pixel image has one cell with the classifier's fc7.
        dropout: Dropout probability of fc6 and fc7, for single activations.
        width: Factor on the channel counts of the convolutions, which are rounded to multiples of 8.
        hidden: Channels of fc6 and fc7.
        mean: Mean of each channel, for pixels in [0, 1]. ``None``: the value that belongs to the weights, or ImageNet's
            without weights.
        std: Standard deviation of each channel, for pixels in [0, 1]. ``None``: as for ``mean``.
        kwargs: ``frozen_stages``, of five, and ``out_indices`` of `FullyConvolutional`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size if ``padding`` is 100
        - output: for 375 x 500 pixels 64 x 287 x 349, 128 x 144 x 175, 256 x 72 x 88, 512 x 36 x 44, 4096 x 12 x 16

    Raises:
        FileNotFoundError: ``weights`` is the path of a missing file.
        ValueError: ``weights`` does not have VGG-16 with fc6 and fc7.

    Reference:
        Simonyan, Zisserman, "Very deep convolutional networks", ICLR 2015, configuration D; Long, Shelhamer, Darrell,
        "Fully convolutional networks for semantic segmentation", CVPR 2015, and its authors' Caffe nets, whose poolings
        round up. Those take BGR pixels with their mean subtracted; here mean and scale are those of the weights
        (torchvision's).
    """

    def __init__(
        self,
        weights: str | None = None,
        padding: int = PADDING,
        dropout: float = 0.5,
        width: float = 1.0,
        hidden: int = 4096,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        **kwargs: Any,
    ) -> None:
        source = find_weights("vgg16", weights)
        default_mean, default_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        blocks, channels = vgg16_blocks(width, padding)
        for number, block in enumerate(blocks, start=1):  # Caffe's poolings round up
            block[f"pool{number}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
        blocks[-1] |= _fully_connected(channels[-1], 7, hidden, dropout)
        ours, *others = vgg16_names()
        super().__init__(
            [named_layers(**layers) for layers in blocks],
            [*channels[:-1], hidden],
            ours,
            others,
            default_mean if mean is None else mean,
            default_std if std is None else std,
            **kwargs,
        )
        if source and not pretrained_is_skipped():
            self.load(source.state(), origin=source.origin)


_ALEXNET = {"paper": (96, 256, 384, 384, 256), "torchvision": (64, 192, 384, 256, 256)}
_ALEXNET_OURS = ["stages.0.conv1", "stages.1.conv2", *(f"stages.2.{n}" for n in ("conv3", "conv4", "conv5"))]
_ALEXNET_FEATURES = {"stages.0": (0,), "stages.1": (3,), "stages.2": (6, 8, 10)}


class AlexNetFullyConvolutional(FullyConvolutional):
    """AlexNet up to fc7 as convolutions: the backbone of FCN-AlexNet.

    Three maps: pool1, pool2, and fc7 after dropout, of strides 8, 16 and 32.

    Args:
        layout: ``paper``: striate's `AlexNet`, with groups and response normalization. ``torchvision``: torchvision's
            ``alexnet``, a different network with published weights.
        weights: Path of a checkpoint: a classification checkpoint of striate with that network, or an FCN's. For the
            layout ``torchvision`` also torchvision's file, or its name of published weights (``IMAGENET1K_V1``).
            ``None``: N(0, 2 / fan-in).
        padding: Zeros around the normalized image, in pixels.
        dropout: Dropout probability of fc6 and fc7, for single activations.
        width: Factor on the channel counts of the convolutions, which are rounded to multiples of 8.
        hidden: Channels of fc6 and fc7.
        kwargs: ``frozen_stages``, of three, and ``out_indices`` of `FullyConvolutional`.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size if ``padding`` is 100
        - output: for 375 x 500 pixels 96 x 71 x 86, 256 x 35 x 43, 4096 x 12 x 16

    Raises:
        FileNotFoundError: ``weights`` is the path of a missing file.
        ValueError: ``layout`` is unknown, or ``weights`` does not have that network with fc6 and fc7.

    Reference:
        As for `VGG16FullyConvolutional`. The authors' FCN-AlexNet uses CaffeNet, which normalizes after pooling (with k
        = 1); the layout ``paper`` has the order and constants of `AlexNet`. Its pixels are 0 to 255 with the mean pixel
        subtracted, as there.
    """

    def __init__(
        self,
        layout: Literal["paper", "torchvision"] = "paper",
        weights: str | None = None,
        padding: int = PADDING,
        dropout: float = 0.5,
        width: float = 1.0,
        hidden: int = 4096,
        **kwargs: Any,
    ) -> None:
        check_choice(tuple(_ALEXNET), layout=layout)
        published = torchvision.models.AlexNet_Weights.__members__
        if layout == "paper" and weights is not None and weights.rpartition(".")[2] in published:
            raise ValueError(
                f"weights: torchvision's AlexNet is a different network than layout='paper', got {weights!r}; set "
                "layout: torchvision, or give the path of a checkpoint of striate's AlexNet"
            )
        paper = layout == "paper"
        stages, channels = _alexnet_stages(layout, padding, dropout, width, hidden)
        layers = [*_ALEXNET_OURS, "stages.2.fc6", "stages.2.fc7"]
        numbers = [(stage, n) for stage, indices in _ALEXNET_FEATURES.items() for n in indices]
        others = (
            [[f"backbone.{name}" for name in _ALEXNET_OURS] + ["head.fc6", "head.fc7"]]
            if paper
            else [
                [f"features.{n}" for _, n in numbers] + ["classifier.1", "classifier.4"],
                [f"backbone.{stage}.{n}" for stage, n in numbers] + ["head.body.1", "head.body.4"],
            ]
        )
        mean, std = (MEAN_PIXEL, PIXEL_UNIT) if paper else (IMAGENET_MEAN, IMAGENET_STD)
        super().__init__(stages, channels, layers, others, mean, std, **kwargs)
        if weights is not None and not pretrained_is_skipped():
            if paper:
                self.load(weights)
            elif source := find_weights("alexnet", weights):
                self.load(source.state(), origin=source.origin)


def _alexnet_stages(
    layout: str, padding: int, dropout: float, width: float, hidden: int
) -> tuple[list[nn.Sequential], tuple[int, int, int]]:
    """Build the stages up to fc7, and return them with the channels of their outputs."""
    paper = layout == "paper"
    c1, c2, c3, c4, c5 = (scale_channels(c, width) for c in _ALEXNET[layout])
    groups = 2 if paper else 1  # two GPUs in the paper
    stages = [
        named_layers(
            conv1=nn.Conv2d(3, c1, 11, 4, padding),
            relu1=nn.ReLU(inplace=True),
            norm1=LocalResponseNorm() if paper else nn.Identity(),
            pool1=nn.MaxPool2d(3, 2, ceil_mode=True),
        ),
        named_layers(
            conv2=nn.Conv2d(c1, c2, 5, padding=2, groups=groups),
            relu2=nn.ReLU(inplace=True),
            norm2=LocalResponseNorm() if paper else nn.Identity(),
            pool2=nn.MaxPool2d(3, 2, ceil_mode=True),
        ),
        named_layers(
            conv3=nn.Conv2d(c2, c3, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(c3, c4, 3, padding=1, groups=groups),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(c4, c5, 3, padding=1, groups=groups),
            relu5=nn.ReLU(inplace=True),
            pool5=nn.MaxPool2d(3, 2, ceil_mode=True),
            **_fully_connected(c5, 6, hidden, dropout),
        ),
    ]
    return stages, (c1, c2, hidden)
