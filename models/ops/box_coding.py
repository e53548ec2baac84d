"""Boxes as offsets from anchors, and back: what the regressors of R-CNN's line and of SSD predict.

Shape legend: ``...`` any leading dimensions, such as A anchors or A anchors by K classes. Boxes and anchors are
``x1, y1, x2, y2`` in one unit, of some area.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

UNWEIGHTED = (1.0, 1.0, 1.0, 1.0)
LARGEST_LOG_RATIO = math.log(1000 / 16)
"""Of a decoded side to the anchor's: what an anchor of 16 pixels would need to become one of 1,000."""


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: Sequence[float] = UNWEIGHTED) -> Tensor:
    """The offsets that lead from anchors to boxes.

    ``dx = w_x (x - x_a) / width_a`` and ``dw = w_w log(width / width_a)``, of centres and sides; likewise for y and
    height.

    Args:
        boxes: what is to be predicted, of some area: a side of 0 has no logarithm.
        anchors: where from.
        weights: of dx, dy, dw, dh. Targets that are divided by standard deviations 0.1, 0.1, 0.2, 0.2 (Faster R-CNN's
            head; SSD calls them variances) have weights 10, 10, 5, 5.

    Shape:
        - boxes: ``[..., 4]``
        - anchors: ``[..., 4]``, of a shape that broadcasts with that of ``boxes``
        - output: ``[..., 4]``: dx, dy, dw, dh; float32 at least

    Raises:
        ValueError: a last dimension other than 4, or weights that are not four numbers above 0.

    Reference:
        Girshick et al., "Rich feature hierarchies", CVPR 2014, appendix C, equations 6 to 9; Liu et al., "SSD", ECCV
        2016, equation 2.

    Example:
        >>> encode_boxes(torch.tensor([2.0, 0.0, 6.0, 4.0]), torch.tensor([0.0, 0.0, 4.0, 4.0]))
        tensor([0.5000, 0.0000, 0.0000, 0.0000])
    """
    _check(weights, boxes=boxes, anchors=anchors)
    boxes, anchors = _widened(boxes, anchors)
    centres, sides = _centres_and_sides(boxes)
    from_centres, from_sides = _centres_and_sides(anchors)
    by_x, by_y, by_width, by_height = weights
    moves = (centres - from_centres) / from_sides * boxes.new_tensor([by_x, by_y])
    return torch.cat([moves, (sides / from_sides).log() * boxes.new_tensor([by_width, by_height])], dim=-1)


def decode_boxes(
    deltas: Tensor, anchors: Tensor, weights: Sequence[float] = UNWEIGHTED, clip: float = LARGEST_LOG_RATIO
) -> Tensor:
    """The boxes to which offsets lead from anchors: the inverse of `encode_boxes`. They may leave the image.

    In float32 at least, since bfloat16 tells coordinates near 800 apart by 4 pixels only.

    Args:
        deltas: dx, dy, dw, dh.
        anchors: where from.
        weights: as in `encode_boxes`.
        clip: dw and dh are at most this, without their weight: the exponential stays finite.

    Shape:
        - deltas: ``[..., 4]``
        - anchors: ``[..., 4]``, of a shape that broadcasts with that of ``deltas``: ``[A, 1, 4]`` for ``[A, K, 4]``
        - output: ``[..., 4]``: ``x1, y1, x2, y2``; float32 at least

    Raises:
        ValueError: a last dimension other than 4, or weights that are not four numbers above 0.

    Example:
        >>> decode_boxes(torch.tensor([0.5, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 4.0, 4.0]))
        tensor([2., 0., 6., 4.])
    """
    _check(weights, deltas=deltas, anchors=anchors)
    deltas, anchors = _widened(deltas, anchors)
    from_centres, from_sides = _centres_and_sides(anchors)
    deltas = deltas / deltas.new_tensor(tuple(weights))
    centres = deltas[..., :2] * from_sides + from_centres
    half = deltas[..., 2:].clamp(max=clip).exp() * from_sides / 2
    return torch.cat([centres - half, centres + half], dim=-1)


def _centres_and_sides(boxes: Tensor) -> tuple[Tensor, Tensor]:
    sides = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + sides / 2, sides


def _widened(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(dtype), second.to(dtype)


def _check(weights: Sequence[float], **tensors: Tensor) -> None:
    for name, tensor in tensors.items():
        if tensor.ndim < 1 or tensor.shape[-1] != 4:
            raise ValueError(f"{name} must be [..., 4], got {list(tensor.shape)}")
    if len(weights) != 4 or min(weights) <= 0:
        raise ValueError(f"weights: {list(weights)}; give four numbers above 0, of dx, dy, dw, dh")
