"""Messages of the command line: one line each, on the error stream."""

import difflib
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn


def notice(message: str) -> None:
    """Print a line on the error stream."""
    sys.stderr.write(f"striate: {message}\n")


def fail(message: str, code: int = 2) -> NoReturn:
    """Print an error in one line, and exit with `code`."""
    notice(message)
    raise SystemExit(code)


def did_you_mean(word: str, choices: Iterable[str], cutoff: float = 0.5, otherwise: str = "") -> str:
    """``"; did you mean …?"`` with the nearest of `choices`, or `otherwise` if none is near.

    >>> did_you_mean("fitt", ["fit", "test"])
    "; did you mean 'fit'?"
    """
    nearest = difflib.get_close_matches(word, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {nearest[0]!r}?" if nearest else otherwise


def list_commands(commands: Mapping[str, str]) -> str:
    """Indented lines with the name and the description of each command."""
    width = max(map(len, commands))
    return "\n".join(f"    {name:<{width}}  {description}" for name, description in commands.items())
