"""Torchvision's classifiers as backbones, split into stages, and the layers after the last feature map as heads.

There is no table of networks: the trunk consists of the modules before pooling and classifier, a stage is a run of
modules at one stride, and strides and channels are measured. `TorchvisionBackbone` and `TorchvisionHead` together
return torchvision's logits.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torchvision
from torch import Tensor, nn
from torchvision.ops import Permute

from ..ops.checks import suggest
from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ..pretrained import find_weights
from ..weights import LoadReport, load_weights, match_weights, pretrained_is_skipped
from .base import Backbone, measure
from .dilation import dilate_stages

_TRUNK_CONTAINERS = ("features", "layers", "trunk_output")
_HEAD = ("norm", "permute", "avgpool", "flatten", "dropout", "classifier", "fc", "head")
_AUXILIARY = ("aux1", "aux2", "AuxLogits")

WITHOUT_STAGES = {
    "vit_": "a plain vision transformer has a single resolution and cannot be split into stages; use 'swin_t' or "
    "'convnext_tiny', of similar size and accuracy, or 'timm/vit_base_patch16_224' for maps of equal size",
    "maxvit_": "torchvision's MaxViT attends on a fixed grid and takes 224-pixel images only; use 'swin_v2_t' or "
    "'timm/maxvit_tiny_tf_224'",
}
"""Prefix of the names of torchvision's classifiers that cannot be backbones -> the reason and an alternative."""


def torchvision_backbones() -> list[str]:
    """List the torchvision classifiers that `TorchvisionBackbone` supports."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if not name.startswith(tuple(WITHOUT_STAGES))]


def check_backbone_name(name: str) -> None:
    """Check that `TorchvisionBackbone` supports a classifier.

    Raises:
        ValueError: torchvision has no classifier of this name, or it cannot be split into stages.
    """
    for prefix, reason in WITHOUT_STAGES.items():
        if name.startswith(prefix):
            raise ValueError(f"name: {name!r} cannot be a backbone: {reason}")
    names = torchvision_backbones()
    if name not in names:
        raise ValueError(f"name: unknown torchvision backbone, got {name!r}; {suggest(name, names, n=3)}")


@dataclass(frozen=True)
class _Layer:
    """A module of a torchvision model and its dotted ``path`` there; an added module has a name instead of a path."""

    module: nn.Module
    path: str = ""
    added: str = ""

    @property
    def name(self) -> str:
        return self.added or self.path.rpartition(".")[2]

    def aliases(self, parent: str) -> dict[str, str]:
        """Map torchvision's name of each tensor to its name in striate, below ``parent``."""
        return {f"{self.path}.{key}": f"{parent}.{self.name}.{key}" for key in self.module.state_dict()}


def _build(name: str, num_classes: int = 1000) -> nn.Module:
    """Build the whole torchvision model with torchvision's random initialization."""
    # These two would warn about their initialization, and have auxiliary classifiers that are not needed here.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


def _split(model: nn.Module) -> tuple[list[_Layer], list[_Layer]]:
    """List a model's modules in execution order, up to the last feature map and after it."""
    trunk, head = [], []
    for name, child in model.named_children():
        if name in _HEAD:
            inner = child.named_children() if isinstance(child, nn.Sequential) else ()
            head += [_Layer(m, f"{name}.{n}") for n, m in inner] or [_Layer(child, name)]
        elif name in _TRUNK_CONTAINERS:
            trunk += [_Layer(m, f"{name}.{n}") for n, m in child.named_children()]
        elif name not in _AUXILIARY:
            trunk.append(_Layer(child, name))
    if isinstance(model, torchvision.models.DenseNet):
        trunk.append(_Layer(nn.ReLU(inplace=True), added="relu"))  # a function call in its forward method
    return trunk, _complete_head(head, nhwc=isinstance(model, torchvision.models.SwinTransformer))


def _complete_head(head: list[_Layer], nhwc: bool) -> list[_Layer]:
    """Add modules for the pooling and flattening in torchvision's forward methods."""
    kinds = [type(layer.module) for layer in head]
    if nhwc:
        head = [_Layer(Permute([0, 2, 3, 1]), added="to_nhwc"), *head]  # its norm is channels-last
    if nn.AdaptiveAvgPool2d not in kinds:
        head = [_Layer(nn.AdaptiveAvgPool2d(1), added="pool"), *head]
    if nn.Flatten not in kinds:
        # before the first linear layer, or at the end
        linear = next((i for i, layer in enumerate(head) if isinstance(layer.module, nn.Linear)), len(head))
        head = [*head[:linear], _Layer(nn.Flatten(1), added="flatten"), *head[linear:]]
    return head


def _group(trunk: list[_Layer], nhwc: bool) -> tuple[list[list[_Layer]], list[int], list[int]]:
    """Split the trunk into runs of layers at one stride; return the layers, channels and stride of each run."""
    stages: list[list[_Layer]] = []
    channels: list[int] = []
    strides: list[int] = []
    for layer, width, stride in zip(trunk, *measure([layer.module for layer in trunk], nhwc=nhwc), strict=True):
        if not strides or stride != strides[-1]:  # a new stage starts where the stride changes
            stages.append([])
            channels.append(width)
            strides.append(stride)
        stages[-1].append(layer)
        channels[-1] = width
    return stages, channels, strides


