"""Messages of the command line: one line each, on the error stream."""

import argparse
import difflib
import re
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


class OneLineParser(argparse.ArgumentParser):
    """Reports a wrong call in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with the message in the form of all others."""
        match = re.fullmatch(r"argument (--\w+): (?:invalid \w+ value: (.+)|(.+))", message)
        if match is None:
            fail(f"{self.prog.removeprefix('striate ')}: {message}")
        fail(f"{match[1]}: " + (f"must be a whole number, got {match[2]}" if match[2] else match[3]))


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
