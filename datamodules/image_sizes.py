"""How large images are, without decoding them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .images import ImageError

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # EXIF's tag, and its values for images that are stored on their side


def image_size(path: str | Path) -> tuple[int, int]:
    """Width and height of an image file as `read_image` gives it, from its header alone.

    Raises:
        ImageError: when the file is missing or not an image.
    """
    try:
        with Image.open(path) as opened:
            width, height = opened.size
            turned = opened.getexif().get(_ORIENTATION) in _TURNED
    except OSError as error:
        raise ImageError(path, error.strerror or f"not a readable image ({error})") from error
    except Exception as error:  # Pillow's plugins raise SyntaxError, ValueError, struct.error …
        raise ImageError(path, f"not a readable image ({str(error).strip() or type(error).__name__})") from error
    return (height, width) if turned else (width, height)


def source_sizes(source: Any) -> np.ndarray:
    """Width and height of each image of a source.

    A source that knows them has an array ``sizes``; of one that has a method ``path(index)``, and of images whose size
    is not known there (0), headers are read. An image that cannot be read counts as square: what to do about it is
    decided where it is decoded.

    Shape:
        - Output: ``[N, 2]`` int64.

    Raises:
        ValueError: for a source that has neither.
    """
    known, path = getattr(source, "sizes", None), getattr(source, "path", None)
    if known is None and path is None:
        raise ValueError(
            f"data.init_args.group_by_aspect needs the sizes of the images beforehand, and {type(source).__name__} has "
            "neither an array `sizes` nor a method `path`; set group_by_aspect: false"
        )
    sizes = np.zeros((len(source), 2), np.int64) if known is None else np.array(known, np.int64)
    unknown = np.flatnonzero((sizes < 1).any(axis=1)).tolist()
    if unknown and path is None:
        raise ValueError(
            f"data.init_args.group_by_aspect: {type(source).__name__} does not know the size of {len(unknown)} "
            f"image(s), the first of which is number {unknown[0]}; set group_by_aspect: false"
        )

    if path is not None and unknown:
        with ThreadPoolExecutor(8) as threads:  # waits for files, mostly
            sizes[unknown] = list(threads.map(lambda index: _size_or_square(path(index)), unknown))
    return sizes


def _size_or_square(path: str | Path) -> tuple[int, int]:
    try:
        return image_size(path)
    except ImageError:
        return 1, 1
