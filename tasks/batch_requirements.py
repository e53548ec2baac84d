"""What the batches of a task hold, and what to say when a data module gives others."""

from collections.abc import Mapping
from typing import Any, get_args, get_type_hints

from torch import Tensor

# for each task: the fields of its batches, what they are, and data modules that give them
WANTED: dict[str, tuple[tuple[str, ...], str, tuple[str, ...]]] = {
    "classification": (("label",), "a label an image", ("ImageFolder", "Manifest")),
    "localization": (
        ("label", "box"),
        "a label and a box an image",
        ("CocoLocalization", "VOCLocalization", "LocalizationManifest"),
    ),
    "semantic_segmentation": (("mask",), "a mask of classes an image", ("MaskFolder", "VOCSegmentation")),
    "detection": (("target",), "boxes with labels", ("CocoDetection", "VOCDetection", "YoloDetection")),
    "instance_segmentation": (
        ("target",),
        "boxes with labels and masks",
        ("CocoDetection with task: instance_segmentation", "VOCInstances", "InstanceMasks"),
    ),
}


def task_of_batch(batch: Mapping[str, Any]) -> str | None:
    """The task that a batch with at least one image is of; None: it has no targets.

    >>> task_of_batch({"image": 0, "label": 0}), task_of_batch({"image": 0, "label": 0, "box": 0})
    ('classification', 'localization')
    """
    if "target" in batch:
        return "instance_segmentation" if "masks" in batch["target"][0] else "detection"
    return next(
        (task for task in ("semantic_segmentation", "localization", "classification") if _holds(batch, task)), None
    )


def _holds(batch: Mapping[str, Any], task: str) -> bool:
    fields = all(field in batch for field in WANTED[task][0])
    return fields and (task != "instance_segmentation" or "masks" in batch["target"][0])


def check_batch(batch: Mapping[str, Any], wanted: str, task: str, data: object) -> None:
    """Refuse a batch without the targets that a task needs; one with more will do.

    Args:
        batch: with at least one image.
        wanted: a key of `WANTED`.
        task: the task's name, for the message.
        data: the data module that gives it; None: not known.

    Raises:
        ValueError: the message says what the task needs, what it was given, and which argument or data module to use.
    """
    if _holds(batch, wanted):
        return
    _, what, readers = WANTED[wanted]
    given = task_of_batch(batch)
    gives = "images without targets" if given is None else f"{WANTED[given][1]} ({given})"
    try:
        own = get_args(get_type_hints(type(data).__init__).get("task"))
    except (NameError, TypeError):  # annotations that cannot be resolved here
        own = ()
    cure = f"set data.init_args.task: {wanted}" if wanted in own else f"use {', '.join(readers[:-1])} or {readers[-1]}"
    source = "the batch has" if data is None else f"the data module {type(data).__name__} gives"
    raise ValueError(f"{task} needs {what} ({wanted}), but {source} {gives}: {cure}")


def check_losses(losses: Any, model: str) -> None:
    """See that there are losses to sum up, by their shapes alone: a GPU is not waited for.

    Raises:
        TypeError: for anything but a dict of one name or more, with a tensor of one number each.
    """
    wanted = "but training takes a dict of one loss or more, name -> tensor of one number"
    if not isinstance(losses, Mapping):
        raise TypeError(f"{model}: its losses are {_kind(losses)}, {wanted}")
    if not losses:
        raise TypeError(f"{model}: its losses are an empty dict, {wanted}")
    for name, loss in losses.items():
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            raise TypeError(f"{model}: its loss {name!r} is {_kind(loss)}, {wanted}")


def _kind(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
