"""Entry point of ``striate``: answers what needs no torch at once, and passes the rest to the launcher."""

import io
import os
import sys
from collections.abc import Sequence

from ... import __version__
from .catalogue import describe_experiments, resolve_configs
from .messages import did_you_mean, fail, list_commands

COMMANDS = {
    "fit": "train an experiment",
    "validate": "evaluate a checkpoint on the validation split",
    "test": "evaluate a checkpoint on the test split",
    "predict": "predict the images of a file, a folder or a glob pattern",
    "data": "show, check or export a data set: `striate data --help`",
    "experiments": "list the packaged experiments",
}

USAGE = """\
usage: striate COMMAND --config FILE [--config FILE …] [--KEY VALUE …]

{commands}

FILE is a YAML file or the name of a packaged experiment:
    striate fit --config quickstart
Any key of the YAML can be overridden:
    striate fit --config quickstart --trainer.max_epochs 3 --data.batch_size 32
    striate fit --config quickstart --print_config          prints the resolved configuration
    striate fit --config quickstart --ckpt_path last        resumes the last run
    striate predict --config quickstart --ckpt_path best --data.images PATH
`striate COMMAND --help` lists the launcher's own keys. With STRIATE_TRACEBACK=1 in the environment, errors
come with a traceback."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Exits with 0 for success, 1 for a run that failed or was interrupted, and 2 for a wrong call.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # class names may be in a script that the terminal lacks
    words = list(sys.argv[1:] if arguments is None else arguments)
    command = words[0] if words else "--help"
    if command in ("-h", "--help"):
        print(USAGE.format(commands=list_commands(COMMANDS)))  # noqa: T201
    elif command in ("-V", "--version"):
        print(f"striate {__version__}")  # noqa: T201
    elif command == "experiments":
        print(describe_experiments())  # noqa: T201
    elif command == "data":
        from ..data.commands import run

        run(words[1:])
    elif command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS, otherwise=f"; use {', '.join(COMMANDS)}")
        fail(f"{command}: no such command{hint}")
    else:
        sys.argv[1:] = resolve_configs(words)  # Lightning starts the other ranks of DDP with sys.argv
        # Let torch's CPU threads sleep while they wait instead of spinning. Where they share cores with loader
        # workers or other jobs, spinning slows everything down (on 2 busy cores: 2.2 s per step instead of 0.36 s).
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from .cli import launch

        launch(words)


if __name__ == "__main__":
    main()
