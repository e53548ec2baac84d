"""The rules of valid boxes and labels, which readers, the doctor and its repair share."""

from collections.abc import Sequence

import numpy as np

BOX_CODES = ("", "box-not-finite", "box-inverted", "box-zero-area", "box-outside", "box-far-beyond", "box-beyond")
"""Faults of a box, in the order in which they are checked."""

FAR = 10
"""Number of sides of an image beyond which a coordinate is refused, not clipped."""


def box_faults(
    boxes: np.ndarray, sizes: np.ndarray, pixel: np.ndarray | float = 1.0, min_side: float = 0.0
) -> np.ndarray:
    """Return the fault of each box as it is written.

    A box is valid if it is finite, has its corners in order, and keeps an area in float32 after clipping to its image.
    One that extends beyond the image by less than a pixel has no fault; one that extends beyond it by more than
    `FAR` times the image's side is not clipped, since that is no box of this image.

    Args:
        boxes: x1, y1, x2, y2.
        sizes: Width and height of each box's image.
        pixel: Width and height of a pixel, in the unit of the boxes.
        min_side: Smallest side that a box must keep, in that unit.

    Returns:
        One of `BOX_CODES` per box; empty: no fault.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - pixel: a number, or ``[N, 2]``.
        - Output: ``[N]``, text.
    """
    sizes = np.asarray(sizes, np.float64)
    first, last = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        clipped = np.clip(boxes, 0, np.concatenate([sizes, sizes], axis=1))
        thin = (clipped[:, 2:] - clipped[:, :2] < min_side).any(axis=1)
        clipped = clipped.astype(np.float32)
        checks = [
            ~np.isfinite(boxes).all(axis=1),
            (last < first).any(axis=1),
            (last == first).any(axis=1),
            # the third catches a sliver that float32 has no room for: [99.9999999, 100]
            thin | ((first >= sizes) | (last <= 0) | (clipped[:, 2:] <= clipped[:, :2])).any(axis=1),
            ((first < -FAR * sizes) | (last > FAR * sizes)).any(axis=1),
            ((first <= -pixel) | (last >= sizes + pixel)).any(axis=1),
        ]
    return np.select(checks, BOX_CODES[1:], "")


def repair_boxes(
    boxes: np.ndarray, sizes: np.ndarray, pixel: np.ndarray | float = 1.0, min_side: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes corrected where that is safe: corners in order, clipped where they extend beyond the image.

    Args:
        boxes, sizes, pixel, min_side: See `box_faults`.

    Returns:
        The boxes; the fault that each had, or an empty text; and which can be kept.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - Output: ``[N, 4]`` float64, ``[N]`` text, ``[N]`` bool.
    """
    boxes = np.array(boxes, np.float64).reshape(-1, 4)
    codes = box_faults(boxes, sizes, pixel, min_side)
    inverted = codes == "box-inverted"
    corners = boxes[inverted].reshape(-1, 2, 2)
    boxes[inverted] = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    after = box_faults(boxes, sizes, pixel, min_side)
    beyond = after == "box-beyond"
    boxes[beyond] = np.clip(boxes[beyond], 0, np.concatenate([sizes, sizes], axis=1)[beyond])
    return boxes, codes, (after == "") | beyond


def repeated_objects(images: np.ndarray, labels: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which objects equal an earlier one of their image in class and box, in float32.

    Shape:
        - images, labels: ``[N]``.
        - boxes: ``[N, 4]``, clipped to their images.
        - Output: ``[N]`` bool.
    """
    if not len(images):
        return np.zeros(0, np.bool_)
    keys = np.column_stack([images, labels, boxes.astype(np.float32).astype(np.float64)])
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return first[group.reshape(-1)] != np.arange(len(keys))


def differs_from_mask(tight: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which boxes differ from those of their masks by more than 2 pixels and a tenth of the object's longer side.

    Annotators' boxes are those of their polygons, whose pixels may end one earlier or later.

    Args:
        tight: The boxes of the masks.
        boxes: The boxes as annotated.

    Shape:
        - tight, boxes: ``[N, 4]``.
        - Output: ``[N]`` bool.
    """
    if not len(boxes):
        return np.zeros(0, np.bool_)
    offset = np.abs(tight - boxes).max(axis=1)
    side = np.maximum(tight[:, 2:] - tight[:, :2], boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    return offset > np.maximum(2, 0.1 * side)


def class_number(label: str, class_names: Sequence[str]) -> int:
    """The number of a class that a table names or numbers; -1: not a class."""
    label = label.strip()
    if label in class_names:
        return list(class_names).index(label)
    digits = label.removeprefix("+").lstrip("0") or "0"  # int() refuses thousands of digits
    is_number = label.removeprefix("+").isdecimal() and len(digits) <= 9
    return int(digits) if is_number and int(digits) < len(class_names) else -1
