"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .detector import Detections, Detector, check_images, check_targets
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .yolo import YOLOHead, YOLOv1
from .yolo_loss import GridOutput, GridTruth, YOLOTerms, decode_grid, encode_grid, responsible_predictors, split_grid, yolo_terms

__all__ = [
    "GridOutput",
    "GridTruth",
    "YOLOHead",
    "YOLOTerms",
    "YOLOv1",
    "decode_grid",
    "encode_grid",
    "responsible_predictors",
    "split_grid",
    "yolo_terms",
    "Detections",
    "Detector",
    "ImageBatch",
    "ResizeAndPad",
    "check_images",
    "check_targets",
    "scale_boxes",
]
