"""VGG-16 and AlexNet as fully convolutional backbones: their fc6 and fc7 are convolutions, with the same weights.

A fully connected layer on a map of C x n x n cells is a convolution with an n x n kernel that has one place to go. On a
larger map it has more, and gives there what the classifier would say of each window (FCN paper, section 3.1).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
import torchvision
from torch import Tensor, nn

from ..backbones.base import Backbone
from ..backbones.layers import named_layers, scale_channels
from ..classification.layers import MEAN_PIXEL, PIXEL_UNIT, LocalResponseNorm
from ..ops.init import init_he
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ..pretrained import find_weights
from ..weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from .fcn_upsampling import Grid, stage_grids

PADDING = 100
"""Zeros around the image, in pixels: whatever the image's size, all maps then cover it after cropping."""


def as_convolution(linear: nn.Linear, in_channels: int) -> nn.Conv2d:
    """The convolution that does on each window of a map what a linear layer does on a flattened map.

    Args:
        linear: Of ``in_channels * n * n`` inputs, for a map of n x n cells flattened channel by channel.
        in_channels: Channels of that map.

    Returns:
        A convolution with an n x n kernel, without padding, with copies of the layer's weights.

    Raises:
        ValueError: The inputs are no square map of so many channels.

    Example:
        >>> layer = nn.Linear(3 * 2 * 2, 5)
        >>> window = torch.rand(1, 3, 2, 2)
        >>> torch.allclose(as_convolution(layer, 3)(window).flatten(), layer(window.flatten()), atol=1e-6)
        True
    """
    side = round((linear.in_features / in_channels) ** 0.5)
    if in_channels * side**2 != linear.in_features:
        raise ValueError(
            f"in_channels={in_channels}: the {linear.in_features} inputs of the linear layer are no square map of so "
            "many channels"
        )
    convolution = nn.Conv2d(in_channels, linear.out_features, side, bias=linear.bias is not None)
    convolution.to(linear.weight.device, linear.weight.dtype)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.view_as(convolution.weight))
        if linear.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution


class FullyConvolutional(Backbone):
    """A classifier's trunk with its fc6 and fc7 as convolutions, the image padded.

    Args:
        stages: Layers in sequence, named; each stage ends with a pooling, the last with fc7.
        channels: Channels of each stage's output.
        layers: Names of the layers with weights under ``stages``, in order.
        others: The names of the same layers in classifiers' checkpoints, one list a kind of checkpoint.
        mean: Subtracted from pixels in [0, 1].
        std: Divides pixels in [0, 1].
        frozen_stages: How many stages, from the first, do not train.
        out_indices: Which maps are returned; None: all.

    Attributes:
        grids: Where the cells of each returned map lie in the image.
        load_report: What the last `load` took from where.
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
        out_indices: Sequence[int] | None = None,
    ) -> None:
        grids = stage_grids(stages)
        strides = [grid.stride for grid in grids]
        super().__init__(stages, channels, strides, mean, std, frozen_stages, out_indices=out_indices)
        self.grids = tuple(grids[i] for i in self.out_indices)
        self.load_report: LoadReport | None = None
        own = self.state_dict()
        self._aliases = {
            f"{theirs}.{part}": f"{ours}.{part}"
            for names in others
            for theirs, ours in zip(names, layers, strict=True)
            for part in ("weight", "bias")
            if f"{ours}.{part}" in own
        }
        init_he(self)

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Takes trunk, fc6 and fc7 from a classifier's weights, or from an FCN's; everything else is left there.

        Args:
            source: A checkpoint's path, or names -> tensors.
            origin: What messages call a ``source`` that is not a path.

        Returns:
            What was loaded, and from which prefix.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: Not every layer is there with its shape, or one holds numbers that are not finite.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        state = convolutional(source, self.state_dict(), self._aliases)
        fitting, report = match_weights(self, state, aliases=self._aliases, origin=origin)
        if report.missing or report.mismatched:
            total = len(fitting) + len(report.missing) + len(report.mismatched)
            details = report if not fitting else replace(report, unexpected=())
            raise ValueError(
                f"{origin} does not hold the trunk that was asked for: {len(fitting)} of the {total} tensors of "
                f"{type(self).__name__} fit. Give the weights of that classifier, fc6 and fc7 with it, or a checkpoint "
                f"of an FCN on it:\n{details.describe()}"
            )
        if broken := [name for name, value in fitting.items() if not value.isfinite().all()]:
            raise ValueError(
                f"{origin} holds numbers that are not finite in {', '.join(broken)}. (torchvision's VGG-16 weights "
                "IMAGENET1K_FEATURES are such: they have no fc6 and fc7; take IMAGENET1K_V1.)"
            )
        self.load_state_dict(fitting)
        self.load_report = replace(report, unexpected=())
        return self.load_report


def convolutional(state: State, own: Mapping[str, Tensor], aliases: Mapping[str, str]) -> dict[str, Tensor]:
    """A state dict in which the matrices of fully connected layers have the shapes of a module's convolutions.

    Args:
        state: Names, behind any prefix, -> tensors; stays as it is.
        own: The module's state dict.
        aliases: Other names for the module's own, other -> own.
    """
    names = {**{name: name for name in own}, **aliases}
    kernels = {name: own[ours].shape for name, ours in names.items() if own[ours].ndim == 4}
    result = dict(state)
    for key, value in state.items():
        if value.ndim == 2:
            starts = [0] + [match.end() for match in re.finditer(r"\.", key)]
            for shape in (kernels[key[s:]] for s in starts if key[s:] in kernels):
                if shape[0] == value.shape[0] and shape.numel() == value.numel():
                    result[key] = value.reshape(shape)
    return result


def _fully_connected(in_channels: int, size: int, hidden: int, dropout: float) -> dict[str, nn.Module]:
    return {
        "fc6": nn.Conv2d(in_channels, hidden, size),
        "relu6": nn.ReLU(inplace=True),
        "drop6": nn.Dropout(dropout),
        "fc7": nn.Conv2d(hidden, hidden, 1),
        "relu7": nn.ReLU(inplace=True),
        "drop7": nn.Dropout(dropout),
    }


_VGG16 = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
"""Channels of VGG-16's convolutions, block by block; a pooling follows each block."""


