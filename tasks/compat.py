"""Private names of Lightning and torchmetrics, behind functions of ours.

Neither library has a public way to do these few things. `tests/tasks/test_compat.py` checks each name against the
installed version, so that an upgrade that moves one fails there, with a sentence, and not in a run.
"""

import pytorch_lightning as pl
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


def validation_follows(trainer: pl.Trainer) -> bool:
    """Whether Lightning validates after the current training step, at the end of an epoch or part of an epoch."""
    loop = trainer.fit_loop
    assert loop._data_fetcher is not None
    return loop.epoch_loop._should_check_val_fx(loop._data_fetcher)


def forget_result(metric: Metric) -> None:
    """Drop the cached result of `Metric.compute`, so that the next call computes again."""
    metric._computed = None
