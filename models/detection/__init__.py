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
from .yolo import YOLOHead, YOLOv1
from .yolo_loss import (
    GridOutput,
    GridTruth,
    YOLOTerms,
    decode_grid,
    encode_grid,
    responsible_predictors,
    split_grid,
    yolo_terms,
)

__all__ = [
    "BACKGROUND",
    "IGNORED",
    "RPN",
    "Detections",
    "Detector",
    "GridOutput",
    "GridTruth",
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
    "YOLOHead",
    "YOLOTerms",
    "YOLOv1",
    "best_overlaps",
    "bipartite_then_threshold",
    "cell_anchors",
    "check_images",
    "check_targets",
    "class_agnostic_nms",
    "classwise_nms",
    "decode_boxes",
    "decode_grid",
    "encode_boxes",
    "encode_grid",
    "grid_anchors",
    "match_anchors",
    "match_iou",
    "responsible_predictors",
    "sample_balanced",
    "scale_boxes",
    "select_detections",
    "soft_nms",
    "split_grid",
    "yolo_terms",
]
