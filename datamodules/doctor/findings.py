"""Findings: single faults of a data set, counted by kind."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..annotations.annotation_errors import Fault
from ..annotations.fault_kinds import KINDS, Severity

MAX_FINDINGS = 20_000
"""Findings of a kind that are kept; more are only counted."""
MAX_BOXES = 64
"""Boxes that are kept with a finding."""
_ORDER = {"error": 0, "warning": 1, "note": 2}

BoxRow = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault.

    Attributes:
        code: Its kind, a key of `KINDS`.
        location: The file, and the line, annotation or object in it.
        detail: What is wrong there.
        split: The split it is in; empty: the whole set.
        image: Path of the image to show.
        index: Index of the sample in its split, if it has one.
        boxes: Boxes to mark in the image, x1, y1, x2, y2 in pixels.
        other: Split and index of a second sample to show beside the first.
    """

    code: str
    location: str
    detail: str = ""
    split: str = ""
    image: str | None = None
    index: int | None = None
    boxes: tuple[BoxRow, ...] = ()
    other: tuple[str, int] | None = None

    @property
    def excludes_sample(self) -> bool:
        """Whether it concerns its sample as a whole, so that a corrected copy leaves the sample out."""
        rule = KINDS[self.code].excludes_sample
        return not self.boxes if rule == "objectless" else rule


class Findings:
    """All findings: each kind counted, and the first `MAX_FINDINGS` of a kind kept.

    Args:
        ignored: Kinds to skip.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self.ignored = ignored
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Add a finding, unless its kind is ignored."""
        if finding.code in self.ignored:
            return
        self.counts[finding.code] += 1
        kept = self._kept.setdefault(finding.code, [])
        if len(kept) < MAX_FINDINGS:
            kept.append(finding)

    def update(self, findings: Iterable[Finding]) -> None:
        """Add several findings."""
        for finding in findings:
            self.add(finding)

    def of(self, code: str) -> list[Finding]:
        """Return the kept findings of a kind."""
        return self._kept.get(code, [])

    def codes(self) -> list[str]:
        """Return the kinds found, most severe first, in the order of `KINDS`."""
        return sorted(self.counts, key=lambda code: (_ORDER[KINDS[code].severity], list(KINDS).index(code)))

    def __iter__(self) -> Iterator[Finding]:
        for code in self.codes():
            yield from self.of(code)

    def total(self, *severities: Severity) -> int:
        """Return the number of findings of these severities."""
        return sum(count for code, count in self.counts.items() if KINDS[code].severity in severities)


def box_rows(boxes: np.ndarray) -> tuple[BoxRow, ...]:
    """Convert boxes ``[N, 4]`` to the tuples that a finding keeps."""
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes[:MAX_BOXES])


def class_label(names: Sequence[str], label: int) -> str:
    """Return the name of a class, or its number if it has none."""
    return names[label] if 0 <= label < len(names) else f"class {label}"


def format_box(box: np.ndarray) -> str:
    """Format a box ``[4]`` to a tenth of a pixel."""
    return "[" + ", ".join(f"{float(side):.1f}".removesuffix(".0") for side in box) + "]"


def findings_of(fault: Fault, split: str) -> Iterator[Finding]:
    """Yield a finding for each annotation of a fault."""
    for number in range(len(fault.names)):
        box = None if fault.boxes is None else fault.boxes[number]
        detail = fault.sentence
        if fault.remedy and not KINDS[fault.code].fixed:  # a person must decide
            detail += f"; {fault.remedy}"
        if box is not None:
            detail = format_box(box) if fault.code.startswith("box-") else f"{format_box(box)}, {detail}"
        image = os.path.abspath(fault.images[number]) if fault.images is not None else None  # noqa: PTH100
        location = image if fault.code == "missing-image" and image else fault.location(number)
        marked = box_rows(box[None]) if box is not None and np.isfinite(box).all() else ()
        yield Finding(fault.code, location, detail, split, image, boxes=marked)
