"""Explain a configuration that does not parse in one line: the key, its file and line, and the nearest valid choice.

jsonargparse reports a configuration that does not validate in many lines and without the position. This module is
imported only after that has happened; it reads the same files once more and looks for the cause.
"""

import importlib
import inspect
import re
from collections.abc import Iterator
from itertools import takewhile
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace

from ...tasks.trusted_modules import denied_path, untrusted
from .argument_origins import CommandLine
from .class_paths import UnknownKey, find_class, import_class, parameters, subclasses, takes_module
from .messages import did_you_mean

# what the launcher itself reads beside the sections
TOP_LEVEL = ("seed_everything", "ckpt_path", "weights_only", "verbose", "return_predictions")


class Explanation(NamedTuple):
    """What is wrong with a key; as text, one line.

    Attributes:
        key: The key with its position: an option of the command line, or a key of a file and the line.
        problem: What is wrong with it.
    """

    key: str
    problem: str | UnknownKey

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}"


def explain(message: str, command_line: CommandLine) -> Explanation | str:
    """One line for a failed parse.

    Args:
        message: The message of jsonargparse.
        command_line: The arguments that were parsed.
    """
    try:
        if denied := denied_path(message):
            return untrusted(denied, command_line.find_value("class_path", denied) or "in the configuration")
        explanation: Explanation | str | None = (
            ambiguous_name(message, command_line)
            or next(problems(command_line), None)
            or wrong_value(message, command_line)
        )
    except Exception:  # an explanation that fails must not hide the error
        explanation = None
    return explanation or condense(message)


def ambiguous_name(message: str, command_line: CommandLine) -> str | None:
    """Explain a bare name that several classes have."""
    match = re.search(r"Multiple subclasses with name (\w+)\..* avoid ambiguity: ([\w., ]+)\.", message)
    if match is None:
        return None
    name, paths = match[1], sorted(match[2].split(", "), key=lambda path: not path.startswith("striate."))
    keys = (command_line.find_value(key, name) for key in ("class_path", "model"))
    key = next((key for key in keys if key), "model")
    return f"{key}: several classes are named {name!r}; did you mean {paths[0]!r}, or {', '.join(paths[1:])}?"


def wrong_value(message: str, command_line: CommandLine) -> str | None:
    """Explain a value of the wrong type."""
    mismatch = type_mismatch(message)
    if mismatch is None:
        return None
    key, value, expected = mismatch
    choices = re.findall(r"'([^']+)'", expected) if expected.startswith("one of") else []
    key = command_line.find_value(key.split(".")[-1], value) or key
    return f"{key}: must be {expected}, got {value!r}{did_you_mean(value, choices)}"


def problems(command_line: CommandLine) -> Iterator[Explanation | str]:
    """Yield unknown keys, classes that do not exist, and missing sections, each in one line."""
    sections = command_line.sections
    top = top_level()
    merged: dict[str, Any] = {}
    for path in command_line.configs:
        text = path.read_text(encoding="utf-8")
        try:
            root = yaml.compose(text)
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            yield f"{command_line.display(path)}, line {line}: not valid YAML: {error.problem or error.context}"
            return
        if not isinstance(root, yaml.MappingNode):
            yield f"{command_line.display(path)}: must be a mapping with the keys model, data and trainer"
            return
        if sections is not None:  # the others may be wrong, and may take long to look at
            root.value = [(key, node) for key, node in root.value if key.value in sections or key.value not in top]
        for key, node, problem in yaml_problems(root, "", top):
            yield Explanation(command_line.at_line(key, path, node), problem)
        merged = merge(merged, yaml.safe_load(text) or {})
    for key, value in command_line.overrides:
        if key.split(".")[0] in command_line.options:
            continue
        if objection := override_problem(key, value, merged):
            yield Explanation(f"--{key}", objection)
        apply_class(merged, key, value)
    for section in ("model", "data"):
        if sections is not None and section not in sections:
            continue
        if section not in merged and not any(key.split(".")[0] == section for key, _ in command_line.overrides):
            yield f"{section}: missing; add --config FILE (`striate experiments` lists the packaged ones)"


