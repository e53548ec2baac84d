"""One training step: `striate.tasks.Classification` in Lightning's Trainer, against a bare PyTorch loop.

Both train a copy of the same model on the same batches with the same optimizer, in one process and in turn: the
Trainer's loader gives a few batches, then lets the bare loop make as many steps, and so on. A step's time is that from
the end of the step before it to its own end, so everything that happens in between counts; the first step of each turn
is dropped. In the end all must have come to the same loss after the same number of steps: they did the same work.

A second copy of the bare loop takes its turn too. Its ratio to the first ought to be 1; how far it is from that says
how much a ratio of this run is worth, and on a busy machine that may be nothing.
"""

import copy
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor
from torch import Tensor

from striate.benchmarks.harness import Clock, Goal, Row, elapsed, median_clock, median_ratio, read_clock
from striate.benchmarks.training_case import CLASSES, LR, MOMENTUM, BareLoop, Case, make_batches
from striate.callbacks import GracefulInterrupt, RandomState
from striate.experiments.launcher.runs import MetricsLogger
from striate.models import Classifier
from striate.tasks import Classification

CASE = Case("resnet18", pixels=64, batch=32)
SMALL = Case("plain", pixels=16, batch=4)  # next to no computing: shows what the Trainer itself takes
AT_MOST = Goal(1.03, at_least=False)


class Side(Protocol):
    """A training loop of another make.

    Attributes:
        loss: of the last step; None where the network is another, and losses say nothing.
    """

    loss: Tensor | None

    def run(self, batches: Iterable[dict[str, Any]], after_step: Callable[[], None]) -> None:
        """One step a batch, calling `after_step` after each."""


class AfterStep(pl.Callback):
    """Calls something after each training step; to be the last callback."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step
        self.loss: Tensor | None = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The step is done."""
        self.loss = outputs["loss"]
        self.after_step()


class Turns:
    """A loader that gives `steps` batches a turn, and does something between the turns.

    Its length is known, so the Trainer asks for a batch only when it is about to train on it, and never asks again
    after the last: what is done between turns is not done after the last one.
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
        """The batches of a turn, the same each time."""
        for step in range(self.steps):
            torch.manual_seed(step)  # dropout, if there is any, falls alike on all sides
            yield self.batches[step % len(self.batches)]


def make_trainer(folder: str, last: pl.Callback) -> pl.Trainer:
    """A trainer for one epoch, with what the launcher gives every run that has something to do in a step.

    Left out: the progress bar, W&B, and checkpoints, which belong to epochs.
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
    """Train for one pass through `loader`."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there are no workers, and no validation
        make_trainer(folder, last).fit(task, loader)


def make_task(case: Case) -> Classification:
    """The task as an experiment has it."""
    torch.manual_seed(0)
    return Classification(
        Classifier(case.network, CLASSES), optimizer=partial(torch.optim.SGD, lr=LR, momentum=MOMENTUM)
    )


LEARNED = 1e-3
"""A loss of which nothing is left, after the same few batches again and again; what differs below is rounding."""


def check_same_work(
    case: Case, steps: int, losses: dict[str, Tensor | None], counts: dict[str, int], tolerance: float
) -> None:
    """See that a comparison compares like with like; a side whose network is another keeps no loss.

    Raises:
        RuntimeError: when a side has made another number of steps, or come to another loss.
    """
    if set(counts.values()) != {steps}:
        raise RuntimeError(f"{case}: each side was to make {steps} steps, and they made {counts}")
    values = [loss for loss in losses.values() if loss is not None]
    if len(values) < 2 or not all(torch.allclose(values[0], value, tolerance, LEARNED) for value in values):
        raise RuntimeError(f"{case}: the last losses differ: {losses}")


def measure_sides(
    case: Case,
    task: pl.LightningModule,
    others: Mapping[str, Side],
    batches: Sequence[dict[str, Any]],
    turns: int,
    steps: int,
    tolerance: float = 1e-3,
) -> dict[str, list[Clock]]:
    """The median step of each turn, of the task in the Trainer and of the other sides.

    Raises:
        RuntimeError: when the sides have not done the same work.
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
    between()  # the others' last turn
    losses = {"ours": last.loss, **{side: loop.loss for side, loop in others.items()}}
    check_same_work(case, turns * steps, losses, {side: len(times) for side, times in readings.items()}, tolerance)
    return {
        side: [median_clock(elapsed(times[first : first + steps])) for first in range(steps, len(times), steps)]
        for side, times in readings.items()
    }


def measure(case: Case, turns: int, steps: int) -> dict[str, list[Clock]]:
    """The median step of each turn, of ours, of the peer, and of the peer's copy that serves as control."""
    task = make_task(case)
    bare = {side: BareLoop(copy.deepcopy(task.model)) for side in ("peer", "control")}
    return measure_sides(case, task, bare, make_batches(case), turns, steps)


def compare(what: str, ours: Sequence[Clock], peer: Sequence[Clock], goal: Goal | None = None) -> list[Row]:
    """Wall time, and processor time as a check on it."""
    rows = []
    for field, unit in (("wall", ""), ("cpu", ", processor time")):
        mine, theirs = ([getattr(time, field) for time in times] for times in (ours, peer))
        shown = [f"{1e3 * statistics.median(times):.1f} ms" for times in (mine, theirs)]
        bound = goal if field == "wall" else None
        rows.append(Row(what + unit, shown[0], shown[1], median_ratio(mine, theirs), bound))
    return rows


def rows_for(case: Case, measured: dict[str, list[Clock]], goal: Goal | None) -> list[Row]:
    """Ours against the bare loop, and that against itself."""
    return [
        *compare(f"training step ({case})", measured["ours"], measured["peer"], goal),
        *compare(f"control: bare loop twice ({case})", measured["control"], measured["peer"]),
    ]


def run() -> list[Row]:
    """Measure; the first turn warms up."""
    return [
        *rows_for(CASE, measure(CASE, turns=11, steps=5), AT_MOST),
        *rows_for(SMALL, measure(SMALL, turns=11, steps=50), None),
    ]
