"""Masks in image files: class indices (gray or palette images) or object ids."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from ..batches import IGNORE_INDEX
from ..images.read import NO_FORMAT, ImageError, read_image
from ..loading.targets import counted_values
from .absence import absence_by_reading
from .annotation_errors import DataError, Fault

MASK_VALUES = 65536  # values of a mask of 16 bits
_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags


@contextlib.contextmanager
def image_errors(path: str | Path, kind: str = "mask") -> Iterator[None]:
    """Raise any error of reading a file of this kind as an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, NO_FORMAT) from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise ImageError(path, f"not a readable {kind} ({str(error).strip() or type(error).__name__})") from error


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask of class indices: the indices of a palette PNG, or the levels of a gray image.

    Args:
        path: PNG, TIFF, BMP or GIF with 8 or 16 bits per pixel.

    Returns:
        The values as stored; the colors of a palette are ignored.

    Shape:
        - Output: ``[H, W]``, uint8 or a wider integer.

    Raises:
        ImageError: The file cannot be read, or is a color image without a palette.
    """
    with image_errors(path), Image.open(path) as opened:
        opened.load()
        if opened.mode == "1":
            return np.asarray(opened).astype(np.uint8)
        if opened.mode not in ("P", "L", "I", "I;16", "I;16B", "I;16L"):
            raise ImageError(path, f"a mask must be a gray or palette image, got mode {opened.mode}")
        values = np.asarray(opened)
        return values if values.dtype == np.uint8 else values.astype(np.int32)


def read_ids(path: str | Path) -> np.ndarray:
    """Read a mask of object ids: the levels of a gray image with 8, 16 or 32 bits per pixel.

    Args:
        path: PNG, TIFF or another gray image; floating-point levels must be whole numbers.

    Shape:
        - Output: ``[H, W]`` int64, nonnegative.

    Raises:
        ImageError: The file cannot be read, has a palette, colors or several pages, or has a value that is not an id.
    """
    # opened as a file object, not by name: see images/read.py
    with image_errors(path), Path(path).open("rb") as file, Image.open(file) as opened:
        if (pages := getattr(opened, "n_frames", 1)) > 1:
            raise ImageError(path, f"an instance mask must be a single image, got {pages} pages")
        if opened.mode == "P":
            raise ImageError(path, "an instance mask must be a gray image, got a palette image; save it as gray")
        if opened.mode not in ("1", "L", "F") and not opened.mode.startswith("I"):
            raise ImageError(
                path, f"an instance mask must have one gray channel of 8, 16 or 32 bits, got mode {opened.mode}"
            )
        values = gray_levels(opened)
    ids = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    if ids.size and (ids.min() < 0 or (values.dtype.kind == "f" and (ids != values).any())):
        invalid = values[(ids < 0) | (ids != values)].ravel()[0]
        raise ImageError(path, f"values must be 0 = background or positive whole numbers, got {invalid}")
    return ids


def gray_levels(image: Image.Image) -> np.ndarray:
    """Return the pixels of a gray image as stored, with unsigned 32-bit levels, which Pillow reads as signed.

    Shape:
        - Output: ``[H, W]``, of the file's type or a wider one.
    """
    levels = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    unsigned = tags.get(_SAMPLE_FORMAT, (1,)) == (1,) and tags.get(_BITS_PER_SAMPLE) == (32,)
    return levels.view(np.uint32) if unsigned and levels.dtype == np.int32 else levels


def check_class_count(names: Sequence[str]) -> None:
    """Check that the classes of a semantic mask fit into 8 bits beside the value that is ignored.

    Raises:
        ValueError: They do not, or there is no class.
    """
    if not 0 < len(names) < IGNORE_INDEX:
        raise ValueError(f"class_names: must have 1 to {IGNORE_INDEX - 1} names, got {len(names)}")


def class_lookup(classes: Mapping[int, int] | None, num_classes: int, ignore: int) -> np.ndarray:
    """Return the class of each mask value: `IGNORE_INDEX` for ignored pixels, -1 for unknown values.

    Args:
        classes: Class of each value; None: value k is class k.
        num_classes: Number of classes.
        ignore: Value of ignored pixels.

    Shape:
        - Output: ``[65536]`` int16.
    """
    lookup = np.full(MASK_VALUES, -1, np.int16)
    for value, label in (classes or {k: k for k in range(num_classes)}).items():
        lookup[value] = label
    lookup[ignore] = IGNORE_INDEX
    return lookup


class MaskedFiles:
    """Images with one mask file each: a source of semantic segmentation.

    Args:
        root: Folder that the paths are relative to.
        images: Image files, encoded by `encode_paths`.
        masks: Mask file of each image, encoded in the same way.
        lookup: Class of each mask value; see `class_lookup`.

    Shape:
        - images, masks: ``[N]`` bytes.
        - lookup: ``[65536]`` int16.
    """

    def __init__(self, root: Path, images: np.ndarray, masks: np.ndarray, lookup: np.ndarray) -> None:
        self.root, self.images, self.masks, self.lookup = root, images, masks, lookup  # images, masks [N]

    def __len__(self) -> int:
        return len(self.images)

    def files(self) -> list[str]:
        """Return the path of each image."""
        return [str(self.root / os.fsdecode(path)) for path in self.images]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, mask_path = (self.root / os.fsdecode(paths[index]) for paths in (self.images, self.masks))
        image, values = read_image(path), self.read(mask_path)
        if image.shape[:2] != values.shape:
            raise ImageError.size_mismatch(
                path, image.shape[1::-1], f"its mask {str(mask_path)!r} is", values.shape[::-1]
            )
        return {"image": image, "mask": self._classes(mask_path, values), "path": str(path)}

    def absence(self) -> Fault | None:
        """Return why no mask has a pixel to learn from; None: one has."""

        def usable(mask: np.bytes_) -> bool:
            path = self.root / os.fsdecode(mask)
            return bool((self._classes(path, self.read(path)) != IGNORE_INDEX).any())

        return absence_by_reading(self.masks, self.root, usable)

    def read(self, path: Path) -> np.ndarray:
        """Read the values of a mask file: ``[H, W]``; a subclass may read other formats."""
        return read_mask(path)

    def _classes(self, path: Path, values: np.ndarray) -> np.ndarray:
        """Map the values ``[H, W]`` of a mask to classes: ``[H, W]`` uint8.

        Raises:
            ValueError: A value has no class; the message names the file, the values and how many pixels have them.
        """
        clipped = values if values.dtype == np.uint8 else values.clip(0, MASK_VALUES - 1)
        classes = self.lookup[clipped]
        if (classes < 0).any() or (clipped is not values and (clipped != values).any()):
            unknown = counted_values(values[(classes < 0) | (clipped != values)])
            known = np.flatnonzero(self.lookup >= 0).tolist()
            last = "" if len(known) <= 12 else f", … {known[-2]}, {known[-1]} ({len(known)} values)"
            listed = ", ".join(map(str, known if not last else known[:8]))
            remedy = (
                f"mask values must be one of {listed}{last}; add the missing classes to class_names, or map the values "
                "with the argument classes of MaskFolder"
            )
            raise DataError.of(Fault("label-outside", path, [path], "path", f"the value(s) {unknown}", remedy))
        return classes.astype(np.uint8)