def _sequential(layers: Sequence[_Layer]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((layer.name, layer.module) for layer in layers))


class TorchvisionHead(nn.Module):
    """The layers of a torchvision classifier after its last feature map: pooling, norms, hidden layers, classifier.

    The hidden fully connected layers of AlexNet and VGG have the papers' names, `fc6` and `fc7`.

    Args:
        layers: The modules, in order.
        dropout: Probability of every dropout in the head; if the model has none, one is added before the classifier.
            ``None``: torchvision's probability.

    Attributes:
        body: The modules before the classifier, such as the hidden fully connected layers of VGG and AlexNet.
        classifier: The linear layer that computes the logits (for SqueezeNet a 1x1 convolution).
        after: The modules after the classifier; empty except for SqueezeNet's ReLU and pooling.
        load_report: Report on the weights loaded by `load`, or None.

    Shape:
        - input: ``[B, C, h, w]``, the backbone's last map; output: logits ``[B, K]``.
    """

    load_report: LoadReport | None = None

    def __init__(self, layers: Sequence[_Layer], dropout: float | None = None) -> None:
        super().__init__()
        # the classifier
        last = max(i for i, layer in enumerate(layers) if isinstance(layer.module, (nn.Linear, nn.Conv2d)))
        body = list(layers[:last])
        if dropout is not None:
            dropouts = [layer.module for layer in body if isinstance(layer.module, nn.Dropout)]
            for module in dropouts:
                module.p = dropout
            if not dropouts:
                body.append(_Layer(nn.Dropout(dropout), added="dropout"))
        self.body = _sequential(body)
        self.classifier = layers[last].module
        self.after = _sequential(layers[last + 1 :])
        self._aliases = {k: v for layer in body for k, v in layer.aliases("body").items()}
        self._aliases |= {f"{layers[last].path}.{key}": f"classifier.{key}" for key in self.classifier.state_dict()}

    @property
    def fc6(self) -> nn.Linear:
        """The first hidden fully connected layer of AlexNet (9216 -> 4096) or VGG (25088 -> 4096)."""
        return self._hidden(0)

    @property
    def fc7(self) -> nn.Linear:
        """The second hidden fully connected layer of AlexNet or VGG, 4096 -> 4096."""
        return self._hidden(1)

    def _hidden(self, index: int) -> nn.Linear:
        linear = [module for module in self.body.children() if isinstance(module, nn.Linear)]
        if len(linear) != 2:  # AttributeError, so that hasattr(head, "fc6") works
            raise AttributeError(f"fc{6 + index}: only the heads of AlexNet and VGG have fc6 and fc7")
        return linear[index]

    def features(self, x: Tensor) -> Tensor:
        """Return the classifier input for maps ``[B, C, h, w]``; for AlexNet and VGG ``[B, 4096]``, after fc7."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits ``[B, K]`` of the last feature map ``[B, C, h, w]``."""
        return self.after(self.classifier(self.features(x)))

    def load(self, state: dict[str, Tensor], prefixes: Sequence[str], origin: str) -> None:
        """Load the tensors that match, below one of ``prefixes``.

        A classifier for another number of classes keeps its initialization.
        """
        fitting, report = match_weights(self, state, prefixes=prefixes, aliases=self._aliases, origin=origin)
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, unexpected=())  # the unexpected tensors are the backbone's


