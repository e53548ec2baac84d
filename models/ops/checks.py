"""Checks of constructor arguments that several models share.

Each takes the arguments by name and reports the first wrong one as ``name: must be …, got VALUE``. None stands for a
default that is chosen later, and is accepted.
"""

import dataclasses
import inspect
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

Settings = TypeVar("Settings")

if TYPE_CHECKING:
    OrMapping: TypeAlias = Settings | Mapping[str, Any]
else:

    class OrMapping:
        """A dataclass or, in Python, a mapping of its arguments (`as_settings`).

        At run time ``OrMapping[X]`` is ``X``, so that a YAML is checked against the dataclass alone.
        """

        def __class_getitem__(cls, kind: type) -> type:
            return kind


def check_min(minimum: float, **values: float | None) -> None:
    """Require numbers of at least a minimum.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is below ``minimum``, or NaN.

    Example:
        >>> check_min(1, hidden=64, pool_size=0)
        Traceback (most recent call last):
        ValueError: pool_size: must be >= 1, got 0
    """
    for name, value in _numbers(values):
        if not value >= minimum:
            raise ValueError(f"{name}: must be >= {minimum}, got {value}")


def check_fraction(**values: float | None) -> None:
    """Require numbers from 0 to 1, both included.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is outside [0, 1], or NaN.
    """
    for name, value in _numbers(values):
        if not 0 <= value <= 1:
            raise ValueError(f"{name}: must be in [0, 1], got {value}")


def check_above(limit: float, **values: float | None) -> None:
    """Require numbers above a limit.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is not above ``limit``, or is NaN.
    """
    for name, value in _numbers(values):
        if not value > limit:
            raise ValueError(f"{name}: must be > {limit}, got {value}")


def check_dropout(**values: float | None) -> None:
    """Require probabilities of dropping a unit: at least 0 and below 1.

    Raises:
        TypeError: A value is not a number.
        ValueError: A value is outside [0, 1), or NaN.
    """
    for name, value in _numbers(values):
        if not 0 <= value < 1:
            raise ValueError(f"{name}: must be in [0, 1), got {value}")


def check_length(length: int, **values: Sequence[float]) -> None:
    """Require sequences of several numbers.

    Raises:
        TypeError: A value is not a sequence.
        ValueError: A sequence has another length than ``length``.

    Example:
        >>> check_length(2, proposals=[2000])
        Traceback (most recent call last):
        ValueError: proposals: must have 2 numbers, got [2000]
    """
    for name, value in values.items():
        if not isinstance(value, Sequence) or isinstance(value, str):
            raise TypeError(f"{name}: must be a list of {length} numbers, got {value!r}")
        if len(value) != length:
            raise ValueError(f"{name}: must have {length} numbers, got {list(value)}")


def indexed(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the elements of a list under names for messages: ``name[0]``, ``name[1]``, …."""
    return {f"{name}[{index}]": value for index, value in enumerate(values)}


def as_settings(kind: type[Settings], name: str, value: Settings | Mapping[str, Any] | None) -> Settings:
    """Return an argument that is a dataclass; build it from a mapping, as a YAML has it, or from its defaults.

    Args:
        kind: The dataclass.
        name: Name of the argument, for messages.
        value: The dataclass, or a mapping of its arguments. None: the defaults.

    Raises:
        TypeError: It is neither of them, an argument is unknown or missing, or has a wrong type.
        ValueError: An argument is out of range.
    """
    if isinstance(value, kind):
        return value
    if value is not None and not isinstance(value, Mapping):
        raise TypeError(f"{name}: must be {kind.__name__} or a dictionary of its arguments, got {type(value).__name__}")
    arguments = dict(value or {})
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    if unknown := [key for key in arguments if key not in known]:
        raise TypeError(f"{name}: {kind.__name__} has no argument {unknown[0]!r}; {suggest(str(unknown[0]), known)}")
    try:
        inspect.signature(kind).bind(**arguments)
    except TypeError as error:
        raise TypeError(f"{name}: {error} of {kind.__name__}, got {arguments}") from None
    try:
        return kind(**arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}.{error}") from error


def _numbers(values: Mapping[str, float | None]) -> Iterable[tuple[str, float]]:
    """The values that are not None, which must be numbers."""
    for name, value in values.items():
        if value is not None:
            if not isinstance(value, Real):
                raise TypeError(f"{name}: must be a number, got {value!r}")
            yield name, value


def check_choice(choices: Sequence[object], **values: object) -> None:
    """Require one of several choices.

    Raises:
        ValueError: A value is not among ``choices``; suggests the nearest name.
    """
    for name, value in values.items():
        if value not in choices:
            near = get_close_matches(str(value), map(str, choices), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name}: must be one of {', '.join(map(repr, choices))}, got {value!r}{hint}")


def suggest(name: str, names: Iterable[str], n: int = 1) -> str:
    """Return the end of an error message about an unknown name: the nearest names, or all of them.

    Args:
        name: The unknown name.
        names: The known names.
        n: Maximum number of nearest names.

    Example:
        >>> suggest("resnet8", ["resnet18", "vgg11"])
        "did you mean 'resnet18'?"
        >>> suggest("yolo", ["resnet18", "vgg11"])
        "choose from 'resnet18', 'vgg11'"
    """
    names = list(names)
    near = get_close_matches(name, names, n=n, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else f"choose from {', '.join(map(repr, names))}"
