"""torchvision's own detectors behind the interface of `Detector`."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any, Self

import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d

from ..backbones import TorchvisionBackbone
from ..ops.boxes import at_least_float32
from ..weights import LoadReport, match_weights, pretrained_is_skipped
from .detector import Detections
from .detector_weights import coco_ids, norm_is_exact, published_weights, read_weights, upgraded_name
from .network_detector import NetworkDetector, torchvision_mode
from .resize import ImageBatch, ResizeAndPad

_SCORES = ("cls_score", "bbox_pred", "cls_logits", "module_list")
"""Parts of the names of layers whose size depends on the number of classes."""

_BACKBONES = ("resnet50", "mobilenet_v3_large", "vgg16")

_KINDS = {"fasterrcnn": FasterRCNN, "retinanet": RetinaNet, "fcos": FCOS, "ssd": SSD}
"""Start of torchvision's name of a network -> its class."""


class TorchvisionDetector(NetworkDetector):
    """One of torchvision's detectors, with its own resizing, for this package's images and targets.

    Args:
        name: torchvision's name of the network: ``fasterrcnn_resnet50_fpn``, ``fasterrcnn_resnet50_fpn_v2``,
            ``fasterrcnn_mobilenet_v3_large_fpn``, ``fasterrcnn_mobilenet_v3_large_320_fpn``,
            ``retinanet_resnet50_fpn``, ``retinanet_resnet50_fpn_v2``, ``fcos_resnet50_fpn``, ``ssd300_vgg16``,
            ``ssdlite320_mobilenet_v3_large``.
        num_classes: Number of classes K, without background. The published weights have COCO's ids from 1 to 90, ten of
            which are not in use. They detect without training with 80 classes (the ids in use, in their order) or 90
            (one class per id). With another number, the layers that predict classes keep their initialization.
        weights: torchvision's name for published weights (``DEFAULT``, ``COCO_V1``), which torchvision downloads, or
            the path of a checkpoint of torchvision's model or of ours. None: torchvision's initialization.
        backbone_weights: A classifier's weights for the backbone alone, if there are no ``weights``: the name of
            published weights, or the path of a checkpoint (see `TorchvisionBackbone`).
        trainable_layers: Number of the backbone's layers, counted from the last, that are trained if weights of either
            kind are given; torchvision's ``trainable_backbone_layers``. None: torchvision's default.
        options: Further arguments of torchvision's builder: ``min_size``, ``box_score_thresh``, ``score_thresh``, ….

    Attributes:
        network: torchvision's model.
        backbone: The backbone; SSD's includes the extra layers. A task can give it its own learning rate.
        labels: The network's label of each class.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such network, weights are unknown or do not fit, both kinds of weights are given,
            ``trainable_layers`` is given without weights, or the network does not have an option.
        FileNotFoundError: A path of weights does not exist.

    Reference:
        Boxes, scores and losses equal torchvision's; only labels are counted from 0. Label 0 of torchvision's two-stage
        networks and SSD is the background. RetinaNet and FCOS have no background, but the published ones leave label 0
        unused. Detections of label 0 or of an id that is not in use are dropped.

    Example:
        >>> detector = TorchvisionDetector("ssdlite320_mobilenet_v3_large", num_classes=5).eval()
        >>> len(detector([torch.zeros(3, 50, 75, dtype=torch.uint8)]))
        1
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        weights: str | None = None,
        backbone_weights: str | None = None,
        trainable_layers: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(num_classes, ResizeAndPad())
        _check(name, weights, backbone_weights, trainable_layers)
        _check_options(name, options or {})
        published = None if weights is None else published_weights(name, weights)
        labels, outputs = _labels(name, num_classes, published)
        network = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=outputs, **(options or {})
        )
        if weights is not None or backbone_weights is not None:
            if not name.startswith("ssd") and not name.endswith("_v2"):
                network = _freeze_norms(network, eps=0.0 if norm_is_exact(name, weights) else None)
            _freeze_layers(name, network, trainable_layers)
        self._adopt(network, labels)
        self.name = name
        if backbone_weights is not None:
            self.load_report = _load_backbone(name, network, backbone_weights)
        if weights is not None and not pretrained_is_skipped():
            self.load_report = _load(name, network, weights)

    @classmethod
    def wrap(cls, model: nn.Module, num_classes: int, labels: Sequence[int] | None = None) -> Self:
        """Wrap a model that is already built.

        Args:
            model: torchvision's Faster R-CNN, RetinaNet, FCOS or SSD, or a subclass. It is not copied.
            num_classes: Number of classes K, without background.
            labels: The model's label of each class. None: 1 … K if label 0 is the background (Faster R-CNN, SSD), else
                0 … K-1.

        Raises:
            TypeError: The model is of another kind.
            ValueError: There are not K different labels, or one is negative.
        """
        if not isinstance(model, (GeneralizedRCNN, RetinaNet, FCOS, SSD)):
            raise TypeError(
                "model: must be one of torchvision's detectors (FasterRCNN, RetinaNet, FCOS, SSD), got "
                f"{type(model).__name__}; derive a detector of another kind from striate.models.Detector"
            )
        if labels is None:
            first = 0 if isinstance(model, (RetinaNet, FCOS)) else 1
            labels = range(first, first + num_classes)
        if len(labels) != num_classes or len(set(labels)) != num_classes or min(labels, default=0) < 0:
            raise ValueError(
                f"labels: must be {num_classes} different labels of the model, 0 or more, got {list(labels)}"
            )
        detector = cls.__new__(cls)
        NetworkDetector.__init__(detector, num_classes, ResizeAndPad())
        detector._adopt(model, labels)
        return detector

    _to_network: Tensor
    _to_class: Tensor

    def _adopt(self, network: Any, labels: Sequence[int]) -> None:
        self.network = network
        _keep_boxes_exact(network)
        self.labels = tuple(labels)
        to_class = torch.full((max(labels) + 2,), -1)  # the last entry is for all higher labels
        to_class[list(labels)] = torch.arange(len(labels))
        self.register_buffer("_to_network", torch.tensor(list(labels)), persistent=False)
        self.register_buffer("_to_class", to_class, persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """The backbone, without the feature pyramid."""
        return getattr(self.network.backbone, "body", self.network.backbone)

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        with torchvision_mode(self.network, training=False):
            outputs = self.network(self._images(batch))
        detections: list[Detections] = []
        for output in outputs:
            labels = self._to_class[output["labels"].clamp(max=len(self._to_class) - 1)]  # [M]
            known = labels >= 0
            detections.append(
                {"boxes": output["boxes"][known], "scores": output["scores"][known], "labels": labels[known]}
            )
        return detections

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute torchvision's losses; see `Detector.compute_losses`."""
        network_targets = [
            {"boxes": target["boxes"].float(), "labels": self._to_network[target["labels"]]} for target in targets
        ]
        with torchvision_mode(self.network, training=True):
            self.network.transform.training = self.training  # draws among several sizes only in training
            losses = self.network(self._images(batch), network_targets)
        return {name if name.startswith("loss_") else f"loss_{name}": loss for name, loss in losses.items()}

    def _images(self, batch: ImageBatch) -> list[Tensor]:
        """The images of a batch without padding, ``[3, H_i, W_i]``, float32 in [0, 1].

        Raises:
            ValueError: An image is so elongated that torchvision would resize a side to 0 pixels.
        """
        resize = self.network.transform
        longest = getattr(resize, "max_size", None)
        for index, (height, width) in enumerate(batch.sizes):
            if (
                longest
                and not getattr(resize, "fixed_size", None)
                and min(height, width) * longest < max(height, width)
            ):
                raise ValueError(
                    f"images[{index}]: must keep 1 pixel per side when the longer side is resized to {longest} "
                    f"pixels, got {width} x {height} pixels; cut the image into parts, or raise max_size in options"
                )
        pixels = batch.pixels.float() if batch.pixels.is_floating_point() else batch.pixels / 255
        return [image[:, :height, :width] for image, (height, width) in zip(pixels, batch.sizes, strict=True)]


