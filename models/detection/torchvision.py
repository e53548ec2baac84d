"""torchvision's detectors, as they are, behind this package's interface."""

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
from .checkpoint_mapping import coco_ids, norm_is_exact, published_weights, read_weights, upgraded_name
from .detector import Detections
from .pyramid import NetworkDetector, torchvision_mode
from .resize import ImageBatch, ResizeAndPad

_SCORES = ("cls_score", "bbox_pred", "cls_logits", "module_list")
"""Parts of the names of the layers whose size follows from the number of classes."""

_TRUNKS = ("resnet50", "mobilenet_v3_large", "vgg16")


_KINDS = {"fasterrcnn": FasterRCNN, "retinanet": RetinaNet, "fcos": FCOS, "ssd": SSD}
"""How torchvision's names begin, and its network."""


class TorchvisionDetector(NetworkDetector):
    """A detector of torchvision's, with its own resizing, for images and targets as they are everywhere here.

    Args:
        name: torchvision's: ``fasterrcnn_resnet50_fpn``, ``fasterrcnn_resnet50_fpn_v2``,
            ``fasterrcnn_mobilenet_v3_large_fpn``, ``fasterrcnn_mobilenet_v3_large_320_fpn``,
            ``retinanet_resnet50_fpn``, ``retinanet_resnet50_fpn_v2``, ``fcos_resnet50_fpn``, ``ssd300_vgg16``,
            ``ssdlite320_mobilenet_v3_large``.
        num_classes: K, without background. The published weights know COCO's ids from 1 to 90, of which ten are not in
            use: with 80 classes, those in use in the order of their ids, or 90, a class an id, they detect as they are.
            For other classes, layers that score them keep their initialisation.
        weights: torchvision's name for published weights (``DEFAULT``, ``COCO_V1``), which torchvision downloads, or
            the path of a checkpoint, of torchvision's own model or of ours. ``None``: torchvision's initialisation.
        backbone_weights: Of the trunk alone, a classifier's, where there are no ``weights``: the name of published
            ones, or the path of a checkpoint (see `TorchvisionBackbone`).
        trainable_layers: How many of the trunk's layers, counted from the last, are trained where there are weights of
            either kind; torchvision's ``trainable_backbone_layers``. ``None``: torchvision's choice.
        options: What else torchvision's builder takes: ``min_size``, ``box_score_thresh``, ``score_thresh``, ….

    Attributes:
        network: torchvision's model.
        backbone: Its trunk, of SSD with the layers added to it; a task may give it a learning rate of its own.
        labels: The network's own label of each class.

    Shape:
        - images: B times ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such network, weights are unknown or do not fit, both kinds of weights are given,
            ``trainable_layers`` without any, or an option that the network does not have.
        FileNotFoundError: The path of a file that does not exist.

    Reference:
        Boxes, scores and losses are those of torchvision's model; only labels are counted from 0. The label 0 of
        torchvision's two-stage networks and SSD is the background; RetinaNet and FCOS have none, but the published
        ones leave their label 0 unused: should one detect it, or an id that is not in use, that detection is dropped.

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
            self.load_report = _load_trunk(name, network, backbone_weights)
        if weights is not None and not pretrained_is_skipped():
            self.load_report = _load(name, network, weights)

    @classmethod
    def wrap(cls, model: nn.Module, num_classes: int, labels: Sequence[int] | None = None) -> Self:
        """A detector of a model that is there already.

        Args:
            model: torchvision's Faster R-CNN, RetinaNet, FCOS or SSD, or a subclass; it is kept, not copied.
            num_classes: K, without background.
            labels: The model's own label of each class. ``None``: 1 … K where label 0 is the background (Faster R-CNN,
                SSD), else 0 … K-1.

        Raises:
            TypeError: It is another kind of model.
            ValueError: There are not K labels, or one occurs twice.
        """
        if not isinstance(model, (GeneralizedRCNN, RetinaNet, FCOS, SSD)):
            raise TypeError(
                f"{type(model).__name__} is none of torchvision's detectors (FasterRCNN, RetinaNet, FCOS, SSD); a "
                "detector of another kind derives from striate.models.Detector"
            )
        if labels is None:
            first = 0 if isinstance(model, (RetinaNet, FCOS)) else 1
            labels = range(first, first + num_classes)
        if len(labels) != num_classes or len(set(labels)) != num_classes or min(labels, default=0) < 0:
            raise ValueError(
                f"labels: {list(labels)}; give the model's label of each of the {num_classes} classes, 0 or more, once"
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
        to_class = torch.full((max(labels) + 2,), -1)  # the last stands for all labels beyond
        to_class[list(labels)] = torch.arange(len(labels))
        self.register_buffer("_to_network", torch.tensor(list(labels)), persistent=False)
        self.register_buffer("_to_class", to_class, persistent=False)

    @property
    def backbone(self) -> nn.Module:
        """The trunk of the network."""
        return getattr(self.network.backbone, "body", self.network.backbone)

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        with torchvision_mode(self.network, training=False):
            found = self.network(self._images(batch))
        return [self._with_our_labels(one) for one in found]

    def _with_our_labels(self, found: dict[str, Tensor]) -> Detections:
        labels = self._to_class[found["labels"].clamp(max=len(self._to_class) - 1)]
        kept = labels >= 0
        return {"boxes": found["boxes"][kept], "scores": found["scores"][kept], "labels": labels[kept]}

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See `Detector.compute_losses`."""
        theirs = [
            {"boxes": target["boxes"].float(), "labels": self._to_network[target["labels"]]} for target in targets
        ]
        with torchvision_mode(self.network, training=True):
            self.network.transform.training = self.training  # draws among several sizes in training alone
            losses = self.network(self._images(batch), theirs)
        return {name if name.startswith("loss_") else f"loss_{name}": loss for name, loss in losses.items()}

    def _images(self, batch: ImageBatch) -> list[Tensor]:
        """The images of a batch without their padding, float32 in [0, 1].

        Raises:
            ValueError: an image so long and narrow that torchvision's resizing would leave nothing of it.
        """
        resize = self.network.transform
        longest = getattr(resize, "max_size", None)
        for place, (height, width) in enumerate(batch.sizes):
            if (
                longest
                and not getattr(resize, "fixed_size", None)
                and min(height, width) * longest < max(height, width)
            ):
                raise ValueError(
                    f"image {place} of the batch ({width} x {height} pixels): nothing is left of its shorter side when "
                    f"torchvision makes the longer one {longest} pixels; cut it into parts, or give options: max_size"
                )
        pixels = batch.pixels.float() if batch.pixels.is_floating_point() else batch.pixels / 255
        return [image[:, :height, :width] for image, (height, width) in zip(pixels, batch.sizes, strict=True)]


