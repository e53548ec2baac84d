"""Checks of a whole annotation file in COCO's format: units of its numbers, crowds, areas, and images listed twice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.annotation_errors import Fault, record_error, record_warning, recording
from ..annotations.clipping import box_text
from ..annotations.corners import are_corners
from ..annotations.normalized import are_fractions, reject_fractions, warn_of_mixed_units, warn_of_percent
from ..annotations.object_masks import ObjectMasks
from ..annotations.validity import differs_from_mask
from .json_columns import CocoColumns
from .options import BoxFormat

MANY_CROWDS = 0.25
"""Minimum fraction of crowds among the objects that is reported; COCO has 0.01."""
_SAMPLED_MASKS = 256
_TO_PIXELS = "multiply x and width by the width of the image, y and height by its height"


def check_box_units(file: Path, columns: CocoColumns, sizes: np.ndarray, box_format: BoxFormat) -> None:
    """Reject boxes that are fractions of their images, or two corners instead of a corner and a size; warn of some.

    Args:
        file: The file, for messages.
        columns: Its N objects, with boxes as they are written.
        sizes: Width and height of each object's image.
        box_format: What the numbers are; ``auto``: a corner and a size, unless they look like corners.

    Shape:
        - sizes: ``[N, 2]``.

    Raises:
        DataError: They are.
    """
    boxes = columns.boxes
    if reject_fractions(boxes, sizes, file, "annotations, bbox", _TO_PIXELS):
        return
    with np.errstate(invalid="ignore", over="ignore"):
        last = boxes[:, 2:] + (0 if box_format == "xyxy" else boxes[:, :2])
    corners = np.concatenate([boxes[:, :2], last], axis=1)
    warn_of_mixed_units(corners, sizes, False, file, columns.ids.tolist())
    if box_format != "auto" or not are_corners(boxes, sizes, columns.area):
        warn_of_percent(corners, sizes, file, "annotations, bbox")
    else:
        first = boxes[np.isfinite(boxes).all(axis=1)][0]
        found = f"bbox [{', '.join(f'{side:g}' for side in first)}] of annotation {columns.ids[0]}, and all others"
        remedy = "set box_format: xyxy to read them so, or box_format: xywh if they are x, y, width, height"
        record_error(Fault("box-corners", file, ["annotations, bbox"], "entry", found, remedy))


def check_masks(file: Path, ids: np.ndarray, masks: ObjectMasks, sizes: np.ndarray, boxes: np.ndarray | None) -> None:
    """Reject polygons of another unit, and masks outside their images; warn of those that do not match their boxes.

    A sample of the objects is looked at. While faults are recorded, the check of each image finds the latter.

    Args:
        file: The file, for messages.
        ids: Name of each object.
        masks: Their masks.
        sizes: Width and height of each object's image.
        boxes: Their boxes, inside their images. None: boxes are not used.

    Shape:
        - ids: ``[N]``.
        - sizes: ``[N, 2]``.
        - boxes: ``[N, 4]``.

    Raises:
        DataError: All are fractions of their images, or outside them.
    """
    kept = np.unique(np.linspace(0, len(ids) - 1, min(_SAMPLED_MASKS, len(ids))).round().astype(np.int64))
    if not len(kept):
        return
    extent = np.array([masks.extent(int(index), *sizes[index, ::-1].tolist()) for index in kept])
    first = f"first: annotation {ids[kept[0]]}"
    drawn = np.array([bool(masks.polygons(int(index))) for index in kept])  # run lengths are in pixels, always
    if are_fractions(extent[drawn], sizes[kept[drawn]]):
        found = f"the polygons of all {drawn.sum()} ({first}) lie in 0 to 1"
        remedy = "multiply each x by the width of the image, each y by its height"
        record_error(Fault("box-normalized", file, ["annotations, segmentation"], "entry", found, remedy))
        return
    clipped = np.clip(extent, 0, np.tile(sizes[kept], 2))
    if (clipped[:, :2] >= clipped[:, 2:]).any(axis=1).all():
        what, where = ("polygons", "lie outside") if drawn.all() else ("masks", "have no pixel in")
        found = f"the {what} of all {len(kept)} ({first}, {box_text(extent[0])}) {where} their images"
        remedy = "write them in pixels of the images as they are on disk"
        record_error(Fault("no-objects", file, ["annotations, segmentation"], "entry", found, remedy))
        return
    # masks without a pixel are a fault of their own
    filled = (extent[:, :2] < extent[:, 2:]).all(axis=1)
    if boxes is not None and not recording() and (differs := filled & differs_from_mask(clipped, boxes[kept])).any():
        number = int(differs.argmax())
        rank_zero_warn(
            f"{differs.sum()} of {len(kept)} masks do not match their boxes (first: {file}, annotation "
            f"{ids[kept[number]]}, box {box_text(boxes[kept[number]])}, mask {box_text(extent[number])}); run "
            "striate data check to list them, with --fix to take the boxes from the masks"
        )


def check_crowds(
    file: Path, ids: np.ndarray, iscrowd: np.ndarray, labels: np.ndarray, class_names: Sequence[str]
) -> None:
    """Warn of many crowds, or of a class whose objects are all crowds.

    Args:
        file: The file, for messages.
        ids: Name of each object.
        iscrowd: Whether each is a crowd.
        labels: Class of each.
        class_names: Names of the K classes.

    Shape:
        - ids, iscrowd, labels: ``[N]``.
    """
    if not iscrowd.any():
        return
    count, total = int(iscrowd.sum()), len(ids)
    marked = np.bincount(labels[iscrowd], minlength=len(class_names))
    only = np.flatnonzero((marked > 0) & (np.bincount(labels[~iscrowd], minlength=len(class_names)) == 0))
    if count < MANY_CROWDS * total and not len(only):
        return
    crowds = f"{count} of {total} objects are crowds and never trained on"
    lost = f", all objects of {', '.join(class_names[label] for label in only[:5])}" if len(only) else ""
    reason = "iscrowd is 1, which some tools write for every brush mask; set crowds: objects if they are single objects"
    fault = Fault("many-crowds", file, ["annotations"], "entry", f"{crowds}{lost}: {reason}")
    record_warning(fault, f"{crowds}{lost} ({file}, first: annotation {ids[iscrowd][0]}): {reason}")


def plausible_areas(
    file: Path, areas: np.ndarray, boxes: np.ndarray, sizes: np.ndarray, ids: np.ndarray, masks: ObjectMasks | None
) -> np.ndarray:
    """Return the area of each object: as written, or computed from its mask or box.

    An area is computed where there is none, and where it is zero, negative, infinite or larger than the image. The
    latter are counted in one warning. Where there is none, but a mask, it is NaN: that of the mask, once decoded.

    Args:
        file: The file, for messages.
        areas: Areas as written, in pixels; NaN: none.
        boxes: x1, y1, x2, y2 of each object, in its image.
        sizes: Width and height of each object's image.
        ids: Name of each object.
        masks: Mask of each object; None: read without masks.

    Shape:
        - areas, ids: ``[N]``.
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - Output: ``[N]`` float64.
    """
    box_areas = np.where(np.isfinite(boxes).all(axis=1), (boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 0.0)
    bad = impossible_areas(areas, box_areas, sizes)
    areas = np.where(bad | (np.isnan(areas) & (masks is None)), box_areas, areas)
    if masks is not None:
        for index in np.flatnonzero(bad):
            width, height = sizes[index].tolist()
            areas[index] = masks.decode([int(index)], height, width).sum() or areas[index]
    if bad.any():
        indices = np.flatnonzero(bad)
        source = "masks" if masks is not None else "boxes"
        fault = Fault("bad-area", file, ids[indices].tolist())
        record_warning(
            fault,
            f"{len(indices)} of {len(ids)} areas replaced by those of the {source} (zero, negative, NaN or beyond the "
            f"image; first: {file}, annotation {ids[indices[0]]}); run striate data check to list them",
        )
    return areas


def impossible_areas(areas: np.ndarray, box_areas: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return which areas are zero, negative, larger than the image, or, like all others, fractions of the image.

    Args:
        areas: Areas as written, in pixels; NaN: none.
        box_areas: Area of each object's box.
        sizes: Width and height of each object's image.

    Shape:
        - areas, box_areas: ``[N]``.
        - sizes: ``[N, 2]``.
        - Output: ``[N]`` bool.
    """
    bad = (areas <= 0) | (areas > sizes.astype(np.float64).prod(axis=1))  # not NaN
    if len(areas) and (areas <= 1).all() and np.median(box_areas) > 16:
        bad |= areas <= 1
    return np.asarray(bad)
