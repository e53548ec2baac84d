"""A quiet trainer, a callback that stops a run midway, and a data module of ready batches."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from torch.utils.data import DataLoader

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def make_trainer(**settings: Any) -> pl.Trainer:
    """A trainer on the CPU that prints and writes nothing, unless the settings say otherwise."""
    return pl.Trainer(**(QUIET | settings))


class SaveAndStop(pl.Callback):
    """Save a checkpoint to `path` after `steps` steps, and stop without validation."""

    def __init__(self, steps: int | None, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            trainer.limit_val_batches = 0


class Batches(pl.LightningDataModule):
    """The same ready batches for training, validation and test."""

    def __init__(self, batches: list[Any], class_names: tuple[str, ...] = ("cat", "dog")) -> None:
        super().__init__()
        self.batches, self.class_names = batches, list(class_names)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader
