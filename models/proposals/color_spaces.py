"""The color spaces of selective search, as 8-bit channels.

Shape legend: an image of H x W pixels; C channels of a color space.

The paper names the color spaces and leaves their scaling open. It matters, because one threshold ``k`` serves all of
them. The scaling here is that of the authors' published MATLAB code: each channel is rounded to 8 bits and uses the
range 0 to 255.
"""

import importlib
from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

ColorSpace = Literal["hsv", "lab", "rgi", "h", "intensity", "rgb"]
Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float64]


def convert_color(image: Pixels, color: ColorSpace) -> Pixels:
    """Convert an RGB image to a color space.

    - ``hsv``: hue, saturation and value, each from 0 to 1 times 255. Hue is treated as a number, not as an angle.
    - ``lab``: CIE L*a*b* of D65; L* times 2.55, a* and b* plus 128.
    - ``rgi``: red and green as fractions of the sum of the three, each stretched to the range that the image has; and
      the intensity. Black counts as a third of each.
    - ``h``: the hue alone.
    - ``intensity``: 0.299 R + 0.587 G + 0.114 B.
    - ``rgb``: the pixels as they are.

    Args:
        image: RGB pixels ``[H, W, 3]``.
        color: The color space.

    Returns:
        Channels ``[H, W, C]``; C is 1 for ``h`` and ``intensity``, otherwise 3. The authors' code repeats these two
        three times, which leaves histogram intersections as they are; the segmentation takes account of it.
    """
    return image if color == "rgb" else _CONVERSIONS[color](image)


def scikit_image(module: str) -> Any:
    """Import a module of the optional package scikit-image.

    Raises:
        ImportError: The package is not installed.
    """
    try:
        return importlib.import_module(f"skimage.{module}")
    except ImportError as error:
        raise ImportError(
            "selective_search: needs the optional package scikit-image; run pip install 'striate[proposals]'"
        ) from error


def _hsv(image: Pixels) -> Pixels:
    return _rounded(255 * scikit_image("color").rgb2hsv(image))


def _lab(image: Pixels) -> Pixels:
    return _rounded(scikit_image("color").rgb2lab(image) * [2.55, 1, 1] + [0, 128, 128])


def _rgi(image: Pixels) -> Pixels:
    total = image.sum(axis=2, keepdims=True, dtype=np.float64)
    shares = np.divide(image[..., :2], total, out=np.full((*image.shape[:2], 2), 1 / 3), where=total > 0)
    low, high = shares.min(axis=(0, 1)), shares.max(axis=(0, 1))
    stretched = 255 * (shares - low) / np.where(high > low, high - low, 1)
    return np.concatenate([_rounded(stretched), _intensity(image)], axis=2)


def _intensity(image: Pixels) -> Pixels:
    return _rounded(image @ np.array([[0.299], [0.587], [0.114]]))


def _rounded(values: Floats) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_CONVERSIONS: dict[str, Callable[[Pixels], Pixels]] = {
    "hsv": _hsv,
    "lab": _lab,
    "rgi": _rgi,
    "h": lambda image: _hsv(image)[..., :1],
    "intensity": _intensity,
}
