"""Colors of classes and objects, which differ from each other and are readable on dark and on bright images."""

import colorsys
import functools

import cv2
import numpy as np

Color = tuple[int, int, int]

RIGHT, WRONG, NEUTRAL, DIM = (24, 120, 60), (190, 30, 45), (40, 40, 48), (110, 110, 118)
PAPER, GRAY, EDGE = (255, 255, 255), (150, 150, 150), (20, 20, 24)

_HUES = (0.0, 0.58, 0.33, 0.13, 0.78, 0.47, 0.92, 0.06, 0.22)
_LIGHTNESS = (48.0, 84.0)
"""Range of the lightness (0 to 100) of colors after the first nine: apart from black and from white."""

_CHROMA = 42.0
"""Minimum distance of a color from gray, in CIELAB."""


def color_of(number: int) -> Color:
    """The color of a class or an object; 256 different ones, the first nine the most distinct."""
    red, green, blue = _colors()[number % 256].tolist()
    return red, green, blue


@functools.cache
def _colors() -> np.ndarray:
    """The colors ``[256, 3]``: nine hues, then always the candidate that is farthest from all before it."""
    first = [[round(255 * part) for part in colorsys.hsv_to_rgb(hue, 0.85, 0.95)] for hue in _HUES]
    steps = np.arange(0, 256, 15)
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3)  # [C, 3]
    lab = _lab(candidates)
    vivid = np.hypot(lab[:, 1], lab[:, 2]) >= _CHROMA
    usable = vivid & (lab[:, 0] >= _LIGHTNESS[0]) & (lab[:, 0] <= _LIGHTNESS[1])
    candidates, lab = candidates[usable], lab[usable]
    colors = np.zeros((256, 3), np.int64)
    colors[: len(first)] = first
    distance = np.full(len(lab), np.inf)
    for index in range(256):
        if index >= len(first):
            colors[index] = candidates[distance.argmax()]
        distance = np.minimum(distance, np.linalg.norm(lab - _lab(colors[index : index + 1]), axis=1))
    return colors


def _lab(colors: np.ndarray) -> np.ndarray:
    """CIELAB coordinates ``[N, 3]`` of RGB colors ``[N, 3]``."""
    scaled = (colors / 255).astype(np.float32)[None]
    return np.asarray(cv2.cvtColor(scaled, cv2.COLOR_RGB2LAB)[0])


def contrast_color(color: Color) -> Color:
    """Black or white, whichever is easier to read on a color."""
    return (0, 0, 0) if 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140 else (255, 255, 255)


def pale(color: Color) -> Color:
    """The color mixed with white, for objects below the minimum score."""
    red, green, blue = (round(0.45 * part + 0.55 * 255) for part in color)
    return red, green, blue
