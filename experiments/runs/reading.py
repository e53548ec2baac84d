"""What the files of a run say: its state, configuration and metrics, also of a run that was killed at any moment."""

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .differences import flatten
from .run_state import STATE_FILE, RunState

RUN_NAME = re.compile(r"(fit|validate|test|predict)-(\d+)")
"""Name of the folder of a run."""

SWEEP_NAME = re.compile(r"sweep-(\d+)")
"""Name of the folder of a sweep, with the folders of its trials in it."""

USUAL_MONITORS = ("val/mask_map", "val/map", "val/miou", "val/loc_acc", "val/acc")
"""Metrics that the tasks monitor, for runs of earlier versions; the higher, the better."""


@dataclass(frozen=True)
class Point:
    """A logged value.

    Attributes:
        step: Training step; None: not logged.
        epoch: Epoch, counted from 0; None: not logged.
        value: The value; it may be NaN or infinite.
    """

    step: int | None
    epoch: int | None
    value: float


@dataclass(frozen=True)
class RunInfo:
    """What the files of a run say.

    Attributes:
        folder: Folder of the run.
        name: Name below the root, such as ``quickstart/fit-1``.
        state: State and time.
        config: The resolved configuration; empty without a readable one.
        metrics: The values of each metric in the order in which they were logged.
        problems: Files that cannot be read, one line each.
    """

    folder: Path
    name: str
    state: RunState
    config: Mapping[str, Any]
    metrics: Mapping[str, Sequence[Point]]
    problems: Sequence[str] = field(default_factory=list)

    @property
    def experiment(self) -> str:
        """Name of the experiment or of the trial: that of the folder around the run."""
        return self.name.rpartition("/")[0]

    @property
    def number(self) -> str:
        """Command and number, such as ``fit-1``."""
        return self.folder.name

    @property
    def command(self) -> str:
        """The command that made the run, such as ``fit``."""
        return self.number.partition("-")[0]

    @property
    def sweep(self) -> str:
        """Name of the sweep that the run is a trial of, such as ``digits/sweep-1``; empty: none."""
        parts = self.name.split("/")
        places = [place for place, part in enumerate(parts[:-2]) if SWEEP_NAME.fullmatch(part)]
        return "/".join(parts[: places[-1] + 1]) if places else ""

    @property
    def group(self) -> tuple[str, str]:
        """Runs of one group are compared with its first: sweep or experiment, and command."""
        return self.sweep or self.experiment, self.command

    @cached_property
    def flat(self) -> dict[str, Any]:
        """The configuration by dotted key."""
        return flatten(self.config)

    @cached_property
    def monitor(self) -> tuple[str, str]:
        """Name and better direction of the monitored metric; the name is empty if it is not known."""
        if self.state.monitor:
            return self.state.monitor, self.state.mode
        usual = next((name for name in USUAL_MONITORS if name in self.metrics), "")
        return (usual, "max") if usual or "val/loss" not in self.metrics else ("val/loss", "min")

    @cached_property
    def best(self) -> Point | None:
        """The best value of the monitored metric, the earliest one on ties; None without one."""
        name, mode = self.monitor
        points = [point for point in self.metrics.get(name, ()) if math.isfinite(point.value)]
        sign = -1 if mode == "max" else 1
        return min(points, key=lambda point: sign * point.value, default=None)

    @property
    def epochs(self) -> int | None:
        """Number of completed epochs, as far as the files show; None for other commands than ``fit``."""
        if self.command != "fit":
            return None
        if self.state.epochs is not None:
            return self.state.epochs
        validated = [one.epoch for name, points in self.metrics.items() if name.startswith("val/") for one in points]
        begun = [one.epoch for points in self.metrics.values() for one in points if one.epoch is not None]
        ends = [epoch + 1 for epoch in validated if epoch is not None]
        return max(ends + begun, default=0)

    @property
    def max_epochs(self) -> int | None:
        """Length of the training in epochs; None: it is given in steps, or not at all."""
        value = self.setting("trainer", "max_epochs")
        return value if isinstance(value, int) and value >= 0 else None

    @property
    def notes(self) -> str:
        """The notes of ``--wandb.notes``, which the run keeps without W&B too."""
        return str(self.setting("wandb", "notes") or "")

    def setting(self, *keys: str) -> Any:
        """A value of the configuration; None if there is none."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def find_runs(root: Path) -> list[Path]:
    """The folders of all runs below a folder, in the order of their names, with numbers as numbers."""
    return sorted(_find(root), key=lambda path: natural(path.relative_to(root).as_posix()))


def _find(folder: Path) -> Iterator[Path]:
    if is_run(folder):
        yield folder
        return
    try:
        entries = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:  # no permission
        return
    for entry in entries:
        if not entry.name.startswith("."):
            yield from _find(entry)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, also of one that was killed before it wrote more than one file."""
    named = RUN_NAME.fullmatch(folder.name) is not None
    return named and any((folder / name).is_file() for name in (STATE_FILE, "config.yaml", "metrics.csv"))


