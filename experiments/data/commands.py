"""``striate data …``: the front door of what can be done with a data set without training on it."""

import importlib
from collections.abc import Sequence

from ..launcher.main import did_you_mean, fail

# each is the function of its name in the module of its name, and takes the arguments behind its name
COMMANDS = {
    "show": "draw training samples with their targets, as the network will see them",
    "export": "write a data set to disk as COCO, VOC, YOLO, masks or class folders",
    "check": "find what is wrong with a data set, and write a corrected copy",
}


def run(arguments: Sequence[str]) -> None:
    """Run a command; exits with its code, 2 when the call is wrong, or 130 when it was interrupted."""
    command = arguments[0] if arguments else "--help"
    if command in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        lines = [f"    {name:<{width}}  {what}" for name, what in COMMANDS.items()]
        print("\n".join(["usage: striate data COMMAND …", "", *lines, "", "striate data COMMAND --help says more"]))  # noqa: T201
        return
    if command not in COMMANDS:
        fail(f"unknown command 'data {command}': there are {', '.join(COMMANDS)}{did_you_mean(command, COMMANDS)}")
    try:
        module = importlib.import_module(f".{command}", __package__)
        code = getattr(module, command)(list(arguments[1:]))
    except KeyboardInterrupt:  # before there was anything to tell, as while torch is loaded
        fail("interrupted", code=130)
    if code:
        raise SystemExit(code)
