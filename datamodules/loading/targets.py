"""Targets through the same augmentation as their image, and samples of images that differ in size to batches.

albumentations (2.0.8) moves boxes and masks with the image. What is done around it here, and why:

- Boxes go through with their number in a fifth column, so that labels, flags and masks of those that are left can be
  found again. Its steps divide them by the image's size and multiply them by it again, some in float32: a box may
  move by a ten-millionth of the image's side.
- It clips boxes to the image after each step, but by itself keeps one of no width, and then stops at it. So a box
  must keep a width and a height of `MIN_SIZE` pixels. ``min_visibility`` compares a box before and after each single
  step, not over the whole pipeline.
- Padding fills masks with 0, which here is a class. Semantic masks therefore travel as class + 1, with 0 = ignore,
  and are set back behind the last step: what is padded is ignored.
- Where an object has a mask, the mask says what is left of it: its box is read off the mask, and it goes with its
  last pixel. (A box turned and cut may be lost while pixels of its object are still there.) The boxes go along only
  with a step that looks at them, or for ``min_visibility``.
"""

import random
import warnings
from collections.abc import Sequence
from typing import Any

import albumentations as A
import cv2
import numpy as np
import torch
from torch import Tensor

Sample = dict[str, Any]

IGNORE = 255
MIN_SIZE = 1.0  # pixels
_ROUNDING = 0.01  # pixels that a box may lose in float32 without being moved: in an image of 20,000, 0.002
MAX_REDRAWS = 100  # augmentations drawn for a sample of localization before it is given up

# albumentations' own steps that look at boxes do not say so; one of a user's own can, in `targets_as_params`
_BOX_STEPS = (A.BBoxSafeRandomCrop, A.AtLeastOneBBoxRandomCrop, A.ConstrainedCoarseDropout)
OBJECT_FIELDS = ("labels", "iscrowd", "difficult", "area")


class LostObjectError(ValueError):
    """Every augmentation drawn for a sample cut its only object away."""


def checked_visibility(value: float) -> float:
    """A ``min_visibility``, if it is one.

    Raises:
        ValueError: if not.
    """
    if not 0 <= value <= 1:  # written so that NaN fails
        raise ValueError(f"data.init_args.min_visibility: {value} is not a part of a box's area, 0 to 1")
    return value


class TargetAugmentation:
    """An albumentations pipeline for an image and whatever targets belong to it.

    A sample of detection may lose all its objects. One of localization may not: the augmentation is drawn again, with
    the random numbers that follow, until its object is seen, at most `MAX_REDRAWS` times.

    Args:
        transform: the pipeline; its own ``bbox_params``, if any, are not used.
        min_visibility: part of a box's area that a step of the pipeline must leave, or the object is removed.

    Raises:
        ValueError: for a `min_visibility` that is not from 0 to 1.
    """

    def __init__(self, transform: A.Compose, min_visibility: float = 0.0) -> None:
        self.transform, self.min_visibility = transform, checked_visibility(min_visibility)
        self._boxed: A.Compose | None = None
        self._pointed: A.Compose | None = None
        self._needs_boxes = min_visibility > 0 or _looks_at_boxes(transform)

    def __call__(self, raw: Sample, generator: np.random.Generator) -> Sample:
        """Augment a raw sample.

        Raises:
            TypeError: when the pipeline gives an image that is not uint8.
            LostObjectError: when the object of localization was cut away each time.
        """
        with_boxes = "box" in raw or ("boxes" in raw and ("masks" not in raw or self._needs_boxes))
        pipeline = self._with_boxes() if with_boxes else self._with_points() if "corners" in raw else self.transform
        # both generators are shared by every step of the pipeline
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        if "box" in raw:
            return {**raw, **_with_one_box(pipeline, raw)}
        if "boxes" in raw:
            return {**raw, **_with_objects(pipeline, raw, with_boxes)}
        if "mask" in raw:
            return {**raw, **_with_mask(pipeline, raw)}
        if "corners" in raw:
            return {**raw, **_with_corners(pipeline, raw)}
        return {**raw, "image": checked(pipeline(image=raw["image"])["image"])}

    def _with_boxes(self) -> A.Compose:
        if self._boxed is None:
            smallest = MIN_SIZE - _ROUNDING
            params = A.BboxParams(
                "pascal_voc", min_width=smallest, min_height=smallest, min_visibility=self.min_visibility
            )
            given = self.transform
            with warnings.catch_warnings():
                # where no step moves pixels, the boxes stay where they are: as it should be
                warnings.filterwarnings("ignore", "Got processor for bboxes, but no transform to process it")
                self._boxed = A.Compose(
                    given.transforms, params, p=given.p, mask_interpolation=given.mask_interpolation
                )
        return self._boxed

    def _with_points(self) -> A.Compose:
        if self._pointed is None:
            given = self.transform
            with warnings.catch_warnings():
                # where no step moves pixels, the points stay where they are: as it should be
                warnings.filterwarnings("ignore", "Got processor for keypoints, but no transform to process it")
                params = A.KeypointParams("xy", remove_invisible=False)
                self._pointed = A.Compose(given.transforms, keypoint_params=params, p=given.p)
        return self._pointed


