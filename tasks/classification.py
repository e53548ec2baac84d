"""The task of image classification."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from ..datamodules.base import Unpack
from ..datamodules.batches import ClassificationBatch
from ..models.classification.lenet import LeNet5, MAPLoss, RBFOutput
from ..models.classification.mixup import BatchMixer
from ..models.classification.tencrop import TenCrop
from .base import Task
from .interfaces import EvaluationStage, HasAuxiliary
from .metrics.confusion import class_accuracies
from .metrics.one_vs_rest import MAX_CLASSES, OneVersusRest
from .optimizers import TaskOptions


class Classification(Task):
    """Image classification: one label per image, trained with cross-entropy.

    Logged: ``val/acc`` (top-1), ``val/acc5`` (top-5, with six classes or more), ``val/acc_class`` (mean of the
    per-class accuracies), ``val/loss``, and the same under ``test/``.

    Args:
        model: Returns logits ``[B, K]`` for images ``[B, 3, H, W]``: a `striate.models.Classifier`, or any classifier
            of torchvision or timm that normalizes its input itself.
        num_classes: Number of classes K; None: ``model.num_classes``.
        loss: Training loss of logits ``[B, K]`` and targets (classes ``[B]``, or probabilities ``[B, K]`` from a
            `mixer`), such as `striate.models.MAPLoss`; None: cross-entropy.
        label_smoothing: Share of the target spread evenly over all classes (Szegedy et al., 2015, section 7). Applied
            in training only, to cross-entropy.
        class_weights: Weight of each class in the training loss: K numbers >= 0, not all 0. The loss is the weighted
            mean.
        mixer: Mixes each training batch, by Mixup or CutMix.
        ten_crop: Side in pixels of the ten crops whose softmax is averaged in evaluation and prediction (AlexNet,
            section 4.1); None: whole images.
        auxiliary_weight: Weight (>= 0) of each auxiliary classifier's loss in training, for models with
            ``forward_with_auxiliary``; None: 0.3 (GoogLeNet, section 5). It has no effect on other models, which is
            warned of.
        top_k: Number of classes in a prediction, those with the highest scores.
        **kwargs: ``optimizer``, ``scheduler``, ``backbone_lr_factor`` and ``decay_norm_and_bias`` of `Task`.

    Raises:
        ValueError: K is unknown, an argument is out of range, the model takes no images of side `ten_crop`, or two
            arguments exclude each other.
    """

    kind: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "val/acc"
    mode: ClassVar[Literal["min", "max"]] = "max"
    class_weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixer: BatchMixer | None = None,
        ten_crop: int | None = None,
        auxiliary_weight: float | None = None,
        top_k: int = 5,
        **kwargs: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_classes, **kwargs)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: must be in [0, 1), got {label_smoothing}")
        if class_weights is not None:
            check_class_weights(class_weights, self.num_classes)
        if loss is not None and (label_smoothing or class_weights is not None):
            raise ValueError(
                f"loss: must be null with label_smoothing or class_weights, which belong to cross-entropy, got "
                f"{type(loss).__name__}"
            )
        if isinstance(loss, MAPLoss) and isinstance(model, LeNet5) and not isinstance(model.output, RBFOutput):
            raise ValueError(
                "loss: MAPLoss needs the penalties of LeNet5 with output 'rbf', got output 'softmax'; set loss: null "
                "for cross-entropy"
            )
        if mixer is not None and mixer.num_classes != self.num_classes:
            raise ValueError(
                f"mixer.num_classes: must equal that of the model, {self.num_classes}, got {mixer.num_classes}"
            )
        if auxiliary_weight is not None and auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight: must be >= 0 (the paper: 0.3), got {auxiliary_weight}")
        if auxiliary_weight is not None and not isinstance(model, HasAuxiliary):
            rank_zero_warn(
                f"auxiliary_weight: {auxiliary_weight} has no effect, since {type(model).__name__} has no auxiliary "
                "classifiers"
            )
        if top_k < 1:
            raise ValueError(f"top_k: must be >= 1, got {top_k}")
        self.loss, self.mixer = loss, mixer
        self.auxiliary_weight = 0.3 if auxiliary_weight is None else auxiliary_weight
        try:
            # in a tuple, so that it is no submodule: its weights are the model's, and a checkpoint holds them once
            self._ten_crop = None if ten_crop is None else (TenCrop(model, ten_crop),)
        except ValueError as error:
            raise ValueError(f"ten_crop: {error}") from error
        self.label_smoothing, self.top_k = label_smoothing, min(top_k, self.num_classes)
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    def losses(self, batch: ClassificationBatch) -> tuple[dict[str, Tensor], Tensor]:
        """Return the losses and the logits ``[B, K]``.

        In evaluation the loss is plain cross-entropy, so that it compares across recipes.
        """
        images, target = batch["image"], batch["label"]
        if not self.training:
            logits = self._logits(images)
            return {"loss_class": F.cross_entropy(logits, target)}, logits
        if self.mixer is not None:
            images, target = self.mixer(images, target)
        auxiliary: list[Tensor] = []
        if isinstance(self.model, HasAuxiliary):
            logits, auxiliary = self.model.forward_with_auxiliary(images)
        else:
            logits = self.model(images)
        losses = {"loss_class": self._criterion(logits, target)}
        for number, auxiliary_logits in enumerate(auxiliary, 1):
            losses[f"loss_aux{number}"] = self.auxiliary_weight * self._criterion(auxiliary_logits, target)
        return losses, logits

    def _criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        """The training loss, a scalar, of logits ``[B, K]`` and a target ``[B]`` or ``[B, K]``."""
        if self.loss is not None:
            return self.loss(logits, target)
        return F.cross_entropy(logits, target, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def _logits(self, images: Tensor) -> Tensor:
        """Logits ``[B, K]`` for evaluation, over ten crops if there are any; images ``[B, 3, H, W]``."""
        return self.model(images) if self._ten_crop is None else self._ten_crop[0](images)

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the confusion matrix, up to 100 classes the curves, and from six classes on the top-5 accuracy."""
        count = self.num_classes
        metrics = class_metrics(count)
        if count > 5:
            metrics["acc5"] = MulticlassAccuracy(count, top_k=5, average="micro")
        return metrics

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: ClassificationBatch) -> None:
        """Add a batch of logits ``[B, K]`` to the metrics."""
        update_class_metrics(metrics, outputs, batch["label"])
        if "acc5" in metrics:
            metrics["acc5"].update(outputs, batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``acc``, ``acc_class`` and, with six classes or more, ``acc5``."""
        confusion = metrics["confusion"].compute()
        result = {"acc": confusion.trace() / confusion.sum().clamp(min=1)}
        result["acc_class"] = class_accuracies(confusion).nanmean()
        if "acc5" in metrics:
            result["acc5"] = metrics["acc5"].compute()
        return result

    def pr_curves(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return the curves of `OneVersusRest`; empty with more than 100 classes."""
        return class_curves(self.metrics(stage))

    def predict_batch(self, images: Tensor) -> list[dict[str, Any]]:
        """Return label, score and the `top_k` classes of each image.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries: ``label`` int, ``score`` float, ``top_labels`` list of int, ``top_scores`` list of
              float in descending order.
        """
        return top_predictions(self._logits(images), self.top_k)


def class_metrics(num_classes: int) -> dict[str, Metric | MetricCollection]:
    """The metrics that all tasks with one label per image have: the confusion matrix, and up to 100 classes curves."""
    metrics: dict[str, Metric | MetricCollection] = {"confusion": MulticlassConfusionMatrix(num_classes)}
    if num_classes <= MAX_CLASSES:
        metrics["curves"] = OneVersusRest(num_classes)
    return metrics


def update_class_metrics(metrics: Mapping[str, Any], logits: Tensor, labels: Tensor) -> None:
    """Add logits ``[B, K]`` and labels ``[B]`` to those metrics of `class_metrics` that are there."""
    if "confusion" in metrics:
        metrics["confusion"].update(logits, labels)
    if "curves" in metrics:
        metrics["curves"].update(logits.float().softmax(dim=1), labels)


def class_curves(metrics: Mapping[str, Any]) -> dict[str, Tensor]:
    """The curves of `OneVersusRest`, ``[101]`` and ``[K, 101]``; empty without that metric."""
    return metrics["curves"].pr_curves() if "curves" in metrics else {}


def top_predictions(logits: Tensor, top_k: int) -> list[dict[str, Any]]:
    """Turn logits ``[B, K]`` into B predictions with the `top_k` most probable classes (see `Classification`)."""
    scores, labels = logits.float().softmax(dim=1).topk(top_k, dim=1)
    return [
        {"label": top_labels[0], "score": top_scores[0], "top_labels": top_labels, "top_scores": top_scores}
        for top_labels, top_scores in zip(labels.tolist(), scores.tolist(), strict=True)
    ]


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Check that there is one finite weight >= 0 per class, and that not all are 0.

    Raises:
        ValueError: Names the first class with an invalid weight.
    """
    if len(weights) != num_classes:
        raise ValueError(f"class_weights: must have one number per class, {num_classes}, got {len(weights)}")
    invalid = [(label, weight) for label, weight in enumerate(weights) if not 0 <= weight < math.inf]
    if invalid:
        raise ValueError(f"class_weights: must be finite and >= 0, got {invalid[0][1]} for class {invalid[0][0]}")
    if not any(weights):
        raise ValueError("class_weights: must have a number above 0, got 0 for every class")
