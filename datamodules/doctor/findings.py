"""What can be wrong with a data set: the kinds of findings, what each means, and what to do about it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..annotations.fault_kinds import KINDS, Severity

ORDER = {"error": 0, "warning": 1, "note": 2}
KEPT = 20_000  # findings of a kind kept one by one; beyond that they are only counted
MAX_BOXES = 64  # boxes kept with a finding


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: its kind, a key of `KINDS`.
        where: the file, and the line, annotation or object in it.
        detail: what is wrong there.
        split: where it was found; empty: the whole set.
        image: path of the image to show.
        index: number of the sample in its split, where it has one.
        boxes: what to mark in the image, x1, y1, x2, y2 in pixels.
        other: a second image, with its split, to show beside the first.
    """

    code: str
    where: str
    detail: str = ""
    split: str = ""
    image: str | None = None
    index: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    other: tuple[str, int] | None = None


class Findings:
    """All findings: each kind counted, and the first `KEPT` of a kind kept.

    Args:
        ignored: kinds to pass over.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self.ignored = ignored
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Take a finding, unless its kind is ignored."""
        if finding.code in self.ignored:
            return
        self.counts[finding.code] += 1
        kept = self._kept.setdefault(finding.code, [])
        if len(kept) < KEPT:
            kept.append(finding)

    def of(self, code: str) -> list[Finding]:
        """The findings of a kind that are kept."""
        return self._kept.get(code, [])

    def codes(self) -> list[str]:
        """The kinds found, the worst first, in the order of `KINDS`."""
        return sorted(self.counts, key=lambda code: (ORDER[KINDS[code].severity], list(KINDS).index(code)))

    def __iter__(self) -> Iterator[Finding]:
        for code in self.codes():
            yield from self.of(code)

    def total(self, *severities: Severity) -> int:
        """How many findings there are of these severities."""
        return sum(count for code, count in self.counts.items() if KINDS[code].severity in severities)


def excludes_sample(finding: Finding) -> bool:
    """Whether a finding concerns its sample as a whole, so that a corrected copy leaves the sample out."""
    rule = KINDS[finding.code].excludes_sample
    return not finding.boxes if rule == "objectless" else rule


def rows(boxes: np.ndarray) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes ``[N, 4]`` as a finding keeps them."""
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes[:MAX_BOXES])


def shown(box: np.ndarray) -> str:
    """A box as text, to a tenth of a pixel."""
    return "[" + ", ".join(f"{float(side):.1f}".removesuffix(".0") for side in box) + "]"
