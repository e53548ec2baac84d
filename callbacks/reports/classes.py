"""Per-class results of a task: a table of metrics for each class, and the confusion matrix."""

import math
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl

from ...tasks.interfaces import ClassReporter, CurveReporter, DetectionReporter, EvaluationStage, ThresholdReporter
from ..drawing.canvas import class_name, confusion_figure
from ..tracking.logging import log_picture, log_table, run_folder
from ..tracking.thresholds import THRESHOLDS_FILE, threshold_rows
from .curves import write_curves
from .detection import DetectionReport, write_confusion


class ClassReport(pl.Callback):
    """Writes a table of metrics per class, the confusion matrix, and precision-recall curves.

    Works with any task that implements `striate.tasks.ClassReporter`; every `Task` does. The confusion matrix is drawn
    after each validation or test, all else is written once at the end. A task without a confusion matrix gets the table
    of classes only; a task without either gets nothing. The curves of a detector are those at IoU 0.5; of labels of
    images, those of each class against the rest, up to 100 classes. Semantic segmentation has no curves. The confusion
    matrix of a detector, of objects at IoU 0.5 and from score 0.5, is drawn at the end. A detector also gets the score
    threshold of highest F1 for each class and for all classes together, from validation only: a test set may not choose
    it.

    Files: ``pictures/val_confusion.png``, ``pictures/val_curves.png``, ``val_confusion.csv``, ``val_classes.csv``,
    ``val_curves.csv``, and the same for ``test``; ``val_thresholds.csv``. Loggers: ``val/confusion``, ``val/curves``
    and, as W&B tables, ``val/confusion_table``, ``val/classes``, ``val/curves_table`` and ``val/thresholds``; on W&B
    also the chart ``val/curves_chart``. Of a detector, ``objects_confusion`` takes the place of ``confusion``.
    """

    def __init__(self) -> None:
        self._confusion: dict[str, np.ndarray] = {}
        self._columns: dict[str, dict[str, list[float]]] = {}
        self._curves: dict[str, dict[str, np.ndarray]] = {}
        self._thresholds: dict[str, list[float]] = {}
        self._objects: EvaluationStage | None = None

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the validation results and draw the confusion matrix."""
        if not trainer.sanity_checking:
            self._collect(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Collect the test results and draw the confusion matrix."""
        self._collect(trainer, pl_module, "test")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables of the last validation."""
        self._write_tables(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables, except in a training run, which has more validations to come."""
        if trainer.state.fn != "fit":
            self._write_tables(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write the tables after the test."""
        self._write_tables(trainer, pl_module)

    def _collect(self, trainer: pl.Trainer, task: pl.LightningModule, stage: Any) -> None:
        if not isinstance(task, ClassReporter):
            return
        # called on every rank: computing the metrics gathers their counts
        matrix = task.confusion_matrix(stage)
        columns = {name: values.tolist() for name, values in task.class_table(stage).items()}
        here = not reported_elsewhere(trainer)
        curves = task.pr_curves(stage) if isinstance(task, CurveReporter) and here else {}
        self._objects = stage if isinstance(task, DetectionReporter) and here else None
        find_thresholds = stage == "val" and isinstance(task, ThresholdReporter)
        thresholds = task.best_thresholds(stage) if find_thresholds else {}  # type: ignore[operator]
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        self._confusion, self._columns = {}, {stage: columns} if columns else {}
        self._curves = {stage: {name: values.cpu().numpy() for name, values in curves.items()}} if curves else {}
        self._thresholds = {name: values.tolist() for name, values in thresholds.items()}
        if matrix is None:
            return
        counts = self._confusion[stage] = matrix.cpu().numpy()  # [K, K]
        accuracy = f"{100 * counts.trace() / max(counts.sum(), 1):.1f} % correct"
        title = f"{stage}, epoch {trainer.current_epoch}: {accuracy}" if stage == "val" else accuracy
        picture = confusion_figure(counts, task.class_names, title)
        log_picture(trainer, picture, folder / "pictures" / f"{stage}_confusion.png", f"{stage}/confusion")

    def _write_tables(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        if self._objects is not None:
            objects, self._objects = self._objects, None
            write_confusion(trainer, cast(DetectionReporter, task), objects)
        if not trainer.is_global_zero or not isinstance(task, ClassReporter):
            return
        for stage, counts in self._confusion.items():
            names = [class_name(k, task.class_names) for k in range(len(counts))]
            rows = [[name, *row] for name, row in zip(names, counts.tolist(), strict=True)]
            path = folder / f"{stage}_confusion.csv"
            log_table(trainer, ["true \\ predicted", *names], rows, path, f"{stage}/confusion_table")
        for stage, columns in self._columns.items():
            rows = [
                [class_name(k, task.class_names), *map(_cell, row)]
                for k, row in enumerate(zip(*columns.values(), strict=True))
            ]
            log_table(trainer, ["class", *columns], rows, folder / f"{stage}_classes.csv", f"{stage}/classes")
        for stage, curves in self._curves.items():
            kind = "IoU 0.5" if isinstance(task, ThresholdReporter) else "each class against the rest"
            write_curves(trainer, folder, curves, task.class_names, stage, kind)
        if self._thresholds:
            rows = threshold_rows(self._thresholds, task.class_names)
            log_table(trainer, ["class", *self._thresholds], rows, folder / THRESHOLDS_FILE, "val/thresholds")
        self._confusion, self._columns, self._curves, self._thresholds = {}, {}, {}, {}


def reported_elsewhere(trainer: pl.Trainer) -> bool:
    """Whether a `DetectionReport` writes curves and confusion matrix in this run, perhaps at another IoU."""
    reports = [one for one in trainer.callbacks if isinstance(one, DetectionReport)]  # type: ignore[attr-defined]
    return any(one.reports(trainer) for one in reports)


def _cell(value: float) -> float | None:
    """A table cell: counts unchanged, fractions rounded to four digits, NaN empty."""
    if isinstance(value, int):
        return value
    return None if math.isnan(value) else round(value, 4)
