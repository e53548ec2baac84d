"""The packaged sweeps: every value of every key is accepted by the parser and arrives where it should."""

import sys
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from striate.experiments.launcher.catalogue import EXPERIMENTS, sweep_names
from striate.experiments.launcher.class_changes import locate
from striate.experiments.sweep.spec import fill_command, read_sweep
from striate.models import skip_pretrained
from striate.tests.helpers.networks import quick_initialization


def extremes(parameter):
    """The values of a parameter, or the ends of its range."""
    if parameter.choices:
        return parameter.choices
    return [parameter.finish(parameter.quantile(share)) for share in (0.02, 0.98)]


def calls(sweep):
    """Values for as few calls as show every value of every parameter."""
    values = {parameter.name: extremes(parameter) for parameter in sweep.parameters}
    for number in range(max(map(len, values.values()))):
        yield {name: choices[number % len(choices)] for name, choices in values.items()}


def arrived(expected, found):
    """Whether a value of the configuration is that of the sweep, with defaults added to classes."""
    if isinstance(expected, dict):
        return expected.items() <= {key: found.get(key) for key in expected}.items() or all(
            arrived(value, found.get(key)) for key, value in expected.items()
        )
    if isinstance(expected, list):
        return len(expected) == len(found) and all(map(arrived, expected, found))
    if isinstance(found, dict):  # a class path alone
        return found["class_path"] == expected
    same = expected == found and (isinstance(found, bool) == isinstance(expected, bool))
    return same and (expected is None) == (found is None)


def has_nested(sweep):
    """Whether a sweep has nested parameters."""
    return any("parameters" in value for value in sweep.content["parameters"].values())


def agent_flags(sweep, values):
    """The arguments as W&B's agent writes them: a nested section is one mapping."""
    nested = {}
    for section, content in sweep.content["parameters"].items():
        inner = [name for name in values if name.startswith(f"{section}.")]
        is_nested = "parameters" in content
        nested[section] = {name[len(section) + 1 :]: values[name] for name in inner} if is_nested else values[section]
    return create_sweep_command_args({"args": {name: {"value": value} for name, value in nested.items()}})["args"]


def test_commands_are_those_of_wandbs_agent():
    for name in sweep_names():
        sweep = read_sweep(EXPERIMENTS / f"{name}.yaml")
        for values in calls(sweep):
            if not has_nested(sweep):
                words = fill_command(sweep, values, "python")[-len(values) :]
                assert sorted(words) == sorted(agent_flags(sweep, values))


@pytest.mark.parametrize("name", sweep_names())
def test_every_value_of_every_key_is_accepted(name, workdir, monkeypatch):
    from striate.experiments.launcher import cli
    from striate.experiments.launcher.main import main

    sweep = read_sweep(EXPERIMENTS / f"{name}.yaml")
    built = []
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, subcommand: built.append(self))
    for values in calls(sweep):
        words = fill_command(sweep, values, "python")
        assert words[:4] == ["/usr/bin/env", "python", "-m", "striate"]
        if has_nested(sweep):
            words[-len(values) :] = agent_flags(sweep, values)
        arguments = [*words[4:], "--wandb.mode", "off", "--trainer.accelerator", "cpu"]
        monkeypatch.setattr(sys, "argv", ["striate", *arguments])
        with skip_pretrained(), quick_initialization():
            main()
        config = built.pop().dump_config()
        for key, value in values.items():
            owner, last = locate(config, tuple(key.split(".")))
            assert arrived(value, owner[last]), f"{key}: {value!r} arrived as {owner[last]!r}"


@pytest.mark.parametrize("name", sweep_names())
def test_packaged_sweeps_run_on_wandb_as_they_are(name):
    text = (EXPERIMENTS / f"{name}.yaml").read_text()
    content = yaml.safe_load(text)
    assert content["program"] == "striate" and content["command"][-1] == "${args}"
    base = content["command"][content["command"].index("--config") + 1]
    assert (EXPERIMENTS / f"{base}.yaml").is_file()
    header = text.partition("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert f"striate sweep {name}" in header
    assert all(word in header for word in ("Base:", "Hardware:", "Expect:")) and base in header
    monitor = {"classification": "val/acc", "localization": "val/loc_acc", "semantic_segmentation": "val/miou"}
    task = base.partition("/")[0]
    assert content["metric"]["name"] in (monitor.get(task), "val/map50", "val/mask_map")


def test_there_is_a_sweep_for_each_task_and_each_method():
    sweeps = [read_sweep(EXPERIMENTS / f"{name}.yaml") for name in sweep_names()]
    tasks = {sweep.path.stem.partition("_digits")[0] for sweep in sweeps}
    assert tasks == {"classification", "localization", "semantic_segmentation", "detection", "instance_segmentation"}
    assert {sweep.method for sweep in sweeps} == {"grid", "random", "bayes"}
    assert sum(sweep.early is not None for sweep in sweeps) >= 3
    assert Path(EXPERIMENTS / "sweeps/classification_digits.yaml").is_file()
