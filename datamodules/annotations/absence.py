"""Splits and classes without anything to learn from, and why."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..loading.sources import HasAbsence, Source
from .annotation_errors import DataError, Fault


def no_objects(origin: Path | str, num_images: int, reason: str) -> Fault:
    """Return the fault of a split without a usable object.

    Args:
        origin: File or folder of the annotations.
        num_images: Number of images.
        reason: Why, in a few words.
    """
    found = f"none of its {num_images} images has a usable object: {reason}"
    return Fault("no-objects", Path(origin), [str(origin)], "path", found)


def absence_by_reading(
    source: Any,
    origin: Path | str,
    usable: Callable[[Any], bool],
    otherwise: str = "all masks are empty or ignored",
) -> Fault | None:
    """Return why no sample has anything to learn from, for sources that know it only by reading; None: one has.

    Samples are read until one has, which is usually the first.

    Args:
        source: Source of the samples, or a sequence.
        origin: Their folder.
        usable: Returns whether a sample has something to learn from.
        otherwise: The reason if all samples can be read; else it is the error of the first that cannot.
    """
    first_error = ""
    for index in range(len(source)):
        try:
            if usable(source[index]):
                return None
        except ValueError as error:
            first_error = first_error or str(error)
    return no_objects(origin, len(source), first_error or otherwise)


def reject_absence(source: Source) -> None:
    """Reject a training set that has nothing to learn from.

    Raises:
        DataError: The source knows that no sample has anything to learn from; the message says why.
    """
    if isinstance(source, HasAbsence) and (fault := source.absence(training=True)) is not None:
        raise DataError.of(fault)


def warn_of_absence(source: Source, split: str) -> None:
    """Warn of an evaluation set on which no metric means anything, since its source knows that it has no object."""
    if isinstance(source, HasAbsence) and (fault := source.absence()) is not None:
        rank_zero_warn(f"metrics of {split} will measure nothing ({fault}); run striate data check")


def warn_of_absent_classes(present: Collection[int], class_names: Sequence[str], missing: str) -> None:
    """Warn of classes that a training set does not have, if it has others.

    Args:
        present: Classes that it has.
        class_names: All classes.
        missing: What the other classes have none of, such as ``training object``.
    """
    absent = [repr(name) for label, name in enumerate(class_names) if label not in present]
    if 0 < len(absent) < len(class_names):
        rank_zero_warn(
            f"{len(absent)} of {len(class_names)} classes will not be learned (no {missing}): "
            f"{', '.join(absent[:5])}{', …' if len(absent) > 5 else ''}; run striate data check"
        )
