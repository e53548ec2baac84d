"""Non-maximum suppression (NMS), hard and soft.

Shape legend: N boxes ``x1, y1, x2, y2`` in pixels, each with a score and a label. Nothing here has a gradient.
"""

import math
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor
from torchvision import ops

from .boxes import check_boxes, common_float, paired_iou
from .checks import check_choice, check_fraction

_MAX_BOXES_AT_ONCE = 2000
"""Number of boxes up to which one pass over all labels is faster than one pass per label."""

SoftNMSDecay = Literal["linear", "gaussian"]


@torch.no_grad()
def classwise_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """Suppress boxes that overlap a box of the same label with a higher score.

    Args:
        boxes: Boxes; coordinates may be negative.
        scores: Scores, any numbers. On ties the first box is kept.
        labels: Labels. Boxes of different labels do not suppress each other.
        iou: Maximum IoU of two kept boxes of a label.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - labels: int64 ``[N]``
        - output: int64 ``[M]``, indices of the kept boxes, highest score first

    Raises:
        ValueError: Shapes are others than these, or ``iou`` is outside [0, 1].

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 3.0], [0.0, 0.0, 4.0, 4.0]])
        >>> classwise_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), iou=0.5)
        tensor([1, 2])
    """
    _check(boxes, scores, labels, iou)
    boxes, scores = common_float(boxes, scores)
    if not len(boxes):
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if boxes.device.type == "cpu" and len(boxes) > _MAX_BOXES_AT_ONCE:
        return _segmented_nms(boxes, scores, labels, iou)
    # One pass over all labels, with the boxes of each label shifted by more than the extent of all boxes. torchvision
    # shifts by the largest coordinate, so that labels may overlap if coordinates are negative, and rounds in float32.
    if boxes.device.type != "cpu":
        return ops.batched_nms(boxes - boxes.min().clamp(max=0), scores, labels, _exact_threshold(iou))
    boxes = boxes.double()
    boxes = boxes - boxes.min()
    return ops.nms(boxes + (labels * (boxes.max() + 1))[:, None], scores.double(), _exact_threshold(iou))


def _segmented_nms(boxes: Tensor, scores: Tensor, labels: Tensor, iou: float) -> Tensor:
    """`classwise_nms` of boxes ``[N, 4]`` with one pass per label: kept indices ``[M]``.

    Sorts once, by score and then by label, so that the boxes of each label are contiguous and in order.
    """
    order = scores.argsort(descending=True, stable=True)
    grouped = labels[order].argsort(stable=True)  # position in the groups -> rank by score
    indices = order[grouped]
    boxes, scores = boxes[indices], scores[indices]
    counts = labels[indices].unique_consecutive(return_counts=True)[1].tolist()
    kept = torch.zeros(len(order), dtype=torch.bool)  # by rank
    start, threshold = 0, _exact_threshold(iou)
    for count in counts:
        stop = start + count
        kept[grouped[start:stop][ops.nms(boxes[start:stop], scores[start:stop], threshold)]] = True
        start = stop
    return order[kept]


@torch.no_grad()
def class_agnostic_nms(boxes: Tensor, scores: Tensor, iou: float) -> Tensor:
    """`classwise_nms` of boxes that all have the same label.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - output: int64 ``[M]``, highest score first

    Raises:
        ValueError: Shapes are others than these, or ``iou`` is outside [0, 1].
    """
    _check(boxes, scores, None, iou)
    return ops.nms(*common_float(boxes, scores), _exact_threshold(iou))


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
    """Lower the scores of boxes that overlap boxes of the same label with higher scores, instead of dropping them.

    Repeatedly takes the box with the highest score and lowers the scores of the remaining ones. Linear: a score is
    multiplied by ``1 - IoU`` if the IoU is at least ``iou``. Gaussian: by ``exp(-IoU² / sigma)``.

    Args:
        boxes: Boxes in pixels.
        scores: Scores in [0, 1].
        labels: Labels. Boxes of different labels do not affect each other. None: all have the same label.
        decay: ``linear`` or ``gaussian``.
        iou: IoU threshold of ``linear``.
        sigma: Width of ``gaussian``.
        score_threshold: Boxes whose score is or falls to this or below are dropped.
        max_detections: Maximum number of boxes. None: all.

    Shape:
        - boxes: ``[N, 4]``
        - scores: ``[N]``
        - labels: int64 ``[N]``
        - output: indices of the boxes, int64 ``[M]``, and their lowered scores, float32 ``[M]``, descending

    Raises:
        ValueError: Shapes are others than these, ``iou`` is outside [0, 1], ``sigma`` not above 0, or ``decay`` is
            unknown.

    Reference:
        Bodla et al., "Soft-NMS", ICCV 2017, section 3, figure 2.
    """
    _check(boxes, scores, labels, iou)
    check_choice(get_args(SoftNMSDecay), decay=decay)
    if not sigma > 0:
        raise ValueError(f"sigma: must be above 0, got {sigma}")
    boxes, remaining = boxes.float(), scores.float().clone()
    taken: list[Tensor] = []
    final: list[Tensor] = []
    for _ in range(len(boxes) if max_detections is None else min(max_detections, len(boxes))):
        score, best = remaining.max(dim=0)
        if not bool(score > score_threshold):
            break
        taken.append(best)
        final.append(score)
        overlap = paired_iou(boxes, boxes[best])
        factor = (-overlap.square() / sigma).exp() if decay == "gaussian" else 1 - overlap * (overlap >= iou)
        if labels is not None:
            factor = factor.where(labels == labels[best], torch.ones_like(factor))
        remaining = remaining * factor
        remaining[best] = -math.inf
    if not taken:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device), remaining[:0]
    return torch.stack(taken), torch.stack(final)


@cache
def _exact_threshold(iou: float) -> float:
    """A threshold between two float32 numbers, so that an IoU of 8 / 10 is not above 0.8.

    In float32 that IoU is 0.80000001, which torchvision compares with the float64 number 0.8.
    """
    nearest = torch.tensor(iou)
    return (nearest.item() + nearest.nextafter(torch.tensor(math.inf)).item()) / 2


def _check(boxes: Tensor, scores: Tensor, labels: Tensor | None, iou: float) -> None:
    """Require boxes ``[N, 4]`` with one score and label each, and an IoU in [0, 1]."""
    check_boxes(boxes, "boxes")
    for name, values in (("scores", scores), ("labels", labels)):
        if values is not None and values.shape != boxes.shape[:1]:
            raise ValueError(f"{name}: must be [{len(boxes)}], one per box, got {list(values.shape)}")
    check_fraction(iou=iou)
