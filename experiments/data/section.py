"""A data module from a YAML's ``data`` section, or from its name, with overrides: without building a model."""

import contextlib
import difflib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import pytorch_lightning as pl
import yaml
from jsonargparse import Namespace, get_loader
from pytorch_lightning.cli import LightningArgumentParser

from ... import datamodules
from ..launcher.cli import accept_none, user_message
from ..launcher.explain import explain, imported
from ..launcher.main import experiment_names, fail, find_config

# a command line of `striate fit` is taken as it is; what it says beside the data is passed over
_OTHERS = ("model", "trainer", "run", "wandb", "seed_everything", "ckpt_path", "weights_only", "verbose")


@dataclass(frozen=True)
class Option:
    """A key of a command's own.

    Attributes:
        kind: its type, as jsonargparse understands it.
        default: its value where it is not given.
    """

    kind: Any
    default: Any = None


class Call(NamedTuple):
    """A command line, understood.

    Attributes:
        options: the command's own keys.
        positionals: what stands without a key, less the name of the data module.
        name: of the configuration or the data module, for titles and files.
        parser, config: what builds the data module.
    """

    options: Namespace
    positionals: list[str]
    name: str
    parser: "DataParser"
    config: Namespace

    def build(self) -> pl.LightningDataModule:
        """The data module."""
        return self.parser.instantiate_classes(self.config).data


class DataParser(LightningArgumentParser):
    """A parser of the ``data`` section and of a command's own keys, whose errors are one line."""

    own: Sequence[str] = ()
    """The command's own keys."""
    said: Sequence[str] = ()
    """The command line, with the configurations as they are, and ``data.`` before each key."""
    bare: Sequence[str] = ()
    """The keys that were given without ``data.``."""
    folder = Path()
    """Where the command was given: jsonargparse changes the working folder while it reads a file."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # jsonargparse makes others of this class by itself
        super().__init__(*args, allow_abbrev=False, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Explain what is wrong with the call, and exit with 2."""
        answer = explain(message, self.said, self.folder, ("data",), self.own)
        # a key that was given without `data.` may have been meant as one of the command's own
        if missed := re.match(r"--data\.(\w+): no such key", answer):
            near = difflib.get_close_matches(missed[1], [*self.own, *re.findall("mean '(.+)'", answer)], n=1)
            if missed[1] in self.bare and near and near[0] in self.own:
                answer = f"--{missed[1]}: no such key; did you mean '{near[0]}'?"
        fail(answer)
        raise SystemExit(2)


class Named(NamedTuple):
    """Data that the command line names otherwise than by a configuration.

    Attributes:
        name: what to call it.
        class_path: of its data module.
        init_args: its arguments, which those of the command line replace.
        options: defaults of the command's own keys, for this data.
    """

    name: str
    class_path: str
    init_args: Mapping[str, Any] = {}
    options: Mapping[str, Any] = {}


