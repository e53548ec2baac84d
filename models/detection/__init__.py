"""Detectors: sliding window, two-stage, single-shot and grid, behind one seam (`Detector`)."""

from ..ops.anchors import cell_anchors, grid_anchors
from ..ops.box_coding import decode_boxes, encode_boxes
from ..ops.matching import (
    BACKGROUND,
    IGNORED,
    bipartite_then_threshold,
    match_anchors,
    match_iou,
    sample_balanced,
)
from ..ops.nms import class_agnostic_nms, classwise_nms, soft_nms
from .detector import Detections, Detector, check_images, check_targets
from .one_stage.fcos import FCOS
from .one_stage.retinanet import RetinaNet
from .postprocessing import select_detections
from .pyramid import FeaturePyramid
from .pyramid_detector import PyramidDetector
from .resize import ImageBatch, ResizeAndPad, scale_boxes
from .sliding_window import SlidingWindowDetector, WayComparison, WindowGrid
from .ssd.backbone import SSDVGG16
from .ssd.default_boxes import default_boxes, ssd_aspects, ssd_scales
from .ssd.loss import hard_negative_mining, multibox_losses
from .ssd.published import SSD300, SSD512
from .ssd.ssd import SSD, ExtraLayer, L2Norm
from .torchvision import TorchvisionDetector
from .two_stage.fast_rcnn import FastRCNN, FastRCNNSettings, truncated_svd
from .two_stage.faster_rcnn import FasterRCNN
from .two_stage.faster_rcnn_paper import SingleMapFasterRCNN
from .two_stage.padded_backbones import PaddedAlexNetBackbone, PaddedZFNetBackbone
from .two_stage.proposal_detector import ProposalDetector, check_proposals
from .two_stage.rcnn import RCNN
from .two_stage.region_boxes import BoxRegressionSettings
from .two_stage.region_svms import SVMSettings
from .two_stage.roi_head import RoIFullyConnected, RoIHead, RoIOutput, RoISample, RoISettings, SamplingSettings
from .two_stage.rpn import RPN, RPNOutput, RPNSettings
from .two_stage.spp import SPPNet
from .two_stage.svm_detector import SVMDetector
from .windowed_prediction import sliding_detections
from .yolo.loss import (
    GridOutput,
    GridTarget,
    YOLOTerms,
    decode_grid,
    encode_grid,
    responsible_predictors,
    split_grid,
    yolo_terms,
)
from .yolo.yolo import YOLOHead, YOLOv1

__all__ = [
    "BACKGROUND",
    "FCOS",
    "IGNORED",
    "RCNN",
    "RPN",
    "SSD",
    "SSD300",
    "SSD512",
    "SSDVGG16",
    "BoxRegressionSettings",
    "Detections",
    "Detector",
    "ExtraLayer",
    "FastRCNN",
    "FastRCNNSettings",
    "FasterRCNN",
    "FeaturePyramid",
    "GridOutput",
    "GridTarget",
    "ImageBatch",
    "L2Norm",
    "PaddedAlexNetBackbone",
    "PaddedZFNetBackbone",
    "ProposalDetector",
    "PyramidDetector",
    "RPNOutput",
    "RPNSettings",
    "ResizeAndPad",
    "RetinaNet",
    "RoIFullyConnected",
    "RoIHead",
    "RoIOutput",
    "RoISample",
    "RoISettings",
    "SPPNet",
    "SVMDetector",
    "SVMSettings",
    "SamplingSettings",
    "SingleMapFasterRCNN",
    "SlidingWindowDetector",
    "TorchvisionDetector",
    "WayComparison",
    "WindowGrid",
    "YOLOHead",
    "YOLOTerms",
    "YOLOv1",
    "bipartite_then_threshold",
    "cell_anchors",
    "check_images",
    "check_proposals",
    "check_targets",
    "class_agnostic_nms",
    "classwise_nms",
    "decode_boxes",
    "decode_grid",
    "default_boxes",
    "encode_boxes",
    "encode_grid",
    "grid_anchors",
    "hard_negative_mining",
    "match_anchors",
    "match_iou",
    "multibox_losses",
    "responsible_predictors",
    "sample_balanced",
    "scale_boxes",
    "select_detections",
    "sliding_detections",
    "soft_nms",
    "split_grid",
    "ssd_aspects",
    "ssd_scales",
    "truncated_svd",
    "yolo_terms",
]
