"""Sweep files for tests, whose trials are `fake_trial`, and what has come of them."""

from pathlib import Path
from typing import Any

import optuna
import yaml

from . import fake_trial
from .launcher import read_csv

COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]


def write_sweep(folder: Path, parameters: dict[str, Any], method: str = "random", **keys: Any) -> Path:
    """Write ``fake.yaml``, a sweep of the stand-in that maximizes ``val/acc``.

    Args:
        folder: Where to write it.
        parameters: The parameters.
        method: The method.
        keys: Further keys of the file.
    """
    content = {
        "program": fake_trial.__file__,
        "command": COMMAND,
        "method": method,
        "metric": {"name": "val/acc", "goal": "maximize"},
        "parameters": parameters,
        **keys,
    }
    path = folder / "fake.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def load_study(location: Path | str, name: str = "fake") -> optuna.Study:
    """Optuna's study in a journal file or a database."""
    if "://" in str(location):
        return optuna.load_study(study_name=name, storage=str(location))
    backend = optuna.storages.journal.JournalFileBackend(str(location))
    return optuna.load_study(study_name=name, storage=optuna.storages.JournalStorage(backend))


def trial_rows(folder: Path) -> dict[int, dict[str, str]]:
    """The rows of ``trials.csv``, by number of the trial."""
    return {int(row["trial"]): row for row in read_csv(folder / "trials.csv")}