def merge(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Merge nested dictionaries; the values of `top` win."""
    merged = dict(base)
    for key, value in top.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def top_level() -> dict[str, Any]:
    """Keys at the top of a configuration, each with the keys below it; None where these depend on a class path."""
    import pytorch_lightning as pl

    from .runs import RunSettings, WandbSettings

    settings = {"trainer": pl.Trainer, "run": RunSettings, "wandb": WandbSettings}
    names = {name: parameters(cls) or {} for name, cls in settings.items()}
    return {"model": None, "data": None, **names, **dict.fromkeys(TOP_LEVEL)}


def yaml_problems(
    node: yaml.Node, position: str, allowed: dict[str, Any] | None
) -> Iterator[tuple[str, yaml.Node, str | UnknownKey]]:
    """Yield each key that does not exist and each class that is not found below a node: key, node, problem."""
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            yield from yaml_problems(item, f"{position}[{number}]", None)
        return
    if not isinstance(node, yaml.MappingNode):
        return
    entries = {key.value: (key, value) for key, value in node.value}
    if "class_path" in entries:
        _, class_node = entries["class_path"]
        cls, problem = import_class(class_node.value, position)
        if problem:
            yield f"{position}.class_path", class_node, problem
        elif "init_args" in entries:
            yield from yaml_problems(entries["init_args"][1], f"{position}.init_args", parameters(cls))
        for key in entries.keys() - {"class_path", "init_args", "dict_kwargs"}:
            yield f"{position}.{key}", entries[key][0], "not allowed beside class_path; move it under init_args"
        return
    for key, (key_node, value_node) in entries.items():
        name = f"{position}.{key}" if position else key
        if allowed is not None and key not in allowed:
            yield name, key_node, UnknownKey.among(allowed, key)
            continue
        below = (allowed or {}).get(key)
        yield from yaml_problems(value_node, name, below if isinstance(below, dict) else None)


def apply_class(merged: dict[str, Any], key: str, value: str | None) -> None:
    """Store the class that ``--a.b CLASS`` names in the configuration, for the keys ``--a.b.c`` that follow."""
    cls = find_class(value) if value is not None else None
    if not inspect.isclass(cls):
        return
    *above, last = [part for part in key.split(".") if part not in ("init_args", "class_path")]
    section: Any = merged
    for part in above:
        section = (section.get(part) or {}).setdefault("init_args", {}) if isinstance(section, dict) else None
    if isinstance(section, dict):
        section[last] = {"class_path": f"{cls.__module__}.{cls.__qualname__}"}


def override_problem(key: str, value: str | None, merged: dict[str, Any]) -> str | UnknownKey | None:
    """What is wrong with ``--a.b.c value``; ``init_args`` may be left out, as on jsonargparse's command line."""
    parts = key.split(".")
    section = parts[0]
    top = top_level()
    if section not in top and section not in ("print_config", "help"):
        return UnknownKey.among([*top, "config", "print_config"], section)
    if len(parts) == 1 or parts[1] == "class_path":
        names_class = section in ("model", "data") and value and not value.lstrip().startswith("{")
        return import_class(value, section)[1] if names_class and value else None
    if isinstance(top.get(section), dict):
        if parts[1] not in top[section]:
            return UnknownKey.among(top[section], parts[1])
        bare = parts[1] == "callbacks" and value and re.fullmatch(r"[A-Z]\w+", value)
        return (import_class(value, "trainer.callbacks")[1] if value else None) if bare else class_problem(value)
    return nested_problem(parts, value, merged)


def nested_problem(parts: list[str], value: str | None, merged: dict[str, Any]) -> str | UnknownKey | None:
    """Describe the error in a key below ``model`` or ``data``, given the classes that the configuration names."""
    current: Any = merged.get(parts[0])
    home = ""
    for part in [part for part in parts[1:] if part not in ("init_args", "dict_kwargs")]:
        if not isinstance(current, dict | Namespace) or "class_path" not in current:
            return None
        cls, problem = import_class(current["class_path"], parts[0])
        allowed = None if problem else parameters(cls)
        if allowed is None:
            return None
        if part == "class_path":
            break
        if part not in allowed:
            return UnknownKey.among(allowed, part)
        current = (current.get("init_args") or {}).get(part)
        home = "striate.models" if takes_module(cls, part) else ""
    # where the configuration has a class, a bare name may be short for one of its neighbors
    if parts[-1] == "optimizer":
        home = "torch.optim"
    elif isinstance(current, dict) and "class_path" in current:
        home = current["class_path"].rpartition(".")[0]
    if home and value and re.fullmatch(r"[A-Z]\w*", value) and not hasattr(importlib.import_module(home), value):
        torch = importlib.import_module("torch")
        known = (cls.__name__ for base in (torch.nn.Module, torch.optim.Optimizer) for cls in subclasses(base))
        if value not in known:
            return import_class(value, parts[0], home)[1]
    return class_problem(value)


def class_problem(value: str | None) -> str | None:
    """What is wrong with a value that looks like a class path; None for other values."""
    is_path = value and re.fullmatch(r"[a-z_]\w*(\.\w+)*\.[A-Z]\w*", value)
    return import_class(value, "")[1] if is_path and value else None


def innermost(message: str) -> tuple[list[str], str]:
    """The keys that lead to the innermost ``Parser key`` of a message, and the lines below it."""
    lines = message.splitlines()
    indents = [len(line) - len(line.lstrip(" -")) for line in lines]
    found = {number: match[1] for number, line in enumerate(lines) if (match := re.search(r'Parser key "(.+?)"', line))}
    if not found:
        return [], message
    last = max(found)
    keys: list[str] = []
    indent = indents[last] + 1
    for number in sorted(found, reverse=True):
        if indents[number] < indent:
            keys.insert(0, found[number])
            indent = indents[number]
    below = range(last + 1, len(lines))
    return keys, "\n".join(lines[n] for n in takewhile(lambda n: indents[n] > indents[last] or not lines[n], below))


def type_mismatch(message: str) -> tuple[str, str, str] | None:
    """The key, the value and the expected type, if the message of jsonargparse is about a type."""
    keys, reason = innermost(message)
    values = re.findall(r"(?:Given|Got) value: (.+?)(?:\. Got value.*)?$", reason, re.MULTILINE)
    kinds = re.findall(r"Expected an? (.+?)(?:\. Got value.*)?$", reason, re.MULTILINE)
    expected = list(dict.fromkeys(filter(None, map(readable_type, kinds))))
    class_problems = re.findall(r"Problem with given class_path '[^']+':\s*\n\s*(.+)", message)
    if any("Parser key" not in problem for problem in class_problems) or not (keys and values and expected):
        return None
    # the innermost value is named first; outer ones repeat the whole configuration
    return ".".join(keys), values[0].strip(), " or ".join(expected)


def condense(message: str) -> str:
    """The message of jsonargparse in one line: the innermost key, the expected type, and the value."""
    if mismatch := type_mismatch(message):
        key, value, expected = mismatch
        return f"{key}: must be {expected}, got {value!r}"
    keys = re.findall(r'Parser key "([^"]+)"', message)
    class_problems = re.findall(r"Problem with given class_path '[^']+':\s*\n\s*(.+)", message)
    # the last alternatives of a union say only that they were not meant
    class_problems = [text for text in class_problems if "does not correspond to a subclass" not in text] or (
        class_problems
    )
    objections = [
        line
        for line in re.findall(r"^ *- (.+)", message, re.MULTILINE)
        if not line.startswith(("Expected", "Not a valid subclass", "a class path", "a dict"))
    ]
    objections = [line for line in objections if "does not correspond to a subclass" not in line] or objections
    if not keys and objections:
        return objections[-1]
    text = class_problems[-1] if class_problems and not keys[1:] else message
    lines = [line.strip(" -") for line in text.splitlines() if line.strip(" -")]
    return " ".join(([f"{keys[0]}:"] if class_problems and keys else []) + lines)


def readable_type(kind: str) -> str:
    """A type in plain words; empty for kinds that do not help a user."""
    if kind.startswith(("path", "dot import", "config")):
        return ""
    if choices := re.search(r"Literal\[(.+)\]", kind):
        return f"one of {choices[1]}"
    name = re.sub(r"<class '([^']+)'>", r"\1", kind).strip().rstrip(".")
    if re.match(r"(collections\.abc\.|typing\.)?(Sequence|list|List|tuple)", name):
        return "a list such as [1, 2]"
    words = {"NoneType": "null", "int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
    return words.get(name, name)
