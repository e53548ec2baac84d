"""An image, resized and laid somewhere on a canvas, with its masks and boxes: what several augmentations come down to.

One rule for all of them. Pixel i of a side of n pixels covers the interval from i to i + 1, and resizing stretches the
whole interval from 0 to n. So a box is multiplied by new size / old size, a side by itself, and a pixel of a mask takes
the value at its own centre: ``floor((i + 0.5) * old / new)``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np


class Placement(NamedTuple):
    """Where an image goes.

    Attributes:
        old: its width and height.
        new: its width and height on the canvas.
        offset: its left upper corner there; may be negative.
        canvas: the canvas's width and height.
    """

    old: tuple[int, int]
    new: tuple[int, int]
    offset: tuple[int, int]
    canvas: tuple[int, int]

    def visible(self, axis: int) -> tuple[int, int]:
        """First and last + 1 column (axis 0) or row (axis 1) of the canvas that shows the image; may be equal."""
        first = min(max(self.offset[axis], 0), self.canvas[axis])
        return first, max(first, min(self.offset[axis] + self.new[axis], self.canvas[axis]))

    def sources(self, axis: int) -> np.ndarray:
        """Which column (axis 0) or row (axis 1) of the image is at the centre of each visible one of the canvas."""
        first, last = self.visible(axis)
        places = np.arange(first, last) - self.offset[axis]
        return (2 * places + 1) * self.old[axis] // (2 * self.new[axis])


def rounded_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Width and height multiplied by `scale` and rounded, halves upward; at least a pixel."""
    return max(int(width * scale + 0.5), 1), max(int(height * scale + 0.5), 1)


def resize_image(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """An image in another size, by linear interpolation between its pixels, or between averages of k x k of them.

    k is how often the new size goes into the old one, at least 1. So no pixel is passed over, as it is by plain linear
    interpolation of an image that shrinks to less than half, and fine patterns do not alias. (OpenCV's averaging over
    fractions of pixels takes three times as long, and little differs.)

    Shape:
        - image: ``[H, W, C]``.
        - Output: ``[height, width, C]``; the image itself if that is its size.
    """
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    times = min(old_width // width, old_height // height)
    if times < 2:
        return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    columns, rows = old_width // times, old_height // times
    means = cv2.resize(image[: rows * times, : columns * times], (columns, rows), interpolation=cv2.INTER_AREA)
    if (columns * times, rows * times) == (old_width, old_height):
        return cv2.resize(means, (width, height), interpolation=cv2.INTER_LINEAR)
    # the last few pixels make no whole average; all others stay where they are
    across, down = old_width / (times * width), old_height / (times * height)
    matrix = np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(means, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def place_image(image: np.ndarray, where: Placement, canvas: np.ndarray) -> None:
    """Lay an image ``[H, W, C]`` on a canvas ``[H', W', C]``, in place."""
    (left, right), (top, bottom) = where.visible(0), where.visible(1)
    if left == right or top == bottom:
        return
    x, y = where.offset
    canvas[top:bottom, left:right] = resize_image(image, *where.new)[top - y : bottom - y, left - x : right - x]


def place_mask(mask: np.ndarray, where: Placement, canvas: np.ndarray) -> None:
    """Lay a mask ``[H, W]`` on a canvas ``[H', W']``, in place, without mixing its values."""
    (left, right), (top, bottom) = where.visible(0), where.visible(1)
    canvas[top:bottom, left:right] = mask[where.sources(1)][:, where.sources(0)]


class Patch(NamedTuple):
    """The part of an object's mask on a canvas that has pixels: its left upper corner there, and uint8 ``[h, w]``."""

    left: int
    top: int
    pixels: np.ndarray

    @property
    def area(self) -> int:
        """How many pixels it has."""
        return cv2.countNonZero(self.pixels) if self.pixels.size else 0

    @property
    def box(self) -> tuple[int, int, int, int]:
        """x1, y1, x2, y2 of its pixels, if it has any."""
        x, y, width, height = cv2.boundingRect(self.pixels)
        return self.left + x, self.top + y, self.left + x + width, self.top + y + height


def mask_patches(masks: Iterable[np.ndarray], where: Placement) -> list[Patch]:
    """Masks of objects, uint8 ``[H, W]`` each, as patches of a canvas.

    Only the rectangle in which a mask has pixels is looked at: objects are mostly small.
    """
    left, top = where.visible(0)[0], where.visible(1)[0]
    columns, rows = where.sources(0), where.sources(1)
    patches = []
    for mask in masks:
        x, y, width, height = cv2.boundingRect(mask)
        first, last = np.searchsorted(columns, (x, x + width)).tolist()
        upper, lower = np.searchsorted(rows, (y, y + height)).tolist()
        patches.append(Patch(left + first, top + upper, mask[rows[upper:lower]][:, columns[first:last]]))
    return patches


def whole_masks(patches: Sequence[Patch], width: int, height: int) -> np.ndarray:
    """Patches on canvases of their own: uint8 ``[N, height, width]``."""
    masks = np.zeros((len(patches), height, width), np.uint8)
    for mask, (left, top, pixels) in zip(masks, patches, strict=True):
        mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return masks


def place_boxes(boxes: np.ndarray, where: Placement) -> np.ndarray:
    """Boxes ``[N, 4]`` in the canvas's pixels, float64, not clipped."""
    scale, offset = np.divide(where.new, where.old), np.array(where.offset, np.float64)
    return boxes * np.tile(scale, 2) + np.tile(offset, 2)
