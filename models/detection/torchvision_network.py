"""Base class of the detectors that are built on a network of torchvision's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from .detector import Detector

_MODE_DEPENDENT = (
    GeneralizedRCNN,
    RetinaNet,
    FCOS,
    SSD,
    RegionProposalNetwork,
    RoIHeads,
    GeneralizedRCNNTransform,
)
"""torchvision's modules that return losses or detections depending on ``training``."""


class NetworkDetector(Detector):
    """A detector built on a network of torchvision's.

    Attributes:
        network: torchvision's Faster R-CNN, RetinaNet, FCOS or SSD.
    """

    network: Any

    @property
    def _settings(self) -> Any:
        return getattr(self.network, "roi_heads", self.network)

    @property
    def score_threshold(self) -> float:
        """Detections have a higher score than this. Can be set."""
        return self._settings.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self._settings.score_thresh = value

    @property
    def nms_iou(self) -> float:
        """Of two detections of one class with a higher IoU, the one with the lower score is dropped. Can be set."""
        return self._settings.nms_thresh

    @nms_iou.setter
    def nms_iou(self, value: float) -> None:
        self._settings.nms_thresh = value

    @property
    def max_detections(self) -> int:
        """Maximum number of detections per image. Can be set."""
        return self._settings.detections_per_img

    @max_detections.setter
    def max_detections(self, value: int) -> None:
        self._settings.detections_per_img = value


@contextmanager
def torchvision_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Make torchvision's modules return losses (``training``) or detections within this context.

    Only modules whose results depend on the mode are switched; batch normalization and dropout keep theirs.
    """
    modules = [module for module in network.modules() if isinstance(module, _MODE_DEPENDENT)]
    previous = [module.training for module in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, mode in zip(modules, previous, strict=True):
            module.training = mode