def natural(name: str) -> list[tuple[str, int]]:
    """Sort key in which ``fit-10`` comes after ``fit-9``."""
    return [(text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", "/" + name)]


def read_run(folder: Path, name: str) -> RunInfo:
    """Read the files of a run. What cannot be read is a problem of the result, and no error.

    Args:
        folder: Folder of the run.
        name: Name to show.
    """
    problems: list[str] = []
    config = read_config(folder / "config.yaml", problems)
    return RunInfo(folder, name, RunState.load(folder), config, read_metrics(folder / "metrics.csv", problems), problems)


def read_config(path: Path, problems: list[str]) -> dict[str, Any]:
    """The configuration of a run; empty, with a line in `problems`, if there is none."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        config = yaml.load(path.read_text(encoding="utf-8"), loader)  # noqa: S506  # a safe loader
    except FileNotFoundError:
        problems.append("config.yaml: missing")
        return {}
    except OSError as error:
        problems.append(f"config.yaml: cannot be read ({error.strerror})")
        return {}
    except (ValueError, yaml.YAMLError) as error:
        mark = getattr(error, "problem_mark", None)
        problems.append("config.yaml: not valid YAML" + (f" in line {mark.line + 1}" if mark else ""))
        return {}
    if isinstance(config, dict) and config and is_plain(config):
        return config
    problems.append("config.yaml: empty" if not config else "config.yaml: not a configuration")
    return {}


def is_plain(config: dict[Any, Any]) -> bool:
    """Whether a configuration can be compared as text; one that contains itself by an alias of YAML cannot."""
    try:
        return bool(json.dumps(config, default=str))
    except (TypeError, ValueError, RecursionError):
        return False


def read_metrics(path: Path, problems: list[str]) -> dict[str, list[Point]]:
    """The values of each metric in the table of a run; an incomplete last line is skipped.

    Of several rows of one step, as after a repeated validation, the last one counts.
    """
    try:
        text = path.read_bytes().decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    except OSError as error:
        problems.append(f"metrics.csv: cannot be read ({error.strerror})")
        return {}
    metrics: dict[str, dict[Any, Point]] = {}
    wrong = 0
    try:
        for line, row in enumerate(csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))):
            step, epoch = (_number(row.get(name)) for name in ("step", "epoch"))
            place = (None if step is None else int(step), None if epoch is None else int(epoch))
            for name, cell in row.items():
                if not isinstance(name, str) or name in ("step", "epoch") or not cell:
                    continue
                value = _number(cell, finite=False)
                if value is None:
                    wrong += 1
                else:
                    metrics.setdefault(name, {})[line if step is None else step] = Point(*place, value)
    except csv.Error as error:
        problems.append(f"metrics.csv: not a table ({error})")
    if wrong:
        problems.append(f"metrics.csv: {wrong} cells without a number are left out")
    return {name: list(points.values()) for name, points in metrics.items()}


def _number(cell: Any, finite: bool = True) -> float | None:
    """The number in a cell of a table; None without one."""
    try:
        value = float(cell)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) or not finite else None
