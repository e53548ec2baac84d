"""Base class of the detectors that are built on a torchvision network."""

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

from ..modes import restored_modes
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


def _setting(name: str, doc: str) -> Any:
    """A property that reads and sets an attribute of the network, or of its second stage."""

    def part(detector: "NetworkDetector") -> Any:
        return getattr(detector.network, "roi_heads", detector.network)

    def get(detector: "NetworkDetector") -> Any:
        return getattr(part(detector), name)

    return property(get, lambda detector, value: setattr(part(detector), name, value), doc=doc)


class NetworkDetector(Detector):
    """A detector built on a torchvision network.

    Attributes:
        network: torchvision's Faster R-CNN, RetinaNet, FCOS or SSD.
        score_threshold: Detections have a higher score than this. Can be set.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped. Can be set.
        max_detections: Maximum number of detections per image. Can be set.
    """

    network: Any
    score_threshold = _setting("score_thresh", "Detections have a higher score than this.")
    nms_iou = _setting("nms_thresh", "Maximum IoU of two detections of one class.")
    max_detections = _setting("detections_per_img", "Maximum number of detections per image.")


@contextmanager
def torchvision_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Make torchvision's modules return losses (``training``) or detections within this context.

    Only modules whose results depend on the mode are switched; batch normalization and dropout keep theirs.
    """
    modules = [module for module in network.modules() if isinstance(module, _MODE_DEPENDENT)]
    with restored_modes(modules):
        for module in modules:
            module.training = training
        yield
