"""SSD's loss: classes of matched default boxes and of the hardest others, and offsets of the matched.

Shape legend: B images, A default boxes, K classes; logits are ``[B, A, K + 1]``, the background first.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...ops.box_coding import encode_boxes
from ...ops.boxes import at_least_float32

BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Of the offsets dx, dy, dw, dh: one over SSD's "variances" 0.1, 0.1, 0.2, 0.2."""


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
    """Softmax cross-entropy of classes and smooth L1 of offsets, both over the number of matched boxes in the batch.

    Of the boxes without an object only the hardest of each image count (`hardest_negatives`): so an image without
    objects adds nothing, and a batch without any has losses of exactly 0.

    Args:
        logits: of background and classes.
        deltas: predicted offsets, of which ``box_weights`` times what leads from default box to object is expected.
        matches: object of each default box, below 0 where it has none.
        boxes: of each image the objects', ``[N_i, 4]``.
        labels: of each image the objects', int64 ``[N_i]``, 0 … K-1.
        anchors: the default boxes.
        negatives: how many boxes without an object count for each that has one.
        box_weights: of dx, dy, dw, dh.

    Shape:
        - logits: ``[B, A, K + 1]``
        - deltas: ``[B, A, 4]``
        - matches: int64 ``[B, A]``
        - anchors: ``[A, 4]``
        - output: ``loss_class`` and ``loss_box``, scalars; float32 at least

    Reference:
        Liu et al., "SSD", ECCV 2016, equations 1 to 3. With nothing matched, the equations' loss is 0.
    """
    logits, deltas = at_least_float32(logits), at_least_float32(deltas)
    image, anchor = (matches >= 0).nonzero(as_tuple=True)  # [P] each
    starts = torch.tensor([0, *(len(each) for each in labels[:-1])], device=matches.device).cumsum(0)
    objects = matches[image, anchor] + starts[image]
    wanted = encode_boxes(torch.cat(list(boxes))[objects], anchors[anchor], box_weights).to(deltas.dtype)
    count = max(len(objects), 1)
    box = F.smooth_l1_loss(deltas[image, anchor], wanted, reduction="sum") / count

    classes = torch.zeros_like(matches)
    classes[image, anchor] = torch.cat(list(labels))[objects] + 1
    cross_entropy = F.cross_entropy(logits.flatten(0, 1), classes.flatten(), reduction="none").view_as(classes)
    counted = (classes > 0) | hardest_negatives(cross_entropy.detach(), classes > 0, negatives)
    return {"loss_class": cross_entropy[counted].sum() / count, "loss_box": box}


def hardest_negatives(losses: Tensor, positive: Tensor, ratio: float = 3.0) -> Tensor:
    """Of each image the negatives of the largest loss, ``ratio`` times as many as it has positives.

    All of them, if there are not so many. As in the authors' code, each image is looked at by itself: one without
    positives has no negatives either.

    Args:
        losses: each box's.
        positive: which boxes have an object.
        ratio: negatives per positive; their number is rounded down.

    Shape:
        - losses: ``[B, A]``
        - positive: bool ``[B, A]``
        - output: bool ``[B, A]``

    Raises:
        ValueError: a ratio below 0.

    Reference:
        Liu et al., "SSD", ECCV 2016, section 2.2, "hard negative mining", and the authors' ``bbox_util.cpp``
        (``MAX_NEGATIVE``).

    Example:
        >>> losses, positive = torch.tensor([[9.0, 1.0, 3.0, 2.0]]), torch.tensor([[True, False, False, False]])
        >>> hardest_negatives(losses, positive, ratio=2)
        tensor([[False, False,  True,  True]])
    """
    if ratio < 0:
        raise ValueError(f"ratio={ratio}: give a number of negatives per positive, 0 or more")
    found = positive.sum(1, keepdim=True)
    wanted = torch.minimum((found * ratio).floor(), positive.shape[1] - found)
    order = losses.masked_fill(positive, -torch.inf).argsort(1, descending=True)
    first = torch.arange(positive.shape[1], device=losses.device) < wanted
    return torch.zeros_like(positive).scatter(1, order, first)
