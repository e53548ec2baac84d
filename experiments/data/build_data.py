"""Build the data module of a command line: from the ``data`` section of a YAML, or by name; no model is built."""

import difflib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
import yaml
from jsonargparse import ArgumentError, Namespace, get_loader
from pytorch_lightning.cli import LightningArgumentParser

from ... import datamodules
from ..launcher.argument_origins import CommandLine, split_arguments
from ..launcher.catalogue import experiment_names, resolve_config
from ..launcher.class_changes import apply_class_changes
from ..launcher.class_paths import import_class
from ..launcher.error_reports import one_line_errors
from ..launcher.messages import fail
from ..launcher.parser import PARSER, prepare_parsing

# a command line of `striate fit` is accepted as it is; its other sections are ignored
OTHER_SECTIONS = ("model", "trainer", "run", "wandb", "seed_everything", "ckpt_path", "weights_only", "verbose")


@dataclass(frozen=True)
class Option:
    """A key of the command itself, outside the data section.

    Attributes:
        kind: Type of the value, as jsonargparse understands it.
        default: Value if the key is not given.
    """

    kind: Any
    default: Any = None


class NamedData(NamedTuple):
    """Data that the command line names otherwise than by a configuration.

    Attributes:
        name: Name for titles and files.
        class_path: Class path of the data module.
        init_args: Arguments of the data module; those of the command line replace them.
        options: Defaults of the command's options for this data.
    """

    name: str
    class_path: str
    init_args: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


class DataCommand(NamedTuple):
    """A parsed command line of ``striate data``.

    Attributes:
        options: Values of the command's options.
        positionals: Words without a key, except the name of the data module.
        name: Name of the configuration or data module, for titles and files.
        parser: The parser of the data section.
        config: The resolved configuration of the data section.
        command_line: The arguments and their sources.
    """

    options: Namespace
    positionals: list[str]
    name: str
    parser: LightningArgumentParser
    config: Namespace
    command_line: CommandLine

    def build(self) -> pl.LightningDataModule:
        """Instantiate the data module of the command line."""
        return self.parser.instantiate_classes(self.config).data

    def build_vision(self) -> datamodules.VisionDataModule:
        """Instantiate the data module, which must be one of striate's, or derived from them."""
        data = self.build()
        if not isinstance(data, datamodules.VisionDataModule):
            raise TypeError(f"data: must be a VisionDataModule, got {type(data).__name__}; derive the class from it")
        return data

    def one_line_errors(self, interrupted: str, code: int = 1) -> AbstractContextManager[None]:
        """Report errors that the user can fix in one line, and exit.

        Args:
            interrupted: Message after Ctrl-C, which exits with 130.
            code: Exit code for an error.
        """
        return one_line_errors(self.command_line, lambda: self.config, code, interrupted)


def parse_data_command(
    arguments: Sequence[str],
    options: Mapping[str, Option],
    name_data: Callable[[Mapping[str, str], list[str]], NamedData | None] = lambda pairs, positionals: None,
) -> DataCommand:
    """Parse a command line of ``striate data``: ``[NAME] --config FILE … --KEY VALUE …``.

    NAME is a data module (``digit_scenes``, ``DigitScenes``, ``striate.datamodules.DigitScenes``, ``mine.Data``). A KEY
    is an option of the command or a key of the data section, with or without ``data.`` before it. A wrong call exits
    with 2.

    Args:
        arguments: The command line behind the name of the command.
        options: The options of the command.
        name_data: Another way to name the data. It takes all keys with their values, and the positionals, from which
            it removes its own; it returns None if the call does not use it.
    """
    prepare_parsing()
    sys.path.append(str(Path.cwd()))  # a YAML can name classes of a file in the working folder
    positionals, pairs = split_values(arguments)
    named = name_data(dict(pairs), positionals)
    configs, overrides, bare = sort_keys(pairs, options)
    whole = [text.partition("=")[2] for text in overrides if text.startswith("--data=")]
    if named is None and not configs and not whole:
        if not positionals:
            fail("no data; add --config FILE or the name of a data module, such as digit_scenes")
        word = positionals.pop(0)
        class_path = data_module_path(word)
        named = NamedData(word.rpartition(".")[2], class_path, *guessed(class_path, dict(pairs), options))
    with tempfile.TemporaryDirectory() as folder:
        if named is not None:
            name = named.name
            configs = [write_named(named, Path(folder))]
        elif configs:
            name = Path(configs[-1]).stem
        else:
            name = whole[-1].rpartition(".")[2] if re.fullmatch(r"[\w.]+", whole[-1]) else "data"
        words = [word for path in configs for word in ("--config", path)] + overrides
        command_line = CommandLine(words, Path.cwd(), ("data",), list(options))
        parser = data_parser(options, {} if named is None else named.options)
        try:
            config = parse_data_section(parser, configs, overrides, Path(folder))
        except ArgumentError as error:
            fail(explain_data_error(str(error), command_line, bare))
    values = Namespace(**{key: config.pop(key) for key in options})
    config.pop("config", None)
    return DataCommand(values, positionals, name, parser, config, command_line)


