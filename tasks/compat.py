"""Private names of Lightning, torchmetrics and jsonargparse, behind functions of ours.

No library has a public way to do these few things. `tests/tasks/test_compat.py` checks each name against the
installed version, so that an upgrade that moves one fails there, with a sentence, and not in a run.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytorch_lightning as pl
from jsonargparse._common import parsing_settings
from pytorch_lightning.core.mixins.hparams_mixin import _given_hyperparameters
from torchmetrics import Metric


def launched_from_config() -> bool:
    """Whether Lightning's command line is instantiating the caller, and so supplies its hyperparameters."""
    return _given_hyperparameters.get() is not None


def finish_restart(trainer: pl.Trainer) -> None:
    """Tell Lightning that a resumed epoch needs no special treatment anymore.

    The public setter ``fit_loop.restarting = False`` does not do this: when training is limited by steps, it stores
    True (Lightning 2.6).
    """
    trainer.fit_loop._restarting = False


def finish_epoch(trainer: pl.Trainer) -> None:
    """Let a resumed run begin the next epoch, if its checkpoint is of the end of an epoch.

    When training is limited by steps, Lightning (2.6) takes every checkpoint for one from within an epoch. A complete
    epoch then gets another batch, or counts twice, so that the next one has the data of the one after. Call it in
    ``on_train_start``.
    """
    loop = trainer.fit_loop
    progress: Any = loop.epoch_progress.current  # with all four counters
    complete = progress.ready == progress.started == progress.processed
    if loop.restarting and complete and not loop.epoch_loop.restarted_on_train_batch_end:
        if progress.completed < progress.processed:
            loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.reset_restart_stage()
        finish_restart(trainer)
        loop.epoch_loop.restarting = False


def validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the current training step, at the end of an epoch or part of an epoch."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def forget_result(metric: Metric) -> None:
    """Drop the cached result of `Metric.compute`, so that the next call computes again."""
    metric._computed = None


@contextlib.contextmanager
def keep_parsing_settings() -> Iterator[None]:
    """Restore jsonargparse's settings at the end of the context; entries of its lists cannot be removed otherwise."""
    before = dict(parsing_settings)
    try:
        yield
    finally:
        parsing_settings.update(before)
