"""Explain an error of a run in one line, with the key of the configuration that it is about.

Library code raises with the bare name of the argument, as in ``val_fraction: must be in (0, 1), got 2``. This module
adds the key and its source: ``data.init_args.val_fraction (my.yaml, line 12): must be …``.
"""

import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from jsonargparse import Namespace
from pydantic import ValidationError  # albumentations requires it

from .argument_origins import CommandLine, key_parts
from .class_paths import import_class, parameters
from .config_errors import condense

PACKAGE = Path(__file__).parents[2]


def describe_error(error: BaseException, command_line: CommandLine, config: Any = None) -> str | None:
    """The message of an error that striate raised on purpose; None for anything unforeseen.

    Args:
        error: The error.
        command_line: The arguments of the command.
        config: The resolved configuration; None if the error came before there was one.
    """
    text = str(error)
    if match := re.match(r"You restored a checkpoint with current_epoch=(\d+),? but .*max_epochs=(\d+)", text):
        key = command_line.find_key("trainer.max_epochs")
        return (
            f"{key}: must be > {match[1]}, the epoch of the checkpoint (counted from 0), got {match[2]}; "
            "raise it to continue, or remove --ckpt_path to start a new run"
        )
    if "Original Traceback" in text:  # from a worker of a loader; the last line is "Type: message"
        files = [line for line in text.splitlines() if line.strip().startswith('File "')]
        if not files or str(PACKAGE) not in files[-1] or "site-packages" in files[-1]:
            return None
        message = text.rstrip().splitlines()[-1].split(": ", 1)[-1]
        return add_key(message, [], command_line, config, section="data")
    # jsonargparse wraps what a class of the configuration raises
    origin = error
    while str(origin).startswith("Does not validate against any of the Union subtypes") and origin.__cause__:
        origin = origin.__cause__
    frames = [frame for frame, _ in traceback.walk_tb(origin.__traceback__)]
    if frames and frames[-1].f_globals.get("__name__", "").startswith("striate."):
        return add_key(str(origin), frames, command_line, config) or None  # without a message, a traceback says more
    if (missing := missing_package(error, command_line, config)) is not None:
        return missing
    if origin is error:
        return None
    problem = invalid_argument(origin)
    if problem is not None:
        return add_key(problem, frames, command_line, config)
    return add_key(condense(text), [], command_line, config)


def invalid_argument(error: BaseException) -> str | None:
    """The first invalid argument that pydantic reports, with which albumentations checks the arguments of its steps."""
    if not isinstance(error.__cause__, ValidationError):
        return None
    first = error.__cause__.errors()[0]
    problem = first["msg"].replace("Input should", "must", 1)
    name = ".".join(map(str, first["loc"]))
    return f"{name}: {problem}, got {first['input']!r}" if name else problem


def add_key(
    message: str, frames: list[FrameType], command_line: CommandLine, config: Any, section: str | None = None
) -> str:
    """Replace the argument's name at the start of a message by its key and the source of the value.

    A message without such a name, or with one that cannot be assigned to a single key, stays as it is.

    Args:
        message: ``name: what is wrong``.
        frames: Frames of the traceback, the innermost last.
        command_line: The arguments of the command.
        config: The resolved configuration.
        section: The section that the argument is in, if that is known.
    """
    match = re.match(r"([A-Za-z_][\w.]*): ", message)
    if match is None or config is None:
        return message
    name = key_parts(match[1])
    arguments = list(argument_keys(config))
    # an argument that is left to its default is not what the message is about
    found = [
        (key, owner, value)
        for key, owner, value in arguments
        if key_parts(key)[-len(name) :] == name
        and (section is None or key.startswith(f"{section}."))
        and (value is not None or "got None" in message)
    ]
    classes = {path: import_class(path, key)[0] for key, path, _ in arguments if path is not None}
    keys, certain = owned_keys(found, classes, frames, name[-1])
    if len(keys) > 1 or not certain:  # several objects of one class, or an unknown one: the value decides
        keys = {
            key: value
            for key, value in keys.items()
            if re.search(rf"got {re.escape(repr(value))}(?![\w.]*\w)", message)
        }
    if len(keys) != 1:
        return message
    (key,) = keys
    return f"{command_line.find_key(key)}: {message[match.end() :]}"


