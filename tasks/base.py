"""Base class of the tasks: steps, optimizer, metrics and the contents of checkpoints."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from ..datamodules.images.bit_depth import ReadOptions
from ..models.modes import evaluation_mode
from ..models.ops.checks import check_min
from ..models.weights import skip_pretrained
from .batch_requirements import check_batch, check_losses
from .checkpoints import (
    adopt_preparation,
    check_model_given,
    check_state_dict,
    read_checkpoint,
    report_loaded_weights,
    restore_entries,
    save_configuration,
    task_entries,
)
from .class_counts import adopt_class_names, check_same_classes, resolve_num_classes
from .class_paths import load_with_current_classes
from .interfaces import ChecksTargets, EvaluationStage, HasClassNames
from .metrics.confusion import class_accuracies
from .nonfinite import NonFiniteGuard, check_weights
from .optimizers import build_optimizer, build_scheduler, group_parameters
from .prediction import Images, predict_images
from .schedules import Schedule
from .unreadable_images import UnreadableImages


class Task(pl.LightningModule):
    """Base class of the tasks.

    A subclass supplies `losses`, `make_metrics`, `update_metrics`, `compute_metrics` and `predict_batch`.

    Args:
        model: Module of the task's kind, from pixels to predictions (docs/design.md, "Interfaces").
        num_classes: Number of classes K; None: ``model.num_classes``.
        optimizer: Builds the optimizer from parameter groups.
        scheduler: One of `striate.tasks.schedules`, or a callable that builds a torch scheduler, which is stepped once
            per epoch; None: constant learning rate.
        backbone_lr_factor: Learning rate of ``model.backbone``, relative to the rest.
        decay_norm_and_bias: Apply weight decay to one-dimensional parameters too, as papers before 2018 do.

    Attributes:
        kind: Kind of task, a key of `batch_requirements.REQUIREMENTS`. It decides which targets a batch must have and
            how predictions are written. Empty: batches are not checked.
        monitor: Metric for checkpointing, early stopping and plateau schedules.
        mode: ``max`` or ``min``, the better direction of `monitor`.
        variable_size_images: Whether `predict_batch` takes a list of images that differ in size.
        evaluation_loss: Whether evaluation computes a loss too, ``val/loss``.
        min_classes: Minimum number of classes.
        max_classes: Maximum number of classes; None: unlimited.
        prediction_inputs: Fields of a batch that `predict_batch` takes beside the images, if the batch has them.
        num_classes: Number of classes K.
        class_names: Class names of the data module, also in checkpoints; they are compared with those of other data.
        val_transform: The data module's transform for evaluation, which `predict` applies. It is saved too.
        read_options: How the data module reads image files (``scale_16bit``, ``page``), and so does `predict`; saved.
        unreadable: Images that could not be read.

    Raises:
        ValueError: The number of classes is unknown, differs from the model's, or is out of range, or
            ``backbone_lr_factor`` is negative.
    """

    kind: ClassVar[str] = ""
    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    variable_size_images: ClassVar[bool] = False
    evaluation_loss: ClassVar[bool] = True
    min_classes: ClassVar[int] = 2
    max_classes: ClassVar[int | None] = None
    prediction_inputs: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
    ) -> None:
        super().__init__()
        save_configuration(self, inspect.currentframe())
        self.model = model
        self.num_classes = resolve_num_classes(model, num_classes, self.min_classes, self.max_classes)
        check_min(0, backbone_lr_factor=backbone_lr_factor)
        self.optimizer, self.scheduler = optimizer, scheduler
        self.backbone_lr_factor, self.decay_norm_and_bias = backbone_lr_factor, decay_norm_and_bias
        self.class_names: list[str] = []
        self.val_transform: Any = None
        self.read_options = ReadOptions()
        self.unreadable = UnreadableImages()
        self._metrics = nn.ModuleDict()
        self._guard = NonFiniteGuard()

    # -- supplied by a task ------------------------------------------------------------------------

    def losses(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Return the named losses of a batch, whose sum is minimized, and the model's outputs."""
        raise NotImplementedError

    def evaluate(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """Return the losses (empty unless `evaluation_loss`) and the model's outputs for evaluation."""
        return self.losses(batch)

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the metrics of one stage, by name."""
        raise NotImplementedError

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Any, batch: Any) -> None:
        """Add a batch to the metrics of a stage."""
        raise NotImplementedError

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the scalars to log at the end of an epoch, by name without the stage."""
        raise NotImplementedError

    def predict_batch(self, images: Tensor) -> list[dict[str, Any]]:
        """Return predictions as plain CPU tensors, called without gradient. Shape: images ``[B, 3, H, W]``."""
        raise NotImplementedError(f"{type(self).__name__}: implement predict_batch(images), which `predict` calls")

    # -- reports, for callbacks --------------------------------------------------------------------

    def confusion_matrix(self, stage: EvaluationStage) -> Tensor | None:
        """Return counts ``[K, K]``, ground truth by prediction; None: the task has none.

        They are this rank's counts during an epoch, and the counts of all ranks at its end.
        """
        metric = self.metrics(stage).get("confusion")
        return None if metric is None else metric.compute()

    def class_table(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return metrics per class by name, ``[K]`` each: images and accuracy, if there is a confusion matrix."""
        counts = self.confusion_matrix(stage)
        if counts is None:
            return {}
        return {"images": counts.sum(1), "accuracy": class_accuracies(counts.double())}

    # -- steps -------------------------------------------------------------------------------------

    def predict(self, images: Images) -> list[dict[str, Any]]:
        """Predict images of any kind and size, in evaluation mode and without gradient; modes are restored afterwards.

        Args:
            images: An image or a list of images, each a path, PIL image, array or tensor in RGB; a folder; or a glob
                pattern. They pass `val_transform`, and results are in pixels of the given image. A tensor of 4
                dimensions is a batch of a data module's loader, and goes to the network as it is.

        Returns:
            Per image the fields of `predict_batch`, the names of its classes (`name_labels`) and, for a file, ``path``.

        Shape:
            - images: tensors ``[3, H, W]`` or ``[1, H, W]``, arrays ``[H, W, 3]`` or ``[H, W]``, batches
              ``[B, 3, H, W]``; uint8, or floating point in [0, 1].

        Raises:
            TypeError: An image is of another kind.
            ValueError: An image cannot be read, or has another shape, type or range; the message names it.
        """
        return predict_images(self, images)

    def forward(self, images: Tensor) -> Any:
        """Return the model's output for images ``[B, 3, H, W]``."""
        return self.model(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the sum of the losses, a scalar, and log each loss by name.

        Raises:
            NonFiniteError: A loss is NaN or infinite (`NonFiniteGuard`).
            TypeError: The losses are not a mapping of names to scalars.
            ValueError: The batch is one of another task.
        """
        self.unreadable.add(batch)
        self._check_batch(batch)
        losses, _ = self.losses(batch)
        total = self.total_loss(losses, batch)
        size = len(batch["image"])
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True, batch_size=size)
        if len(losses) > 1:
            by_name = {f"train/{name}": loss.detach() for name, loss in losses.items()}
            self.log_dict(by_name, sync_dist=True, batch_size=size)
        return total

    def total_loss(self, losses: Mapping[str, Tensor], batch: Any) -> Tensor:
        """Return the sum of the losses of a training step, a scalar, after checking that it is finite.

        Raises:
            NonFiniteError: A loss is NaN or infinite (`NonFiniteGuard`).
            TypeError: The losses are not a mapping of names to scalars.
        """
        check_losses(losses, type(self.model).__name__)
        total = torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))
        self._guard.check(total, losses, batch, self._step_name())
        return total

    def _step_name(self) -> str:
        return f"at step {self.global_step} (epoch {self.current_epoch})"

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Add the batch to the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Add the batch to the test metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Return one prediction per image.

        Raises:
            ValueError: The images differ in size, and the task needs one size.
        """
        self.unreadable.add(batch)
        images = batch["image"]
        if isinstance(images, list) and images and not self.variable_size_images:
            raise ValueError(
                f"val_transform: must give {type(self).__name__} images of one size, got several sizes; end it with "
                "albumentations.Resize, or with SmallestMaxSize and CenterCrop"
            )
        with evaluation_mode(self), torch.no_grad():
            inputs = {field: batch[field] for field in self.prediction_inputs if field in batch}
            return self.predict_batch(images, **inputs) if len(images) else []

    def _evaluate(self, batch: Any, stage: EvaluationStage) -> None:
        self.unreadable.add(batch)
        if size := len(batch["image"]):
            self._check_batch(batch)
            with evaluation_mode(self), torch.no_grad():
                losses, outputs = self.evaluate(batch)
            metrics = self.metrics(stage)
            if self.evaluation_loss:
                check_losses(losses, type(self.model).__name__)
                metrics["loss"].update(torch.stack(list(losses.values())).sum(), weight=size)
            self.update_metrics(metrics, outputs, batch)

    def _check_batch(self, batch: Any) -> None:
        if self.kind:
            check_batch(batch, self.kind, type(self).__name__, self.datamodule)

    def metrics(self, stage: EvaluationStage) -> dict[str, Any]:
        """Return the metrics of a stage. They are created on first use and never part of a checkpoint."""
        if stage not in self._metrics:
            loss = {"loss": MeanMetric()} if self.evaluation_loss else {}
            self._metrics[stage] = nn.ModuleDict({**loss, **self.make_metrics()}).to(self.device)
        return dict(self._metrics[stage].items())  # type: ignore[operator]

    def on_validation_epoch_start(self) -> None:
        """Compare the classes with the data's, and reset the metrics, which an interrupted epoch may have filled."""
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Compare the classes with the data's, and reset the test metrics before each test run."""
        self._reset_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics. Their states are reduced over ranks here, and only here."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics, reduced over ranks."""
        self._log_metrics("test")

    def _reset_metrics(self, stage: EvaluationStage) -> None:
        if isinstance(self.datamodule, HasClassNames):
            check_same_classes(self.class_names, self.datamodule.class_names, type(self.datamodule).__name__)
        for metric in self.metrics(stage).values():
            metric.reset()

    def _log_metrics(self, stage: EvaluationStage) -> None:
        metrics = self.metrics(stage)
        scalars = {"loss": metrics["loss"].compute()} if self.evaluation_loss else {}
        scalars |= self.compute_metrics(metrics)
        for name, value in scalars.items():
            key = f"{stage}/{name}"
            # every rank has the same value already; sync_dist only keeps Lightning from warning
            self.log(key, value.float().to(self.device), prog_bar=key == self.monitor, sync_dist=True)
        self._warn_of_unreadable()

    def on_train_epoch_end(self) -> None:
        """Check the losses of the last step, and warn if images could not be read."""
        self._guard.flush()
        self._warn_of_unreadable()

    def _warn_of_unreadable(self) -> None:
        if not self.trainer.sanity_checking:
            self.unreadable.warn(self.trainer.world_size)

    # -- set-up ------------------------------------------------------------------------------------

    @property
    def datamodule(self) -> Any:
        """The trainer's data module; None where loaders are passed instead, or without a trainer."""
        try:
            return self.trainer.datamodule  # type: ignore[attr-defined]
        except RuntimeError:  # Lightning's, of a module without a trainer
            return None

    @property
    def targets_checked(self) -> bool:
        """Whether the workers have validated the targets already, so that checking them again would only cost time."""
        data = self.datamodule
        return isinstance(data, ChecksTargets) and data.checks_targets

    def setup(self, stage: str) -> None:
        """Take over class names, transform and reading options of the data module.

        Raises:
            ValueError: The data module has another number of classes than the model.
        """
        # as the images are, so that convolutions need not convert their weights
        self.model.to(memory_format=torch.channels_last)
        if stage == "predict":
            return  # the checkpoint has the names, and the training data may be absent
        data = self.datamodule
        if isinstance(data, HasClassNames):
            adopt_class_names(self, list(data.class_names), type(data).__name__, training=stage == "fit")
        adopt_preparation(self, data)

    def on_fit_start(self) -> None:
        """Report loaded weights; leave evaluation mode, in which `striate.load` returns a task."""
        report_loaded_weights(self.model, resumed=self.trainer.ckpt_path is not None)
        if not any(module.training for module in self.model.modules()):
            self.train()

    # -- optimizer ---------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the trainable parameters, grouped by learning-rate factor and weight decay (`group_parameters`)."""
        return group_parameters(self.model, self.backbone_lr_factor, self.decay_norm_and_bias)

    def configure_optimizers(self) -> Any:
        """Build the optimizer over `parameter_groups`, and the schedule over the length of training.

        Raises:
            ValueError: Every parameter is frozen, or the optimizer or the scheduler rejects its arguments.
        """
        optimizer = build_optimizer(self.optimizer, self.parameter_groups())
        if self.scheduler is None:
            return optimizer
        settings = build_scheduler(self.scheduler, optimizer, self.trainer, self.monitor, self.mode)
        return {"optimizer": optimizer, "lr_scheduler": settings}

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Step as Lightning does, then free the gradients at once; Lightning keeps them through the next forward."""
        super().optimizer_step(*args, **kwargs)
        optimizer = kwargs.get("optimizer", args[2] if len(args) > 2 else None)
        if optimizer is not None:
            optimizer.zero_grad()

    # -- checkpoints -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the settings of `predict`, and prevent a bad checkpoint from overwriting a good one.

        Raises:
            NonFiniteError: A loss or a weight is NaN or infinite.
        """
        self._guard.flush()
        check_weights(self, self._step_name())
        checkpoint |= task_entries(self)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the settings of `predict`, and reject the checkpoint of another model or of other classes.

        Raises:
            ValueError: Names or shapes of the weights differ, or the classes differ from those of the data.
        """
        restore_entries(self, checkpoint)
        check_state_dict(checkpoint["state_dict"], self.state_dict(), type(self.model).__name__)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any
    ) -> Any:
        """Load as Lightning does, without fetching pretrained weights that the checkpoint would overwrite.

        The checkpoint of a launched run rebuilds its model. That of a task built by hand needs ``model=…``.
        """
        if kwargs.setdefault("weights_only", True) and Path(str(checkpoint_path)).is_file():
            read_checkpoint(Path(checkpoint_path), f"checkpoint_path {str(checkpoint_path)!r}")
        load = super().load_from_checkpoint
        with skip_pretrained():
            try:
                return load_with_current_classes(lambda path: load(path, *args, **kwargs), checkpoint_path)
            except TypeError:
                check_model_given(cls, checkpoint_path, kwargs)
                raise