def _keep_boxes_exact(network: Any) -> None:
    """Make a network compute anchors, boxes and scores in float32 under autocast too.

    bfloat16 represents pixels exactly only up to 256; a small object further to the right would lose its area.
    """
    first, heads = network, [getattr(network, "head", None)]
    if hasattr(network, "roi_heads"):
        first, heads = network.rpn, [network.rpn.head, network.roi_heads.box_predictor]
    for head in heads:
        if head is not None:
            head.register_forward_hook(_float_outputs)
    # anchors get the dtype of the maps [B, C, h, w]; apart from that, only their sizes matter
    first.anchor_generator.register_forward_pre_hook(
        lambda module, inputs: (inputs[0], [level[:, :1].float() for level in inputs[1]])
    )


def _float_outputs(module: nn.Module, inputs: Any, outputs: Any) -> Any:
    """Forward hook that converts all tensors of nested outputs to float32 or wider."""
    if isinstance(outputs, Tensor):
        return at_least_float32(outputs)
    if isinstance(outputs, Mapping):
        return {name: _float_outputs(module, inputs, value) for name, value in outputs.items()}
    return type(outputs)(_float_outputs(module, inputs, value) for value in outputs)


def _check(name: str, weights: str | None, backbone_weights: str | None, trainable_layers: int | None) -> None:
    every = torchvision.models.list_models(module=torchvision.models.detection)
    names = [known for known in every if not known.startswith(("maskrcnn", "keypointrcnn"))]
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise ValueError(f"name: must be a torchvision box detector, got {name!r}; {hint}")
    if weights is not None and backbone_weights is not None:
        raise ValueError(
            f"backbone_weights: has no effect together with weights, which include the backbone's, got "
            f"{backbone_weights!r} and {weights!r}; remove one of them"
        )
    if name.startswith("ssdlite") and (backbone_weights is not None or trainable_layers is not None):
        raise ValueError(
            f"backbone_weights: {name!r} has a backbone that is narrower at its end than the classifier's and is "
            f"trained whole, got {backbone_weights!r} and trainable_layers={trainable_layers}; remove them, or use SSD "
            "with another backbone"
        )
    if trainable_layers is not None and weights is None and backbone_weights is None:
        raise ValueError(
            f"trainable_layers: freezes layers, which needs weights, got {trainable_layers} without any; add weights "
            "or backbone_weights, or remove it"
        )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Require options that torchvision's network has. Its builders silently ignore all others.

    Raises:
        ValueError: The network does not have an option, or it is an argument of `TorchvisionDetector`.
    """
    kind = next(kind for start, kind in _KINDS.items() if name.startswith(start))
    known = [
        key
        for part in (kind, GeneralizedRCNNTransform)
        for key, parameter in inspect.signature(part).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and key not in ("backbone", "num_classes")
    ]
    for key in options:
        if key not in known:
            near = get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(dict.fromkeys(known))}"
            raise ValueError(f"options: must be arguments of torchvision's {kind.__name__}, got {key!r}; {hint}")


def _labels(name: str, num_classes: int, published: Any) -> tuple[list[int], int]:
    """The network's label of each class, and its number of outputs."""
    if published is not None:
        categories = published.meta["categories"]
        if num_classes == len(coco_ids(categories)):
            return coco_ids(categories), len(categories)
        if num_classes == len(categories) - 1:
            return list(range(1, len(categories))), len(categories)
    first = 0 if name.startswith(("retinanet", "fcos")) else 1
    return list(range(first, first + num_classes)), first + num_classes


