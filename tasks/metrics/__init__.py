"""Metrics that torchmetrics lacks, or computes slowly; each is a torchmetrics ``Metric`` whose state sums under DDP."""

from .coco_detection import COCODetection
from .localization import LocalizationMetrics
from .segmentation import (
    BoundaryIoU,
    SegmentationConfusion,
    class_accuracies,
    class_ious,
    frequency_weighted_iou,
    pixel_accuracy,
)
from .voc_detection import VOCDetection

__all__ = [
    "BoundaryIoU",
    "COCODetection",
    "LocalizationMetrics",
    "SegmentationConfusion",
    "VOCDetection",
    "class_accuracies",
    "class_ious",
    "frequency_weighted_iou",
    "pixel_accuracy",
]
