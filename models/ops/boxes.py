"""Pure functions on boxes.

Shape legend: N and M boxes, each ``x1, y1, x2, y2`` with x to the right and y down, in pixels or, normalized, as
fractions of the image's width and height. Coordinates lie between pixels: the width of a box is ``x2 - x1``.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torchvision import ops


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of each box with the one at the same index, without a matrix of all pairs.

    A box with its corners in the wrong order covers nothing and has an IoU of 0 with every other, as have two boxes
    without area.

    Shape:
        - boxes: ``[..., 4]``
        - others: ``[..., 4]``, broadcastable with ``boxes``
        - output: ``[...]``, from 0 to 1

    Example:
        >>> paired_iou(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([0.3333])
    """
    intersection = _area(torch.maximum(boxes[..., :2], others[..., :2]), torch.minimum(boxes[..., 2:], others[..., 2:]))
    union = _area(boxes[..., :2], boxes[..., 2:]) + _area(others[..., :2], others[..., 2:]) - intersection
    iou = intersection / union.where(union > 0, torch.ones_like(union))
    return torch.where(union > 0, iou, torch.zeros_like(union))


def box_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of all pairs of boxes; 0, not NaN, for two boxes without area.

    Shape:
        - boxes, others: ``[N, 4]``, ``[M, 4]``; output: ``[N, M]``, from 0 to 1

    Raises:
        ValueError: Boxes are not ``[N, 4]``.

    Example:
        >>> box_iou_matrix(torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))
        tensor([[0.3333]])
    """
    return _matrix(ops.box_iou, boxes, others)


def generalized_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """GIoU of all pairs: the IoU minus the fraction of the smallest enclosing box that neither box covers.

    Shapes and errors are those of `box_iou_matrix`: ``[N, M]``, here from -1 to 1. See Rezatofighi et al., "Generalized
    intersection over union", CVPR 2019, algorithm 1.
    """
    return _matrix(ops.generalized_box_iou, boxes, others)


def distance_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """DIoU of all pairs: the IoU minus the squared distance of centers over the enclosing box's squared diagonal.

    Shapes and errors are those of `box_iou_matrix`: ``[N, M]``, here from -1 to 1. See Zheng et al., "Distance-IoU
    loss", AAAI 2020, equation 7.
    """
    return _matrix(ops.distance_box_iou, boxes, others)


def complete_iou_matrix(boxes: Tensor, others: Tensor) -> Tensor:
    """CIoU of all pairs: the DIoU minus a term for the aspect ratios.

    Shapes and errors are those of `box_iou_matrix`: ``[N, M]``, here at most 1. See Zheng et al., "Distance-IoU loss",
    AAAI 2020, equations 8 to 11.
    """
    return _matrix(ops.complete_box_iou, boxes, others)


def _matrix(measure: Callable[[Tensor, Tensor], Tensor], boxes: Tensor, others: Tensor) -> Tensor:
    """A measure of ``[N, 4]`` and ``[M, 4]`` as ``[N, M]``, without NaN."""
    check_boxes(boxes, "boxes")
    check_boxes(others, "others")
    matrix = measure(boxes, others)
    return matrix.masked_fill(matrix.isnan(), 0)  # 0 / 0, of two boxes without area


def check_boxes(boxes: Tensor, name: str) -> None:
    """Require boxes ``[N, 4]``.

    Raises:
        ValueError: They have another shape.
    """
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"{name}: must be [N, 4], x1, y1, x2, y2, got {list(boxes.shape)}")


def at_least_float32(values: Tensor) -> Tensor:
    """Values of any shape, such as ``[N, 4]``, in float32 or wider.

    bfloat16 represents integers exactly up to 256, float16 up to 2,048.
    """
    return values.to(torch.promote_types(values.dtype, torch.float32))


def common_float(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two tensors of any shape, such as ``[N, 4]``, in their common dtype, float32 or wider."""
    dtype = torch.promote_types(torch.promote_types(first.dtype, second.dtype), torch.float32)
    return first.to(dtype), second.to(dtype)


def _area(low: Tensor, high: Tensor) -> Tensor:
    """Areas ``[...]`` between corners ``[..., 2]``."""
    return (high - low).clamp(min=0).prod(dim=-1)


def ordered_corners(boxes: Tensor) -> Tensor:
    """Reorder coordinates so that ``x1 <= x2`` and ``y1 <= y2``.

    Shape:
        - boxes: ``[..., 4]``, any two opposite corners; output: ``[..., 4]``
    """
    first, second = boxes[..., :2], boxes[..., 2:]
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=-1)


def clip_boxes(boxes: Tensor, width: float = 1.0, height: float = 1.0) -> Tensor:
    """Clip boxes to the image. The default size of 1 x 1 is for normalized boxes.

    Shape:
        - boxes, output: ``[..., 4]``
    """
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def normalize_boxes(boxes: Tensor, width: int, height: int) -> Tensor:
    """Convert boxes ``[..., 4]`` from pixels to fractions of the image's sides, ``[..., 4]``."""
    return boxes / boxes.new_tensor([width, height, width, height])
