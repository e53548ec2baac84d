"""Image classification."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from ..datamodules.batches import ClassificationBatch
from ..models.classification.lenet import LeNet5, MAPLoss, RBFOutput
from ..models.classification.mixing import BatchMixer
from ..models.classification.tencrop import TenCrop
from .base import Task
from .schedules import Schedule


@runtime_checkable
class HasAuxiliary(Protocol):
    """A classifier with auxiliary classifiers for training."""

    def forward_with_auxiliary(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits ``[B, K]``, and those of each auxiliary classifier."""
        ...


class Classification(Task):
    """One label an image, trained by cross-entropy.

    Logged: ``val/acc`` (top-1), ``val/acc5`` (top-5, from six classes on), ``val/acc_class`` (mean over classes of
    each class's own accuracy), ``val/loss``, and the same under ``test/``.

    Args:
        model: gives logits ``[B, K]`` for images ``[B, 3, H, W]``; a `striate.models.Classifier`, or any classifier
            of torchvision or timm that normalises its input itself.
        num_classes: K; None: ``model.num_classes``.
        optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias: see `Task`.
        loss: training loss of logits ``[B, K]`` and targets (classes ``[B]``, or shares ``[B, K]`` behind a `mixer`),
            such as `striate.models.MAPLoss`; None: cross-entropy.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., 2015, section 7).
            Applied in training only, to cross-entropy.
        class_weights: weight of each class in the training loss, K numbers from 0 on, not all 0; the loss is the
            weighted mean.
        mixer: mixes each training batch, by Mixup or CutMix.
        ten_crop: side of the ten crops whose softmax is averaged in evaluation and prediction (AlexNet, section 4.1);
            None: the images as they are.
        auxiliary_weight: of each auxiliary classifier's loss in training, 0 or more, for models with
            ``forward_with_auxiliary``, which gives logits and a list of auxiliary logits; None: 0.3 (GoogLeNet,
            section 5). Given for another model, it has no effect but a warning.
        top_k: how many of the best classes a prediction names.

    Raises:
        ValueError: when K is not known, a number is out of its range, the model takes no images of side `ten_crop`, or
            two arguments exclude each other.
    """

    monitor: ClassVar[str] = "val/acc"
    mode: ClassVar[Literal["min", "max"]] = "max"
    batch_task: ClassVar[str] = "classification"
    class_weights: Tensor | None

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        mixer: BatchMixer | None = None,
        ten_crop: int | None = None,
        auxiliary_weight: float | None = None,
        top_k: int = 5,
    ) -> None:
        super().__init__(model, optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias)
        self._num_classes = num_classes if num_classes is not None else getattr(model, "num_classes", None)
        if self._num_classes is None:
            raise ValueError(
                f"num_classes: {type(model).__name__} does not say how many classes it tells apart; "
                "set model.init_args.num_classes"
            )
        if self._num_classes < 2:
            raise ValueError(f"num_classes: {self._num_classes}; telling classes apart needs 2 or more")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing: {label_smoothing} is not in [0, 1)")
        if class_weights is not None:
            check_class_weights(class_weights, self._num_classes)
        if loss is not None and (label_smoothing or class_weights is not None):
            raise ValueError(
                "loss: label_smoothing and class_weights belong to cross-entropy; leave one or the other out"
            )
        if isinstance(loss, MAPLoss) and isinstance(model, LeNet5) and not isinstance(model.output, RBFOutput):
            raise ValueError(
                "loss: MAPLoss takes the penalties of LeNet5's output 'rbf', and the model has output 'softmax'; leave "
                "the loss out (loss: null), which is cross-entropy"
            )
        if mixer is not None and mixer.num_classes != self._num_classes:
            raise ValueError(f"mixer.num_classes: {mixer.num_classes}, but the model has {self._num_classes} classes")
        if auxiliary_weight is not None and auxiliary_weight < 0:
            raise ValueError(f"auxiliary_weight: {auxiliary_weight} is below 0 (the paper: 0.3)")
        if auxiliary_weight is not None and not isinstance(model, HasAuxiliary):
            rank_zero_warn(
                f"auxiliary_weight: {auxiliary_weight} has no effect: {type(model).__name__} has no auxiliary "
                "classifiers"
            )
        if top_k < 1:
            raise ValueError(f"top_k: {top_k}; a prediction names 1 class at least")
        self.loss, self.mixer = loss, mixer
        self.auxiliary_weight = 0.3 if auxiliary_weight is None else auxiliary_weight
        try:
            # not a submodule: its weights are the model's, and a checkpoint is to hold them once
            self._ten_crop = None if ten_crop is None else (TenCrop(model, ten_crop),)
        except ValueError as error:
            raise ValueError(f"ten_crop: {ten_crop}: {error}") from error
        self.label_smoothing, self.top_k = label_smoothing, min(top_k, self._num_classes)
        weights = None if class_weights is None else torch.tensor(list(class_weights), dtype=torch.float32)
        self.register_buffer("class_weights", weights, persistent=False)

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes  # type: ignore[return-value]

    def losses(self, batch: ClassificationBatch) -> tuple[dict[str, Tensor], Tensor]:
        """The loss and the logits ``[B, K]``; in evaluation plain cross-entropy, so that recipes compare."""
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
        for number, head in enumerate(auxiliary, 1):
            losses[f"loss_aux{number}"] = self.auxiliary_weight * self._criterion(head, target)
        return losses, logits

    def _criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.loss is not None:
            return self.loss(logits, target)
        return F.cross_entropy(logits, target, weight=self.class_weights, label_smoothing=self.label_smoothing)

    def _logits(self, images: Tensor) -> Tensor:
        return self.model(images) if self._ten_crop is None else self._ten_crop[0](images)

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Top-1, top-5 and the confusion matrix."""
        count = self.num_classes
        made: dict[str, Metric | MetricCollection] = {"confusion": MulticlassConfusionMatrix(count)}
        if count > 5:
            made["acc5"] = MulticlassAccuracy(count, top_k=5, average="micro")
        return made

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Tensor, batch: ClassificationBatch) -> None:
        """Count a batch of logits ``[B, K]``."""
        for name in metrics.keys() & {"confusion", "acc5"}:
            metrics[name].update(outputs, batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """``acc``, ``acc_class`` and, from six classes on, ``acc5``."""
        confusion = metrics["confusion"].compute()
        result = {"acc": confusion.trace() / confusion.sum().clamp(min=1)}
        result["acc_class"] = class_accuracies(confusion).nanmean()
        if "acc5" in metrics:
            result["acc5"] = metrics["acc5"].compute()
        return result

    def confusion_matrix(self, stage: Literal["val", "test"]) -> Tensor:
        """Counts ``[K, K]`` of the stage's last epoch on this rank or, after its end, over all: truth by prediction."""
        return self.metrics(stage)["confusion"].compute()

    def predict(self, images: Tensor) -> list[dict[str, Any]]:
        """Label, score, and the `top_k` best classes of each image.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries: ``label`` int, ``score`` float, ``top_labels`` list of int, ``top_scores`` list of
              float in descending order.
        """
        scores, labels = self._logits(images).float().softmax(dim=1).topk(self.top_k, dim=1)
        return [
            {"label": top[0], "score": values[0], "top_labels": top, "top_scores": values}
            for top, values in zip(labels.tolist(), scores.tolist(), strict=True)
        ]


def check_class_weights(weights: Sequence[float], num_classes: int) -> None:
    """Refuses weights that are not one finite number from 0 on for each class, or all 0.

    Raises:
        ValueError: says which class has what.
    """
    if len(weights) != num_classes:
        raise ValueError(f"class_weights: {len(weights)} numbers for {num_classes} classes")
    wrong = [(number, weight) for number, weight in enumerate(weights) if not 0 <= weight < math.inf]
    if wrong:
        raise ValueError(f"class_weights: {wrong[0][1]} for class {wrong[0][0]}; weights are 0 or more")
    if not any(weights):
        raise ValueError("class_weights: all are 0, which leaves nothing to learn from")


def class_accuracies(confusion: Tensor) -> Tensor:
    """Accuracy of each class: its diagonal element over its row's sum; NaN for a class that does not occur.

    Shape:
        - confusion: ``[K, K]``, truth by prediction.
        - Output: ``[K]``.
    """
    return confusion.diagonal() / confusion.sum(dim=1)
