"""Albumentations pipelines that transform an image and its targets.

albumentations (2.0.8) moves boxes and masks with the image. This module adds the following, for these reasons:

- Boxes carry their index in a fifth column, so that the labels, flags and masks of the remaining boxes can be selected.
  albumentations divides boxes by the image's size and multiplies them by it again, partly in float32: a box may move by
  a ten-millionth of the image's side.
- albumentations clips boxes to the image after each transform, but keeps boxes of zero width, and then raises. So a box
  must keep a width and a height of `MIN_SIZE` pixels. ``min_visibility`` compares a box before and after each single
  transform, not over the whole pipeline.
- Padding fills masks with 0, which is a class here. So semantic masks pass through as class + 1, with 0 = ignore, and
  are set back after the last transform: padding is ignored.
- Where an object has a mask, the mask determines what is left of it: its box is computed from the mask, and the object
  is removed with its last pixel. (A rotated and cropped box may be lost while pixels of its object remain.) Boxes pass
  through only for a transform that uses them, or for ``min_visibility``.
- In evaluation no object is removed (``keep_objects``), since metrics would rise with each lost object: boxes below a
  pixel stay as they are, and an object of which nothing is left gets the box 0, 0, 0, 0, which nothing can match.
- Stored proposals pass through as further boxes, under a name of their own. So they influence neither the transforms
  that depend on objects nor which objects remain. Those of which less than `MIN_SIZE` pixels or less than
  ``min_visibility`` is left are dropped; the order remains.
"""

import random
import warnings
from typing import Any

import albumentations as A
import numpy as np

from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from ..loading.targets import MIN_SIZE, OBJECT_FIELDS, box_areas, boxes_of_masks, mask_areas

MAX_REDRAWS = 100  # augmentations drawn for a localization sample before an error
_ROUNDING = 0.01  # pixels that a box may lose in float32 without being moved: in an image of 20,000, 0.002

# albumentations' own transforms that use boxes do not declare it; custom ones can, in `targets_as_params`
_BOX_TRANSFORMS = (A.BBoxSafeRandomCrop, A.AtLeastOneBBoxRandomCrop, A.ConstrainedCoarseDropout)


class LostObjectError(ValueError):
    """Every augmentation drawn for a sample removed its only object."""


class ImageTypeError(TypeError):
    """A transform returned an image that is not a uint8 array."""


def check_min_visibility(value: float) -> float:
    """Return a ``min_visibility`` argument if it is valid.

    Raises:
        ValueError: It is not in [0, 1].
    """
    if not 0 <= value <= 1:  # false for NaN too
        raise ValueError(f"min_visibility: must be a fraction of a box's area in [0, 1], got {value}")
    return value


