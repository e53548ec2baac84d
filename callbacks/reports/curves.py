"""Precision-recall curves of a task: figure, table, and a chart on W&B."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from ...datamodules.images.fonts import chart_fonts
from ..compat import logged_step
from ..drawing.canvas import chart_names, class_name, render_figure
from ..tracking.logging import log_media, log_picture, log_table

MAX_CURVES = 20
"""Maximum number of classes with a curve each; with more classes only the mean is drawn."""


def write_curves(
    trainer: pl.Trainer,
    folder: Path,
    curves: Mapping[str, np.ndarray],
    class_names: Sequence[str],
    stage: str,
    kind: str,
) -> None:
    """Write ``pictures/STAGE_curves.png`` and ``STAGE_curves.csv``, and log both. Call this on the first rank only.

    Args:
        trainer: Its loggers are used.
        folder: Folder of the run.
        curves: ``recall``, ``precision`` and ``scores``, as from `striate.tasks.interfaces.CurveReporter`.
        class_names: Class names.
        stage: ``val`` or ``test``.
        kind: What a prediction needs to be correct, for the title.

    Shape:
        - curves: ``[R]``, ``[K, R]`` and ``[K, R]``
    """
    names = [class_name(k, class_names) for k in range(len(curves["precision"]))]
    title = f"{stage}: precision over recall, {kind}"
    picture = curves_figure(curves["recall"], curves["precision"], names, title)
    log_picture(trainer, picture, folder / "pictures" / f"{stage}_curves.png", f"{stage}/curves")
    defined = [k for k in range(len(names)) if not np.isnan(curves["precision"][k]).all()]
    for logger in trainer.loggers:
        if defined and isinstance(logger, WandbLogger):
            chart = partial(_chart, curves, defined, names, title)
            log_media(logger, f"{stage}/curves_chart", chart, logged_step(trainer))
    columns = ["class", "recall", "precision", "score"]
    log_table(trainer, columns, _rows(curves, names), folder / f"{stage}_curves.csv", f"{stage}/curves_table")


def _rows(curves: Mapping[str, np.ndarray], names: Sequence[str]) -> list[list[Any]]:
    """Rows of class, recall, precision and score, for the classes that have objects."""
    rows = []
    for name, precision, scores in zip(names, curves["precision"], curves["scores"], strict=True):
        if not np.isnan(precision).all():
            columns = (curves["recall"].round(2), precision.round(4), scores.round(4))
            rows += [[name, *row] for row in zip(*(column.tolist() for column in columns), strict=True)]
    return rows


def _chart(curves: Mapping[str, np.ndarray], defined: Sequence[int], names: Sequence[str], title: str) -> Any:
    """The curves as a chart of W&B, one line per class; with many classes, only their mean."""
    import wandb

    values, keys = curves["precision"][list(defined)], [names[k] for k in defined]
    if len(defined) > MAX_CURVES:
        values, keys = values.mean(axis=0, keepdims=True), ["mean"]
    return wandb.plot.line_series(curves["recall"].tolist(), values.tolist(), keys=keys, title=title, xname="recall")


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
