"""Masks in image files: one number a pixel, a class by index or by palette, or an object's own."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..images.read import IMAGE_SUFFIXES, NO_FORMAT, ImageError, read_image
from ..loading.targets import counted_values

IGNORE = 255
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF's tags


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
    except UnidentifiedImageError as error:
        raise ImageError(path, NO_FORMAT) from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise ImageError(path, f"not a readable mask ({str(error).strip() or type(error).__name__})") from error


def read_ids(path: str | Path) -> np.ndarray:
    """The numbers of a mask that names objects: a gray image's levels, of 8, 16 or 32 bits.

    Args:
        path: PNG, TIFF or another gray image; of floating-point numbers too, where they are whole.

    Shape:
        - Output: ``[H, W]`` int64, none negative.

    Raises:
        ImageError: when it cannot be read, has a palette, colours or several pages, or numbers that name nothing.
    """
    try:
        with Path(path).open("rb") as file, Image.open(file) as opened:  # not by its name: see images.py
            if (pages := getattr(opened, "n_frames", 1)) > 1:
                raise ImageError(path, f"{pages} images in one file; an instance mask is one")
            if opened.mode == "P":
                raise ImageError(
                    path, "a palette image; the values of an instance mask are gray levels: save it as gray"
                )
            if opened.mode not in ("1", "L", "F") and not opened.mode.startswith("I"):
                raise ImageError(
                    path, f"an instance mask is one gray channel of 8, 16 or 32 bits, and this has {opened.mode}"
                )
            values = gray_levels(opened)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, NO_FORMAT) from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # as in read_mask
        raise ImageError(path, f"not a readable mask ({str(error).strip() or type(error).__name__})") from error
    ids = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    if ids.size and (ids.min() < 0 or (values.dtype.kind == "f" and (ids != values).any())):
        wrong = values[(ids < 0) | (ids != values)].ravel()[0]
        raise ImageError(path, f"the value {wrong} is not 0 = background or a whole number above it")
    return ids


def gray_levels(image: Image.Image) -> np.ndarray:
    """The pixels of a gray image as they are stored; unsigned numbers of 32 bits too, which Pillow takes for signed.

    Shape:
        - Output: ``[H, W]``, of the file's type or a wider one.
    """
    levels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    unsigned = tags.get(_SAMPLE_FORMAT, (1,)) == (1,) and tags.get(_BITS_PER_SAMPLE) == (32,)
    return levels.view(np.uint32) if unsigned and levels.dtype == np.int32 else levels


def files_by_name(root: Path, folder: str, ending: str = "") -> dict[str, str]:
    """The image files below a folder by their name: path there, without suffix and `ending`; sorted.

    Args:
        root: what the files are relative to.
        folder: below `root`.
        ending: only files whose names end so, before their suffix.

    Raises:
        ValueError: for two files of the same name but for their suffix.
    """
    base = root / folder
    found: dict[str, str] = {}
    for path in sorted(base.rglob("*")):
        inner = path.relative_to(base)
        if path.suffix.lower() not in IMAGE_SUFFIXES or any(part.startswith(".") for part in inner.parts):
            continue
        name = inner.with_suffix("").as_posix()
        if not name.endswith(ending):
            continue
        name = name.removesuffix(ending)
        if name in found:
            raise ValueError(f"{base}: {Path(found[name]).name} and {path.name} have the same name; keep one")
        found[name] = (Path(folder) / inner).as_posix()
    return found


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
            unknown = counted_values(numbers[(classes < 0) | (inside != numbers)])
            known = np.flatnonzero(self.table >= 0).tolist()
            last = "" if len(known) <= 12 else f", … {known[-2]}, {known[-1]} ({len(known)} values)"
            listed = ", ".join(map(str, known if not last else known[:8]))
            raise ValueError(
                f"{path}: the value(s) {unknown} are no class and not to be ignored; known are {listed}{last}. Each "
                "class has its place in data.init_args.class_names for its value; `classes` of MaskFolder maps others"
            )
        return classes.astype(np.uint8)
