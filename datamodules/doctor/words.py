"""Wording that the report on the terminal and the page share."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .statistics import SplitFigures, Statistics

if TYPE_CHECKING:
    from .collecting import Report


def counted(number: int, one: str, many: str | None = None) -> str:
    """``1 image``, ``2 images``."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def relative(text: str, root: object) -> str:
    """A text without the data set's folder in front of its paths.

    >>> relative("/data/set/a.jpg: looks like set/b.jpg and preset/c.jpg", "/data/set"), relative("set/b.jpg", "set")
    ('a.jpg: looks like set/b.jpg and preset/c.jpg', 'b.jpg')
    """
    if not isinstance(root, str | Path):
        return text
    for folder in (os.path.abspath(root), str(root)):  # noqa: PTH100
        if folder not in ("", ".", os.sep):
            text = re.sub(rf"(?<![\w/.-]){re.escape(folder.rstrip(os.sep) + os.sep)}", "", text)
    return text


def verdict(report: "Report") -> str:
    """The outcome in one line."""
    counts = [(report.findings.total(severity), severity) for severity in ("error", "warning", "note")]
    said = ", ".join(counted(count, name) for count, name in counts if count)
    images = counted(sum(split.readable for split in report.statistics.splits), "image")
    if report.interrupted:
        whole = sum(split.images for split in report.statistics.splits)
        return f"Interrupted after {images} of {whole:,}; found so far: {said or 'nothing'}."
    if report.clean:
        return f"Clean: {images} read, no errors, no warnings{f' ({said})' if said else ''}."
    return f"{said[0].upper()}{said[1:]} in {images}."


def split_headings(statistics: Statistics) -> list[str]:
    """What the table of splits says of each."""
    boxes, pixels = statistics.kind == "boxes", statistics.kind == "pixels"
    headings = ["split", "images", "readable", "classes"]
    headings += ["objects", "per image"] if boxes else []
    return [*headings, *(["empty"] if boxes or pixels else []), "width x height"]


def split_cells(split: SplitFigures, statistics: Statistics) -> list[str]:
    """A row of the table of splits."""
    boxes, pixels = statistics.kind == "boxes", statistics.kind == "pixels"
    seen = f"{int((split.counts > 0).sum())} of {len(statistics.class_names)}"
    cells = [split.name, f"{split.images:,}", f"{split.readable:,}", seen]
    if boxes:
        cells += [f"{split.objects:,}", f"{split.objects / max(split.readable, 1):.2f}"]
    if boxes or pixels:
        cells.append("-" if split.empty is None else f"{split.empty:,}")
    return [*cells, size_range(split)]


def size_range(split: SplitFigures) -> str:
    """The sizes of a split's images: one, or the smallest and the largest width and height."""
    if not len(split.widths):
        return "-"
    low, high = ((pick(split.widths), pick(split.heights)) for pick in (min, max))
    if low == high:
        return f"{low[0]}x{low[1]}"
    return f"{low[0]}-{high[0]} x {low[1]}-{high[1]}"
