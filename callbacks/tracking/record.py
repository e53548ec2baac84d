"""What a run says about itself: its configuration and environment at the start, its result at the end."""

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
from .logging import run_folder


class RunRecord(pl.Callback):
    """Writes the resolved configuration to ``config.yaml`` and to the loggers, with git revision and environment.

    Args:
        config: the resolved configuration, as plain values.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._written = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write once, at the first of Lightning's set-ups."""
        folder = run_folder(trainer)
        if self._written or not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self._written = True
        folder.mkdir(parents=True, exist_ok=True)
        described = environment()
        header = "".join(f"# {key}: {value}\n" for key, value in described.items())
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        (folder / "config.yaml").write_text(header + text, encoding="utf-8")
        for logger in trainer.loggers:
            if not isinstance(logger, CSVLogger):  # its hparams.yaml would say the same again
                logger.log_hyperparams({"config": self.config, "environment": described})


def environment() -> dict[str, str]:
    """Versions, device and, where the working folder is a git checkout, its revision."""
    described = {
        "striate": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": pl.__version__,
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name()
        if torch.cuda.is_available()
        else f"CPU, {torch.get_num_threads()} threads",
    }
    if revision := _git("rev-parse", "HEAD"):
        described["git"] = revision + (", with uncommitted changes" if _git("status", "--porcelain", "-uno") else "")
    return described


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class NetworkSummary(RichModelSummary):
    """Lightning's table of modules without its FLOPs, which nobody counts: they are 0 in every row (2.6)."""

    @staticmethod
    def summarize(  # type: ignore[override]  # takes what Lightning gives by position or by name
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        model_size: float,
        total_training_modes: dict[str, int],
        **_: Any,
    ) -> None:
        """Print the columns but one, and the sums below them."""
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
        every, trained = (get_human_readable_count(int(n)).strip() for n in (total_parameters, trainable_parameters))
        size, modes = get_formatted_model_size(model_size).strip(), total_training_modes
        console.print(f"Parameters: {every} ({size} MB), of which {trained} are trained", highlight=False)
        console.print(
            f"Modules: {modes['train']} in training mode, {modes['eval']} in evaluation mode", highlight=False
        )


class RunReport(pl.Callback):
    """Says at the end what came out, and where it lies."""

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Best and last figure of the monitored metric, and the files of the run."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        monitor = getattr(pl_module, "monitor", None)
        lines = [
            f"{callback.monitor}: {float(callback.best_model_score):.4f} at best"
            for callback in trainer.checkpoint_callbacks
            if isinstance(callback, ModelCheckpoint) and callback.best_model_score is not None
        ]
        if monitor in trainer.callback_metrics:
            lines.append(f"{monitor}: {float(trainer.callback_metrics[monitor]):.4f} in the last validation")
        rank_zero_info("\n".join([*lines, describe(folder)]))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The files of the run, unless training goes on."""
        if trainer.state.fn == "validate":
            self.on_test_end(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The files of the run."""
        folder = run_folder(trainer)
        if trainer.is_global_zero:
            rank_zero_info(describe(folder))


def describe(folder: Path) -> str:
    """The folder of a run, and what each file in it is."""
    drawn = len(list(folder.glob("pictures/*.png")))
    known = {
        "config.yaml": "the resolved configuration",
        "metrics.csv": "every logged figure",
        "checkpoints": ", ".join(sorted(path.name for path in folder.glob("checkpoints/*.ckpt"))),
        "pictures": f"{drawn} picture{'' if drawn == 1 else 's'}",
        "wandb": "the W&B run",
    }
    present = [f"    {name:<12} {what}" for name, what in known.items() if (folder / name).exists()]
    return "\n".join([f"{folder}/", *present])
