"""The option ``--trusted_modules``, which all commands that import what a YAML names take."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from .messages import fail

VARIABLE = "STRIATE_TRUSTED_MODULES"
"""The same for all processes that a command starts (`striate.tasks.trusted_modules`)."""


@contextmanager
def limit_class_paths(names: Sequence[str] | None) -> Iterator[None]:
    """Let class paths name some packages only, in this process and in those it starts; a wrong name exits with 2.

    Args:
        names: The packages; None: those of the variable, or all.
    """
    with ExitStack() as stack:
        if names is not None or VARIABLE in os.environ:
            from ...tasks.trusted_modules import trust_only

            try:
                stack.enter_context(trust_only(names))
            except ValueError as error:
                fail(str(error))
        yield


def take_trusted_modules(arguments: Sequence[str]) -> tuple[list[str] | None, list[str]]:
    """Take ``--trusted_modules`` out of the arguments. A YAML cannot set it, since it may be what is not trusted.

    >>> take_trusted_modules(["--config", "a.yaml", "--trusted_modules", "striate,torch"])
    (['striate', 'torch'], ['--config', 'a.yaml'])
    """
    found: list[str] | None = None
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--trusted_modules":
            rest.append(word)
        else:
            names = value if equals else next(words, "")
            found = [name.strip(" '\"") for name in names.strip("[] ").split(",")]
    return found, rest