class TorchvisionBackbone(Backbone):
    """The trunk of a torchvision classifier, split into stages.

    Args:
        name: Torchvision's name, as in `available_backbones`: ``resnet50``, ``vgg16_bn``, ``convnext_tiny``,
            ``swin_t``, ….
        weights: Torchvision's name of published weights (``DEFAULT``, ``IMAGENET1K_V1``, or in full
            ``ResNet50_Weights.IMAGENET1K_V2``), which torchvision downloads; or the path of a checkpoint of
            torchvision's model or of striate. ``None``: torchvision's initialization.
        frozen_stages: Number of leading stages to freeze. The first stage of a ResNet is the stem before its pooling.
        freeze_norm: Whether to freeze the running statistics, scale and shift of every batch normalization.
        out_indices: Indices of the stages whose outputs are returned, increasing from 0. ``None``: all.
        mean: Mean of each channel, for pixels in [0, 1]. ``None``: the value that belongs to the published weights;
            ImageNet's without weights, or for a file without torchvision's file name.
        std: Standard deviation of each channel, for pixels in [0, 1]. ``None``: as for ``mean``.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``. AlexNet, SqueezeNet and Inception v3
          have less padding than the others, and their maps are up to four cells smaller.

    Raises:
        ValueError: The network is unknown or has no stages, or its weights are unknown or do not match.
        FileNotFoundError: ``weights`` is the path of a missing file.

    Example:
        >>> backbone = TorchvisionBackbone("resnet18", out_indices=(1, 2, 3, 4))
        >>> backbone.channels, backbone.strides
        ((64, 128, 256, 512), (4, 8, 16, 32))
    """

    name: str

    def __init__(
        self,
        name: str,
        weights: str | None = None,
        frozen_stages: int = 0,
        freeze_norm: bool = False,
        out_indices: tuple[int, ...] | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
    ) -> None:
        check_backbone_name(name)
        source = find_weights(name, weights)
        default_mean, default_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        model = _build(name)
        nhwc = isinstance(model, torchvision.models.SwinTransformer)
        trunk, head = _split(model)
        groups, channels, strides = _group(trunk, nhwc)
        super().__init__(
            [_sequential(group) for group in groups],
            channels,
            strides,
            mean=default_mean if mean is None else mean,
            std=default_std if std is None else std,
            frozen_stages=frozen_stages,
            freeze_norm=freeze_norm,
            out_indices=out_indices,
            nhwc=nhwc,
        )
        self.name = name
        self._source = source  # for heads, which load their part of the weights later
        used = len(self.stages)  # stages after the last returned map have been removed
        self._stage_strides = tuple(strides[:used])
        self._aliases = {
            theirs: ours
            for index, group in enumerate(groups[:used])
            for layer in group
            for theirs, ours in layer.aliases(f"stages.{index}").items()
        }
        if source and not pretrained_is_skipped():
            removed = [layer.path for group in groups[used:] for layer in group] + [layer.path for layer in head]
            ignore = [rf"{re.escape(path)}\." for path in (*removed, *_AUXILIARY) if path]
            ignore += [rf"stages\.{index}\." for index in range(used, len(groups))]
            self.load_report = load_weights(
                self, source.state(), aliases=self._aliases, ignore=ignore, origin=source.origin
            )

    def dilate(self, output_stride: int) -> None:
        """Limit the stride of every map, in place, by replacing strides with dilation; weights do not change.

        A ResNet then returns the maps of torchvision's ``replace_stride_with_dilation`` (also with 18 or 34 layers,
        which torchvision rejects), a MobileNet v3 those of its ``dilated``. Stages keep their numbers and names.

        Args:
            output_stride: Stride of the coarsest map, in pixels per cell; one of the network's strides.

        Raises:
            ValueError: No stage has that stride, or a later stage has a pooling or unpadded convolutions (VGG,
                DenseNet).
        """
        strides = self._stage_strides
        if output_stride not in strides:
            raise ValueError(f"output_stride: must be a stride of {self.name!r}, one of {strides}, got {output_stride}")
        current = max(self.strides)  # may be dilated already
        try:
            dilate_stages(
                self.stages, strides, current, min(current, output_stride), self.name.startswith("mobilenet_v3")
            )
        except ValueError as error:
            raise ValueError(f"output_stride: {self.name!r} cannot be dilated to {output_stride}: {error}") from error
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)

    def make_head(self, num_classes: int, dropout: float | None = None) -> TorchvisionHead:
        """Build torchvision's head for this network, with the weights that the backbone was built with.

        The classifier is loaded if the weights have ``num_classes`` classes; otherwise it has torchvision's
        initialization. Hidden layers before it (VGG's, AlexNet's, MobileNet v3's) are always loaded.

        Args:
            num_classes: Number K of classes.
            dropout: Dropout probability of the head. ``None``: torchvision's.

        Raises:
            ValueError: ``out_indices`` excludes the last stage, which is the head's input.
        """
        if self.out_indices[-1] != self.num_stages - 1:
            raise ValueError(
                f"out_indices: must include stage {self.num_stages - 1}, the input of the head of {self.name!r}, got "
                f"{self.out_indices}"
            )
        head = TorchvisionHead(_split(_build(self.name, num_classes))[1], dropout)
        if self._source is not None and (checkpoint := self.full_checkpoint()) is not None:
            state, theirs, ours = checkpoint
            head.load(state, prefixes=(theirs, ours + "head."), origin=f"{self._source.origin}, the head")
        return head

    def torchvision_names(self) -> dict[str, str]:
        """Map the names of the trunk's tensors in torchvision's model to their names here."""
        return dict(self._aliases)

    def full_checkpoint(self) -> tuple[dict[str, Tensor], str, str] | None:
        """Return all tensors of the backbone's weights, to load heads and auxiliary classifiers from.

        Returns:
            The tensors by their name in the file, the common prefix of torchvision's names in the file, and the prefix
            of the model that contains the backbone in a striate checkpoint. None if there are no usable weights.
        """
        source = self._source
        # Weights without categories (VGG16's IMAGENET1K_FEATURES) have NaN in the classifier.
        if source is None or pretrained_is_skipped():
            return None
        if source.published is not None and source.published.meta["categories"] is None:
            return None
        state = source.state()
        prefix = match_weights(self, state, aliases=self._aliases)[1].prefix
        return state, prefix, prefix.removesuffix("backbone.")
