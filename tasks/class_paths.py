"""Hyperparameters of old checkpoints: find classes that have moved, and classes and arguments with a new name."""

import importlib
import io
import sys
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from .trusted_modules import denied_path, trust_only, untrusted

RENAMED_ARGUMENTS = {"append_truth": "append_ground_truth"}
"""New names of arguments by their old ones, which no other class has."""

RENAMED = {"TrainingRace": "ActivationComparison", "ActivationRace": "ActivationPair"}
"""New names of classes by their old ones."""


def load_with_current_classes(load: Callable[[Any], Any], path: str | Path) -> Any:
    """Load a checkpoint; if its model cannot be rebuilt, try again with class paths that exist today.

    Args:
        load: Loads a checkpoint from a path or a binary stream.
        path: The checkpoint.

    Raises:
        ValueError: If a class of striate no longer exists, or no longer takes the arguments of the checkpoint.
    """
    try:
        with trust_only(None):
            return load(path)
    except (ArgumentError, ValueError) as error:
        reason: ArgumentError | ValueError = error
        if denied := denied_path(str(error)):
            raise ValueError(untrusted(denied, f"{path}")) from error
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    hyperparameters = content.get("hyper_parameters", {})
    updated = update_class_paths(hyperparameters)
    if updated != hyperparameters:
        copy = io.BytesIO()
        torch.save({**content, "hyper_parameters": updated}, copy)
        copy.seek(0)
        try:
            return load(copy)
        except (ArgumentError, ValueError) as error:
            reason = error
    if isinstance(reason, ValueError):
        raise reason
    message = " ".join(str(reason).split())
    raise ValueError(f"{path}: the model cannot be rebuilt from the hyperparameters: {message}") from reason


def update_class_paths(value: Any) -> Any:
    """Copy nested hyperparameters, with each class path of striate and each argument replaced by one that exists."""
    if isinstance(value, dict):
        return {
            RENAMED_ARGUMENTS.get(key, key): current_path(item)
            if key in ("class_path", "_class_path")
            else update_class_paths(item)
            for key, item in value.items()
        }
    return [update_class_paths(item) for item in value] if isinstance(value, list) else value


def current_path(path: str) -> str:
    """Return the current class path of a striate class.

    >>> current_path("striate.models.fcn8s.FCN"), current_path("striate.models.ActivationRace")
    ('striate.models.FCN', 'striate.models.ActivationPair')

    Raises:
        ValueError: If the class no longer exists under any name.
    """
    module, _, name = path.rpartition(".")
    if not path.startswith("striate.") or _has(module, name):
        return path
    part = ".".join(path.split(".")[:2])
    name = RENAMED.get(name, name)
    if not _has(part, name):
        raise ValueError(f"checkpoint: the class {path} no longer exists; rebuild the model and load the weights only")
    return f"{part}.{name}"


def class_path(cls: type) -> str:
    """Return the full name of a class, for `find_class`; that from its package if the package exports it."""
    package = cls.__module__.rpartition(".")[0]
    exported = getattr(sys.modules.get(package), cls.__name__, None) is cls
    return f"{package if exported else cls.__module__}.{cls.__qualname__}"


def find_class(path: str) -> type:
    """Return the class that a checkpoint names. Only modules of striate are imported for that.

    Raises:
        ValueError: There is no such class, or its module has not been imported yet.
    """
    module, _, name = current_path(path).rpartition(".")
    if module.startswith("striate."):
        importlib.import_module(module)
    found = getattr(sys.modules.get(module), name, None)
    if not isinstance(found, type):
        raise ValueError(
            f"checkpoint: must name a class that has been imported, got {path}; import {module} first, since a "
            "checkpoint may not run code of its choice"
        )
    return found


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False