def _freeze_norms(module: nn.Module, eps: float | None) -> nn.Module:
    """Replace batch normalization by torchvision's frozen one.

    Args:
        module: Changed in place, unless it is such a layer itself.
        eps: Epsilon of the new layers. None: that of the old ones.
    """
    if isinstance(module, nn.BatchNorm2d):
        return FrozenBatchNorm2d(module.num_features, eps=module.eps if eps is None else eps)
    for name, child in module.named_children():
        setattr(module, name, _freeze_norms(child, eps))
    return module


def _freeze_layers(name: str, network: Any, trainable: int | None) -> None:
    """Freeze the first layers of a backbone, in torchvision's count of layers.

    Raises:
        ValueError: There are fewer layers than ``trainable``.
    """
    if name.startswith("ssdlite"):
        return
    layers, starts = _backbone_layers(network.backbone)
    default = 4 if name.startswith("ssd300") else 3
    count = default if trainable is None else trainable
    if not 0 <= count <= len(starts):
        raise ValueError(f"trainable_layers: must be 0 to {len(starts)} for {name!r}, got {count}")
    for layer in layers[: len(layers) if count == 0 else starts[len(starts) - count]]:
        layer.requires_grad_(False)


def _backbone_layers(backbone: Any) -> tuple[list[nn.Module], list[int]]:
    """The modules of a backbone in order, and the indices at which torchvision's layers begin."""
    if hasattr(backbone, "extra"):  # SSD's VGG-16
        layers = [*backbone.features, *list(backbone.extra[0])[:-1]]
        return layers, [0] + [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    layers = list(backbone.body.children())
    if hasattr(backbone.body, "layer1"):
        # conv1, bn1, relu, maxpool, layer1 …; bn1 belongs to conv1 only if all layers are trained
        return layers, [0, 4, 5, 6, 7]
    strided = [i for i, layer in enumerate(layers[1:], 1) if _halves(layer)]
    return layers, [0, *strided, len(layers) - 1]


def _halves(block: nn.Module) -> bool:
    """Whether a block of MobileNetV3 halves its map ``[B, C, H, W]``."""
    return any(isinstance(layer, nn.Conv2d) and layer.stride[0] > 1 for layer in block.modules())


def _load_backbone(name: str, network: Any, weights: str) -> LoadReport | None:
    """Load a backbone through `TorchvisionBackbone`, which finds the weights; its tensors have the same order."""
    try:
        backbone = TorchvisionBackbone(next(part for part in _BACKBONES if part in name), weights)
    except ConnectionError as error:  # it names the backbone's argument
        raise ConnectionError(str(error).replace("weights: ", "backbone_weights: ")) from error
    if pretrained_is_skipped():
        return None
    state = backbone.state_dict()
    values = [state[ours] for key, ours in backbone.torchvision_names().items() if not key.endswith("_tracked")]
    module = network.backbone if hasattr(network.backbone, "extra") else network.backbone.body
    names = [key for key in module.state_dict() if not key.endswith(("_tracked", "scale_weight"))][: len(values)]
    module.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    return backbone.load_report


def _load(name: str, network: nn.Module, weights: str) -> LoadReport:
    state = {upgraded_name(key, name): value for key, value in read_weights(name, weights).items()}
    fitting, report = match_weights(network, state)
    unfit = [key for key in report.mismatched if not any(part in key for part in _SCORES) or "rpn" in key]
    unexpected = [key for key in report.unexpected if not key.endswith("num_batches_tracked")]
    if unfit or report.missing or unexpected or not fitting:
        raise ValueError(f"weights: {weights} does not match torchvision's {name!r}:\n{report.describe()}")
    network.load_state_dict(fitting, strict=False)
    return replace(report, origin=f"weights {weights}")
