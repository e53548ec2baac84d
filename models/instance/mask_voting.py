"""Mask voting: the mask of a detection as the weighted mean of the masks of all regions that overlap it.

Shape legend: R regions of an image of H by W pixels, M detections in it.
"""

import torch
from torch import Tensor

from ..ops.boxes import box_iou_matrix
from ..ops.checks import check_fraction
from ..ops.mask_overlaps import sum_masks
from ..ops.masks import RunLengths

_DETECTIONS = 32
"""Number of detections whose votes are counted at once, which bounds memory."""
_TOLERANCE = 1e-6
"""Sums of float32 weights are this exact. A sum of exactly the threshold counts."""


def voting_weights(boxes: Tensor, labels: Tensor, regions: Tensor, scores: Tensor, iou: float) -> Tensor:
    """Weigh the regions that vote on the mask of each detection, by their scores of its class.

    Args:
        boxes: Boxes of the detections, in pixels; each is one of the regions.
        labels: Classes of the detections.
        regions: All regions, in pixels.
        scores: Their scores of each class, without background.
        iou: Regions with at least this IoU with a detection vote, whatever their own class.

    Shape:
        - boxes: ``[M, 4]``
        - labels: int64 ``[M]``
        - regions: ``[R, 4]``
        - scores: ``[R, K]``
        - output: ``[M, R]``, whose rows sum to 1

    Reference:
        Li et al., "Fully convolutional instance-aware semantic segmentation", CVPR 2017, section 3.2, and the authors'
        code, whose IoU threshold includes equality.
    """
    weights = scores.T[labels] * (box_iou_matrix(boxes, regions) >= iou)
    return weights / weights.sum(1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)


def vote_masks(masks: RunLengths, weights: Tensor, threshold: float) -> RunLengths:
    """Add masks with weights, and binarize the sum.

    The sum changes only at the edges of runs, so that memory and time depend on their number and not on that of pixels.

    Args:
        masks: The R masks that vote.
        weights: Their weights in each of M sums, at least 0.
        threshold: Pixels with at least this sum are ones. Pixels without a vote never are.

    Shape:
        - weights: ``[M, R]``

    Returns:
        M masks.

    Raises:
        ValueError: ``weights`` is not ``[M, R]``, or ``threshold`` is outside [0, 1].

    Example:
        >>> masks = RunLengths.from_dense(torch.tensor([[[1, 1, 0]], [[0, 1, 1]]]).bool())
        >>> vote_masks(masks, torch.tensor([[0.7, 0.3], [0.5, 0.5]]), 0.4).dense().int().tolist()
        [[[1, 1, 0]], [[1, 1, 1]]]
    """
    check_fraction(mask_threshold=threshold)
    if weights.ndim != 2 or weights.shape[1] != len(masks):
        raise ValueError(f"weights: must be [M, {len(masks)}], one column per mask, got {list(weights.shape)}")
    parts = [_vote(masks, part, threshold) for part in weights.split(_DETECTIONS) if len(part)]
    return RunLengths.cat(parts) if parts else masks[:0]


def _vote(masks: RunLengths, weights: Tensor, threshold: float) -> RunLengths:
    """`vote_masks` for a few sums with weights ``[M, R]``."""
    total, mask = weights.nonzero(as_tuple=True)
    least = max(threshold, 2 * _TOLERANCE) - _TOLERANCE
    return sum_masks(masks[mask], total, weights[total, mask], len(weights), least)


def tight_boxes(boxes: Tensor, masks: RunLengths) -> Tensor:
    """Replace boxes ``[M, 4]`` by the tightest ones around their masks; an empty mask keeps its box: ``[M, 4]``."""
    return torch.where((masks.area() > 0)[:, None], masks.boxes().to(boxes), boxes)
