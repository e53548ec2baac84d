"""Compose scenes of real handwritten digits on real photographs, with exact targets for five vision tasks.

A scene is a crop of a photograph on which digits are painted one after another. The label, box, instance mask and
semantic mask of each digit are computed from the painted pixels, so they are consistent by construction. This module
needs numpy and OpenCV only. See `sources` for the origin of digits and photographs, and for their splits.
"""

import math
import operator
from dataclasses import dataclass
from typing import SupportsIndex

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotations.argument_checks import check_choice
from .sources import (
    CELL_PX,
    CELLS,
    CLASS_NAMES,
    LEVELS,
    SPLITS,
    largest_crop,
    load_glyphs,
    load_strips,
)

SEMANTIC_CLASS_NAMES: tuple[str, ...] = ("background", *CLASS_NAMES)

_MIN_SIZE, _MIN_DIGIT_PX, _MAX_CONTRAST, _MAX_ROTATION, _MAX_DIGITS = 32, 8.0, 127.0, 45.0, 255
_MIN_CROP = 0.5  # side of the smallest background crop, relative to the largest
_BRIGHTNESS = 0.15  # a background is multiplied by 1 +- this much
_EDGE = 0.45  # slope of a stroke's edge: alpha rises from 0 to 1 over one to two pixels at any size, but never
_MIN_EDGE = 0.85  # so slowly that paper without ink, 0.6 levels below the edge, would be painted
_EXTENT = 8.5  # maximum span of a glyph's strokes in cells, soft edge included
_ATTEMPTS = 20  # placements tried for a digit before it is omitted
_COLORS = 4  # colors tried for a digit
_MIN_COLOR_DISTANCE = 80.0  # distance in RGB from the digit's surroundings at which a color is accepted
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601

UInt8Array = NDArray[np.uint8]
BoolArray = NDArray[np.bool_]
Float32Array = NDArray[np.float32]
Float64Array = NDArray[np.float64]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scene:
    """An image and its exact targets, for N >= 1 digits in the order of painting.

    Args:
        image: ``uint8 [H, W, 3]``, RGB.
        labels: ``int64 [N]``, the digit, 0 to 9.
        boxes: ``float32 [N, 4]``, x1, y1, x2, y2 in pixels, tight around the visible mask: ``0 <= x1 < x2 <= W``.
        masks: ``bool [N, H, W]``, visible pixels only: disjoint, none empty; a later digit covers an earlier one.
        semantic: ``uint8 [H, W]``, 0 = background, 1 to 10 = the digits 0 to 9 (``SEMANTIC_CLASS_NAMES``).
    """

    image: UInt8Array
    labels: Int64Array
    boxes: Float32Array
    masks: BoolArray
    semantic: UInt8Array