class TargetAugmentation:
    """An albumentations pipeline for an image and its targets.

    A detection sample may lose all its objects. For a localization sample, the augmentation is drawn again, with the
    next random numbers, until its object remains, at most `MAX_REDRAWS` times.

    Args:
        transform: The pipeline; its own ``bbox_params``, if any, are not used.
        min_visibility: Fraction of a box's area that a transform must leave; otherwise the object is removed.
        keep_objects: Keep every object, for evaluation. `min_visibility` has no effect, and an object of which nothing
            is left has an empty mask, the box 0, 0, 0, 0, and the area that its source states.

    Raises:
        ValueError: `min_visibility` is not in [0, 1].
    """

    def __init__(self, transform: A.Compose, min_visibility: float = 0.0, keep_objects: bool = False) -> None:
        min_visibility = 0.0 if keep_objects else check_min_visibility(min_visibility)
        self.transform, self.min_visibility, self.keep_objects = transform, min_visibility, keep_objects
        self._pipelines: dict[tuple[bool, bool], A.Compose] = {(False, False): transform}
        self._needs_boxes = min_visibility > 0 or _uses_boxes(transform)

    def __call__(self, raw: Sample, generator: np.random.Generator) -> Sample:
        """Augment a raw sample.

        Raises:
            ImageTypeError: The pipeline returns an image that is not uint8.
            LostObjectError: The object of a localization sample was removed each time.
        """
        with_boxes = "box" in raw or ("boxes" in raw and ("masks" not in raw or self._needs_boxes))
        pipeline = self._pipeline(with_boxes or "proposals" in raw, "corners" in raw)
        # all transforms of the pipeline share both generators
        pipeline.set_random_state(generator, random.Random(int(generator.integers(2**63))))
        if "box" in raw:
            return {**raw, **_augment_one_box(pipeline, raw, self.keep_objects)}
        if "boxes" in raw:
            objects, remaining = _augment_objects(pipeline, raw, with_boxes)
            if self.keep_objects and len(remaining) < len(raw["boxes"]):
                objects = _with_lost_objects(objects, remaining, raw)
            return {**raw, **objects}
        if "mask" in raw:
            return {**raw, **_augment_mask(pipeline, raw)}
        if "corners" in raw:
            return {**raw, **_augment_corners(pipeline, raw)}
        return {**raw, "image": require_uint8(pipeline(image=raw["image"])["image"])}

    def _pipeline(self, boxes: bool, points: bool) -> A.Compose:
        """Return the pipeline for samples with boxes or proposals, or with keypoints."""
        if (boxes, points) not in self._pipelines:
            params: dict[str, Any] = {}
            if boxes:
                side = _ROUNDING if self.keep_objects else MIN_SIZE - _ROUNDING
                params["bbox_params"] = A.BboxParams(
                    "pascal_voc", min_width=side, min_height=side, min_visibility=self.min_visibility
                )
                params["additional_targets"] = {"proposals": "bboxes"}
            if points:
                params["keypoint_params"] = A.KeypointParams("xy", remove_invisible=False)
            self._pipelines[boxes, points] = self._composed(**params)
        return self._pipelines[boxes, points]

    def _composed(self, **params: Any) -> A.Compose:
        """Return the pipeline with other parameters for boxes or keypoints."""
        base = self.transform
        with warnings.catch_warnings():
            # if no transform moves pixels, boxes and keypoints rightly stay the same
            warnings.filterwarnings("ignore", "Got processor for (bboxes|keypoints), but no transform to process it")
            return A.Compose(base.transforms, p=base.p, mask_interpolation=base.mask_interpolation, **params)


def _uses_boxes(transform: Any) -> bool:
    if isinstance(transform, A.BaseCompose):
        return any(_uses_boxes(inner) for inner in transform.transforms)
    return isinstance(transform, _BOX_TRANSFORMS) or "bboxes" in transform.targets_as_params


def _augment_mask(pipeline: A.Compose, raw: Sample) -> Sample:
    # uint8 wraps around: 255 + 1 = 0, and 0 - 1 = 255
    out = pipeline(image=raw["image"], mask=raw["mask"] + np.uint8(1))
    mask = out["mask"] - np.uint8(1)
    mask[mask == IGNORE_INDEX - 1] = IGNORE_INDEX  # a fill_mask of 255 in the YAML means ignore too
    return {"image": require_uint8(out["image"]), "mask": mask}


def _augment_corners(pipeline: A.Compose, raw: Sample) -> Sample:
    """Augment the image, and track three of its points; NaN after a transform that does not move keypoints."""
    corners = np.asarray(raw["corners"], np.float32)
    if not _moves_keypoints(pipeline):
        out = pipeline(image=raw["image"], **_proposals(raw))
        corners = np.full_like(corners, np.nan)
        return {"image": require_uint8(out["image"]), "corners": corners} | _proposals(out, np.float32)
    out = pipeline(image=raw["image"], keypoints=corners, **_proposals(raw))
    moved = {"image": require_uint8(out["image"]), "corners": np.asarray(out["keypoints"], np.float32)}
    return moved | _proposals(out, np.float32)


def _moves_keypoints(transform: Any) -> bool:
    if isinstance(transform, A.BaseCompose):
        return all(_moves_keypoints(inner) for inner in transform.transforms)
    if isinstance(transform, A.DualTransform):
        return type(transform).apply_to_keypoints is not A.DualTransform.apply_to_keypoints
    return isinstance(transform, A.ImageOnlyTransform)


