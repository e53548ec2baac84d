"""Lightning's search for a learning rate and for a batch size: what they find is used and recorded."""

from functools import partial
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import BatchSizeFinder, LearningRateFinder
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from ...callbacks import RunRecord
from ...callbacks.drawing.canvas import render_figure
from ...callbacks.tracking.logging import log_picture, run_folder
from ...tasks import Task
from .compat import leave_rate_alone

FINDERS = (BatchSizeFinder, LearningRateFinder)


class FinderResults(pl.Callback):
    """Trains with the learning rate and the batch size that were found, plots the search, and records the values.

    Lightning's callback sets one rate for all parameter groups, and a schedule does not see it. Here the optimizer and
    the schedule are built anew with the found rate.

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
        """Search, use what is found, and record it."""
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
            search = finder.optimal_lr
            rate = search.suggestion() if search is not None else None
            folder = run_folder(trainer)
            if search is not None and trainer.is_global_zero:
                path = folder / "pictures" / "lr_finder.png"
                log_picture(trainer, render_figure(search_figure(search.results, rate)), path, "train/lr_finder")
            if rate is None:
                rank_zero_info(
                    "No learning rate found: the loss did not fall; training continues with that of the YAML"
                )
            elif isinstance(pl_module, Task):
                found["lr"] = float(f"{rate:.6g}")
                optimizer: Any = pl_module.optimizer
                pl_module.optimizer = partial(optimizer, lr=found["lr"])
                trainer.strategy.setup_optimizers(trainer)
        if found:
            rank_zero_info("Found " + ", ".join(f"{name} {value}" for name, value in found.items()))
            add_found(self.record.config, found)
            self.record.write(trainer)


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
