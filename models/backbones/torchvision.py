"""Torchvision's classifiers as backbones, cut where their maps shrink, and what comes after the cut as heads.

Nothing is tabulated: the trunk is whatever a model runs before its pooling and classifier, a stage is a run of its
modules at one stride, and strides and channels are measured. A classifier put together again from `TorchvisionBackbone`
and `TorchvisionHead` gives torchvision's own logits.
"""

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torchvision
from torch import Tensor, nn
from torchvision.ops import Permute

from ..ops.normalize import IMAGENET_MEAN, IMAGENET_STD
from ..pretrained import find_weights
from ..weights import LoadReport, load_weights, match_weights, pretrained_is_skipped
from .base import Backbone, measure
from .dilation import dilate_stages

_TRUNK_CONTAINERS = ("features", "layers", "trunk_output")
_HEAD = ("norm", "permute", "avgpool", "flatten", "dropout", "classifier", "fc", "head")
_AUXILIARY = ("aux1", "aux2", "AuxLogits")

UNCUT = {
    "vit_": "a plain vision transformer keeps one resolution from end to end, so there are no stages to cut it into; "
    "'swin_t' and 'convnext_tiny' are close in size and accuracy, 'timm/vit_base_patch16_224' gives equal-sized maps",
    "maxvit_": "torchvision's MaxViT attends on a grid that is fixed when it is built and takes 224-pixel images only; "
    "'swin_v2_t' and 'timm/maxvit_tiny_tf_224' are alternatives",
}
"""Start of a name -> why torchvision's classifier of that name is no backbone."""


def torchvision_backbones() -> list[str]:
    """Names of the torchvision classifiers that `TorchvisionBackbone` takes."""
    names = torchvision.models.list_models(module=torchvision.models)
    return [name for name in names if not name.startswith(tuple(UNCUT))]


def check_backbone_name(name: str) -> None:
    """See that `TorchvisionBackbone` takes the classifier of that name.

    Raises:
        ValueError: There is no such classifier, or it cannot be cut into stages.
    """
    for start, reason in UNCUT.items():
        if name.startswith(start):
            raise ValueError(f"{name!r} cannot be a backbone: {reason}")
    names = torchvision_backbones()
    if name not in names:
        near = get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"torchvision has {', '.join(names)}"
        raise ValueError(f"torchvision has no backbone {name!r}; {hint}")


@dataclass(frozen=True)
class _Layer:
    """A module of a torchvision model under the dotted ``path`` it has there; an added one has no path, but a name."""

    module: nn.Module
    path: str = ""
    added: str = ""

    @property
    def name(self) -> str:
        return self.added or self.path.rpartition(".")[2]

    def aliases(self, own: str) -> dict[str, str]:
        """Torchvision's name -> the name it has with us, for each of its tensors."""
        return {f"{self.path}.{key}": f"{own}.{self.name}.{key}" for key in self.module.state_dict()}


def _build(name: str, num_classes: int = 1000) -> nn.Module:
    """The whole torchvision model, randomly initialised by torchvision."""
    # These two would warn about their initialisation, and carry auxiliary classifiers that only a loss of theirs uses.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, weights=None, num_classes=num_classes, **extra)


def _split(model: nn.Module) -> tuple[list[_Layer], list[_Layer]]:
    """A model's modules in the order they run: up to the last feature map, and after it."""
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
        trunk.append(_Layer(nn.ReLU(inplace=True), added="relu"))  # its forward applies it as a function
    return trunk, _complete_head(head, nhwc=isinstance(model, torchvision.models.SwinTransformer))


def _complete_head(head: list[_Layer], nhwc: bool) -> list[_Layer]:
    """Adds as modules what torchvision's forward methods do between the modules: pooling and flattening."""
    kinds = [type(layer.module) for layer in head]
    if nhwc:
        head = [_Layer(Permute([0, 2, 3, 1]), added="to_nhwc"), *head]  # its norm wants channels last
    if nn.AdaptiveAvgPool2d not in kinds:
        head = [_Layer(nn.AdaptiveAvgPool2d(1), added="pool"), *head]
    if nn.Flatten not in kinds:
        linear = next((i for i, layer in enumerate(head) if isinstance(layer.module, nn.Linear)), len(head))
        head = [*head[:linear], _Layer(nn.Flatten(1), added="flatten"), *head[linear:]]
    return head


def _group(trunk: list[_Layer], nhwc: bool) -> tuple[list[list[_Layer]], list[int], list[int]]:
    """Cuts the trunk into runs of layers at one stride; gives each run's layers, channels and stride."""
    stages: list[list[_Layer]] = []
    channels: list[int] = []
    strides: list[int] = []
    for layer, width, stride in zip(trunk, *measure([layer.module for layer in trunk], nhwc=nhwc), strict=True):
        if not strides or stride != strides[-1]:
            stages.append([])
            channels.append(width)
            strides.append(stride)
        stages[-1].append(layer)
        channels[-1] = width
    return stages, channels, strides


