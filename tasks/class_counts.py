"""Checks of classes, their number and their names: of the model, of the task, of a checkpoint and of the data."""

import unicodedata
from collections.abc import Sequence
from typing import Any

from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import nn

from .interfaces import HasNumClasses


def resolve_num_classes(model: nn.Module, num_classes: int | None, minimum: int, maximum: int | None) -> int:
    """Return the number of classes K of a task.

    Args:
        model: Its ``num_classes``, where it has one, must agree.
        num_classes: The task's argument; None: the model's number.
        minimum: Fewest classes that the task supports.
        maximum: Most classes that the task supports; None: any number.

    Raises:
        ValueError: K is unknown, differs from the model's, or is out of range.
    """
    name = type(model).__name__
    of_model = model.num_classes if isinstance(model, HasNumClasses) else None
    count = of_model if num_classes is None else num_classes
    if count is None:
        raise ValueError(f"num_classes: must be set (the model {name} does not define it), got None")
    if of_model is not None and count != of_model:
        raise ValueError(f"num_classes: the model {name} has {of_model} classes, got {count}; leave it out")
    if count < minimum or (maximum is not None and count > maximum):
        limits = f"be >= {minimum}" if maximum is None else f"be in [{minimum}, {maximum}]"
        raise ValueError(f"num_classes: must {limits}, got {count}")
    return count


def check_class_names(names: Sequence[str], data: str, num_classes: int, model: str, minimum: int) -> None:
    """Compare the classes of a data module with the number of classes of a model.

    Args:
        names: Class names of the data module.
        data: Class name of the data module, for the message.
        num_classes: K of the model.
        model: Class name of the model, for the message.
        minimum: Fewest classes that the task supports.

    Raises:
        ValueError: The numbers differ, or the data has too few classes.
    """
    listed = list_names(names)
    if len(names) < minimum:
        raise ValueError(f"class_names: {data} must have >= {minimum} classes, got {len(names)} ({listed})")
    if len(names) != num_classes:
        raise ValueError(
            f"num_classes: the data module {data} has {len(names)} classes ({listed}), got {num_classes} from the "
            f"model {model}; set num_classes: {len(names)}"
        )


def adopt_class_names(task: Any, names: list[str], data: str, training: bool) -> None:
    """Give a task the class names of a data module, after comparing their number with the model's.

    Evaluation keeps the names that the weights were trained with; `check_same_classes` compares them when it starts.

    Args:
        task: The task.
        names: Class names of the data module.
        data: Class name of the data module, for messages.
        training: Whether the data is for training.

    Raises:
        ValueError: The numbers differ, or the data has too few classes.
    """
    check_class_names(names, data, task.num_classes, type(task.model).__name__, task.min_classes)
    if training:
        check_same_classes(task.class_names, names, data, training=True)
    task.class_names = names if training else task.class_names or names


def check_same_classes(trained: Sequence[str], names: Sequence[str], data: str, training: bool = False) -> None:
    """Compare the classes that weights were trained with, and their order, with those of a data module.

    Args:
        trained: Class names from a checkpoint, or from an earlier training; empty: unknown, and not compared.
        names: Class names of the data module.
        data: Class name of the data module, for the message.
        training: The weights are only the start of a new training: warn.

    Raises:
        ValueError: The names or their order differ, and it is not for a new training.
    """
    pairs = [[unicodedata.normalize("NFC", name) for name in each] for each in (trained, names)]
    if not trained or pairs[0] == pairs[1]:
        return
    if training:
        rank_zero_warn(
            f"training assigns other classes to the outputs than before: {list_names(names)} ({data}) instead of "
            f"{list_names(trained)}; check their order if you continue the same task"
        )
        return
    first = next((i for i, pair in enumerate(zip(*pairs, strict=False)) if pair[0] != pair[1]), min(map(len, pairs)))
    raise ValueError(
        f"class_names: must be those of the checkpoint in its order, {list_names(trained)}, got {list_names(names)} "
        f"from {data} (the first difference is class {first}); rename or reorder the data's classes, or train again"
    )


def list_names(names: Sequence[str]) -> str:
    """Return the first ten of several names, for a message."""
    return ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
