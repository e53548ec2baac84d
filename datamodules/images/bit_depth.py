"""Scales pixels of more than 8 bits to 8 bits, as the user chooses."""

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

Scale = Literal["full", "image", "percentile"]
Range = tuple[float, float]

_BITS_PER_SAMPLE, _SAMPLE_FORMAT = 258, 339  # TIFF tags
_PERCENTILES = (1, 99.8)


class BitDepthError(ValueError):
    """An image with more than 8 bits, without an argument that says how it is scaled.

    Attributes:
        option: The argument of `ReadOptions` to set, such as ``scale_16bit=(0, 4095)``.
    """

    def __init__(self, message: str, option: str) -> None:
        super().__init__(message, option)
        self.option = option

    def __str__(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True)
class ReadOptions:
    """How image files are read that could be read in several ways.

    Attributes:
        scale_16bit: Scaling of images with more than 8 bits, see `scale_to_8_bits`; None: they are rejected.
        page: Page or frame to read of files with several, from 0; None: such files are rejected.
    """

    scale_16bit: str | Range | None = None
    page: int | None = None

    @staticmethod
    def of(scale_16bit: str | Sequence[float] | None, page: int | None) -> "ReadOptions":
        """Return the options for two arguments of a data module.

        Raises:
            ValueError: One is out of range.
        """
        if page is not None and page < 0:
            raise ValueError(f"page: must be >= 0, counted from 0, got {page}")
        return ReadOptions(check_scale(scale_16bit), page)


def check_scale(scale: str | Sequence[float] | None) -> str | Range | None:
    """Return the argument ``scale_16bit`` of a data module.

    Raises:
        ValueError: It is out of range.
    """
    if scale is None or (isinstance(scale, str) and scale in get_args(Scale)):
        return scale
    if not isinstance(scale, str) and len(scale) == 2 and scale[0] < scale[1]:
        return float(scale[0]), float(scale[1])
    closest = get_close_matches(str(scale), get_args(Scale), 1)
    raise ValueError(
        f"scale_16bit: must be {', '.join(get_args(Scale))}, null, or [low, high] with low < high, got {scale!r}"
        + (f"; did you mean {closest[0]!r}?" if closest else "")
    )


def gray_levels(image: Image.Image) -> np.ndarray:
    """Return the pixels of a gray image as stored, with unsigned 32-bit levels, which Pillow reads as signed.

    Shape:
        - Output: ``[H, W]``, of the file's type or a wider one.
    """
    levels = np.asarray(image)
    tags: Any = getattr(image, "tag_v2", {})
    unsigned = tags.get(_SAMPLE_FORMAT, (1,)) == (1,) and tags.get(_BITS_PER_SAMPLE) == (32,)
    return levels.view(np.uint32) if unsigned and levels.dtype == np.int32 else levels


def scale_to_8_bits(values: np.ndarray, scale: str | Range | None, bits: int = 16, where: str = "") -> np.ndarray:
    """Scale pixels of any type to 8 bits.

    Args:
        values: Pixels as stored. NaN becomes 0.
        scale: ``full``: from 0 to the highest value of `bits` bits. ``image``: from the lowest to the highest value of
            the image. ``percentile``: from its 1st to its 99.8th percentile. ``(low, high)``: these values. Values
            outside are clipped.
        bits: Bits per pixel as stored, at most 16 for ``full``.
        where: File, for messages.

    Shape:
        - values: ``[H, W]`` or ``[H, W, 3]``.
        - Output: as `values`, uint8.

    Raises:
        BitDepthError: `scale` is None, or does not apply to the values.
    """
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values.ravel()
    least, most = (finite.min(), finite.max()) if finite.size else (0, 0)
    if scale is None or (scale == "full" and (values.dtype.kind == "f" or least < 0 or bits > 16)):
        kind = "floating-point values" if values.dtype.kind == "f" else f"values of {bits} bits"
        problem = (
            "must be set for images with more than 8 bits" if scale is None else "full needs whole numbers of 16 bits"
        )
        full = ", full" if scale is None and values.dtype.kind != "f" and least >= 0 and bits <= 16 else ""
        usual = _usual_range(float(least), float(most), values.dtype.kind)
        raise BitDepthError(
            f"{where}: scale_16bit {problem}, got {kind} from {least:g} to {most:g}; set scale_16bit: [low, high], "
            f"such as {usual}{full}, image or percentile",
            f"scale_16bit=({usual[1:-1]})",
        )
    if not isinstance(scale, str):
        low, high = scale
    elif scale == "full":
        low, high = 0.0, 2.0**bits - 1
    elif scale == "image":
        low, high = float(least), float(most)
    else:
        low, high = np.percentile(finite, _PERCENTILES).tolist() if finite.size else (0.0, 0.0)
    fraction = (values.astype(np.float32) - low) / max(high - low, 1e-6)
    return np.rint(np.nan_to_num(fraction, nan=0, posinf=1, neginf=0).clip(0, 1) * 255).astype(np.uint8)


def _usual_range(least: float, most: float, kind: str) -> str:
    """The range that values such as these usually come from."""
    if least < 0 or kind == "f":
        return "[0, 1]" if least >= 0 and most <= 1 else f"[{least:g}, {most:g}]"
    return f"[0, {next((high for high in (1023, 4095, 16383) if most <= high), int(max(most, 65535)))}]"
