"""Class names that are read from annotations: which of them are the same, or may be mistakes."""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path

from .annotation_errors import Fault, record_error, record_warning, recording
from .similar_names import canonical, describe_similar, similar_names

RARE = 0.05
"""Fraction of the objects of another class below which a class with a similar name may be a misspelling of it."""
SIMILAR = 0.8
"""Minimum similarity of names (`difflib`) at which one may be a misspelling of the other."""
MAX_COMPARED = 300
"""Classes up to which all pairs of names are compared."""


def folded(name: str) -> str:
    """Return a name without case, spaces and separators, by which nearly equal names are recognized.

    >>> folded("Red_Light ") == folded("red light")
    True
    """
    return canonical(name.replace("_", " ").replace("-", " ")).replace(" ", "")


def is_background(name: str) -> bool:
    """Return whether a class is named as what remains beside the others, from which alone nothing can be learned.

    >>> is_background("_background_"), is_background("road")
    (True, False)
    """
    return folded(name) in ("background", "bg", "void", "none", "nothing", "unlabeled", "unlabelled", "empty")


def suspicious_names(counts: Mapping[str, int]) -> dict[str, str]:
    """Return the names that may be mistakes, with the reason.

    Args:
        counts: Number of objects with each name.

    >>> suspicious_names({"cat": 90, "Cat": 20, "truck 1": 50, "truck 2": 60, "emu": 1})
    {'Cat': "nearly equals 'cat' (20 and 90 objects)", 'emu': 'occurs once'}
    """
    found: dict[str, str] = {}
    by_count = sorted(counts, key=lambda name: (-counts[name], name))
    first_of: dict[str, str] = {}
    for name in by_count:
        if (other := first_of.setdefault(folded(name), name)) != name:
            found[name] = f"nearly equals {other!r} ({counts[name]:,} and {counts[other]:,} objects)"
    for place, name in enumerate(by_count if len(by_count) <= MAX_COMPARED else []):
        common = (other for other in by_count[:place] if counts[name] <= RARE * counts[other])
        similar = (other for other in common if SequenceMatcher(None, name, other).ratio() >= SIMILAR)
        if name not in found and (like := next(similar, None)) is not None:
            found[name] = f"resembles {like!r} ({counts[name]:,} and {counts[like]:,} objects)"
    return found | {name: "occurs once" for name in by_count if counts[name] == 1 and name not in found}


def report_suspicious_names(counts: Mapping[str, int], root: Path, argument: str) -> None:
    """Warn about class names in annotations that may be mistakes; within `record_faults`, record them.

    Args:
        counts: Number of objects with each name.
        root: Folder of the data set.
        argument: Argument that names the classes.
    """
    found = suspicious_names(counts)
    if not found:
        return
    listed = "; ".join(f"{name!r} {reason}" for name, reason in list(found.items())[:5])
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    message = (
        f"{len(found)} of {len(counts)} class names in the annotations of {root} may be mistakes: {listed}{more}; "
        f"correct them, or list the classes in {argument}"
    )
    faults = [Fault("class-name", root, [f"class {name!r}"], "entry", reason) for name, reason in found.items()]
    for fault in faults if recording() else faults[:1]:
        record_warning(fault, message)


def reject_similar_names(
    names: Iterable[str], file: Path, entry: str, subject: str = "names", unit: str = "entry"
) -> None:
    """Reject class names that differ only in case, blanks or Unicode form.

    Args:
        names: Names of the classes.
        file, entry, unit: See `Fault`; where the names are.
        subject: What the names are, for the message.

    Raises:
        DataError: There are such names, outside `record_faults`.
    """
    if similar := similar_names(names):
        found = f"{subject} must not differ only in case, blanks or Unicode form, got {describe_similar(similar)}"
        remedy = "rename them, or set merge_similar_classes: true"
        record_error(Fault("similar-classes", file, [entry], unit, found, remedy))
