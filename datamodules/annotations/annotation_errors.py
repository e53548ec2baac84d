"""What is wrong with annotations: counted and warned of, or, for the doctor, collected to the last one."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn


@dataclass(frozen=True, eq=False)
class Fault:
    """Annotations of one file that are wrong in the same way, as `collect_problems` records them.

    Attributes:
        file: where they stand.
        kind: what is wrong.
        unit: what `where` numbers: ``annotation``, ``line`` …
        where: the source's own numbers or names of them, all of them.
        images: gives the path of the image that the n-th of them belongs to; None: not known.
        boxes: ``[N, 4]``, as they stand, x1, y1, x2, y2 in pixels; None: not about boxes.
    """

    file: Path
    kind: str
    unit: str
    where: list[Any]
    images: Callable[[int], str] | None = None
    boxes: np.ndarray | None = None


REPORTED = -(2**31)
"""The label that a reader gives where problems are collected, and it has recorded that the written one is no class."""

OUTSIDE = "an image path that leads out of its folder"
"""What is wrong with a path that may not be followed, as it is recorded."""

_collectors: list[list[Fault]] = []


@contextlib.contextmanager
def collect_problems() -> Iterator[list[Fault]]:
    """Have readers record what is wrong, all of it, where they would warn, or stop; ``striate data check`` reads so.

    >>> with collect_problems() as found:
    ...     Problems(Path("a.json"), strict=True).add("a box of no area", [3, 7])
    >>> found[0].kind, found[0].where
    ('a box of no area', [3, 7])
    """
    found: list[Fault] = []
    _collectors.append(found)
    try:
        yield found
    finally:
        # by identity: two empty lists are equal
        del _collectors[next(place for place, other in enumerate(_collectors) if other is found)]


def collecting() -> bool:
    """Whether problems are being collected, so that a reader goes on where it would stop."""
    return bool(_collectors)


def collected(
    file: Path,
    kind: str,
    where: Sequence[Any] | np.ndarray,
    unit: str = "annotation",
    images: Callable[[int], str] | None = None,
    boxes: np.ndarray | None = None,
) -> bool:
    """Record a fault, if problems are being collected; see `Fault`.

    Returns:
        Whether they are. A reader that would stop at this fault then leaves out what is faulty and goes on::

            if unknown and not collected(file, "an unknown category", unknown):
                raise ValueError(…)
    """
    if _collectors and len(where):
        given = where.tolist() if isinstance(where, np.ndarray) else list(where)
        _collectors[-1].append(Fault(Path(file), kind, unit, given, images, boxes))
    return bool(_collectors)


class Problems:
    """Annotations that cannot be used, counted by kind; the first of a kind is named.

    Within `collect_problems` they are recorded there instead: nothing warns, and nothing stops.

    Args:
        file: where they stand; named in each message.
        strict: stop at the first.
        image_of: gives the path of the image that the annotation of a number (its place in the file) belongs to, for
            a report with pictures.
    """

    def __init__(self, file: Path, strict: bool, image_of: Callable[[int], str] | None = None) -> None:
        self.file, self.strict, self.image_of = file, strict, image_of
        self._found: dict[str, tuple[int, str]] = {}

    def add(
        self,
        kind: str,
        where: Sequence[Any] | np.ndarray,
        unit: str = "annotation",
        places: Sequence[int] | np.ndarray | None = None,
        boxes: np.ndarray | None = None,
    ) -> None:
        """Count the annotations that `where` numbers.

        Args:
            kind: what is wrong with them.
            where: what to call each.
            unit: what `where` numbers.
            places: the numbers by which `image_of` knows them.
            boxes: theirs, ``[N, 4]``, as they stand.

        Raises:
            ValueError: when strict, and there is one.
        """
        if not len(where):
            return
        images = None
        if self.image_of is not None and places is not None:
            image_of, numbers = self.image_of, list(places)

            def images(number: int) -> str:
                return image_of(int(numbers[number]))

        if collected(self.file, kind, where, unit, images, boxes):
            return
        if self.strict:
            more = f" (and {len(where) - 1} more)" if len(where) > 1 else ""
            raise ValueError(
                f"{self.file}, {unit} {where[0]}{more}: {kind}. Correct it, or set data.init_args.strict: false to "
                "leave it out"
            )
        count, first = self._found.get(kind, (0, f"{unit} {where[0]}"))
        self._found[kind] = (count + len(where), first)

    def report(self) -> None:
        """One warning for all that was left out, if anything was."""
        if self._found:
            kinds = "; ".join(f"{count} of {kind} (the first: {first})" for kind, (count, first) in self._found.items())
            total = sum(count for count, _ in self._found.values())
            rank_zero_warn(
                f"{self.file}: {total} annotation(s) left out: {kinds}. `striate data check` shows each of them, and "
                "writes a corrected copy; data.init_args.strict: true stops at the first"
            )
