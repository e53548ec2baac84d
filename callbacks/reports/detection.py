"""Where a detector errs: precision over recall, kinds of error, and which class is taken for which."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ...tasks.metrics.coco_detection import IOUS
from ..drawing.canvas import class_name, confusion_figure, rendered
from ..tracking.logging import log_picture, log_table, run_folder

ERRORS = {
    "Cls": "wrong class",
    "Loc": "wrong place",
    "Both": "both wrong",
    "Dupe": "found twice",
    "Bkg": "background",
    "Miss": "missed",
}
"""TIDE's kinds of error, in words."""

LINES = 20
"""Classes that a picture of curves has a line for; of more classes, the mean alone is drawn."""


class DetectionReport(pl.Callback):
    """Precision-recall curves, TIDE's errors and the confusion matrix of a detector, after a test or `validate`.

    Not part of every run, since it matches all boxes again, two times: list it in ``trainer.callbacks``. Works with any
    task that has ``detection_metric(stage)``.

    Files: ``pictures/test_curves.png``, ``test_curves.csv``; ``pictures/test_errors.png``, ``test_errors.csv``;
    ``pictures/test_objects_confusion.png``, ``test_objects_confusion.csv``; the same for ``val``. Loggers:
    ``test/curves``, ``test/errors``, ``test/objects_confusion``; on W&B the tables too, and the curves as a chart.

    Args:
        iou: from which overlap a detection is right: 0.5, 0.55, … 0.95.
        score: from which score on a detection counts in the confusion matrix.
        during_fit: also after each validation of a training run.

    Raises:
        ValueError: an `iou` that is none of these, or a `score` that is not from 0 to 1.
    """

    def __init__(self, iou: float = 0.5, score: float = 0.5, during_fit: bool = False) -> None:
        if not any(abs(iou - value) < 1e-6 for value in IOUS) or not 0 <= score <= 1:
            raise ValueError(
                f"DetectionReport: iou={iou}, score={score}; give one of COCO's IoUs (0.5, 0.55, … 0.95), and a score "
                "from 0 to 1"
            )
        self.iou, self.score, self.during_fit = iou, score, during_fit

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """See that the task can tell."""
        if not callable(getattr(pl_module, "detection_metric", None)):
            raise TypeError(
                f"DetectionReport: {type(pl_module).__name__} has no method detection_metric(stage), as "
                "striate.tasks.Detection has; take the callback out of trainer.callbacks"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report, where asked for."""
        if not trainer.sanity_checking and (trainer.state.fn != "fit" or self.during_fit):
            self._report(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report."""
        self._report(trainer, pl_module, "test")

    def _report(self, trainer: pl.Trainer, task: Any, stage: str) -> None:
        metric = task.detection_metric(stage)
        # on every rank: the ranks' boxes are gathered here
        curves = {name: values.numpy() for name, values in metric.pr_curves(self.iou).items()}
        errors = metric.tide(self.iou)
        confusion = metric.confusion_matrix(self.iou, self.score).numpy()
        folder = run_folder(trainer)
        if not trainer.is_global_zero:
            return
        names = [class_name(k, getattr(task, "class_names", [])) for k in range(len(curves["precision"]))]
        pictures = folder / "pictures"
        title = f"{stage}: precision over recall at IoU {self.iou:g}"
        picture = curves_figure(curves["recall"], curves["precision"], names, title)
        log_picture(trainer, picture, pictures / f"{stage}_curves.png", f"{stage}/curves")
        _log_chart(trainer, curves, names, title, f"{stage}/curves_chart")
        columns = ["class", "recall", "precision", "score"]
        log_table(trainer, columns, _points(curves, names), folder / f"{stage}_curves.csv", f"{stage}/curves_table")

        picture = errors_figure(errors, f"{stage}: AP at IoU {self.iou:g} is {100 * errors['ap']:.1f} %")
        log_picture(trainer, picture, pictures / f"{stage}_errors.png", f"{stage}/errors")
        rows = [[ERRORS[kind], errors["counts"].get(kind), round(errors["delta_ap"][kind], 4)] for kind in ERRORS]
        log_table(trainer, ["error", "count", "ap_lost"], rows, folder / f"{stage}_errors.csv", f"{stage}/errors_table")

        title = f"{stage}: objects at IoU {self.iou:g}, detections from score {self.score:g}"
        picture = confusion_figure(confusion, [*names, "nothing"], title)
        log_picture(trainer, picture, pictures / f"{stage}_objects_confusion.png", f"{stage}/objects_confusion")
        table = [[name, *row] for name, row in zip([*names, "nothing"], confusion.tolist(), strict=True)]
        path = folder / f"{stage}_objects_confusion.csv"
        header = ["true \\ predicted", *names, "nothing"]
        log_table(trainer, header, table, path, f"{stage}/objects_confusion_table")


def _points(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[Any]]:
    """Rows of class, recall, precision, score; of classes that have objects."""
    rows = []
    for name, precision, scores in zip(names, curves["precision"], curves["scores"], strict=True):
        if not np.isnan(precision).all():
            columns = (curves["recall"].round(2), precision.round(4), scores.round(4))
            rows += [[name, *row] for row in zip(*(column.tolist() for column in columns), strict=True)]
    return rows


def _log_chart(
    trainer: pl.Trainer, curves: Mapping[str, np.ndarray], names: Sequence[str], title: str, key: str
) -> None:
    """The curves as W&B's own chart."""
    there = [k for k in range(len(names)) if not np.isnan(curves["precision"][k]).all()]
    for logger in trainer.loggers:
        if there and isinstance(logger, WandbLogger):
            import wandb

            lines = [curves["precision"][k].tolist() for k in there]
            shown = [names[k] for k in there]
            chart = wandb.plot.line_series(curves["recall"].tolist(), lines, keys=shown, title=title, xname="recall")
            logger.experiment.log({key: chart})


def curves_figure(recall: np.ndarray, precision: np.ndarray, names: Sequence[str], title: str) -> np.ndarray:
    """Precision over recall: a line a class, its AP in the legend, and their mean.

    Shape:
        - recall: ``[R]``
        - precision: ``[K, R]``, NaN for classes without objects
        - output: ``[H, W, 3]`` uint8
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    there = [k for k in range(len(names)) if not np.isnan(precision[k]).all()]
    figure = Figure(figsize=(7.2, 4.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    if len(there) <= LINES:
        colours = colormaps["tab10" if len(there) <= 10 else "tab20"].colors  # type: ignore[attr-defined]
        for colour, k in zip(colours, sorted(there, key=lambda k: -precision[k].mean()), strict=False):
            axes.plot(recall, precision[k], color=colour, lw=1.3, label=f"{names[k]}  {100 * precision[k].mean():.1f}")
    if there:
        mean = precision[there].mean(axis=0)
        axes.plot(recall, mean, color="black", lw=2.6, label=f"mean of {len(there)}  {100 * mean.mean():.1f}")
        axes.legend(title="AP, %", fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    else:
        axes.text(0.5, 0.5, "no objects", ha="center", color="gray")
    axes.set(xlabel="recall", ylabel="precision", title=title, xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    return rendered(figure)


def errors_figure(errors: Mapping[str, Any], title: str) -> np.ndarray:
    """TIDE's kinds of error: the AP that each costs, and how many there are.

    Args:
        errors: ``delta_ap`` and ``counts`` by the kind of error.
        title: above the bars.

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
    axes.set(xlabel="AP lost to it, points (how many)", title=title, xlim=(0, 1.3 * max(*lost, 1.0)))
    axes.spines[["top", "right"]].set_visible(False)
    return rendered(figure)
