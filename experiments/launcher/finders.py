"""Lightning's searches for a learning rate and a batch size: the run uses and records their results."""

from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ...callbacks import RunRecord
from ...callbacks.drawing.canvas import render_figure
from ...callbacks.tracking.logging import log_picture, run_folder
from ...tasks import Task
from .compat import leave_rate_alone

FINDERS = (BatchSizeFinder, LearningRateFinder)

_SKIPPED = 10  # first points of a search, as in Lightning: their running average is of few losses
_MIN_FALL = 0.02  # a smaller part of the loss is noise


class FinderResults(pl.Callback):
    """Trains with the learning rate and the batch size that were found, plots the search, and records the values.

    Lightning's callback sets one rate for all parameter groups, and a schedule does not see it. Here the optimizer and
    the schedule are built anew with the found rate: where the loss falls fastest over the logarithm of the rate.
    Lightning (2.6) takes the slope over the rate itself, which is steepest at the smallest rates. A doubtful result is
    not used. A LightningModule that is no `Task` trains with Lightning's own suggestion; a doubtful one is named.

    Args:
        record: Writes ``config.yaml``, with the found values.
        checkpoint: Checkpoint that the run resumes from.
    """

    def __init__(self, record: RunRecord, checkpoint: str | None = None) -> None:
        self.record, self.checkpoint = record, checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Check that the finders can work, before they start."""
        finders = find(trainer, FINDERS)
        if finders and self.checkpoint is not None:
            names = " and ".join(type(finder).__name__ for finder in finders)
            raise ValueError(
                f"callbacks: {names} cannot search when a run is resumed, got --ckpt_path {self.checkpoint}; resume "
                "with the config.yaml of that run, which has the values that were found"
            )
        if find(trainer, BatchSizeFinder) and not hasattr(trainer.datamodule, "batch_size"):  # type: ignore[attr-defined]
            raise TypeError(
                "callbacks: BatchSizeFinder needs a data module with the attribute batch_size, got "
                f"{type(trainer.datamodule).__name__}; remove the callback"  # type: ignore[attr-defined]
            )
        for finder in finders:
            setattr(finder, "on_fit_start", lambda *_: None)  # noqa: B010 - `on_fit_start` below starts it
            if isinstance(pl_module, Task) and isinstance(finder, LearningRateFinder):
                leave_rate_alone(finder)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Search, use the result, and record it."""
        found: dict[str, Any] = {}
        loop = trainer.fit_loop
        epochs, loop.max_epochs = loop.max_epochs, -1  # short epochs must not end a search
        for finder in find(trainer, BatchSizeFinder):
            finder.scale_batch_size(trainer, pl_module)
            if finder.optimal_batch_size is not None:
                found["batch_size"] = finder.optimal_batch_size
        for finder in find(trainer, LearningRateFinder):
            finder.lr_find(trainer, pl_module)
        loop.max_epochs = epochs
        for finder in find(trainer, LearningRateFinder):
            if (rate := self._use_rate(trainer, pl_module, finder.optimal_lr)) is not None:
                found["lr"] = rate
        if found:
            rank_zero_info("Found " + ", ".join(f"{name} {value}" for name, value in found.items()))
            add_found(self.record.config, found)
            self.record.write(trainer)

    def _use_rate(self, trainer: pl.Trainer, pl_module: pl.LightningModule, search: Any) -> float | None:
        """Plot a search, and set the found rate in a task; None: the task keeps its rate."""
        if search is None:  # in a fast_dev_run
            return None
        task = pl_module if isinstance(pl_module, Task) else None
        rate = steepest_fall(search.results) if task else search.suggestion()
        path = run_folder(trainer) / "pictures" / "lr_finder.png"
        if trainer.is_global_zero:
            log_picture(trainer, render_figure(search_figure(search.results, rate)), path, "train/lr_finder")
        if problem := doubt(search.results, rate, search.num_training):
            found = "no learning rate" if rate is None else f"learning rate {rate:.3g}"
            use = "so training continues with that of the configuration" if task or rate is None else "and used"
            rank_zero_warn(
                f"{found} found, {use} ({problem}): look at {path}, then set the rate, or change min_lr, max_lr or "
                "num_training_steps of LearningRateFinder"
            )
        if task is None:
            return None
        rate = None if problem or rate is None else float(f"{rate:.6g}")
        if rate is not None:
            task.optimizer = partial(task.optimizer, lr=rate)  # type: ignore[call-arg]
        trainer.strategy.setup_optimizers(trainer)
        return rate