def guessed(
    class_path: str, pairs: Mapping[str, str], options: Mapping[str, Option]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Guess arguments of a named data module from its ``root``, and the command's splits, as ``--format`` does."""
    given = {key.rpartition(".")[2]: value for key, value in pairs.items()}
    path = Path(given.get("root", "")).expanduser()
    name = class_path.rpartition(".")[2]
    if not class_path.startswith("striate.datamodules.") or "root" not in given or not path.is_dir():
        return {}, {}
    from ...datamodules.doctor.formats import FORMATS
    from .guesses import GUESSES

    formats = ("voc", "voc_localization", "coco", "coco_localization")
    guess = next((GUESSES[key] for key in formats if FORMATS[key].reader == name), None)
    if guess is None:
        return {}, {}
    arguments = dict(guess(path, given.keys()))
    splits = arguments.pop("splits", None)
    arguments.pop("root", None)
    return arguments, {"splits": ",".join(splits)} if splits and "splits" in options else {}


def split_values(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Split a command line into words without a key, and pairs of a key and a value; a key without value exits."""
    positionals, pairs = split_arguments(arguments)
    complete = []
    for key, value in pairs:
        if value is None:
            fail(f"--{key}: no value given")
        complete.append((key, value))
    return positionals, complete


def sort_keys(
    pairs: Sequence[tuple[str, str]], options: Mapping[str, Option]
) -> tuple[list[str], list[str], list[str]]:
    """Sort keys and values into configuration files, overrides with ``data.``, and keys that came without it."""
    configs: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    for key, value in pairs:
        section = key.split(".")[0]
        if key == "config":
            configs.append(resolve_config(value))
        elif section in options or section == "data":
            overrides.append(f"--{key}={value}")
        elif section.rstrip("+") not in OTHER_SECTIONS:
            bare.append(key)
            overrides.append(f"--data.{key}={value}")
    return configs, overrides, bare


def data_parser(options: Mapping[str, Option], defaults: Mapping[str, Any]) -> LightningArgumentParser:
    """A parser of the data section and of the options; `defaults` replace those of the options."""
    parser = LightningArgumentParser(**PARSER)
    parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
    for key, option in options.items():
        parser.add_argument(f"--{key}", type=option.kind, default=defaults.get(key, option.default))
    parser.add_argument("--config", action="config")
    return parser


def parse_data_section(
    parser: LightningArgumentParser, configs: Sequence[str], overrides: Sequence[str], folder: Path
) -> Namespace:
    """Parse the data sections of configuration files and the overrides, with copies of the sections in `folder`.

    Raises:
        ArgumentError: If the configuration does not parse.
    """
    words = apply_class_changes([*(f"--config={path}" for path in configs), *overrides], folder)
    words = [
        f"--config={copy_data_section(path, folder)}" if (path := word.removeprefix("--config=")) != word else word
        for word in words
    ]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s).*Dump of a value that does not round-trip.*")
        return parser.parse_args(words)


def explain_data_error(message: str, command_line: CommandLine, bare: Sequence[str]) -> str:
    """One line for a command line that does not parse; a key that came without ``data.`` may mean an option."""
    from ..launcher.class_paths import UnknownKey
    from ..launcher.config_errors import Explanation, explain

    explanation = explain(message, command_line)
    if isinstance(explanation, Explanation) and isinstance(unknown := explanation.problem, UnknownKey):
        key, suggested = unknown.key, [unknown.suggestion] if unknown.suggestion else []
        nearest = difflib.get_close_matches(key, [*command_line.options, *suggested], n=1)
        is_bare = key in bare and explanation.key == f"--data.{key}"
        if is_bare and nearest and nearest[0] in command_line.options:
            return str(Explanation(f"--{key}", UnknownKey(key, nearest[0])))
    return str(explanation)


def data_module_path(name: str) -> str:
    """Resolve a name to a class path: one of striate's data modules in any spelling, or a class path."""
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) and not name.endswith((".yaml", ".yml")):
        cls, problem = import_class(name, "data")
        if not problem and not (isinstance(cls, type) and issubclass(cls, pl.LightningDataModule)):
            problem = "not a data module"
        if problem:
            fail(f"{name}: {problem}")
        return name
    exported = {cls_name: getattr(datamodules, cls_name) for cls_name in datamodules.__all__}
    known = {
        cls_name.lower(): cls_name
        for cls_name, cls in exported.items()
        if isinstance(cls, type) and issubclass(cls, datamodules.VisionDataModule) and cls_name != "VisionDataModule"
    }
    plain = re.sub(r"[_-]", "", name).lower()
    if plain not in known:
        nearest = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
        from ...datamodules.doctor.formats import FORMATS

        if name in FORMATS:
            module = FORMATS[name].reader
            hint = f"for data in this format, write --format {name} PATH (check, show) or {module} --root PATH (export)"
        elif any(name in (path, path.rpartition("/")[2]) for path in experiment_names()) or Path(name).is_file():
            hint = f"for a configuration, write --config {name}"
        elif nearest:
            hint = f"did you mean {known[nearest[0]]!r}?"
        else:
            hint = f"use {', '.join(sorted(known.values()))}, or --config FILE"
        fail(f"{name}: no such data module; {hint}")
    return f"striate.datamodules.{known[plain]}"


def write_named(named: NamedData, folder: Path) -> str:
    """Write a configuration file for named data, and return its path."""
    path = folder / "named.yaml"
    section = {"class_path": named.class_path, "init_args": dict(named.init_args)}
    path.write_text(yaml.safe_dump({"data": section}, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(path)


def copy_data_section(path: str, folder: Path) -> Path:
    """Write a copy of a configuration that has only its data section.

    Raises:
        ArgumentError: If the file is not a YAML mapping.
    """
    try:
        content = get_loader("yaml")(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ArgumentError(None, str(error)) from error
    if not isinstance(content, dict):
        raise ArgumentError(None, "not a mapping")
    copy = folder / f"{len(list(folder.iterdir()))}.yaml"
    section = {"data": content["data"]} if "data" in content else {}
    copy.write_text(yaml.safe_dump(section, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return copy
