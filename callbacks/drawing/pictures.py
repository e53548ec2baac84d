"""Plots of the same samples after each validation and test, with predictions beside the ground truth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from ...tasks import Task
from ...tasks.interfaces import Predictor
from ..tracking.logging import log_picture, run_folder
from ..tracking.sample_scores import sample_score
from ..tracking.wandb_images import Sample, WandbSamples, log_samples_table
from ..tracking.wandb_record import run_loggers
from .canvas import captions, common_height, grid, panel
from .object_numbers import follow_ground_truth
from .overlays import (
    MIN_SCORE,
    check_drawing,
    drawable_fields,
    legible_side,
    overlap_note,
    score_note,
    target_of,
    target_panel,
)

SIDE, CLASS_SIDE = 224, 176
"""Usual side of an image with boxes or masks, and of one with classes only, in pixels."""


class Pictures(pl.Callback):
    """Draws predictions and ground truth of a fixed set of samples, as PNG files and on the loggers.

    Classes are written below their image. Boxes and masks are drawn, the ground truth on the left and the prediction on
    the right. If no object of an image has the minimum score, the best three are drawn paler, and the caption says so.
    Objects with masks have a color each, which stays the same from epoch to epoch: ground truth by its order, a
    predicted object that of the ground-truth object whose box it matches, or else by its position.

    Works with any task that implements `striate.tasks.Predictor`, and any map-style data set. The first rank draws.

    Files: ``pictures/val_epoch_003.png``, ``pictures/test.png``. Loggers: ``val/pictures``, ``test/pictures``. On W&B
    these are the samples themselves: each image is stored once, with boxes that can be filtered by class and score, and
    masks, as layers of each epoch. A table, ``val/samples`` or ``test/samples``, has one row per sample with a score
    (AP at IoU 0.5, IoU or loss), the worst first; it is sent at the end.

    Args:
        count: Number of samples: one at random from each of as many equal parts of the data set, so that data sorted
            by class show every class.
        every_n_epochs: Epochs between two plots in training.
        side: Side of the square that each image is fitted into, in pixels; None: 224 (176 for classification), and up
            to 448 if an image has many small objects.
        score_threshold: Minimum score of the objects that are drawn.
        labels: Write class and score at each box.
        samples: Indices of the samples in the data set; None: chosen by `count` and `seed`.
        seed: Seed of the choice, which is the same in each epoch and each run, whatever the seed of the run.

    Raises:
        ValueError: `count` or `every_n_epochs` is below 1, `seed` is negative, `side` is below 32, `score_threshold` is
            not in [0, 1], an index is negative, or, at the first validation, one is not in the data set.
    """

    def __init__(
        self,
        count: int = 16,
        every_n_epochs: int = 1,
        side: int | None = None,
        score_threshold: float = MIN_SCORE,
        labels: bool = True,
        samples: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        for name, value, least in (("count", count, 1), ("every_n_epochs", every_n_epochs, 1), ("seed", seed, 0)):
            if value < least:
                raise ValueError(f"{name}: must be >= {least}, got {value}")
        check_drawing(side, score_threshold, samples)
        self.count, self.every_n_epochs = count, every_n_epochs
        self.side, self.score_threshold, self.labels = side, score_threshold, labels
        self.samples = None if samples is None else list(samples)
        self.seed = seed
        self._wandb = WandbSamples()
        self._last: tuple[list[Sample], list[str], str] = ([], [], "")

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the validation samples; the sanity check only checks `samples`."""
        if trainer.sanity_checking:
            self._indices(trainer.val_dataloaders, "val")
            return
        if trainer.state.fn == "fit" and (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        name = f"val_epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else "val"
        self._draw(trainer, pl_module, trainer.val_dataloaders, name, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the test samples, after each test."""
        self._draw(trainer, pl_module, trainer.test_dataloaders, "test", "test")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the table of the last validation on W&B."""
        self._log_table(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the table on W&B, except in a training run, which has more validations to come."""
        if trainer.state.fn != "fit":
            self._log_table(trainer)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the table of samples on W&B."""
        self._log_table(trainer)

    def _indices(self, loaders: Any, split: str) -> tuple[Any, list[int]]:
        """The loader, and the indices of the samples to draw; none if the data set has no indices."""
        loader = loaders[0] if isinstance(loaders, list | tuple) and loaders else loaders
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, torch.utils.data.IterableDataset):
            return loader, []
        dataset: Any = loader.dataset
        if self.samples is None:
            return loader, choose_samples(len(dataset), self.count, self.seed)
        if max(self.samples) >= len(dataset):
            raise ValueError(f"samples: must be < {len(dataset)}, the samples of {split}, got {max(self.samples)}")
        return loader, self.samples

    def _draw(self, trainer: pl.Trainer, task: pl.LightningModule, loaders: Any, name: str, split: str) -> None:
        folder = run_folder(trainer)
        loader, indices = self._indices(loaders, split)
        if not (trainer.is_global_zero and isinstance(task, Predictor)):
            return
        samples = []
        for index in indices:
            # one at a time, since the images of a data set may differ in size
            batch = loader.collate_fn([loader.dataset[index]])
            if not len(batch["image"]):
                continue  # unreadable; the task reports it
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()  # [H, W, 3]
            ground_truth = drawable_fields(target_of(batch, 0))
            on_device = trainer.strategy.batch_to_device(batch["image"][0][None])  # [1, 3, H, W]
            stored = {"proposals": trainer.strategy.batch_to_device(batch["proposals"])} if "proposals" in batch else {}
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                prediction = task.predict(on_device, **stored)[0]
            fields = follow_ground_truth(drawable_fields(prediction), ground_truth, image.shape[:2])
            caption = f"sample {index}{overlap_note(fields, ground_truth)}"
            if ground_truth.keys() <= {"label"}:
                caption = ", ".join(text for text, _ in captions(prediction, ground_truth, task.class_names))
            samples.append(
                Sample(image, ground_truth, fields, index, caption, self._score(trainer, task, batch, prediction))
            )
        if samples:
            picture = self._figure(samples, task.class_names)
            path = folder / "pictures" / f"{name}.png"
            log_picture(trainer, picture, path, f"{split}/pictures", on_wandb=False)
            self._wandb.log(trainer, samples, task.class_names, f"{split}/pictures")
        self._last = (samples, list(task.class_names), f"{split}/samples")

    def _score(self, trainer: pl.Trainer, task: Any, batch: Any, prediction: Any) -> tuple[str, float] | None:
        """The score of a sample for the table on W&B; None if there is no table."""

        def score() -> tuple[str, float]:
            with trainer.precision_plugin.forward_context():
                return sample_score(task, trainer.strategy.batch_to_device(batch), prediction)

        loggers = run_loggers(trainer) if isinstance(task, Task) else []
        return loggers[0].guard.call("scoring samples", score) if loggers else None

    def _log_table(self, trainer: pl.Trainer) -> None:
        samples, names, key = self._last
        if trainer.is_global_zero:
            log_samples_table(trainer, samples, names, key)
        self._last = ([], [], "")

    def _figure(self, samples: Sequence[Sample], names: Sequence[str]) -> np.ndarray:
        """The samples in one figure ``[H, W, 3]`` uint8: classes, or pairs of ground truth and prediction."""
        if samples[0].ground_truth.keys() <= {"label"}:
            side = self.side or CLASS_SIDE
            height = common_height((one.image for one in samples), side)
            lines = [captions(one.prediction, one.ground_truth, names) for one in samples]
            return grid([panel(one.image, text, side, height=height) for one, text in zip(samples, lines, strict=True)])
        side = self.side or max(legible_side(one.image, one.ground_truth, SIDE, 2 * SIDE) for one in samples)
        height = common_height((one.image for one in samples), side)
        panels = []
        for one in samples:
            note = f"predicted{overlap_note(one.prediction, one.ground_truth)}"
            note += score_note(one.prediction, self.score_threshold)
            pair = ((f"ground truth, sample {one.number}", one.ground_truth), (note, one.prediction))
            drawn = [
                target_panel(
                    one.image, target, names, text, side, self.score_threshold, labels=self.labels, height=height
                )
                for text, target in pair
            ]
            panels.append(np.hstack([*drawn, np.full_like(drawn[0][:, : side // 16], 255)]))
        return grid(panels)


def choose_samples(total: int, count: int, seed: int) -> list[int]:
    """Indices of samples: one at random from each of `count` equal parts of a data set, or all of a small one.

    >>> choose_samples(3, 5, seed=0)
    [0, 1, 2]
    """
    generator = np.random.default_rng(seed)
    return (
        [int(generator.choice(part)) for part in np.array_split(np.arange(total), min(count, total))] if total else []
    )
