"""``striate data``: show, check or export a data set without training on it."""

import importlib
from collections.abc import Sequence

from ..launcher.messages import did_you_mean, fail, list_commands
from ..launcher.trust import limit_class_paths, take_trusted_modules

# each command is the function of its name in the module of its name; it takes the arguments behind the name
COMMANDS = {
    "show": "draw training samples with their targets, as the network sees them",
    "export": "write a data set to disk as COCO, VOC, YOLO, masks or class folders",
    "check": "report what is wrong with a data set, and write a corrected copy",
    "proposals": "compute boxes in which objects may be, for R-CNN, SPP-net and Fast R-CNN",
}
USAGE = """\
usage: striate data COMMAND …

{commands}

`striate data COMMAND --help` describes a command. --trusted_modules LIST limits class paths to packages that you name,
such as striate,pytorch_lightning,albumentations."""


def run(arguments: Sequence[str]) -> None:
    """Run a ``striate data`` command.

    Exits with the code of the command, and with 2 for a wrong call.
    """
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        print(USAGE.format(commands=list_commands(COMMANDS)))  # noqa: T201
        return
    if command not in COMMANDS:
        hint = did_you_mean(command, COMMANDS, otherwise=f"; use {', '.join(COMMANDS)}")
        fail(f"data {command}: no such command{hint}")
    module = importlib.import_module(f".{command}", __package__)
    if {"-h", "--help"} & set(arguments):
        print(module.USAGE)  # noqa: T201
        return
    trusted, rest = take_trusted_modules(arguments[1:])
    with limit_class_paths(trusted):
        code = getattr(module, command)(rest)
    if code:
        raise SystemExit(code)
