"""What is wrong with a configuration, in one line: the file, the key, and the nearest thing that would be right.

jsonargparse says that a configuration does not validate, in many lines and without the place. This module runs only
after that has happened, reads the same files once more, and looks for the cause.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from jsonargparse._parameter_resolvers import get_signature_parameters

# what a bare class name is short for, by the part of the configuration it stands in
HOMES = {"model": "striate.tasks", "data": "striate.datamodules", "trainer.callbacks": "pytorch_lightning.callbacks"}


def explain(
    message: str,
    arguments: Sequence[str],
    folder: Path,
    sections: Sequence[str] | None = None,
    options: Sequence[str] = (),
) -> str:
    """One line for a failed parse.

    Args:
        message: jsonargparse's.
        arguments: the command line behind the subcommand, with configuration files as absolute paths.
        folder: where the command was given; files below it are named relative to it.
        sections: those that the command reads; None: all.
        options: keys of the command's own.
    """
    try:
        found = (
            _ambiguous(message, arguments, folder)
            or next(_problems(arguments, folder, sections, options), None)
            or _wrong_value(message, arguments, folder)
        )
    except Exception:  # the explanation must not fail where the parse has
        found = None
    return found or condense(message)


def own_names_first(arguments: Sequence[str]) -> list[str]:
    """A command line on which bare names that torchvision has too, as in ``--model.model FCN``, mean striate's."""
    models = importlib.import_module("striate.models")
    taken = {cls.__name__ for cls in _subclasses("torch.nn.Module") if cls.__module__.startswith("torchvision.")}

    def full(key: str, value: str) -> str:
        own = key.startswith("--model.") and value in taken and value in models.__all__
        return f"striate.models.{value}" if own else value

    spelled = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        key, equals, value = argument.partition("=")
        spelled.append(f"{key}={full(key, value)}" if equals else full(before, argument))
    return spelled


def _subclasses(base: str) -> Iterator[type]:
    """All classes there are below one."""
    module, _, name = base.rpartition(".")
    found = [getattr(importlib.import_module(module), name)]
    while found:
        below = found.pop().__subclasses__()
        yield from below
        found += below


def _ambiguous(message: str, arguments: Sequence[str], folder: Path) -> str | None:
    """A bare name that several classes have."""
    match = re.search(r"Multiple subclasses with name (\w+)\..* avoid ambiguity: ([\w., ]+)\.", message)
    if match is None:
        return None
    name, paths = match[1], sorted(match[2].split(", "), key=lambda path: not path.startswith("striate."))
    place = next(filter(None, (_place(key, name, arguments, folder) for key in ("class_path", "model"))), "model")
    return f"{place}: {name!r} is the name of several classes; did you mean {paths[0]!r}, or {', '.join(paths[1:])}?"


def _wrong_value(message: str, arguments: Sequence[str], folder: Path) -> str | None:
    """A value of the wrong type, with the place where it was given."""
    parts = _key_value_expected(message)
    if parts is None:
        return None
    key, value, expected = parts
    place = _place(key.split(".")[-1], value, arguments, folder)
    choices = re.findall(r"'([^']+)'", expected) if expected.startswith("one of") else []
    near = difflib.get_close_matches(value, choices, n=1, cutoff=0.5)
    return f"{place or key}: {value!r} is not {expected}" + (f"; did you mean {near[0]!r}?" if near else "")


def _place(key: str, value: str, arguments: Sequence[str], folder: Path) -> str | None:
    """Where `key` was given this `value`: ``--a.b.key``, or ``file:line: a.b.key``."""
    configs, overrides = _split(arguments)
    for name, given in reversed(overrides):
        if name.split(".")[-1] == key and given is not None and given.strip("'\"") == value:
            return f"--{name}"
    for path in reversed(configs):
        root = yaml.compose(Path(path).read_text(encoding="utf-8"))
        for name, node in _scalars(root, ""):
            if name.split(".")[-1] == key and node.value == value:
                return f"{_shown(path, folder)}:{node.start_mark.line + 1}: {name}"
    return None


