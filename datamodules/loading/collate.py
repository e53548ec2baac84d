"""Samples to batches: one tensor for images of one size, lists for images that differ in size.

Unreadable samples are left out of their batch and named under ``unreadable``.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .sources import Sample
from .targets import OBJECT_FIELDS


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Stack samples whose images have one size.

    Shape:
        - image: ``[B, 3, H, W]`` uint8, channels-last in memory (the decoder's own layout: no transposition).
        - every other number: ``[B]`` int64; strings: list of B.

    Raises:
        ValueError: The images differ in size.
    """
    readable, unreadable = _split_unreadable(samples)
    batch: dict[str, Any] = {"unreadable": unreadable}
    if not readable:
        batch["image"] = torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        return batch
    sizes = {sample["image"].shape for sample in readable}
    if len(sizes) > 1:
        raise _sizes_differ(sizes, "mask" in readable[0])
    pixels = torch.empty(len(readable), *sizes.pop(), dtype=torch.uint8)  # [B, H, W, 3]
    for row, sample in zip(pixels.numpy(), readable, strict=True):
        row[...] = sample["image"]
    batch["image"] = pixels.permute(0, 3, 1, 2)
    return batch | _columns(readable, readable[0].keys() - {"image", "unreadable"})


def _split_unreadable(samples: Sequence[Sample]) -> tuple[list[Sample], list[str]]:
    """Separate the readable samples from the messages of all samples."""
    messages = [message for sample in samples for message in sample["unreadable"]]
    return [sample for sample in samples if "image" in sample], messages


def _sizes_differ(shapes: set[tuple[int, ...]], with_masks: bool) -> ValueError:
    named = ", ".join(f"{width}x{height}" for height, width, _ in sorted(shapes)[:4])
    if with_masks:
        fix = "albumentations.RandomCrop with pad_if_needed: true, or set batch_size: 1"
    else:
        fix = "albumentations.Resize, or SmallestMaxSize and CenterCrop, and end val_transform in the same way"
    return ValueError(
        f"train_transform: the images of a batch must have one size, got {named}; end it with transforms that fix the "
        f"size, such as {fix}"
    )


def _columns(samples: Sequence[Sample], fields: Iterable[str]) -> dict[str, Any]:
    """Stack fields of equal shape into one tensor each; strings stay a list."""
    columns = {field: [sample[field] for sample in samples] for field in fields}
    return {
        field: values if isinstance(values[0], str) else torch.as_tensor(np.asarray(values))
        for field, values in columns.items()
    }


def collate_whole(samples: Sequence[Sample]) -> dict[str, Any]:
    """Like `collate`, but images with one mask each, or without targets, may differ in size and then come as lists.

    For evaluation and prediction. Nothing is padded, so a prediction does not depend on the other images of its batch.

    Shape:
        - image, mask: if sizes differ, lists of B times ``[3, H_i, W_i]`` and ``[H_i, W_i]`` uint8.

    Raises:
        ValueError: Images with labels differ in size.
    """
    readable, unreadable = _split_unreadable(samples)
    if len({sample["image"].shape for sample in readable}) < 2 or not readable[0].keys().isdisjoint(("label", "box")):
        return collate(samples)
    fields = readable[0].keys()
    batch: dict[str, Any] = {"unreadable": unreadable, "image": _image_views(readable)}
    if "mask" in fields:
        batch["mask"] = pack_views([sample["mask"] for sample in readable])
    return batch | _columns(readable, fields - {"image", "mask", "unreadable"})


def collate_objects(samples: Sequence[Sample]) -> dict[str, Any]:
    """Collect samples whose images may differ in size as lists (`DetectionBatch`, `InstanceSegmentationBatch`).

    Each field of the batch is one block of memory, and images and targets are views of it: so a batch takes a handful
    of file descriptors between processes, not half a dozen per image.

    Shape:
        - image: B times ``[3, H_i, W_i]`` uint8.
        - target: B dictionaries; see `striate.datamodules.batches`.
    """
    readable, unreadable = _split_unreadable(samples)
    batch: dict[str, Any] = {"unreadable": unreadable, "image": []}
    if not readable:
        return batch
    batch["image"] = _image_views(readable)
    fields = readable[0].keys()
    # "file_size" and "corners" belong to images for prediction
    batch |= _columns(readable, fields & {"index", "path", "file_size", "corners"})
    if "proposals" in fields:
        batch["proposals"] = pack_views([sample["proposals"] for sample in readable])
    if "boxes" in fields:
        names = ("boxes", *OBJECT_FIELDS, *(("masks",) if "masks" in fields else ()))
        columns = {name: pack_views([sample[name] for sample in readable]) for name in names}
        columns["image_id"] = list(torch.tensor([int(sample["image_id"]) for sample in readable]).unbind())
        batch["target"] = [{name: column[row] for name, column in columns.items()} for row in range(len(readable))]
    return batch


def _image_views(samples: Sequence[Sample]) -> list[Tensor]:
    """Return the images ``[H, W, 3]`` of samples as views ``[3, H, W]`` of one block."""
    return [pixels.permute(2, 0, 1) for pixels in pack_views([sample["image"] for sample in samples])]


def pack_views(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Copy arrays of one type, of any shapes ``[N, …]``, into one block of memory; return views of these shapes."""
    block = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
    parts = block.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
