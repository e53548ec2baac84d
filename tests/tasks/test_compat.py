"""Private names of Lightning and torchmetrics: a failure says what to change in `tasks/compat.py`."""

import pytorch_lightning as pl
import torch
from torchmetrics import MeanMetric

from striate.tasks import Classification
from striate.tasks.compat import finish_restart, forget_result, launched_from_config, validation_follows
from striate.tests.helpers.fixtures import TinyNet, batch
from striate.tests.helpers.training import Batches, make_trainer

MOVED = "{} has moved in {}: adapt {} in tasks/compat.py"


def test_given_hyperparameters():
    from pytorch_lightning.core.mixins import hparams_mixin

    where = ("_given_hyperparameters", f"Lightning {pl.__version__}", "launched_from_config")
    assert hasattr(hparams_mixin, "_given_hyperparameters"), MOVED.format(*where)
    assert not launched_from_config()
    with hparams_mixin._given_hyperparameters_context({}, "instantiator"):
        assert launched_from_config(), MOVED.format(*where)


class Validations(pl.Callback):
    """Records after which training steps a validation follows, as predicted and as observed."""

    def __init__(self):
        self.predicted, self.observed, self.steps = [], [], 0

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps += 1
        loop = trainer.fit_loop
        for name, owner in (("_data_fetcher", loop), ("_should_check_val_fx", loop.epoch_loop)):
            assert hasattr(owner, name), MOVED.format(name, f"Lightning {pl.__version__}", "validation_follows")
        if validation_follows(trainer):
            self.predicted.append(self.steps)

    def on_validation_start(self, trainer, pl_module):
        self.observed.append(self.steps)


def test_data_fetcher_and_validation_check():
    recorder = Validations()
    data = Batches([batch([0, 1])] * 4)
    make_trainer(max_epochs=2, val_check_interval=2, callbacks=[recorder]).fit(Classification(TinyNet()), data)
    assert recorder.predicted == recorder.observed == [2, 4, 6, 8]


def test_restarting():
    trainer = make_trainer(max_steps=3, max_epochs=-1)
    where = ("_restarting", f"Lightning {pl.__version__}", "finish_restart")
    assert hasattr(trainer.fit_loop, "_restarting"), MOVED.format(*where)
    trainer.fit_loop.restarting = True
    finish_restart(trainer)
    assert trainer.fit_loop.restarting is False, MOVED.format(*where)


def test_computed():
    metric = MeanMetric()
    metric.update(1.0)
    assert hasattr(metric, "_computed"), MOVED.format("_computed", "torchmetrics", "forget_result")
    assert metric.compute() == 1
    metric.mean_value = torch.tensor(3.0)  # behind the cache of the result
    assert metric.compute() == 1
    forget_result(metric)
    assert metric.compute() == 3, MOVED.format("_computed", "torchmetrics", "forget_result")
