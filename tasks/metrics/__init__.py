"""Metrics that torchmetrics lacks, or computes slowly; each is a torchmetrics ``Metric`` whose state sums under DDP."""

from .localization import LocalizationMetrics
from .segmentation import (
    BoundaryIoU,
    SegmentationConfusion,
    class_accuracies,
    class_ious,
    frequency_weighted_iou,
    pixel_accuracy,
)

__all__ = [
    "BoundaryIoU",
    "LocalizationMetrics",
    "SegmentationConfusion",
    "class_accuracies",
    "class_ious",
    "frequency_weighted_iou",
    "pixel_accuracy",
]