def _looks_at_boxes(step: Any) -> bool:
    if isinstance(step, A.BaseCompose):
        return any(_looks_at_boxes(inner) for inner in step.transforms)
    return isinstance(step, _BOX_STEPS) or "bboxes" in step.targets_as_params


def _with_mask(pipeline: A.Compose, raw: Sample) -> Sample:
    # uint8 wraps around: 255 + 1 = 0, and 0 - 1 = 255
    out = pipeline(image=raw["image"], mask=raw["mask"] + np.uint8(1))
    mask = out["mask"] - np.uint8(1)
    mask[mask == IGNORE - 1] = IGNORE  # a fill_mask of 255 in the YAML means ignore too
    return {"image": checked(out["image"]), "mask": mask}


def _with_corners(pipeline: A.Compose, raw: Sample) -> Sample:
    """The image, and where points of it went; not a number where a step does not say that."""
    corners = np.asarray(raw["corners"], np.float32)
    if not _moves_points(pipeline):
        return {"image": checked(pipeline(image=raw["image"])["image"]), "corners": np.full_like(corners, np.nan)}
    out = pipeline(image=raw["image"], keypoints=corners)
    return {"image": checked(out["image"]), "corners": np.asarray(out["keypoints"], np.float32)}


def _moves_points(step: Any) -> bool:
    if isinstance(step, A.BaseCompose):
        return all(_moves_points(inner) for inner in step.transforms)
    if isinstance(step, A.DualTransform):
        return type(step).apply_to_keypoints is not A.DualTransform.apply_to_keypoints
    return isinstance(step, A.ImageOnlyTransform)


def _with_one_box(pipeline: A.Compose, raw: Sample) -> Sample:
    box = np.asarray(raw["box"], np.float64).reshape(1, 4)
    for _ in range(MAX_REDRAWS):
        out = pipeline(image=raw["image"], bboxes=box.copy())
        if len(out["bboxes"]):
            return {"image": checked(out["image"]), "box": out["bboxes"][0, :4].astype(np.float32)}
    raise LostObjectError(
        f"{MAX_REDRAWS} augmentations in a row cut the object away; crop less in data.init_args.train_transform / "
        "val_transform, or with a step that keeps it, such as albumentations.BBoxSafeRandomCrop"
    )


def _with_objects(pipeline: A.Compose, raw: Sample, with_boxes: bool) -> Sample:
    boxes, masks = raw["boxes"].astype(np.float64), raw.get("masks")
    given: Sample = {"image": raw["image"]}
    if with_boxes:
        given["bboxes"] = np.column_stack([boxes, np.arange(len(boxes))])
    if masks is not None and len(masks):
        given["masks"] = masks
    out = pipeline(**given)
    image = checked(out["image"])
    kept = np.arange(len(boxes))
    if with_boxes:  # without boxes, their fifth column is gone too
        found = out["bboxes"]
        kept = found[:, 4].round().astype(np.int64) if len(found) else kept[:0]
    if masks is None:
        left = found[:, :4].astype(np.float32)
        area = raw["area"][kept] * (box_areas(left) / box_areas(boxes[kept]))
        sample: Sample = {}
    else:
        masks = out["masks"] if "masks" in given else np.zeros((0, *image.shape[:2]), np.uint8)
        area = mask_areas(masks)
        kept = kept[area[kept] > 0]
        masks, area = np.ascontiguousarray(masks if len(kept) == len(masks) else masks[kept]), area[kept]
        left = boxes_of_masks(masks)
        sample = {"masks": masks}
    sample |= {field: raw[field][kept] for field in OBJECT_FIELDS}
    return sample | {"image": image, "boxes": left, "area": area.astype(np.float32)}


