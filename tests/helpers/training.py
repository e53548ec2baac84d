"""Quiet trainers, scripts in processes of their own, a callback that stops a run, and a data module of batches."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger
from torch.utils.data import DataLoader

from .processes import HANG

QUIET = {
    "accelerator": "cpu",
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def make_trainer(**settings: Any) -> pl.Trainer:
    """A trainer on the CPU that prints and writes nothing, unless the settings say otherwise."""
    return pl.Trainer(**(QUIET | settings))


PREAMBLE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import torch
from striate.tests.helpers.training import make_trainer
torch.set_num_threads(1)
torch.manual_seed(3)
processes = int(sys.argv[1])

def ddp_trainer(**settings):
    return make_trainer(
        strategy="ddp" if processes > 1 else "auto", devices=processes, **{"max_epochs": 1, **settings}
    )

def assert_ranks_agree(trainer, task):
    local = sum(parameter.sum() for parameter in task.parameters()).detach()
    assert torch.allclose(trainer.strategy.reduce(local.clone(), reduce_op="mean"), local), "ranks differ"

def report(trainer, result):
    if trainer.is_global_zero:
        print("RESULT", json.dumps(result), flush=True)
"""


LEAVE = """
# while Python exits, a thread of Gloo that still holds tensors of the last exchange would abort the process
import os
sys.stdout.flush()
os._exit(0)
"""


def run_script(code: str, folder: Path, processes: int, *arguments: Any, exit_code: int = 0) -> Any:
    """Run a script with DDP, and return what it passes to ``report``.

    Args:
        code: The script. It may use the names of `PREAMBLE`, among them ``ddp_trainer(**settings)``,
            ``assert_ranks_agree(trainer, task)`` and ``report(trainer, result)``.
        folder: Working folder of the script.
        processes: Number of processes; 1: without DDP.
        arguments: Further arguments: ``sys.argv[2:]``.
        exit_code: Exit code to expect.
    """
    (folder / "script.py").write_text(PREAMBLE + code + LEAVE)
    command = [sys.executable, "script.py", *map(str, (processes, *arguments))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, cwd=folder)
    assert done.returncode == exit_code, done.stderr[-3000:]
    return json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT"))[7:])


class SaveAndStop(pl.Callback):
    """Save a checkpoint to `path` after `steps` steps, and stop without validation."""

    def __init__(self, steps: int | None, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.steps:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True
            trainer.limit_val_batches = 0


class SendSignal(pl.Callback):
    """Sends a signal to its own process when a hook is called for the n-th time in training.

    Args:
        hook: Name of the hook.
        time: The n.
        number: The signal; default: that of Ctrl-C.
    """

    def __init__(self, hook: str, time: int, number: int = signal.SIGINT) -> None:
        self.left, self.number = time, number
        setattr(self, hook, self.count)

    def count(self, trainer: pl.Trainer, *_: Any) -> None:
        self.left -= not trainer.sanity_checking
        if self.left == 0 and not trainer.sanity_checking:
            signal.raise_signal(self.number)


class Batches(pl.LightningDataModule):
    """The same ready batches for training, validation and test."""

    def __init__(self, batches: list[Any], class_names: tuple[str, ...] = ("cat", "dog")) -> None:
        super().__init__()
        self.batches, self.class_names = batches, list(class_names)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.batches, batch_size=None)

    val_dataloader = test_dataloader = train_dataloader


class RecordingLogger(Logger):
    """Records the validation metrics and the images that are logged, over one or several runs."""

    name, version = "recorder", "0"

    def __init__(self, save_dir: Path) -> None:
        super().__init__()
        self.validations: list[dict[str, Any]] = []
        self.images: list[tuple[str, Any]] = []
        self._save_dir = str(save_dir)

    @property
    def save_dir(self) -> str:
        return self._save_dir

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "val/loss" in metrics:
            self.validations.append({"step": step, **metrics})

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        pass

    def log_image(self, key: str, images: list[Any]) -> None:
        self.images.append((key, images[0]))
