"""Metrics that torchmetrics lacks or computes slowly, each a torchmetrics ``Metric`` with states reduced under DDP."""

from .coco_detection import COCODetection
from .coco_instances import COCOInstances
from .confusion import class_accuracies, class_ious, frequency_weighted_iou, pixel_accuracy
from .localization import LocalizationMetrics
from .segmentation import BoundaryIoU, SegmentationConfusion
from .voc_detection import VOCDetection

__all__ = [
    "BoundaryIoU",
    "COCODetection",
    "COCOInstances",
    "LocalizationMetrics",
    "SegmentationConfusion",
    "VOCDetection",
    "class_accuracies",
    "class_ious",
    "frequency_weighted_iou",
    "pixel_accuracy",
]
