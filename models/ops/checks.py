"""Checks of constructor arguments that several models share.

Each takes the arguments by name and reports the first wrong one as ``name: must be …, got VALUE``. None stands for a
default that is chosen later, and is accepted.
"""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def check_min(minimum: float, **values: float | None) -> None:
    """Require numbers of at least a minimum.

    Raises:
        ValueError: A value is below ``minimum``, or NaN.

    Example:
        >>> check_min(1, hidden=64, pool_size=0)
        Traceback (most recent call last):
        ValueError: pool_size: must be >= 1, got 0
    """
    for name, value in values.items():
        if value is not None and not value >= minimum:
            raise ValueError(f"{name}: must be >= {minimum}, got {value}")


def check_fraction(**values: float | None) -> None:
    """Require numbers from 0 to 1, both included.

    Raises:
        ValueError: A value is outside [0, 1], or NaN.
    """
    for name, value in values.items():
        if value is not None and not 0 <= value <= 1:
            raise ValueError(f"{name}: must be in [0, 1], got {value}")


def check_dropout(**values: float | None) -> None:
    """Require probabilities of dropping a unit: at least 0 and below 1.

    Raises:
        ValueError: A value is outside [0, 1), or NaN.
    """
    for name, value in values.items():
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name}: must be in [0, 1), got {value}")


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
