"""Pictures after validation and test: the same samples each time, with prediction and truth."""

import math
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch

from ..tracking.logging import log_picture, log_table, run_folder
from ..tracking.wandb_boxes import Sample, log_boxes
from .canvas import captions, class_name, confusion_figure, grid, panel
from .overlays import drawable, hidden_note, overlap_note, target_of, target_panel

GAP = 14
"""Pixels between a pair of truth and prediction and the next."""


class Pictures(pl.Callback):
    """Predictions beside the truth, for a fixed set of samples, as PNG and on the loggers.

    Classes are written below their image; boxes and masks are drawn: the truth on the left, the prediction beside it.

    Works with any task that has ``predict`` and any map-style data set. The samples are spread evenly over the
    data set, so that data sorted by class show every class; the first rank draws them.

    Files: ``pictures/val_epoch_003.png``, ``pictures/test.png``. Loggers: ``val/pictures``, ``test/pictures``; on W&B
    ``val/boxes``, ``test/boxes``: the same samples with boxes that can be filtered by class and score.

    Args:
        count: number of samples.
        every_n_epochs: how often to draw during training.
    """

    def __init__(self, count: int = 16, every_n_epochs: int = 1) -> None:
        if count < 1 or every_n_epochs < 1:
            raise ValueError(f"Pictures: count={count}, every_n_epochs={every_n_epochs}; give 1 or more")
        self.count, self.every_n_epochs = count, every_n_epochs

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw, unless this is the sanity check."""
        if trainer.sanity_checking or (trainer.state.fn == "fit" and (trainer.current_epoch + 1) % self.every_n_epochs):
            return
        name = f"val_epoch_{trainer.current_epoch:03d}" if trainer.state.fn == "fit" else "val"
        self._draw(trainer, pl_module, trainer.val_dataloaders, name, "val/pictures")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        self._draw(trainer, pl_module, trainer.test_dataloaders, "test", "test/pictures")

    def _draw(self, trainer: pl.Trainer, task: pl.LightningModule, loader: Any, name: str, key: str) -> None:
        folder = run_folder(trainer)
        loader = loader[0] if isinstance(loader, list | tuple) and loader else loader
        dataset: Any = getattr(loader, "dataset", None)
        if not trainer.is_global_zero or not hasattr(dataset, "__getitem__") or not hasattr(task, "predict"):
            return
        chosen = np.unique(np.linspace(0, len(dataset) - 1, self.count).round().astype(int))
        names = getattr(task, "class_names", [])
        panels, samples = [], []
        for index in chosen.tolist():
            # one at a time: images of a data set may differ in size
            batch = loader.collate_fn([dataset[index]])
            if not len(batch["image"]):
                continue  # unreadable, and counted by the task
            image = batch["image"][0].permute(1, 2, 0).cpu().numpy()
            truth = drawable(target_of(batch, 0))
            moved = trainer.strategy.batch_to_device(batch["image"])
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                prediction = task.predict(moved)[0]  # type: ignore[operator]
            if truth.keys() <= {"label"}:
                panels.append(panel(image, captions(prediction, truth, names)))
                continue
            said = drawable(prediction)
            note = f"predicted{overlap_note(said, truth)}{hidden_note(said)}"
            pair = ((f"truth, sample {index}", truth), (note, said))
            drawn = [target_panel(image, what, names, note, side=224) for note, what in pair]
            panels.append(np.hstack([*drawn, np.full_like(drawn[0][:, :GAP], 255)]))
            samples.append(Sample(image, truth, said, index))
        if panels:
            log_picture(trainer, grid(panels), folder / "pictures" / f"{name}.png", key)
            log_boxes(trainer, samples, names, key.replace("pictures", "boxes"))


class ConfusionMatrix(pl.Callback):
    """Figures of each class as a table; and the confusion matrix, as a picture each time and as a table at the end.

    Works with any task that has ``confusion_matrix(stage)``, ``class_table(stage)`` or both. The table of classes has
    the columns that the task gives by the latter, or each class's images and accuracy.

    Files: ``pictures/val_confusion.png``, ``val_confusion.csv``, ``val_classes.csv``, the same for ``test``. Loggers:
    ``val/confusion`` and, as W&B tables, ``val/confusion_table`` and ``val/classes``.
    """

    def __init__(self) -> None:
        self._counts: dict[str, np.ndarray] = {}
        self._columns: dict[str, dict[str, list[float]]] = {}

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the validation's figures, and draw its matrix."""
        if not trainer.sanity_checking:
            self._take(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the test's figures, and draw its matrix."""
        self._take(trainer, pl_module, "test")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables of the last validation."""
        self._tables(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables, unless training goes on."""
        if trainer.state.fn != "fit":
            self._tables(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables."""
        self._tables(trainer, pl_module)

    def _take(self, trainer: pl.Trainer, task: pl.LightningModule, stage: str) -> None:
        matrix: Any = getattr(task, "confusion_matrix", None)
        given: Any = getattr(task, "class_table", None)
        # on every rank: the ranks' counts are added up here
        counts = None if matrix is None else matrix(stage).cpu().numpy()
        columns = None if given is None else {name: values.tolist() for name, values in given(stage).items()}
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        self._counts, self._columns = {}, {}
        if columns is not None:
            self._columns[stage] = columns
        if counts is None:
            return
        self._counts[stage] = counts
        self._columns.setdefault(stage, _accuracies(counts))
        right = 100 * counts.trace() / max(counts.sum(), 1)
        title = f"{stage}, epoch {trainer.current_epoch}: {right:.1f} % right" if stage == "val" else f"{right:.1f} %"
        picture = confusion_figure(counts, getattr(task, "class_names", []), title)
        log_picture(trainer, picture, folder / "pictures" / f"{stage}_confusion.png", f"{stage}/confusion")

    def _tables(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        given = getattr(task, "class_names", [])
        for stage, counts in self._counts.items():
            names = [class_name(k, given) for k in range(len(counts))]
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            path = folder / f"{stage}_confusion.csv"
            log_table(trainer, ["true \\ predicted", *names], rows, path, f"{stage}/confusion_table")
        for stage, columns in self._columns.items():
            rows = [
                [class_name(k, given), *map(_cell, row)] for k, row in enumerate(zip(*columns.values(), strict=True))
            ]
            log_table(trainer, ["class", *columns], rows, folder / f"{stage}_classes.csv", f"{stage}/classes")
        self._counts, self._columns = {}, {}


def _accuracies(counts: np.ndarray) -> dict[str, list[float]]:
    """Images and accuracy of each class; of one that does not occur, no number."""
    totals, right = counts.sum(axis=1), counts.diagonal()
    accuracy = [r / n if n else math.nan for n, r in zip(totals.tolist(), right.tolist(), strict=True)]
    return {"images": totals.tolist(), "accuracy": accuracy}


def _cell(value: float) -> float | None:
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else round(value, 4)