@dataclass(frozen=True, eq=False)
class Layer:
    """One digit as painted, before later digits cover any of it.

    Args:
        label: The digit, 0 to 9.
        left: Column of the patch's left edge in the scene, in pixels.
        top: Row of the patch's top edge in the scene, in pixels.
        alpha: ``float32 [h, w]`` in [0, 1], opacity; the digit's full mask is ``alpha >= 0.5``.
        color: ``uint8 [3]``, RGB.
    """

    label: int
    left: int
    top: int
    alpha: Float32Array
    color: UInt8Array

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the scene that the patch occupies."""
        height, width = self.alpha.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    @property
    def mask(self) -> BoolArray:
        """Pixels of the patch that belong to the digit. Shape: ``[h, w]``."""
        return self.alpha >= 0.5


@dataclass(frozen=True)
class SceneComposer:
    """Compose the scene of a given index: ``composer(index) -> Scene``.

    A scene depends on the parameters and the index only, not on the process or on earlier calls. The number of scenes
    is unlimited; a data set decides how many it uses. An instance holds only its parameters and is cheap to pickle;
    digits and photographs are loaded once per process, at the first scene.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``; they share neither digits nor regions of photographs.
        image_size: Side of the square scene in pixels, at least 32.
        min_digits: Minimum number of digits in a scene, at least 1. If they cannot be placed within `occlusion`, a
            scene has fewer, but never none.
        max_digits: Maximum number of digits in a scene, at most 255. The number is drawn uniformly.
        scale: Minimum and maximum height of a digit relative to `image_size`, before its rotation; at least 8 pixels
            and at most 1. A digit that would extend beyond the edge after its rotation is shrunk to fit; one without
            room becomes smaller with each attempt to place it.
        contrast: Minimum difference in luminance (BT.601, 0 to 255) between a digit and the mean of what it covers; at
            most 127, which any background allows.
        occlusion: Maximum fraction of a digit's area that later digits may cover, in [0, 1).
        rotation: Maximum rotation in both directions, in degrees, at most 45.
        seed: Nonnegative; another seed gives other scenes from the same split.

    Raises:
        ValueError: A parameter is out of its range; the message names it, the range and the value.
        TypeError: A parameter must be a whole number and is not.

    >>> scene = SceneComposer("train", image_size=64)(0)
    >>> scene.image.shape, scene.masks.shape, scene.boxes.shape
    ((64, 64, 3), (1, 64, 64), (1, 4))
    """

    split: str = "train"
    image_size: int = 64
    min_digits: int = 1
    max_digits: int = 1
    scale: tuple[float, float] = (0.4, 0.8)
    contrast: float = 60.0
    occlusion: float = 0.3
    rotation: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        for name in ("image_size", "min_digits", "max_digits", "seed"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, SupportsIndex):
                raise TypeError(f"{name}: must be a whole number, got {value!r}")
        if self.image_size < _MIN_SIZE:
            raise ValueError(f"image_size: must be >= {_MIN_SIZE} pixels, got {self.image_size}")
        if self.min_digits < 1:
            raise ValueError(f"min_digits: must be >= 1, got {self.min_digits}")
        if not self.min_digits <= self.max_digits <= _MAX_DIGITS:
            raise ValueError(
                f"max_digits: must be from min_digits, {self.min_digits}, to {_MAX_DIGITS}, got {self.max_digits}"
            )
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"scale: must be fractions of image_size with 0 < low <= high <= 1, got ({low}, {high})")
        if low * self.image_size < _MIN_DIGIT_PX:
            raise ValueError(
                f"scale: digits must be readable, >= {_MIN_DIGIT_PX:g} pixels, got {low} for "
                f"{low * self.image_size:.3g} pixels; use >= {_MIN_DIGIT_PX / self.image_size:.3g} "
                f"with image_size {self.image_size}"
            )
        if not 0 <= self.contrast <= _MAX_CONTRAST:
            raise ValueError(f"contrast: must be a luminance in [0, {_MAX_CONTRAST:g}], got {self.contrast}")
        if not 0 <= self.occlusion < 1:
            raise ValueError(f"occlusion: must be a fraction of a digit in [0, 1), got {self.occlusion}")
        if not 0 <= self.rotation <= _MAX_ROTATION:
            raise ValueError(f"rotation: must be in [0, {_MAX_ROTATION:g}] degrees, got {self.rotation}")
        if self.seed < 0:
            raise ValueError(f"seed: must be >= 0, got {self.seed}")

    def __call__(self, index: int) -> Scene:
        """Compose a scene.

        Args:
            index: Index of the scene, 0 or more.

        Raises:
            ValueError: `index` is negative.
        """
        _, layers, image, owner = self._compose(index)
        count = len(layers)
        labels = np.array([layer.label for layer in layers], np.int64)
        boxes = np.empty((count, 4), np.float32)
        masks = np.zeros((count, self.image_size, self.image_size), np.bool_)
        for i, layer in enumerate(layers):
            visible = owner[layer.window] == i + 1
            masks[i][layer.window] = visible
            x, y, w, h = cv2.boundingRect(visible.view(np.uint8))
            boxes[i] = layer.left + x, layer.top + y, layer.left + x + w, layer.top + y + h
        class_of_owner = np.zeros(count + 1, np.uint8)
        class_of_owner[1:] = labels + 1
        return Scene(image, labels, boxes, masks, class_of_owner[owner])

    def layers(self, index: int) -> tuple[UInt8Array, list[Layer]]:
        """Return the components of a scene: its background without digits, and the digits in the order of painting.

        They provide more than the visible pixels: full (amodal) masks, soft edges, the depth order.

        Args:
            index: Index of the scene, 0 or more.

        Returns:
            Background ``uint8 [H, W, 3]``, and one layer per digit.
        """
        background, layers, _, _ = self._compose(index)
        return background, layers

    def _compose(self, index: int) -> tuple[UInt8Array, list[Layer], UInt8Array, UInt8Array]:
        """Return background and image, ``[H, W, 3]``, the layers, and the number of each pixel's layer, ``[H, W]``."""
        rng = _generator(self.seed, self.split, index)
        background = _background(self.split, self.image_size, rng.random(6))
        # all random numbers are drawn up front and in a fixed order, so a rejected placement shifts no later draw
        count = self.min_digits + int(rng.random() * (self.max_digits - self.min_digits + 1))
        glyph_draws = rng.random((count, 2))
        color_draws = rng.random((count, _COLORS, 5))
        placement_draws = rng.random((count, _ATTEMPTS, 3))
        image = background.copy()
        owner = np.zeros((self.image_size, self.image_size), np.uint8)
        # areas in pixels; [0] is the background's and stays 0
        whole, visible = np.zeros(count + 1), np.zeros(count + 1)
        layers: list[Layer] = []
        for look, attempts, draws in zip(glyph_draws, placement_draws, color_draws, strict=True):
            placed = self._place(look, attempts, owner, whole, visible)
            if placed is None:
                continue
            label, left, top, alpha = placed
            mask = alpha >= 0.5
            window = slice(top, top + alpha.shape[0]), slice(left, left + alpha.shape[1])
            color = _color(
                image[window][mask].mean(axis=0) @ _LUMA,
                self.contrast,
                _surroundings(image[window], owner[window], layers),
                draws,
            )
            layers.append(Layer(label, left, top, alpha, color))
            owner[window][mask] = len(layers)
            whole[len(layers)] = visible[len(layers)] = np.count_nonzero(mask)
            _paint(image[window], alpha, color)
        return background, layers, image, owner

    def _place(
        self,
        look: Float64Array,
        attempts: Float64Array,
        owner: UInt8Array,
        whole: Float64Array,
        visible: Float64Array,
    ) -> tuple[int, int, int, Float32Array] | None:
        """Place one digit; None if every attempt covers too much of an earlier digit.

        Reduces `visible` by what the digit covers.

        Returns:
            Its label, the left and top of its patch, and its alpha.

        Shape:
            ``look [2]`` and ``attempts [A, 3]`` in [0, 1); ``owner [H, W]``; ``whole, visible [M + 1]``;
            alpha ``[h, w]``.
        """
        glyphs, labels = load_glyphs(self.split)
        glyph = int(look[0] * len(labels))
        angle = math.radians(self.rotation * (2 * look[1] - 1))
        for attempt, (u_scale, u_x, u_y) in enumerate(attempts.tolist()):
            # later attempts draw from smaller heights
            low, high = self.scale
            largest = high - (high - low) * attempt / (len(attempts) - 1)
            height = self.image_size * (low + (largest - low) * u_scale)
            alpha = _render(glyphs[glyph], height, angle, self.image_size)
            h, w = alpha.shape
            left, top = int(u_x * (self.image_size - w + 1)), int(u_y * (self.image_size - h + 1))
            mask = alpha >= 0.5
            window = slice(top, top + h), slice(left, left + w)
            covered = np.bincount(owner[window][mask], minlength=len(visible))
            covered[0] = 0
            if np.all(visible - covered >= (1 - self.occlusion) * whole):
                visible -= covered
                return int(labels[glyph]), left, top, alpha
        return None


