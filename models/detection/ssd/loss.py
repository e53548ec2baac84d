"""SSD's loss: classes of matched default boxes and of hard negatives, and offsets of the matched boxes.

Shape legend: B images, A default boxes, K classes; logits are ``[B, A, K + 1]``, the background first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...ops.box_coding import encode_boxes
from ...ops.boxes import at_least_float32

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Weights of the offsets dx, dy, dw, dh: the inverse of SSD's "variances" 0.1, 0.1, 0.2, 0.2."""


def multibox_losses(
    logits: Tensor,
    deltas: Tensor,
    matches: Tensor,
    boxes: Sequence[Tensor],
    labels: Sequence[Tensor],
    anchors: Tensor,
    negatives: float = 3.0,
    box_weights: Sequence[float] = BOX_WEIGHTS,
) -> dict[str, Tensor]:
    """Softmax cross-entropy of classes and smooth L1 of offsets, divided by the number of matched boxes in the batch.

    Of the unmatched boxes, only the hardest of each image count (`hard_negative_mining`). An image without objects
    therefore adds nothing, and a batch without objects has losses of exactly 0.

    Args:
        logits: Logits of the background and the classes.
        deltas: Predicted offsets. Their targets are ``box_weights`` times the offsets from default box to object.
        matches: Index of each default box's object in its image, below 0 if unmatched.
        boxes: Ground-truth boxes of each image, ``[N_i, 4]``.
        labels: Ground-truth labels of each image, int64 ``[N_i]``, 0 … K-1.
        anchors: The default boxes.
        negatives: Number of unmatched boxes that count per matched one.
        box_weights: Weights of dx, dy, dw, dh.

    Shape:
        - logits: ``[B, A, K + 1]``
        - deltas: ``[B, A, 4]``
        - matches: int64 ``[B, A]``
        - anchors: ``[A, 4]``
        - output: ``loss_class`` and ``loss_box``, scalars, in float32 or wider

    Reference:
        Liu et al., "SSD", ECCV 2016, equations 1 to 3. If nothing is matched, the loss of the equations is 0.
    """
    logits, deltas = at_least_float32(logits), at_least_float32(deltas)
    image, anchor = (matches >= 0).nonzero(as_tuple=True)  # [P] each, P matched boxes
    starts = torch.tensor([0, *(len(each) for each in labels[:-1])], device=matches.device).cumsum(0)  # [B]
    objects = matches[image, anchor] + starts[image]  # [P], among the objects of the whole batch
    target = encode_boxes(torch.cat(list(boxes))[objects], anchors[anchor], box_weights).to(deltas.dtype)
    count = max(len(objects), 1)
    box = F.smooth_l1_loss(deltas[image, anchor], target, reduction="sum") / count

    classes = torch.zeros_like(matches)
    classes[image, anchor] = torch.cat(list(labels))[objects] + 1
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
    counted = (classes > 0) | hard_negative_mining(cross_entropy.detach(), classes > 0, negatives)
    return {"loss_class": cross_entropy[counted].sum() / count, "loss_box": box}


def hard_negative_mining(losses: Tensor, positive: Tensor, ratio: float = 3.0) -> Tensor:
    """Select the negatives with the highest loss of each image, ``ratio`` times as many as it has positives.

    All negatives are selected if there are fewer. As in the authors' code, each image is mined separately: one without
    positives has no negatives either.

    Args:
        losses: Loss of each box.
        positive: Which boxes are matched.
        ratio: Number of negatives per positive; the product is rounded down.

    Shape:
        - losses: ``[B, A]``
        - positive: bool ``[B, A]``
        - output: bool ``[B, A]``

    Raises:
        ValueError: ``ratio`` is below 0.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2, "hard negative mining", and the authors' ``bbox_util.cpp``
        (``MAX_NEGATIVE``).

    Example:
        >>> losses, positive = torch.tensor([[9.0, 1.0, 3.0, 2.0]]), torch.tensor([[True, False, False, False]])
        >>> hard_negative_mining(losses, positive, ratio=2)
        tensor([[False, False,  True,  True]])
    """
    if ratio < 0:
        raise ValueError(f"ratio: must be >= 0, got {ratio}")
    positives = positive.sum(1, keepdim=True)  # [B, 1]
    negatives = torch.minimum((positives * ratio).floor(), positive.shape[1] - positives)
    order = losses.masked_fill(positive, -torch.inf).argsort(1, descending=True)
    first = torch.arange(positive.shape[1], device=losses.device) < negatives  # [B, A]
    return torch.zeros_like(positive).scatter(1, order, first)
