"""Reads images of more than 8 bits per channel as 8 bits, scaled as the user chooses."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageOps

from ..annotations.argument_checks import did_you_mean
from ..annotations.mask_files import gray_levels, image_errors
from ..images.read import ImageError, read_image

Scale = Literal["full", "image", "percentile"]

_PNG_START = b"\x89PNG\r\n\x1a\n"
_TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS_PER_SAMPLE = 258  # TIFF tag
_PERCENTILES = (1, 99.8)


def check_scale(scale: str | Sequence[int] | None) -> str | tuple[int, int] | None:
    """Return the argument ``scale_16bit`` of `InstanceMasks`.

    Raises:
        ValueError: It is out of range.
    """
    if scale is None or (isinstance(scale, str) and scale in get_args(Scale)):
        return scale
    if not isinstance(scale, str) and len(scale) == 2 and 0 <= scale[0] < scale[1]:
        return int(scale[0]), int(scale[1])
    raise ValueError(
        f"scale_16bit: must be {', '.join(get_args(Scale))}, null, or [low, high] with 0 <= low < high, got {scale!r}"
        f"{did_you_mean(str(scale), get_args(Scale))}"
    )


def read_scaled(path: Path, scale: str | tuple[int, int] | None) -> np.ndarray:
    """Read an image, scaled to 8 bits if it has more; see `InstanceMasks`.

    Shape:
        - Output: ``[H, W, 3]`` uint8.

    Raises:
        ImageError: The image cannot be read, or is a stack of several.
        ValueError: The image has more than 8 bits, and `scale` does not apply.
    """
    values = None
    with image_errors(path, "image"):
        with path.open("rb") as file:
            start = file.read(26)
        is_png, is_tiff = start.startswith(_PNG_START), start.startswith(_TIFF_STARTS)
        if not is_tiff and not (is_png and start[24:25] == b"\x10"):
            return read_image(path)
        # opened as a file object, not by name: see images/read.py
        with path.open("rb") as file, Image.open(file) as opened:
            if (pages := getattr(opened, "n_frames", 1)) > 1:
                raise ImageError(path, f"must be a single image, got {pages} in one file; save each in its own")
            bits: tuple[int, ...] = getattr(opened, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,)) if is_tiff else (16,)
            if max(bits) <= 8 or opened.mode == "F":  # read_image rejects floating-point pixels
                return read_image(path)
            is_gray = opened.mode.startswith("I")
            if is_gray and scale is not None:  # Pillow rotates a TIFF by itself
                values = gray_levels(ImageOps.exif_transpose(opened) if is_png else opened)
    if scale is None or not (is_gray or scale == "full"):
        kind = "gray" if is_gray else "color"
        choice = "full, image, percentile or [low, high]" if is_gray else "full, or save it with 8 bits"
        raise ValueError(f"{path}: images must have 8 bits, got {kind} with {max(bits)}; set scale_16bit: {choice}")
    if values is None:
        return read_image(path)
    return np.repeat(scale_to_8_bits(values, scale)[..., None], 3, axis=2)


def scale_to_8_bits(values: np.ndarray, scale: str | tuple[int, int]) -> np.ndarray:
    """Scale gray levels of 16 bits or more to 8; see ``scale_16bit`` of `InstanceMasks`.

    Shape:
        - values: ``[H, W]`` of whole numbers.
        - Output: ``[H, W]`` uint8.
    """
    if not isinstance(scale, str):
        low, high = float(scale[0]), float(scale[1])
    elif scale == "full":
        low, high = 0.0, 65535.0
    elif scale == "image":
        low, high = float(values.min()), float(values.max())
    else:
        low, high = np.percentile(values, _PERCENTILES).tolist()
    fraction = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(fraction.clip(0, 1) * 255).astype(np.uint8)
