"""Training step of `striate.tasks.Classification` in Lightning's Trainer, compared with a bare PyTorch loop.

Both sides train a copy of the same model on the same batches with the same optimizer, alternately in one process: the
Trainer's loader yields a few batches, then the bare loop makes the same number of steps, and so on. The time of a step
is measured from the end of the previous step to its own end, so that everything in between counts. The first step of
each turn is discarded. At the end, all sides must have reached the same loss after the same number of steps.

A second copy of the bare loop is measured as a control. Its ratio to the first should be 1. The deviation from 1 shows
how reliable the ratios of this run are; on a busy machine they may be meaningless.
"""

import copy
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from torch import Tensor

from striate.benchmarks.harness import Clock, Goal, Row, compare, elapsed, median_clock, read_clock
from striate.benchmarks.training_case import CLASSES, LR, MOMENTUM, BareLoop, Case, make_batches
from striate.callbacks import GracefulInterrupt, RandomState
from striate.experiments.launcher.runs import MetricsLogger
from striate.models import Classifier
from striate.tasks import Classification

CASE = Case("resnet18", pixels=64, batch=32)
SMALL = Case("plain", pixels=16, batch=4)  # almost no computation: shows the overhead of the Trainer
AT_MOST = Goal(1.03, at_least=False)


class Side(Protocol):
    """A training loop to compare with.

    Attributes:
        loss: Loss of the last step; None for a different network, whose loss is not comparable.
    """

    loss: Tensor | None

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None]) -> None:
        """Make one step per batch, and call `after_step` after each."""


class AfterStep(pl.Callback):
    """Call `after_step` after each training step; this must be the last callback."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step
        self.loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Store the loss of the step, and call `after_step`."""
        self.loss = outputs["loss"]
        self.after_step()


class Turns:
    """A loader that yields `steps` batches per turn, and calls `between` between turns.

    Its length is known. Therefore the Trainer requests a batch only when it is about to train on it, and requests none
    after the last: `between` is not called after the last turn.
    """

    def __init__(
        self, batches: Sequence[dict[str, Any]], turns: int, steps: int, between: Callable[[], None] = lambda: None
    ) -> None:
        self.batches, self.turns, self.steps, self.between = batches, turns, steps, between

    def __len__(self) -> int:
        return self.turns * self.steps

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for turn in range(self.turns):
            if turn:
                self.between()
            yield from self.one_turn()

    def one_turn(self) -> Iterator[dict[str, Any]]:
        """Yield the batches of a turn, the same ones each time."""
        for step in range(self.steps):
            torch.manual_seed(step)  # the same dropout on all sides
            yield self.batches[step % len(self.batches)]


def make_trainer(folder: str, last: pl.Callback) -> pl.Trainer:
    """Make a trainer for one epoch, with the launcher's default callbacks that act in each step.

    There is no progress bar and no W&B, and no checkpoints, which belong to epochs.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    return pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=MetricsLogger(folder, flush_logs_every_n_steps=50),
        callbacks=[LearningRateMonitor(), RandomState(), GracefulInterrupt(), last],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
    )


def fit(task: pl.LightningModule, loader: Turns, last: pl.Callback) -> None:
    """Train for one epoch of `loader`."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about missing workers and a missing validation
        make_trainer(folder, last).fit(task, loader)


def make_task(case: Case) -> Classification:
    """Make the task as in an experiment."""
    torch.manual_seed(0)
    return Classification(
        Classifier(case.network, CLASSES), optimizer=partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
    )


MEMORIZED = 1e-3
"""Loss below which the few repeated batches are memorized, and differences are only rounding."""


def check_same_work(
    case: Case, steps: int, losses: dict[str, Tensor | None], counts: dict[str, int], tolerance: float
) -> None:
    """Check that all sides did the same work; a side with a different network has no loss to compare.

    Raises:
        RuntimeError: If the number of steps or the last losses differ.
    """
    if set(counts.values()) != {steps}:
        raise RuntimeError(f"{case}: each side must make {steps} steps, got {counts}")
    values = [loss for loss in losses.values() if loss is not None]
    if len(values) < 2 or not all(torch.allclose(values[0], value, tolerance, MEMORIZED) for value in values):
        raise RuntimeError(f"{case}: the last losses differ, got {losses}")


def measure_sides(
    case: Case,
    task: pl.LightningModule,
    others: Mapping[str, Side],
    batches: Sequence[dict[str, Any]],
    turns: int,
    steps: int,
    tolerance: float = 1e-3,
) -> dict[str, list[Clock]]:
    """Measure the median step of each turn, for the task in the Trainer and for the other sides.

    Raises:
        RuntimeError: If the sides did not do the same work.
    """
    readings: dict[str, list[Clock]] = {side: [] for side in ("ours", *others)}

    def record(side: str) -> None:
        readings[side].append(read_clock())

    loader = Turns(batches, turns, steps)

    def between() -> None:
        for side, loop in others.items():
            loop.run(loader.one_turn(), partial(record, side))

    loader.between = between
    last = AfterStep(partial(record, "ours"))
    fit(task, loader, last)
    between()  # last turn of the other sides
    losses = {"ours": last.loss, **{side: loop.loss for side, loop in others.items()}}
    check_same_work(case, turns * steps, losses, {side: len(times) for side, times in readings.items()}, tolerance)
    return {
        side: [median_clock(elapsed(times[first : first + steps])) for first in range(steps, len(times), steps)]
        for side, times in readings.items()
    }


def measure(case: Case, turns: int, steps: int) -> dict[str, list[Clock]]:
    """Measure the median step of each turn, for striate, the peer, and the control (a copy of the peer)."""
    task = make_task(case)
    bare = {side: BareLoop(copy.deepcopy(task.model)) for side in ("peer", "control")}
    return measure_sides(case, task, bare, make_batches(case), turns, steps)


def rows_for(case: Case, measured: dict[str, list[Clock]], goal: Goal | None) -> list[Row]:
    """Compare striate with the bare loop, and the bare loop with itself."""
    return [
        *compare(f"training step ({case})", measured["ours"], measured["peer"], goal),
        *compare(f"control: bare loop against itself ({case})", measured["control"], measured["peer"]),
    ]


def run() -> Iterator[Row]:
    """Measure both cases; the first turn is a warm-up."""
    yield from rows_for(CASE, measure(CASE, turns=11, steps=5), AT_MOST)
    yield from rows_for(SMALL, measure(SMALL, turns=11, steps=50), None)
