"""Checks of constructor arguments that several data modules share; messages name the argument and the value."""

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from .similar_names import describe_similar, similar_names


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest spelling among `choices`, or an empty string."""
    closest = get_close_matches(name, list(choices), 1, 0.6)
    return f"; did you mean {closest[0]!r}?" if closest else ""


def check_choice(argument: str, value: str, choices: Sequence[str]) -> None:
    """Check that an argument has one of the allowed values.

    Raises:
        ValueError: It does not; the message suggests the closest choice.
    """
    if value not in choices:
        raise ValueError(
            f"{argument}: must be one of {', '.join(map(repr, choices))}, got {value!r}"
            f"{did_you_mean(str(value), choices)}"
        )


def check_class_names(names: Sequence[str] | None) -> None:
    """Check that class names differ by more than case, and have no surrounding spaces; None is valid.

    Raises:
        ValueError: A name occurs more than once, two differ only in case, blanks or Unicode form, or no label can equal
            one since spaces around labels are removed.
    """
    for name in names or ():
        if name != name.strip():
            raise ValueError(f"class_names: names must not begin or end with a space, got {name!r}")
    if names is not None and len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"class_names: each name must be unique, got {duplicate!r} more than once")
    if similar := similar_names(names or ()):
        raise ValueError(
            f"class_names: names must not differ only in case, blanks or Unicode form, got {describe_similar(similar)}"
        )


def class_indices(classes: Sequence[str], class_names: Sequence[str]) -> list[int]:
    """Return the index in `class_names` of each class of interest.

    Raises:
        ValueError: `classes` is empty, has an unknown class, or has one twice.
    """
    if not classes:
        raise ValueError("classes: must have at least one class, got []; give null for all classes")
    for index, name in enumerate(classes):
        if name not in class_names:
            raise ValueError(
                f"classes: must be among the {len(class_names)} classes of the data, got {name!r}"
                f"{did_you_mean(name, class_names)}"
            )
        if name in classes[:index]:
            raise ValueError(f"classes: each class must be unique, got {name!r} more than once")
    return [list(class_names).index(name) for name in classes]


def check_interval(argument: str, interval: Sequence[float], high: float = math.inf, positive: bool = False) -> None:
    """Check an argument that is a pair of numbers in order, from 0, or above 0 if `positive`, to `high`.

    Raises:
        ValueError: It is not.
    """
    first, second = interval
    if not 0 <= first <= second <= high or (positive and first <= 0):
        limits = f"{'(' if positive else '['}0, {'inf)' if math.isinf(high) else f'{high:g}]'}"
        raise ValueError(f"{argument}: must be two ascending numbers in {limits}, got {tuple(interval)}")


def check_probability(argument: str, value: float) -> None:
    """Check that an argument is in [0, 1].

    Raises:
        ValueError: It is not.
    """
    if not 0 <= value <= 1:
        raise ValueError(f"{argument}: must be in [0, 1], got {value}")
