"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .detector import Detections, Detector, check_images, check_targets
from .resize import ImageBatch, ResizeAndPad, scale_boxes

__all__ = [
    "Detections",
    "Detector",
    "ImageBatch",
    "ResizeAndPad",
    "check_images",
    "check_targets",
    "scale_boxes",
]
