"""Interruption and resumption: Ctrl-C and signals without loss, and random numbers that continue."""

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from ..tasks.compat import finish_epoch, finish_restart, validation_follows
from .compat import log_step, saved_step
from .stop_signals import StopSignals, release_processes
from .tracking.logging import run_folder


class RandomState(pl.Callback):
    """Saves the state of torch's random number generators, so that dropout continues as if uninterrupted.

    Data order and augmentation need no saved state: they follow from the seed, the epoch and the sample. Under DDP the
    state of the first rank is saved, and each rank resumes with a variation of it. A checkpoint from within a
    validation has the state from before it, since the validation will be repeated.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the generators."""
        return self._before_validation or _random_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep the states, which are set when training starts."""
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Restore the states of a resumed run."""
        self._before_validation = None
        if self._loaded is None:
            return
        torch.set_rng_state(self._loaded["cpu"])
        if torch.cuda.is_available() and len(self._loaded["cuda"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(self._loaded["cuda"])
        if trainer.world_size > 1:
            torch.manual_seed(int(torch.randint(2**31, (1,))) + trainer.global_rank)
        self._loaded = None

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the state from before the validation, for a repetition."""
        self._before_validation = _random_state()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget that state: checkpoints that the validation triggers are saved after it."""
        self._before_validation = None


def _random_state() -> dict[str, Any]:
    cuda = [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


class GracefulInterrupt(pl.Callback):
    """On Ctrl-C, finishes the step, saves ``last.ckpt`` and prints how to resume; a second Ctrl-C stops at once.

    During a validation it finishes the batch. Averaged weights, which Lightning validates in place of the raw ones, are
    swapped back before saving. The resumed run repeats that validation from its start, then continues or ends. SIGTERM,
    which clusters send, saves in the same way and exits with 143; so does the signal of SLURM's ``--signal``, after
    which the job is requeued. `validate`, `test` and `predict` stop at once.

    List it after callbacks that change weights after a step, such as weight averaging, since it saves the weights as
    they are then.

    Args:
        command: Command line for resuming, without the program's name; None: that of this process.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self.command = command
        self._signals = StopSignals()
        self._saved: Path | None = None
        self._evaluating = False  # averaged weights are in place
        self._validated = False
        self._repeats = False  # the saved or loaded checkpoint is from before or within a validation
        self._max_steps: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return whether a validation has to be repeated."""
        return {"repeats_validation": self._repeats}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore whether a validation has to be repeated."""
        self._repeats = bool(state_dict.get("repeats_validation"))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Make the interrupted validation start over when the run is resumed."""
        if self._repeats:
            rewind_validation(checkpoint["loops"]["fit_loop"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the next epoch of a run that was saved after a complete one."""
        self._signals.watch(trainer)
        if trainer.max_steps != -1:
            finish_epoch(trainer)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Take over the signal with which SLURM announces that the time is up."""
        self._signals = StopSignals()
        self._signals.take_over(trainer)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers of Ctrl-C, SIGTERM and SLURM's signal."""
        self._saved, self._evaluating, self._validated = None, False, False
        self._folder = run_folder(trainer)
        if self._repeats and trainer.max_steps != -1:  # when all steps are done, Lightning would not start
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps += 1
        self._signals.watch(trainer)

    def on_sanity_check_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Replace the handlers that Lightning has installed since."""
        self._signals.watch(trainer)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers for a test."""
        self._signals.watch(trainer)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Install the handlers for predictions."""
        self._signals.watch(trainer)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Restore the previous handlers of all signals."""
        self._signals.restore()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the repetition if training starts without a validation, as with a time-based check interval."""
        if self._repeats:
            self.end_repetition(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if requested. If a validation follows, stop at its start instead.

        Lightning would take a checkpoint from here as one from after the validation.
        """
        if self._signals.agreed(trainer) and not validation_follows(trainer):
            log_step(trainer)
            self._save(trainer)
            raise self._signals.exception()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save and stop before a validation, if requested."""
        if trainer.state.fn != "fit":
            self._signals.watch(trainer)
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        self.end_repetition(trainer)
        if self._signals.agreed(trainer):
            self._save(trainer)
            raise self._signals.exception()

    def save_before_validation(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` as a validation starts, so that a run resumed from it repeats that validation."""
        self._save(trainer)
        self._repeats = False

    def stop_if_requested(self, trainer: pl.Trainer) -> None:
        """Stop, if requested, in long work of another callback that `save_before_validation` has preceded."""
        if self._signals.agreed(trainer):
            self._repeats = bool(trainer.validating)
            raise self._signals.exception()

    def end_repetition(self, trainer: pl.Trainer) -> None:
        """Undo the preparations for a repeated validation, once it has started."""
        self._repeats = False
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None
        # the rewound progress counts a batch as started, which would stay in the total
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that Lightning's weight averaging has swapped in the averaged weights."""
        self._evaluating = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that weight averaging has swapped the raw weights back."""
        self._evaluating = False
        self._validated = not trainer.sanity_checking

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Save and stop, if requested; with several devices, after the validation, since their batch counts differ."""
        if trainer.state.fn == "fit" and trainer.world_size == 1 and self._signals.agreed(trainer):
            self._save(trainer)
            raise self._signals.exception()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let plateau schedules use the metrics of a resumed epoch.

        Lightning skips them, since a resumed epoch may not have been validated; here it has.
        """
        if self._validated:
            finish_restart(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Save, if that is not done and the weights are consistent, and print how to resume."""
        if isinstance(exception, OSError):
            release_processes(trainer, kill=True)  # they would wait for the first rank
        if not isinstance(exception, KeyboardInterrupt | SIGTERMException) or trainer.state.fn != "fit":
            return
        release_processes(trainer, kill=self._saved is None)
        last = self._saved or next(iter(sorted(self._folder.glob("checkpoints/last*.ckpt"))), None)
        position = f"epoch {trainer.current_epoch}, step {trainer.global_step}"
        if last is None:
            rank_zero_info(f"Interrupted at {position}, before the first checkpoint.")
        else:
            repeated = ", in a validation, which will be repeated" if self._repeats else ""
            command = resume_command(self.command)
            rank_zero_info(f"Interrupted at {position}{repeated}. Checkpoint: {last}. To resume:\n    {command}")

    def _save(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt``, with the raw weights in place."""
        self._repeats = bool(trainer.validating)
        if self._evaluating:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightAveraging):
                    callback.on_validation_epoch_end(trainer, trainer.lightning_module)
            self._evaluating = False
        path = self._folder / "checkpoints" / "last.ckpt"
        trainer.save_checkpoint(path)
        self._saved = path


class LastCheckpoint(ModelCheckpoint):
    """``last.ckpt``: after each validation and, unless nothing was trained since, at the end of training.

    Lightning's callback saves when a validation has run. Steps after the last validation, or a training without any,
    would be lost.
    """

    def __init__(self) -> None:
        super().__init__(filename="last", enable_version_counter=False)
        self._saved = 0  # number of steps in the last checkpoint that was saved here

    @property
    def state_key(self) -> str:
        """Name of its state in checkpoints: that of Lightning's callback, as in those of before."""
        return super().state_key.replace(type(self).__qualname__, ModelCheckpoint.__qualname__, 1)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save the last step within its epoch, which Lightning would then count as completed."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        ends = trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if trainer.global_step == trainer.max_steps and not (ends or validation_follows(trainer)):
            self._save_steps(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the epoch, unless its last step is saved, which is so when training ends within it."""
        if trainer.global_step > self._saved:
            super().on_train_epoch_end(trainer, pl_module)
        if trainer.global_step == trainer.max_steps:
            self._save_steps(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save the steps since the last checkpoint."""
        super().on_train_end(trainer, pl_module)
        self._save_steps(trainer)

    def _save_steps(self, trainer: pl.Trainer) -> None:
        if self.dirpath is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if trainer.global_step > max(saved_step(self), self._saved):
            trainer.save_checkpoint(Path(self.dirpath) / "last.ckpt")
            self._saved = trainer.global_step


def rewind_validation(fit_loop: dict[str, Any]) -> None:
    """Change the progress in a checkpoint so that Lightning (2.6) repeats the current validation from its start.

    Lightning finishes a validation before it trains if one more batch has been started than processed. A checkpoint
    saved by a callback never has that: a batch counts as processed before callbacks are called. Completed batches are
    reset too, since metrics need all batches of a validation.

    Args:
        fit_loop: ``["loops"]["fit_loop"]`` of the checkpoint, changed in place.
    """
    progress = fit_loop["epoch_loop.val_loop.batch_progress"]
    before = progress["total"]["completed"] - progress["current"]["completed"]
    for tracker, done in ((progress["total"], before), (progress["current"], 0)):
        tracker.update(ready=done + 1, started=done + 1, processed=done, completed=done)
    progress["is_last_batch"] = False


@rank_zero_only
def resume_command(command: Sequence[str] | None = None) -> str:
    """The command line of this process, with ``--ckpt_path last``.

    Args:
        command: Command line without the program's name; None: that of this process, where the launcher has made paths
            absolute.
    """
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:] if command is None else command:
        if skip or argument.startswith("--ckpt_path="):
            skip = False
        elif argument == "--ckpt_path":
            skip = True
        else:
            path = Path(argument)
            inside = command is None and path.is_absolute() and path.is_relative_to(Path.cwd())
            arguments.append(str(path.relative_to(Path.cwd())) if inside else argument)
    executable = Path(sys.argv[0])
    program = [sys.argv[0]]
    if executable.name == "__main__.py":
        program = ["python", "-m", "striate"]
    elif shutil.which(executable.name):
        program = [executable.name]
    return shlex.join([*program, *arguments, "--ckpt_path", "last"])
