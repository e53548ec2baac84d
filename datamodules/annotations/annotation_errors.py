"""Faults of annotations as values, and what a reader does at one: raise, count and warn, or record it."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from .fault_kinds import KINDS

RECORDED = -(2**31)
"""Label of an object whose written label is not a class and was recorded as a fault."""

OUTSIDE = "path leads out of its folder"
"""What is found where a path may not be followed."""


@dataclass(frozen=True, eq=False)
class Fault:
    """Annotations of one file with the same fault.

    Attributes:
        code: Key of `KINDS`.
        file: The file, or the folder of the files that `names` lists.
        names: The source's own numbers or names of the annotations.
        unit: What `names` numbers: ``annotation``, ``line`` …; ``file``: paths below `file`; ``path``: whole paths;
            ``entry``: names that need no unit.
        found: The value or the defect found, for `Kind.sentence`.
        remedy: What would be right, or what to do, for an error message.
        images: Path of each annotation's image; None: not known.
        boxes: ``[N, 4]``, x1, y1, x2, y2 in pixels as they are written; None: the fault does not concern boxes.
    """

    code: str
    file: Path
    names: Sequence[Any]
    unit: str = "annotation"
    found: str = ""
    remedy: str = ""
    images: Sequence[str] | None = None
    boxes: np.ndarray | None = None

    @property
    def sentence(self) -> str:
        """What is wrong, without the location."""
        return KINDS[self.code].sentence.format(found=self.found)

    def name(self, number: int) -> str:
        """The annotation with this number, within `file`."""
        name = self.names[number]
        return f"{name}" if self.unit in ("entry", "file", "path") else f"{self.unit} {name}"

    def location(self, number: int) -> str:
        """File and name of the annotation with this number."""
        separator = {"file": "/", "path": ""}.get(self.unit, ", ")
        return f"{'' if self.unit == 'path' else self.file}{separator}{self.name(number)}"

    def __str__(self) -> str:
        more = f" (and {len(self.names) - 1} more)" if len(self.names) > 1 else ""
        return f"{self.location(0)}{more}: {self.sentence}" + (f"; {self.remedy}" if self.remedy else "")


class DataError(ValueError):
    """Data that cannot be used.

    Attributes:
        fault: What is wrong; None: not a fault of annotations.
    """

    fault: Fault | None = None

    @classmethod
    def of(cls, fault: Fault, message: str | None = None) -> "DataError":
        """The error of a fault; its message is the fault's own sentence by default."""
        error = cls(str(fault) if message is None else message)
        error.fault = fault
        return error


class MissingFileError(DataError, FileNotFoundError):
    """A file of the data set does not exist."""


class AbsentSplitError(MissingFileError):
    """The data set has no such split; many have no ``test``."""


_SINK: ContextVar[list[Fault] | None] = ContextVar("striate_fault_sink", default=None)


@contextlib.contextmanager
def record_faults() -> Iterator[list[Fault]]:
    """Within it readers record every fault where they would warn or stop; ``striate data check`` reads this way.

    Example:
        >>> with record_faults() as faults:
        ...     AnnotationErrors(Path("a.json"), strict=True).add("box-zero-area", [3, 7])
        >>> faults[0].code, faults[0].names
        ('box-zero-area', [3, 7])
    """
    faults: list[Fault] = []
    token = _SINK.set(faults)
    try:
        yield faults
    finally:
        _SINK.reset(token)


def recording() -> bool:
    """Whether the caller runs inside `record_faults`, and so a reader continues where it would stop."""
    return _SINK.get() is not None


def record(fault: Fault) -> None:
    """Record a fault that stops no reader; outside `record_faults`, nothing happens."""
    if (sink := _SINK.get()) is not None:
        sink.append(fault)


def record_error(fault: Fault, message: str | None = None) -> None:
    """Record a fault at which a reader otherwise stops. The caller then leaves out what is faulty and continues.

    Args:
        fault: At least one annotation.
        message: For the error; None: the fault's own sentence.

    Raises:
        DataError: Outside `record_faults`; a `MissingFileError` for a missing image or annotation.
    """
    if (sink := _SINK.get()) is None:
        missing = fault.code in ("missing-image", "missing-annotation")
        raise (MissingFileError if missing else DataError).of(fault, message)
    sink.append(fault)


def record_warning(fault: Fault, message: str) -> None:
    """Record a fault that a reader can live with; outside `record_faults`, warn of it.

    Args:
        fault: At least one annotation.
        message: The warning, which begins with the consequence.
    """
    if (sink := _SINK.get()) is None:
        rank_zero_warn(message)
    else:
        sink.append(fault)


class AnnotationErrors:
    """Counts annotations that cannot be used, by fault, for one warning.

    Within `record_faults` they are recorded there instead: nothing warns, and nothing stops.

    Args:
        file: Their file, or the folder of their files; named in each message.
        strict: Stop at the first.
        image_of: Returns the image path of the annotation with a number, its position in the file.
    """

    def __init__(self, file: Path, strict: bool, image_of: Callable[[int], str] | None = None) -> None:
        self.file, self.strict, self.image_of = file, strict, image_of
        self._counts: dict[tuple[str, str], tuple[int, str]] = {}

    def add(
        self,
        code: str,
        names: Sequence[Any] | np.ndarray,
        unit: str = "annotation",
        found: str = "",
        positions: Sequence[int] | np.ndarray | None = None,
        boxes: np.ndarray | None = None,
    ) -> None:
        """Count annotations with the same fault.

        Args:
            code, names, unit, found: See `Fault`; nothing happens without names.
            positions: The numbers by which `image_of` knows the annotations.
            boxes: ``[N, 4]``, as they are written.

        Raises:
            DataError: If `strict`.
        """
        if not len(names):
            return
        plain = names.tolist() if isinstance(names, np.ndarray) else list(names)
        fault = Fault(code, self.file, plain, unit, found, "correct it, or set strict: false to drop it")
        if (sink := _SINK.get()) is not None:
            images = None
            if self.image_of is not None and positions is not None:
                images = [self.image_of(int(position)) for position in positions]
            sink.append(Fault(code, self.file, plain, unit, found, "", images, boxes))
        elif self.strict:
            raise DataError.of(fault)
        else:
            key = (code, fault.sentence)
            count, first = self._counts.get(key, (0, fault.name(0)))
            self._counts[key] = (count + len(plain), first)

    @property
    def total(self) -> int:
        """Number of annotations that were dropped."""
        return sum(count for count, _ in self._counts.values())

    def summary(self) -> str:
        """Return how many annotations were dropped for each fault, with the first; empty: none."""
        return "; ".join(
            f"{count} x {sentence} ({code}, first: {first})"
            for (code, sentence), (count, first) in self._counts.items()
        )

    def warn(self) -> None:
        """Warn once of everything that was dropped, if anything was."""
        if self._counts:
            rank_zero_warn(
                f"{self.total} annotation{'s' * (self.total > 1)} of {self.file} dropped: {self.summary()}; run "
                "striate data check to list all of them and to write a corrected copy, or set strict: true to stop at "
                "the first"
            )
