"""Error analysis of a detector: precision-recall curves, kinds of error, and the confusion matrix of classes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ...datamodules.images.fonts import chart_fonts
from ...tasks.interfaces import DetectionReporter, EvaluationStage
from ...tasks.metrics.coco_curves import IOUS
from ..compat import logged_step
from ..drawing.canvas import chart_names, class_name, confusion_figure, render_figure
from ..tracking.logging import log_media, log_picture, log_table, run_folder

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

MAX_CURVES = 20
"""Maximum number of classes with a curve each; with more classes only the mean is drawn."""


class DetectionReport(pl.Callback):
    """Writes precision-recall curves, TIDE's errors and the confusion matrix of a detector, after test or validate.

    It is not part of every run, since it matches all boxes two more times: add it to ``trainer.callbacks``. Works with
    any task that implements `striate.tasks.DetectionReporter`.

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
        if not trainer.sanity_checking and (trainer.state.fn != "fit" or self.during_fit):
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report after each test, always."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: pl.Trainer, task: Any, stage: EvaluationStage) -> None:
        metric = task.detection_metric(stage)
        # on every rank: these gather the boxes of all ranks
        curves = {name: values.numpy() for name, values in metric.pr_curves(self.iou).items()}
        errors = metric.tide(self.iou, max_detections=self.max_detections)
        confusion = metric.confusion_matrix(self.iou, self.score).numpy()
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        names = [class_name(k, task.class_names) for k in range(len(curves["precision"]))]
        pictures = folder / "pictures"
        title = f"{stage}: precision over recall at IoU {self.iou:g}"
        picture = curves_figure(curves["recall"], curves["precision"], names, title)
        log_picture(trainer, picture, pictures / f"{stage}_curves.png", f"{stage}/curves")
        _log_chart(trainer, curves, names, title, f"{stage}/curves_chart")
        columns = ["class", "recall", "precision", "score"]
        log_table(trainer, columns, _curve_rows(curves, names), folder / f"{stage}_curves.csv", f"{stage}/curves_table")

        picture = errors_figure(errors, f"{stage}: AP at IoU {self.iou:g} is {100 * errors['ap']:.1f} %")
        log_picture(trainer, picture, pictures / f"{stage}_errors.png", f"{stage}/errors")
        rows = [[ERRORS[kind], errors["counts"].get(kind), round(errors["delta_ap"][kind], 4)] for kind in ERRORS]
        log_table(trainer, ["error", "count", "ap_lost"], rows, folder / f"{stage}_errors.csv", f"{stage}/errors_table")

        names = [*names, BACKGROUND]
        title = f"{stage}: objects at IoU {self.iou:g}, detections from score {self.score:g}"
        picture = confusion_figure(confusion, names, title)
        log_picture(trainer, picture, pictures / f"{stage}_objects_confusion.png", f"{stage}/objects_confusion")
        rows = [[name, *row] for name, row in zip(names, confusion.tolist(), strict=True)]
        path = folder / f"{stage}_objects_confusion.csv"
        log_table(trainer, ["true \\ predicted", *names], rows, path, f"{stage}/objects_confusion_table")


def _curve_rows(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[Any]]:
    """Rows of class, recall, precision and score, for the classes that have objects."""
    rows = []
    for name, precision, scores in zip(names, curves["precision"], curves["scores"], strict=True):
        if not np.isnan(precision).all():
            columns = (curves["recall"].round(2), precision.round(4), scores.round(4))
            rows += [[name, *row] for row in zip(*(column.tolist() for column in columns), strict=True)]
    return rows


def _log_chart(
    trainer: pl.Trainer, curves: Mapping[str, np.ndarray], names: Sequence[str], title: str, key: str
) -> None:
    """Log the curves as a chart of W&B."""
    defined = [k for k in range(len(names)) if not np.isnan(curves["precision"][k]).all()]
    lines = [curves["precision"][k].tolist() for k in defined]

    def chart() -> Any:
        import wandb

        keys = [names[k] for k in defined]
        return wandb.plot.line_series(curves["recall"].tolist(), lines, keys=keys, title=title, xname="recall")

    for logger in trainer.loggers:
        if defined and isinstance(logger, WandbLogger):
            log_media(logger, key, chart, logged_step(trainer))


def curves_figure(recall: np.ndarray, precision: np.ndarray, names: Sequence[str], title: str) -> np.ndarray:
    """Plot precision over recall: one line per class, with its AP in the legend, and their mean.

    Shape:
        - recall: ``[R]``
        - precision: ``[K, R]``, NaN for classes without objects
        - output: ``[H, W, 3]`` uint8
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    defined = [k for k in range(len(names)) if not np.isnan(precision[k]).all()]
    labels = chart_names(range(len(names)), names)
    with chart_fonts([*labels, title]):
        figure = Figure(figsize=(7.2, 4.8), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        if len(defined) <= MAX_CURVES:
            colors = colormaps["tab10" if len(defined) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
            for color, k in zip(colors, sorted(defined, key=lambda k: -precision[k].mean()), strict=False):
                # a space in front: matplotlib leaves labels that begin with an underscore out of the legend
                label = f" {labels[k]}  {100 * precision[k].mean():.1f}"
                axes.plot(recall, precision[k], color=color, lw=1.3, label=label)
        if defined:
            mean = precision[defined].mean(axis=0)
            label = f" mean of {len(defined)}  {100 * mean.mean():.1f}"
            axes.plot(recall, mean, color="black", lw=2.6, label=label)
            axes.legend(title="AP, %", fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
        else:
            axes.text(0.5, 0.5, "no objects", ha="center", color="gray")
        axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        return render_figure(figure)


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
