"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .detector import Detections, Detector, check_images, check_targets
from .fpn import FCOS, FasterRCNN, RetinaNet
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .torchvision import TorchvisionDetector

__all__ = [
    "FCOS",
    "Detections",
    "Detector",
    "FasterRCNN",
    "ImageBatch",
    "ResizeAndPad",
    "RetinaNet",
    "TorchvisionDetector",
    "check_images",
    "check_targets",
    "scale_boxes",
]
