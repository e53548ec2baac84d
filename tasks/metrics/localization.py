"""Metrics of classification with localization."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ...models.ops.boxes import clip_boxes, paired_iou

RIGHT_IOU = 0.5
"""From which intersection over union on a box counts as right in the localization error of ILSVRC."""


class LocalizationMetrics(Metric):
    """Errors of labels, of boxes, and of both together, as in ILSVRC's classification with localization.

    An image's localization is right when label and box are: the label is the true one, and the IoU of its box with the
    true box is 0.5 or more. For the top-5 error one of the five best labels, each with its own box, has to be right.
    That is the rule of ILSVRC (Russakovsky et al., IJCV 2015, section 4.2), with two differences. An image here has one
    true box, where ILSVRC takes the best of all objects of the class: errors here are the higher ones, or equal. And a
    box lies between pixels, where the development kit counts the last pixel as inside.

    Predicted boxes are clipped to the image first. Where there is one box for each class, the box of an image is that
    of the label predicted.

    Computed: ``cls_err``, ``loc_err`` (top-1); ``cls_err5``, ``loc_err5`` (top-5, from six classes on); ``acc`` and
    ``loc_acc``, one less the first two; and of the box whatever the label, ``box_iou`` (mean IoU), ``box_acc50`` and
    ``box_acc75`` (share of images with an IoU of at least 0.5 and 0.75). All are 0 before the first image.

    Args:
        num_classes: Classes K.

    Shape:
        - logits: ``[B, K]``
        - boxes: ``[B, 4]``, or ``[B, K, 4]``, predicted, in fractions of the image's sides
        - labels: ``[B]``
        - truth: ``[B, 4]``, in the same unit

    Example:
        >>> metrics = LocalizationMetrics(2)
        >>> box = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
        >>> metrics.update(torch.tensor([[1.0, 0.0]]), box, torch.tensor([0]), torch.tensor([[0.0, 0.0, 0.8, 1.0]]))
        >>> metrics.compute()["box_iou"]
        tensor(0.6250)
    """

    full_state_update = False
    images: Tensor
    iou: Tensor
    right: Tensor

    _counted = ("cls", "cls5", "loc", "loc5", "box50", "box75")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros(len(self._counted), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, boxes: Tensor, labels: Tensor, truth: Tensor) -> None:
        """Count a batch."""
        best = logits.topk(min(5, self.num_classes), dim=1).indices  # [B, k], the best first
        iou = paired_iou(clip_boxes(boxes_of(boxes.float(), best)), truth.float()[:, None])  # [B, k]
        named = best == labels[:, None]
        located = named & (iou >= RIGHT_IOU)
        first = iou[:, 0]
        counted = (named[:, 0], named.any(1), located[:, 0], located.any(1), first >= 0.5, first >= 0.75)
        self.images += len(labels)
        self.iou += first.sum()
        self.right += torch.stack([which.sum() for which in counted])

    def compute(self) -> dict[str, Tensor]:
        """The figures, by name."""
        total = self.images.clamp(min=1)
        share = dict(zip(self._counted, self.right / total, strict=True))
        seen = (self.images > 0).float()
        result = {"acc": share["cls"], "cls_err": seen - share["cls"]}
        result |= {"loc_acc": share["loc"], "loc_err": seen - share["loc"]}
        if self.num_classes > 5:
            result |= {"cls_err5": seen - share["cls5"], "loc_err5": seen - share["loc5"]}
        return result | {"box_iou": self.iou / total, "box_acc50": share["box50"], "box_acc75": share["box75"]}


def boxes_of(boxes: Tensor, labels: Tensor) -> Tensor:
    """The boxes of given labels.

    Shape:
        - boxes: ``[B, 4]``, one box whatever the label; or ``[B, K, 4]``
        - labels: ``[B, k]``
        - output: ``[B, k, 4]``
    """
    if boxes.ndim == 2:
        return boxes[:, None].expand(-1, labels.shape[1], -1)
    return boxes.gather(1, labels[..., None].expand(-1, -1, 4))
