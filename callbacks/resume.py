"""Stopping and going on: Ctrl-C that loses nothing, and random numbers that continue where they were."""

import shlex
import shutil
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from .logging import run_folder


class RandomState(pl.Callback):
    """Keeps torch's random numbers in the checkpoint, so that dropout goes on as without the interruption.

    Data order and augmentation need no such help: they follow from the seed, the epoch and the sample. Under DDP
    the first rank's state is kept, and each rank goes on with its own variation of it.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The generators' states."""
        cuda = [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "cuda": cuda}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember; the states are set when training begins."""
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue."""
        if self._loaded is None:
            return
        torch.set_rng_state(self._loaded["cpu"])
        if torch.cuda.is_available() and len(self._loaded["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._loaded["cuda"])
        if trainer.world_size > 1:
            torch.manual_seed(int(torch.randint(2**31, (1,))) + trainer.global_rank)
        self._loaded = None


class GracefulInterrupt(pl.Callback):
    """Ctrl-C finishes the step, saves ``last.ckpt`` and says how to go on; a second Ctrl-C stops at once.

    During validation it finishes the batch; averaged weights, which Lightning validates in place of the raw ones,
    are put back before saving. SIGTERM, as clusters send it, saves likewise.
    """

    def __init__(self) -> None:
        self._requested = False
        self._previous: Any = None
        self._saved: Path | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._requested, self._saved = False, None
        self._folder = run_folder(trainer)
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, lambda *args: self._interrupt(trainer, *args))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Listen no more."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _interrupt(self, trainer: pl.Trainer, number: int, frame: FrameType | None) -> None:
        under_way = (trainer.training or trainer.validating) and not trainer.sanity_checking
        if self._requested or not under_way:
            raise KeyboardInterrupt
        self._requested = True
        rank_zero_info("\nCtrl-C: finishing this step and saving; press again to stop at once.")

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if asked to; the ranks of DDP decide together."""
        requested = self._requested
        if trainer.world_size > 1:
            requested = trainer.strategy.reduce_boolean_decision(requested, all=False)
        if requested:
            self._save(trainer)
            raise KeyboardInterrupt

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop, if asked to, with the raw weights in place and saved."""
        if self._requested and trainer.world_size == 1:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, pl_module)
            self._save(trainer)
            raise KeyboardInterrupt

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save what is not saved yet, where the weights are whole, and say how to go on."""
        if not isinstance(exception, KeyboardInterrupt | SIGTERMException) or trainer.state.fn != "fit":
            return
        if self._saved is None and isinstance(exception, SIGTERMException) and trainer.world_size == 1:
            self._save(trainer)  # Lightning raises it between two steps
        last = self._saved or next(iter(sorted(self._folder.glob("checkpoints/last*.ckpt"))), None)
        where = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        if last is None:
            rank_zero_info(f"Interrupted at {where}, before a first checkpoint.")
        else:
            rank_zero_info(f"Interrupted at {where}. {last} is kept; to go on:\n    {resume_command()}")

    def _save(self, trainer: pl.Trainer) -> None:
        path = self._folder / "checkpoints" / "last.ckpt"
        trainer.save_checkpoint(path)
        self._saved = path


@rank_zero_only
def resume_command() -> str:
    """The command line of this process, with ``--ckpt_path last``."""
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:]:
        if skip or argument.startswith("--ckpt_path="):
            skip = False
        elif argument == "--ckpt_path":
            skip = True
        else:
            path = Path(argument)  # a configuration file, which the launcher made absolute
            inside = path.is_absolute() and path.is_relative_to(Path.cwd())
            arguments.append(str(path.relative_to(Path.cwd())) if inside else argument)
    called = Path(sys.argv[0])
    program = [sys.argv[0]]
    if called.name == "__main__.py":
        program = ["python", "-m", "striate"]
    elif shutil.which(called.name):
        program = [called.name]
    return shlex.join([*program, *arguments, "--ckpt_path", "last"])
