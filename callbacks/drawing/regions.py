"""Regions of pixels drawn on a picture, in place: the classes of a semantic mask, and the masks of objects."""

from collections.abc import Sequence

import cv2
import numpy as np

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
    picture[region] = _mix(picture[region], color, opacity)
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, outlines, -1, color, 1, cv2.LINE_8)


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


def hatch(picture: np.ndarray, region: np.ndarray) -> None:
    """Draw gray stripes over a region ``[h, w]`` of a picture ``[h, w, 3]``."""
    rows, columns = np.nonzero(region)
    light = ((rows + columns) // 5 % 2).astype(bool)
    stripes = np.where(light, 205, 110)[:, None]
    picture[rows, columns] = np.rint(picture[rows, columns] * 0.35 + stripes * 0.65).astype(np.uint8)


def draw_masks(
    picture: np.ndarray, masks: np.ndarray, colors: Sequence[Color], crowds: np.ndarray, opacity: float
) -> np.ndarray:
    """Tint a picture ``[h, w, 3]`` by masks ``[N, H, W]``, the larger below the smaller; crowds ``[N]`` are striped."""
    picture = picture.copy()
    size = picture.shape[1::-1]
    for index in np.argsort(-masks.sum(axis=(1, 2)), kind="stable").tolist():
        region = cv2.resize(masks[index].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) != 0
        if crowds[index]:
            hatch(picture, region)
        else:
            tint_object(picture, region, colors[index], opacity)
    return picture


def _mix(pixels: np.ndarray, color: Color, opacity: float) -> np.ndarray:
    """Pixels ``[n, 3]`` or ``[n, 1]`` below a color of some opacity, as ``[n, 3]`` uint8."""
    return np.rint(pixels * (1 - opacity) + np.array(color) * opacity).astype(np.uint8)
