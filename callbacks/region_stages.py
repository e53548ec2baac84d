"""The callback that trains the SVMs and the box regression of R-CNN and SPP-net after their networks."""

import json
import math
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ..datamodules.base import VisionDataModule
from ..tasks import Detection
from ..tasks.region_stages import RegionStageTrainer, has_stages
from .atomic_files import replace_text
from .resume import GracefulInterrupt
from .tracking.logging import run_folder

FOLDER = "region_stages"
"""Folder of the files, in that of the run."""

REPORT = "region_stages.json"
"""File with the duration of each stage and the size of the stored features, in the folder of the run."""


class RegionStages(pl.Callback):
    """Completes the training of a `striate.models.SVMDetector`: stores features, trains SVMs and box regression.

    The stages run before the last validation, which therefore measures the complete detector; it is saved in
    ``last.ckpt`` and, whatever was best before, in ``best.ckpt``. Earlier validations measure the network with its
    softmax. ``last.ckpt`` is also saved before the stages: a run that is stopped in one of them and resumed
    (``--ckpt_path last``) continues there, with the files of the folder ``region_stages`` of the run. If training ends
    without a validation (early stopping, ``max_time``), the stages run then. If more epochs are trained later, they run
    again.

    The launcher adds this callback to every run; it does nothing for other models. List it in a YAML to set its
    arguments.

    Args:
        half_precision: Store features in float16, in half the space.
        keep_features: Keep the files after training.

    Raises:
        ValueError: The run uses several devices, weight averaging, or a data module that is not striate's.
    """

    def __init__(self, half_precision: bool = False, keep_features: bool = False) -> None:
        self.half_precision, self.keep_features = half_precision, keep_features

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the stages can run, before anything is trained."""
        if stage != "fit" or not has_stages(pl_module):
            return
        name = type(pl_module.model).__name__
        if trainer.world_size > 1:
            raise ValueError(
                f"trainer.devices: must be 1 for {name}, whose SVMs are trained in one process, got "
                f"{trainer.world_size} processes"
            )
        if any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise ValueError(
                f"trainer.callbacks: must have no weight averaging for {name}, whose SVMs belong to the network's own "
                "weights, got one; remove it"
            )
        if not isinstance(trainer.datamodule, VisionDataModule):  # type: ignore[attr-defined]
            raise ValueError(
                f"datamodule: must be one of striate.datamodules for {name}, whose SVMs are trained on the training "
                "images in order, got none; pass datamodule to fit"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget SVMs that belong to a network which is trained further."""
        if has_stages(pl_module) and not _is_last(trainer):
            model: Any = pl_module.model
            if model.stages_finished:
                model.reset_stages()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the stages before the last validation of a training."""
        if not has_stages(pl_module) or trainer.sanity_checking:
            return
        if trainer.state.fn != "fit":
            self._warn_if_unfinished(pl_module, "its results are those of the network's softmax")
            return
        interrupt = _interrupt(trainer)
        if interrupt is not None:
            interrupt.end_repetition(trainer)
        if _is_last(trainer):
            if interrupt is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                interrupt.save_before_validation(trainer)
            self._run(trainer, pl_module, interrupt)
            for callback in trainer.checkpoint_callbacks:
                if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
                    forget_best(callback)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn that a detector is not complete."""
        self._warn_if_unfinished(pl_module, "its results are those of the network's softmax")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn that a detector is not complete."""
        self._warn_if_unfinished(pl_module, "its results are those of the network's softmax")

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Run the stages if training has ended without a last validation."""
        if not has_stages(pl_module) or pl_module.model.stages_finished:
            return
        self._run(trainer, pl_module, _interrupt(trainer))
        if not trainer.fast_dev_run:  # type: ignore[attr-defined]
            trainer.save_checkpoint(run_folder(trainer) / "checkpoints" / "last.ckpt")
        rank_zero_warn(
            "The detector with its SVMs was not validated, since training ended without a validation; run striate "
            "validate with --ckpt_path last"
        )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Warn if nothing was left to train but the stages."""
        epochs = (trainer.max_epochs or 0) + 1
        self._warn_if_unfinished(
            pl_module, f"its training is over; train one more epoch with --trainer.max_epochs {epochs} --ckpt_path last"
        )

    def _run(self, trainer: pl.Trainer, task: Detection, interrupt: GracefulInterrupt | None) -> None:
        """Run the stages, and write how long they took."""
        folder = run_folder(trainer)
        stages = RegionStageTrainer(
            task,
            trainer.datamodule,  # type: ignore[attr-defined]
            folder / FOLDER,
            self.half_precision,
            _limit(trainer),
            rank_zero_info,
            (lambda: None) if interrupt is None else partial(interrupt.stop_if_requested, trainer),
            trainer.precision_plugin.forward_context,
        )
        stages.run()
        replace_text(folder / REPORT, json.dumps(stages.results, indent=2) + "\n")
        seconds = sum(value for name, value in stages.results.items() if name.endswith("_seconds"))
        size = stages.results["disk_bytes"] / 1e6
        rank_zero_info(f"SVMs and box regression are trained, in {seconds:.0f} s; stored features: {size:,.0f} MB")
        if not self.keep_features:
            stages.store.remove()

    def _warn_if_unfinished(self, task: pl.LightningModule, consequence: str) -> None:
        if has_stages(task) and not task.model.stages_finished:
            rank_zero_warn(f"The SVMs and boxes of {type(task.model).__name__} are not trained: {consequence}")


def forget_best(callback: ModelCheckpoint) -> None:
    """Let the next checkpoint replace the best one, which is of a detector without SVMs."""
    callback.best_k_models, callback.best_model_path, callback.kth_best_model_path = {}, "", ""
    callback.best_model_score = callback.current_score = None
    callback.kth_value = torch.tensor(math.inf if callback.mode == "min" else -math.inf)


def _interrupt(trainer: pl.Trainer) -> GracefulInterrupt | None:
    """The callback that saves an interrupted run, if there is one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return next((callback for callback in callbacks if isinstance(callback, GracefulInterrupt)), None)


def _is_last(trainer: pl.Trainer) -> bool:
    """Whether training ends after the step that was just taken."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    ends = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    return ends and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch


def _limit(trainer: pl.Trainer) -> int | None:
    """Number of training images that ``limit_train_batches`` leaves; None: all."""
    limit, data = trainer.limit_train_batches, trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(limit, int):
        return limit * data.batch_size
    return None if limit is None or limit >= 1 else max(1, int(limit * len(data.datasets["train"])))
