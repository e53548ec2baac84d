"""Class paths outside the trusted packages are refused before anything of theirs is imported."""

import os
from pathlib import Path

import pytest
import torch
import yaml

import striate
from striate.experiments.launcher.trust import take_trusted_modules
from striate.tasks import Classification
from striate.tasks.trusted_modules import VARIABLE, is_trusted, trust_only
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error

NET = """
import pathlib
pathlib.Path("has run").touch()
from striate.tests.helpers.fixtures import TinyNet as Net
"""

TRUSTED = ["--trusted_modules", "striate,torch,pytorch_lightning"]


@pytest.fixture
def small(workdir):
    """A working folder with ``small.yaml`` and with ``elsewhere.py``, whose import leaves a file."""
    make_folder(workdir / "data", per_class=8)
    (workdir / "small.yaml").write_text(yaml.safe_dump(CLASSIFICATION))
    (workdir / "elsewhere.py").write_text(NET)
    return workdir


def changed(section, value):
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    config["model"]["init_args"][section] = value
    Path("changed.yaml").write_text(yaml.safe_dump(config))


def test_a_configuration(small, capsys):
    changed("model", {"class_path": "elsewhere.Net", "init_args": {"num_classes": 2}})
    for arguments in (["changed.yaml"], ["small.yaml", "--model.model", "elsewhere.Net"]):
        message = launch_error(capsys, 2, "fit", "--config", *arguments, *TRUSTED)
        assert "elsewhere.Net" in message and "trusted_modules" in message, message
        assert not Path("has run").exists()
    assert VARIABLE not in os.environ
    launch("fit", "--config", "changed.yaml", "--trainer.max_epochs", 1, *TRUSTED[:1], f"{TRUSTED[1]},elsewhere")
    assert Path("has run").exists()


@pytest.mark.parametrize("function", ["os._exit", "torch.hub.load", "torch.os._exit"])
def test_a_function(small, capsys, function):
    changed("scheduler", {"class_path": "torch.optim.lr_scheduler.LambdaLR", "init_args": {"lr_lambda": function}})
    message = launch_error(capsys, 2, "fit", "--config", "changed.yaml", *TRUSTED)
    assert message.startswith("trusted_modules: must name the package of "), message


def test_a_file_cannot_trust_itself(small, capsys):
    Path("changed.yaml").write_text(yaml.safe_dump({**CLASSIFICATION, "trusted_modules": ["os"]}))
    assert "trusted_modules" in launch_error(capsys, 2, "fit", "--config", "changed.yaml")


def test_nested_paths_of_a_checkpoint(small):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 1)
    path = Path("runs/small/fit-1/checkpoints/last.ckpt")
    assert isinstance(striate.load(path, trusted_modules=["striate", "torch"]), Classification)
    content = torch.load(path, weights_only=True)
    Path("another.py").write_text(NET)
    content["hyper_parameters"]["model"]["class_path"] = "another.Net"
    torch.save(content, path)
    with pytest.raises(ValueError, match=r"trusted_modules: must name the package of another\.Net .*last\.ckpt"):
        striate.load(path, trusted_modules=["striate", "torch"])
    with trust_only(["striate", "torch"]), pytest.raises(ValueError, match="trusted_modules: must name the package of"):
        Classification.load_from_checkpoint(path)
    assert not Path("has run").exists()
    striate.load(path)
    assert Path("has run").exists()


def test_names():
    with trust_only(["striate", "torch", "torch.hub"]):
        answers = [is_trusted(path) for path in ("torch.hub.load", "torch.load", "torchvision.ops.nms", "striate.load")]
    assert answers == [True, False, False, True] and is_trusted("os.system")
    assert take_trusted_modules(["a", "--trusted_modules=[x, 'y.z']"]) == (["x", "y.z"], ["a"])
    assert take_trusted_modules(["a", "--b"]) == (None, ["a", "--b"])
    with pytest.raises(ValueError, match="^trusted_modules: must name packages"), trust_only([""]):
        pass
    with trust_only(["striate", "torch"]):
        for names in (["os"], ["striate", "torch.hub"]):  # who is started cannot trust more than who starts it
            with pytest.raises(ValueError, match="must be among those of STRIATE_TRUSTED_MODULES"), trust_only(names):
                pass
        with trust_only(["striate.tasks"]):
            assert not is_trusted("striate.load")


def test_data_commands(workdir, capsys):
    Path("elsewhere.py").write_text("import pathlib\npathlib.Path('has run').touch()\nfrom striate import datamodules")
    transform = [{"class_path": "elsewhere.Flip"}]
    arguments = {"task": "classification", "train_size": 4, "train_transform": transform}
    data = {"class_path": "striate.datamodules.DigitScenes", "init_args": arguments}
    Path("data.yaml").write_text(yaml.safe_dump({"data": data}))
    for words in (["--config", "data.yaml"], ["elsewhere.Data"], ["--config", "data.yaml", "--data", "elsewhere.Data"]):
        for command in ("show", "check", "export"):
            message = launch_error(capsys, 2, "data", command, *words, *TRUSTED)
            assert "elsewhere." in message and "trusted_modules" in message, message
    assert not Path("has run").exists()
    message = launch_error(capsys, 2, "data", "show", "digit_scenes", "--trusted_modules", "a b")
    assert message.startswith("trusted_modules: must name packages, such as striate,torch, got 'a b'")


SWEEP = {
    "method": "grid", "metric": {"name": "val/acc", "goal": "maximize"},
    "command": ["${env}", "striate", "fit", "--config", "small.yaml", "${args}"],
}  # fmt: skip


def test_sweeps(small, capsys):
    nets = [{"class_path": "elsewhere.Net", "init_args": {"num_classes": 2}}]
    parameters = {"model.model": {"values": nets}, "trusted_modules": {"value": "striate,torch,elsewhere"}}
    for name, message in (("model.model", "elsewhere.Net"), ("trusted_modules", "must be among those of")):
        Path("sweep.yaml").write_text(yaml.safe_dump({**SWEEP, "parameters": {name: parameters[name]}}))
        with pytest.raises(SystemExit):
            launch("sweep", "sweep.yaml", "--root", name, *TRUSTED)
        line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("trial 0 failed: "))
        assert message in line and "trusted_modules" in line
    Path("sweep.yaml").write_text(
        yaml.safe_dump({**SWEEP, "command": ["touch", "has run", "${args}"], "parameters": parameters})
    )
    message = launch_error(capsys, 2, "sweep", "sweep.yaml", *TRUSTED)
    assert message.startswith("sweep.yaml: command: must be striate fit with --trusted_modules, got ")
    assert not Path("has run").exists() and VARIABLE not in os.environ
