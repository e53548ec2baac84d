"""The front door: ``striate``. Answers what needs no torch at once, and hands the rest to the launcher."""

import difflib
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from ... import __version__

SUBCOMMANDS = {
    "fit": "train an experiment",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "predict a file, a folder or a glob of images",
    "data": "look at a data set, check it, or export it: `striate data --help`",
    "experiments": "list the packaged experiments",
}
EXPERIMENTS = Path(__file__).parents[1]
typed: list[str] = []
"""The command line as the user gave it, behind the program's name; ``sys.argv`` has full paths in it."""

USAGE = """\
usage: striate COMMAND --config FILE [--config FILE …] [--KEY VALUE …]

{commands}

FILE is a YAML file, or the name of a packaged experiment:
    striate fit --config quickstart
Every key of the YAML can be overridden:
    striate fit --config quickstart --trainer.max_epochs 3 --data.batch_size 32
    striate fit --config quickstart --print_config          shows the resolved configuration
    striate fit --config quickstart --ckpt_path last        goes on where the last run stopped
    striate predict --config quickstart --ckpt_path best --data.images PATH
`striate COMMAND --help` lists the launcher's own keys. STRIATE_TRACEBACK=1 in the environment shows where an
error was raised."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exits with 0, 1 (the run failed or was interrupted) or 2 (the call is wrong)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given else "--help"
    if command in ("-h", "--help"):
        width = max(map(len, SUBCOMMANDS))
        lines = (f"    {name:<{width}}  {what}" for name, what in SUBCOMMANDS.items())
        print(USAGE.format(commands="\n".join(lines)))  # noqa: T201
    elif command in ("-V", "--version"):
        print(f"striate {__version__}")  # noqa: T201
    elif command == "experiments":
        print(describe_experiments())  # noqa: T201
    elif command == "data":
        from ..data.commands import run

        run(given[1:])
    elif command not in SUBCOMMANDS:
        fail(f"unknown command {command!r}: there are {', '.join(SUBCOMMANDS)}{did_you_mean(command, SUBCOMMANDS)}")
    else:
        typed[:] = given
        resolved = resolve_configs(given)
        sys.argv[1:] = resolved  # Lightning starts the other ranks of DDP with sys.argv
        # torch's CPU threads wait by sleeping, not by spinning: where they share the cores with loader workers or
        # other jobs, spinning slows everything down (measured on 2 busy cores: 2.2 s a step instead of 0.36 s)
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from .cli import launch

        launch()


def fail(message: str, code: int = 2) -> None:
    """Say in one line what is wrong, and exit."""
    sys.stderr.write(f"striate: {message}\n")
    raise SystemExit(code)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """``"; did you mean …?"`` with the nearest spelling, or nothing."""
    near = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def experiment_names() -> list[str]:
    """The packaged experiments, such as ``classification/resnet18_digits``."""
    return sorted(path.relative_to(EXPERIMENTS).with_suffix("").as_posix() for path in EXPERIMENTS.rglob("*.yaml"))


def describe_experiments() -> str:
    """One line each: the name, and the first comment of the file."""
    names = experiment_names()
    width = max(map(len, names), default=0)
    lines = []
    for name in names:
        with (EXPERIMENTS / f"{name}.yaml").open(encoding="utf-8") as file:
            first = file.readline().lstrip("# ").rstrip()
        lines.append(f"{name:<{width}}  {first}")
    return "\n".join(lines)


def find_config(name: str) -> Path:
    """A configuration file on disk or, by name, a packaged one.

    Raises:
        FileNotFoundError: when there is neither; the message names the nearest spelling.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    packaged = EXPERIMENTS / f"{name.removesuffix('.yaml').removeprefix('experiments/')}.yaml"
    if packaged.is_file():
        return packaged
    names = experiment_names()
    short = {known.rsplit("/", 1)[-1]: known for known in names}
    asked = name.removesuffix(".yaml").rsplit("/", 1)[-1]
    near = difflib.get_close_matches(asked, short, n=1, cutoff=0.5)
    hint = f"did you mean {short[near[0]]!r}?" if near else "`striate experiments` lists the packaged ones"
    raise FileNotFoundError(f"--config {name}: no such file, and no packaged experiment of that name; {hint}")


def resolve_configs(arguments: Sequence[str]) -> list[str]:
    """The command line with each ``--config NAME`` replaced by the absolute path of the file it names.

    Absolute, because jsonargparse reads a file from within its folder.
    """
    resolved: list[str] = []
    follows = False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        try:
            if follows:
                argument = str(find_config(argument).resolve())
            elif flag == "--config" and equals:
                argument = f"{flag}={find_config(value).resolve()}"
        except FileNotFoundError as error:
            fail(str(error))
        follows = argument in ("--config", "-c") and not follows
        resolved.append(argument)
    return resolved


if __name__ == "__main__":
    main()
