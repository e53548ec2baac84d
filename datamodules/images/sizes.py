"""How large images are, without decoding them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from .read import ImageError, image_size


def image_sizes(paths: Iterable[str | Path]) -> np.ndarray:
    """Width and height of image files, from their headers; 0, 0 where these cannot be read.

    One after another: threads made it slower (8 of them: 98 us a file instead of 31).

    Shape:
        - Output: ``[N, 2]`` int32.
    """
    found = []
    for path in paths:
        try:
            found.append(image_size(path))
        except ImageError:  # reading the image says what is wrong with it
            found.append((0, 0))
    return np.array(found, np.int32).reshape(-1, 2)


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
    if path is not None:
        sizes[unknown] = np.maximum(image_sizes(map(path, unknown)), 1)  # square, where unreadable
    return sizes
