"""The base of all tasks: it owns the steps, the optimizer, the metrics' life and what a checkpoint holds."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from pytorch_lightning.core.mixins.hparams_mixin import HyperparametersMixin, _given_hyperparameters
from pytorch_lightning.utilities.parsing import collect_init_args
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric, MetricCollection

from ..models.weights import skip_pretrained
from .batch_requirements import check_batch, check_losses
from .checkpoints import compare_weights, is_plain, tell_weights
from .class_paths import load_with_current_classes
from .nonfinite import LossWatch, check_weights
from .optimizers import configured, prefer_fused
from .schedules import Horizon, Schedule

Stage = Literal["train", "val", "test"]


class Task(pl.LightningModule):
    """Base of the tasks. A task supplies `losses`, `make_metrics`, `update_metrics` and `predict`.

    Args:
        model: any module of the task's kind (DESIGN, "Seams"); pixels in, predictions out.
        optimizer: makes the optimizer from parameter groups.
        scheduler: one of `striate.tasks.schedules`, or a callable that makes a torch scheduler, which is stepped
            once an epoch; None: a constant rate.
        backbone_lr_factor: learning rate of ``model.backbone`` relative to the rest.
        decay_norm_and_bias: apply weight decay to one-dimensional parameters too (the papers before 2018 do).

    Attributes:
        monitor: the metric by which checkpoints are chosen, runs are stopped and plateaus are seen.
        mode: ``max`` or ``min``, the better direction of `monitor`.
        variable_size_images: whether `predict` takes images that differ in size, as a list.
        evaluation_loss: whether evaluation computes a loss too, ``val/loss``.
        fewest_classes: that the data may have.
        batch_task: whose targets a batch must have, a key of `wanted.WANTED`; empty: that is not looked at.
        class_names: the data module's, kept in the checkpoint so that prediction needs no training data.
    """

    monitor: ClassVar[str] = "val/loss"
    mode: ClassVar[Literal["min", "max"]] = "min"
    variable_size_images: ClassVar[bool] = False
    evaluation_loss: ClassVar[bool] = True
    fewest_classes: ClassVar[int] = 2
    batch_task: ClassVar[str] = ""

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
    ) -> None:
        super().__init__()
        self._save_configuration(inspect.currentframe())
        self.model = model
        self.optimizer, self.scheduler = optimizer, scheduler
        self.backbone_lr_factor, self.decay_norm_and_bias = backbone_lr_factor, decay_norm_and_bias
        self.class_names: list[str] = []
        self.unreadable: dict[str, str] = {}
        self._metrics = nn.ModuleDict()
        self._watch = LossWatch()

    def _save_configuration(self, frame: FrameType | None) -> None:
        """Keep as hyperparameters what can be written as plain text, so that checkpoints hold no pickled objects.

        Under the launcher Lightning supplies the configuration itself, nested modules and all, and a checkpoint
        rebuilds everything. Built by hand there are only objects; of those, plain values are kept.
        """
        if _given_hyperparameters.get() is not None:
            self.save_hyperparameters(logger=False)
            return
        arguments: dict[str, Any] = {}
        for level in collect_init_args(frame, [], classes=(HyperparametersMixin,)):  # type: ignore[arg-type]
            arguments |= level
        if plain := [name for name, value in arguments.items() if is_plain(value)]:
            self.save_hyperparameters(*plain, frame=frame, logger=False)

    # -- what a task supplies ----------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Number of classes the model tells apart."""
        raise NotImplementedError

    def losses(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """The named losses of a batch, which are summed for training, and the model's outputs."""
        raise NotImplementedError

    def evaluate(self, batch: Any) -> tuple[dict[str, Tensor], Any]:
        """What a batch is evaluated by: its losses, none unless `evaluation_loss`, and the model's outputs."""
        return self.losses(batch)

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Fresh metrics for one stage, by name."""
        raise NotImplementedError

    def update_metrics(self, metrics: Mapping[str, Any], outputs: Any, batch: Any) -> None:
        """Count a batch."""
        raise NotImplementedError

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """The scalars to log at the end of an epoch, by name without the stage."""
        raise NotImplementedError

    def predict(self, images: Tensor) -> list[dict[str, Any]]:
        """What the model sees in each image, as plain tensors on the CPU."""
        raise NotImplementedError

    # -- steps -------------------------------------------------------------------------------------

    def forward(self, images: Tensor) -> Any:
        """The model's own output."""
        return self.model(images)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Sum of the losses; each is logged under its name.

        Raises:
            NonFiniteError: a loss is NaN or infinite (`LossWatch`).
            TypeError: there are no losses, or something else in their place.
            ValueError: a batch of another task.
        """
        self._note_unreadable(batch)
        self._check_batch(batch)
        losses, _ = self.losses(batch)
        total = self.watched_sum(losses, batch)
        size = len(batch["image"])
        self.log("train/loss", total.detach(), prog_bar=True, sync_dist=True, batch_size=size)
        if len(losses) > 1:
            logged = {f"train/{name}": loss.detach() for name, loss in losses.items()}
            self.log_dict(logged, sync_dist=True, batch_size=size)
        return total

    def watched_sum(self, losses: Mapping[str, Tensor], batch: Any) -> Tensor:
        """The sum of a training step's losses, which is seen to be a finite number.

        Raises:
            TypeError: `losses` is not what it should be.
        """
        check_losses(losses, type(self.model).__name__)
        total = torch.stack(list(losses.values())).sum() if len(losses) > 1 else next(iter(losses.values()))
        self._watch.see(total, losses, batch, self._where())
        return total

    def _where(self) -> str:
        return f"at step {self.global_step} (epoch {self.current_epoch})"

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Count the batch in the validation metrics."""
        self._evaluate(batch, "val")

    def test_step(self, batch: Any, batch_idx: int) -> None:
        """Count the batch in the test metrics."""
        self._evaluate(batch, "test")

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One prediction an image.

        Raises:
            ValueError: for images that differ in size, unless the task takes them so.
        """
        self._note_unreadable(batch)
        images = batch["image"]
        if isinstance(images, list) and images and not self.variable_size_images:
            raise ValueError(
                f"the images to predict differ in size, which {type(self).__name__} does not take: end "
                "data.init_args.val_transform with steps that fix it, such as albumentations.Resize, or "
                "SmallestMaxSize and CenterCrop"
            )
        return self.predict(images) if len(images) else []

    def _evaluate(self, batch: Any, stage: Stage) -> None:
        self._note_unreadable(batch)
        if size := len(batch["image"]):
            self._check_batch(batch)
            losses, outputs = self.evaluate(batch)
            metrics = self.metrics(stage)
            if self.evaluation_loss:
                check_losses(losses, type(self.model).__name__)
                metrics["loss"].update(torch.stack(list(losses.values())).sum(), weight=size)
            self.update_metrics(metrics, outputs, batch)

    def _check_batch(self, batch: Any) -> None:
        if self.batch_task:
            data = getattr(getattr(self, "_trainer", None), "datamodule", None)
            check_batch(batch, self.batch_task, type(self).__name__, data)

    def metrics(self, stage: Stage) -> dict[str, Any]:
        """The metrics of a stage, made when first asked for; never part of a checkpoint."""
        if stage not in self._metrics:
            loss = {"loss": MeanMetric()} if self.evaluation_loss else {}
            self._metrics[stage] = nn.ModuleDict({**loss, **self.make_metrics()}).to(self.device)
        return dict(self._metrics[stage].items())  # type: ignore[operator]

    def on_validation_epoch_start(self) -> None:
        """Start from nothing, also after an interrupted epoch."""
        self._reset_metrics("val")

    def on_test_epoch_start(self) -> None:
        """Start from nothing."""
        self._reset_metrics("test")

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics; states are reduced over ranks here, and only here."""
        self._log_metrics("val")

    def on_test_epoch_end(self) -> None:
        """Log the test metrics."""
        self._log_metrics("test")

    def _reset_metrics(self, stage: Stage) -> None:
        for metric in self.metrics(stage).values():
            metric.reset()

    def _log_metrics(self, stage: Stage) -> None:
        metrics = self.metrics(stage)
        scalars = {"loss": metrics["loss"].compute()} if self.evaluation_loss else {}
        scalars |= self.compute_metrics(metrics)
        for name, value in scalars.items():
            key = f"{stage}/{name}"  # every rank has computed the same value; sync_dist only says so to Lightning
            self.log(key, value.float().to(self.device), prog_bar=key == self.monitor, sync_dist=True)
        self._report_unreadable()

    # -- unreadable images -------------------------------------------------------------------------

    def _note_unreadable(self, batch: Any) -> None:
        for message in batch.get("unreadable", ()):
            path, _, reason = message.partition(": ")
            self.unreadable[path] = reason

    def on_train_epoch_end(self) -> None:
        """Look at the last step's losses, and say how many images could not be read."""
        self._watch.settle()
        self._report_unreadable()

    def _report_unreadable(self) -> None:
        if self.trainer.sanity_checking:
            return
        reported: int = getattr(self, "_reported_unreadable", 0)
        unreadable = gather(self.unreadable, self.trainer.world_size)
        if len(unreadable) > reported:
            path, reason = next(iter(unreadable.items()))
            rank_zero_warn(
                f"{len(unreadable)} image(s) could not be read and were skipped, the first: {path}: {reason}. "
                "Set data.init_args.strict: true to stop at such a file"
            )
            self._reported_unreadable = len(unreadable)

    # -- set-up ------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Take the class names of the data and compare their number with the model's.

        Raises:
            ValueError: when they differ.
        """
        self.model.to(
            memory_format=torch.channels_last
        )  # as the images are; convolutions need not convert their weights
        if stage == "fit":
            tell_weights(self.model, resumed=self.trainer.ckpt_path is not None)
        if stage == "predict":
            return  # the names are the checkpoint's, and the training data need not be there
        data = getattr(self.trainer, "datamodule", None)
        names = getattr(data, "class_names", None)
        if names is None:
            return
        if len(names) < self.fewest_classes:
            raise ValueError(
                f"{type(data).__name__} has {len(names)} class{'es' * (not names)} ({', '.join(names)}); "
                f"{type(self).__name__} needs {self.fewest_classes} or more"
            )
        if len(names) != self.num_classes:
            listed = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
            raise ValueError(
                f"num_classes: the model {type(self.model).__name__} tells {self.num_classes} classes apart, but the "
                f"data module {type(data).__name__} has {len(names)} ({listed}): set num_classes: {len(names)}"
            )
        self.class_names = list(names)

    # -- optimizer ---------------------------------------------------------------------------------

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters by learning-rate factor and weight decay.

        One-dimensional parameters are norms' scales and shifts and biases; they are not decayed, unless
        ``decay_norm_and_bias``. Groups without parameters are left out.
        """
        backbone = getattr(self.model, "backbone", None)
        slow = {id(p) for p in backbone.parameters()} if isinstance(backbone, nn.Module) else set()
        groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
        for parameter in self.model.parameters():
            if parameter.requires_grad:
                decayed = self.decay_norm_and_bias or parameter.ndim > 1
                groups.setdefault(("backbone" if id(parameter) in slow else "head", decayed), []).append(parameter)
        return [
            {"params": parameters, "name": part if decayed else f"{part} (no decay)"}
            | ({} if decayed else {"weight_decay": 0.0})
            | ({"lr_factor": self.backbone_lr_factor} if part == "backbone" else {})
            for (part, decayed), parameters in sorted(groups.items(), reverse=True)
        ]

    def configure_optimizers(self) -> Any:
        """The injected optimizer over `parameter_groups`, and the schedule over the trainer's horizon.

        Raises:
            ValueError: when every parameter is frozen, or the optimizer or the schedule refuses its numbers.
        """
        groups = self.parameter_groups()
        if not groups:
            raise ValueError("nothing to train: every parameter of the model is frozen; lower frozen_stages")
        optimizer = configured("optimizer", self.optimizer, groups)
        for group in optimizer.param_groups:
            group["lr"] *= group.pop("lr_factor", 1.0)
        prefer_fused(optimizer)
        if self.scheduler is None:
            return optimizer
        if not isinstance(self.scheduler, Schedule):
            scheduler = configured("scheduler", self.scheduler, optimizer)
            plateau = isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler} | ({"monitor": self.monitor} if plateau else {}),
            }
        steps = self.trainer.estimated_stepping_batches
        batches = self.trainer.num_training_batches
        per_epoch = max(-(-batches // self.trainer.accumulate_grad_batches), 1)
        horizon = Horizon(float(steps), float(per_epoch))
        return {
            "optimizer": optimizer,
            "lr_scheduler": configured("scheduler", self.scheduler.build, optimizer, horizon, self.monitor, self.mode),
        }

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Lightning's, with the gradients freed at once: it would keep them through the next forward pass."""
        super().optimizer_step(*args, **kwargs)
        optimizer = kwargs.get("optimizer", args[2] if len(args) > 2 else None)
        if optimizer is not None:
            optimizer.zero_grad()

    # -- checkpoints -------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the class names beside the weights; and keep a good checkpoint from being overwritten by a bad one.

        Raises:
            NonFiniteError: a loss or a weight is NaN or infinite.
        """
        self._watch.settle()
        check_weights(self, self._where())
        checkpoint["class_names"] = self.class_names

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the class names back, and refuse a checkpoint of another model with one clear sentence.

        Raises:
            ValueError: when keys or shapes of the weights differ.
        """
        self.class_names = list(checkpoint.get("class_names", []))
        compare_weights(checkpoint["state_dict"], self.state_dict(), type(self.model).__name__)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls, checkpoint_path: str | Path, *args: Any, **kwargs: Any
    ) -> Any:
        """Lightning's, without first fetching pretrained weights that the checkpoint would overwrite.

        A checkpoint of a launched run rebuilds its model; one of a task built by hand needs ``model=…``.

        Raises:
            TypeError: when ``model=…`` is needed and not given.
        """
        kwargs.setdefault("weights_only", True)
        load = super().load_from_checkpoint
        with skip_pretrained():
            try:
                return load_with_current_classes(lambda path: load(path, *args, **kwargs), checkpoint_path)
            except TypeError as error:
                if "'model'" in str(error):
                    raise TypeError(
                        f"{checkpoint_path}: this task was built by hand, so its checkpoint does not say how to "
                        f"rebuild the model: {cls.__name__}.load_from_checkpoint(path, model=…)"
                    ) from error
                raise


def gather(own: dict[str, str], world_size: int) -> dict[str, str]:
    """The entries of all ranks together; every rank must ask, at the same time."""
    if world_size == 1:
        return own
    shares: list[dict[str, str]] = [{}] * world_size
    torch.distributed.all_gather_object(shares, own)
    return {key: value for share in shares for key, value in share.items()}