def vgg16_names() -> tuple[list[str], list[str], list[str]]:
    """The layers with weights under our names, torchvision's, and those of ``Classifier("vgg16")``."""
    ours, theirs, classifier = [], [], []
    index = 0
    for block, widths in enumerate(_VGG16):
        for number in range(len(widths)):
            ours.append(f"stages.{block}.conv{block + 1}_{number + 1}")
            theirs.append(f"features.{index}")
            classifier.append(f"backbone.stages.{block}.{index}")
            index += 2
        index += 1
    return (
        [*ours, "stages.4.fc6", "stages.4.fc7"],
        [*theirs, "classifier.0", "classifier.3"],
        [*classifier, "head.body.0", "head.body.3"],
    )


class VGG16FullyConvolutional(FullyConvolutional):
    """VGG-16 up to fc7, all of it convolutional: the backbone of FCN-32s, FCN-16s and FCN-8s.

    Five maps: pool1, pool2, pool3, pool4, and fc7 after dropout, of strides 2, 4, 8, 16 and 32.

    Args:
        weights: torchvision's name for published weights (``IMAGENET1K_V1``, ``DEFAULT``), or the path of a checkpoint:
            torchvision's file, a classification checkpoint of ours with ``Classifier("vgg16")``, or an FCN's. None:
            N(0, 2 / fan-in).
        padding: Zeros around the normalised image, in pixels. With 1, convolutions are VGG's own, and a 224-pixel image
            gives one cell, which is the classifier's fc7.
        dropout: Probability of dropping an activation of fc6 and of fc7, each by itself.
        width: Factor on the convolutions' channel counts, which are rounded to multiples of 8.
        hidden: Channels of fc6 and fc7.
        frozen_stages: How many of the five stages, from the first, do not train.
        out_indices: Which maps are returned; None: all.
        mean: Subtracted from pixels in [0, 1]; None: what belongs to the weights, without weights ImageNet's.
        std: Divides pixels in [0, 1]; None: as for ``mean``.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size if ``padding`` is 100
        - output: for 375 x 500 pixels 64 x 287 x 349, 128 x 144 x 175, 256 x 72 x 88, 512 x 36 x 44, 4096 x 12 x 16

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``weights`` does not hold VGG-16 with fc6 and fc7.

    Reference:
        Simonyan, Zisserman, "Very deep convolutional networks", ICLR 2015, configuration D; Long, Shelhamer, Darrell,
        "Fully convolutional networks for semantic segmentation", CVPR 2015, and its authors' Caffe nets, whose poolings
        round up. Those take BGR pixels less their mean; here mean and scale belong to the weights (torchvision's).
    """

    def __init__(
        self,
        weights: str | None = None,
        padding: int = PADDING,
        dropout: float = 0.5,
        width: float = 1.0,
        hidden: int = 4096,
        frozen_stages: int = 0,
        out_indices: tuple[int, ...] | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        source = find_weights("vgg16", weights)
        own_mean, own_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        blocks: list[dict[str, nn.Module]] = []
        before, channels = 3, []
        for block, widths in enumerate(_VGG16, start=1):
            layers: dict[str, nn.Module] = {}
            for number, full in enumerate(widths, start=1):
                here = scale_channels(full, width)
                first = block == number == 1
                layers[f"conv{block}_{number}"] = nn.Conv2d(before, here, 3, padding=padding if first else 1)
                layers[f"relu{block}_{number}"] = nn.ReLU(inplace=True)
                before = here
            layers[f"pool{block}"] = nn.MaxPool2d(2, 2, ceil_mode=True)
            blocks.append(layers)
            channels.append(before)
        blocks[-1] |= _fully_connected(before, 7, hidden, dropout)
        ours, *others = vgg16_names()
        super().__init__(
            [named_layers(**layers) for layers in blocks],
            [*channels[:-1], hidden],
            ours,
            others,
            own_mean if mean is None else mean,
            own_std if std is None else std,
            frozen_stages,
            out_indices,
        )
        if source and not pretrained_is_skipped():
            self.load(source.state(), origin=source.origin)


_ALEXNET = {"paper": (96, 256, 384, 384, 256), "torchvision": (64, 192, 384, 256, 256)}
_ALEXNET_OURS = ["stages.0.conv1", "stages.1.conv2", *(f"stages.2.{n}" for n in ("conv3", "conv4", "conv5"))]
_ALEXNET_FEATURES = {"stages.0": (0,), "stages.1": (3,), "stages.2": (6, 8, 10)}


class AlexNetFullyConvolutional(FullyConvolutional):
    """AlexNet up to fc7, all of it convolutional: the backbone of FCN-AlexNet.

    Three maps: pool1, pool2, and fc7 after dropout, of strides 8, 16 and 32.

    Args:
        layout: ``paper``: our `AlexNet`, with groups and response normalisation. ``torchvision``: torchvision's
            ``alexnet``, another network, for which there are published weights.
        weights: The path of a checkpoint: a classification checkpoint of ours with that network, an FCN's, or, for the
            layout of torchvision, its file; there also torchvision's name (``IMAGENET1K_V1``). None: N(0, 2 / fan-in).
        padding: Zeros around the normalised image, in pixels.
        dropout: Probability of dropping an activation of fc6 and of fc7, each by itself.
        width: Factor on the convolutions' channel counts, which are rounded to multiples of 8.
        hidden: Channels of fc6 and fc7.
        frozen_stages: How many of the three stages, from the first, do not train.
        out_indices: Which maps are returned; None: all.

    Shape:
        - images: uint8 or float in [0, 1], ``[B, 3, H, W]``, of any size if ``padding`` is 100
        - output: for 375 x 500 pixels 96 x 71 x 86, 256 x 35 x 43, 4096 x 12 x 16

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: ``layout`` is unknown, or ``weights`` does not hold that network with fc6 and fc7.

    Reference:
        As for `VGG16FullyConvolutional`. The authors' FCN-AlexNet is on CaffeNet, which normalises after pooling (with
        k = 1); the layout ``paper`` has AlexNet's own order and constants, as `AlexNet` does. Its pixels are 0 to 255
        less the mean pixel, as there.
    """

    def __init__(
        self,
        layout: Literal["paper", "torchvision"] = "paper",
        weights: str | None = None,
        padding: int = PADDING,
        dropout: float = 0.5,
        width: float = 1.0,
        hidden: int = 4096,
        frozen_stages: int = 0,
        out_indices: tuple[int, ...] | None = None,
    ) -> None:
        if layout not in _ALEXNET:
            raise ValueError(f"layout={layout!r}: choose 'paper' or 'torchvision'")
        published = torchvision.models.AlexNet_Weights.__members__
        if layout == "paper" and weights is not None and weights.rpartition(".")[2] in published:
            raise ValueError(
                f"weights={weights!r} are of torchvision's AlexNet, which is another network: set layout: torchvision, "
                "or give the path of a checkpoint of striate's AlexNet"
            )
        paper = layout == "paper"
        c1, c2, c3, c4, c5 = (scale_channels(c, width) for c in _ALEXNET[layout])
        groups = 2 if paper else 1
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
        super().__init__(stages, (c1, c2, hidden), layers, others, mean, std, frozen_stages, out_indices)
        if weights is not None and not pretrained_is_skipped():
            if paper:
                self.load(weights)
            elif source := find_weights("alexnet", weights):
                self.load(source.state(), origin=source.origin)
