"""The documentation runs: doctests, and the code blocks of README and docs."""

import doctest
import importlib
import pkgutil
import re
import shlex
import sys
import typing
from pathlib import Path

import pytest
import yaml

import striate
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import launch, run_config
from striate.tests.helpers.run_folders import make_run

ROOT = Path(striate.__file__).parent
PARTS = ("models", "datamodules", "tasks", "callbacks", "experiments")


def modules():
    for part in PARTS:
        package = importlib.import_module(f"striate.{part}")
        yield package.__name__
        yield from (module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))


@pytest.mark.parametrize("name", list(modules()))
def test_doctests(name):
    result = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def recipes(folder):
    names = {path.stem for path in (ROOT / "experiments" / folder).glob("*.yaml")}
    assert names
    return names


def test_every_segmentation_network_and_recipe_is_documented():
    from striate.models import segmentation

    text = (ROOT / "docs" / "segmentation.md").read_text(encoding="utf-8")
    networks = {name for name in segmentation.__all__ if hasattr(getattr(segmentation, name), "forward")}
    networks &= set(striate.models.__all__)
    assert "FCN8s" in networks
    named = networks | recipes("semantic_segmentation")
    assert not [name for name in named if f"`{name}" not in text and "FullyConv" not in name]


def test_every_detector_and_recipe_is_documented():
    from striate.models import Detector, detection

    text = (ROOT / "docs" / "detection.md").read_text(encoding="utf-8")
    exported = {name: getattr(detection, name) for name in detection.__all__}
    detectors = {name for name, cls in exported.items() if isinstance(cls, type) and issubclass(cls, Detector)}
    assert {"SSD300", "YOLOv1"} < detectors <= set(striate.models.__all__)
    assert not [name for name in detectors | recipes("detection") if f"`{name}`" not in text]


@pytest.mark.parametrize("folder", ["classification", "localization"])
def test_every_recipe_of_classes_is_documented(folder):
    text = "".join(path.read_text(encoding="utf-8") for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
    assert not [name for name in recipes(folder) if f"{name}`" not in text]


def test_every_key_of_every_batch_is_documented():
    from striate.datamodules import batches

    documented, current = {}, None
    for line in (ROOT / "docs" / "python.md").read_text(encoding="utf-8").splitlines():
        if match := re.match(r"\| (`\w+`)? ?\| (`\w+`(?:, `\w+`)*) \| .+\|$", line):
            current = match[1].strip("`") if match[1] else current
            documented.setdefault(current, set()).update(re.findall(r"\w+", match[2]))
    types = {name: value for name, value in vars(batches).items() if typing.is_typeddict(value)}
    assert len(types) == 8
    assert documented == {name: set(typing.get_type_hints(value)) for name, value in types.items()}


def test_the_reference_lists_every_public_name_once():
    """`make docs`, a step of CI, builds the pages; here their lists are compared with what the packages export."""
    pytest.importorskip("mkdocs")
    pages = importlib.import_module("striate.docs.site_pages")
    listed = [name for _, names in pages.reference_pages().values() for name in names]
    assert len(set(listed)) == len(listed)
    found = {}
    for path in listed:
        package, _, name = path.rpartition(".")
        found.setdefault(name, []).append(getattr(importlib.import_module(package), name))
    packages = [importlib.import_module(name) for name in modules() if not name.startswith("striate.experiments")]
    exported = {(package.__name__, name) for package in packages for name in getattr(package, "__all__", ())}
    assert len(exported) > 250 and "FeaturePyramid" in found
    for package, name in exported:
        value = getattr(importlib.import_module(package), name)
        assert sum(value is one for one in found[name]) == 1, f"{package}.{name}"


def test_links_between_sources_become_links_between_pages():
    pages = importlib.import_module("striate.docs.site_pages")
    text = "[a](docs/data.md), [b](../README.md#x), [c](tasks/base.py), [d](CHANGELOG.md), [e](https://x.org/a.md)"
    assert pages.relinked(text) == "[a](data.md), [b](index.md#x), `c`, [d](changelog.md), [e](https://x.org/a.md)"


def blocks(language):
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for number, text in enumerate(re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)):
            yield pytest.param(text, id=f"{path.name}-{number}")


def train_quickstart(folder):
    """Write the checkpoint of a run named quickstart, of a detector that trains in a second."""
    model = {"class_path": "striate.tests.helpers.tiny_detector.TinyDetector"}
    data = {"class": "DigitScenes", "task": "detection", "image_size": 32, "train_size": 2, "val_size": 2}
    config = run_config("Detection", model, data | {"batch_size": 2}, lr=0.01, trainer={"max_epochs": 1})
    (folder / "quickstart.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    launch("fit", "--config", "quickstart.yaml")
    assert (folder / "runs/quickstart/fit-1/checkpoints/best.ckpt").is_file()


@pytest.mark.parametrize("code", list(blocks("python")))
def test_python_blocks_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", per_class=6, size=64)
    if "striate.load(" in code:
        train_quickstart(tmp_path)
    exec(compile(code, "README", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("text", list(blocks("bash")))
def test_commands_parse(text, tmp_path, monkeypatch):
    """Each ``striate`` line parses and builds its objects; it stops before training."""
    from striate.experiments.launcher import cli
    from striate.experiments.launcher.main import main
    from striate.experiments.sweep import commands

    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "photos", per_class=6)
    make_run(tmp_path / "runs/quickstart/fit-1")  # for `striate runs`
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, subcommand: None)
    monkeypatch.setattr(cli, "find_checkpoint", lambda name, root: name)
    monkeypatch.setattr(commands, "search", lambda *arguments: 0)
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0]:
            words = words[1:]
        if words[:1] != ["striate"]:
            continue
        extra = ["--wandb.mode", "off"] if len(words) > 1 and words[1] in ("fit", "validate", "test", "predict") else []
        cluster = ("--trainer.devices", "--trainer.num_nodes", "--trainer.strategy", "--trainer.precision")
        kept = [w for w, before in zip(words, ["", *words], strict=False) if w not in cluster and before not in cluster]
        monkeypatch.setattr(sys, "argv", [*kept, *extra])
        main()
