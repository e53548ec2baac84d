"""The closing summary of a run: results, files, and the next command."""

import csv
import math
import shlex
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from ...tasks import Task
from .logging import run_folder
from .run_facts import FACTS_FILE
from .thresholds import THRESHOLDS_FILE, threshold_note

CLASS_METRICS = {"mask_ap": "mask AP", "ap": "AP", "iou": "IoU", "accuracy": "accuracy"}
"""Columns of the table of classes -> their names in the summary; the first that is present is shown."""

MAX_CLASSES = 6
"""Number of classes in the summary; with more, it shows the best and the worst half of this number."""

CONTENTS = {
    "config.yaml": "resolved configuration",
    "run_state.json": "state and time of the run",
    FACTS_FILE: "source revision, versions, hardware, data set and network",
    "metrics.csv": "all logged metrics",
    "checkpoints": "checkpoints",
    "pictures": "plots",
    "val_classes.csv": "results of each class",
    "val_confusion.csv": "confusion matrix",
    "val_objects_confusion.csv": "confusion matrix of objects",
    "val_curves.csv": "precision over recall of each class",
    THRESHOLDS_FILE: "best score thresholds of each class, by F1",
    "test_classes.csv": "results of each class",
    "test_confusion.csv": "confusion matrix",
    "test_objects_confusion.csv": "confusion matrix of objects",
    "test_curves.csv": "precision over recall of each class",
    "predictions.csv": "predictions",
    "counts.csv": "objects of each image, by class",
    "detections.json": "predictions in COCO's format",
    "images.json": "images and categories of detections.json",
    "masks": "predicted masks",
    "instances": "predicted masks of object ids, which InstanceMasks reads",
    "instances.csv": "class of each object in instances (class_file of InstanceMasks)",
    "wandb": "W&B run",
    "wandb_run.json": "ID, project and sweep of the W&B run",
    "region_stages.json": "time of the training of SVMs and box regression",
    "region_stages": "features of regions, from which SVMs and box regression are trained",
    "slurm_job.json": "SLURM job that the run belongs to, which continues it when it is requeued",
    "uncommitted.diff": "changes of the source code since the git revision",
}
"""Files of a run, in the order of the summary. Any other file is listed too."""


class RunReport(pl.Callback):
    """Prints the results and the files of a run when it has ended, and the command to type next.

    It prints when Lightning tears down, after the progress bar has stopped: a bar in a terminal erases what is printed
    over it.
    """

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Print the summary. Lightning does not call this for a run that failed."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        lines = describe_results(trainer, pl_module) if stage == "fit" else []
        split = "test" if stage == "test" else "val"
        if stage != "predict" and (classes := describe_classes(folder / f"{split}_classes.csv")):
            lines.append(classes)
        if stage in ("fit", "validate") and (note := threshold_note(folder)):
            lines.append(note)
        lines.append(describe_run(folder))
        if stage != "predict" and (command := next_command(trainer, folder)):
            lines.append(f"Next: {command}")
        rank_zero_info("\n".join(["", *lines]))


def describe_results(trainer: pl.Trainer, module: pl.LightningModule) -> list[str]:
    """The best and the last value of the monitored metric; of a detector, the last AP50 too."""
    lines = [
        f"Best {callback.monitor}: {float(callback.best_model_score):.4f}"
        for callback in trainer.checkpoint_callbacks
        if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None
    ]
    if isinstance(module, Task):
        keys = [key for key in (module.monitor, f"{module.monitor}50") if key in trainer.callback_metrics]
        if keys:
            lines.append("Last " + ", ".join(f"{key}: {float(trainer.callback_metrics[key]):.4f}" for key in keys))
    return lines


def describe_classes(path: Path) -> str | None:
    """The main metric of the classes in a table that `ClassReport` has written, the best first; None without one."""
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    column = next((column for column in CLASS_METRICS if rows and column in rows[0]), None)
    if column is None:
        return None
    values = [(row["class"], float(row[column])) for row in rows if row[column]]
    values = sorted(((name, value) for name, value in values if not math.isnan(value)), key=lambda item: -item[1])
    shown = [f"{name} {value:.3f}" for name, value in values]
    if len(shown) > MAX_CLASSES:
        half = MAX_CLASSES // 2
        shown = [f"{', '.join(shown[:half])} … {', '.join(shown[-half:])} (best and worst of {len(shown)})"]
    return f"{CLASS_METRICS[column]} per class: {', '.join(shown)}" if shown else None


def describe_run(folder: Path) -> str:
    """List all files in the folder of a run, each with a description."""
    details = {
        "checkpoints": ", ".join(sorted(path.name for path in folder.glob("checkpoints/*.ckpt"))),
        "pictures": count_files(folder, "pictures", "plot"),
        "masks": count_files(folder, "masks", "mask"),
    }
    found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    names = [name for name in CONTENTS if name in found] + sorted(found - CONTENTS.keys())
    width = max(map(len, names), default=0)
    lines = [f"    {name:<{width}}  {details.get(name) or CONTENTS.get(name, '')}".rstrip() for name in names]
    return "\n".join([f"Results in {folder}/", *lines])


def count_files(folder: Path, name: str, kind: str) -> str:
    """Number of PNG files in a folder of the run, such as ``3 plots``."""
    count = len(list(folder.glob(f"{name}/*.png")))
    return f"{count} {kind}{'' if count == 1 else 's'}"


def next_command(trainer: pl.Trainer, folder: Path) -> str | None:
    """The command that predicts with the best checkpoint of the run; None if it left none, or takes no images."""
    checkpoints = [folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt")]
    if trainer.state.fn != "fit":
        checkpoints = [Path(str(trainer.ckpt_path))]
    checkpoint = next((path for path in checkpoints if path.is_file()), None)
    config = folder / "config.yaml"
    if checkpoint is None or not config.is_file() or not hasattr(trainer.datamodule, "images"):  # type: ignore[attr-defined]
        return None
    arguments = ["--config", str(config), "--ckpt_path", str(checkpoint), "--data.images"]
    return f"striate predict {shlex.join(arguments)} PATH"
