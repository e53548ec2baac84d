"""Error analysis of a detector: precision-recall curves, kinds of error, and the confusion matrix of classes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ...tasks.interfaces import DetectionReporter, EvaluationStage
from ...tasks.metrics.coco_curves import IOUS
from ..drawing.canvas import class_name, confusion_figure, render_figure
from ..tracking.logging import log_picture, log_table, run_folder
from .curves import write_curves

ERRORS = {
    "Cls": "wrong class",
    "Loc": "poor localization",
    "Both": "wrong class, poor localization",
    "Dupe": "duplicate",
    "Bkg": "background",
    "Miss": "missed",
}
"""TIDE's kinds of error -> their names in plots and tables."""

BACKGROUND = "background"
"""Name of the background class in the confusion matrix."""


class DetectionReport(pl.Callback):
    """Writes precision-recall curves, TIDE's errors and the confusion matrix of a detector, after test or validate.

    It is not part of every run, since it matches all boxes two more times: add it to ``trainer.callbacks``. Works with
    any task that implements `striate.tasks.DetectionReporter`. Its curves and confusion matrix take the place of those
    of `ClassReport`.

    Files: ``pictures/test_curves.png``, ``test_curves.csv``; ``pictures/test_errors.png``, ``test_errors.csv``;
    ``pictures/test_objects_confusion.png``, ``test_objects_confusion.csv``; the same for ``val``. Loggers:
    ``test/curves``, ``test/errors``, ``test/objects_confusion``; on W&B the tables too, and the curves as a chart.

    Args:
        iou: Minimum IoU of a correct detection: 0.5, 0.55, … 0.95.
        score: Minimum score of the detections in the confusion matrix.
        during_fit: Report after each validation of a training run too.
        max_detections: Number of detections of an image, of all classes together, that count in TIDE's errors. The
            default is that of TIDE's code; curves and `val/map` count up to 100 of each class.

    Raises:
        ValueError: `iou` is not one of COCO's ten, `score` not in [0, 1], or `max_detections` below 1.
        TypeError: At set-up: the task has no detection metric.
    """

    def __init__(
        self, iou: float = 0.5, score: float = 0.5, during_fit: bool = False, max_detections: int = 100
    ) -> None:
        if not any(abs(iou - value) < 1e-6 for value in IOUS):
            raise ValueError(f"iou: must be one of COCO's, 0.5, 0.55, … 0.95, got {iou}")
        if not 0 <= score <= 1:
            raise ValueError(f"score: must be in [0, 1], got {score}")
        if max_detections < 1:
            raise ValueError(f"max_detections: must be >= 1, got {max_detections}")
        self.iou, self.score, self.during_fit, self.max_detections = iou, score, during_fit, max_detections

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the task has a detection metric, before the run starts."""
        if not isinstance(pl_module, DetectionReporter):
            raise TypeError(
                "DetectionReport: the task must have a method detection_metric(stage), as striate.tasks.Detection has, "
                f"got {type(pl_module).__name__}; remove the callback"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report after ``validate`` and, with `during_fit`, after each validation of a training run."""
        if not trainer.sanity_checking and self.reports(trainer):
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report after each test, always."""
        self._report(trainer, pl_module, "test")

    def reports(self, trainer: pl.Trainer) -> bool:
        """Whether there is a report in this kind of run, which `ClassReport` then leaves to it."""
        return trainer.state.fn != "fit" or self.during_fit

    def _report(self, trainer: pl.Trainer, task: Any, stage: EvaluationStage) -> None:
        metric = task.detection_metric(stage)
        # on every rank: these gather the boxes of all ranks
        curves = {name: values.numpy() for name, values in metric.pr_curves(self.iou).items()}
        errors = metric.tide(self.iou, max_detections=self.max_detections)
        write_confusion(trainer, task, stage, self.iou, self.score)
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        write_curves(trainer, folder, curves, task.class_names, stage, f"IoU {self.iou:g}")

        picture = errors_figure(errors, f"{stage}: AP at IoU {self.iou:g} is {100 * errors['ap']:.1f} %")
        log_picture(trainer, picture, folder / "pictures" / f"{stage}_errors.png", f"{stage}/errors")
        rows = [[ERRORS[kind], errors["counts"].get(kind), round(errors["delta_ap"][kind], 4)] for kind in ERRORS]
        log_table(trainer, ["error", "count", "ap_lost"], rows, folder / f"{stage}_errors.csv", f"{stage}/errors_table")


def write_confusion(
    trainer: pl.Trainer, task: DetectionReporter, stage: EvaluationStage, iou: float = 0.5, score: float = 0.5
) -> None:
    """Write the confusion matrix of objects as a figure and a table. All ranks must call this at the same time.

    Args:
        trainer: Its loggers are used, and the folder of its run.
        task: The task.
        stage: ``val`` or ``test``.
        iou: Minimum IoU of a correct detection.
        score: Minimum score of the detections that count.
    """
    confusion = task.detection_metric(stage).confusion_matrix(iou, score).numpy()
    folder = run_folder(trainer)
    if not trainer.is_global_zero:
        return
    names = [*(class_name(k, task.class_names) for k in range(len(confusion) - 1)), BACKGROUND]
    picture = confusion_figure(confusion, names, f"{stage}: objects at IoU {iou:g}, detections from score {score:g}")
    key = f"{stage}/objects_confusion"
    log_picture(trainer, picture, folder / "pictures" / f"{stage}_objects_confusion.png", key)
    rows = [[name, *row] for name, row in zip(names, confusion.tolist(), strict=True)]
    log_table(trainer, ["true \\ predicted", *names], rows, folder / f"{stage}_objects_confusion.csv", f"{key}_table")


def errors_figure(errors: Mapping[str, Any], title: str) -> np.ndarray:
    """Plot TIDE's kinds of error: the AP that each costs, and their numbers.

    Args:
        errors: ``delta_ap`` and ``counts`` by kind of error.
        title: Title of the plot.

    Shape:
        - output: ``[H, W, 3]`` uint8
    """
    from matplotlib.figure import Figure

    kinds = list(ERRORS)[::-1]
    lost = [100 * errors["delta_ap"][kind] for kind in kinds]
    figure = Figure(figsize=(6.4, 3.2), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    bars = axes.barh([ERRORS[kind] for kind in kinds], lost, color="#4878a8")
    counts = (errors["counts"].get(kind) for kind in kinds)
    axes.bar_label(bars, [f" {value:.1f}  ({count})" for value, count in zip(lost, counts, strict=True)], fontsize=9)
    axes.set(xlabel="AP lost, in points (number of errors)", title=title, xlim=(0, 1.3 * max(*lost, 1.0)))
    axes.spines[["top", "right"]].set_visible(False)
    return render_figure(figure)
