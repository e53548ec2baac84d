"""The runs below a folder, as a table for the terminal and as JSON."""

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from .differences import MISSING, differing_keys, short_names, show, without_details
from .reading import RunInfo

MAX_TRIALS = 6
"""A sweep with more trials has one row in the table of all runs; ``striate runs NAME`` lists its trials."""

MAX_DIFFERENCES = 6
"""Number of differing keys in a row of the table; JSON has all."""

COLORS = {"running": "cyan", "finished": "green", "interrupted": "yellow", "failed": "red", "unknown": "dim"}


def baselines(runs: Sequence[RunInfo]) -> dict[tuple[str, str], RunInfo]:
    """The first run of each experiment, sweep and command that has a configuration, by `RunInfo.group`."""
    first: dict[tuple[str, str], RunInfo] = {}
    for run in runs:
        if run.config:
            first.setdefault(run.group, run)
    return first


def differences(run: RunInfo, first: RunInfo | None) -> dict[str, Any]:
    """The values of a run for the keys in which its configuration differs from another one; None: it has no such key."""
    if first is None or not run.config:
        return {}
    return {key: run.flat.get(key) for key in differing_keys([first.flat, run.flat])}


def describe_differences(run: RunInfo, first: RunInfo | None) -> str:
    """The differences as one line, such as ``lr 0.1, backbone ResNet``."""
    found = differences(run, first)
    keys = without_details(list(found))
    short = short_names(keys)
    words = [f"{short[key]} {show(found[key]) if key in run.flat else MISSING}" for key in keys[:MAX_DIFFERENCES]]
    more = [f"{len(keys) - MAX_DIFFERENCES} more"] if len(keys) > MAX_DIFFERENCES else []
    return ", ".join(words + more)


def as_json(runs: Sequence[RunInfo]) -> str:
    """All runs as a list of objects."""
    first = baselines(runs)
    entries = []
    for run in runs:
        name, mode = run.monitor
        best = run.best
        entries.append(
            {
                "run": run.name,
                "folder": str(run.folder),
                "experiment": run.experiment,
                "number": run.number,
                "sweep": run.sweep or None,
                "state": run.state.state,
                "error": run.state.error or None,
                "epochs": run.epochs,
                "max_epochs": run.max_epochs,
                "monitor": name or None,
                "mode": mode if name else None,
                "best": best.value if best else None,
                "best_epoch": best.epoch if best else None,
                "best_step": best.step if best else None,
                "seconds": run.state.seconds,
                "started": run.state.started,
                "differences": differences(run, first.get(run.group)),
                "notes": run.notes or None,
                "problems": list(run.problems),
            }
        )
    return json.dumps(entries, indent=1, ensure_ascii=False, default=str)


def print_table(runs: Sequence[RunInfo], expanded: bool) -> None:
    """Print one row per run.

    Args:
        runs: The runs, in the order of the rows.
        expanded: List the trials of large sweeps too, instead of one row per sweep.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = list(table_rows(runs, expanded))
    titles = ("run", "state", "epochs", "best", "at epoch", "time", "differs from the first", "notes")
    shown = [place for place in range(len(titles)) if any(row[place] for row in rows)]
    table = Table(header_style="bold")
    for place in shown:
        numeric = titles[place] in ("epochs", "at epoch", "time")
        table.add_column(titles[place], justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        style = COLORS.get(row[1], "")
        table.add_row(*(Text(row[place], style=style if place == 1 else "") for place in shown))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    lines = [f"{run.name}: {run.state.error}" for run in runs if run.state.error]
    lines += [f"{run.name}: {problem}" for run in runs for problem in run.problems]
    if lines:
        console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def table_rows(runs: Sequence[RunInfo], expanded: bool) -> Iterator[tuple[str, ...]]:
    """The rows of the table as texts; see `print_table`."""
    first = baselines(runs)
    trials = Counter(run.sweep for run in runs if run.sweep)
    done: set[str] = set()
    for run in runs:
        if not expanded and trials[run.sweep] > MAX_TRIALS:
            if run.sweep not in done:
                done.add(run.sweep)
                yield sweep_row([other for other in runs if other.sweep == run.sweep], first)
            continue
        epochs = "" if run.epochs is None else f"{run.epochs}/{run.max_epochs}" if run.max_epochs else str(run.epochs)
        difference = describe_differences(run, first.get(run.group))
        time = duration(run.state.seconds)
        yield (run.name, run.state.state, epochs, best_text(run), best_epoch(run), time, difference, run.notes)


def sweep_row(trials: Sequence[RunInfo], first: dict[tuple[str, str], RunInfo]) -> tuple[str, ...]:
    """One row for all trials of a sweep, with the best value of all."""
    states = Counter(run.state.state for run in trials)
    best = best_run(trials)
    seconds = [run.state.seconds for run in trials if run.state.seconds is not None]
    return (
        f"{trials[0].sweep} ({len(trials)} trials)",
        ", ".join(f"{count} {state}" for state, count in states.items()),
        "",
        best_text(best) if best else "",
        best_epoch(best) if best else "",
        duration(sum(seconds) if seconds else None),
        f"best: {best.experiment.rpartition('/')[2]}, {describe_differences(best, first.get(best.group))}" if best else "",
        "",
    )


def best_run(runs: Sequence[RunInfo]) -> RunInfo | None:
    """The run with the best value of the metric that the first of them monitors; None if no run has one."""
    scored = [run for run in runs if run.best is not None]
    scored = [run for run in scored if run.monitor == scored[0].monitor]
    if not scored:
        return None
    sign = -1 if scored[0].monitor[1] == "max" else 1
    return min(scored, key=lambda run: sign * run.best.value)  # type: ignore[union-attr]


def best_text(run: RunInfo) -> str:
    """The best value of the monitored metric with its name, such as ``val/acc 0.9712``."""
    return f"{run.monitor[0]} {run.best.value:.4g}" if run.best else ""


def best_epoch(run: RunInfo) -> str:
    """The epoch of the best value, counted from 0 as in files and metrics; only training has epochs."""
    return str(run.best.epoch) if run.best and run.best.epoch is not None and run.command == "fit" else ""


def duration(seconds: float | None) -> str:
    """A time in the two largest units, such as ``2 h 05 min``; empty for None.

    >>> duration(7.4), duration(75), duration(7500), duration(200000)
    ('7 s', '1 min 15 s', '2 h 05 min', '2 d 07 h')
    """
    if seconds is None:
        return ""
    whole = round(seconds)
    for size, small, unit, below in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // small:02d} {below}"
    return f"{whole} s"
