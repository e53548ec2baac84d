"""A sweep file of W&B: read and checked as a whole before anything runs."""

import itertools
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from ..launcher.messages import did_you_mean
from .hyperband import Hyperband, read_early_termination
from .parameters import Parameter, check_grid, is_number, read_parameters

KEYS = (
    "program",
    "command",
    "method",
    "metric",
    "parameters",
    "early_terminate",
    "run_cap",
    "name",
    "description",
    "project",
    "entity",
    "controller",
    "apiVersion",
    "kind",
)
"""Keys of a sweep file. W&B's keys for other schedulers and for jobs are not among them."""

METHODS = ("grid", "random", "bayes")

METRIC_KEYS = ("name", "goal", "target", "impute", "impute_while_running")

DEFAULT_COMMAND = ("${env}", "${interpreter}", "${program}", "${args}")
"""The command of W&B for a file without one."""

COMPARED = ("method", "metric", "parameters", "early_terminate", "command", "program")
"""Keys that must not change while a sweep runs."""


@dataclass(frozen=True)
class Metric:
    """The metric by which trials are compared.

    Attributes:
        name: Its name, such as ``val/acc``.
        goal: Whether more or less is better.
        target: The sweep starts no further trial when one has reached this value.
    """

    name: str
    goal: Literal["minimize", "maximize"]
    target: float | None = None

    @property
    def sign(self) -> int:
        """Factor that makes less better: -1 if the metric is maximized."""
        return -1 if self.goal == "maximize" else 1

    def best(self, values: Mapping[int, float]) -> tuple[int, float] | None:
        """Index and value of the best of logged values, the first of equal ones; None without any."""
        return min(values.items(), key=lambda item: (self.sign * item[1], item[0]), default=None)

    def reaches_target(self, value: float) -> bool:
        """Whether a value is at least as good as the target."""
        return self.target is not None and self.sign * value <= self.sign * self.target


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
        path: Its file.
        content: The content of the file, as W&B gets it.
        method: ``grid``, ``random`` or ``bayes``.
        metric: The metric by which trials are compared.
        parameters: The parameters, sorted by name.
        early: Early termination; None: there is none.
        command: Words of the command line of a trial, with the placeholders of W&B.
        run_cap: Largest number of trials; None: not limited.
    """

    path: Path
    content: Mapping[str, Any]
    method: str
    metric: Metric
    parameters: tuple[Parameter, ...]
    early: Hyperband | None
    command: tuple[str, ...]
    run_cap: int | None

    def grid(self) -> list[dict[str, Any]]:
        """All points of a grid search: the first parameter by name changes slowest, as with W&B."""
        values = [parameter.grid() for parameter in self.parameters]
        check_grid(math.prod(map(len, values)))
        names = [parameter.name for parameter in self.parameters]
        return [dict(zip(names, point, strict=True)) for point in itertools.product(*values)]

    def constants(self) -> set[str]:
        """Names of the parameters with one value."""
        return {parameter.name for parameter in self.parameters if parameter.distribution == "constant"}

    def identity(self) -> dict[str, Any]:
        """Settings that must be the same in all processes that share a study, as plain values."""
        return {key: self.content[key] for key in COMPARED if key in self.content}


def read_sweep(path: Path) -> Sweep:
    """Read a sweep file.

    Raises:
        ValueError: Something in the file is wrong; the message is one line.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"not valid YAML ({' '.join(str(error).split())})") from error
    if not isinstance(content, dict):
        raise ValueError(f"must map keys to values, got {type(content).__name__}; see docs/sweeps.md")
    if "model" in content and "method" not in content:
        raise ValueError("is an experiment, not a sweep; a sweep has method, metric, parameters and command")
    for key in content:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS, otherwise=f"; use {', '.join(KEYS[:7])}")
            raise ValueError(f"{key}: no such key of a sweep{hint}")
    method = content.get("method")
    if method not in METHODS:
        hint = did_you_mean(str(method), METHODS)
        raise ValueError(f"method: must be one of {', '.join(METHODS)}, got {method!r}{hint}")
    if "parameters" not in content:
        raise ValueError("parameters: missing; name the keys to search, such as model.optimizer.lr")
    cap = content.get("run_cap")
    if cap is not None and (not isinstance(cap, int) or isinstance(cap, bool) or cap < 1):
        raise ValueError(f"run_cap: must be a whole number of at least 1, got {cap!r}")
    metric = read_metric(content.get("metric"))
    parameters = tuple(read_parameters(content["parameters"]))
    early = read_early_termination(content.get("early_terminate"))
    sweep = Sweep(path, content, method, metric, parameters, early, read_command(content), cap)
    if method == "grid":
        sweep.grid()
    return sweep


