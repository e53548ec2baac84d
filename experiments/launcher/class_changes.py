"""Changes of a class from one configuration file or key to a later one: the new class gets its own defaults.

jsonargparse (4.53) fills in the defaults of a class when it reads the file that names it. From then on, they look as if
the file had set them, and it cannot tell which arguments a later class should keep: `discard_replaced_arguments` lets
it keep none. Here, earlier files are rewritten before they are parsed: they name the new class, with the arguments that
they set themselves and that it has. The items of a list keep nothing of the list that it replaces.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import yaml
from jsonargparse import get_loader

from .argument_origins import split_arguments
from .class_paths import default_arguments, find_class, parameters
from .messages import notice
from .runs import RUN_FOLDER, is_first_rank

Parts = tuple[str, ...]


class QuotingDumper(yaml.SafeDumper):
    """Quotes all text: PyYAML and jsonargparse differ in which plain words they read as numbers."""


QuotingDumper.add_representer(
    str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')
)


@dataclass
class Source:
    """A configuration file, or a key of the command line with its value.

    Attributes:
        key: The key; of a file, ``config``.
        value: The value; of a file, its path. None: a key without a value.
        content: The values that it sets, nested.
        changed: Whether `content` has been changed.
    """

    key: str
    value: str | None
    content: dict[str, Any]
    changed: bool = False

    def words(self, folder: Path) -> str:
        """The argument of the command line. A changed file is written to `folder`."""
        if self.changed and self.key == "config":
            path = folder / f"{len(list(folder.iterdir()))}.yaml"
            path.write_text(yaml.dump(self.content, Dumper=QuotingDumper, allow_unicode=True), encoding="utf-8")
            return f"--config={path}"
        if self.changed:
            parts = [part for part in self.key.split(".") if part not in ("init_args", "class_path")]
            owner, last = locate(self.content, tuple(parts)) or ({}, "")
            value = owner[last]
            text = value if isinstance(value, str) else yaml.dump(value, Dumper=QuotingDumper, default_flow_style=True)
            return f"--{'.'.join(parts)}={text}"
        return f"--{self.key}" if self.value is None else f"--{self.key}={self.value}"

    def rename(self, parts: Parts, name: str, allowed: Any, defaults: dict[str, Any]) -> tuple[list[str], list[str]]:
        """Name another class at a key.

        Args:
            parts: The parts of the key.
            name: Name of the new class.
            allowed: Parameters of the new class; None: unknown, all are kept.
            defaults: Defaults of the old class.

        Returns:
            The names of the arguments that are kept, and of those that are dropped.
        """
        owner, last = locate(self.content, parts) or ({}, "")
        node = owner.get(last)
        if isinstance(node, str):
            owner[last], self.changed = name, True
        if not isinstance(node, dict) or (self.key != "config" and "class_path" not in node):
            return [], []
        arguments = children(node)
        if "class_path" in node:
            node["class_path"], self.changed = name, True
        if self.is_resolved():  # it lists the defaults of the old class too
            for key in [key for key, value in arguments.items() if key in defaults and value == defaults[key]]:
                del arguments[key]
        dropped = [key for key in arguments if allowed is not None and key not in allowed]
        for key in dropped:
            del arguments[key]
            self.changed = True
        return list(arguments), dropped

    def is_resolved(self) -> bool:
        """Whether this is a resolved configuration, such as ``config.yaml`` of a run: it lists the whole trainer."""
        return set(parameters(pl.Trainer) or {}) <= set(self.content.get("trainer") or {})


def apply_class_changes(arguments: Sequence[str], folder: Path) -> list[str]:
    """Rewrite a command line so that a changed class has its own defaults, and print what it keeps and drops.

    Args:
        arguments: The arguments behind the command, with configuration files as absolute paths.
        folder: Folder for the files that change.
    """
    positionals, _ = split_arguments(arguments)
    sources = read_sources(arguments)
    for number, source in enumerate(sources):
        for parts, value in list(entries(source.content)):
            change_class(sources[:number], parts, value)
    if not any(source.changed for source in sources):
        return list(arguments)
    return [*positionals, *(source.words(folder) for source in sources)]


def add_logger_folder(arguments: Sequence[str]) -> list[str]:
    """Add ``--trainer.logger.save_dir``, the folder of the run, for one logger that takes a folder and has none."""
    sources = read_sources(arguments)
    name = named_class(sources, ("trainer", "logger"))
    cls = find_class(name) if name else None
    given = any(locate(source.content, ("trainer", "logger", "save_dir")) for source in sources)
    if given or cls is None or "save_dir" not in (parameters(cls) or {}):
        return list(arguments)
    return [*arguments, f"--trainer.logger.save_dir={RUN_FOLDER}"]


def name_help_class(arguments: Sequence[str]) -> list[str]:
    """Complete ``--data.help`` without a value: help for the class that the configuration names there."""
    completed = []
    for argument, following in zip(arguments, [*arguments[1:], "--"], strict=True):
        match = re.fullmatch(r"--([\w.]+)\.help", argument)
        name = named_class(read_sources(arguments), tuple(match[1].split("."))) if match else None
        completed.append(f"{argument}={name}" if name and following.startswith("--") else argument)
    return completed


def named_class(sources: Sequence[Source], parts: Parts) -> str | None:
    """The class that the last of the sources names at a key; None if there is none."""
    found = [locate(source.content, parts) for source in reversed(sources)]
    return next((name for owner, last in filter(None, found) if (name := class_name(owner[last]))), None)


def read_sources(arguments: Sequence[str]) -> list[Source]:
    """The files and keys of a command line; none if a file is not valid, which is reported when it is parsed."""
    try:
        return [Source(key, value, read_content(key, value)) for key, value in split_arguments(arguments)[1]]
    except yaml.YAMLError:
        return []


def read_content(key: str, value: str | None) -> dict[str, Any]:
    """The values that a configuration file or a key sets, nested; none for a key that adds to a list."""
    if value is None or key.endswith("+"):
        return {}
    load = get_loader("yaml")
    if key == "config":
        content = load(Path(value).read_text(encoding="utf-8"))
        return content if isinstance(content, dict) else {}
    try:
        content = load(value)
    except yaml.YAMLError:
        content = value
    for part in reversed(key.split(".")):
        content = {part: content}
    return content


def change_class(earlier: Sequence[Source], parts: Parts, value: Any) -> None:
    """Prepare the earlier sources for a value that names another class, or that replaces a list of objects."""
    if isinstance(value, list):
        for source in earlier:
            owner, last = locate(source.content, parts) or ({}, "")
            items = owner.get(last)
            if isinstance(items, list) and any(isinstance(item, dict) for item in items) and source.key == "config":
                del owner[last]
                source.changed = True
        return
    name = class_name(value)
    before = [owner[last] for source in earlier if (found := locate(source.content, parts)) for owner, last in [found]]
    old_name = named_class(earlier, parts)
    if name is None or old_name is None or name == old_name:
        return
    if not any(isinstance(one, dict) for one in (value, *before)) and not (
        is_class_like(name) and is_class_like(old_name)
    ):
        return  # other texts, such as file names, must not be imported
    new, old = find_class(name), find_class(old_name)
    if new is None or old is None or new is old:
        return
    allowed, defaults = parameters(new), default_arguments(old)
    kept: list[str] = []
    dropped: list[str] = []
    for source in earlier:
        for names, more in zip((kept, dropped), source.rename(parts, name, allowed, defaults), strict=True):
            names += [key for key in more if key not in names]
    if (kept or dropped) and is_first_rank():
        lists = (("keeps", kept), ("drops", dropped))
        text = " and ".join(f"{verb} {', '.join(names)}" for verb, names in lists if names)
        notice(
            f"{'.'.join(parts)}: {new.__name__} replaces {old.__name__}: it {text}; all other arguments have its "
            "own defaults"
        )


def children(node: Any) -> dict[str, Any]:
    """The entries below a node of a configuration, without ``init_args`` between them."""
    if not isinstance(node, dict):
        return {}
    if "class_path" in node or "init_args" in node:
        below = node.get("init_args")
        return below if isinstance(below, dict) else {}
    return node


def entries(node: Any, parts: Parts = ()) -> Iterator[tuple[Parts, Any]]:
    """Yield all entries below a node, at any depth: the parts of the key without ``init_args``, and the value."""
    for name, below in children(node).items():
        yield (*parts, name), below
        yield from entries(below, (*parts, name))


def locate(content: dict[str, Any], parts: Parts) -> tuple[dict[str, Any], str] | None:
    """The dictionary that holds an entry, and its name there; None if there is no such entry."""
    node: Any = content
    *above, last = [part for part in parts if part not in ("init_args", "class_path")]
    for part in above:
        node = children(node).get(part)
    owner = children(node)
    return (owner, last) if last in owner else None


def is_class_like(name: str) -> bool:
    """Whether a text has the form of a class path or of the bare name of a class."""
    return re.fullmatch(r"([A-Za-z_]\w*\.)*[A-Z]\w*", name) is not None


def class_name(value: Any) -> str | None:
    """The class that a value of a configuration names, if it is of the form of a class."""
    name = value.get("class_path") if isinstance(value, dict) else value
    return name if isinstance(name, str) else None
