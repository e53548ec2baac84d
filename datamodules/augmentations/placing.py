"""Place an image, resized, on a canvas, with its masks and boxes: the geometry of several augmentations.

All of them follow one rule. Pixel i of a side of n pixels covers the interval from i to i + 1, and resizing stretches
the whole interval from 0 to n. So a box is multiplied by new size / old size, each side separately, and a pixel of a
mask takes the value at its own center: ``floor((i + 0.5) * old / new)``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ..loading.sources import Sample
from ..loading.targets import MIN_SIZE


class Placement(NamedTuple):
    """Size and position of an image on a canvas, in pixels.

    Attributes:
        old: Width and height of the image.
        new: Its width and height on the canvas.
        offset: Its upper left corner there, x and y; may be negative.
        canvas: Width and height of the canvas.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]

    def visible(self, axis: int) -> tuple[int, int]:
        """Return the half-open range of columns (axis 0) or rows (axis 1) of the canvas that show the image."""
        first = min(max(self.offset[axis], 0), self.canvas[axis])
        return first, max(first, min(self.offset[axis] + self.new[axis], self.canvas[axis]))

    def source_indices(self, axis: int) -> np.ndarray:
        """Return the column (axis 0) or row (axis 1) of the image at the center of each visible one: ``[N]``."""
        first, last = self.visible(axis)
        positions = np.arange(first, last) - self.offset[axis]
        return (2 * positions + 1) * self.old[axis] // (2 * self.new[axis])


def rounded_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Multiply width and height by `scale`, rounded half up; at least one pixel."""
    return max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """Resize an image by linear interpolation between its pixels, or between averages of k x k of them.

    k is the largest whole number by which both sides shrink, at least 1. So no pixel is skipped, unlike in plain linear
    interpolation of an image that shrinks to less than half, and fine patterns do not alias. (OpenCV's averaging over
    fractions of pixels takes three times as long, and differs little.)

    Shape:
        - image: ``[H, W, C]``.
        - Output: ``[height, width, C]``; the image itself if that is its size.
    """
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    factor = min(old_width // width, old_height // height)
    if factor < 2:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = old_width // factor, old_height // factor
    means = cv2.resize(image[: rows * factor, : columns * factor], (columns, rows), interpolation=cv2.INTER_AREA)
    if (columns * factor, rows * factor) == (old_width, old_height):
        return cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    # the last few pixels do not fill an average; the scale accounts for them, so all others keep their position
    scale_x, scale_y = old_width / (factor * width), old_height / (factor * height)
    matrix = np.array([[scale_x, 0, scale_x / 2 - 0.5], [0, scale_y, scale_y / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(means, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def place_image(image: np.ndarray, placement: Placement, canvas: np.ndarray) -> None:
    """Draw an image ``[H, W, C]`` on a canvas ``[H', W', C]``, in place."""
    (left, right), (top, bottom) = placement.visible(0), placement.visible(1)
    if left == right or top == bottom:
        return
    x, y = placement.offset
    canvas[top:bottom, left:right] = resize_image(image, *placement.new)[top - y : bottom - y, left - x : right - x]


def place_mask(mask: np.ndarray, placement: Placement, canvas: np.ndarray) -> None:
    """Draw a mask ``[H, W]`` on a canvas ``[H', W']``, in place, without interpolation."""
    (left, right), (top, bottom) = placement.visible(0), placement.visible(1)
    canvas[top:bottom, left:right] = mask[placement.source_indices(1)][:, placement.source_indices(0)]


class MaskPatch(NamedTuple):
    """The nonzero part of an object's mask on a canvas: its upper left corner there, and pixels, uint8 ``[h, w]``."""

    left: int
    top: int
    pixels: np.ndarray

    @property
    def area(self) -> int:
        """Number of nonzero pixels of the patch."""
        return cv2.countNonZero(self.pixels) if self.pixels.size else 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Tight box x1, y1, x2, y2 of the nonzero pixels; the patch must have some."""
        x, y, width, height = cv2.boundingRect(self.pixels)
        return self.left + x, self.top + y, self.left + x + width, self.top + y + height


def mask_patches(masks: Iterable[np.ndarray], placement: Placement) -> list[MaskPatch]:
    """Place masks of objects, uint8 ``[H, W]`` each, on a canvas, as patches.

    Only the rectangle in which a mask has pixels is processed, since most objects are small.
    """
    left, top = placement.visible(0)[0], placement.visible(1)[0]
    columns, rows = placement.source_indices(0), placement.source_indices(1)
    patches = []
    for mask in masks:
        x, y, width, height = cv2.boundingRect(mask)
        # the visible columns and rows whose source lies in the rectangle
        first, last = np.searchsorted(columns, (x, x + width)).tolist()
        upper, lower = np.searchsorted(rows, (y, y + height)).tolist()
        patches.append(MaskPatch(left + first, top + upper, mask[rows[upper:lower]][:, columns[first:last]]))
    return patches


def full_masks(patches: Sequence[MaskPatch], width: int, height: int) -> np.ndarray:
    """Draw each patch on a canvas of its own: uint8 ``[N, height, width]``."""
    masks = np.zeros((len(patches), height, width), np.uint8)
    for mask, (left, top, pixels) in zip(masks, patches, strict=True):
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return masks


def place_boxes(boxes: np.ndarray, placement: Placement) -> np.ndarray:
    """Map boxes ``[N, 4]`` to pixels of the canvas: ``[N, 4]`` float64, not clipped."""
    scale, offset = np.divide(placement.new, placement.old), np.array(placement.offset, np.float64)
    return boxes * np.tile(scale, 2) + np.tile(offset, 2)


def place_proposals(samples: Sequence[Sample], placements: Sequence[Placement]) -> Sample:
    """Place the proposals of several samples on one canvas: field ``proposals`` ``[P, 4]``, or nothing if one has none.

    They are clipped, and dropped if less than `MIN_SIZE` pixels remain. The best of all samples come first.
    """
    if not all("proposals" in sample for sample in samples):
        return {}
    boxes, ranks = [], []
    for sample, placement in zip(samples, placements, strict=True):
        placed = place_boxes(sample["proposals"].astype(np.float64), placement).clip(0, np.tile(placement.canvas, 2))
        large = ((placed[:, 2:] - placed[:, :2]) >= MIN_SIZE).all(axis=1)
        boxes.append(placed[large])
        ranks.append(np.flatnonzero(large))
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return {"proposals": np.concatenate(boxes)[order].astype(np.float32)}