def read_metric(content: Any) -> Metric:
    """Read the section ``metric``.

    Raises:
        ValueError: Something in the section is wrong; the message is one line.
    """
    if not isinstance(content, Mapping) or not isinstance(content.get("name"), str):
        raise ValueError(
            f"metric: must have a name and a goal, got {content!r}; for accuracy write "
            "metric: {name: val/acc, goal: maximize}"
        )
    for key in content:
        if key not in METRIC_KEYS:
            hint = did_you_mean(str(key), METRIC_KEYS, otherwise="; use name, goal and target")
            raise ValueError(f"metric: no such key, got {key!r}{hint}")
    goal = content.get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise ValueError(f"metric.goal: must be minimize or maximize, got {goal!r}")
    target = content.get("target")
    if target is not None and not is_number(target):
        raise ValueError(f"metric.target: must be a number, got {target!r}")
    return Metric(content["name"], goal, target)


def read_command(content: Mapping[str, Any]) -> tuple[str, ...]:
    """The words of the command line of a trial.

    Raises:
        ValueError: There is neither a command nor a program, or the command does not take the parameters.
    """
    command = content.get("command", DEFAULT_COMMAND)
    if "command" not in content and "program" not in content:
        raise ValueError(
            'command: missing; write command: ["${env}", striate, fit, --config, FILE, "${args}"] and program: striate'
        )
    if not isinstance(command, list | tuple) or not command:
        raise ValueError(f"command: must be a list of words, got {command!r}")
    words = tuple(str(word) for word in command)
    if not any(re.fullmatch(r"\$\{args\w*\}", word) for word in words):
        raise ValueError('command: has no place for the parameters; end it with "${args}"')
    return words


def fill_command(sweep: Sweep, values: Mapping[str, Any], interpreter: str) -> list[str]:
    """The command line of a trial, as W&B's agent builds it; nested parameters are dotted keys.

    Args:
        sweep: The sweep.
        values: Values of its parameters, by name.
        interpreter: Path of Python, with which ``striate`` runs too.

    Raises:
        ValueError: The command has an unknown placeholder.
    """
    import json

    flags = [f"--{name}={value}" for name, value in values.items()]
    places = {
        "env": [] if os.name == "nt" else ["/usr/bin/env"],
        "interpreter": [interpreter],
        "program": [str(sweep.content.get("program", "striate"))],
        "args": flags,
        "args_no_hyphens": [flag[2:] for flag in flags],
        "args_no_equals": [word for name, value in values.items() for word in (f"--{name}", str(value))],
        "args_no_boolean_flags": [
            f"--{name}" if value is True else f"--{name}={value}"
            for name, value in values.items()
            if value is not False
        ],
        "args_json": [json.dumps(dict(values))],
    }
    words: list[str] = []
    for word in sweep.command:
        word = re.sub(r"\$\{envvar:(\w+)\}", lambda match: os.environ.get(match[1], match[1]), word)
        name = re.fullmatch(r"\$\{(\w+)\}", word)
        if name is not None and name[1] not in places:
            raise ValueError(f"command: unknown placeholder, got {word}; use one of {', '.join(places)}")
        words += places[name[1]] if name else [word]
    first = 1 if words[:1] == ["/usr/bin/env"] else 0
    if words[first : first + 1] == ["striate"]:  # that of this installation, wherever the PATH leads
        words[first : first + 1] = [interpreter, "-m", "striate"]
    return words
