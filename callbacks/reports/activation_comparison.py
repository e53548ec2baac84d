"""Plot of an activation comparison: training error against epochs."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytorch_lightning as pl

from ...tasks import ActivationComparison
from ..drawing.canvas import render_figure
from ..tracking.logging import log_picture, run_folder

STYLES = (("-", "#1f4e79"), ("--", "#b03a2e"), (":", "#2e7d4f"), ("-.", "#6a4c93"))


def error_curves_figure(errors: Mapping[str, Sequence[float]], threshold: float, title: str = "") -> np.ndarray:
    """Plot training errors against epochs, with the threshold as a line.

    Args:
        errors: Name -> error of each epoch from the first, as fractions.
        threshold: The error to reach, as a fraction.
        title: Title of the plot.

    Shape:
        - Output: ``[H, W, 3]`` uint8.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(6.4, 4.4), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    for (name, values), (line, color) in zip(errors.items(), STYLES, strict=False):
        axes.plot(range(1, len(values) + 1), values, line, color=color, linewidth=2, marker=".", label=name)
    axes.axhline(threshold, color="black", linewidth=1, linestyle=(0, (2, 2)))
    axes.annotate(f"{100 * threshold:.0f} %", (1, threshold), textcoords="offset points", xytext=(2, 3), fontsize=9)
    axes.set(xlabel="epochs", ylabel="training error", ylim=(0, None))
    axes.set_title(title, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return render_figure(figure)


class ActivationComparisonPlot(pl.Callback):
    """Plots the training errors of all epochs at the end of training, in the style of AlexNet's figure 1.

    For `striate.tasks.ActivationComparison`. File: ``pictures/training_error.png``. Loggers:
    ``train/training_error``.

    Raises:
        TypeError: At set-up: the task is another one.
    """

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the task compares activations, before training starts."""
        if not isinstance(pl_module, ActivationComparison):
            raise TypeError(
                "ActivationComparisonPlot: the task must be ActivationComparison, got "
                f"{type(pl_module).__name__}; remove the callback"
            )

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Draw the plot, if at least one epoch is complete."""
        folder = run_folder(trainer)
        assert isinstance(pl_module, ActivationComparison)
        if trainer.is_global_zero and any(pl_module.errors.values()):
            picture = error_curves_figure(pl_module.errors, pl_module.threshold, pl_module.summary())
            log_picture(trainer, picture, folder / "pictures" / "training_error.png", "train/training_error")
