"""The house: which part may import which, what import costs, and that every experiment is whole."""

import ast
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

import striate
from striate.experiments.launcher.main import EXPERIMENTS, experiment_names
from striate.models import skip_pretrained

from .helpers.networks import quick_initialisation

ROOT = Path(striate.__file__).parent
# each part, and what it may import of the others (DESIGN, "The house")
MAY_IMPORT = {
    "models": set(),
    "datamodules": set(),
    "tasks": {"models", "datamodules"},
    "callbacks": {"tasks", "datamodules"},
    "experiments": {"models", "datamodules", "tasks", "callbacks"},
}


def imports(path):
    """Modules a file imports, as dotted names from the package's root."""
    parts = path.relative_to(ROOT).parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = list(parts[: len(parts) - node.level])
            yield ".".join(["striate", *base, node.module or ""]).rstrip(".")
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_arrows_run_upward_only(part):
    for path in (ROOT / part).rglob("*.py"):
        for name in imports(path):
            if name.startswith("striate."):
                other = name.split(".")[1]
                assert other == part or other in MAY_IMPORT[part] or other not in MAY_IMPORT, f"{path} imports {name}"


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning", "wandb", "striate.datamodules"])
def test_models_are_plain_pytorch(name):
    for path in (ROOT / "models").rglob("*.py"):
        assert not any(found == name or found.startswith(f"{name}.") for found in imports(path)), path


def test_make_check_types_every_part():
    """All but the tests, the benchmarks too."""
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert parts == set(re.findall(r"-p striate\.(\w+)", (ROOT / "Makefile").read_text())) >= {"benchmarks"}


def test_data_modules_use_datasets_only_of_their_own():
    assert not any(n.startswith("wandb") for p in (ROOT / "datamodules").rglob("*.py") for n in imports(p))


def python(code):
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip(), time.perf_counter() - begun


def test_importing_striate_is_light():
    loaded, _ = python("import sys, striate; print(' '.join(sys.modules))")
    assert not {"torch", "numpy", "yaml", "pytorch_lightning"} & set(loaded.split())


def test_version_and_experiments_answer_without_torch():
    for command in ("--version", "experiments", "--help"):
        loaded, _ = python(
            "import sys; from striate.experiments.launcher.main import main; "
            f"main([{command!r}]); print(' '.join(sys.modules))"
        )
        assert not {"torch", "pytorch_lightning", "numpy"} & set(loaded.split())


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_says_what_it_is(name):
    header = []
    for line in (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        header.append(line)
    assert len(header[0]) > 20
    text = "\n".join(header)
    for word in ("Command:", "Hardware:", "Expect:"):
        assert word in text, f"{name}: its header has no {word}"
    assert f"--config {name}" in text


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_is_parsed_and_instantiated(name, tmp_path, monkeypatch):
    from striate.experiments.launcher import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, subcommand: built.append(self))
    built = []
    path = EXPERIMENTS / f"{name}.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    arguments = ["fit", "--config", str(path), "--wandb.mode", "off", "--trainer.accelerator", "cpu"]
    monkeypatch.setattr(sys, "argv", ["striate", *arguments])
    # no network, and no run before this one; drawing 140 million weights takes longer than all else
    with skip_pretrained(), quick_initialisation():
        cli.launch()
    (made,) = built
    assert type(made.model).__name__ == config["model"]["class_path"].rsplit(".", 1)[1]
    assert made.trainer.max_epochs == config["trainer"]["max_epochs"]
    optimizer = made.model.optimizer(made.model.parameter_groups())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == sum(
        parameter.requires_grad for parameter in made.model.model.parameters()
    )
