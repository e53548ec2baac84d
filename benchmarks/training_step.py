"""One training step: `striate.tasks.Classification` in Lightning's Trainer, against a bare PyTorch loop.

Both train a copy of the same model on the same batches with the same optimizer, in one process and in turn: the
Trainer's loader gives a few batches, then lets the bare loop make as many steps, and so on. A step's time is that from
the end of the step before it to its own end, so everything that happens in between counts; the first step of each turn
is dropped. In the end both must have come to the same loss: they did the same work.
"""

import copy
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import LearningRateMonitor

from striate.benchmarks.harness import Clock, Goal, Row, elapsed, median_clock, median_ratio, read_clock
from striate.benchmarks.training_case import CLASSES, LR, MOMENTUM, BareLoop, Case, make_batches
from striate.callbacks import GracefulInterrupt, RandomState
from striate.experiments.runs import MetricsLogger
from striate.models import Classifier
from striate.tasks import Classification

CASE = Case("resnet18", pixels=64, batch=32)
SMALL = Case("plain", pixels=16, batch=4)  # next to no computing: shows what the Trainer itself takes
AT_MOST = Goal(1.03, at_least=False)


class AfterStep(pl.Callback):
    """Calls something after each training step; to be the last callback."""

    def __init__(self, after_step: Callable[[], None]) -> None:
        self.after_step = after_step
        self.loss: torch.Tensor | None = None

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
        return (self.batches[step % len(self.batches)] for step in range(self.steps))


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


def measure(case: Case, turns: int, steps: int) -> dict[str, list[Clock]]:
    """The median step of each turn, of both sides.

    Raises:
        RuntimeError: when the two sides have not done the same work.
    """
    task = make_task(case)
    readings: dict[str, list[Clock]] = {"ours": [], "peer": []}
    bare = BareLoop(copy.deepcopy(task.model))

    def record(side: str) -> None:
        readings[side].append(read_clock())

    loader = Turns(make_batches(case), turns, steps)
    loader.between = lambda: bare.run(loader.one_turn(), partial(record, "peer"))
    last = AfterStep(partial(record, "ours"))
    fit(task, loader, last)
    loader.between()  # the peer's last turn
    if last.loss is None or bare.loss is None or not torch.allclose(last.loss, bare.loss, rtol=1e-4):
        raise RuntimeError(f"{case}: the last losses differ, ours {last.loss}, the peer's {bare.loss}")
    counts = {side: len(times) for side, times in readings.items()}
    if set(counts.values()) != {turns * steps}:
        raise RuntimeError(f"{case}: {turns * steps} steps were to be made by each side, and these were: {counts}")
    return {
        side: [median_clock(elapsed(times[first : first + steps])) for first in range(steps, len(times), steps)]
        for side, times in readings.items()
    }


def rows_for(case: Case, measured: dict[str, list[Clock]], goal: Goal | None) -> list[Row]:
    """Wall time, and processor time as a check on it."""
    rows = []
    for what, field, bound in (("", "wall", goal), (", processor time", "cpu", None)):
        ours, peer = ([getattr(time, field) for time in measured[side]] for side in ("ours", "peer"))
        shown = [f"{1e3 * statistics.median(times):.1f} ms" for times in (ours, peer)]
        what_row = f"training step ({case}){what}"
        rows.append(Row(what_row, shown[0], shown[1], median_ratio(ours, peer), bound))
    return rows


def run() -> list[Row]:
    """Measure; the first turn warms up."""
    return [
        *rows_for(CASE, measure(CASE, turns=13, steps=5), AT_MOST),
        *rows_for(SMALL, measure(SMALL, turns=11, steps=50), None),
    ]
