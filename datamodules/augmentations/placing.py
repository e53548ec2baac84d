"""An image, resized and laid somewhere on a canvas, with its masks and boxes: what several augmentations come down to.

One rule for all of them. Pixel i of a side of n pixels covers the interval from i to i + 1, and resizing stretches the
whole interval from 0 to n. So a box is multiplied by new size / old size, a side by itself, and a pixel of a mask takes
the value at its own centre: ``floor((i + 0.5) * old / new)``. Images are interpolated where they grow, and averaged
over areas where they shrink, so that fine patterns do not alias.
"""

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
    """An image in another size: linear where it grows, averages of areas where it shrinks.

    Shape:
        - image: ``[H, W, C]``.
        - Output: ``[height, width, C]``; the image itself if that is its size.
    """
    old_height, old_width = image.shape[:2]
    if (old_width, old_height) == (width, height):
        return image
    shrinks = width <= old_width and height <= old_height
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


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


def place_masks(masks: np.ndarray, where: Placement) -> np.ndarray:
    """Masks of objects as they are on an else empty canvas.

    Only the rectangle in which a mask has pixels is looked at: objects are mostly small.

    Shape:
        - masks: ``[N, H, W]`` uint8.
        - Output: ``[N, H', W']`` uint8.
    """
    placed = np.zeros((len(masks), where.canvas[1], where.canvas[0]), np.uint8)
    left, top = where.visible(0)[0], where.visible(1)[0]
    columns, rows = where.sources(0), where.sources(1)
    for mask, canvas in zip(masks, placed, strict=True):
        x, y, width, height = cv2.boundingRect(mask)
        first, last = np.searchsorted(columns, (x, x + width))
        upper, lower = np.searchsorted(rows, (y, y + height))
        inner = mask[rows[upper:lower]][:, columns[first:last]]
        canvas[top + upper : top + lower, left + first : left + last] = inner
    return placed


def place_boxes(boxes: np.ndarray, where: Placement) -> np.ndarray:
    """Boxes ``[N, 4]`` in the canvas's pixels, float64, not clipped."""
    scale, offset = np.divide(where.new, where.old), np.array(where.offset, np.float64)
    return boxes * np.tile(scale, 2) + np.tile(offset, 2)
