"""The comparison of two activation functions: two networks trained side by side on the same batches."""

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
from .classification import top_predictions
from .schedules import Schedule

NAMES = ("relu", "tanh")
CHECKPOINT_KEY = "race"  # the name that checkpoints have had from the start


def epochs_to_error(errors: Sequence[float], threshold: float) -> float | None:
    """Number of epochs until an error first reaches a threshold, interpolated linearly between epochs.

    Args:
        errors: Errors of the first, second, … epoch, as fractions.
        threshold: The error to reach, as a fraction.

    Returns:
        Epochs, at least 1, since nothing is known within the first; None if the threshold is never reached.

    Example:
        >>> epochs_to_error([0.8, 0.4, 0.2], 0.25)
        2.75
    """
    for epoch, error in enumerate(errors, 1):
        if error <= threshold:
            previous = errors[epoch - 2] if epoch > 1 else error
            return epoch - (threshold - error) / (previous - error) if previous > error else float(epoch)
    return None


class ActivationComparison(Task):
    """AlexNet's figure 1: epochs that a network of ReLUs and its equal of tanhs need to reach 25 % training error.

    Both networks see the same batches. They share no parameters, and each has its own learning rate. The loss is
    cross-entropy; there is no regularization, unless the optimizer or the data module adds some.

    Logged: ``train/error_relu`` and ``train/error_tanh``, the share of an epoch's training images that are
    misclassified when they are presented; ``epochs_to_25_ratio``, the epochs of tanh to `threshold` (here 25 %) over
    those of ReLU, as soon as both have reached it; and ``val/acc_relu``, ``val/acc_tanh``, ``val/loss``.

    Args:
        model: The two networks.
        optimizer: See `Task`. Its learning rate is that of the ReLUs.
        scheduler: See `Task`.
        tanh_lr_factor: Learning rate of the tanhs, relative to that of the ReLUs. The paper chose the rate of each
            network independently, so that it learns as fast as possible.
        threshold: Training error to reach, as a fraction.

    Attributes:
        errors: Name -> training error of each epoch so far; saved in checkpoints.

    Raises:
        ValueError: `threshold` is not in (0, 1), or `tanh_lr_factor` is not above 0.

    Reference:
        Krizhevsky, Sutskever, Hinton, NIPS 2012, section 3.1 and Fig. 1: six times. The paper does not say whether it
        measured the error during an epoch, as here, or after it.
    """

    kind: ClassVar[str] = "classification"
    monitor: ClassVar[str] = "val/acc_relu"
    mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        model: ActivationPair,
        optimizer: OptimizerCallable = torch.optim.SGD,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        tanh_lr_factor: float = 1.0,
        threshold: float = 0.25,
    ) -> None:
        super().__init__(model, optimizer=optimizer, scheduler=scheduler)
        if not 0 < threshold < 1:
            raise ValueError(f"threshold: must be an error in (0, 1) (the paper: 0.25), got {threshold}")
        if tanh_lr_factor <= 0:
            raise ValueError(f"tanh_lr_factor: must be > 0, got {tanh_lr_factor}")
        self.tanh_lr_factor, self.threshold = tanh_lr_factor, threshold
        self.errors: dict[str, list[float]] = {name: [] for name in NAMES}
        # images of the epoch so far, and how many of them each network misclassified
        self._counts, self._counted_epoch = torch.zeros(1 + len(NAMES)), 0

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group per network; weight decay, if any, applies to all parameters."""
        factors = {"relu": 1.0, "tanh": self.tanh_lr_factor}
        return [
            {"params": list(self.model.get_submodule(f"runners.{name}").parameters()), "name": name, "lr_factor": f}
            for name, f in factors.items()
        ]

    def losses(self, batch: ClassificationBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the cross-entropy of each network. Their sum has the gradients of both, which share no parameter."""
        logits = self.model(batch["image"])
        return {f"loss_{name}": F.cross_entropy(value, batch["label"]) for name, value in logits.items()}, logits

    # -- training error ----------------------------------------------------------------------------

    def training_step(self, batch: ClassificationBatch, batch_idx: int) -> Tensor:
        """Return the sum of both losses, a scalar, and count the misclassified images."""
        self.unreadable.add(batch)
        losses, logits = self.losses(batch)
        self._count(logits, batch["label"])
        by_name = {f"train/{name}": loss.detach() for name, loss in losses.items()}
        self.log_dict(by_name, prog_bar=True, sync_dist=True, batch_size=len(batch["image"]))
        return self.total_loss(losses, batch)

    @torch.no_grad()
    def _count(self, logits: Mapping[str, Tensor], labels: Tensor) -> None:
        """Add a batch of logits ``[B, K]`` per network and labels ``[B]`` to the counts."""
        if self._counted_epoch != self.current_epoch:
            self._close_epoch()  # resumed from a checkpoint written between the last batch and the epoch's end
        wrong = [(logits[name].argmax(1) != labels).sum() for name in NAMES]
        size = torch.tensor(len(labels), device=labels.device)
        self._counts = self._counts.to(labels.device) + torch.stack([size, *wrong])

    def on_train_epoch_end(self) -> None:
        """Log the epoch's training errors, and the ratio once both networks have reached the threshold."""
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
        """Return the epochs to the threshold by network; None where it is not reached yet."""
        return {name: epochs_to_error(errors, self.threshold) for name, errors in self.errors.items()}

    def ratio(self) -> float | None:
        """Return tanh's epochs to the threshold over ReLU's; None until both have reached it."""
        needed = self.epochs_needed()
        return needed["tanh"] / needed["relu"] if needed["tanh"] and needed["relu"] else None

    def on_train_end(self) -> None:
        """Log the result of the comparison."""
        rank_zero_info(self.summary())

    def summary(self) -> str:
        """Return one line with the epochs of each network and their ratio."""
        parts = [
            f"{name} {f'after {needed:.1f} epochs' if needed else f'not within {len(self.errors[name])} epochs'}"
            for name, needed in self.epochs_needed().items()
        ]
        ratio = self.ratio()
        tail = "" if ratio is None else f": ReLU is {ratio:.1f} times as fast"
        return f"{100 * self.threshold:.0f} % training error: {', '.join(parts)}{tail}"

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the errors so far, as plain numbers."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY] = {
            "errors": {name: list(errors) for name, errors in self.errors.items()},
            "counts": self._counts.tolist(),
            "epoch": self._counted_epoch,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the errors of the epochs so far."""
        super().on_load_checkpoint(checkpoint)
        saved = checkpoint[CHECKPOINT_KEY]
        self.errors = {name: list(saved["errors"][name]) for name in NAMES}
        self._counts, self._counted_epoch = torch.tensor(saved["counts"]), saved["epoch"]

    # -- validation --------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the accuracy of each network."""
        return {f"acc_{name}": MulticlassAccuracy(self.num_classes, average="micro") for name in NAMES}

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: dict[str, Tensor], batch: ClassificationBatch
    ) -> None:
        """Add a batch to both accuracies."""
        for name in NAMES:
            metrics[f"acc_{name}"].update(outputs[name], batch["label"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``acc_relu`` and ``acc_tanh``."""
        return {f"acc_{name}": metrics[f"acc_{name}"].compute() for name in NAMES}

    def predict_batch(self, images: Tensor) -> list[dict[str, Any]]:
        """Return label, score and the five most probable classes of each image, by the network of ReLUs.

        Shape:
            - images: ``[B, 3, H, W]``.
            - Output: B dictionaries, see `Classification.predict_batch`.
        """
        return top_predictions(self.model(images)["relu"], min(5, self.num_classes))
