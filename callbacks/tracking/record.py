"""Records of a run: configuration and environment at the start, results and files at the end."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import RichModelSummary
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities.model_summary import get_formatted_model_size, get_human_readable_count

from ..atomic_files import replace_text
from .guarded_loggers import guard_of
from .logging import run_folder
from .run_facts import FACTS_FILE, dataset_facts, environment, environment_facts, network_facts, save_diff
from .wandb_guard import Guard
from .wandb_logger import RunLogger

DIFF_FILE = "uncommitted.diff"
"""Changes of the source code since the git revision, where a run is recorded on W&B."""


class RunRecord(pl.Callback):
    """Writes what a run is: its resolved configuration, source revision, versions, hardware, data set and network.

    Files: ``config.yaml``; ``run_facts.json`` with all else. The hyperparameters of the loggers hold both.

    Args:
        config: The resolved configuration, as plain values.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self._written = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Write once, when Lightning first sets up."""
        if not self._written:
            self._written = True
            self.write(trainer)

    def write(self, trainer: pl.Trainer) -> None:
        """Write the configuration. All ranks must call this at the same time; the first one writes."""
        folder = run_folder(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder.mkdir(parents=True, exist_ok=True)
        versions = environment()
        header = "".join(f"# {key}: {value}\n" for key, value in versions.items())
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        replace_text(folder / "config.yaml", header + text)
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_hyperparams(self.config | environment_facts())
                if logger.active and save_diff(folder / DIFF_FILE):
                    logger.log_file(folder / DIFF_FILE, "source", "code")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the record, since data and network are known."""
        self._complete(trainer, pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the record in ``validate``."""
        if trainer.state.fn != "fit":
            self._complete(trainer, pl_module)

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the record in ``test``."""
        self._complete(trainer, pl_module)

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Complete the record in ``predict``."""
        self._complete(trainer, pl_module)

    def _complete(self, trainer: pl.Trainer, task: pl.LightningModule) -> None:
        folder = run_folder(trainer)
        if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        call = Guard(0, "the run continues", "Record").call
        data = trainer.datamodule  # type: ignore[attr-defined]
        known = {
            "dataset": call("describing the data set", partial(dataset_facts, data)),
            "network": call("describing the network", partial(network_facts, trainer, task)),
        }
        facts = environment_facts() | known
        replace_text(folder / FACTS_FILE, json.dumps(facts, indent=1, default=str, ensure_ascii=False) + "\n")
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.log_hyperparams(known)
            elif not (isinstance(logger, CSVLogger) and Path(logger.log_dir) == folder):  # hparams.yaml would repeat
                log = partial(logger.log_hyperparams, self.config | facts)
                guard_of(logger).call("recording", log, waits=True)


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
