"""Signals that ask a run to stop: Ctrl-C, SIGTERM, and the one with which SLURM announces that the time is up."""

import contextlib
import os
import signal
import subprocess
import threading
from functools import partial
from types import FrameType
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.utilities.exceptions import SIGTERMException
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_only

from .compat import slurm_environment

TERMINATED = 143
"""Exit code of a run that a signal other than Ctrl-C has stopped: 128 plus the number of SIGTERM, as in shells."""


class StopSignals:
    """Notes a signal while a run trains, so that all ranks can save and stop together after a step.

    Lightning would save from within the handler of the signal, where a step may be half done, and would communicate
    with other ranks there. Its handlers of SIGTERM and of SLURM's signal are replaced.

    Attributes:
        number: The signal that asks to stop; None: there was none.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._requeue: int | None = None
        self._previous: dict[int, Any] = {}

    def take_over(self, trainer: pl.Trainer) -> None:
        """Take requeueing over from Lightning, before it installs its handlers."""
        environment = slurm_environment(trainer)
        if environment is not None and environment.auto_requeue:
            self._requeue, environment.auto_requeue = environment.requeue_signal, False

    def watch(self, trainer: pl.Trainer) -> None:
        """Install the handlers; call it again when Lightning has installed its own."""
        if threading.current_thread() is threading.main_thread():
            for number in self._numbers():
                previous = signal.signal(number, partial(self._receive, trainer))
                self._previous.setdefault(number, previous)

    def restore(self) -> None:
        """Restore the handlers from before."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def _numbers(self) -> list[int]:
        """All signals; the first ones decide how to stop if several have arrived."""
        return [*([self._requeue] if self._requeue else []), signal.SIGTERM, signal.SIGINT]

    def _receive(self, trainer: pl.Trainer, number: int, frame: FrameType | None) -> None:
        training = trainer.state.fn == "fit" and (trainer.training or trainer.validating)
        ready = training and not trainer.sanity_checking
        if number == signal.SIGINT and (self.number is not None or not ready):
            raise KeyboardInterrupt
        if self.number is not None:
            return
        self.number = number
        if not ready:
            release_processes(trainer, kill=True)
            raise self.exception()
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        again = "; press again to stop at once" if number == signal.SIGINT else ""
        with contextlib.suppress(RuntimeError):  # the signal has arrived while the same stream is written
            rank_zero_info(f"\n{name}: finishing this step and saving{again}.")

    def agreed(self, trainer: pl.Trainer) -> bool:
        """Whether to stop. The ranks of DDP decide together, so every rank must call this."""
        if trainer.world_size == 1:
            return self.number is not None
        decide = partial(trainer.strategy.reduce_boolean_decision, all=False)
        if not decide(self.number is not None):
            return False
        self.number = next(number for number in self._numbers() if decide(self.number == number))
        return True

    def exception(self) -> BaseException:
        """What to raise to stop, after asking SLURM to start the job again if its signal has said so."""
        if self.number == signal.SIGINT:
            return KeyboardInterrupt()
        if self.number == self._requeue:
            requeue_job()
        return SIGTERMException(TERMINATED)


@rank_zero_only
def requeue_job() -> None:
    """Ask SLURM to start this job again."""
    array, job = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_JOB_ID", "")
    name = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}" if array else job
    try:
        done = subprocess.run(["scontrol", "requeue", name], capture_output=True, text=True)
        reason = " ".join(done.stderr.split()) if done.returncode else ""
    except OSError as error:
        reason = str(error)
    failed = f"Job {name} is not requeued ({reason}); submit it again, with --ckpt_path last."
    rank_zero_info(failed if reason else f"Job {name} is requeued.")


def release_processes(trainer: pl.Trainer, kill: bool) -> None:
    """Let the processes that Lightning has started end on their own, or kill them.

    Lightning watches them in a thread, and would kill this process when one of them ends first.

    Args:
        trainer: The trainer.
        kill: Whether to kill them, because they may wait for this process.
    """
    processes: list[Any] = getattr(trainer.strategy.launcher, "procs", [])
    for process in processes if kill else ():
        process.kill()
    processes.clear()
