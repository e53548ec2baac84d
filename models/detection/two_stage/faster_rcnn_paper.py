"""Faster R-CNN as published: one feature map, a region proposal network, and Fast R-CNN's head on its proposals."""

from typing import NamedTuple

from torch import Tensor
from torchvision.ops import RoIPool

from ...backbones import Backbone, TorchvisionBackbone, as_backbone
from ...ops.checks import OrMapping, as_settings, check_choice, check_min
from ..detector import Detections, Detector
from ..resize import ImageBatch, ResizeAndPad
from .fully_connected import describe_region_weights, load_fully_connected
from .padded_backbones import PaddedZFNetBackbone
from .roi_head import RoIFullyConnected, RoIHead, RoISettings
from .rpn import RPN, RPNSettings


class _Architecture(NamedTuple):
    """Sizes that the paper gives for a backbone."""

    pool_size: int  # cells per side of a pooled region
    rpn_channels: int


_ARCHITECTURES = {"vgg16": _Architecture(7, 512), "zf": _Architecture(6, 256)}


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
