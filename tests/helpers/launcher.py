"""Run ``striate`` in the process of the test, and configurations of short runs."""

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from striate.experiments.launcher.main import main


def run_config(
    task: str, model: dict[str, Any], data: dict[str, Any], lr: float, trainer: dict[str, Any], **task_args: Any
) -> dict[str, Any]:
    """The configuration of a short run on the CPU: a task of striate with Adam, and a data module of striate.

    Args:
        task: Name of the task.
        model: Class path and arguments of the model.
        data: Name of the data module, as ``class``, and its arguments.
        lr: Learning rate.
        trainer: Arguments of the trainer.
        task_args: Further arguments of the task.
    """
    optimizer = {"class_path": "torch.optim.Adam", "init_args": {"lr": lr}}
    arguments = {name: value for name, value in data.items() if name != "class"}
    quiet = {"accelerator": "cpu", "log_every_n_steps": 1, "enable_progress_bar": False}
    return {
        "model": {
            "class_path": f"striate.tasks.{task}",
            "init_args": {"model": model, "optimizer": optimizer, **task_args},
        },
        "data": {"class_path": f"striate.datamodules.{data['class']}", "init_args": {**arguments, "num_workers": 0}},
        "trainer": {**quiet, **trainer},
        "wandb": {"mode": "off"},
    }


CLASSIFICATION = run_config(
    "Classification",
    {"class_path": "striate.tests.helpers.fixtures.TinyNet", "init_args": {"num_classes": 2, "width": 8}},
    {"class": "ImageFolder", "root": "data", "val_fraction": 0.25, "batch_size": 4},
    lr=0.05,
    trainer={"max_epochs": 3},
)


def workdir_with(**configs: dict[str, Any]) -> Any:
    """A fixture ``workdir`` that has a YAML file for each configuration, by name."""

    @pytest.fixture(name="workdir")
    def fixture(workdir: Path) -> Path:
        for name, config in configs.items():
            (workdir / f"{name}.yaml").write_text(yaml.safe_dump(config))
        return workdir

    return fixture


def launch(*arguments: Any) -> None:
    """Run ``striate`` with these arguments."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["striate", *map(str, arguments)])
        main()


def launch_error(capsys: pytest.CaptureFixture[str], code: int, *arguments: Any) -> str:
    """Run ``striate`` with arguments that it must reject, and return its one-line message.

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
    assert message.startswith("striate: ") and "Traceback" not in output, output
    return message.removeprefix("striate: ")


def fit_and_resume(config: str, root: Path) -> Path:
    """Train two epochs, once interrupted after the first and once not; the weights must be equal.

    Args:
        config: Name of the configuration in the working folder.
        root: The working folder.

    Returns:
        The folder of the resumed run.
    """
    launch("fit", "--config", f"{config}.yaml", "--trainer.max_epochs", 1)
    launch("fit", "--config", f"{config}.yaml", "--ckpt_path", "last")
    launch("fit", "--config", f"{config}.yaml", "--run.name", "whole")
    folders = [root / "runs" / name / "fit-1" for name in (config, "whole")]
    resumed, whole = (
        torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for folder in folders
    )
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[key], whole[key]) for key in whole)
    return folders[0]


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file with a header."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
