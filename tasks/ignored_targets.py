"""Objects that a detector is not trained on: crowds, and difficult ones if the user says so."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FLAGS = ("iscrowd", "difficult")


def drop_ignored_targets(targets: Sequence[Mapping[str, Any]], train_on_difficult: bool = True) -> list[dict[str, Any]]:
    """Drop crowds from the targets, and difficult objects unless they are trained on.

    The flags are dropped too, so that a second call changes nothing.

    Args:
        targets: For each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, optionally ``iscrowd`` and ``difficult``
            ``[N]`` and other fields, some of length N.
        train_on_difficult: Keep difficult objects.
    """
    flags = FLAGS[:1] if train_on_difficult else FLAGS
    result = [{key: value for key, value in target.items() if key not in FLAGS} for target in targets]
    if not any(flag in target for target in targets for flag in flags):
        return result
    ignored = [
        torch.stack([target[flag].bool() for flag in flags if flag in target]).any(0)
        if any(flag in target for flag in flags)
        else torch.zeros_like(target["labels"], dtype=torch.bool)
        for target in targets
    ]
    keep = (~torch.cat(ignored)).tolist()  # waits for a GPU once for all images
    start = 0
    for index, target in enumerate(result):
        stop = start + len(target["labels"])
        if not all(keep[start:stop]):
            result[index] = _select(target, [number for number, kept in enumerate(keep[start:stop]) if kept])
        start = stop
    return result


def _select(target: Mapping[str, Any], indices: Sequence[int]) -> dict[str, Any]:
    """The objects at `indices`, in all fields with one entry per object."""
    count = len(target["labels"])
    return {
        key: value[torch.tensor(indices, dtype=torch.int64, device=value.device)]
        if isinstance(value, Tensor) and value.ndim and len(value) == count
        else value
        for key, value in target.items()
    }
