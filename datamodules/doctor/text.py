"""The report on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .collecting import Report
from .findings import KINDS, Finding
from .statistics import SplitFigures
from .words import counted, relative, verdict

_COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
SHOWN = 3  # findings of a kind named on the terminal


def print_report(report: Report, console: Console) -> None:
    """Print what was found: splits, findings by kind with the first few of each, suggestions."""
    console.print(_splits(report))
    for note in report.notes:
        console.print(f"  {escape(note)}", style="dim")
    root = getattr(report.data, "root", None)
    for code in report.findings.codes():
        kind, count = KINDS[code], report.findings.counts[code]
        colour = _COLOURS[kind.severity]
        console.print(f"[bold {colour}]{kind.severity}[/]  [bold]{count:,} {kind.title}[/]  [dim]({code})[/]")
        for finding in report.findings.of(code)[:SHOWN]:
            console.print(f"    {escape(_line(finding, root))}", highlight=False)
        if count > SHOWN:
            console.print(f"    [dim]and {count - SHOWN:,} more[/]")
    for suggestion in report.statistics.suggestions:
        console.print(f"[bold green]suggestion[/]  [bold]{escape(suggestion.title)}[/]  {escape(suggestion.text)}")
        if suggestion.yaml:
            console.print(f"    {escape(suggestion.yaml)}", highlight=False, soft_wrap=True)
    console.print(f"[bold]{escape(verdict(report))}[/]")


def _line(finding: Finding, root: object) -> str:
    where = relative(finding.where, root)
    split = f"{finding.split}: " if finding.split and finding.split != where else ""
    return split + where + (f": {relative(finding.detail, root)}" if finding.detail else "")


def _splits(report: Report) -> Table:
    table = Table(
        title=f"{report.name}: {counted(len(report.statistics.class_names), 'class', 'classes')}", title_justify="left"
    )
    boxes = report.statistics.kind == "boxes"
    for heading in (
        "split",
        "images",
        "readable",
        *(("objects", "an image"), ("without objects",))[0 if boxes else 2 :],
    ):
        table.add_column(heading if isinstance(heading, str) else heading[0], justify="right")
    table.add_column("size", justify="right")
    for split in report.statistics.splits:
        row = [split.name, f"{split.images:,}", f"{split.readable:,}"]
        if boxes:
            row += [f"{split.objects:,}"]
        table.add_row(*row, size_range(split))
    return table


def size_range(split: SplitFigures) -> str:
    """The sizes of a split's images: one, or the middle one with the range."""
    if not len(split.widths):
        return "-"
    low, high = (f"{pick(split.widths)}x{pick(split.heights)}" for pick in (min, max))
    return low if low == high else f"{low} to {high}"