def steepest_fall(results: dict[str, list[float]]) -> float | None:
    """Return the rate at which the loss falls fastest over the rate's logarithm.

    Args:
        results: ``lr`` and ``loss`` (a running average) of each step of a search.

    Returns:
        The rate; None: there are fewer than two finite losses beyond the first ones.
    """
    rates, losses = np.array(results["lr"], np.float64), np.array(results["loss"], np.float64)
    usable = _SKIPPED + np.flatnonzero(np.isfinite(losses[_SKIPPED:-1]))
    if len(usable) < 2:
        return None
    return float(rates[usable[np.argmin(np.gradient(losses[usable], np.log(rates[usable])))]])


def doubt(results: dict[str, list[float]], rate: float | None, steps: int) -> str | None:
    """Say why the result of a search is not to be trusted; None: nothing speaks against it.

    Args:
        results: ``lr`` and ``loss`` (a running average) of each step of a search.
        rate: The rate that was found; None: none was.
        steps: Number of steps that the search had planned; it ends earlier when the loss diverges.
    """
    if rate is None:
        return "there are too few finite losses"
    losses = np.array(results["loss"], np.float64)[_SKIPPED:]
    losses = losses[np.isfinite(losses)]
    fall = (losses[0] - losses.min()) / max(abs(losses[0]), 1e-12)
    if fall < _MIN_FALL:
        return f"the loss fell by {100 * fall:.1f} % in the whole search"
    ends = f"end of the searched rates, {results['lr'][0]:.3g} to {results['lr'][-1]:.3g}"
    index, margin = results["lr"].index(rate), max(steps // 20, 1)
    if index < _SKIPPED + margin:
        return f"it is at the lower {ends}"
    return f"it is at the upper {ends}" if index >= steps - 1 - margin else None


def add_found(config: dict[str, Any], found: dict[str, Any]) -> None:
    """Put found values into a resolved configuration, in place, and remove the finders, which have done their work."""
    if "batch_size" in found:
        config["data"]["init_args"]["batch_size"] = found["batch_size"]
    if "lr" in found:
        optimizer = config["model"]["init_args"].get("optimizer") or "torch.optim.AdamW"
        if isinstance(optimizer, str):
            optimizer = {"class_path": optimizer}
        arguments = {**optimizer.get("init_args", {}), "lr": found["lr"]}
        config["model"]["init_args"]["optimizer"] = {**optimizer, "init_args": arguments}
    names = tuple(finder.__name__ for finder in FINDERS)
    callbacks = config["trainer"]["callbacks"]
    callbacks = callbacks if isinstance(callbacks, list) else [callbacks]
    config["trainer"]["callbacks"] = [one for one in callbacks if not one["class_path"].endswith(names)]


def find(trainer: pl.Trainer, kind: Any) -> list[Any]:
    """The callbacks of a trainer that are of a class, or of one of several."""
    return [callback for callback in trainer.callbacks if isinstance(callback, kind)]  # type: ignore[attr-defined]


def search_figure(results: dict[str, list[float]], rate: float | None) -> Any:
    """Plot the loss over the learning rate, with the rate that was chosen."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), dpi=110, layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="learning rate", ylabel="loss (running average)")
    axes.plot(results["lr"], results["loss"])
    if rate is not None:
        axes.axvline(rate, color="black", lw=1, ls="--", label=f"chosen: {rate:.3g}")
        axes.legend()
    axes.grid(alpha=0.3)
    return figure
