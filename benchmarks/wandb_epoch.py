"""An epoch of training that W&B records offline with all media, and the same epoch without any logger.

Both sides are ``striate fit`` with `detection/ssd_digits_fast` in processes of their own: epochs of 3,200 scenes, and a
validation of 200 scenes with 16 pictures after each. The time is from the first step to the end of training, with what
W&B gets only once: the images of the samples and the last table.
"""

import contextlib
import functools
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from striate.benchmarks.harness import Clock, Goal, Row, compare, interleave, read_clock, run_fresh

MODULE = "striate.benchmarks.wandb_epoch"
EPOCHS = 2
FIT = ["fit", "--config", "detection/ssd_digits_fast"]
SIDES = {"ours": ["--wandb.mode=offline"], "peer": ["--wandb.mode=off", "--trainer.logger=false"]}
GOAL = Goal(1.02, at_least=False)


class TrainingClock(pl.Callback):
    """Writes the wall and CPU time of the training to the file ``clock.json`` in the working folder."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._start = read_clock()

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the times; callbacks that log the last media come before."""
        end = read_clock()
        times = {field: getattr(end, field) - getattr(self._start, field) for field in ("wall", "cpu")}
        Path("clock.json").write_text(json.dumps(times))


def child(side: str, epochs: str, scenes: str) -> None:
    """Entry point of a new process: train, and print the times as JSON."""
    from striate.experiments.launcher.main import main

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            sys.argv = ["striate", *FIT, *SIDES[side], f"--trainer.max_epochs={epochs}", f"--data.train_size={scenes}"]
            sys.argv += [f"--trainer.callbacks+={MODULE}.TrainingClock"]
            main()
        print(Path("clock.json").read_text())
        os.chdir("/")


def run(repetitions: int = 3, epochs: int = EPOCHS, scenes: int = 3200) -> Iterator[Row]:
    """Measure both sides alternately.

    Args:
        repetitions: Number of measurements of each side.
        epochs: Epochs of a measurement.
        scenes: Training scenes of an epoch.
    """

    def measure(side: str) -> Clock:
        times: dict[str, Any] = run_fresh(MODULE, side, str(epochs), str(scenes))
        return Clock(**{field: value / epochs for field, value in times.items()})

    sides: dict[str, Callable[[], Clock]] = {side: functools.partial(measure, side) for side in SIDES}
    times = interleave(sides, repetitions, warm_up=0)
    what = f"epoch of {scenes:,} scenes with W&B offline and all media; peer: no logger"
    yield from compare(what, times["ours"], times["peer"], GOAL)


if __name__ == "__main__":
    child(*sys.argv[1:])
