"""The arguments of a command, and their source: the command line, or a line of a YAML file."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import yaml


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    """Split a command line into words without a key, and pairs of a key and its value.

    >>> split_arguments(["coco", "--a.b", "-1", "--e=2", "out", "--d"])
    (['coco', 'out'], [('a.b', '-1'), ('e', '2'), ('d', None)])
    """
    positionals: list[str] = []
    pairs: list[tuple[str, str | None]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and word != "-c":
            positionals.append(word)
            continue
        key, equals, text = word.lstrip("-").partition("=")
        value: str | None = text
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else None
        pairs.append(("config" if key == "c" else key, value))
    return positionals, pairs


def key_parts(key: str) -> list[str]:
    """Parts of a dotted key, without those that the command line may omit.

    >>> key_parts("trainer.callbacks[0].init_args.count")
    ['trainer', 'callbacks', 'count']
    """
    return [part for part in re.sub(r"\[\d+\]", "", key).split(".") if part not in ("init_args", "dict_kwargs")]


def yaml_entries(node: yaml.Node | None, key: str = "") -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
    """Yield the entries of a YAML document at any depth: dotted key, node of the key, node of the value.

    The items of a list have keys such as ``trainer.callbacks[0]``.
    """
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            below = f"{key}.{name.value}" if key else name.value
            yield below, name, value
            yield from yaml_entries(value, below)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield f"{key}[{number}]", item, item
            yield from yaml_entries(item, f"{key}[{number}]")


@dataclass(frozen=True)
class CommandLine:
    """A command line with configuration files.

    Attributes:
        arguments: The arguments behind the command, with configuration files as absolute paths.
        folder: The working folder; files below it are shown relative to it.
        sections: Sections of the configuration that the command reads; None: all.
        options: Keys of the command itself, outside the configuration.
    """

    arguments: Sequence[str]
    folder: Path
    sections: Sequence[str] | None = None
    options: Sequence[str] = ()

    @cached_property
    def configs(self) -> list[Path]:
        """The configuration files, in the order in which they are merged."""
        return [Path(value or "") for key, value in split_arguments(self.arguments)[1] if key == "config"]

    @cached_property
    def overrides(self) -> list[tuple[str, str | None]]:
        """Keys given on the command line, without dashes, and their values."""
        pairs = split_arguments(self.arguments)[1]
        return [(key.rstrip("+"), value) for key, value in pairs if key != "config"]

    def display(self, path: Path) -> str:
        """A path as messages show it: relative to the working folder if it is inside it."""
        return str(path.relative_to(self.folder) if path.is_relative_to(self.folder) else path)

    def at_line(self, key: str, path: Path, node: yaml.Node) -> str:
        """A key of a file with its line: ``data.init_args.root (my.yaml, line 3)``."""
        return f"{key} ({self.display(path)}, line {node.start_mark.line + 1})"

    def entries(self) -> Iterator[tuple[Path, str, yaml.Node, yaml.Node]]:
        """Yield the entries of all configuration files that still exist, the last file first."""
        for path in filter(Path.is_file, reversed(self.configs)):
            for entry in yaml_entries(yaml.compose(path.read_text(encoding="utf-8"))):
                yield path, *entry

    def find_value(self, name: str, value: str) -> str | None:
        """Source of an argument `name`, under any key, with this `value`: ``--a.b.name``, or the key with its line."""
        for key, text in reversed(self.overrides):
            if key.split(".")[-1] == name and text is not None and text.strip("'\"") == value:
                return f"--{key}"
        for path, key, _, node in self.entries():
            if key.split(".")[-1] == name and isinstance(node, yaml.ScalarNode) and node.value == value:
                return self.at_line(key, path, node)
        return None

    def find_key(self, key: str) -> str:
        """Source of a key of the resolved configuration.

        Returns:
            ``--data.val_fraction 2`` for a key of the command line, the key with file and line for one of a YAML, and
            the key alone for a default or a whole section.
        """
        parts = key_parts(key)
        if len(parts) == 1:  # a whole section
            return key
        for name, value in reversed(self.overrides):
            override = key_parts(name)
            if override == parts:
                return f"--{name} {value}"
            # a value in JSON may hold the key
            if override == parts[: len(override)] and value and value.lstrip()[:1] in ("{", "["):
                return f"--{name}"
        for path, name, node, _ in self.entries():
            if name == key:
                return self.at_line(key, path, node)
        return key