def missing_package(error: BaseException, command_line: CommandLine, config: Any) -> str | None:
    """Explain that a class of the configuration needs a package that is not installed; None for other errors."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    cause = next((one for one in chain if isinstance(one, ImportError)), None)
    if cause is None:
        return None
    # as Python and the checks of Lightning and torchmetrics name it
    match = re.search(r"(?:No module named|Module not found:|Requirement|Neither|requires?) ['`]([\w-]+)", str(cause))
    frames = [frame for one in chain for frame, _ in traceback.walk_tb(one.__traceback__)]
    paths = {path: key for key, path in class_keys(config)}
    owner = next(
        (path for frame in reversed(frames) for path in paths if runs_in(frame, import_class(path, paths[path])[0])),
        None,
    )
    if match is None or owner is None:
        return None
    name = owner.rpartition(".")[2]
    return (
        f"{command_line.find_key(paths[owner])}: {name} needs the package {match[1]!r}, which is not installed, got "
        f"{owner}; pip install {match[1]}"
    )


def class_keys(config: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys of all objects of a resolved configuration, with their class paths."""
    if isinstance(config, list | tuple):
        for number, item in enumerate(config):
            yield from class_keys(item, f"{key}[{number}]")
    elif isinstance(config, Mapping | Namespace):
        entries = dict(config.items()) if isinstance(config, Mapping) else vars(config)
        if isinstance(path := entries.get("class_path"), str):
            yield key, path
        for name, value in entries.items():
            yield from class_keys(value, f"{key}.{name}" if key else name)


def owned_keys(
    found: list[tuple[str, str | None, Any]], classes: Mapping[str, Any], frames: list[FrameType], name: str
) -> tuple[dict[str, Any], bool]:
    """Select the keys of the object that raised, with their values, and whether that object has a class path.

    This is the object of the innermost frame that runs in the owner of a key. If no frame does, all keys are selected.
    They are uncertain if one has no owner, such as ``run.name``, or if a frame runs in an object that has an argument
    of this name but no class path: a dataclass of the configuration, or an object from elsewhere.

    Args:
        found: Keys with the right name: key, class path of the owner, value.
        classes: All classes of the configuration by class path.
        frames: Frames of the traceback, the innermost last.
        name: Name of the argument.
    """
    for frame in reversed(frames):
        keys = {key: value for key, path, value in found if path and runs_in(frame, classes[path])}
        if keys:
            return keys, True
    certain = all(path for _, path, _ in found)
    for frame in frames:
        cls = type(frame.f_locals.get("self"))
        configured = any(runs_in(frame, owner) for owner in classes.values())
        if cls.__module__.startswith("striate.") and not configured and name in (parameters(cls) or {}):
            certain = False
    return {key: value for key, _, value in found}, certain


def runs_in(frame: FrameType, owner: Any) -> bool:
    """Whether a frame executes a method of an object of class `owner`, or the function `owner`."""
    if not inspect.isclass(owner):
        return frame.f_code is getattr(owner, "__code__", None)
    instance = frame.f_locals.get("self")
    cls = frame.f_locals.get("cls")
    return isinstance(instance, owner) or (isinstance(cls, type) and issubclass(cls, owner))


def argument_keys(config: Any, key: str = "", owner: str | None = None) -> Iterator[tuple[str, str | None, Any]]:
    """Yield all keys of a resolved configuration: dotted key, class path of the object it belongs to, value."""
    if isinstance(config, list | tuple):
        for number, item in enumerate(config):
            yield from argument_keys(item, f"{key}[{number}]", owner)
        return
    if not isinstance(config, Mapping | Namespace):
        return
    entries = dict(config.items()) if isinstance(config, Mapping) else vars(config)
    class_path = entries.get("class_path")
    if isinstance(class_path, str):
        for part in ("init_args", "dict_kwargs"):
            yield from argument_keys(entries.get(part), f"{key}.{part}", class_path)
        return
    for name, value in entries.items():
        below = f"{key}.{name}" if key else name
        yield below, owner, value
        yield from argument_keys(value, below, owner)
