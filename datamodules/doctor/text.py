"""The report on the terminal."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ..annotations.fault_kinds import KINDS
from .collecting import Report
from .findings import Finding
from .words import counted, relative, split_cells, split_headings, verdict

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
SHOWN = 3  # findings of a kind named on the terminal


def print_report(report: Report, console: Console) -> None:
    """Print what was found: splits, findings by kind with the first few of each, suggestions."""
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True}  # a path is one word, whatever the width
    classes = counted(len(report.statistics.class_names), "class", "classes")
    console.print(f"[italic]{escape(report.name)}: {classes}[/]\n", **plain)
    for number, line in enumerate(_splits(report)):
        console.print(f"  {escape(line)}", style="dim" if number == 0 else None, **plain)
    console.print()
    for note in report.notes:
        console.print(f"  {escape(note)}", style="dim")
    root = getattr(report.data, "root", None)
    for code in report.findings.codes():
        kind, count = KINDS[code], report.findings.counts[code]
        colour = _COLOURS[kind.severity]
        console.print(f"[bold {colour}]{kind.severity:<8}[/][bold]{kind.title}: {count:,}[/]  [dim]{code}[/]", **plain)
        for finding in report.findings.of(code)[:SHOWN]:
            console.print(f"          {escape(_line(finding, root))}", **plain)
        if count > SHOWN:
            console.print(f"          [dim]and {count - SHOWN:,} more[/]", **plain)
    for suggestion in report.statistics.suggestions:
        console.print(f"[bold green]suggest [/][bold]{escape(suggestion.title)}[/]", **plain)
        console.print(Padding(escape(suggestion.text), (0, 0, 0, 10)), highlight=False)
        if suggestion.yaml:
            console.print(f"          {escape(suggestion.yaml)}", **plain)
    console.print(f"[bold]{escape(verdict(report))}[/]")


def _line(finding: Finding, root: object) -> str:
    root = root if finding.code != "unopened-split" else None  # it may be the root that is wrong
    where = relative(finding.where, root)
    split = f"{finding.split}: " if finding.split and finding.split != where else ""
    return split + where + (f": {relative(finding.detail, root)}" if finding.detail else "")


def _splits(report: Report) -> list[str]:
    """The table of splits, line by line; rich's own would cut cells short on a narrow terminal."""
    rows = [split_headings(report.statistics)]
    rows += [split_cells(split, report.statistics) for split in report.statistics.splits]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
