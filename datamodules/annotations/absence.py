"""Splits without anything to learn from, and why."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .annotation_errors import Fault


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