def checked(image: Any) -> np.ndarray:
    """The image, if a pipeline left it what an image is until the model.

    Raises:
        TypeError: if not.
    """
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"{type(image).__name__} of {image.dtype}" if hasattr(image, "dtype") else type(image).__name__
        raise TypeError(
            f"the transform gave {kind}, but an image stays uint8 [H, W, 3] until the model: "
            "take Normalize, ToFloat and ToTensorV2 out of data.init_args.train_transform / val_transform"
        )
    return image


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Width times height of boxes ``[N, 4]``: ``[N]``."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def boxes_of_masks(masks: np.ndarray) -> np.ndarray:
    """The tight boxes of masks none of which is empty.

    Shape:
        - masks: ``[N, H, W]``, zero or not.
        - Output: ``[N, 4]`` float32, x1, y1, x2, y2; the box of a single pixel is one wide and high.
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
    """How many pixels of each mask ``[N, H, W]`` uint8 are not zero: float32 ``[N]``."""
    # OpenCV counts ten times as fast as numpy sums
    return np.array([cv2.countNonZero(mask) for mask in masks if mask.size], np.float32)


def complete(raw: Sample, number: int) -> Sample:
    """A raw sample of detection with every field of its target, in its type.

    Args:
        raw: ``boxes`` and ``labels``, perhaps the others.
        number: of the sample, its ``image_id`` where the source gives none.
    """
    boxes = np.asarray(raw["boxes"], np.float32).reshape(-1, 4)
    labels = np.asarray(raw["labels"], np.int64).reshape(-1)
    flags = {name: np.asarray(raw.get(name, np.zeros(len(boxes))), np.bool_) for name in ("iscrowd", "difficult")}
    masks = {"masks": np.asarray(raw["masks"]).astype(np.uint8, copy=False)} if "masks" in raw else {}
    area = raw.get("area")
    if area is None:
        area = mask_areas(masks["masks"]) if masks else box_areas(boxes)
    area = np.asarray(area, np.float32)
    return {
        **raw,
        "boxes": boxes,
        "labels": labels,
        **flags,
        "area": area,
        "image_id": raw.get("image_id", number),
    } | masks


def without_unseen(raw: Sample) -> Sample:
    """A complete raw sample without the objects whose masks have no pixel, such as a polygon thinner than one."""
    masks = raw.get("masks")
    if masks is None or len(masks) == 0 or (seen := masks.any(axis=(1, 2))).all():
        return dict(raw)
    fields = ("boxes", "labels", "iscrowd", "difficult", "area", "masks")
    return {**raw, **{field: raw[field][seen] for field in fields}}


def check_targets(raw: Sample, num_classes: int | None) -> None:
    """Refuse targets that break the conventions here, where their sample is known, and not on a GPU.

    Raises:
        ValueError: the message says what is wrong, to follow the sample's name.
    """
    height, width = raw["image"].shape[:2]
    if num_classes is not None:
        labels = raw.get("labels", () if raw.get("label") is None else (raw["label"],))
        for label in labels:
            if not 0 <= label < num_classes:
                raise ValueError(f"has the label {label}, but there are {num_classes} classes, 0 to {num_classes - 1}")
    if "mask" in raw:
        mask = raw["mask"]
        if mask.dtype != np.uint8 or mask.shape != (height, width):
            raise ValueError(
                f"has a mask of {mask.dtype} {list(mask.shape)}, not uint8 [{height}, {width}] as its image"
            )
        if num_classes is not None and mask.size and (mask + np.uint8(1)).max() > num_classes:  # 255 + 1 = 0
            wrong = mask[(mask >= num_classes) & (mask != IGNORE)]
            raise ValueError(
                f"has the value(s) {counted_values(wrong)} in its mask, but there are {num_classes} classes, "
                f"0 to {num_classes - 1}, and {IGNORE} = ignore"
            )
    boxes = raw.get("boxes", raw.get("box"))
    if boxes is None:
        return
    boxes = np.asarray(boxes).reshape(-1, 4)
    # written so that NaN fails
    good = (boxes[:, :2] >= 0) & (boxes[:, :2] < boxes[:, 2:]) & (boxes[:, 2:] <= (width, height))
    if not good.all():
        box = [round(float(side), 2) for side in boxes[~good.all(axis=1)][0]]
        raise ValueError(
            f"has the box {box}, but boxes are x1, y1, x2, y2 in pixels, 0 <= x1 < x2 <= {width} and "
            f"0 <= y1 < y2 <= {height} in its image"
        )
    if "boxes" in raw:
        for field in (*OBJECT_FIELDS, "masks"):
            if field in raw and len(raw[field]) != len(boxes):
                raise ValueError(f"has {len(boxes)} boxes, but {field} for {len(raw[field])}")
    if "masks" in raw and raw["masks"].shape[1:] != (height, width):
        raise ValueError(f"has masks of {list(raw['masks'].shape[1:])}, but its image is [{height}, {width}]")


def counted_values(values: np.ndarray, most: int = 5) -> str:
    """Different values, and how often each occurs: ``7 (2 pixels), 9 (1 pixel)``, the smallest first.

    Args:
        values: of any shape.
        most: how many different values are named; the others are counted.

    >>> counted_values(np.array([9, 7, 7]))
    '7 (2 pixels), 9 (1 pixel)'
    """
    found, counts = np.unique(values, return_counts=True)
    named = [
        f"{value} ({count} pixel{'s' if count > 1 else ''})"
        for value, count in zip(found[:most].tolist(), counts[:most].tolist(), strict=True)
    ]
    return ", ".join(named) + (f" and {len(found) - most} more" if len(found) > most else "")


def collate_objects(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples whose images may differ in size to a batch of lists (`DetectionBatch`, `InstanceSegmentationBatch`).

    Each field of the whole batch is one block of memory, of which the images and targets are views: between
    processes a batch then takes a handful of file descriptors, not half a dozen an image. Unreadable samples are left
    out and named.
    """
    unreadable = [message for sample in samples for message in sample["unreadable"]]
    samples = [sample for sample in samples if "image" in sample]
    batch: dict[str, Any] = {"unreadable": unreadable, "image": []}
    if not samples:
        return batch
    batch["image"] = [pixels.permute(2, 0, 1) for pixels in packed([sample["image"] for sample in samples])]
    batch["index"] = torch.tensor([sample["index"] for sample in samples])
    if "path" in samples[0]:
        batch["path"] = [sample["path"] for sample in samples]
    for field in {"file_size", "corners"} & samples[0].keys():  # of images to predict
        batch[field] = torch.as_tensor(np.stack([sample[field] for sample in samples]))
    if "boxes" in samples[0]:
        fields = ("boxes", *OBJECT_FIELDS, *(("masks",) if "masks" in samples[0] else ()))
        columns = {field: packed([sample[field] for sample in samples]) for field in fields}
        columns["image_id"] = list(torch.tensor([int(sample["image_id"]) for sample in samples]).unbind())
        batch["target"] = [{field: column[place] for field, column in columns.items()} for place in range(len(samples))]
    return batch


def packed(arrays: Sequence[np.ndarray]) -> list[Tensor]:
    """Arrays of one type copied into one block of memory, as views of it in their shapes."""
    block = torch.from_numpy(np.concatenate([array.reshape(-1) for array in arrays]))
    parts = block.split([array.size for array in arrays])
    return [part.view(array.shape) for part, array in zip(parts, arrays, strict=True)]
