"""Faster R-CNN as published: one feature map, a region proposal network, and Fast R-CNN's head on its proposals."""

from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn
from torchvision.ops import RoIPool

from ...backbones import Backbone, TorchvisionBackbone, as_backbone
from ...classification.zfnet import ZFNetBackbone
from ...ops.checks import OrMapping, as_settings, check_choice, check_min
from ...weights import LoadReport, load_state_dict_file, match_weights
from ..detector import Detections, Detector
from ..resize import ImageBatch, ResizeAndPad
from .roi_head import RoIFullyConnected, RoIHead, RoISettings
from .rpn import RPN, RPNSettings


class _Architecture(NamedTuple):
    """Sizes that the paper gives for a backbone."""

    pool_size: int  # cells per side of a pooled region
    rpn_channels: int


_ARCHITECTURES = {"vgg16": _Architecture(7, 512), "zf": _Architecture(6, 256)}
_FC_INDICES = {"vgg": (0, 3), "alexnet": (1, 4)}
"""Start of torchvision's name of a network -> indices of fc6 and fc7 in its ``classifier``."""


class PaddedZFNetBackbone(ZFNetBackbone):
    """ZFNet up to conv5 with the padding of SPP-net's and Faster R-CNN's ZF: one map of stride 16.

    Every layer is padded by half a kernel. Cell i is therefore centered at about pixel 16 i, as projecting a box onto
    the map by division assumes. Without padding, as in `ZFNetBackbone`, it is pixel 16 i + 20. Weights and their names
    are the same.

    Args:
        weights: Path of a checkpoint of ours, of `ZFNet` or a model on it. None: N(0, 2 / fan-in).
        width: Factor on all numbers of channels, rounded to multiples of 8.
        frozen_stages: Number of stages, from the first, that are not trained; 0 to 3 (conv1; conv2; conv3 to conv5).

    Reference:
        He et al., "Spatial pyramid pooling", ECCV 2014, appendix A, and py-faster-rcnn's ZF. Those normalize responses
        within a map, before pooling. Here it is `ZFNet`'s normalization, across maps after pooling, to which its
        weights belong.
    """

    def __init__(self, weights: str | None = None, width: float = 1.0, frozen_stages: int = 0) -> None:
        super().__init__(
            width,
            frozen_stages=frozen_stages,
            out_indices=(2,),
            weights=weights,
            init="he" if weights is None else None,
        )
        for layer in self.stages.modules():
            if isinstance(layer, nn.Conv2d):
                layer.padding = tuple(side // 2 for side in layer.kernel_size)
            elif isinstance(layer, nn.MaxPool2d):
                layer.padding = 1


class SingleMapFasterRCNN(Detector):
    """Faster R-CNN as published, on one feature map, with py-faster-rcnn's values as defaults.

    The `RPN` proposes regions on the backbone's last map. The `RoIHead` pools them by maxima and classifies them
    through fc6 and fc7. There are four losses of weight 1: ``loss_objectness``, ``loss_rpn_box``, ``loss_class`` and
    ``loss_box``. All parts are trained together; no gradient flows through the proposals' coordinates.

    Args:
        num_classes: Number of classes K, without background.
        backbone: ``vgg16``: up to conv5_3, with conv1 and conv2 frozen. ``zf``: `PaddedZFNetBackbone`. Or any backbone,
            of which the last map is used.
        weights: Weights of a backbone given by name: torchvision's name for published weights of VGG-16
            (``IMAGENET1K_V1``), or the path of a checkpoint. fc6 and fc7 are loaded too if they fit, also for a
            backbone that was built with weights.
        resize: Resizing of images. None: shorter side 600 pixels, longer side at most 1,000.
        rpn_channels: Number of channels of the RPN's 3 x 3 convolution. None: 512, or 256 with ``zf``.
        pool_size: Number of cells per side of a pooled region. None: 7, or 6 with ``zf``.
        hidden: Number of units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        rpn: Anchors, sampling and proposals, as `RPNSettings` or a dictionary of its arguments. None: the reference's.
        roi: Sampling and detection, as `RoISettings` or a dictionary of its arguments. None: the reference's.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such backbone, or ``weights`` are given for one that is already built.

    Reference:
        Ren, He, Girshick, Sun, "Faster R-CNN: towards real-time object detection with region proposal networks", NIPS
        2015. Where the paper is silent or its two codes differ, this follows py-faster-rcnn trained end to end
        ("approximate joint training"). For deviations see docs/detection.md, `RPN` and `RoIHead`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "vgg16",
        weights: str | None = None,
        resize: ResizeAndPad | None = None,
        rpn_channels: int | None = None,
        pool_size: int | None = None,
        hidden: int = 4096,
        dropout: float = 0.5,
        rpn: OrMapping[RPNSettings] | None = None,
        roi: OrMapping[RoISettings] | None = None,
    ) -> None:
        check_min(1, rpn_channels=rpn_channels, pool_size=pool_size)
        if isinstance(backbone, str):
            check_choice(tuple(_ARCHITECTURES), backbone=backbone)
        architecture = _ARCHITECTURES[backbone if isinstance(backbone, str) else "vgg16"]
        built = _build_backbone(backbone, weights)
        channels, stride, size = built.channels[-1], built.strides[-1], pool_size or architecture.pool_size
        if resize is None:
            resize = ResizeAndPad(600, 1000, size_divisible=stride, fill=built.normalize.mean.tolist())
        super().__init__(num_classes, resize)
        self.backbone = built
        self.rpn = RPN(
            channels, rpn_channels or architecture.rpn_channels, stride, as_settings(RPNSettings, "rpn", rpn)
        )
        body = RoIFullyConnected(channels, size, hidden, dropout)
        self._body_report = load_fully_connected(body, built)
        self.head = RoIHead(RoIPool(size, 1 / stride), body, hidden, num_classes, as_settings(RoISettings, "roi", roi))

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        maps = self.backbone(batch.pixels)[-1]
        proposals = self.rpn.propose(self.rpn(maps), batch.sizes, batch.original_sizes)
        return self.head.detect(maps, proposals, batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the four losses of a batch; see `Detector.compute_losses`."""
        maps = self.backbone(batch.pixels)[-1]
        output = self.rpn(maps)
        proposals = self.rpn.propose(output, batch.sizes, batch.original_sizes, for_training=True)
        return self.rpn.losses(output, batch.sizes, targets) | self.head.losses(maps, proposals, targets)

    def describe_weights(self) -> str | None:
        """What was loaded into the backbone, fc6 and fc7, as lines of text. None: nothing was loaded."""
        return describe_region_weights(self.backbone, self._body_report, "RPN, class scores and boxes: new")


def _build_backbone(backbone: Backbone | str, weights: str | None) -> Backbone:
    if backbone == "zf":
        return PaddedZFNetBackbone(weights)
    if backbone == "vgg16":
        return TorchvisionBackbone("vgg16", weights, frozen_stages=2, out_indices=(4,))
    return as_backbone(backbone, weights)


def describe_region_weights(backbone: Backbone, body: LoadReport | None, rest: str) -> str | None:
    """Describe what was loaded into a backbone and into fc6 and fc7, as lines of text. None: nothing was loaded.

    Args:
        backbone: The backbone.
        body: What `load_fully_connected` returned.
        rest: Last line, about the other layers.
    """
    report = backbone.load_report
    if report is None:
        return None
    loaded = body.loaded if body else ()
    layers = [name for name in ("fc6", "fc7") if f"{name}.weight" in loaded and f"{name}.bias" in loaded]
    lines = [f"from {report.origin}:", f"  backbone: all {len(report.loaded)} tensors"]
    lines.append(
        f"  {' and '.join(layers)}: loaded" if layers else "  fc6 and fc7: new, since nothing in the file fits"
    )
    return "\n".join([*lines, f"  {rest}"])


def load_fully_connected(body: RoIFullyConnected, backbone: Backbone) -> LoadReport | None:
    """Load fc6 and fc7 from the file of the backbone's weights, if they are there and fit."""
    source = _find_fully_connected(backbone)
    if source is None:
        return None
    state, prefixes, aliases = source
    fitting, report = match_weights(body, state, prefixes=prefixes, aliases=aliases)
    body.load_state_dict(fitting, strict=False)
    return report


def _find_fully_connected(backbone: Backbone) -> tuple[dict[str, Tensor], list[str], dict[str, str]] | None:
    """The tensors ``[...]`` of the backbone's file, possible prefixes of fc6 and fc7, and other names -> ours."""
    report = backbone.load_report
    if report is None:
        return None
    indices: tuple[int, ...] = ()
    if isinstance(backbone, TorchvisionBackbone):
        checkpoint = backbone.full_checkpoint()
        if checkpoint is None:
            return None
        state, theirs, ours = checkpoint
        indices = next((value for start, value in _FC_INDICES.items() if backbone.name.startswith(start)), ())
    elif Path(report.origin).is_file():
        state = load_state_dict_file(report.origin)
        theirs = ours = report.prefix.removesuffix("backbone.")
    else:
        return None
    aliases = {
        f"{container}.{index}.{kind}": f"{layer}.{kind}"
        for layer, index in zip(("fc6", "fc7"), indices, strict=False)
        for container in ("classifier", "head.body")
        for kind in ("weight", "bias")
    }
    return state, [theirs, ours, f"{ours}head.", f"{ours}head.body."], aliases
