"""Losses between one predicted box and one true box, for the regression of boxes.

Shape legend: N pairs of boxes, ``x1, y1, x2, y2``. Coordinates are normalised to the image's sides where a loss depends
on their scale (L2 and smooth L1); GIoU and CIoU do not.
"""

from difflib import get_close_matches
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torchvision.ops import complete_box_iou_loss, generalized_box_iou_loss

BoxLossName = Literal["l2", "smooth_l1", "giou", "ciou"]

_LEAST_SIDE = 1e-6
"""Of a predicted box within GIoU and CIoU: of no side at all, CIoU's angle would have no derivative."""


def box_loss(predicted: Tensor, target: Tensor, kind: BoxLossName = "l2", beta: float = 1 / 9) -> Tensor:
    """Mean loss of predicted boxes against true ones, in float32 at least; exactly 0, with a live graph, for no boxes.

    - ``l2``: the squared Euclidean distance of the four coordinates, ``sum_i (b_i - t_i)^2``: regression as taught.
    - ``smooth_l1``: ``sum_i s(b_i - t_i)`` with ``s(d) = d^2 / (2 beta)`` where ``|d| < beta``, else
      ``|d| - beta / 2`` (Girshick, "Fast R-CNN", ICCV 2015, equation 3, for a beta of 1).
    - ``giou``: ``1 - IoU + (|C| - |union|) / |C|`` with C the smallest box around both (Rezatofighi et al.,
      "Generalized intersection over union", CVPR 2019, equation 1): from 0 to 2.
    - ``ciou``: ``1 - IoU`` plus the centres' squared distance over C's squared diagonal plus a term for the sides'
      ratio (Zheng et al., "Distance-IoU loss", AAAI 2020, equations 6 to 11).

    Args:
        predicted: Boxes whose corners are in order.
        target: True boxes, of some area.
        kind: One of the four.
        beta: Where ``smooth_l1`` turns from a square to a straight line, in the unit of the coordinates.

    Shape:
        - predicted: ``[N, 4]``
        - target: ``[N, 4]``
        - output: ``[]``

    Raises:
        ValueError: ``kind`` is none of the four, ``beta`` is not above 0, or the shapes are not as above.

    Example:
        >>> box_loss(torch.tensor([[0.0, 0.0, 0.5, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))
        tensor(0.2500)
    """
    _check(kind, beta)
    if predicted.shape != target.shape or predicted.ndim != 2 or predicted.shape[1] != 4:
        raise ValueError(
            f"predicted and true boxes must both be [N, 4], got {list(predicted.shape)} and {list(target.shape)}"
        )
    dtype = torch.promote_types(torch.promote_types(predicted.dtype, target.dtype), torch.float32)
    predicted, target = predicted.to(dtype), target.to(dtype)
    if kind == "l2":
        total = (predicted - target).square().sum()
    elif kind == "smooth_l1":
        total = nn.functional.smooth_l1_loss(predicted, target, reduction="sum", beta=beta)
    else:
        least = predicted[:, :2] + _LEAST_SIDE
        opened = torch.cat([predicted[:, :2], torch.maximum(predicted[:, 2:], least)], dim=1)
        loss = generalized_box_iou_loss if kind == "giou" else complete_box_iou_loss
        total = loss(opened, target, reduction="sum")
    return total / max(len(target), 1)


def _check(kind: str, beta: float) -> None:
    names = get_args(BoxLossName)
    if kind not in names:
        near = get_close_matches(str(kind), names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}"
        raise ValueError(f"there is no box loss {kind!r}; {hint}")
    if beta <= 0:
        raise ValueError(f"beta must be above 0, got {beta}")


class BoxLoss(nn.Module):
    """`box_loss` as a module, to be named in a YAML.

    Args:
        kind: ``l2``, ``smooth_l1``, ``giou`` or ``ciou``.
        beta: For ``smooth_l1``, in fractions of the image's sides.

    Raises:
        ValueError: ``kind`` is none of the four, or ``beta`` is not above 0.
    """

    def __init__(self, kind: BoxLossName = "l2", beta: float = 1 / 9) -> None:
        super().__init__()
        _check(kind, beta)
        self.kind, self.beta = kind, beta

    def forward(self, predicted: Tensor, target: Tensor) -> Tensor:
        """Mean loss of ``[N, 4]`` against ``[N, 4]``."""
        return box_loss(predicted, target, self.kind, self.beta)

    def extra_repr(self) -> str:
        """The settings, for ``print(model)``."""
        return f"kind={self.kind!r}" + (f", beta={self.beta:.4g}" if self.kind == "smooth_l1" else "")
