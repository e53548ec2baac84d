"""Pure functions on boxes.

Shape legend: N boxes, each ``x1, y1, x2, y2`` with x to the right and y down, in pixels or, normalised, as fractions of
the image's width and height. A box lies between pixels: its width is ``x2 - x1``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import ops


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


def box_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each box with each other; 0, and not NaN, for two boxes without area.

    Shape:
        - boxes: ``[N, 4]``
        - others: ``[M, 4]``
        - output: ``[N, M]``, from 0 to 1

    Raises:
        ValueError: boxes that are not ``[N, 4]``.

    Example:
        >>> box_iou_matrix(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([[0.3333]])
    """
    return _matrix(ops.box_iou, boxes, others)


def generalized_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """GIoU of each box with each other: the IoU, less the share of the smallest box around both that is in neither.

    Shape:
        - boxes: ``[N, 4]``
        - others: ``[M, 4]``
        - output: ``[N, M]``, from -1 to 1

    Raises:
        ValueError: boxes that are not ``[N, 4]``.

    Reference:
        Rezatofighi et al., "Generalized intersection over union", CVPR 2019, algorithm 1.
    """
    return _matrix(ops.generalized_box_iou, boxes, others)


def distance_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """DIoU of each box with each other: the IoU, less the centres' distance over the diagonal around both, squared.

    Shape:
        - boxes: ``[N, 4]``
        - others: ``[M, 4]``
        - output: ``[N, M]``, from -1 to 1

    Raises:
        ValueError: boxes that are not ``[N, 4]``.

    Reference:
        Zheng et al., "Distance-IoU loss", AAAI 2020, equation 7.
    """
    return _matrix(ops.distance_box_iou, boxes, others)


def complete_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """CIoU of each box with each other: DIoU, less a term for the sides' ratio.

    Shape:
        - boxes: ``[N, 4]``
        - others: ``[M, 4]``
        - output: ``[N, M]``, at most 1

    Raises:
        ValueError: boxes that are not ``[N, 4]``.

    Reference:
        Zheng et al., "Distance-IoU loss", AAAI 2020, equations 8 to 11.
    """
    return _matrix(ops.complete_box_iou, boxes, others)


def _matrix(measure: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, others: Tensor) -> Tensor:
    check_boxes(boxes, "boxes")
    check_boxes(others, "others")
    matrix = measure(boxes, others)
    return matrix.masked_fill(matrix.isnan(), 0)  # no area, no union: 0 / 0


def check_boxes(boxes: Tensor, name: str) -> None:
    """Refuse what is not ``[N, 4]``.

    Raises:
        ValueError: says the shape.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name} must be [N, 4], x1 y1 x2 y2, got {list(boxes.shape)}")


def at_least_float32(values: Tensor) -> Tensor:
    """The values, in float32 if they were narrower: bfloat16 tells pixels apart up to 256, float16 up to 2,048."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


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