def _keep_boxes_exact(network: Any) -> None:
    """Has a network of torchvision's compute anchors, boxes and scores in float32 under autocast too.

    bfloat16 tells pixels apart up to 256 only, and a small object further right would lose its area.
    """
    first, heads = network, [getattr(network, "head", None)]
    if hasattr(network, "roi_heads"):
        first, heads = network.rpn, [network.rpn.head, network.roi_heads.box_predictor]
    for head in heads:
        if head is not None:
            head.register_forward_hook(_float_outputs)
    first.anchor_generator.register_forward_pre_hook(_float_maps)


def _float_outputs(module: nn.Module, given: Any, outputs: Any) -> Any:
    """The same outputs, in whatever they are kept, in float32 at least."""
    if isinstance(outputs, Tensor):
        return at_least_float32(outputs)
    if isinstance(outputs, Mapping):
        return {name: _float_outputs(module, given, value) for name, value in outputs.items()}
    return type(outputs)(_float_outputs(module, given, value) for value in outputs)


def _float_maps(module: nn.Module, given: Any) -> Any:
    """For anchors, which take their type from the maps, and else their sizes alone."""
    images, maps = given
    return images, [level[:, :1].float() for level in maps]


def _check(name: str, weights: str | None, backbone_weights: str | None, trainable_layers: int | None) -> None:
    every = torchvision.models.list_models(module=torchvision.models.detection)
    names = [known for known in every if not known.startswith(("maskrcnn", "keypointrcnn"))]
    if name not in names:
        near = get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names)}"
        raise ValueError(f"torchvision has no detector {name!r} of boxes alone; {hint}")
    if weights is not None and backbone_weights is not None:
        raise ValueError(
            f"backbone_weights={backbone_weights!r} would have no effect beside weights={weights!r}, which hold the "
            "backbone's too; leave one of them out"
        )
    if name.startswith("ssdlite") and (backbone_weights is not None or trainable_layers is not None):
        raise ValueError(
            f"{name!r} has a trunk of its own, narrower at its end than the classifier's, and all of it is trained: "
            "leave backbone_weights and trainable_layers out, or take SSD over another backbone"
        )
    if trainable_layers is not None and weights is None and backbone_weights is None:
        raise ValueError(
            f"trainable_layers={trainable_layers} freezes layers that have learned something, but there are no "
            "weights: give weights or backbone_weights, or leave it out"
        )


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """See that torchvision's network knows these arguments; its builders take any, and pass over what they do not know.

    Raises:
        ValueError: It knows one of them not, or it is one of our own.
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
            raise ValueError(f"options: torchvision's {kind.__name__} has no argument {key!r}; {hint}")


def _labels(name: str, num_classes: int, published: Any) -> tuple[list[int], int]:
    """The network's label of each class, and the number of its outputs."""
    if published is not None:
        categories = published.meta["categories"]
        if num_classes == len(coco_ids(categories)):
            return coco_ids(categories), len(categories)
        if num_classes == len(categories) - 1:
            return list(range(1, len(categories))), len(categories)
    first = 0 if name.startswith(("retinanet", "fcos")) else 1
    return list(range(first, first + num_classes)), first + num_classes


