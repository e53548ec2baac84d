"""From boxes and scores of all places to the detections of an image.

Shape legend: N boxes ``x1, y1, x2, y2`` in pixels, each with a score and a label; A places (anchors, proposals, cells)
with scores of K classes each. Nothing here has a gradient.
"""

import math
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision import ops

from ..detection.detector import Detections
from .boxes import check_boxes, paired_iou

_FEW = 2000
"""Boxes up to which one pass over all labels is quicker than one over each."""

SoftNMSDecay = Literal["linear", "gaussian"]


@torch.no_grad()
def classwise_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Of boxes of the same label that overlap by more than ``iou``, keep the surest.

    Args:
        boxes: their coordinates may be negative.
        scores: any numbers; of equal ones the first box goes before.
        labels: boxes of different labels leave one another alone.
        iou: kept boxes of a label overlap by at most this.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - labels: int64 ``[N]``
        - output: int64 ``[M]``, numbers of the boxes that are kept, by falling score

    Raises:
        ValueError: shapes other than these, or an IoU outside 0 … 1.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]])
        >>> classwise_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), iou=0.5)
        tensor([1, 2])
    """
    _check(boxes, scores, labels, iou)
    boxes, scores = _widened(boxes, scores)
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if boxes.device.type == "cpu" and len(boxes) > _FEW:
        return _segmented_nms(boxes, scores, labels, iou)
    # One pass over all labels, whose boxes are moved apart by more than the whole extent. torchvision moves them by the
    # largest coordinate, so that neighbours may meet where some are below 0; and rounds them, as float64 does not.
    if boxes.device.type != "cpu":
        return ops.batched_nms(boxes - boxes.min().clamp(max=0), scores, labels, _limit(iou))
    boxes = boxes.double()
    boxes = boxes - boxes.min()
    return ops.nms(boxes + (labels * (boxes.max() + 1))[:, None], scores.double(), _limit(iou))


def _segmented_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Sorts once, by score and then by label, so that each label's boxes lie together and in order."""
    order = scores.argsort(descending=True, stable=True)
    grouped = labels[order].argsort(stable=True)  # place among the grouped -> rank by score
    places = order[grouped]
    boxes, scores = boxes[places], scores[places]
    counts = labels[places].unique_consecutive(return_counts=True)[1].tolist()
    kept = torch.zeros(len(order), dtype=torch.bool)  # by rank
    start, limit = 0, _limit(iou)
    for count in counts:
        stop = start + count
        kept[grouped[start:stop][ops.nms(boxes[start:stop], scores[start:stop], limit)]] = True
        start = stop
    return order[kept]


@torch.no_grad()
def class_agnostic_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """`classwise_nms` where all boxes have the same label.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - output: int64 ``[M]``, by falling score

    Raises:
        ValueError: shapes other than these, or an IoU outside 0 … 1.
    """
    _check(boxes, scores, None, iou)
    return ops.nms(*_widened(boxes, scores), _limit(iou))


