"""What may go into a checkpoint, whether one fits a model, and what a model has from one."""

from collections.abc import Mapping
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor, nn

from ..models.weights import frozen_without_weights, summarize_loaded_weights


def compare_weights(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor], model: str) -> None:
    """Refuse the weights of another model with one clear sentence.

    Args:
        theirs: of a checkpoint.
        ours: of the model that is to take them.
        model: its name.

    Raises:
        ValueError: names or shapes differ.
    """
    shapes = [
        f"{key}: {tuple(theirs[key].shape)} instead of {tuple(ours[key].shape)}"
        for key in ours
        if key in theirs and theirs[key].shape != ours[key].shape
    ]
    problems = [
        f"{len(names)} {what} (such as {', '.join(names[:3])})"
        for what, names in (
            ("weights missing", [key for key in ours if key not in theirs]),
            ("weights unknown to the model", [key for key in theirs if key not in ours]),
            ("of another shape", shapes),
        )
        if names
    ]
    if problems:
        raise ValueError(f"the checkpoint is of another model than this {model}: {'; '.join(problems)}")


def is_plain(value: Any) -> bool:
    """Whether a value can be written as plain text: numbers, words, lists and mappings of them."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and is_plain(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def tell_weights(model: nn.Module, resumed: bool) -> None:
    """Say what weights a model was given, and warn where parts of it are frozen and were given none.

    Args:
        model: as built.
        resumed: whether a checkpoint is to fill it all.
    """
    for text in summarize_loaded_weights(model):
        rank_zero_info(f"Weights {text}")
    if not resumed and (parts := frozen_without_weights(model)):
        rank_zero_warn(
            f"frozen as it was drawn at random: {'; '.join(parts)}. The model has loaded no weights; unless you have "
            "done so yourself, give it some, or set frozen_stages: 0 and freeze_norm: false"
        )
