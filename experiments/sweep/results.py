"""What came of a sweep: its trials in order, the best one, its command line and its configuration."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from optuna.exceptions import OptunaError
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from .parameters import label
from .study import QUANTILE, SharedStudy
from .trials import newest

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "stopped early",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running or interrupted",
}


@dataclass(frozen=True)
class Result:
    """What came of a trial.

    Attributes:
        number: Number of the trial.
        state: Its state, in words.
        best: Best value of the metric; None: it has logged none.
        position: After how many logged values the best one came, from 1.
        logged: Number of logged values.
        seconds: Time that its processes have run for; None: none has ended.
        values: Values of the parameters.
        folder: Folder of its newest run, or of the trial.
        command: Command line that repeats it.
        error: Why it has failed.
    """

    number: int
    state: str
    best: float | None
    position: int | None
    logged: int
    seconds: float | None
    values: Mapping[str, Any]
    folder: Path
    command: str
    error: str


def collect(shared: SharedStudy) -> list[Result]:
    """The results of all trials, the best first; those that failed or still run come last."""
    order = {state: place for place, state in enumerate(("finished", "stopped early", "failed"))}
    sign = shared.sweep.metric.sign

    def key(result: Result) -> tuple[int, float, int]:
        return order.get(result.state, 3), sign * (result.best or 0.0), result.number

    return sorted((result_of(shared, trial) for trial in shared.trials()), key=key)


def result_of(shared: SharedStudy, trial: FrozenTrial) -> Result:
    """The result of one trial of the study."""
    best = shared.sweep.metric.best(trial.intermediate_values)
    folder = Path(trial.user_attrs.get("folder", shared.folder / f"trial-{trial.number}"))
    config = newest(folder, "config.yaml")
    return Result(
        trial.number,
        STATES[trial.state],
        None if best is None else best[1],
        None if best is None else sorted(trial.intermediate_values).index(best[0]) + 1,
        len(trial.intermediate_values),
        trial.user_attrs.get("seconds", None if trial.duration is None else trial.duration.total_seconds()),
        trial.user_attrs.get("values", {}),
        folder if config is None else config.parent,
        trial.user_attrs.get("command", ""),
        trial.user_attrs.get("error", ""),
    )


def best_result(results: Sequence[Result]) -> Result | None:
    """The best of the finished trials, or, if none has finished, of those that were stopped early."""
    return next((one for one in results if one.state in ("finished", "stopped early") and one.best is not None), None)


def varied(results: Sequence[Result]) -> list[str]:
    """Names of the parameters that differ between trials, in the order of the first trial."""
    names = list(dict.fromkeys(name for result in results for name in result.values))
    return [name for name in names if len({label(one.values[name]) for one in results if name in one.values}) > 1]


def importances(shared: SharedStudy) -> dict[str, float]:
    """Share of each parameter in the variance of the metric, by PED-ANOVA; empty with too few finished trials."""
    if len([trial for trial in shared.trials() if trial.state == TrialState.COMPLETE]) < 4:
        return {}
    try:
        found = get_param_importances(shared.study)
    except (OptunaError, ValueError, RuntimeError, ZeroDivisionError):  # all values are equal
        return {}
    return {name.removesuffix(QUANTILE): share for name, share in found.items() if share == share}


def write_table(results: Sequence[Result], path: Path, metric: str) -> None:
    """Write one row per trial to a CSV file."""
    names = list(dict.fromkeys(name for result in results for name in result.values))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", metric, "best_after", "logged", "seconds", *names, "folder", "error"])
        for one in results:
            values = [label(one.values[name]) if name in one.values else "" for name in names]
            numbers = [one.best, one.position, one.logged, one.seconds]
            texts = ["" if number is None else number for number in numbers]
            writer.writerow([one.number, one.state, *texts, *values, one.folder, one.error])


def write_best(best: Result, metric: str, path: Path) -> bool:
    """Write the configuration of the best trial as an experiment; false if its run has none.

    The folder of the run and its W&B settings are left out, so that a launch makes an ordinary run.
    """
    source = best.folder / "config.yaml"
    if not source.is_file():
        return False
    text = source.read_text(encoding="utf-8")
    config = yaml.safe_load(text)
    for section in ("run", "wandb"):
        config.pop(section, None)
    header = f"# Best trial of a sweep: trial {best.number}, {metric} {best.best:.6g}\n# Run: {best.folder}\n"
    versions = "".join(line for line in text.splitlines(keepends=True) if line.startswith("#"))
    path.write_text(header + versions + yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return True