def _augment_one_box(pipeline: A.Compose, raw: Sample, keep_object: bool) -> Sample:
    box = np.asarray(raw["box"], np.float64).reshape(1, 4)
    for _ in range(MAX_REDRAWS):
        out = pipeline(image=raw["image"], bboxes=box.copy())
        if len(out["bboxes"]) or keep_object:
            left = out["bboxes"][0, :4] if len(out["bboxes"]) else np.zeros(4)
            return {"image": require_uint8(out["image"]), "box": left.astype(np.float32)}
    raise LostObjectError(
        f"{MAX_REDRAWS} augmentations in a row removed the object; crop less, or use a crop that keeps it, such as "
        "albumentations.BBoxSafeRandomCrop"
    )


def _augment_objects(pipeline: A.Compose, raw: Sample, with_boxes: bool) -> tuple[Sample, np.ndarray]:
    """Augment a sample with objects; returns the fields that change, and the indices ``[M]`` of those that remain."""
    boxes, masks = raw["boxes"].astype(np.float64), raw.get("masks")
    inputs: Sample = {"image": raw["image"], **_proposals(raw)}
    if with_boxes:
        inputs["bboxes"] = np.column_stack([boxes, np.arange(len(boxes))])
    if masks is not None and len(masks):
        inputs["masks"] = masks
    out = pipeline(**inputs)
    image = require_uint8(out["image"])
    remaining = np.arange(len(boxes))
    if with_boxes:  # if no box remains, the fifth column is gone too
        remaining = out["bboxes"][:, 4].round().astype(np.int64) if len(out["bboxes"]) else remaining[:0]
    if masks is None:
        new_boxes = out["bboxes"][:, :4].astype(np.float32)
        area = raw["area"][remaining] * (box_areas(new_boxes) / box_areas(boxes[remaining]))
        sample: Sample = {}
    else:
        masks = out["masks"] if "masks" in inputs else np.zeros((0, *image.shape[:2]), np.uint8)
        area = mask_areas(masks)
        remaining = remaining[area[remaining] > 0]
        masks = np.ascontiguousarray(masks if len(remaining) == len(masks) else masks[remaining])
        area, new_boxes = area[remaining], boxes_of_masks(masks)
        sample = {"masks": masks}
    sample |= _proposals(out, np.float32)
    sample |= {field: raw[field][remaining] for field in OBJECT_FIELDS}
    return sample | {"image": image, "boxes": new_boxes, "area": area.astype(np.float32)}, remaining


def _proposals(sample: Sample, dtype: type = np.float64) -> Sample:
    """Return the field ``proposals`` ``[P, 4]`` of a sample or of a pipeline's output; nothing if it has none."""
    return {"proposals": sample["proposals"].astype(dtype)} if "proposals" in sample else {}


def _with_lost_objects(sample: Sample, remaining: np.ndarray, raw: Sample) -> Sample:
    """Return an augmented sample with all objects of `raw`, of which those at `remaining` ``[M]`` are left."""
    count = len(raw["boxes"])
    kept = {field: raw[field] for field in OBJECT_FIELDS} | {"boxes": np.zeros((count, 4), np.float32)}
    if "masks" in raw:
        kept["masks"] = np.zeros((count, *sample["image"].shape[:2]), np.uint8)
    for field in kept.keys() & {"boxes", "masks", "area"}:
        kept[field] = np.array(kept[field])
        kept[field][remaining] = sample[field]
    return sample | kept


def require_uint8(image: Any) -> np.ndarray:
    """Return the image ``[H, W, 3]`` of a pipeline if it is still a uint8 array.

    Raises:
        ImageTypeError: It is not.
    """
    if isinstance(image, np.ndarray) and image.dtype == np.uint8:
        return image
    kind = f"{type(image).__name__} of {image.dtype}" if isinstance(image, np.ndarray) else type(image).__name__
    raise ImageTypeError(
        f"images must stay uint8 [H, W, 3], got {kind}; remove Normalize, ToFloat and ToTensorV2: the model normalizes "
        "on the device"
    )
