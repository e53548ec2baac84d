"""Losses for box regression, between a predicted and a ground-truth box.

Shape legend: N pairs of boxes, ``x1, y1, x2, y2``. L2 and smooth L1 depend on the scale of coordinates, so normalize
them to the image's sides; GIoU and CIoU do not.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

from .boxes import common_float
from .checks import check_choice

BoxLossName = Literal["l2", "smooth_l1", "giou", "ciou"]

_MIN_SIDE = 1e-6
"""Minimum side of a predicted box in GIoU and CIoU. At a side of 0, CIoU's angle has no derivative."""


def box_loss(predicted: Tensor, target: Tensor, kind: BoxLossName = "l2", beta: float = 1 / 9) -> Tensor:
    """Mean loss of predicted boxes, in float32 or wider. Without boxes it is exactly 0, with a live graph.

    - ``l2``: the squared Euclidean distance of the four coordinates, ``sum_i (b_i - t_i)^2``: regression as taught.
    - ``smooth_l1``: ``sum_i s(b_i - t_i)`` with ``s(d) = d^2 / (2 beta)`` where ``|d| < beta``, else
      ``|d| - beta / 2`` (Girshick, "Fast R-CNN", ICCV 2015, equation 3, for a beta of 1).
    - ``giou``: ``1 - IoU + (|C| - |union|) / |C|`` with C the smallest box around both (Rezatofighi et al.,
      "Generalized intersection over union", CVPR 2019, equation 1): from 0 to 2.
    - ``ciou``: ``1 - IoU`` plus the squared distance of centers over C's squared diagonal plus a term for the aspect
      ratios (Zheng et al., "Distance-IoU loss", AAAI 2020, equations 6 to 11).

    Args:
        predicted: Predicted boxes with ``x1 <= x2`` and ``y1 <= y2``.
        target: Ground-truth boxes with an area above 0.
        kind: One of the four losses above.
        beta: Difference at which ``smooth_l1`` changes from quadratic to linear, in the unit of the coordinates.

    Shape:
        - predicted: ``[N, 4]``
        - target: ``[N, 4]``
        - output: a scalar

    Raises:
        ValueError: ``kind`` is none of the four, ``beta`` is not above 0, or the shapes are not as above.

    Example:
        >>> box_loss(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
        tensor(0.2500)
    """
    _check(kind, beta)
    if predicted.shape != target.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(f"predicted: must be [N, 4], as target, got {list(predicted.shape)} and {list(target.shape)}")
    predicted, target = common_float(predicted, target)
    if kind == "l2":
        total = (predicted - target).square().sum()
    elif kind == "smooth_l1":
        total = nn.functional.smooth_l1_loss(predicted, target, reduction="sum", beta=beta)
    else:
        lower_right = torch.maximum(predicted[:, 2:], predicted[:, :2] + _MIN_SIDE)
        loss = generalized_box_iou_loss if kind == "giou" else complete_box_iou_loss
        total = loss(torch.cat([predicted[:, :2], lower_right], dim=1), target, reduction="sum")
    return total / max(len(target), 1)


def _check(kind: str, beta: float) -> None:
    check_choice(get_args(BoxLossName), kind=kind)
    if not beta > 0:
        raise ValueError(f"beta: must be above 0, got {beta}")


class BoxLoss(nn.Module):
    """`box_loss` as a module, for a YAML.

    Args:
        kind: ``l2``, ``smooth_l1``, ``giou`` or ``ciou``.
        beta: Difference at which ``smooth_l1`` changes from quadratic to linear, in fractions of the image's sides.

    Raises:
        ValueError: ``kind`` is none of the four, or ``beta`` is not above 0.
    """

    def __init__(self, kind: BoxLossName = "l2", beta: float = 1 / 9) -> None:
        super().__init__()
        _check(kind, beta)
        self.kind, self.beta = kind, beta

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean loss of predicted ``[N, 4]`` against target ``[N, 4]``, a scalar."""
        return box_loss(predicted, target, self.kind, self.beta)

    def extra_repr(self) -> str:
        """The settings, for ``print(model)``."""
        return f"kind={self.kind!r}" + (f", beta={self.beta:.4g}" if self.kind == "smooth_l1" else "")
