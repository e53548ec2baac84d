"""Run ``striate`` in the process of the test, and the configuration of a small classifier to run it with."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest

from striate.experiments.launcher.main import main

TRAINER = {"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False}
CLASSIFICATION = {
    "model": {
        "class_path": "striate.tasks.Classification",
        "init_args": {
            "model": {
                "class_path": "striate.tests.helpers.fixtures.TinyNet",
                "init_args": {"num_classes": 2, "width": 8},
            },
            "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.05}},
        },
    },
    "data": {
        "class_path": "striate.datamodules.ImageFolder",
        "init_args": {"root": "data", "val_fraction": 0.25, "batch_size": 4, "num_workers": 0},
    },
    "trainer": TRAINER | {"max_epochs": 3},
    "wandb": {"mode": "off"},
}


def launch(*arguments: Any) -> None:
    """Run ``striate`` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["striate", *map(str, arguments)])
        main()


def launch_error(capsys: pytest.CaptureFixture[str], code: int, *arguments: Any) -> str:
    """Run ``striate`` with arguments that it must refuse, and return its one-line message.

    Args:
        capsys: Pytest's fixture.
        code: Exit code to expect: 2 for a wrong call, 1 for a run that fails.
        arguments: The command line.
    """
    with pytest.raises(SystemExit) as exit_:
        launch(*arguments)
    output = capsys.readouterr().err
    message = output.strip().splitlines()[-1]
    assert exit_.value.code == code, message
    assert message.startswith("striate: ") and "Traceback" not in output
    return message.removeprefix("striate: ")


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
