"""Writing of checkpoints that leaves the old file or the new one, and never half a file."""

from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from .atomic_files import remove_partial, replace_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, then renames it, so that the target is never half a file.

    Lightning writes to the folder for temporary files and moves from there. If that is on another file system, moving
    means copying: a full disk or a kill destroys the old checkpoint. The launcher uses this class; elsewhere, pass it
    as ``Trainer(plugins=[AtomicCheckpointIO()])``. Remote paths are written as Lightning does.
    """

    def __init__(self) -> None:
        self._cleaned: set[Path] = set()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, with all its data on the disk before it replaces an older one.

        Raises:
            OSError: It cannot be written, as on a full disk; an older file of that name is unchanged.
        """
        if "://" in str(path) or storage_options is not None:
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.parent not in self._cleaned:
            self._cleaned.add(target.parent)
            remove_partial(target.parent)
        with replace_file(target) as file:
            _write(checkpoint, file)


def write_atomically(trainer: pl.Trainer) -> None:
    """Let a trainer write checkpoints with `AtomicCheckpointIO`, unless it has another plugin than Lightning's own."""
    if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
        trainer.strategy.checkpoint_io = AtomicCheckpointIO()


def _write(checkpoint: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(checkpoint, file)
    except RuntimeError as error:
        # while it handles an error of the file, PyTorch raises one of its own
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, OSError):
            cause = cause.__cause__ or cause.__context__
        raise cause or error from None
