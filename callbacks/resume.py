"""Stopping and going on: Ctrl-C that loses nothing, and random numbers that continue where they were."""

import shlex
import shutil
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from .tracking.logging import run_folder


class RandomState(pl.Callback):
    """Keeps torch's random numbers in the checkpoint, so that dropout goes on as without the interruption.

    Data order and augmentation need no such help: they follow from the seed, the epoch and the sample. Under DDP
    the first rank's state is kept, and each rank goes on with its own variation of it. What is saved while a
    validation is under way has the state from before it, since the validation will be repeated.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] | None = None
        self._before_validation: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """The generators' states."""
        return self._before_validation or _random_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Remember; the states are set when training begins."""
        self._loaded = state_dict

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Continue."""
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
        """Remember where a repetition is to begin."""
        self._before_validation = _random_state()

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The validation is done, before the checkpoints that it decides on are saved."""
        self._before_validation = None


def _random_state() -> dict[str, Any]:
    cuda = [state.cpu() for state in torch.cuda.get_rng_state_all()] if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


class GracefulInterrupt(pl.Callback):
    """Ctrl-C finishes the step, saves ``last.ckpt`` and says how to go on; a second Ctrl-C stops at once.

    During validation it finishes the batch; averaged weights, which Lightning validates in place of the raw ones,
    are put back before saving. The resumed run repeats that validation from its beginning, and then goes on, or ends.
    SIGTERM, as clusters send it, saves likewise.

    It belongs behind the callbacks that change weights after a step, such as weight averaging: it saves what it finds.

    Args:
        command: the command line to go on with, behind the program's name; None: this process's.
    """

    def __init__(self, command: list[str] | None = None) -> None:
        self.command = command
        self._requested = False
        self._previous: Any = None
        self._saved: Path | None = None
        self._evaluating = False  # the averaged weights are in place
        self._validated = False
        self._repeats = False  # what is saved, or was loaded, is from before or within a validation
        self._max_steps: int | None = None

    def state_dict(self) -> dict[str, Any]:
        """Whether a validation is to be repeated."""
        return {"repeats_validation": self._repeats}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it over."""
        self._repeats = bool(state_dict.get("repeats_validation"))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have the validation that is stopped here begin anew when the run goes on."""
        if self._repeats:
            rewind_validation(checkpoint["loops"]["fit_loop"])

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Listen."""
        self._requested, self._saved, self._evaluating, self._validated = False, None, False, False
        self._folder = run_folder(trainer)
        if self._repeats and trainer.max_steps != -1:  # Lightning would not even begin where all steps are done
            self._max_steps = trainer.max_steps
            trainer.fit_loop.epoch_loop.max_steps += 1
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

    def _asked(self, trainer: pl.Trainer) -> bool:
        """Whether to stop; the ranks of DDP decide together."""
        if trainer.world_size > 1:
            return trainer.strategy.reduce_boolean_decision(self._requested, all=False)
        return self._requested

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Go on training though there was no validation, as where the time for it is counted anew."""
        if self._repeats:
            self._settle(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save and stop, if asked to; but where a validation follows, at its start.

        Lightning would take a run that is saved here for one that has been validated.
        """
        if self._asked(trainer) and not _validation_follows(trainer):
            self._save(trainer)
            raise KeyboardInterrupt

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Save and stop, if asked to."""
        if trainer.sanity_checking:
            return
        self._settle(trainer)
        if self._asked(trainer):
            self._save(trainer)
            raise KeyboardInterrupt

    def _settle(self, trainer: pl.Trainer) -> None:
        """Nothing is left to make up for: the repeated validation has begun."""
        self._repeats = False
        if self._max_steps is not None:
            trainer.fit_loop.epoch_loop.max_steps, self._max_steps = self._max_steps, None
        # the batch that the rewound progress says has begun would be missing for ever
        trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Lightning's weight averaging has put the averaged weights in place."""
        self._evaluating = True

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """It has put the raw ones back."""
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
        """Save and stop, if asked to; on several devices the validation is finished, for their shares differ."""
        if self._requested and trainer.world_size == 1:
            self._save(trainer)
            raise KeyboardInterrupt

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Let a plateau schedule see the figures of a resumed epoch.

        Lightning passes over it, since a resumed epoch may not have been validated; here it has.
        """
        if self._validated:
            trainer.fit_loop._restarting = False

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
            again = ", in a validation, which will be repeated" if self._repeats else ""
            rank_zero_info(
                f"Interrupted at {where}{again}. {last} is kept; to go on:\n    {resume_command(self.command)}"
            )

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


def _validation_follows(trainer: pl.Trainer) -> bool:
    """Whether this training step's end is that of an epoch, or of a part of one, after which there is a validation."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def rewind_validation(fit_loop: dict[str, Any]) -> None:
    """Change the progress in a checkpoint so that Lightning (2.6) repeats the validation under way from its start.

    Lightning finishes a validation before it trains where one more batch of it has been started than processed. A
    checkpoint that is saved by a callback never has that: a batch counts as processed before any callback is told. The
    batches that are done are taken back, since figures are made of all of a validation's batches.

    Args:
        fit_loop: the checkpoint's ``["loops"]["fit_loop"]``.
    """
    progress = fit_loop["epoch_loop.val_loop.batch_progress"]
    before = progress["total"]["completed"] - progress["current"]["completed"]
    for tracker, done in ((progress["total"], before), (progress["current"], 0)):
        tracker.update(ready=done + 1, started=done + 1, processed=done, completed=done)
    progress["is_last_batch"] = False


@rank_zero_only
def resume_command(given: Sequence[str] | None = None) -> str:
    """The command line of this process, with ``--ckpt_path last``.

    Args:
        given: what stands behind the program's name; None: as it is now, where the launcher has made paths absolute.
    """
    arguments: list[str] = []
    skip = False
    for argument in sys.argv[1:] if given is None else given:
        if skip or argument.startswith("--ckpt_path="):
            skip = False
        elif argument == "--ckpt_path":
            skip = True
        else:
            path = Path(argument)
            inside = given is None and path.is_absolute() and path.is_relative_to(Path.cwd())
            arguments.append(str(path.relative_to(Path.cwd())) if inside else argument)
    called = Path(sys.argv[0])
    program = [sys.argv[0]]
    if called.name == "__main__.py":
        program = ["python", "-m", "striate"]
    elif shutil.which(called.name):
        program = [called.name]
    return shlex.join([*program, *arguments, "--ckpt_path", "last"])
