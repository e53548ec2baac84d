"""Prints the report of a check on the terminal."""

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding

from ..annotations.fault_kinds import KINDS
from .findings import Finding
from .formatting import pluralize, split_table, strip_root, verdict
from .report import Report

_COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}
EXAMPLES = 3  # findings of a kind that are listed


def print_report(report: Report, console: Console) -> None:
    """Print splits, findings by kind with the first few of each, and suggestions."""
    plain: dict[str, Any] = {"highlight": False, "soft_wrap": True}  # never break a path
    classes = pluralize(len(report.statistics.class_names), "class", "classes")
    console.print(f"[italic]{escape(report.name)}: {classes}[/]\n", **plain)
    for number, line in enumerate(_split_lines(report)):
        console.print(f"  {escape(line)}", style="dim" if number == 0 else None, **plain)
    console.print()
    for note in report.notes:
        console.print(f"  {escape(note)}", style="dim")
    for code in report.findings.codes():
        kind, count = KINDS[code], report.findings.counts[code]
        color = _COLORS[kind.severity]
        console.print(f"[bold {color}]{kind.severity:<8}[/][bold]{kind.title}: {count:,}[/]  [dim]{code}[/]", **plain)
        for finding in report.findings.of(code)[:EXAMPLES]:
            console.print(f"          {escape(_finding_line(finding, report.root))}", **plain)
        if count > EXAMPLES:
            console.print(f"          [dim]and {count - EXAMPLES:,} more[/]", **plain)
    for suggestion in report.statistics.suggestions:
        console.print(f"[bold green]suggest [/][bold]{escape(suggestion.title)}[/]", **plain)
        console.print(Padding(escape(suggestion.text), (0, 0, 0, 10)), highlight=False)
        if suggestion.yaml:
            console.print("\n".join(f"          {escape(line)}" for line in suggestion.yaml.splitlines()), **plain)
    console.print(f"[bold]{escape(verdict(report))}[/]")


def _finding_line(finding: Finding, root: object) -> str:
    root = root if finding.code != "unopened-split" else None  # the root itself may be wrong
    location = strip_root(finding.location, root)
    split = f"{finding.split}: " if finding.split and finding.split != location else ""
    return split + location + (f": {strip_root(finding.detail, root)}" if finding.detail else "")


def _split_lines(report: Report) -> list[str]:
    """The table of splits, line by line; rich's tables would truncate cells on a narrow terminal."""
    rows = split_table(report.statistics)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return lines
