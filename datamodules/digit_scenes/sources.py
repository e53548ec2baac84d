"""Components of scenes: scikit-learn's handwritten digits and photographs, in disjoint splits.

The digits of each class are divided 70 / 15 / 15 by a fixed draw that is independent of the user's seed, and each
photograph is cut into three vertical strips: no digit and no pixel of a photograph belongs to two splits. (The source
does not identify the digits' 13 writers, so a writer may appear in more than one split.)

scikit-learn is imported at the first use. Everything is loaded once per process and must not be modified.

Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from ..annotations.argument_checks import check_choice

SPLITS: tuple[str, ...] = ("train", "val", "test")
CLASS_NAMES: tuple[str, ...] = tuple("0123456789")

CELLS = 8
"""A source digit is 8 x 8 cells of ink coverage."""
CELL_PX = 8
"""Pixels per cell in an enlarged glyph."""
LEVELS = 1.6
"""Range of ink levels that a glyph's 0 to 255 represent, where a fully inked cell is 1."""

_DIGIT_SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
# columns of a photograph, as fractions of its width; the cuts, at 320 and 480 of 640 pixels, are multiples of 16, so
# not even a JPEG block belongs to two splits
_STRIPS = {"train": (0.0, 0.5), "val": (0.5, 0.75), "test": (0.75, 1.0)}
_SPLIT_SEED = 1998
_MARGIN = 1  # cells of empty margin around an enlarged glyph, so that strokes end rounded, not cut
# coverage alone gives strokes that are too thick and fill the holes of an 8; an unsharp mask of this strength and width
# (in cells) opens them without breaking faint strokes, unlike a higher level of ink
_SHARPEN, _BLUR = 2.0, 0.8
_INK = 0.6  # level of sharpened ink at which a stroke ends


def split_digits(split: str) -> NDArray[np.int64]:
    """Return the digits of scikit-learn's ``load_digits`` that belong to a split: a fixed draw within each class.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        Indices in ascending order, ``[M]``.

    Raises:
        ValueError: There is no such split.
    """
    check_choice("split", split, SPLITS)
    _, targets = load_digits()
    rng = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    start = sum(_DIGIT_SHARES[name] for name in SPLITS[: SPLITS.index(split)])
    indices = []
    for label in range(len(CLASS_NAMES)):
        members = np.flatnonzero(targets == label)
        members = members[np.argsort(rng.random(len(members)), kind="stable")]
        first, last = round(start * len(members)), round((start + _DIGIT_SHARES[split]) * len(members))
        indices.append(members[first:last])
    return np.sort(np.concatenate(indices)).astype(np.int64)


def split_columns(split: str, width: int) -> tuple[int, int]:
    """Return the columns ``[first, last)`` of a photograph that belong to a split.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        width: Width of the photograph in pixels.

    Raises:
        ValueError: There is no such split.

    >>> split_columns("train", 640), split_columns("val", 640), split_columns("test", 640)
    ((0, 320), (320, 480), (480, 640))
    """
    check_choice("split", split, SPLITS)
    first, last = _STRIPS[split]
    return round(first * width), round(last * width)


@functools.cache
def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Load the ink coverage of every digit, ``[1797, 8, 8]`` in [0, 1], and its class, ``[1797]``."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


@functools.cache
def load_photographs() -> tuple[NDArray[np.uint8], ...]:
    """Load the two photographs, RGB ``[427, 640, 3]`` each."""
    from sklearn import datasets

    return tuple(datasets.load_sample_images().images)


@functools.cache
def load_glyphs(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Load a split's digits as smooth fields of ink in which strokes end at 127.5, and their classes.

    Shape:
        ``[M, 80, 80]`` (the digit's 64 x 64 pixels with a margin), ``[M]``.
    """
    images, targets = load_digits()
    indices = split_digits(split)
    side = (CELLS + 2 * _MARGIN) * CELL_PX
    fields = np.empty((len(indices), side, side), np.uint8)
    for field, image in zip(fields, images[indices], strict=True):
        ink = cv2.resize(np.pad(image, _MARGIN), (side, side), interpolation=cv2.INTER_CUBIC)
        ink = ink + _SHARPEN * (ink - cv2.GaussianBlur(ink, (0, 0), _BLUR * CELL_PX))
        field[:] = np.clip(np.rint(((ink - _INK) / LEVELS + 0.5) * 255), 0, 255)
    return fields, targets[indices]


@functools.cache
def load_strips(split: str) -> tuple[NDArray[np.uint8], ...]:
    """Load a split's strip of each photograph, ``[h, w, 3]`` each."""
    photographs = load_photographs()
    columns = (split_columns(split, photograph.shape[1]) for photograph in photographs)
    return tuple(
        np.ascontiguousarray(photograph[:, first:last])
        for photograph, (first, last) in zip(photographs, columns, strict=True)
    )


@functools.cache
def largest_crop() -> int:
    """Return the side in pixels of the largest square that fits into every strip, so all splits have equal crops."""
    return min(min(strip.shape[:2]) for split in SPLITS for strip in load_strips(split))