def understand(
    arguments: Sequence[str],
    options: Mapping[str, Option],
    name_data: Callable[[Mapping[str, str], list[str]], Named | None] = lambda given, positionals: None,
) -> Call:
    """Parse a command line of ``striate data``.

    ``[NAME] --config FILE … --KEY VALUE …``. NAME is a data module (``digit_scenes``, ``DigitScenes``,
    ``striate.datamodules.DigitScenes``, ``mine.Data``); a KEY is one of the command's own, or of the data section, with
    or without ``data.`` before it.

    Args:
        arguments: the command line behind the command's name.
        options: the command's own keys.
        name_data: a further way to name the data: given all keys and the words without one, from which it takes its
            own; None: this call does not use it.
    """
    accept_none()
    sys.path.append(str(Path.cwd()))  # so that a YAML can name the classes of a file lying here
    positionals, given = split_arguments(arguments)
    named = name_data(dict(given), positionals)
    configs: list[str] = []
    overrides: list[str] = []
    bare: list[str] = []
    for key, value in given:
        first = key.split(".")[0]
        if key in ("config", "c"):
            configs.append(_config_file(value))
        elif first in options:
            overrides.append(f"--{key}={value}")
        elif first.rstrip("+") not in _OTHERS:
            bare += [key] * (first != "data")
            overrides.append(f"--{key}={value}" if first == "data" else f"--data.{key}={value}")
    with tempfile.TemporaryDirectory() as folder:
        name = Path(configs[-1]).stem if configs else ""
        whole = [text.partition("=")[2] for text in overrides if text.startswith("--data=")]
        if named is None and not configs and not whole:
            if not positionals:
                fail("no data: give --config FILE, or the name of a data module, such as digit_scenes")
            given_name = positionals.pop(0)
            named = Named(given_name.rpartition(".")[2], _class_path(given_name))
        if named is not None:
            name = named.name
            configs = [_written(named, Path(folder))]
        elif not name:
            name = whole[-1].rpartition(".")[2] if re.fullmatch(r"[\w.]+", whole[-1]) else "data"
        said = [word for path in configs for word in ("--config", path)] + overrides
        # of the class: the parsers that jsonargparse makes by itself are to know them too
        DataParser.own, DataParser.said, DataParser.bare, DataParser.folder = list(options), said, bare, Path.cwd()
        parser = DataParser()
        parser.add_lightning_class_args(pl.LightningDataModule, "data", subclass_mode=True)
        for key, option in options.items():
            default = option.default if named is None else named.options.get(key, option.default)
            parser.add_argument(f"--{key}", type=option.kind, default=default)
        merged = [f"--config={_data_alone(path, Path(folder), parser)}" for path in configs]
        parser.add_argument("--config", action="config")
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="(?s).*Dump of a value that does not round-trip.*")
            config = parser.parse_args([*merged, *overrides])
    own = Namespace(**{key: config.pop(key) for key in options})
    config.pop("config", None)
    return Call(own, positionals, name, parser, config)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """A command line as words without a key, and pairs of a key and its value.

    >>> split_arguments(["coco", "--a.b", "-1", "--c=2", "out"])
    (['coco', 'out'], [('a.b', '-1'), ('c', '2')])
    """
    positionals: list[str] = []
    given: list[tuple[str, str]] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") and word != "-c":
            positionals.append(word)
            continue
        key, equals, value = word.lstrip("-").partition("=")
        if not equals:
            if not rest or rest[0].startswith("--"):
                fail(f"{word}: no value given")
            value = rest.pop(0)
        given.append((key, value))
    return positionals, given


def _config_file(name: str) -> str:
    try:
        return str(find_config(name).resolve())
    except FileNotFoundError as error:
        fail(str(error))
        raise SystemExit(2) from error


def _class_path(name: str) -> str:
    """The class path that a name stands for: of a data module of striate in any spelling, or a class path as it is."""
    if re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+", name) and not name.endswith((".yaml", ".yml")):
        thing, problem = imported(name, "data")
        if not problem and not (isinstance(thing, type) and issubclass(thing, pl.LightningDataModule)):
            problem = "not a data module"
        if problem:
            fail(f"{name}: {problem}")
        return name
    known = {
        thing.lower(): thing
        for thing in datamodules.__all__
        if isinstance(getattr(datamodules, thing), type)
        and issubclass(getattr(datamodules, thing), datamodules.VisionDataModule)
        and thing != "VisionDataModule"
    }
    plain = re.sub(r"[_-]", "", name).lower()
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.6)
        if any(name in (path, path.rpartition("/")[2]) for path in experiment_names()) or Path(name).is_file():
            there = f"a configuration is given by --config {name}"
        elif near:
            there = f"did you mean {known[near[0]]!r}?"
        else:
            there = f"there are {', '.join(sorted(known.values()))}. A YAML is given by --config FILE"
        fail(f"no data module {name!r}; {there}")
    return f"striate.datamodules.{known[plain]}"


def _written(named: Named, folder: Path) -> str:
    """A configuration file for named data."""
    path = folder / "named.yaml"
    section = {"class_path": named.class_path, "init_args": dict(named.init_args)}
    path.write_text(yaml.safe_dump({"data": section}, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return str(path)


def _data_alone(path: str, folder: Path, parser: DataParser) -> Path:
    """A copy of a configuration that has only its data section."""
    try:
        content = get_loader("yaml")(Path(path).read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        parser.error(str(error))
    if not isinstance(content, dict):
        parser.error("not a mapping")
    copy = folder / f"{len(list(folder.iterdir()))}.yaml"
    section = {"data": content["data"]} if "data" in content else {}
    copy.write_text(yaml.safe_dump(section, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return copy


INTERRUPTED = 130  # the exit code of what Ctrl-C ends: 128 + the number of its signal, as shells have it


@contextlib.contextmanager
def answered(interrupted: str, code: int = 1) -> Iterator[None]:
    """Answer what the user can mend in one line, without traceback.

    Args:
        interrupted: what to say at Ctrl-C, which exits with 130.
        code: to exit with where something is wrong.
    """
    try:
        yield
    except KeyboardInterrupt:
        fail(interrupted, code=INTERRUPTED)
    except (ValueError, TypeError, OSError, ImportError, RuntimeError) as error:
        message = user_message(error)
        if message is None or os.environ.get("STRIATE_TRACEBACK"):
            raise
        fail(message, code=code)