def _scalars(node: yaml.Node | None, where: str) -> Iterator[tuple[str, yaml.ScalarNode]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            yield from _scalars(value, f"{where}.{key.value}" if where else key.value)
    elif isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _scalars(item, f"{where}[{number}]")
    elif isinstance(node, yaml.ScalarNode):
        yield where, node


def _shown(path: str, folder: Path) -> str:
    return str(Path(path).relative_to(folder)) if Path(path).is_relative_to(folder) else path


def _problems(
    arguments: Sequence[str], folder: Path, sections: Sequence[str] | None = None, options: Sequence[str] = ()
) -> Iterator[str]:
    configs, overrides = _split(arguments)
    top = _top_level()
    merged: dict[str, Any] = {}
    for path in configs:
        text = Path(path).read_text(encoding="utf-8")
        path = _shown(path, folder)
        try:
            root = yaml.compose(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = str(mark.line + 1 if mark else 1)
            yield f"{path}:{line}: not valid YAML: {error.problem or error.context}"
            return
        if not isinstance(root, yaml.MappingNode):
            yield f"{path}: a configuration is a mapping with the keys model, data and trainer"
            return
        if sections is not None:  # the others may be wrong, and may take long to look at
            root.value = [(key, node) for key, node in root.value if key.value in sections or key.value not in top]
        for key, node, problem in _walk(root, "", top):
            yield f"{path}:{node.start_mark.line + 1}: {key}: {problem}"
        merged = _merge(merged, yaml.safe_load(text) or {})
    for key, value in overrides:
        if key.split(".")[0] in options:
            continue
        if wrong := _override_problem(key, value, merged):
            yield f"--{key}: {wrong}"
        _apply_class(merged, key, value)
    for part in ("model", "data"):
        if sections is not None and part not in sections:
            continue
        if part not in merged and not any(key.split(".")[0] == part for key, _ in overrides):
            yield f"no {part!r} given: add --config FILE (`striate experiments` lists the packaged ones)"


def _split(arguments: Sequence[str]) -> tuple[list[str], list[tuple[str, str | None]]]:
    configs: list[str] = []
    overrides: list[tuple[str, str | None]] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("-"):
            continue
        flag, equals, value = argument.partition("=")
        given: str | None = value if equals else (rest.pop(0) if rest and not rest[0].startswith("--") else None)
        if flag in ("--config", "-c"):
            configs.append(given or "")
        elif flag.startswith("--"):
            overrides.append((flag[2:].rstrip("+"), given))
    return configs, overrides


def _merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _top_level() -> dict[str, Any]:
    import pytorch_lightning as pl

    from .runs import RunSettings, WandbSettings

    trainer = _parameters(pl.Trainer) or {}
    return {
        "model": None,
        "data": None,
        "trainer": trainer,
        "run": _parameters(RunSettings),
        "wandb": _parameters(WandbSettings),
        "seed_everything": None,
        "ckpt_path": None,
        "weights_only": None,
        "verbose": None,
        "return_predictions": None,
    }


def _walk(node: yaml.Node, where: str, allowed: dict[str, Any] | None) -> Iterator[tuple[str, yaml.Node, str]]:
    """Every key that does not exist and every class that is not found, below a node."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from _walk(item, f"{where}[{number}]", None)
        return
    if not isinstance(node, yaml.MappingNode):
        return
    entries = {key.value: (key, value) for key, value in node.value}
    if "class_path" in entries:
        _, class_node = entries["class_path"]
        found, problem = imported(class_node.value, where)
        if problem:
            yield f"{where}.class_path", class_node, problem
        elif "init_args" in entries:
            yield from _walk(entries["init_args"][1], f"{where}.init_args", _parameters(found))
        for key in entries.keys() - {"class_path", "init_args", "dict_kwargs"}:
            yield f"{where}.{key}", entries[key][0], "stands beside class_path; arguments go under init_args"
        return
    for key, (key_node, value_node) in entries.items():
        name = f"{where}.{key}" if where else key
        if allowed is not None and key not in allowed:
            yield name, key_node, unknown(key, allowed)
            continue
        below = (allowed or {}).get(key)
        yield from _walk(value_node, name, below if isinstance(below, dict) else None)


def unknown(key: str, allowed: dict[str, Any] | Sequence[str]) -> str:
    """``no such key``, with the nearest one or, if none is near, all."""
    near = difflib.get_close_matches(key, list(allowed), n=1, cutoff=0.6)
    if near:
        return f"no such key; did you mean {near[0]!r}?"
    return f"no such key; there are {', '.join(sorted(allowed))}"


def imported(path: str, where: str, home: str = "") -> tuple[Any, str | None]:
    """The object a class path names, or what is wrong with the path; a bare name may be short for one in `home`."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        home = home or next((home for part, home in HOMES.items() if where.startswith(part)), "striate.tasks")
        if inspect.isclass(found := getattr(importlib.import_module(home), name, None)):
            return found, None  # as jsonargparse takes it
        names = [n for n in dir(importlib.import_module(home)) if n[0].isupper()]
        near = [n for n in names if n.lower() == name.lower()] or difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean '{home}.{near[0]}'?" if near else f"write it in full, such as '{home}.{names[0]}'"
        return None, f"{path!r} is not a class path; {hint}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        parent = module_name.rpartition(".")[0]
        near_modules: list[str] = []
        if parent:
            siblings = [n for n, v in vars(importlib.import_module(parent)).items() if inspect.ismodule(v)]
            near_modules = difflib.get_close_matches(module_name.rpartition(".")[2], siblings, n=1, cutoff=0.5)
        hint = f"; did you mean '{parent}.{near_modules[0]}.{name}'?" if near_modules else f" ({error})"
        return None, f"no module {module_name!r}{hint}"
    if hasattr(module, name):
        return getattr(module, name), None
    names = [n for n in dir(module) if not n.startswith("_")]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return None, f"{module_name!r} has no {name!r}" + (f"; did you mean '{module_name}.{near[0]}'?" if near else "")


def _apply_class(merged: dict[str, Any], key: str, value: str | None) -> None:
    """Put the class that ``--a.b CLASS`` names where the keys behind it, ``--a.b.c``, look for it."""
    if value is None or not re.fullmatch(r"([a-z_]\w*\.)*[A-Z]\w*", value):
        return
    homes = [""] if "." in value else ["striate.models.", "torch.optim.", "striate.tasks.", "striate.datamodules."]
    path = next((home + value for home in homes if inspect.isclass(imported(home + value, key)[0])), None)
    *above, last = [part for part in key.split(".") if part not in ("init_args", "class_path")]
    if path is None:
        return
    place: Any = merged
    for part in above:
        place = (place.get(part) or {}).setdefault("init_args", {}) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place[last] = {"class_path": path}


def _takes_module(thing: Any, name: str) -> bool:
    """Whether a parameter of a class is annotated as a ``Module``."""
    found = {parameter.name: parameter.annotation for parameter in get_signature_parameters(thing, "__init__")}
    return "Module" in str(found.get(name))


def _parameters(thing: Any) -> dict[str, Any] | None:
    """The names of what a class or function takes; None where they cannot be known."""
    try:
        found = (
            get_signature_parameters(thing, "__init__") if inspect.isclass(thing) else get_signature_parameters(thing)
        )
    except Exception:
        return None
    return {parameter.name: None for parameter in found if not parameter.name.startswith("*")} or None


def _override_problem(key: str, value: str | None, merged: dict[str, Any]) -> str | None:
    """What is wrong with ``--a.b.c value``; ``init_args`` may be left out, as on jsonargparse's command line."""
    parts = key.split(".")
    top = _top_level()
    if parts[0] not in top and parts[0] not in ("config", "print_config", "help"):
        return unknown(parts[0], [*top, "config", "print_config"])
    if len(parts) == 1 or parts[1] == "class_path":
        if parts[0] in ("model", "data") and value and not value.lstrip().startswith("{"):
            return imported(value, parts[0])[1]
        return None
    if isinstance(top.get(parts[0]), dict):
        if parts[1] not in top[parts[0]]:
            return unknown(parts[1], top[parts[0]])
        bare = parts[1] == "callbacks" and value and re.fullmatch(r"[A-Z]\w+", value)
        return imported(value, "trainer.callbacks")[1] if bare and value else _class_problem(value, "trainer.callbacks")
    current: Any = merged.get(parts[0])
    home = ""
    for part in [p for p in parts[1:] if p not in ("init_args", "dict_kwargs")]:
        if not isinstance(current, dict | Namespace) or "class_path" not in current:
            return None
        thing, problem = imported(current["class_path"], parts[0])
        allowed = None if problem else _parameters(thing)
        if allowed is None:
            return None
        if part == "class_path":
            break
        if part not in allowed:
            return unknown(part, allowed)
        current = (current.get("init_args") or {}).get(part)
        home = "striate.models" if _takes_module(thing, part) else ""
    # where the configuration has a class, a bare name may be short for one of its neighbours
    if parts[-1] == "optimizer":
        home = "torch.optim"
    elif isinstance(current, dict) and "class_path" in current:
        home = current["class_path"].rpartition(".")[0]
    if home and value and re.fullmatch(r"[A-Z]\w*", value) and not hasattr(importlib.import_module(home), value):
        kinds = "torch.nn.Module", "torch.optim.Optimizer"
        if not any(value == cls.__name__ for kind in kinds for cls in _subclasses(kind)):
            return imported(value, parts[0], home)[1]
    return _class_problem(value, parts[0])


def _class_problem(value: str | None, part: str) -> str | None:
    """What is wrong with a value that looks like a class path; None where it does not."""
    return imported(value, part)[1] if value and re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value) else None


def _key_value_expected(message: str) -> tuple[str, str, str] | None:
    """The keys, the value given and what was expected, where jsonargparse's message is about a type."""
    keys = re.findall(r'Parser key "([^"]+)"', message)
    given = re.findall(r"(?:Given|Got) value: (.*)", message)
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got value.*)?$", message, re.MULTILINE)
    expected = list(dict.fromkeys(filter(None, map(_readable, kinds))))
    problems = re.findall(r"Problem with given class_path '[^']+':\s*\n\s*(.+)", message)
    if any("Parser key" not in problem for problem in problems) or not (keys and given and expected):
        return None
    # the innermost value is named first; outer ones repeat the whole configuration
    return ".".join(keys), given[0].strip(), " or ".join(expected)


