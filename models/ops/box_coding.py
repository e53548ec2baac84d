"""Boxes as offsets from anchors, and back, as predicted by the R-CNN family and SSD.

Shape legend: ``...`` any leading dimensions, such as A anchors or A anchors by K classes. Boxes and anchors are
``x1, y1, x2, y2`` in one unit, with an area above 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .boxes import common_float

UNWEIGHTED = (1.0, 1.0, 1.0, 1.0)
MAX_LOG_RATIO = math.log(1000 / 16)
"""Maximum log ratio of a decoded side to the anchor's: it turns an anchor of 16 pixels into a box of 1,000."""


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = UNWEIGHTED) -> Tensor:
    """Encode boxes as offsets from anchors.

    ``dx = w_x (x - x_a) / width_a`` and ``dw = w_w log(width / width_a)``, where x is the center; similarly for y and
    height.

    Args:
        boxes: Boxes to predict. Their sides must be above 0, since their logarithm is taken.
        anchors: Boxes that the offsets start from.
        weights: Weights of dx, dy, dw, dh. Targets divided by standard deviations 0.1, 0.1, 0.2, 0.2 (Faster R-CNN's
            head; SSD calls them variances) have weights 10, 10, 5, 5.

    Shape:
        - boxes: ``[..., 4]``
        - anchors: ``[..., 4]``, broadcastable with ``boxes``
        - output: ``[..., 4]``: dx, dy, dw, dh, in float32 or wider

    Raises:
        ValueError: The last dimension is not 4, or weights are not four numbers above 0.

    Reference:
        Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C, equations 6 to 9; Liu et al., "SSD", ECCV
        2016, equation 2.

    Example:
        >>> encode_boxes(torch.tensor([2.0, 0.0, 6.0, 4.0]), torch.tensor([0.0, 0.0, 4.0, 4.0]))
        tensor([0.5000, 0.0000, 0.0000, 0.0000])
    """
    _check(weights, boxes=boxes, anchors=anchors)
    boxes, anchors = common_float(boxes, anchors)
    centers, sides = _centers_and_sides(boxes)
    anchor_centers, anchor_sides = _centers_and_sides(anchors)
    x_weight, y_weight, width_weight, height_weight = weights
    shifts = (centers - anchor_centers) / anchor_sides * boxes.new_tensor([x_weight, y_weight])
    return torch.cat([shifts, (sides / anchor_sides).log() * boxes.new_tensor([width_weight, height_weight])], dim=-1)


def decode_boxes(
    deltas: Tensor, anchors: Tensor, weights: Sequence[float] = UNWEIGHTED, clip: float = MAX_LOG_RATIO
) -> Tensor:
    """Decode offsets from anchors, the inverse of `encode_boxes`. Boxes may leave the image.

    Computed in float32 or wider, since bfloat16 has a resolution of 4 pixels near 800.

    Args:
        deltas: Offsets dx, dy, dw, dh.
        anchors: Boxes that the offsets start from.
        weights: Weights of the offsets, as in `encode_boxes`.
        clip: Maximum of dw and dh without their weight, which keeps the exponential finite.

    Shape:
        - deltas: ``[..., 4]``
        - anchors: ``[..., 4]``, broadcastable with ``deltas``: ``[A, 1, 4]`` for ``[A, K, 4]``
        - output: ``[..., 4]``: x1, y1, x2, y2, in float32 or wider

    Raises:
        ValueError: The last dimension is not 4, or weights are not four numbers above 0.

    Example:
        >>> decode_boxes(torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 4.0, 4.0]))
        tensor([2., 0., 6., 4.])
    """
    _check(weights, deltas=deltas, anchors=anchors)
    deltas, anchors = common_float(deltas, anchors)
    anchor_centers, anchor_sides = _centers_and_sides(anchors)
    deltas = deltas / deltas.new_tensor(tuple(weights))
    centers = deltas[..., :2] * anchor_sides + anchor_centers
    half = deltas[..., 2:].clamp(max=clip).exp() * anchor_sides / 2
    return torch.cat([centers - half, centers + half], dim=-1)


def _centers_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centers and sides of boxes ``[..., 4]``, ``[..., 2]`` each."""
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def _check(weights: Sequence[float], **tensors: Tensor) -> None:
    """Require four positive weights, and tensors ``[..., 4]``."""
    for name, tensor in tensors.items():
        if tensor.ndim < 1 or tensor.shape[-1] != 4:
            raise ValueError(f"{name}: must be [..., 4], got {list(tensor.shape)}")
    if len(weights) != 4 or min(weights) <= 0:
        raise ValueError(f"weights: must be four numbers above 0, for dx, dy, dw, dh, got {list(weights)}")
