"""Plots of the same samples after each validation and test, with predictions beside the ground truth."""

from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ...tasks.interfaces import Predictor
from ..tracking.logging import log_picture, run_folder
from ..tracking.wandb_boxes import Sample, log_boxes
from .canvas import captions, grid, panel
from .overlays import drawable_fields, hidden_note, overlap_note, target_of, target_panel

GAP = 14
"""Pixels between a pair of ground truth and prediction and the next."""


class Pictures(pl.Callback):
    """Draws predictions and ground truth of a fixed set of samples, as PNG files and on the loggers.

    Classes are written below their image. Boxes and masks are drawn, the ground truth on the left and the prediction on
    the right.

    Works with any task that implements `striate.tasks.Predictor`, and any map-style data set. The samples are spread
    evenly over the data set, so that data sorted by class show every class. The first rank draws them.

    Files: ``pictures/val_epoch_003.png``, ``pictures/test.png``. Loggers: ``val/pictures``, ``test/pictures``; on W&B
    also ``val/boxes``, ``test/boxes``: the same samples with boxes that can be filtered by class and score.

    Args:
        count: Number of samples.
        every_n_epochs: Epochs between two plots in training.

    Raises:
        ValueError: An argument is below 1.
    """

    def __init__(self, count: int = 16, every_n_epochs: int = 1) -> None:
        for name, value in (("count", count), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise ValueError(f"{name}: must be >= 1, got {value}")
        self.count, self.every_n_epochs = count, every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the validation samples, except in the sanity check."""
        if trainer.sanity_checking or (trainer.state.fn == "fit" and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        name = f"val_epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else "val"
        self._draw(trainer, pl_module, trainer.val_dataloaders, name, "val/pictures")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the test samples, after each test."""
        self._draw(trainer, pl_module, trainer.test_dataloaders, "test", "test/pictures")

    def _draw(self, trainer: pl.Trainer, task: pl.LightningModule, loader: Any, name: str, key: str) -> None:
        folder = run_folder(trainer)
        loader = loader[0] if isinstance(loader, list | tuple) and loader else loader
        if not (trainer.is_global_zero and isinstance(loader, DataLoader) and isinstance(task, Predictor)):
            return
        dataset: Any = loader.dataset
        if isinstance(dataset, torch.utils.data.IterableDataset):
            return
        indices = np.unique(np.linspace(0, len(dataset) - 1, self.count).round().astype(int))
        panels, samples = [], []
        for index in indices.tolist():
            # one at a time, since the images of a data set may differ in size
            batch = loader.collate_fn([dataset[index]])
            if not len(batch["image"]):
                continue  # unreadable; the task reports it
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()  # [H, W, 3]
            ground_truth = drawable_fields(target_of(batch, 0))
            on_device = trainer.strategy.batch_to_device(batch["image"][0][None])  # [1, 3, H, W]
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                prediction = task.predict(on_device)[0]
            if ground_truth.keys() <= {"label"}:
                panels.append(panel(image, captions(prediction, ground_truth, task.class_names)))
                continue
            fields = drawable_fields(prediction)
            note = f"predicted{overlap_note(fields, ground_truth)}{hidden_note(fields)}"
            pair = ((f"ground truth, sample {index}", ground_truth), (note, fields))
            drawn = [target_panel(image, target, task.class_names, text, side=224) for text, target in pair]
            panels.append(np.hstack([*drawn, np.full_like(drawn[0][:, :GAP], 255)]))
            samples.append(Sample(image, ground_truth, fields, index))
        if panels:
            log_picture(trainer, grid(panels), folder / "pictures" / f"{name}.png", key)
            log_boxes(trainer, samples, task.class_names, key.replace("pictures", "boxes"))
