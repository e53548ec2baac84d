"""Records of a run: configuration and environment at the start, results and files at the end."""

import platform
import subprocess
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import yaml
from pytorch_lightning.callbacks import ModelCheckpoint, RichModelSummary
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.model_summary import get_formatted_model_size, get_human_readable_count
from pytorch_lightning.utilities.rank_zero import rank_zero_info

from ... import __version__
from ...tasks import Task
from .logging import run_folder
from .thresholds import threshold_note


class RunRecord(pl.Callback):
    """Writes the resolved configuration to ``config.yaml`` and to the loggers, with git revision and environment.

    Args:
        config: The resolved configuration, as plain values.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._written = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write once, when Lightning first sets up."""
        folder = run_folder(trainer)
        if self._written or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._written = True
        folder.mkdir(parents=True, exist_ok=True)
        versions = environment()
        header = "".join(f"# {key}: {value}\n" for key, value in versions.items())
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(header + text, encoding="utf-8")
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # its hparams.yaml would repeat config.yaml
                logger.log_hyperparams({"config": self.config, "environment": versions})


def environment() -> dict[str, str]:
    """Versions, device and, in a git checkout, the revision of the working folder."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    entries = {
        "striate": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": pl.__version__,
        "platform": platform.platform(),
        "device": device,
    }
    if revision := _git("rev-parse", "HEAD"):
        entries["git"] = revision + (", with uncommitted changes" if _git("status", "--porcelain", "-uno") else "")
    return entries


def _git(*arguments: str) -> str:
    try:
        process = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""


class NetworkSummary(RichModelSummary):
    """Lightning's table of modules without the FLOPs, which are 0 in every row (2.6)."""

    @staticmethod
    def summarize(  # type: ignore[override]  # Lightning passes arguments by position and by name
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        **_: Any,
    ) -> None:
        """Print the other columns, and the totals below them."""
        from rich import get_console
        from rich.table import Table

        columns = [(name, cells) for name, cells in summary_data if name != "FLOPs"]
        table = Table(header_style="bold magenta")
        for name, _cells in columns:
            table.add_column(name, justify="right" if name.startswith("Params") else "left")
        for row in zip(*(cells for _name, cells in columns), strict=True):
            table.add_row(*row)
        console = get_console()
        console.print(table)
        total, trainable = (get_human_readable_count(int(n)).strip() for n in (total_parameters, trainable_parameters))
        size, modes = get_formatted_model_size(model_size).strip(), total_training_modes
        console.print(f"Parameters: {total} ({size} MB), {trainable} trainable", highlight=False)
        console.print(
            f"Modules: {modes['train']} in training mode, {modes['eval']} in evaluation mode", highlight=False
        )


class RunReport(pl.Callback):
    """Logs the results and the files of a run when it ends."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the best and the last value of the monitored metric, and the files of the run."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        lines = [
            f"Best {callback.monitor}: {float(callback.best_model_score):.4f}"
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None
        ]
        if isinstance(pl_module, Task) and pl_module.monitor in trainer.callback_metrics:
            lines.append(f"Last {pl_module.monitor}: {float(trainer.callback_metrics[pl_module.monitor]):.4f}")
        lines += [note] if (note := threshold_note(folder)) else []
        rank_zero_info("\n".join([*lines, describe_run(folder)]))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the files of the run, except in a training run, which has not finished yet."""
        if trainer.state.fn == "validate":
            self.on_test_end(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the files of the run, after a test."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            note = threshold_note(folder) if trainer.state.fn == "validate" else ""
            rank_zero_info("\n".join([*([note] if note else []), describe_run(folder)]))


def describe_run(folder: Path) -> str:
    """List the files in the folder of a run, with what each contains."""
    pictures = len(list(folder.glob("pictures/*.png")))
    contents = {
        "config.yaml": "resolved configuration",
        "metrics.csv": "all logged metrics",
        "checkpoints": ", ".join(sorted(path.name for path in folder.glob("checkpoints/*.ckpt"))),
        "pictures": f"{pictures} plot{'' if pictures == 1 else 's'}",
        "wandb": "W&B run",
    }
    present = [f"    {name:<12} {text}" for name, text in contents.items() if (folder / name).exists()]
    return "\n".join([f"Results in {folder}/", *present])
