"""The picture of a race: training error against epochs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytorch_lightning as pl

from ..tracking.logging import log_picture, run_folder

STYLES = (("-", "#1f4e79"), ("--", "#b03a2e"), (":", "#2e7d4f"), ("-.", "#6a4c93"))


def race_figure(errors: Mapping[str, Sequence[float]], threshold: float, title: str = "") -> np.ndarray:
    """Training errors against epochs, and the threshold as a line.

    Args:
        errors: name -> error of each epoch from the first, as shares.
        threshold: the error to reach.
        title: above the curves.

    Shape:
        - Output: ``[H, W, 3]`` uint8.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), (line, colour) in zip(errors.items(), STYLES, strict=False):
        axes.plot(range(1, len(values) + 1), values, line, color=colour, linewidth=2, marker=".", label=name)
    axes.axhline(threshold, color="black", linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate(f"{100 * threshold:.0f} %", (1, threshold), textcoords="offset points", xytext=(2, 3), fontsize=9)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, None))
    axes.set_title(title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


class RacePicture(pl.Callback):
    """Draws, at the end of training, the training errors of all epochs, in the manner of AlexNet's figure 1.

    Works with tasks that have ``errors``, ``threshold`` and ``summary()``, such as `striate.tasks.TrainingRace`. File:
    ``pictures/race.png``. Loggers: ``train/race``.
    """

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw."""
        folder = run_folder(trainer)
        task: Any = pl_module
        if trainer.is_global_zero and any(task.errors.values()):
            picture = race_figure(task.errors, task.threshold, task.summary())
            log_picture(trainer, picture, folder / "pictures" / "race.png", "train/race")