def condense(message: str) -> str:
    """jsonargparse's own message in one line: the innermost key, what was expected, and the value given."""
    if parts := _key_value_expected(message):
        key, value, expected = parts
        return f"{key}: {value!r} is not {expected}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    problems = re.findall(r"Problem with given class_path '[^']+':\s*\n\s*(.+)", message)
    # the last alternatives of a union say only that it was not meant
    problems = [one for one in problems if "does not correspond to a subclass" not in one] or problems
    objections = [
        line
        for line in re.findall(r"^ *- (.+)", message, re.MULTILINE)
        if not line.startswith(("Expected", "Not a valid subclass", "a class path", "a dict"))
    ]
    if not keys and objections:
        return objections[-1]
    text = problems[-1] if problems and not keys[1:] else message
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    return " ".join(([f"{keys[0]}:"] if problems and keys else []) + lines)


def _readable(kind: str) -> str:
    """A type as a user would say it; empty for what says nothing to one."""
    if kind.startswith(("path", "dot import", "config")):
        return ""
    if choices := re.search(r"Literal\[(.+)\]", kind):
        return f"one of {choices[1]}"
    name = re.sub(r"<class '([^']+)'>", r"\1", kind).strip().rstrip(".")
    if re.match(r"(collections\.abc\.|typing\.)?(Sequence|list|List|tuple)", name):
        return "a list, such as [1, 2]"
    named = {"NoneType": "null", "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text"}
    return named.get(name, name)
