"""The source tree as a whole: imports, sizes, docstrings, the cost of an import, and every packaged experiment."""

import configparser
import re
import subprocess
import sys

import pytest
import pytorch_lightning as pl
import yaml

from striate.experiments.launcher.catalogue import EXPERIMENTS, experiment_names
from striate.models import skip_pretrained

from .helpers import house
from .helpers.networks import quick_initialization

ROOT = house.ROOT
MODULES = house.modules()
TESTS = house.modules_below(ROOT / "tests", "striate.tests")
# each part, and what it may import of the others
MAY_IMPORT = {
    "models": set(),
    "datamodules": set(),
    "tasks": {"models", "datamodules"},
    "callbacks": {"tasks", "datamodules"},
    "experiments": {"models", "datamodules", "tasks", "callbacks"},
}

SHORT_DOCSTRINGS_ALLOWED = 20


def imported(module):
    """Full names of all modules that a module imports from."""
    return {base for base, _ in house.imports(module)}


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_point_upward_only(part):
    for module in MODULES:
        if module.name.split(".")[1:2] != [part]:
            continue
        for name in imported(module):
            if name.startswith("striate."):
                other = name.split(".")[1]
                assert other in {part, *MAY_IMPORT[part]} or other not in MAY_IMPORT, f"{module.name} imports {name}"


def test_no_circle_of_imports():
    circle = house.find_circle(house.import_graph(MODULES))
    assert not circle, " -> ".join(circle)


def test_imported_modules_exist():
    """Imports in functions too, which importing the module would not run."""
    existing = {module.name for module in [*MODULES, *TESTS]}
    for module in [*MODULES, *TESTS]:
        unknown = {name for name in imported(module) if name.split(".")[0] == "striate"} - existing
        assert not unknown, f"{module.name} imports {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("name", ["pytorch_lightning", "lightning", "wandb", "striate.datamodules"])
def test_models_are_plain_pytorch(name):
    for module in MODULES:
        if module.name.startswith("striate.models"):
            assert not any(base == name or base.startswith(f"{name}.") for base in imported(module)), module.name


def test_data_modules_do_not_import_wandb():
    data = [module for module in MODULES if module.name.startswith("striate.datamodules")]
    assert not any(base.startswith("wandb") for module in data for base in imported(module))


def test_only_three_files_lie_at_the_top_of_datamodules():
    assert {path.stem for path in (ROOT / "datamodules").glob("*.py")} == {"__init__", "base", "batches"}


def test_test_modules_do_not_import_each_other():
    """Scripts inside strings count too; a test may import from itself there."""
    for module in TESTS:
        for base, name in re.findall(r"from (\S*?)\.?(test_\w+) import|import \S*\btest_\w+", module.text):
            assert name == module.path.stem and base, f"{module.name} imports {name}"


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {module.name for module in MODULES if module.path.name == "__init__.py"} - {"striate.benchmarks"}
    assert set(config["options"]["packages"].split()) == packages


def test_make_check_types_every_part():
    """Every part but the tests, the benchmarks too."""
    parts = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert parts == set(re.findall(r"-p striate\.(\w+)", (ROOT / "Makefile").read_text())) >= {"benchmarks"}


def test_private_names_of_third_parties_stay_in_compat():
    assert not house.foreign_private_names(MODULES), "move these into a module named compat"


def test_no_function_has_more_than_60_lines_and_no_file_more_than_400():
    assert house.long_functions(MODULES) == house.long_files(MODULES) == []


def test_docstrings_say_something():
    found = house.short_docstrings(MODULES)
    assert len(found) <= SHORT_DOCSTRINGS_ALLOWED, found


def test_tensor_functions_state_a_shape():
    shapeless = [name for name, stated in house.tensor_functions(MODULES).items() if not stated]
    assert not shapeless


class TestTheChecks:
    """The checks above find what they look for."""

    @staticmethod
    def package(folder, **files):
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        return house.modules_below(folder, "striate.part")

    def test_circles(self, tmp_path):
        modules = self.package(
            tmp_path,
            __init__="from .a import one\n__all__ = ['one']\n",
            a="def one():\n    from .b import two\n",
            b="from . import one\n",  # the function, from the package
            c="from . import a\n",  # the module
        )
        graph = house.import_graph(modules)
        assert graph["striate.part.c"] == {"striate.part.a"} and graph["striate.part.b"] == {"striate.part"}
        circle = house.find_circle(graph)
        assert circle == ["striate.part", "striate.part.a", "striate.part.b", "striate.part"]
        assert house.find_circle(graph | {"striate.part.a": set()}) == []

    def test_private_names(self, tmp_path):
        text = """
from torch._dynamo import config
from torch.nn import Module
def own(thing: Module):
    thing._own = 3
    getattr(thing, "_buffers")
    return thing._mine, thing._replace()
class _Mine:
    def __init__(self):
        self._mine = 3
"""
        modules = self.package(tmp_path, a=text, compat=text)
        # an attribute that is set on another object is no name of our own
        assert house.foreign_private_names([m for m in modules if m.name.endswith("compat")]) == set()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(house, "_overridden", lambda module: set())
            found = house.foreign_private_names(modules)
        assert found == {("striate.part.a", name) for name in ("_dynamo", "_own", "_buffers")}

    def test_overridden_private_names(self):
        # one from the body of the class, one that a method sets
        assert {"_call_batch_hook", "_trainer"} <= house.private_attributes(pl.LightningModule)

    def test_sizes_and_shapes(self, tmp_path):
        body = "    x += 1\n" * 61
        text = f"""
def long(x):
{body}

def documented(images: Tensor) -> None:
    \"\"\"Draw images ``[B, 3, H, W]`` side by side.\"\"\"

def bare(images: Tensor) -> None:
    \"\"\"Draw.\"\"\"

def _commented(images: "Tensor | None") -> None:
    pass  # [B, 3, H, W]

def typed(losses: dict[str, Tensor]) -> None: ...
"""
        (module,) = self.package(tmp_path, a=text)
        assert house.long_functions([module]) == ["striate.part.a.long: 62 lines"]
        assert house.short_docstrings([module]) == ["striate.part.a.bare: Draw."]
        stated = {name.split(":")[0].split(".")[-1]: ok for name, ok in house.tensor_functions([module]).items()}
        assert stated == {"documented": True, "bare": False, "_commented": True}
        assert house.small_helpers([module]) == []


def modules_after(code):
    """Names of the modules that a new process has imported after running some code."""
    code = f"import sys; {code}; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.strip().splitlines()[-1].split())


def test_importing_striate_is_light():
    assert not {"torch", "numpy", "yaml", "pytorch_lightning"} & modules_after("import striate")


@pytest.mark.parametrize(
    "command",
    ["--version", "experiments", "experiments quickstart", "--help", "fit --help", "data", "data show --help"],
)
def test_commands_that_only_print_need_no_torch(command):
    loaded = modules_after(f"from striate.experiments.launcher.main import main; main({command.split()!r})")
    assert not {"torch", "pytorch_lightning", "numpy", "jsonargparse"} & loaded


@pytest.mark.parametrize("name", experiment_names())
def test_every_experiment_has_a_complete_header(name):
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
    # no downloads, and no initialization, which would take longer than all the rest
    with skip_pretrained(), quick_initialization():
        cli.launch()
    (made,) = built
    assert type(made.model).__name__ == config["model"]["class_path"].rsplit(".", 1)[1]
    assert made.trainer.max_epochs == config["trainer"]["max_epochs"]
    optimizer = made.model.optimizer(made.model.parameter_groups())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == sum(
        parameter.requires_grad for parameter in made.model.model.parameters()
    )
