"""Corrected copies of annotations: what all formats share.

A corrected copy is a folder of its own, from which the same data module reads: corrected annotations, and links to the
images, one a file, of all that are sound. The originals are only read.
"""

import csv
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .duplicates import exact_groups
from .findings import excludes_sample

if TYPE_CHECKING:
    from .collecting import Report

# overrides of the data module's arguments with which it reads the copy, or None where there is none to read
Fixer = Callable[["Report", Path, "Log"], dict[str, Any] | None]


class Change(NamedTuple):
    """One change: in which file, at which place, of what kind (`KINDS`), what was done, and why."""

    file: str
    where: str
    kind: str
    action: str
    reason: str


@dataclass
class Log:
    """What a correction did, and what it leaves to a person."""

    changes: list[Change] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def add(self, file: Path | str, where: object, kind: str, action: str, reason: str = "") -> None:
        """Note a change."""
        self.changes.append(Change(str(file), str(where), kind, action, reason))

    def counts(self) -> Counter[tuple[str, str]]:
        """How many changes of each kind and action."""
        return Counter((change.kind, change.action) for change in self.changes)


# -- which images are left out -----------------------------------------------------------------------


class Excluded(NamedTuple):
    """Why an image is left out: the kind (`KINDS`) and the words."""

    kind: str
    reason: str


def excluded(report: "Report", log: Log) -> dict[str, dict[str, Excluded]]:
    """The images that a corrected copy leaves out, by split and path.

    Of images with the same pixels one is kept: that of the latest of train, val, test, and there the first. Where
    their classes differ, all are kept, and it is said.
    """
    found: dict[str, dict[str, Excluded]] = {record.name: {} for record in report.records}
    for finding in report.findings:
        if finding.split in found and finding.image is not None and excludes_sample(finding):
            # a fault of a whole file has no sample's number
            found[finding.split].setdefault(finding.image, Excluded(finding.code, finding.detail or finding.code))
        elif finding.code == "annotation-file" and finding.image is not None:
            found.setdefault(finding.split, {}).setdefault(finding.image, Excluded(finding.code, finding.detail))
    for record in report.records:
        for index in np.flatnonzero(record.faulty):
            if (path := record.paths[index]) is not None:
                found[record.name].setdefault(path, Excluded("bad-target", "see the report"))
    if not {"duplicate-image", "leaked-image"} <= report.findings.ignored:
        _exclude_copies(report, found, log)
    return found


def _exclude_copies(report: "Report", found: dict[str, dict[str, Excluded]], log: Log) -> None:
    records = report.records
    if not records:
        return
    readable = np.concatenate([record.readable & ~record.faulty for record in records])
    starts = np.cumsum([0, *(len(record) for record in records)])
    labels = [record.labels() for record in records]
    for group in exact_groups(np.concatenate([record.digests for record in records]), readable):
        splits = np.searchsorted(starts, group, side="right") - 1
        places = [(int(split), int(number - starts[split])) for split, number in zip(splits, group, strict=True)]
        classes = {int(own[index]) for split, index in places if (own := labels[split]) is not None}
        paths = [records[split].paths[index] or f"sample {index}" for split, index in places]
        if len(classes) > 1 and report.statistics.kind == "labels":
            names = ", ".join(report.statistics.class_names[label] for label in sorted(classes))
            log.left.append(f"the same image with different labels ({names}): {', '.join(paths[:4])}")
            continue
        keep = max(range(len(places)), key=lambda place: (places[place][0], -place))
        for place, ((split, _), path) in enumerate(zip(places, paths, strict=True)):
            same_file = path == paths[keep] and split == places[keep][0]
            if place != keep and not same_file:
                kind = "duplicate-image" if split == places[keep][0] else "leaked-image"
                reason = f"the same pixels as {records[places[keep][0]].name}: {paths[keep]}"
                found[records[split].name].setdefault(path, Excluded(kind, reason))


ACTIONS = {"box-inverted": "corners reordered", "box-beyond": "clipped"}


def plain(value: float) -> int | float:
    """A number as one would write it: whole where it is."""
    return int(value) if float(value).is_integer() else round(float(value), 4)


# -- links -------------------------------------------------------------------------------------------


def link(original: Path | str, copy: Path) -> None:
    """Let `copy` be a link to `original`, whose folders are made."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.symlink_to(os.path.abspath(original))  # noqa: PTH100 - a link to a link stays one


def write_rows(file: Path, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A CSV file."""
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(headings)
        writer.writerows(rows)


def list_excluded(folder: Path, left_out: dict[str, dict[str, Excluded]]) -> None:
    """``excluded.csv``: each image that the copy leaves out, with its split and the reason."""
    rows = [(split, path, why.kind, why.reason) for split, own in left_out.items() for path, why in own.items()]
    write_rows(folder / "excluded.csv", ("split", "path", "kind", "reason"), rows)


def log_excluded(left_out: dict[str, dict[str, Excluded]], root: Path | str, log: Log) -> None:
    """Note each image that is left out, by its place below `root`."""
    base = os.path.abspath(root)  # noqa: PTH100
    for own in left_out.values():
        for path, why in own.items():
            log.add(os.path.relpath(path, base), "the image", why.kind, "left out", why.reason)
