"""Pure functions on boxes.

Shape legend: N boxes, each ``x1, y1, x2, y2`` with x to the right and y down, in pixels or, normalised, as fractions of
the image's width and height. A box lies between pixels: its width is ``x2 - x1``.
"""

import torch
from torch import Tensor


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each box with the one in the same place; no loop, no matrix.

    A box whose corners are the wrong way round covers nothing, and so has an IoU of 0 with every other; so have two
    boxes without area.

    Shape:
        - boxes: ``[..., 4]``
        - others: ``[..., 4]``, of a shape that broadcasts with that of ``boxes``
        - output: ``[...]``, from 0 to 1

    Example:
        >>> paired_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([0.3333])
    """
    shared = _area(torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - shared
    return torch.where(union > 0, shared / union.where(union > 0, torch.ones_like(union)), torch.zeros_like(union))


def _area(low: Tensor, high: Tensor) -> Tensor:
    return (high - low).clamp(min=0).prod(dim=-1)


def ordered_corners(boxes: Tensor) -> Tensor:
    """The same rectangles with ``x1 <= x2`` and ``y1 <= y2``, whichever two opposite corners were given.

    Shape:
        - boxes: ``[..., 4]``
        - output: ``[..., 4]``
    """
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def clip_boxes(boxes: Tensor, width: float = 1.0, height: float = 1.0) -> Tensor:
    """What of each box lies in the image: of size 1 x 1 for normalised boxes.

    Shape:
        - boxes: ``[..., 4]``
        - output: ``[..., 4]``
    """
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def normalize_boxes(boxes: Tensor, width: int, height: int) -> Tensor:
    """Boxes in pixels as fractions of their image's sides, ``[..., 4]``."""
    return boxes / boxes.new_tensor([width, height, width, height])
