"""Regions of pixels drawn on a picture, in place: the classes of a semantic mask, and the masks of objects."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from ...tasks.interfaces import RunLengths
from .colors import EDGE, Color

CLASS_OPACITY = 0.7
"""Opacity of a semantic class over the gray image: a class has one color, and the image remains visible."""

OBJECT_OPACITY = 0.5
"""Opacity of an object's mask over the image."""

PALE_OPACITY = 0.2
"""Opacity of the mask of an object below the minimum score."""


def fill_class(picture: np.ndarray, region: np.ndarray, color: Color) -> None:
    """Color a region ``[h, w]`` of a picture ``[h, w, 3]``, which is gray below the color."""
    gray = picture[region] @ np.array([0.299, 0.587, 0.114])
    picture[region] = _mix(gray[:, None], color, CLASS_OPACITY)


def tint_object(picture: np.ndarray, region: np.ndarray, color: Color, opacity: float = OBJECT_OPACITY) -> None:
    """Tint a region ``[h, w]`` of a picture ``[h, w, 3]``, and draw its outline in the color."""
    if not region.any():
        return
    picture[region] = _mix(picture[region], color, opacity)
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    drawn = np.ascontiguousarray(picture)  # OpenCV does not draw into every window of a larger picture
    cv2.drawContours(drawn, outlines, -1, color, 1, cv2.LINE_8)
    picture[...] = drawn


def draw_contours(picture: np.ndarray, labels: np.ndarray, width: int = 1) -> None:
    """Draw the borders between the labels ``[h, w]`` of a picture ``[h, w, 3]``: dark lines with a light rim."""
    border = np.zeros(labels.shape, np.uint8)
    border[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    border[1:] |= labels[1:] != labels[:-1]
    # one of the two shows, whatever the brightness of the image
    rim = cv2.dilate(border, np.ones((width + 2, width + 2), np.uint8)) != 0
    picture[rim] = _mix(picture[rim], (255, 255, 255), 0.6)
    line = cv2.dilate(border, np.ones((width, width), np.uint8)) != 0
    picture[line] = EDGE


def hatch(picture: np.ndarray, region: np.ndarray, phase: int = 0) -> None:
    """Draw gray stripes over a region ``[h, w]`` of a picture ``[h, w, 3]``, moved by `phase` pixels."""
    rows, columns = np.nonzero(region)
    light = ((rows + columns + phase) // 5 % 2).astype(bool)
    stripes = np.where(light, 205, 110)[:, None]
    picture[rows, columns] = np.rint(picture[rows, columns] * 0.35 + stripes * 0.65).astype(np.uint8)


def draw_masks(
    picture: np.ndarray, masks: RunLengths, colors: Sequence[Color], crowds: np.ndarray, opacity: float
) -> np.ndarray:
    """Tint a picture ``[h, w, 3]`` by N masks, the larger below the smaller; crowds ``[N]`` are striped.

    Only one mask at a time becomes pixels, in the window of its box.
    """
    picture = picture.copy()
    order = masks.area().argsort(descending=True, stable=True)
    for index, (region, x, y) in zip(order.tolist(), scaled_windows(masks[order], picture.shape[:2]), strict=True):
        window = picture[y : y + region.shape[0], x : x + region.shape[1]]
        if crowds[index]:
            hatch(window, region, x + y)
        else:
            tint_object(window, region, colors[index], opacity)
    return picture


def scaled_windows(masks: RunLengths, size: Sequence[int]) -> Iterator[tuple[np.ndarray, int, int]]:
    """Resize masks to another height and width; yield the pixels of each window, and x and y of its upper left corner.

    A pixel gets the value at its upper left corner, as OpenCV's ``INTER_NEAREST`` gives it.

    Shape:
        - output: bool ``[h, w]`` each
    """
    rows, columns = (
        np.arange(side) * whole // side for side, whole in zip(size, masks.size, strict=True)
    )  # the row and column of the mask for each of the result
    for pixels, x, y in masks.windows():
        (left, right), (top, bottom) = (
            np.searchsorted(line, (low, low + length)).tolist()
            for line, low, length in ((columns, x, pixels.shape[0]), (rows, y, pixels.shape[1]))
        )
        window = pixels.numpy().T
        yield window[np.ix_(rows[top:bottom] - y, columns[left:right] - x)], left, top


def _mix(pixels: np.ndarray, color: Color, opacity: float) -> np.ndarray:
    """Pixels ``[n, 3]`` or ``[n, 1]`` below a color of some opacity, as ``[n, 3]`` uint8."""
    return np.rint(pixels * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)
