"""Contents of a checkpoint: what may go in, whether its weights fit a model, and which weights a model has loaded."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ..models.weights import frozen_without_weights, summarize_loaded_weights


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


def read_hyperparameters(path: str | Path) -> dict[str, Any]:
    """Read the hyperparameters of a checkpoint, without its tensors; empty if it has none."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content.get("hyper_parameters", {})


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
