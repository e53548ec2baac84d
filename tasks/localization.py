"""Classification with localization: what is it, and where."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from ..datamodules.batches import LocalizationBatch
from ..models.ops.box_losses import BoxLoss
from ..models.ops.boxes import clip_boxes, normalize_boxes
from .base import Task
from .metrics.localization import LocalizationMetrics, boxes_of
from .schedules import Schedule


class Localization(Task):
    """One label and one box an image, trained by the weighted sum of cross-entropy and a loss of the box.

    Logged: ``val/acc``, ``val/loc_acc`` and what else `LocalizationMetrics` computes, ``val/loss``, and the same under
    ``test/``; ``train/loss_class`` and ``train/loss_box``, weighted as they are summed.

    Args:
        model: gives logits ``[B, K]`` and boxes for images ``[B, 3, H, W]``: ``[B, 4]``, or ``[B, K, 4]`` with one for
            each class, x1, y1, x2, y2 as fractions of the image's sides; such as a `striate.models.Localizer`.
        num_classes: K; None: ``model.num_classes``.
        optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias: see `Task`.
        box_loss: loss of predicted boxes ``[N, 4]`` against true ones, both as fractions of the image's sides; None:
            the squared distance (`striate.models.BoxLoss`). Of boxes for each class that of the true class is trained.
        class_weight: of the cross-entropy in the sum.
        box_weight: of the box's loss in the sum.
        label_smoothing: share of the target spread evenly over all classes, in training.
        top_k: how many of the best classes a prediction names.

    Raises:
        ValueError: when K is not known, is not the model's, or a number is out of its range.
    """

    monitor: ClassVar[str] = "val/loc_acc"
    mode: ClassVar[Literal["min", "max"]] = "max"
    batch_task: ClassVar[str] = "localization"

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
        box_loss: nn.Module | None = None,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        label_smoothing: float = 0.0,
        top_k: int = 5,
    ) -> None:
        super().__init__(model, optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias)
        own = getattr(model, "num_classes", None)
        known = own if num_classes is None else num_classes
        if known is None:
            raise ValueError(
                f"num_classes: {type(model).__name__} does not say how many classes it tells apart; "
                "set model.init_args.num_classes"
            )
        if own is not None and own != known:
            raise ValueError(f"num_classes: {known}, but the model {type(model).__name__} tells {own} classes apart")
        if known < 2:
            raise ValueError(f"num_classes: {known}; telling classes apart needs 2 or more")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1)")
        if min(class_weight, box_weight) < 0 or class_weight + box_weight == 0:
            raise ValueError(
                f"class_weight: {class_weight}, box_weight: {box_weight}; give numbers of at least 0, not both 0"
            )
        if top_k < 1:
            raise ValueError(f"top_k: {top_k}; give 1 or more")
        self._num_classes: int = known
        self.box_loss = BoxLoss() if box_loss is None else box_loss
        self.class_weight, self.box_weight = class_weight, box_weight
        self.label_smoothing, self.top_k = label_smoothing, min(top_k, known)

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes

    def losses(self, batch: LocalizationBatch) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """The two losses, weighted; and logits ``[B, K]`` with boxes, as the model gives them.

        Raises:
            ValueError: when a true box does not lie in its image. Looked for on a CPU only: a GPU would have to be
                waited for, and the data modules have looked at each sample where its name is known.
        """
        images, labels = batch["image"], batch["label"]
        if batch["box"].device.type == "cpu":
            check_boxes(batch["box"], *images.shape[-2:])
        logits, boxes = self._outputs(images)
        truth = normalize_boxes(batch["box"], images.shape[-1], images.shape[-2])
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing) / max(len(labels), 1)
        of_truth = boxes_of(boxes, labels[:, None])[:, 0]  # [B, 4]
        weighted = {
            "loss_class": self.class_weight * loss,
            "loss_box": self.box_weight * self.box_loss(of_truth, truth),
        }
        return weighted, (logits, boxes)

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the model gives, if it is what it should be."""
        outputs = self.model(images)
        if not (isinstance(outputs, tuple) and len(outputs) == 2):
            raise TypeError(
                f"{type(self.model).__name__} gave {type(outputs).__name__}, but localization takes a pair of logits "
                "and boxes; put a striate.models.Localizer over your backbone"
            )
        logits, boxes = outputs
        size, count = len(images), self.num_classes
        if logits.shape != (size, count) or boxes.shape not in ((size, 4), (size, count, 4)):
            raise ValueError(
                f"{type(self.model).__name__} gave logits {list(logits.shape)} and boxes {list(boxes.shape)} for "
                f"{size} images of {count} classes, not [{size}, {count}] and [{size}, 4] or [{size}, {count}, 4]"
            )
        return logits, boxes

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Errors of label and box, and the confusion matrix."""
        count = self.num_classes
        return {"localization": LocalizationMetrics(count), "confusion": MulticlassConfusionMatrix(count)}

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: tuple[Tensor, Tensor], batch: LocalizationBatch
    ) -> None:
        """Count a batch."""
        logits, boxes = outputs
        height, width = batch["image"].shape[-2:]
        truth = normalize_boxes(batch["box"], width, height)
        metrics["localization"].update(logits, boxes, batch["label"], truth)
        metrics["confusion"].update(logits, batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """The figures of `LocalizationMetrics`."""
        return metrics["localization"].compute()

    def confusion_matrix(self, stage: Literal["val", "test"]) -> Tensor:
        """Counts ``[K, K]`` of the stage's last epoch on this rank or, after its end, over all: truth by prediction."""
        return self.metrics(stage)["confusion"].compute()

    def predict(self, images: Tensor) -> list[dict[str, Any]]:
        """Label, score and box of each image, and the `top_k` best classes.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries: ``label`` int, ``score`` float, ``box`` float32 ``[4]``, x1, y1, x2, y2 in pixels
              of the image given, clipped to it; ``top_labels`` list of int, ``top_scores`` list of float in descending
              order; and, for a model with a box for each class, ``top_boxes`` float32 ``[top_k, 4]``.
        """
        logits, boxes = self._outputs(images)
        scores, labels = logits.float().softmax(dim=1).topk(self.top_k, dim=1)
        height, width = images.shape[-2:]
        found = clip_boxes(boxes_of(boxes.float(), labels)).cpu() * torch.tensor([width, height] * 2)  # [B, top_k, 4]
        return [
            {"label": top[0], "score": values[0], "box": own[0], "top_labels": top, "top_scores": values}
            | ({"top_boxes": own} if boxes.ndim == 3 else {})
            for top, values, own in zip(labels.tolist(), scores.tolist(), found, strict=True)
        ]

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One prediction an image, its boxes in pixels of the file that the image was read from."""
        predictions = super().predict_step(batch, batch_idx, dataloader_idx)
        if "corners" in batch:
            for one, corners, size in zip(
                predictions, batch["corners"].cpu(), batch["file_size"].tolist(), strict=True
            ):
                for key in one.keys() & {"box", "top_boxes"}:
                    one[key] = boxes_in_file(one[key], corners, size[1], size[0])
        return predictions


def check_boxes(boxes: Tensor, height: int, width: int) -> None:
    """Refuse true boxes ``[B, 4]`` that do not lie in their image, or have no area.

    Raises:
        ValueError: names the first, its place in the batch, and the image's size.
    """
    good = ((boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:])).all(1)  # written so that NaN fails
    good &= (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    if not bool(good.all()):
        place = int((~good).nonzero()[0])
        raise ValueError(
            f"box {place} of the batch is {[round(side, 2) for side in boxes[place].tolist()]}, but boxes are x1, y1, "
            f"x2, y2 in pixels, 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height} in images of {width} x {height}"
        )


def boxes_in_file(boxes: Tensor, corners: Tensor, width: int, height: int) -> Tensor:
    """Boxes in a transformed image as boxes in the image that was transformed, clipped to it.

    Args:
        boxes: in pixels of the transformed image.
        corners: where it has the corners (0, 0), (width, 0) and (0, height) of the image before, by resizing, cropping
            and padding in whatever order.
        width, height: of the image before, in pixels.

    Shape:
        - boxes: ``[..., 4]``
        - corners: ``[3, 2]``
        - output: ``[..., 4]``

    Raises:
        ValueError: when the transform turns or shears, so that a box there is none here; or does not say where
            corners go.
    """
    origin, right, below = corners.double()
    if not bool((corners.isfinite()).all() and right[0] > origin[0] and below[1] > origin[1]) or not torch.allclose(
        torch.stack([right[1], below[0]]), torch.stack([origin[1], origin[0]]), atol=1e-3
    ):
        raise ValueError(
            "data.init_args.val_transform leaves no way back to the image's own pixels: the corners (0, 0), (W, 0), "
            f"(0, H) come to lie at {corners.tolist()}; resize, crop and pad only, with steps that move keypoints too"
        )
    scale = torch.stack([(right[0] - origin[0]) / width, (below[1] - origin[1]) / height]).repeat(2)
    return clip_boxes(((boxes.double() - origin.repeat(2)) / scale).float(), width, height)