@torch.no_grad()
def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor | None = None,
    decay: SoftNMSDecay = "gaussian",
    iou: float = 0.3,
    sigma: float = 0.5,
    score_threshold: float = 0.001,
    max_detections: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Lower the scores of boxes by how much they overlap surer ones of the same label, instead of dropping them.

    The surest box is taken, the scores of those left are lowered, and so on. Linear: a score is multiplied by
    ``1 - IoU`` where the IoU is at least ``iou``; Gaussian: by ``exp(-IoU² / sigma)``.

    Args:
        boxes: in pixels.
        scores: 0 … 1.
        labels: boxes of different labels leave one another alone; none: all have the same.
        decay: ``linear`` or ``gaussian``.
        iou: for ``linear``.
        sigma: for ``gaussian``.
        score_threshold: what falls to this or below is dropped.
        max_detections: the most that are taken; none: all.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - labels: int64 ``[N]``
        - output: numbers of the boxes taken, int64 ``[M]``, and their lowered scores, float32 ``[M]``, falling

    Raises:
        ValueError: shapes other than these, an IoU outside 0 … 1, a sigma that is not above 0, or another ``decay``.

    Reference:
        Bodla et al., "Soft-NMS", ICCV 2017, section 3, figure 2.
    """
    _check(boxes, scores, labels, iou)
    if decay not in get_args(SoftNMSDecay) or sigma <= 0:
        raise ValueError(f"decay={decay!r}, sigma={sigma}: give 'linear' or 'gaussian', and a sigma above 0")
    boxes, left = boxes.float(), scores.float().clone()
    taken: list[Tensor] = []
    final: list[Tensor] = []
    for _ in range(len(boxes) if max_detections is None else min(max_detections, len(boxes))):
        score, best = left.max(dim=0)
        if not bool(score > score_threshold):
            break
        taken.append(best)
        final.append(score)
        overlap = paired_iou(boxes, boxes[best])
        factor = (-overlap.square() / sigma).exp() if decay == "gaussian" else 1 - overlap * (overlap >= iou)
        left = left * (factor if labels is None else factor.where(labels == labels[best], torch.ones_like(factor)))
        left[best] = -math.inf
    if not taken:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), left[:0]
    return torch.stack(taken), torch.stack(final)


@torch.no_grad()
def select_detections(
    boxes: Tensor,
    scores: Tensor,
    score_threshold: float,
    nms_iou: float,
    max_detections: int,
    candidates: int | None = None,
    class_agnostic: bool = False,
) -> Detections:
    """The detections of one image: what is sure enough, without doubles, the surest first.

    Args:
        boxes: one of each place, or one of each place and class.
        scores: of each place and class, without background.
        score_threshold: what is not above this is dropped.
        nms_iou: detections of a class overlap by at most this.
        max_detections: the most that are kept, of all classes together.
        candidates: the most of a class that go into NMS (SSD: 400), the surest; none: all. With ``class_agnostic``, of
            all classes together.
        class_agnostic: detections of different classes drop one another too.

    Shape:
        - boxes: ``[A, 4]`` or ``[A, K, 4]``
        - scores: ``[A, K]``

    Raises:
        ValueError: shapes other than these, or an IoU outside 0 … 1.
    """
    if scores.ndim != 2 or boxes.shape not in ((len(scores), 4), (*scores.shape, 4)):
        raise ValueError(
            f"boxes {list(boxes.shape)} and scores {list(scores.shape)} are not [A, 4] or [A, K, 4], and [A, K]"
        )
    wanted = scores > score_threshold
    if candidates is not None and not class_agnostic and candidates < len(scores):
        surest = scores.masked_fill(~wanted, -math.inf).topk(candidates, dim=0).indices  # NaN would be the highest
        wanted &= torch.zeros_like(wanted).scatter_(0, surest, True)
    place, label = wanted.nonzero(as_tuple=True)
    found = scores[place, label].float()
    if candidates is not None and class_agnostic and candidates < len(found):
        found, chosen = found.topk(candidates)
        place, label = place[chosen], label[chosen]
    boxes = (boxes[place] if boxes.ndim == 2 else boxes[place, label]).float()
    kept = class_agnostic_nms(boxes, found, nms_iou) if class_agnostic else classwise_nms(boxes, found, label, nms_iou)
    kept = kept[:max_detections]
    return Detections(boxes=boxes[kept], scores=found[kept], labels=label[kept])


@cache
def _limit(iou: float) -> float:
    """So that an IoU of 8 / 10 is not above 0.8: in float32 it is 0.80000001, which torchvision compares with 0.8."""
    nearest = torch.tensor(iou)
    return (nearest.item() + nearest.nextafter(torch.tensor(math.inf)).item()) / 2


def _widened(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(boxes.dtype, scores.dtype), torch.float32)
    return boxes.to(dtype), scores.to(dtype)


def _check(boxes: Tensor, scores: Tensor, labels: Tensor | None, iou: float) -> None:
    check_boxes(boxes, "boxes")
    if scores.shape != boxes.shape[:1]:
        raise ValueError(f"scores must be [{len(boxes)}], one a box, got {list(scores.shape)}")
    if labels is not None and labels.shape != boxes.shape[:1]:
        raise ValueError(f"labels must be [{len(boxes)}], one a box, got {list(labels.shape)}")
    if not 0 <= iou <= 1:
        raise ValueError(f"iou: {iou}; give a number from 0 to 1")
