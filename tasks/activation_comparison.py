"""Two networks trained side by side on the same batches, to see which learns faster."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.utilities.rank_zero import rank_zero_info
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from ..datamodules.batches import ClassificationBatch
from ..models.classification.four_layer import ActivationPair
from .base import Task
from .schedules import Schedule

NAMES = ("relu", "tanh")


def epochs_to_error(errors: Sequence[float], threshold: float) -> float | None:
    """After how many epochs an error first falls to a threshold, interpolated linearly between epochs.

    Args:
        errors: of the first, second, … epoch, as shares.
        threshold: the share to reach.

    Returns:
        Epochs, 1 at least, since nothing is known within the first; None if it is never reached.

    Example:
        >>> epochs_to_error([0.8, 0.4, 0.2], 0.25)
        2.75
    """
    for epoch, error in enumerate(errors, 1):
        if error <= threshold:
            before = errors[epoch - 2] if epoch > 1 else error
            return epoch - (threshold - error) / (before - error) if before > error else float(epoch)
    return None


class TrainingRace(Task):
    """AlexNet's figure 1: how many epochs a network of ReLUs and its equal of tanhs need to 25 % training error.

    Both see the same batches; their parameters, gradients and learning rates are their own. Cross-entropy, and no
    regularisation of any kind, unless the optimizer or the data module adds some.

    Logged: ``train/error_relu`` and ``train/error_tanh``, the share of an epoch's training images misclassified as they
    were presented; ``epochs_to_25_ratio``, tanh's epochs to `threshold` (here 25 %) over ReLU's, as soon as both are
    there; and ``val/acc_relu``, ``val/acc_tanh``, ``val/loss``.

    Args:
        model: the two networks.
        optimizer, scheduler: see `Task`. The rate is that of the ReLUs.
        tanh_lr_factor: learning rate of the tanhs relative to that of the ReLUs. The paper chose each network's rate
            for itself, so that it learns as fast as possible.
        threshold: the training error to reach.

    Attributes:
        errors: name -> training error of each epoch so far; kept in checkpoints.

    Raises:
        ValueError: when `threshold` is not between 0 and 1, or `tanh_lr_factor` not above 0.

    Reference:
        Krizhevsky, Sutskever, Hinton, NIPS 2012, section 3.1 and Fig. 1: six times. The paper does not say whether it
        measured the error during an epoch, as here, or after it.
    """

    monitor: ClassVar[str] = "val/acc_relu"
    mode: ClassVar[Literal["min", "max"]] = "max"
    batch_task: ClassVar[str] = "classification"

    def __init__(
        self,
        model: ActivationPair,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        tanh_lr_factor: float = 1.0,
        threshold: float = 0.25,
    ) -> None:
        super().__init__(model, optimizer, scheduler)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: {threshold} is not an error between 0 and 1 (the paper: 0.25)")
        if tanh_lr_factor <= 0:
            raise ValueError(f"tanh_lr_factor: {tanh_lr_factor} is not above 0")
        self.tanh_lr_factor, self.threshold = tanh_lr_factor, threshold
        self.errors: dict[str, list[float]] = {name: [] for name in NAMES}
        # images seen, and misclassified by each, in the epoch that is counted
        self._counts, self._counted_epoch = torch.zeros(1 + len(NAMES)), 0

    @property
    def num_classes(self) -> int:
        """K."""
        return self.model.num_classes  # type: ignore[return-value]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """One group a network; everything in it is decayed, if anything is."""
        factors = {"relu": 1.0, "tanh": self.tanh_lr_factor}
        return [
            {"params": list(self.model.get_submodule(f"runners.{name}").parameters()), "name": name, "lr_factor": f}
            for name, f in factors.items()
        ]

    def losses(self, batch: ClassificationBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Each network's cross-entropy; their sum has the gradients of both, since they share no parameter."""
        logits = self.model(batch["image"])
        return {f"loss_{name}": F.cross_entropy(own, batch["label"]) for name, own in logits.items()}, logits

    # -- training error ----------------------------------------------------------------------------

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """The base's, counting what is misclassified."""
        self._note_unreadable(batch)
        losses, logits = self.losses(batch)
        self._count(logits, batch["label"])
        named = {f"train/{name}": loss.detach() for name, loss in losses.items()}
        self.log_dict(named, prog_bar=True, sync_dist=True, batch_size=len(batch["image"]))
        return self.watched_sum(losses, batch)

    @torch.no_grad()
    def _count(self, logits: Mapping[str, Tensor], labels: Tensor) -> None:
        if self._counted_epoch != self.current_epoch:
            self._close_epoch()  # resumed from a checkpoint written between the last batch and the epoch's end
        wrong = [(logits[name].argmax(1) != labels).sum() for name in NAMES]
        seen = torch.tensor(len(labels), device=labels.device)
        self._counts = self._counts.to(labels.device) + torch.stack([seen, *wrong])

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training errors, and the ratio once both networks have come to the threshold."""
        super().on_train_epoch_end()
        self._close_epoch()
        for name, errors in self.errors.items():
            self.log(f"train/error_{name}", errors[-1])
        if (ratio := self.ratio()) is not None:
            self.log(f"epochs_to_{100 * self.threshold:.0f}_ratio", ratio)

    def _close_epoch(self) -> None:
        counts = self.trainer.strategy.reduce(self._counts, reduce_op="sum").tolist()
        self._counts, self._counted_epoch = torch.zeros_like(self._counts), self.current_epoch
        if counts[0]:
            for name, wrong in zip(NAMES, counts[1:], strict=True):
                self.errors[name].append(wrong / counts[0])

    def epochs_needed(self) -> dict[str, float | None]:
        """Epochs to the threshold, by network; None where it is not reached yet."""
        return {name: epochs_to_error(errors, self.threshold) for name, errors in self.errors.items()}

    def ratio(self) -> float | None:
        """Tanh's epochs to the threshold over ReLU's; None while one is not there."""
        needed = self.epochs_needed()
        return needed["tanh"] / needed["relu"] if needed["tanh"] and needed["relu"] else None

    def on_train_end(self) -> None:
        """Say how the race ended."""
        rank_zero_info(self.summary())

    def summary(self) -> str:
        """One line: the epochs of each network, and their ratio."""
        parts = [
            f"{name} {f'after {needed:.1f} epochs' if needed else f'not within {len(self.errors[name])} epochs'}"
            for name, needed in self.epochs_needed().items()
        ]
        ratio = self.ratio()
        tail = "" if ratio is None else f": ReLU is {ratio:.1f} times as fast"
        return f"{100 * self.threshold:.0f} % training error: {', '.join(parts)}{tail}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the errors so far, as plain numbers."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["race"] = {
            "errors": {name: list(errors) for name, errors in self.errors.items()},
            "counts": self._counts.tolist(),
            "epoch": self._counted_epoch,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the errors back."""
        super().on_load_checkpoint(checkpoint)
        race = checkpoint["race"]
        self.errors = {name: list(race["errors"][name]) for name in NAMES}
        self._counts, self._counted_epoch = torch.tensor(race["counts"]), race["epoch"]

    # -- validation --------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Each network's accuracy."""
        return {f"acc_{name}": MulticlassAccuracy(self.num_classes, average="micro") for name in NAMES}

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: dict[str, Tensor], batch: ClassificationBatch
    ) -> None:
        """Count a batch."""
        for name in NAMES:
            metrics[f"acc_{name}"].update(outputs[name], batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """``acc_relu`` and ``acc_tanh``."""
        return {f"acc_{name}": metrics[f"acc_{name}"].compute() for name in NAMES}

    def predict(self, images: Tensor) -> list[dict[str, Any]]:
        """Label and score of each image, by the network of ReLUs.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries: ``label`` int, ``score`` float, and both as lists of the best classes.
        """
        scores, labels = self.model(images)["relu"].float().softmax(dim=1).topk(min(5, self.num_classes), dim=1)
        return [
            {"label": top[0], "score": values[0], "top_labels": top, "top_scores": values}
            for top, values in zip(labels.tolist(), scores.tolist(), strict=True)
        ]
