"""``striate data …``: the commands for data sets."""

from collections.abc import Sequence

from .main import did_you_mean, fail

COMMANDS = ("check",)


def data(arguments: Sequence[str]) -> None:
    """Run ``striate data COMMAND …``; exits with the command's code."""
    if not arguments or arguments[0] not in COMMANDS:
        named = f"unknown command {arguments[0]!r}" if arguments else "no command"
        hint = did_you_mean(arguments[0], COMMANDS) if arguments else ""
        fail(f"data: {named}: there is {', '.join(COMMANDS)}{hint}")
    from .data_check import check

    raise SystemExit(check(arguments[1:]))
