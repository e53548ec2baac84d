"""Semantic masks in image files: one number a pixel, by index or by palette."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .images import ImageError, read_image

IGNORE = 255


def read_mask(path: str | Path) -> np.ndarray:
    """The numbers of a mask's pixels: an indexed (palette) PNG's indices, or a gray image's levels.

    Args:
        path: PNG, TIFF, BMP, GIF; 8 or 16 bits.

    Returns:
        As stored; a palette's colours are not looked at.

    Shape:
        - Output: ``[H, W]``, uint8 or a wider integer.

    Raises:
        ImageError: when it cannot be read, or has colours and no palette.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            if opened.mode == "1":
                return np.asarray(opened).astype(np.uint8)
            if opened.mode not in ("P", "L", "I", "I;16", "I;16B", "I;16L"):
                raise ImageError(path, f"a mask is an index or palette image, and this one has the mode {opened.mode}")
            values = np.asarray(opened)
            return values if values.dtype == np.uint8 else values.astype(np.int32)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise ImageError(path, f"not a readable mask ({str(error).strip() or type(error).__name__})") from error


def class_table(classes: Mapping[int, int] | None, num_classes: int, ignore: int) -> np.ndarray:
    """What each number of a mask file stands for: a class, `IGNORE`, or -1 = nothing known.

    Args:
        classes: class of each number; None: numbers are classes.
        num_classes: how many classes there are.
        ignore: the number that means ignore.

    Shape:
        - Output: ``[65536]`` int16.
    """
    table = np.full(65536, -1, np.int16)
    for number, label in (classes or {k: k for k in range(num_classes)}).items():
        table[number] = label
    table[ignore] = IGNORE
    return table


class MaskedFiles:
    """Images with a mask file each.

    Args:
        root: what the paths are relative to.
        images, masks: arrays of bytes, ``[N]``.
        table: see `class_table`.
    """

    def __init__(self, root: Path, images: np.ndarray, masks: np.ndarray, table: np.ndarray) -> None:
        self.root, self.images, self.masks, self.table = root, images, masks, table

    def __len__(self) -> int:
        return len(self.images)

    def files(self) -> list[str]:
        """The path of each image."""
        return [str(self.root / os.fsdecode(path)) for path in self.images]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, mask_path = (self.root / os.fsdecode(paths[index]) for paths in (self.images, self.masks))
        image, numbers = read_image(path), self.read(mask_path)
        if image.shape[:2] != numbers.shape:
            sizes = [f"{shape[1]}x{shape[0]}" for shape in (image.shape, numbers.shape)]
            raise ImageError(path, f"the image is {sizes[0]}, but its mask {str(mask_path)!r} is {sizes[1]}")
        return {"image": image, "mask": self._classes(mask_path, numbers), "path": str(path)}

    def read(self, path: Path) -> np.ndarray:
        """The numbers of a mask file."""
        return read_mask(path)

    def _classes(self, path: Path, numbers: np.ndarray) -> np.ndarray:
        inside = numbers if numbers.dtype == np.uint8 else numbers.clip(0, 65535)
        classes = self.table[inside]
        if (classes < 0).any() or (inside is not numbers and (inside != numbers).any()):
            unknown = sorted(set(np.unique(numbers[(classes < 0) | (inside != numbers)]).tolist()))[:5]
            known = np.flatnonzero(self.table >= 0)
            raise ValueError(
                f"{path}: the value(s) {unknown} are no class and not to be ignored; known are {known.min()} to "
                f"{known.max()} ({len(known)} values)"
            )
        return classes.astype(np.uint8)
