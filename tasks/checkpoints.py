"""Checkpoints: what they may contain, whether their weights fit a model, and which weights a model has loaded."""

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.mixins import HyperparametersMixin
from pytorch_lightning.utilities.parsing import collect_init_args
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ..datamodules.augmentations.plain import transform_from_plain, transform_to_plain
from ..datamodules.images.bit_depth import ReadOptions
from ..models.checkpoint_files import (
    DamagedCheckpointError,
    UnsafeCheckpointError,
    read_file,
    usable_checkpoint,
)
from ..models.ops.checks import suggest
from ..models.weights import frozen_without_weights, summarize_loaded_weights
from .class_counts import check_same_classes
from .class_paths import class_path
from .compat import launched_from_config
from .interfaces import HasClassNames, HasReadOptions, HasValTransform

TRANSFORM_KEY = "val_transform"
READ_OPTIONS_KEY = "read_options"


def save_configuration(task: pl.LightningModule, frame: FrameType | None) -> None:
    """Save plain values as hyperparameters, so that checkpoints hold no pickled objects.

    Under the launcher, Lightning supplies the whole configuration, including that of nested modules, and a checkpoint
    rebuilds everything. A task built by hand has objects as arguments; only its plain values are saved.

    Args:
        task: The task.
        frame: Frame of the constructor of the base class.
    """
    if launched_from_config():
        task.save_hyperparameters(logger=False, frame=frame)
        return
    arguments: dict[str, Any] = {}
    for level in collect_init_args(frame, [], classes=(HyperparametersMixin,)):  # type: ignore[arg-type]
        arguments |= level
    if plain := [name for name, value in arguments.items() if is_plain(value)]:
        task.save_hyperparameters(*plain, frame=frame, logger=False)


def adopt_preparation(task: Any, data: Any) -> None:
    """Let a task read and transform images as its data module does, in `predict` and in checkpoints."""
    if isinstance(data, HasValTransform):
        task.val_transform = data.val_transform
    if isinstance(data, HasReadOptions):
        task.read_options = data.read_options


def task_entries(task: Any) -> dict[str, Any]:
    """Return a checkpoint's entries for prediction: the task's class, class names, transform and reading options."""
    entries = {"task": class_path(type(task)), "class_names": task.class_names}
    entries[READ_OPTIONS_KEY] = asdict(task.read_options)
    try:
        entries[TRANSFORM_KEY] = transform_to_plain(task.val_transform)
    except ValueError as error:
        rank_zero_warn(f"the checkpoint does not hold the transform, which `predict` in Python needs: {error}")
    return entries


def restore_entries(task: Any, checkpoint: Mapping[str, Any]) -> None:
    """Give a task the class names of a checkpoint, and transform and reading options unless its data has set them.

    Raises:
        ValueError: The class names differ from those of the data that the task is trained or evaluated on.
    """
    saved, data = list(checkpoint.get("class_names", [])), task.datamodule
    predicting = (
        data is None or task.trainer.state.fn == "predict"
    )  # the training data may be absent: do not ask for it
    if not predicting and isinstance(data, HasClassNames):
        check_same_classes(saved, list(data.class_names), type(data).__name__)
    task.class_names = saved or task.class_names
    if task.read_options == ReadOptions():
        task.read_options = ReadOptions.of(**checkpoint.get(READ_OPTIONS_KEY, {"scale_16bit": None, "page": None}))
    if task.val_transform is None and TRANSFORM_KEY in checkpoint:
        try:
            task.val_transform = transform_from_plain(checkpoint[TRANSFORM_KEY])
        except ValueError as error:
            rank_zero_warn(f"images are predicted without the transform of the training data: {error}")


def check_state_dict(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor], model: str) -> None:
    """Reject the weights of another model with one clear sentence.

    Args:
        saved: Weights of a checkpoint.
        expected: Weights of the model that is to load them.
        model: Name of the model.

    Raises:
        ValueError: Names or shapes differ.
    """
    shapes = [
        f"{key}: {tuple(saved[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in saved and saved[key].shape != expected[key].shape
    ]
    differences = [
        f"{len(names)} {kind} (such as {', '.join(names[:3])})"
        for kind, names in (
            ("weights missing", [key for key in expected if key not in saved]),
            ("weights unknown to the model", [key for key in saved if key not in expected]),
            ("of another shape", shapes),
        )
        if names
    ]
    if differences:
        raise ValueError(f"ckpt_path: the checkpoint does not match the model {model}, got {'; '.join(differences)}")


def read_checkpoint(path: Path, name: str) -> dict[str, Any]:
    """Read a checkpoint of Lightning, without running code from it; tensors are only mapped into memory.

    Args:
        path: The file.
        name: The argument with its value, for messages.

    Raises:
        FileNotFoundError: There is no such file; the message suggests the nearest.
        ValueError: The file is not a checkpoint of Lightning.
    """
    if not path.is_file():
        folder = path if path.is_dir() else path.parent
        siblings = sorted(map(str, [*folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")]))
        kind = "a folder, not a file" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{name}: {kind}" + (f"; {suggest(str(path), siblings)}" if siblings else ""))
    try:
        content = read_file(path, mmap=True)
    except UnsafeCheckpointError as error:
        reason = (
            "it holds pickled objects, which could run code when loaded; only weights and plain values are accepted"
        )
        raise ValueError(f"{name}: not a checkpoint: {reason}") from error
    except DamagedCheckpointError as error:
        other = usable_checkpoint(path)
        advice = f"use {other}" if other else "no other checkpoint of this experiment can be read"
        raise ValueError(
            f"{name}: not a checkpoint: it is damaged, or was not written by torch.save ({error}); {advice}"
        ) from error
    if not isinstance(content, dict) or "state_dict" not in content:
        raise ValueError(
            f"{name}: weights only, not the checkpoint of a run (no 'state_dict' inside); to start from weights, pass "
            "the file as `weights` of the backbone"
        )
    return content


def check_model_given(cls: type, path: str | Path, given: Mapping[str, Any]) -> None:
    """Require the model of a task that was built by hand, whose checkpoint cannot rebuild it.

    Args:
        cls: Class of the task.
        path: The checkpoint.
        given: Keyword arguments of the call.

    Raises:
        TypeError: The model is missing.
    """
    if "model" not in inspect.signature(cls).parameters or "model" in given:
        return
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if "model" not in content.get("hyper_parameters", {}):
        raise TypeError(
            f"model: must be given (the task of {path} was built by hand), got nothing; call "
            f"{cls.__name__}.load_from_checkpoint(path, model=…) or striate.load(path, model=…)"
        )


def is_plain(value: Any) -> bool:
    """Whether a value can be written as plain text: numbers, strings, and lists and mappings of them."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def report_loaded_weights(model: nn.Module, resumed: bool) -> None:
    """Log which weights a model has loaded, and warn where parts of it are frozen at random values.

    Args:
        model: The model as built.
        resumed: Whether a checkpoint will overwrite all weights.
    """
    for text in summarize_loaded_weights(model):
        rank_zero_info(f"Weights {text}")
    if not resumed and (parts := frozen_without_weights(model)):
        rank_zero_warn(
            f"training keeps random weights in {'; '.join(parts)} (frozen, and no weights were loaded): load weights, "
            "or set frozen_stages: 0 and freeze_norm: false"
        )