def _sequential(layers: Sequence[_Layer]) -> nn.Sequential:
    return nn.Sequential(OrderedDict((layer.name, layer.module) for layer in layers))


class TorchvisionHead(nn.Module):
    """What a torchvision classifier does after its last feature map: pooling, norms, hidden layers, classifier.

    Args:
        layers: The modules, in order.
        dropout: Probability that a feature is zeroed in training, for every dropout of the head; one is put before the
            classifier where the model has none. ``None``: as torchvision has it.

    Attributes:
        body: All before the classifier: VGG's and AlexNet's fully connected layers, for example.
        classifier: The linear layer that gives the logits (for SqueezeNet a 1x1 convolution).
        load_report: What `load` took over; None where it was not called.
        after: What follows it: nothing, but SqueezeNet's ReLU and pooling.

    Shape:
        - input: ``[B, C, h, w]``, the backbone's last map; output: logits ``[B, K]``.

    The hidden fully connected layers of AlexNet and VGG are reached by the papers' names, `fc6` and `fc7`.
    """

    load_report: LoadReport | None = None

    def __init__(self, layers: Sequence[_Layer], dropout: float | None = None) -> None:
        super().__init__()
        last = max(i for i, layer in enumerate(layers) if isinstance(layer.module, (nn.Linear, nn.Conv2d)))
        before = list(layers[:last])
        if dropout is not None:
            dropouts = [layer.module for layer in before if isinstance(layer.module, nn.Dropout)]
            for module in dropouts:
                module.p = dropout
            if not dropouts:
                before.append(_Layer(nn.Dropout(dropout), added="dropout"))
        self.body = _sequential(before)
        self.classifier = layers[last].module
        self.after = _sequential(layers[last + 1 :])
        self._aliases = {k: v for layer in before for k, v in layer.aliases("body").items()}
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
        if len(linear) != 2:  # AttributeError, so that hasattr(head, "fc6") tells which heads have one
            raise AttributeError(f"fc{6 + index}: only the heads of AlexNet and VGG have fc6 and fc7")
        return linear[index]

    def features(self, x: Tensor) -> Tensor:
        """What the classifier sees of the last feature map; for AlexNet and VGG fc7 after its ReLU, ``[B, 4096]``."""
        return self.body(x)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the logits of the last feature map."""
        return self.after(self.classifier(self.features(x)))

    def load(self, state: dict[str, Tensor], prefixes: Sequence[str], origin: str) -> None:
        """Takes over what fits, under one of ``prefixes``; a classifier for other classes keeps its initialisation."""
        fitting, report = match_weights(self, state, prefixes=prefixes, aliases=self._aliases, origin=origin)
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, unexpected=())  # the trunk, which the backbone took


class TorchvisionBackbone(Backbone):
    """Any torchvision classifier that has stages, without its classifier.

    Args:
        name: As in `available_backbones`: ``resnet50``, ``vgg16_bn``, ``convnext_tiny``, ``swin_t``, ….
        weights: Torchvision's name for published weights (``DEFAULT``, ``IMAGENET1K_V1``, or in full
            ``ResNet50_Weights.IMAGENET1K_V2``), which torchvision downloads; or the path of a checkpoint, of
            torchvision's own model or of ours. ``None``: torchvision's initialisation.
        frozen_stages: How many of the first stages are frozen. In a ResNet the first is the stem, before its pooling.
        freeze_norm: Whether every batch normalisation keeps its running statistics and its scale and shift.
        out_indices: Which stages' outputs are returned, increasing from 0. ``None``: all.
        mean: Mean of each channel, of values in [0, 1]. ``None``: the weights' own; ImageNet's without weights, or for
            a file that is not named as torchvision publishes it.
        std: Standard deviation of each channel, of values in [0, 1]. ``None``: as for ``mean``.

    Shape:
        - images: ``[B, 3, H, W]``, ``uint8`` in [0, 255] or floating point in [0, 1].
        - output: list of ``[B, channels[i], H / strides[i], W / strides[i]]``. AlexNet, SqueezeNet and Inception v3 pad
          less than the others, and their maps are up to four cells smaller.

    Raises:
        ValueError: There is no such network, it has no stages, or its weights are unknown or do not fit.
        FileNotFoundError: ``weights`` is the path of a file that does not exist.

    Example:
        >>> backbone = TorchvisionBackbone("resnet18", out_indices=(1, 2, 3, 4))
        >>> backbone.channels, backbone.strides
        ((64, 128, 256, 512), (4, 8, 16, 32))
    """

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
        own_mean, own_std = source.statistics() if source else (IMAGENET_MEAN, IMAGENET_STD)
        model = _build(name)
        nhwc = isinstance(model, torchvision.models.SwinTransformer)
        trunk, head = _split(model)
        groups, channels, strides = _group(trunk, nhwc)
        super().__init__(
            [_sequential(group) for group in groups],
            channels,
            strides,
            mean=own_mean if mean is None else mean,
            std=own_std if std is None else std,
            frozen_stages=frozen_stages,
            freeze_norm=freeze_norm,
            out_indices=out_indices,
            nhwc=nhwc,
        )
        self.name = name
        self._source = source
        kept = len(self.stages)
        self._stage_strides = tuple(strides[:kept])
        self._aliases = {
            theirs: ours
            for index, group in enumerate(groups[:kept])
            for layer in group
            for theirs, ours in layer.aliases(f"stages.{index}").items()
        }
        if source and not pretrained_is_skipped():
            others = [layer.path for group in groups[kept:] for layer in group] + [layer.path for layer in head]
            patterns = [rf"{re.escape(path)}\." for path in (*others, *_AUXILIARY) if path]
            patterns += [rf"stages\.{index}\." for index in range(kept, len(groups))]
            self.load_report = load_weights(
                self, source.state(), aliases=self._aliases, ignore=patterns, origin=source.origin
            )

    def dilate(self, output_stride: int) -> None:
        """Limits the stride of every map, in place: further strides become dilation, and weights stay as they are.

        A ResNet then gives the maps of torchvision's ``replace_stride_with_dilation`` (also with 18 or 34 layers, which
        torchvision refuses), MobileNet v3 those of its ``dilated``. Stages keep their numbers and their names.

        Args:
            output_stride: Pixels of the image per cell of the coarsest map; one of the network's strides.

        Raises:
            ValueError: No stage has that stride, or a later one shrinks its map by something else than padded
                convolutions, such as a pooling (VGG, DenseNet).
        """
        strides = self._stage_strides
        if output_stride not in strides:
            raise ValueError(f"output_stride={output_stride}: {self.name!r} has the strides {strides}; choose one")
        current = max(self.strides)
        try:
            dilate_stages(
                self.stages, strides, current, min(current, output_stride), self.name.startswith("mobilenet_v3")
            )
        except ValueError as error:
            raise ValueError(f"{self.name!r} cannot be dilated to a stride of {output_stride}: {error}") from error
        self.strides = tuple(min(stride, output_stride) for stride in self.strides)

    def make_head(self, num_classes: int, dropout: float | None = None) -> TorchvisionHead:
        """Builds torchvision's own head for this network, with the weights that the backbone was built with.

        The classifier itself is taken over where the weights are for as many classes, and else initialised as
        torchvision does; hidden layers before it (VGG's, AlexNet's, MobileNet v3's) are always taken over.

        Args:
            num_classes: Classes K to tell apart.
            dropout: Probability that a feature is zeroed in training. ``None``: as torchvision has it.

        Raises:
            ValueError: ``out_indices`` leaves out the last stage, which the head takes.
        """
        if self.out_indices[-1] != self.num_stages - 1:
            raise ValueError(
                f"the head of {self.name!r} takes the last of its {self.num_stages} stages, number "
                f"{self.num_stages - 1}, which out_indices={self.out_indices} leaves out"
            )
        head = TorchvisionHead(_split(_build(self.name, num_classes))[1], dropout)
        if self._source is not None and (found := self.weights_beside()) is not None:
            state, theirs, ours = found
            head.load(state, prefixes=(theirs, ours + "head."), origin=f"{self._source.origin}, the head")
        return head

    def torchvision_names(self) -> dict[str, str]:
        """Names of the trunk's tensors in torchvision's model -> their names here."""
        return dict(self._aliases)

    def weights_beside(self) -> tuple[dict[str, Tensor], str, str] | None:
        """All weights that the backbone was built with, for what lies beside the trunk: heads, auxiliary classifiers.

        Returns:
            Names -> tensors, as in the file; the prefix that torchvision's own names have there throughout; the prefix
            of ours, where the backbone is one part beside others. None where there are no usable weights.
        """
        source = self._source
        # Weights without categories (VGG16's IMAGENET1K_FEATURES) hold no usable classifier: NaN in its place.
        if source is None or pretrained_is_skipped():
            return None
        if source.published is not None and source.published.meta["categories"] is None:
            return None
        state = source.state()
        prefix = match_weights(self, state, aliases=self._aliases)[1].prefix
        return state, prefix, prefix.removesuffix("backbone.")
