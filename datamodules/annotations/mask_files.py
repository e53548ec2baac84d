"""Masks in image files: class indices (gray or palette images) or object ids."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ..batches import IGNORE_INDEX
from ..images.bit_depth import ReadOptions, gray_levels
from ..images.read import NO_FORMAT, ImageError, foreign_format, orientation_of, read_image
from ..loading.targets import counted_values
from .absence import absence_by_reading
from .annotation_errors import DataError, Fault, record, recording
from .smoothed import count_smoothed

MASK_VALUES = 65536  # values of a mask of 16 bits


@contextlib.contextmanager
def image_errors(path: str | Path, kind: str = "mask") -> Iterator[None]:
    """Raise any error of reading a file of this kind as an `ImageError`."""
    try:
        yield
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, foreign_format(path) or NO_FORMAT) from error
    except OSError as error:
        raise ImageError(path, error.strerror or str(error).strip() or type(error).__name__) from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise ImageError(path, f"not a readable {kind} ({str(error).strip() or type(error).__name__})") from error


def read_mask(path: str | Path) -> np.ndarray:
    """Read a mask of class indices: the indices of a palette PNG, or the levels of a gray image.

    Args:
        path: PNG, TIFF, BMP or GIF with 8 or 16 bits per pixel. A color image is read if its channels are equal, and
            floating-point levels if they are whole numbers. The EXIF orientation is applied, as to images.

    Returns:
        The values as stored; the colors of a palette are ignored.

    Shape:
        - Output: ``[H, W]``, uint8 or a wider integer.

    Raises:
        ImageError: The file cannot be read, is a color image without a palette, or was compressed with loss.
    """
    with _open_mask(path) as opened:
        if opened.mode == "1":
            return np.asarray(opened).astype(np.uint8)
        if opened.mode == "P":
            _check_palette(path, opened)
        if opened.mode in ("RGB", "RGBA", "LA"):
            return _equal_channels(path, opened)
        if opened.mode not in ("P", "L", "F") and opened.mode[0] != "I":
            raise ImageError(path, f"a mask must be a gray or palette image, got mode {opened.mode}")
        values = gray_levels(opened)
    if values.dtype.kind == "f":
        whole = values[np.isfinite(values)]
        if whole.size < values.size or (whole != np.rint(whole)).any():
            low, high = (f"{end:g}" for end in (whole.min(initial=0), whole.max(initial=0)))
            raise ImageError(path, f"a mask must have whole numbers, got floating-point values from {low} to {high}")
    return values if values.dtype == np.uint8 else values.astype(np.int64)


def read_ids(path: str | Path) -> np.ndarray:
    """Read a mask of object ids: the levels of a gray image with 8, 16 or 32 bits per pixel.

    Args:
        path: PNG, TIFF or another gray image; floating-point levels must be whole numbers. The EXIF orientation is
            applied, as to images.

    Shape:
        - Output: ``[H, W]`` int64, nonnegative.

    Raises:
        ImageError: The file cannot be read, has a palette, colors or several pages, or has a value that is not an id.
    """
    with _open_mask(path, "an instance mask") as opened:
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


@contextlib.contextmanager
def _open_mask(path: str | Path, what: str = "a mask") -> Iterator[Image.Image]:
    """Open a mask, turned as its EXIF orientation says; errors are `ImageError`."""
    # opened as a file object, not by name: see images/read.py
    with image_errors(path), Path(path).open("rb") as file, Image.open(file) as opened:
        if (pages := getattr(opened, "n_frames", 1)) > 1:
            raise ImageError(path, f"{what} must be a single image, got {pages} pages")
        if opened.format in ("JPEG", "MPO"):
            raise ImageError(
                path, f"{what} must be stored without loss, got JPEG, which changes values; save it as PNG"
            )
        opened.load()  # which turns a TIFF
        ImageOps.exif_transpose(opened, in_place=True)
        yield opened


def _equal_channels(path: str | Path, opened: Image.Image) -> np.ndarray:
    """Return the gray levels ``[H, W]`` of a color image whose channels are equal and that is opaque.

    Raises:
        ImageError: They differ.
    """
    channels = np.asarray(opened.convert("RGBA"))
    if (channels[..., :3] != channels[..., :1]).any() or (channels[..., 3] != 255).any():
        colors = np.unique(channels.reshape(-1, 4)[:, : 3 + (opened.mode != "RGB")], axis=0).tolist()
        listed = ", ".join(str(tuple(color)) for color in colors[:3]) + ", …" * (len(colors) > 3)
        raise ImageError(
            path,
            f"a mask must be a gray or palette image, got mode {opened.mode} with the colors {listed}; save class "
            "numbers, not colors",
        )
    return np.ascontiguousarray(channels[..., 0])


def _check_palette(path: str | Path, opened: Image.Image) -> None:
    """Check that the indices of a palette of grays ascend with its grays, so that indices may stand for levels.

    Raises:
        ImageError: They do not: which of the two are meant is unknown.
    """
    palette = np.asarray(opened.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    used = np.unique(np.asarray(opened))
    colors = palette[used[used < len(palette)]].astype(np.int64)
    grays = colors[:, 0]
    if len(colors) > 1 and (colors == grays[:, None]).all() and (np.diff(grays) < 0).any():
        raise ImageError(
            path,
            f"a mask must have class numbers, got a palette in which {used[0]} is the gray {grays[0]} and {used[-1]} "
            f"the gray {grays[-1]}; save it as a gray image",
        )


def check_class_count(names: Sequence[str]) -> None:
    """Check that the classes of a semantic mask fit into 8 bits beside the value that is ignored.

    Raises:
        ValueError: They do not, or there is no class.
    """
    if not 0 < len(names) < IGNORE_INDEX:
        raise ValueError(f"class_names: must have 1 to {IGNORE_INDEX - 1} names, got {len(names)}")


def class_lookup(classes: Mapping[int, int] | None, num_classes: int, ignore: int | None = None) -> np.ndarray:
    """Return the class of each mask value: `IGNORE_INDEX` for ignored pixels, -1 for unknown values.

    Args:
        classes: Class of each value; None: value k is class k.
        num_classes: Number of classes.
        ignore: Value of ignored pixels; None: `IGNORE_INDEX`, unless `classes` gives it a class.

    Shape:
        - Output: ``[65536]`` int16.

    Raises:
        ValueError: `classes` and `ignore` disagree about a value.
    """
    lookup = np.full(MASK_VALUES, -1, np.int16)
    for value, label in (classes or {k: k for k in range(num_classes)}).items():
        lookup[value] = label
    if ignore is not None and (label := (classes or {}).get(ignore, IGNORE_INDEX)) != IGNORE_INDEX:
        raise ValueError(
            f"ignore_value: must not have a class, got {ignore}, which classes maps to {label}; remove one"
        )
    if ignore is not None or lookup[IGNORE_INDEX] < 0:
        lookup[IGNORE_INDEX if ignore is None else ignore] = IGNORE_INDEX
    return lookup


class MaskedFiles:
    """Images with one mask file each: a source of semantic segmentation.

    Args:
        root: Folder that the paths are relative to.
        images: Image files, encoded by `encode_paths`.
        masks: Mask file of each image, encoded in the same way.
        lookup: Class of each mask value; see `class_lookup`.
        has_background: Whether class 0 is the background, from which alone nothing can be learned.

    Shape:
        - images, masks: ``[N]`` bytes.
        - lookup: ``[65536]`` int16.

    Attributes:
        options: How image files are read, see `ReadOptions`.
    """

    options = ReadOptions()

    def __init__(
        self, root: Path, images: np.ndarray, masks: np.ndarray, lookup: np.ndarray, has_background: bool = False
    ) -> None:
        self.root, self.images, self.masks, self.lookup = root, images, masks, lookup  # images, masks [N]
        self.has_background = has_background

    def __len__(self) -> int:
        return len(self.images)

    def files(self) -> list[str]:
        """Return the path of each image."""
        return [str(self.root / os.fsdecode(path)) for path in self.images]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path, mask_path = (self.root / os.fsdecode(paths[index]) for paths in (self.images, self.masks))
        image, values = read_image(path, options=self.options), self.read(mask_path)
        if image.shape[:2] != values.shape:
            raise ImageError.size_mismatch(
                path, image.shape[1::-1], f"its mask {str(mask_path)!r} is", values.shape[::-1]
            )
        classes = self._classes(mask_path, values)
        if recording():
            record_turned(path, mask_path)
            if on_edges := self.count_smoothed(values):
                found = f"{on_edges} values of {mask_path.name} occur only along edges"
                record(Fault("smoothed-mask", path, [path], "path", found, images=[str(path)]))
        return {"image": image, "mask": classes, "path": str(path)}

    def count_smoothed(self, values: np.ndarray) -> int:
        """Count the values of a mask ``[H, W]`` that come from smoothed edges (`smoothed.count_smoothed`).

        All must have a class. Ignored pixels, which are often a seam along edges, count as 0.
        """
        return count_smoothed(np.where(self.lookup[values] == IGNORE_INDEX, 0, values), white=-1)

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no mask has a pixel to learn from (`learnable`); None: one has."""

        def usable(mask: np.bytes_) -> bool:
            path = self.root / os.fsdecode(mask)
            values = self.read(path)
            return bool(self.learnable(values, self._classes(path, values)).any())

        folder = (self.root / os.fsdecode(self.masks[0])).parent if len(self) else self.root
        several = _num_classes(self.lookup) > 1
        reason = "every pixel is of class 0 or ignored" if several else "every pixel is ignored"
        return absence_by_reading(self.masks, folder, usable, reason)

    def learnable(self, values: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Return which values are something to learn.

        Of several classes, class 0 is not if it is the background. It is not either where it is written as 0, which
        masks that were scaled or thresholded by mistake consist of; Cityscapes' road is written as 7.

        Args:
            values: Values of masks.
            classes: Class of each.

        Shape:
            - values, classes: ``[…]``.
            - Output: ``[…]`` bool.
        """
        first_counts = (values != 0) & (not self.has_background) | (_num_classes(self.lookup) == 1)
        return ((classes > 0) & (classes != IGNORE_INDEX)) | ((classes == 0) & first_counts)

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
            wrong = values[(classes < 0) | (clipped != values)]
            known = np.flatnonzero(self.lookup >= 0).tolist()
            last = "" if len(known) <= 12 else f", … {known[-2]}, {known[-1]} ({len(known)} values)"
            listed = ", ".join(map(str, known if not last else known[:8]))
            remedy = f"mask values must be one of {listed}{last}; {_remedy(values, wrong, self.lookup)}"
            found = f"the value(s) {counted_values(wrong)}"
            raise DataError.of(Fault("label-outside", path, [path], "path", found, remedy))
        return classes.astype(np.uint8)


def _num_classes(lookup: np.ndarray) -> int:
    """The number of classes up to the highest of a lookup ``[65536]``."""
    return int(lookup[lookup < IGNORE_INDEX].max(initial=-1)) + 1


def _remedy(values: np.ndarray, wrong: np.ndarray, lookup: np.ndarray) -> str:
    """What to do about a mask ``[H, W]`` with values ``[N]`` that have no class."""
    present, unknown = np.unique(values).tolist(), np.unique(wrong).tolist()
    num_classes = _num_classes(lookup)
    if unknown[0] < 0 or unknown[-1] >= MASK_VALUES:
        return f"save class numbers, since values must be 0 to {MASK_VALUES - 1}"
    if unknown == [num_classes] and present[0] > 0:
        mapping = ", ".join(f"{value + 1}: {value}" for value in range(min(num_classes, 3)))
        return f"values that count from 1 need classes: {{{mapping}{', …' if num_classes > 3 else ''}}}"
    if len(present) == 2 and num_classes == 2 and (lookup[present] != IGNORE_INDEX).all():
        return f"set classes: {{{present[0]}: 0, {present[1]}: 1}} of MaskFolder"
    smooth = (
        "; its edges look smoothed (antialiasing, resizing): save the masks again without"
        if len(unknown) > 8 or count_smoothed(values)
        else ""
    )
    return f"add the missing classes to class_names, or map the values with the argument classes of MaskFolder{smooth}"


def record_turned(image: str | Path, mask: str | Path) -> None:
    """Record a fault if EXIF turns an image and not its mask, within `record_faults`.

    Their sizes are equal, so the mask may be of the displayed image, as it must be, or of the pixels as stored.
    """
    if (orientation := orientation_of(image)) != 1 and (Path(mask).suffix == ".mat" or orientation_of(mask) == 1):
        found = f"EXIF turns the image (orientation {orientation}), but not its mask {Path(mask).name}"
        record(Fault("turned-mask", Path(image), [image], "path", found, images=[str(image)]))
