"""Checkpoints as artifacts of W&B."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from ...datamodules.annotations.argument_checks import check_choice
from .logging import run_folder
from .record import RunRecord
from .wandb_logger import RunLogger
from .wandb_record import run_loggers

Uploads = Literal["none", "best", "all"]
"""Which checkpoints are uploaded."""

ARTIFACT = "checkpoint"
"""Name of the artifact, which is followed by the ID of the run."""


class CheckpointArtifacts(pl.Callback):
    """Uploads checkpoints to W&B after each epoch, as versions of one artifact of the type ``model``.

    Aliases are ``best``, ``last`` and ``epoch-N``, with epochs counted from 0. The metadata hold the metric, the
    configuration, the class of the task and its class names. At the end of training, versions that are no longer
    ``best`` or ``last`` are deleted, unless all are kept. `striate.load` and ``--ckpt_path`` take the artifact as
    ``wandb:ENTITY/PROJECT/checkpoint-ID:best``.

    Args:
        uploads: ``best``: ``best.ckpt`` whenever it has changed. ``all``: ``last.ckpt`` too, and no version is deleted.
            ``none``: nothing.

    Raises:
        ValueError: `uploads` is something else.
    """

    def __init__(self, uploads: Uploads = "none") -> None:
        check_choice("wandb.checkpoints", uploads, get_args(Uploads))
        self.uploads = uploads
        self._sent: dict[str, int] = {}
        self._versions: list[Any] = []

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Upload the checkpoints that the previous epoch has saved."""
        self._upload(trainer)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Upload the checkpoints of the end of training, and delete old versions."""
        self._upload(trainer)
        old, self._versions = self._versions[:-1], []
        for logger in run_loggers(trainer):
            if self.uploads == "best" and old and not logger.offline:
                logger.guard.call("deleting old checkpoints", partial(delete_all, old), waits=True)

    def _upload(self, trainer: pl.Trainer) -> None:
        names = {"none": (), "best": ("best",), "all": ("best", "last")}[self.uploads]
        folder = run_folder(trainer) / "checkpoints" if names else Path()
        for logger in run_loggers(trainer):
            for name in names:
                path = folder / f"{name}.ckpt"
                if not path.is_file() or self._sent.get(name) == path.stat().st_mtime_ns:
                    continue
                self._sent[name] = path.stat().st_mtime_ns
                logger.guard.call(f"uploading {path.name}", partial(self._send, trainer, logger, path, name))

    def _send(self, trainer: pl.Trainer, logger: RunLogger, path: Path, name: str) -> None:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        version = logger.log_file(
            path, ARTIFACT, "model", [name, f"epoch-{content['epoch']}"], metadata_of(trainer, content, name)
        )
        if version is not None and name == "best":
            self._versions.append(version)


def delete_all(versions: Sequence[Any]) -> None:
    """Delete versions of an artifact, once they are uploaded."""
    for version in versions:
        version.wait(timeout=60)
        version.delete(delete_aliases=True)


def metadata_of(trainer: pl.Trainer, content: dict[str, Any], name: str) -> dict[str, Any]:
    """What an artifact says of its checkpoint: epoch, step, metric, task, class names and configuration.

    Args:
        trainer: The trainer.
        content: The checkpoint.
        name: ``best`` or ``last``.
    """
    facts = {key: content.get(key) for key in ("epoch", "global_step", "task", "class_names")}
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.monitor and callback.best_model_score is not None:
            value = callback.best_model_score if name == "best" else trainer.callback_metrics.get(callback.monitor)
            facts |= {"monitor": callback.monitor, "value": None if value is None else float(value)}
    records = (one for one in trainer.callbacks if isinstance(one, RunRecord))  # type: ignore[attr-defined]
    return facts | {"config": next((one.config for one in records), None)}
