"""Metrics of classification with localization, as in ILSVRC."""

import torch
from torch import Tensor
from torchmetrics import Metric

from ...models.ops.boxes import clip_boxes, paired_iou

CORRECT_IOU = 0.5
"""Minimum intersection over union of a correct box in ILSVRC's localization error."""


class LocalizationMetrics(Metric):
    """Errors of labels, of boxes, and of both together, as in ILSVRC's classification with localization.

    The localization of an image is correct when label and box are: the label is that of the ground truth, and the IoU
    of the box with the ground-truth box is 0.5 or more. For the top-5 error, one of the five best labels, each with its
    own box, has to be correct. That is the rule of ILSVRC (Russakovsky et al., IJCV 2015, section 4.2), with two
    differences. An image here has one ground-truth box, where ILSVRC takes the best of all objects of the class: errors
    here are higher or equal. And boxes lie between pixels, where the development kit counts the last pixel as inside.

    Predicted boxes are first clipped to the image. With one box per class, the box of an image is that of its predicted
    label.

    Computed: ``cls_err``, ``loc_err`` (top-1); ``cls_err5``, ``loc_err5`` (top-5, with six classes or more); ``acc``
    and ``loc_acc``, 1 minus the first two; and for the box, with any label, ``box_iou`` (mean IoU), ``box_acc50``
    and ``box_acc75`` (share of images with an IoU of at least 0.5 and 0.75). All are 0 before the first image.

    Args:
        num_classes: Number of classes K.

    Shape:
        - logits: ``[B, K]``
        - boxes: ``[B, 4]`` or ``[B, K, 4]``, predicted, as fractions of the image's sides
        - labels: ``[B]``
        - target: ``[B, 4]``, ground-truth boxes in the same unit

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
    correct: Tensor

    _counted = ("cls", "cls5", "loc", "loc5", "box50", "box75")

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("images", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("iou", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros(len(self._counted), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, boxes: Tensor, labels: Tensor, target: Tensor) -> None:
        """Add a batch: logits ``[B, K]``, boxes ``[B, 4]`` or ``[B, K, 4]``, labels ``[B]``, target ``[B, 4]``."""
        top = logits.topk(min(5, self.num_classes), dim=1).indices  # [B, k], by descending logit
        iou = paired_iou(clip_boxes(boxes_of(boxes.float(), top)), target.float()[:, None])  # [B, k]
        right_label = top == labels[:, None]
        localized = right_label & (iou >= CORRECT_IOU)
        first = iou[:, 0]
        counted = (
            right_label[:, 0], right_label.any(1), localized[:, 0], localized.any(1), first >= 0.5, first >= 0.75
        )  # fmt: skip
        self.images += len(labels)
        self.iou += first.sum()
        self.correct += torch.stack([mask.sum() for mask in counted])

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, a scalar each."""
        total = self.images.clamp(min=1)
        share = dict(zip(self._counted, self.correct / total, strict=True))
        any_images = (self.images > 0).float()
        result = {"acc": share["cls"], "cls_err": any_images - share["cls"]}
        result |= {"loc_acc": share["loc"], "loc_err": any_images - share["loc"]}
        if self.num_classes > 5:
            result |= {"cls_err5": any_images - share["cls5"], "loc_err5": any_images - share["loc5"]}
        return result | {"box_iou": self.iou / total, "box_acc50": share["box50"], "box_acc75": share["box75"]}


def boxes_of(boxes: Tensor, labels: Tensor) -> Tensor:
    """Select the boxes of the given labels.

    Shape:
        - boxes: ``[B, 4]``, one box for any label; or ``[B, K, 4]``
        - labels: ``[B, k]``
        - output: ``[B, k, 4]``
    """
    if boxes.ndim == 2:
        return boxes[:, None].expand(-1, labels.shape[1], -1)
    return boxes.gather(1, labels[..., None].expand(-1, -1, 4))
