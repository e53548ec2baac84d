"""The report at the end of a sweep: table, best command line, ``best.yaml``, pictures and page."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ..runs.differences import short_names, show
from ..runs.page import render_page
from .charts import Axis, better, draw_importances, draw_parallel_coordinates, make_axes
from .results import (
    Result,
    best_result,
    collect,
    importances,
    varied,
    write_best,
    write_table,
)
from .spec import Metric
from .study import SharedStudy

MAX_ROWS = 30
"""Number of trials in the table of the terminal; the files hold all."""


def write_report(shared: SharedStudy) -> None:
    """Print the table and the best command line, and write the files of the report to the folder of the sweep."""
    results = collect(shared)
    metric, folder = shared.sweep.metric, shared.folder
    if not results:
        return
    write_table(results, folder / "trials.csv", metric.name)
    files = ["trials.csv"]
    drawn = [result for result in results if result.best is not None and result.state in ("finished", "stopped early")]
    names = varied(drawn)
    shares = importances(shared)
    best = best_result(results)
    axes = make_axes(drawn, shared.sweep.parameters, names, metric.name) if len(drawn) > 1 and names else []
    if best is not None and write_best(best, metric.name, folder / "best.yaml"):
        files.append("best.yaml")
    if shares:
        draw_importances(shares, metric.name, folder / "importance.png")
        files.append("importance.png")
    if axes:
        draw_parallel_coordinates(axes, drawn, metric.goal, folder / "parallel_coordinates.png")
        files.append("parallel_coordinates.png")
    page = make_page(shared.study.study_name, results, drawn, axes, shares, metric)
    (folder / "report.html").write_text(page, encoding="utf-8")
    print_report(results, best, metric, folder, [*files, "report.html"])


def print_report(
    results: Sequence[Result], best: Result | None, metric: Metric, folder: Path, files: Sequence[str]
) -> None:
    """Print the table of trials, the files and the best command line."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    names = varied(results)
    short = short_names(names)
    table = Table(header_style="bold")
    for title in ("trial", "state", metric.name, "at", *(short[name] for name in names), "time"):
        table.add_column(title, justify="left" if title == "state" else "right", overflow="fold")
    for one in results[:MAX_ROWS]:
        values = [show(one.values.get(name, "")) for name in names]
        at = "" if one.position is None else f"{one.position}/{one.logged}"
        seconds = "" if one.seconds is None else f"{one.seconds:.0f} s"
        best_value = "" if one.best is None else f"{one.best:.4g}"
        row = [str(one.number), one.state, best_value, at, *values, seconds]
        table.add_row(*map(Text, row), style="bold green" if one is best else None)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    lines = [f"{len(results) - MAX_ROWS} more trials in trials.csv"] if len(results) > MAX_ROWS else []
    lines += [f"trial {one.number} failed: {one.error}" for one in results if one.error]
    lines.append(f"Files in {display(folder)}/: {', '.join(files)}")
    if best is not None:
        lines.append(
            f"Best: trial {best.number}, {metric.name} {best.best:.4g}, in {display(best.folder)}. To repeat it:"
        )
        lines.append(f"    {best.command}")
        if "best.yaml" in files:
            lines.append(f"or: striate fit --config {shlex.quote(str(display(folder) / 'best.yaml'))}")
    console.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def display(path: Path) -> Path:
    """A path relative to the working folder, if it is inside."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def make_page(
    name: str,
    results: Sequence[Result],
    drawn: Sequence[Result],
    axes: Sequence[Axis],
    shares: dict[str, float],
    metric: Metric,
) -> str:
    """A page with the parallel coordinates, the importances and all trials, that needs no other file.

    Args:
        name: Name of the sweep.
        results: All trials.
        drawn: Those with a line in the plot.
        axes: The axes of the plot.
        shares: Importance of the parameters.
        metric: The metric.
    """
    names = list(dict.fromkeys(name for one in results for name in one.values))
    rows = [
        {
            "trial": one.number,
            "state": one.state,
            "best": one.best,
            "values": [show(one.values.get(name, "")) for name in names],
            "folder": str(one.folder),
            "command": one.command,
            "error": one.error,
        }
        for one in results
    ]
    lines = [
        {
            "trial": one.number,
            "stopped": one.state == "stopped early",
            "points": [axis.positions[place] for axis in axes],
            "goodness": better(axes[-1].positions[place], metric.goal),
        }
        for place, one in enumerate(drawn)
        if axes
    ]
    data = {
        "metric": metric.name,
        "names": names,
        "rows": rows,
        "axes": [{"title": axis.title, "ticks": list(axis.ticks)} for axis in axes],
        "lines": lines,
        "importances": [[key, share] for key, share in shares.items()],
    }
    return render_page(Path(__file__).with_name("report.html"), data, title=name)