def _generator(seed: int, split: str, index: int) -> np.random.Generator:
    index = operator.index(index)
    if index < 0:
        raise ValueError(f"index: must be >= 0, got {index}")
    sequence = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(split), index))
    return np.random.Generator(np.random.PCG64(sequence))


def _background(split: str, size: int, draws: Float64Array) -> UInt8Array:
    """Return a random crop of a photograph's strip, resized, flipped at random, slightly lighter or darker.

    Shape:
        ``draws [6]`` in [0, 1); returns ``[size, size, 3]``.
    """
    u_photo, u_side, u_x, u_y, u_flip, u_gain = draws.tolist()
    strips = load_strips(split)
    strip = strips[int(u_photo * len(strips))]
    side = round(largest_crop() * (_MIN_CROP + (1 - _MIN_CROP) * u_side))
    top, left = int(u_y * (strip.shape[0] - side + 1)), int(u_x * (strip.shape[1] - side + 1))
    crop = strip[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if size < side else cv2.INTER_CUBIC
    image = cv2.resize(crop, (size, size), interpolation=interpolation)
    if u_flip < 0.5:
        image = cv2.flip(image, 1)
    return np.asarray(cv2.convertScaleAbs(image, alpha=1 + _BRIGHTNESS * (2 * u_gain - 1)), np.uint8)


def _render(glyph: UInt8Array, height: float, angle: float, limit: int) -> Float32Array:
    """Render the opacity of a digit at a given height and rotation, cropped to its nonzero part.

    A glyph is a smooth field of ink. It is sampled at any size without aliasing, and a ramp about one pixel wide around
    the level where strokes end turns it into strokes, so edges are equally sharp at 8 and at 400 pixels.

    Args:
        glyph: Field of ink, ``[80, 80]``.
        height: Height of the digit's 8 cells in pixels.
        angle: Rotation in radians.
        limit: Maximum height and width of the result in pixels.

    Returns:
        ``float32 [h, w]`` in [0, 1], ``h, w <= limit``.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    spread = _EXTENT * (cos + abs(sin))  # cells across the rotated glyph
    cell = min(height / CELLS, limit / spread)  # pixels per cell
    side = min(limit, math.ceil(cell * spread) + 1)
    ratio = cell / CELL_PX
    a, b = ratio * cos, ratio * sin
    # rotate and scale about the centers of glyph and patch
    glyph_center, center = (glyph.shape[0] - 1) / 2, (side - 1) / 2
    matrix = np.array([[a, b, center - (a + b) * glyph_center], [-b, a, center - (a - b) * glyph_center]])
    interpolation = cv2.INTER_LINEAR if ratio <= 1 else cv2.INTER_CUBIC
    ink = cv2.warpAffine(glyph.astype(np.float32), matrix, (side, side), flags=interpolation)
    gain = max(_EDGE * cell, _MIN_EDGE) * LEVELS / 255
    alpha = np.clip(ink * np.float32(gain) + np.float32(0.5 - 127.5 * gain), 0, 1, dtype=np.float32)
    x, y, w, h = cv2.boundingRect((alpha > 0).view(np.uint8))
    return alpha[y : y + h, x : x + w]


def _surroundings(patch: UInt8Array, owner: UInt8Array, layers: list[Layer]) -> Float32Array:
    """Return the colors that a digit must stand out from: the mean colors of the patch's quarters, and its digits.

    Shape:
        ``patch [h, w, 3]``, ``owner [h, w]``; returns ``[M, 3]``, RGB.
    """
    quarters = cv2.resize(patch, (2, 2), interpolation=cv2.INTER_AREA).reshape(4, 3)
    owners = np.flatnonzero(np.bincount(owner.ravel()))
    digits = [layers[index - 1].color for index in owners if index > 0]
    return np.array([*quarters, *digits], np.float32)


def _color(luminance: float, contrast: float, surroundings: Float32Array, draws: Float64Array) -> UInt8Array:
    """Return the first drawn color that stands out from the digit's surroundings, or the best one.

    Args:
        luminance: Mean luminance of what the digit covers.
        contrast: Minimum difference from it, for every drawn color.
        surroundings: Colors of the surroundings, ``[M, 3]``.
        draws: ``[K, 5]`` in [0, 1), one row for each color to try.

    Returns:
        ``uint8 [3]``, RGB.
    """
    colors: list[UInt8Array] = []
    distances: list[float] = []
    for row in draws:
        colors.append(_draw_color(luminance, contrast, row))
        distances.append(float(np.linalg.norm(surroundings - colors[-1], axis=1).min()))
        if distances[-1] >= _MIN_COLOR_DISTANCE:
            break
    return colors[int(np.argmax(distances))]


def _draw_color(luminance: float, contrast: float, draws: Float64Array) -> UInt8Array:
    """Return a random color whose luminance differs from the given one by at least `contrast`.

    The luminance is drawn uniformly from the allowed range; then a random tint that preserves it is mixed in.

    Shape:
        ``draws [5]`` in [0, 1); returns ``uint8 [3]``.
    """
    contrast += 0.5  # a margin for rounding to whole values
    below, above = max(0.0, luminance - contrast), max(0.0, 255 - luminance - contrast)
    drawn = float(draws[0]) * (below + above)
    value = drawn if drawn < below or above == 0 else 255 - (below + above - drawn)
    tint = draws[1:4].astype(np.float32)
    tint -= tint @ _LUMA
    room = np.where(tint > 0, 255 - value, value) / np.maximum(np.abs(tint), 1e-6)
    strength = 0.4 + 0.6 * draws[4]
    return np.rint(np.clip(value + tint * room.min() * strength, 0, 255)).astype(np.uint8)


def _paint(patch: UInt8Array, alpha: Float32Array, color: UInt8Array) -> None:
    """Blend a color ``[3]`` into a patch ``[h, w, 3]`` with opacity `alpha` ``[h, w]``, in place."""
    below = patch.astype(np.float32)
    patch[:] = np.rint(below + alpha[..., None] * (color - below))
