"""Class paths in the hyperparameters of old checkpoints: find classes that have moved or have a new name."""

import importlib
import io
from argparse import ArgumentError
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

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
        return load(path)
    except (ArgumentError, ValueError) as error:
        reason: ArgumentError | ValueError = error
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
    """Copy nested hyperparameters, with each class path of striate replaced by one that exists."""
    if isinstance(value, dict):
        return {
            key: current_path(item) if key in ("class_path", "_class_path") else update_class_paths(item)
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


def _has(module: str, name: str) -> bool:
    try:
        return hasattr(importlib.import_module(module), name)
    except ImportError:
        return False
