"""Detectors: two-stage, single-shot and grid, behind one seam (`Detector`)."""

from .anchors import cell_anchors, grid_anchors
from .box_coding import decode_boxes, encode_boxes
from .detector import Detections, Detector, check_images, check_targets
from .faster_rcnn import PaddedZFNetBackbone, SingleMapFasterRCNN
from .matching import (
    BACKGROUND,
    IGNORED,
    bipartite_then_threshold,
    match_anchors,
    match_iou,
    sample_balanced,
)
from .nms import class_agnostic_nms, classwise_nms, select_detections, soft_nms
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .roi_head import RoIFullyConnected, RoIHead, RoIOutput, RoISample, RoISettings
from .rpn import RPN, RPNOutput, RPNSettings

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "RPN",
    "Detections",
    "Detector",
    "ImageBatch",
    "PaddedZFNetBackbone",
    "RPNOutput",
    "RPNSettings",
    "ResizeAndPad",
    "RoIFullyConnected",
    "RoIHead",
    "RoIOutput",
    "RoISample",
    "RoISettings",
    "SingleMapFasterRCNN",
    "bipartite_then_threshold",
    "cell_anchors",
    "check_images",
    "check_targets",
    "class_agnostic_nms",
    "classwise_nms",
    "decode_boxes",
    "encode_boxes",
    "grid_anchors",
    "match_anchors",
    "match_iou",
    "sample_balanced",
    "scale_boxes",
    "select_detections",
    "soft_nms",
]