def _freeze_norms(module: nn.Module, eps: float | None) -> nn.Module:
    """The module with torchvision's frozen batch normalisation in place of the usual, wherever there is one.

    Args:
        module: Is changed, unless it is such a layer itself.
        eps: Of the new layers. None: as the old have it.
    """
    if isinstance(module, nn.BatchNorm2d):
        return FrozenBatchNorm2d(module.num_features, eps=module.eps if eps is None else eps)
    for name, child in module.named_children():
        setattr(module, name, _freeze_norms(child, eps))
    return module


def _freeze_layers(name: str, network: Any, trainable: int | None) -> None:
    """Keeps the first layers of a trunk from training, as torchvision counts them.

    Raises:
        ValueError: There are not as many.
    """
    if name.startswith("ssdlite"):
        return
    layers, starts = _trunk_layers(network.backbone)
    default = 4 if name.startswith("ssd300") else 3
    count = default if trainable is None else trainable
    if not 0 <= count <= len(starts):
        raise ValueError(f"trainable_layers: {count}; the trunk of {name!r} counts {len(starts)}, give 0 to that")
    for layer in layers[: len(layers) if count == 0 else starts[len(starts) - count]]:
        layer.requires_grad_(False)


def _trunk_layers(backbone: Any) -> tuple[list[nn.Module], list[int]]:
    """The modules of a trunk in their order, and at which of them each layer begins that torchvision counts."""
    if hasattr(backbone, "extra"):  # SSD's VGG-16
        layers = [*backbone.features, *list(backbone.extra[0])[:-1]]
        return layers, [0] + [i for i, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
    layers = list(backbone.body.children())
    if hasattr(backbone.body, "layer1"):
        # conv1, bn1, relu, maxpool, layer1 …; bn1 counts with conv1 only where all are trained
        return layers, [0, 4, 5, 6, 7]
    strided = [i for i, layer in enumerate(layers[1:], 1) if _halves(layer)]
    return layers, [0, *strided, len(layers) - 1]


def _halves(block: nn.Module) -> bool:
    """Whether a block of MobileNetV3 halves its map ``[B, C, H, W]``."""
    return any(isinstance(layer, nn.Conv2d) and layer.stride[0] > 1 for layer in block.modules())


def _load_trunk(name: str, network: Any, weights: str) -> LoadReport | None:
    """Through the backbone of that name, which knows where weights come from; the tensors are in the same order."""
    try:
        trunk = TorchvisionBackbone(next(trunk for trunk in _TRUNKS if trunk in name), weights)
    except ConnectionError as error:  # names the backbone's own argument
        raise ConnectionError(str(error).replace("weights: ", "backbone_weights: ")) from error
    if pretrained_is_skipped():
        return None
    state = trunk.state_dict()
    values = [state[ours] for key, ours in trunk.torchvision_names().items() if not key.endswith("_tracked")]
    module = network.backbone if hasattr(network.backbone, "extra") else network.backbone.body
    own = [key for key in module.state_dict() if not key.endswith(("_tracked", "scale_weight"))][: len(values)]
    module.load_state_dict(dict(zip(own, values, strict=True)), strict=False)
    return trunk.load_report


def _load(name: str, network: nn.Module, weights: str) -> LoadReport:
    state = {upgraded_name(key, name): value for key, value in read_weights(name, weights).items()}
    fitting, report = match_weights(network, state)
    unfit = [key for key in report.mismatched if not any(part in key for part in _SCORES) or "rpn" in key]
    unexpected = [key for key in report.unexpected if not key.endswith("num_batches_tracked")]
    if unfit or report.missing or unexpected or not fitting:
        raise ValueError(f"{weights} does not match torchvision's {name!r}:\n{report.describe()}")
    network.load_state_dict(fitting, strict=False)
    return replace(report, origin=f"weights {weights}")
