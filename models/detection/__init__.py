"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .box_coding import decode_boxes, encode_boxes
from .detector import Detections, Detector, check_images, check_targets
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
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .ssd import SSD, ExtraLayer, L2Norm
from .ssd_backbone import SSDVGG16
from .ssd_boxes import default_boxes, ssd_aspects, ssd_scales
from .ssd_loss import hardest_negatives, multibox_losses
from .ssd_paper import SSD300, SSD512

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "SSD",
    "SSD300",
    "SSD512",
    "SSDVGG16",
    "BestOverlaps",
    "Detections",
    "Detector",
    "ExtraLayer",
    "ImageBatch",
    "L2Norm",
    "ResizeAndPad",
    "best_overlaps",
    "bipartite_then_threshold",
    "check_images",
    "check_targets",
    "class_agnostic_nms",
    "classwise_nms",
    "decode_boxes",
    "default_boxes",
    "encode_boxes",
    "hardest_negatives",
    "match_anchors",
    "match_iou",
    "multibox_losses",
    "sample_balanced",
    "scale_boxes",
    "select_detections",
    "soft_nms",
    "ssd_aspects",
    "ssd_scales",
]
