"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .box_coding import decode_boxes, encode_boxes
from .detector import Detections, Detector, check_images, check_targets
from .fpn import FasterRCNN
from .matching import (
    BACKGROUND,
    IGNORED,
    BestOverlaps,
    best_overlaps,
    bipartite_then_threshold,
    match_anchors,
    match_iou,
    sample_balanced,
)
from .nms import class_agnostic_nms, classwise_nms, select_detections, soft_nms
from .one_stage import FCOS, RetinaNet
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .torchvision import TorchvisionDetector

__all__ = [
    "BACKGROUND",
    "FCOS",
    "IGNORED",
    "BestOverlaps",
    "Detections",
    "Detector",
    "FasterRCNN",
    "ImageBatch",
    "ResizeAndPad",
    "RetinaNet",
    "TorchvisionDetector",
    "best_overlaps",
    "bipartite_then_threshold",
    "check_images",
    "check_targets",
    "class_agnostic_nms",
    "classwise_nms",
    "decode_boxes",
    "encode_boxes",
    "match_anchors",
    "match_iou",
    "sample_balanced",
    "scale_boxes",
    "select_detections",
    "soft_nms",
]
