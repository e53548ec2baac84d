"""The task of classification with localization."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.base import Unpack
from ..datamodules.batches import LocalizationBatch
from ..models.ops.box_losses import BoxLoss
from ..models.ops.boxes import clip_boxes, normalize_boxes
from ..models.ops.checks import check_min
from .base import Task
from .classification import class_curves, class_metrics, top_predictions, update_class_metrics
from .file_coordinates import boxes_in_file
from .interfaces import EvaluationStage
from .metrics.localization import LocalizationMetrics, boxes_of
from .optimizers import TaskOptions


class Localization(Task):
    """Classification with localization: one label and one box per image, trained with two losses.

    Logged: ``val/acc``, ``val/loc_acc`` and the other metrics of `LocalizationMetrics`, ``val/loss``, and the same
    under ``test/``; ``train/loss_class`` and ``train/loss_box``, weighted as they are in the sum.

    Args:
        model: Returns logits ``[B, K]`` and boxes for images ``[B, 3, H, W]``, such as a `striate.models.Localizer`.
            Boxes are ``[B, 4]``, or ``[B, K, 4]`` with one box per class: x1, y1, x2, y2 as fractions of the image's
            sides.
        num_classes: Number of classes K; None: ``model.num_classes``.
        box_loss: Loss of predicted boxes ``[N, 4]`` against ground-truth boxes, both as fractions of the image's sides;
            None: the squared distance (`striate.models.BoxLoss`). With one box per class, that of the ground-truth
            class is trained.
        class_weight: Weight of the cross-entropy in the sum.
        box_weight: Weight of the box loss in the sum.
        label_smoothing: Share of the target spread evenly over all classes, in training only.
        top_k: Number of classes in a prediction, those with the highest scores.
        **kwargs: ``optimizer``, ``scheduler``, ``backbone_lr_factor`` and ``decay_norm_and_bias`` of `Task`.

    Raises:
        ValueError: K is unknown or differs from the model's, or an argument is out of range.
    """

    kind: ClassVar[str] = "localization"
    monitor: ClassVar[str] = "val/loc_acc"
    mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        box_loss: nn.Module | None = None,
        class_weight: float = 1.0,
        box_weight: float = 1.0,
        label_smoothing: float = 0.0,
        top_k: int = 5,
        **kwargs: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_classes, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: must be in [0, 1), got {label_smoothing}")
        check_min(0, class_weight=class_weight, box_weight=box_weight)
        check_min(1, top_k=top_k)
        if class_weight == box_weight == 0:
            raise ValueError(
                f"class_weight: must be > 0 if box_weight is 0, got {class_weight}; set one of them above 0"
            )
        self.box_loss = BoxLoss() if box_loss is None else box_loss
        self.class_weight, self.box_weight = class_weight, box_weight
        self.label_smoothing, self.top_k = label_smoothing, min(top_k, self.num_classes)

    def losses(self, batch: LocalizationBatch) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor]]:
        """Return the two weighted losses; and the model's logits ``[B, K]`` and boxes ``[B, 4]`` or ``[B, K, 4]``.

        Raises:
            ValueError: A ground-truth box does not lie in its image. Skipped where the data module's workers have
                checked the targets.
        """
        images, labels = batch["image"], batch["label"]
        if not self.targets_checked:
            check_boxes(batch["box"], *images.shape[-2:])
        logits, boxes = self._outputs(images)
        target = normalize_boxes(batch["box"], images.shape[-1], images.shape[-2])
        smoothing = self.label_smoothing if self.training else 0.0
        loss = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing) / max(len(labels), 1)
        predicted = boxes_of(boxes, labels[:, None])[:, 0]  # [B, 4], of the ground-truth class
        if not self.training:  # an object that val_transform removed has no box to compare with
            visible = (target[:, 2:] > target[:, :2]).all(1)
            predicted, target = predicted[visible], target[visible]
        weighted = {
            "loss_class": self.class_weight * loss,
            "loss_box": self.box_weight * self.box_loss(predicted, target),
        }
        return weighted, (logits, boxes)

    def _outputs(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``[B, K]`` and boxes ``[B, 4]`` or ``[B, K, 4]`` for images ``[B, 3, H, W]``, after a shape check."""
        outputs = self.model(images)
        name = type(self.model).__name__
        if not (isinstance(outputs, tuple) and len(outputs) == 2):
            raise TypeError(
                f"model: must return a pair of logits and boxes, got {type(outputs).__name__} from {name}; use a "
                "striate.models.Localizer over your backbone"
            )
        logits, boxes = outputs
        size, count = len(images), self.num_classes
        if logits.shape != (size, count) or boxes.shape not in ((size, 4), (size, count, 4)):
            raise ValueError(
                f"model: must return logits [{size}, {count}] and boxes [{size}, 4] or [{size}, {count}, 4], got "
                f"{list(logits.shape)} and {list(boxes.shape)} from {name}"
            )
        return logits, boxes

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the localization metrics, and those of the classes as in `Classification`."""
        return {"localization": LocalizationMetrics(self.num_classes), **class_metrics(self.num_classes)}

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: tuple[Tensor, Tensor], batch: LocalizationBatch
    ) -> None:
        """Add a batch to the metrics; outputs are logits ``[B, K]`` and boxes ``[B, 4]`` or ``[B, K, 4]``."""
        logits, boxes = outputs
        height, width = batch["image"].shape[-2:]
        target = normalize_boxes(batch["box"], width, height)
        metrics["localization"].update(logits, boxes, batch["label"], target)
        update_class_metrics(metrics, logits, batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the metrics of `LocalizationMetrics`, scalars by name."""
        return metrics["localization"].compute()

    def pr_curves(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return the curves of the classes, whatever the boxes; empty with more than 100 classes."""
        return class_curves(self.metrics(stage))

    def predict_batch(self, images: Tensor) -> list[dict[str, Any]]:
        """Return label, score and box of each image, and the `top_k` classes.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries: ``label`` int, ``score`` float, ``box`` float32 ``[4]``, x1, y1, x2, y2 in pixels
              of the input image, clipped to it; ``top_labels`` list of int, ``top_scores`` list of float in descending
              order; and, for a model with one box per class, ``top_boxes`` float32 ``[top_k, 4]``.
        """
        logits, boxes = self._outputs(images)
        predictions = top_predictions(logits, self.top_k)
        labels = torch.tensor([one["top_labels"] for one in predictions], device=boxes.device).reshape(-1, self.top_k)
        height, width = images.shape[-2:]
        pixels = clip_boxes(boxes_of(boxes.float(), labels)).cpu() * torch.tensor([width, height] * 2)  # [B, top_k, 4]
        return [
            one | {"box": top_boxes[0]} | ({"top_boxes": top_boxes} if boxes.ndim == 3 else {})
            for one, top_boxes in zip(predictions, pixels, strict=True)
        ]

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Return one prediction per image, with boxes in pixels of the image file."""
        predictions = super().predict_step(batch, batch_idx, dataloader_idx)
        if "corners" in batch:
            corners = batch["corners"].cpu()
            for index, (height, width) in enumerate(batch["file_size"].tolist()):
                prediction = predictions[index]
                for key in prediction.keys() & {"box", "top_boxes"}:
                    prediction[key] = boxes_in_file(prediction[key], corners[index], width, height)
        return predictions


def check_boxes(boxes: Tensor, height: int, width: int) -> None:
    """Check that ground-truth boxes ``[B, 4]`` have an area and lie in their image of `height` by `width` pixels.

    Raises:
        ValueError: Names the first invalid box, its index in the batch and the image size.
    """
    valid = ((boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:])).all(1)  # written so that NaN fails
    valid &= (boxes[:, 2] <= width) & (boxes[:, 3] <= height)
    if not bool(valid.all()):
        index = int((~valid).nonzero()[0])
        raise ValueError(
            f"box: must be x1, y1, x2, y2 in pixels with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height} in "
            f"images of {width} x {height}, got {[round(side, 2) for side in boxes[index].tolist()]} at index {index} "
            "of the batch"
        )
