"""Class paths of a configuration: import the class, list its parameters, and suggest the nearest spelling."""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import pytorch_lightning as pl
from jsonargparse import ArgumentParser

from ...tasks.trusted_modules import is_trusted

# the package that a bare class name is looked up in, by the part of the configuration
HOMES = {"model": "striate.tasks", "data": "striate.datamodules", "trainer.callbacks": "pytorch_lightning.callbacks"}


def import_class(path: str, key: str, home: str = "") -> tuple[Any, str | None]:
    """Import the object that a class path names.

    Args:
        path: Class path, or a bare name from `home`.
        key: Key of the configuration at which the path stands.
        home: Package of bare names; default: that of `HOMES` for the key.

    Returns:
        The object and None; or None and what is wrong with the path.
    """
    module_name, _, name = path.rpartition(".")
    if not is_trusted(path):
        return None, f"{path!r} is in no package of --trusted_modules; add its package if you trust its code"
    if not module_name:
        home = home or next((home for part, home in HOMES.items() if key.startswith(part)), "striate.tasks")
        package = importlib.import_module(home)
        if inspect.isclass(cls := getattr(package, name, None)):
            return cls, None  # jsonargparse takes it too
        names = [known for known in dir(package) if known[0].isupper()]
        nearest = [known for known in names if known.lower() == name.lower()]
        nearest = nearest or difflib.get_close_matches(name, names, 1, 0.5)
        hint = f"did you mean '{home}.{nearest[0]}'?" if nearest else f"write it in full, such as '{home}.{names[0]}'"
        return None, f"{path!r} is not a class path; {hint}"
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        parent, _, last = module_name.rpartition(".")
        siblings = vars(importlib.import_module(parent)).items() if parent else ()
        modules = [known for known, value in siblings if inspect.ismodule(value)]
        nearest = difflib.get_close_matches(last, modules, n=1, cutoff=0.5)
        hint = f"; did you mean '{parent}.{nearest[0]}.{name}'?" if nearest else f" ({error})"
        return None, f"no module {module_name!r}{hint}"
    if hasattr(module, name):
        return getattr(module, name), None
    nearest = difflib.get_close_matches(name, [known for known in dir(module) if known[0] != "_"], n=1, cutoff=0.5)
    hint = f"; did you mean '{module_name}.{nearest[0]}'?" if nearest else ""
    return None, f"{module_name!r} has no {name!r}{hint}"


class UnknownKey(NamedTuple):
    """A key that does not exist; as text, ``no such key`` with the suggestion, or with all allowed keys without one.

    Attributes:
        key: The last part of the key.
        suggestion: The nearest allowed key. None: none is near.
        allowed: The allowed keys.
    """

    key: str
    suggestion: str | None
    allowed: Sequence[str] = ()

    @classmethod
    def among(cls, allowed: Iterable[str], key: str) -> Self:
        """Look for the allowed key that is nearest to an unknown one."""
        allowed = sorted(allowed)
        return cls(key, next(iter(difflib.get_close_matches(key, allowed, n=1, cutoff=0.6)), None), allowed)

    def __str__(self) -> str:
        hint = f"use {', '.join(self.allowed)}" if self.suggestion is None else f"did you mean {self.suggestion!r}?"
        return f"no such key; {hint}"


def find_class(name: str) -> Any:
    """The class or function that a class path or a bare name stands for; None if there is none."""
    if not re.fullmatch(r"([A-Za-z_]\w*\.)+[A-Za-z_]\w*|[A-Z]\w*", name) or not is_trusted(name):
        return None
    if "." in name:
        try:
            return getattr(importlib.import_module(name.rpartition(".")[0]), name.rpartition(".")[2], None)
        except ImportError:
            return None
    for home in (
        "striate.models",
        "torch.optim",
        "torch.optim.lr_scheduler",
        "pytorch_lightning.loggers",
        *HOMES.values(),
    ):
        if inspect.isclass(cls := getattr(importlib.import_module(home), name, None)):
            return cls
    bases = (importlib.import_module("torch").nn.Module, pl.LightningDataModule, pl.Callback)
    return next((cls for base in bases for cls in subclasses(base) if cls.__name__ == name), None)


def parameters(thing: Any) -> dict[str, Any] | None:
    """Names of the parameters of a class or function, inherited ones included; None if they cannot be known.

    >>> from pytorch_lightning.callbacks import Timer
    >>> list(parameters(Timer))
    ['duration', 'interval', 'verbose']
    """
    _, names = parse_signature(thing)
    return {name.partition(".")[0]: None for name in names} or None


def default_arguments(thing: Any) -> dict[str, Any]:
    """Defaults of the parameters of a class or function, as a YAML file would have them.

    >>> default_arguments(find_class("AdamW"))["betas"]
    [0.9, 0.999]
    """
    parser, _ = parse_signature(thing)
    defaults = parser.get_defaults(skip_validation=True).as_dict()
    return {name: list(value) if isinstance(value, tuple) else value for name, value in defaults.items()}


def parse_signature(thing: Any) -> tuple[ArgumentParser, list[str]]:
    """A parser of the arguments of a class or function, and their keys; none for an unusual signature."""
    parser = ArgumentParser()
    try:
        add = parser.add_class_arguments if inspect.isclass(thing) else parser.add_function_arguments
        return parser, add(thing, fail_untyped=False)
    except Exception:  # any error of an unusual signature
        return ArgumentParser(), []


def takes_module(cls: Any, name: str) -> bool:
    """Whether a parameter of a class is annotated as a ``Module``."""
    for base in inspect.getmro(cls) if inspect.isclass(cls) else ():
        constructor = vars(base).get("__init__")
        parameter = inspect.signature(constructor).parameters.get(name) if constructor else None
        if parameter is not None:
            return "Module" in str(parameter.annotation)
    return False


def subclasses(cls: type) -> Iterator[type]:
    """Yield all subclasses of a class that are imported, at any depth."""
    classes = [cls]
    while classes:
        below: list[type] = classes.pop().__subclasses__()
        yield from below
        classes += below


def prefer_own_classes(arguments: Sequence[str]) -> list[str]:
    """Complete bare names of models that torchvision has too, as in ``--model.model FCN``, to striate's class path."""
    models = importlib.import_module("striate.models")
    module = importlib.import_module("torch.nn").Module
    ambiguous = {cls.__name__ for cls in subclasses(module) if cls.__module__.startswith("torchvision.")}
    ambiguous &= set(models.__all__)

    def complete(key: str, value: str) -> str:
        return f"striate.models.{value}" if key.startswith("--model.") and value in ambiguous else value

    completed = []
    for before, argument in zip(["", *arguments], arguments, strict=False):
        key, equals, value = argument.partition("=")
        completed.append(f"{key}={complete(key, value)}" if equals else complete(before, argument))
    return completed
