"""From the boxes and scores of all anchors, proposals or cells to the detections of an image."""

import math

import torch
from torch import Tensor

from ..ops.nms import class_agnostic_nms, classwise_nms
from .detector import Detections


@torch.no_grad()
def select_detections(
    boxes: Tensor,
    scores: Tensor,
    score_threshold: float,
    nms_iou: float,
    max_detections: int | None,
    candidates: int | None = None,
    class_agnostic: bool = False,
) -> Detections:
    """Select the detections of one image by score threshold and non-maximum suppression.

    Args:
        boxes: One box per anchor, or one per anchor and class, in pixels.
        scores: Scores of the classes, without background.
        score_threshold: Detections have a higher score than this.
        nms_iou: Maximum IoU of two detections of a class.
        max_detections: Maximum number of detections of all classes together. None: no limit.
        candidates: Number of detections per class, highest scores first, that enter non-maximum suppression (SSD: 400).
            With ``class_agnostic``, of all classes together. None: all.
        class_agnostic: Whether detections of different classes suppress each other.

    Shape:
        - boxes: ``[A, 4]`` or ``[A, K, 4]``
        - scores: ``[A, K]``
        - output: `Detections` of up to ``max_detections`` objects

    Raises:
        ValueError: Shapes are others than these, or ``nms_iou`` is outside [0, 1].
    """
    if scores.ndim != 2 or boxes.shape not in ((len(scores), 4), (*scores.shape, 4)):
        raise ValueError(
            "boxes: must be [A, 4] or [A, K, 4] for scores [A, K], got "
            f"{list(boxes.shape)} and scores {list(scores.shape)}"
        )
    selected = scores > score_threshold
    if candidates is not None and not class_agnostic and candidates < len(scores):
        # without the mask NaN would be the highest
        highest = scores.masked_fill(~selected, -math.inf).topk(candidates, dim=0).indices
        selected &= torch.zeros_like(selected).scatter_(0, highest, True)
    anchor, label = selected.nonzero(as_tuple=True)
    score = scores[anchor, label].float()
    if candidates is not None and class_agnostic and candidates < len(score):
        score, highest = score.topk(candidates)
        anchor, label = anchor[highest], label[highest]
    boxes = (boxes[anchor] if boxes.ndim == 2 else boxes[anchor, label]).float()
    kept = class_agnostic_nms(boxes, score, nms_iou) if class_agnostic else classwise_nms(boxes, score, label, nms_iou)
    kept = kept[:max_detections]
    return Detections(boxes=boxes[kept], scores=score[kept], labels=label[kept])
