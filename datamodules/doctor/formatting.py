"""Wording that the report on the terminal and the page share."""

import os
import re
from pathlib import Path

from .report import Report
from .statistics import SplitStatistics, Statistics


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """Format a count with its noun: ``1 image``, ``2 images``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def strip_root(text: str, root: object) -> str:
    """Remove the data set's folder from the paths in a text.

    >>> strip_root("/data/set/a.jpg: looks like set/b.jpg and preset/c.jpg", "/data/set")
    'a.jpg: looks like set/b.jpg and preset/c.jpg'
    """
    if not isinstance(root, str | Path):
        return text
    for folder in (os.path.abspath(root), str(root)):  # noqa: PTH100
        if folder not in ("", ".", os.sep):
            text = re.sub(rf"(?<![\w/.-]){re.escape(folder.rstrip(os.sep) + os.sep)}", "", text)
    return text


def verdict(report: Report) -> str:
    """Summarize the outcome in one line."""
    counts = [(report.findings.total(severity), severity) for severity in ("error", "warning", "note")]
    summary = ", ".join(pluralize(count, name) for count, name in counts if count)
    readable = sum(split.readable for split in report.statistics.splits)
    total = sum(split.images for split in report.statistics.splits)
    images = pluralize(readable, "image")
    if report.interrupted:
        return f"Interrupted after {images} of {total:,}; found so far: {summary or 'nothing'}."
    if report.clean:
        return f"Clean: {images} read, no errors, no warnings{f' ({summary})' if summary else ''}."
    unreadable = f", {total - readable:,} of them unreadable" if readable < total else ""
    return f"{summary} in {pluralize(total, 'image')}{unreadable}."


def split_table(statistics: Statistics) -> list[list[str]]:
    """Return the table of splits: the headings, then one row per split."""
    boxes, pixels = statistics.kind == "boxes", statistics.kind == "pixels"
    headings = ["split", "images", "readable", "classes"]
    headings += ["objects", "per image"] if boxes else []
    rows = [[*headings, *(["empty"] if boxes or pixels else []), "width x height"]]
    for split in statistics.splits:
        present = f"{int((split.counts > 0).sum())} of {len(statistics.class_names)}"
        row = [split.name, f"{split.images:,}", f"{split.readable:,}", present]
        if boxes:
            row += [f"{split.objects:,}", f"{split.objects / max(split.readable, 1):.2f}"]
        if boxes or pixels:
            row.append("-" if split.empty is None else f"{split.empty:,}")
        rows.append([*row, _size_range(split)])
    return rows


def _size_range(split: SplitStatistics) -> str:
    """The size of a split's images: one, or the smallest and the largest width and height."""
    if not len(split.widths):
        return "-"
    low, high = ((extreme(split.widths), extreme(split.heights)) for extreme in (min, max))
    return f"{low[0]}x{low[1]}" if low == high else f"{low[0]}-{high[0]} x {low[1]}-{high[1]}"
