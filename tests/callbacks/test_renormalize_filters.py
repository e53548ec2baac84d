"""Filters stay within their radius during training."""

from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from striate.callbacks import RenormalizeFilters
from striate.models import ZFNet
from striate.tasks import Classification

from ..helpers.fixtures import TinyNet, batch


def tiny_zfnet() -> ZFNet:
    return ZFNet(num_classes=2, image_size=64, width=0.05, hidden=8, second_stride=1, init="he", dropout=0.0)


def largest_rms(model: ZFNet) -> float:
    filters = [m.weight.detach() for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d)]
    return max(float(weight.square().mean(dim=(1, 2, 3)).sqrt().max()) for weight in filters)


class Recorder(pl.Callback):
    """Records the largest filter before each step, after the callback of the previous step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self.values.append(largest_rms(pl_module.model))


def train(model: ZFNet, callbacks: list[pl.Callback]) -> None:
    task = Classification(model, optimizer=lambda p: torch.optim.SGD(p, lr=0.0))
    loader = DataLoader([batch([0, 1, 0, 1], size=64) for _ in range(3)], batch_size=None)
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    trainer.fit(task, loader, loader)


def test_filters_beyond_the_radius_are_shrunk_after_each_step() -> None:
    model = tiny_zfnet()
    with torch.no_grad():
        model.backbone.stages[1].conv2.weight.normal_(0, 1)
        model.backbone.stages[0].conv1.weight.normal_(0, 0.01)
    head, small = model.head.fc6.weight.clone(), model.backbone.stages[0].conv1.weight.clone()
    before = largest_rms(model)
    recorder = Recorder()
    train(model, [RenormalizeFilters(radius=0.05), recorder])
    assert recorder.values == pytest.approx([before, 0.05, 0.05], rel=1e-5)
    assert before > 0.5
    assert torch.equal(model.head.fc6.weight, head)  # the learning rate is 0, so only the callback changes weights
    assert torch.equal(model.backbone.stages[0].conv1.weight, small)


def test_invalid_radius_and_model() -> None:
    with pytest.raises(ValueError, match="radius.*got 0.0"):
        RenormalizeFilters(radius=0.0)
    with pytest.raises(TypeError, match=r"renormalize_filters\(radius\).*got TinyNet"):
        RenormalizeFilters().setup(None, Classification(TinyNet()), "fit")  # type: ignore[arg-type]
