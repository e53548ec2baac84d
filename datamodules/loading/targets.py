"""Targets of one sample, in numpy: defaults of missing fields, checks, and geometry of boxes and masks."""

import cv2
import numpy as np

from ..batches import IGNORE_INDEX
from .sources import Sample

MIN_SIZE = 1.0  # least width and height of a box after augmentation, pixels
OBJECT_FIELDS = ("labels", "iscrowd", "difficult", "area")


def fill_defaults(raw: Sample, index: int) -> Sample:
    """Return a raw detection sample with every field of its target, in its type.

    Args:
        raw: ``boxes`` and ``labels``; the other fields are optional.
        index: Index of the sample, its ``image_id`` if the source gives none.
    """
    boxes = np.asarray(raw["boxes"], np.float32).reshape(-1, 4)
    labels = np.asarray(raw["labels"], np.int64).reshape(-1)
    flags = {name: np.asarray(raw.get(name, np.zeros(len(boxes))), np.bool_) for name in ("iscrowd", "difficult")}
    masks = {"masks": np.asarray(raw["masks"]).astype(np.uint8, copy=False)} if "masks" in raw else {}
    area = raw.get("area")
    if area is None:
        area = mask_areas(masks["masks"]) if masks else box_areas(boxes)
    return {
        **raw,
        "boxes": boxes,
        "labels": labels,
        **flags,
        "area": np.asarray(area, np.float32),
        "image_id": raw.get("image_id", index),
    } | masks


def drop_empty_masks(raw: Sample) -> Sample:
    """Return a complete raw sample without objects whose mask is empty, such as a polygon thinner than a pixel."""
    masks = raw.get("masks")
    if masks is None or len(masks) == 0 or (filled := masks.any(axis=(1, 2))).all():
        return dict(raw)
    return {**raw, **{field: raw[field][filled] for field in ("boxes", *OBJECT_FIELDS, "masks")}}


def check_targets(raw: Sample, num_classes: int | None) -> None:
    """Check that targets follow the conventions, here, where their sample is known, and not on a GPU.

    Args:
        raw: A raw sample; see `striate.datamodules.batches`.
        num_classes: Number of classes; None: classes are not checked.

    Raises:
        ValueError: They do not; the caller adds the name of the sample.
    """
    height, width = raw["image"].shape[:2]
    classes = "" if num_classes is None else f"{num_classes} classes, 0 to {num_classes - 1}"
    if num_classes is not None:
        for label in raw.get("labels", () if raw.get("label") is None else (raw["label"],)):
            if not 0 <= label < num_classes:
                raise ValueError(f"label: must be one of {classes}, got {label}")
    if "mask" in raw:
        mask = raw["mask"]
        if mask.dtype != np.uint8 or mask.shape != (height, width):
            raise ValueError(
                f"mask: must be uint8 [{height}, {width}] like its image, got {mask.dtype} {list(mask.shape)}"
            )
        if num_classes is not None and num_classes >= IGNORE_INDEX:
            raise ValueError(f"mask: must have at most {IGNORE_INDEX - 1} classes in 8 bits, got {num_classes}")
        if num_classes is not None and mask.size and (mask + np.uint8(1)).max() > num_classes:  # 255 + 1 = 0
            values = counted_values(mask[(mask >= num_classes) & (mask != IGNORE_INDEX)])
            raise ValueError(f"mask: values must be one of {classes}, or {IGNORE_INDEX} = ignore, got {values}")
    if (boxes := raw.get("boxes", raw.get("box"))) is not None:
        _check_boxes(raw, np.asarray(boxes).reshape(-1, 4), width, height)


def _check_boxes(raw: Sample, boxes: np.ndarray, width: int, height: int) -> None:
    """Check boxes ``[N, 4]`` against their image, and that the other fields have one entry per box."""
    # comparisons with NaN are false, so it is rejected
    valid = (boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, 2:] <= (width, height))
    if not valid.all():
        box = [round(float(side), 2) for side in boxes[~valid.all(axis=1)][0]]
        raise ValueError(
            f"box: must be x1, y1, x2, y2 in pixels with 0 <= x1 < x2 <= {width} and 0 <= y1 < y2 <= {height}, "
            f"got {box}"
        )
    if "boxes" not in raw:
        return
    for field in (*OBJECT_FIELDS, "masks"):
        if field in raw and len(raw[field]) != len(boxes):
            raise ValueError(f"{field}: must have one entry per box, got {len(raw[field])} for {len(boxes)} boxes")
    if "masks" in raw and raw["masks"].shape[1:] != (height, width):
        raise ValueError(f"masks: must be [N, {height}, {width}] like their image, got {list(raw['masks'].shape)}")


def counted_values(values: np.ndarray, limit: int = 5) -> str:
    """List distinct values of an array ``[…]`` with their counts, in ascending order: ``7 (2 pixels), 9 (1 pixel)``.

    Args:
        values: Of any shape.
        limit: Maximum number of values to list; the others are counted.

    >>> counted_values(np.array([9, 7, 7]))
    '7 (2 pixels), 9 (1 pixel)'
    """
    distinct, counts = np.unique(values, return_counts=True)
    listed = [
        f"{value} ({count} pixel{'s' if count > 1 else ''})"
        for value, count in zip(distinct[:limit].tolist(), counts[:limit].tolist(), strict=True)
    ]
    return ", ".join(listed) + (f" and {len(distinct) - limit} more" if len(distinct) > limit else "")


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Return width times height of boxes ``[N, 4]``: ``[N]``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def boxes_of_masks(masks: np.ndarray) -> np.ndarray:
    """Return the tight boxes of masks, none of which is empty.

    Shape:
        - masks: ``[N, H, W]``, zero or nonzero.
        - Output: ``[N, 4]`` float32, x1, y1, x2, y2; the box of a single pixel has width and height 1.
    """
    if not masks.size:
        return np.zeros((0, 4), np.float32)
    columns, rows = np.asarray(masks.any(axis=1)), np.asarray(masks.any(axis=2))
    height, width = masks.shape[1:]
    edges = (
        columns.argmax(axis=1),
        rows.argmax(axis=1),
        width - columns[:, ::-1].argmax(axis=1),
        height - rows[:, ::-1].argmax(axis=1),
    )
    return np.stack(edges, axis=1).astype(np.float32)


def mask_areas(masks: np.ndarray) -> np.ndarray:
    """Count the nonzero pixels of each mask ``[N, H, W]`` uint8: ``[N]`` float32."""
    # OpenCV counts ten times as fast as numpy sums
    return np.array([cv2.countNonZero(mask) for mask in masks if mask.size], np.float32)
