"""What scenes are made of: scikit-learn's handwritten digits and photographs, divided into splits that share nothing.

Each class's digits are divided 70 / 15 / 15 by one fixed draw that no user's seed touches, and each photograph is cut
into three vertical strips: no digit and no pixel of a photograph serves two splits. (The source does not tell the
digits' 13 writers apart, so a writer may appear in more than one split.)

scikit-learn is imported at the first use; everything is loaded once a process and must not be written to.

Reference: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998.
"""

import difflib
import functools

import cv2
import numpy as np
from numpy.typing import NDArray

SPLITS: tuple[str, ...] = ("train", "val", "test")
CLASS_NAMES: tuple[str, ...] = tuple("0123456789")

CELLS = 8
"""A source digit is 8 x 8 cells of ink coverage."""
CELL_PX = 8
"""Pixels that a cell has in an enlarged glyph."""
LEVELS = 1.6
"""Span of ink levels that a glyph's 0 to 255 stand for, where a fully inked cell is 1."""

_DIGIT_SHARES = {"train": 0.70, "val": 0.15, "test": 0.15}
# Columns of a photograph, as fractions of its width. The cuts, at 320 and 480 of 640 pixels, are multiples of 16, so
# that not even a JPEG block straddles two splits.
_STRIPS = {"train": (0.0, 0.5), "val": (0.5, 0.75), "test": (0.75, 1.0)}
_SPLIT_SEED = 1998
_MARGIN = 1  # cells of empty margin around an enlarged glyph, so that strokes end rounded and not cut
# Coverage alone shows strokes too fat and closes the holes of an 8. An unsharp mask of this strength and width (in
# cells) opens them without breaking faint strokes, as a higher level of ink would.
_SHARPEN, _BLUR = 2.0, 0.8
_INK = 0.6  # level of sharpened ink at which a stroke ends


def check_split(split: str) -> None:
    """Raises a ValueError, with the nearest spelling, unless there is such a split."""
    if split not in SPLITS:
        close = difflib.get_close_matches(str(split), SPLITS, 1, 0.4)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ValueError(f"split={split!r}: must be one of {', '.join(SPLITS)}{hint}")


def split_digits(split: str) -> NDArray[np.int64]:
    """Which digits of scikit-learn's ``load_digits`` a split may use: a draw within each class, always the same.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.

    Returns:
        Their indices, ascending. Shape: ``[M]``.

    Raises:
        ValueError: If there is no such split.
    """
    check_split(split)
    _, targets = load_digits()
    rng = np.random.Generator(np.random.PCG64(_SPLIT_SEED))
    before = sum(_DIGIT_SHARES[name] for name in SPLITS[: SPLITS.index(split)])
    chosen = []
    for label in range(len(CLASS_NAMES)):
        members = np.flatnonzero(targets == label)
        members = members[np.argsort(rng.random(len(members)), kind="stable")]
        first, last = round(before * len(members)), round((before + _DIGIT_SHARES[split]) * len(members))
        chosen.append(members[first:last])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def split_columns(split: str, width: int) -> tuple[int, int]:
    """Columns ``[first, last)`` of a photograph of ``width`` pixels that a split may use.

    Args:
        split: ``"train"``, ``"val"`` or ``"test"``.
        width: Width of the photograph in pixels.

    Raises:
        ValueError: If there is no such split.

    >>> split_columns("train", 640), split_columns("val", 640), split_columns("test", 640)
    ((0, 320), (320, 480), (480, 640))
    """
    check_split(split)
    first, last = _STRIPS[split]
    return round(first * width), round(last * width)


@functools.cache
def load_digits() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Ink coverage of every digit, in [0, 1], and its class. Shape: ``[1797, 8, 8]``, ``[1797]``."""
    from sklearn import datasets

    digits = datasets.load_digits()
    return (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)


@functools.cache
def load_photographs() -> tuple[NDArray[np.uint8], ...]:
    """The two photographs, RGB. Shape: ``[427, 640, 3]`` each."""
    from sklearn import datasets

    return tuple(datasets.load_sample_images().images)


@functools.cache
def load_glyphs(split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """A split's digits as smooth fields of ink in which strokes end at 127.5, and their classes.

    Shape:
        ``[M, 80, 80]`` (the digit's 64 x 64 pixels and the margin around them), ``[M]``.
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
    """A split's strip of each photograph. Shape: ``[h, w, 3]`` each."""
    photographs = load_photographs()
    columns = (split_columns(split, photograph.shape[1]) for photograph in photographs)
    return tuple(
        np.ascontiguousarray(photograph[:, first:last])
        for photograph, (first, last) in zip(photographs, columns, strict=True)
    )


@functools.cache
def largest_crop() -> int:
    """Side in pixels of the largest square that every strip of every split holds: crops are alike in all splits."""
    return min(min(strip.shape[:2]) for split in SPLITS for strip in load_strips(split))
