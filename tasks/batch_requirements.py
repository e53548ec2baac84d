"""Fields that the batches of each task must have, and the messages for batches of another task."""

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args, get_type_hints

from torch import Tensor


class Requirement(NamedTuple):
    """What a task requires of a batch.

    Attributes:
        fields: Required fields.
        description: The fields in words, for messages.
        datamodules: Data modules that provide them.
    """

    fields: tuple[str, ...]
    description: str
    datamodules: tuple[str, ...]


REQUIREMENTS = {
    "classification": Requirement(("label",), "one label per image", ("ImageFolder", "Manifest")),
    "localization": Requirement(
        ("label", "box"),
        "one label and one box per image",
        ("CocoLocalization", "VOCLocalization", "LocalizationManifest"),
    ),
    "semantic_segmentation": Requirement(("mask",), "one class mask per image", ("MaskFolder", "VOCSegmentation")),
    "detection": Requirement(("target",), "labeled boxes", ("CocoDetection", "VOCDetection", "YoloDetection")),
    "instance_segmentation": Requirement(
        ("target",),
        "labeled boxes with masks",
        ("CocoDetection with task: instance_segmentation", "VOCInstances", "InstanceMasks"),
    ),
}
"""Kind of task -> what it requires of a batch."""


def task_of_batch(batch: Mapping[str, Any]) -> str | None:
    """The kind of task that a batch of at least one image belongs to; None: it has no targets.

    >>> task_of_batch({"image": 0, "label": 0}), task_of_batch({"image": 0, "label": 0, "box": 0})
    ('classification', 'localization')
    """
    if "target" in batch:
        return "instance_segmentation" if "masks" in batch["target"][0] else "detection"
    kinds = ("semantic_segmentation", "localization", "classification")  # the one with the most fields first
    return next((kind for kind in kinds if _satisfies(batch, kind)), None)


def _satisfies(batch: Mapping[str, Any], kind: str) -> bool:
    complete = all(field in batch for field in REQUIREMENTS[kind].fields)
    return complete and (kind != "instance_segmentation" or "masks" in batch["target"][0])


def check_batch(batch: Mapping[str, Any], kind: str, task: str, data: object) -> None:
    """Reject a batch without the targets that a task needs; additional fields are allowed.

    Args:
        batch: A batch of at least one image.
        kind: Kind of task, a key of `REQUIREMENTS`.
        task: Class name of the task, for the message.
        data: Data module that the batch comes from; None: unknown.

    Raises:
        ValueError: The batch belongs to another task. The message names the argument or data module to use.
    """
    if _satisfies(batch, kind):
        return
    needed, actual = REQUIREMENTS[kind], task_of_batch(batch)
    provided = "images without targets" if actual is None else f"{REQUIREMENTS[actual].description} ({actual})"
    try:
        supported = get_args(get_type_hints(type(data).__init__).get("task"))
    except (NameError, TypeError):  # annotations that cannot be resolved here
        supported = ()
    *others, last = needed.datamodules
    fix = f"set task: {kind}" if kind in supported else f"use {', '.join(others)} or {last}"
    source = "" if data is None else f" from the data module {type(data).__name__}"
    raise ValueError(f"data: {task} needs {needed.description} ({kind}), got {provided}{source}; {fix}")


def check_losses(losses: Any, model: str) -> None:
    """Check that there are losses to add up. Only types and shapes are checked, so that no GPU is waited for.

    Raises:
        TypeError: The losses are not a dictionary of at least one name with a scalar tensor each.
    """
    expected = "losses: must be a dict of names to scalar tensors"
    if not isinstance(losses, Mapping):
        raise TypeError(f"{expected}, got {_kind(losses)} from {model}")
    if not losses:
        raise TypeError(f"{expected}, got an empty dict from {model}")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise TypeError(f"{expected}, got {_kind(loss)} as {name!r} from {model}")


def _kind(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
