"""Sources of labelled images, held as a few arrays: forked workers share them, and no object a sample is kept."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images.read import read_image


class LabelledFiles:
    """Image files with a class each.

    Args:
        paths: the files; an array of bytes is kept as it is.
        labels: class of each file.
        root: what the paths are relative to; 1.28 million short relative paths take 40 MB, absolute ones thrice that.

    Shape:
        - labels: ``[N]`` int64.

    Attributes:
        short_side: the length that is enough for what follows (see `read_image`); None: all pixels.
    """

    short_side: int | None = None

    def __init__(self, paths: Sequence[Path | str] | np.ndarray, labels: np.ndarray, root: Path | None = None) -> None:
        if not isinstance(paths, np.ndarray):
            paths = np.array([os.fsencode(path) for path in paths], dtype=np.bytes_)
        self.paths, self.labels, self.root = paths, labels, root

    def part(self, chosen: np.ndarray) -> "LabelledFiles":
        """Some of the files: a mask, or their numbers."""
        return LabelledFiles(self.paths[chosen], self.labels[chosen], self.root)

    def __len__(self) -> int:
        return len(self.paths)

    def files(self) -> list[str]:
        """The path of each image."""
        root = "" if self.root is None else str(self.root)
        return [os.path.join(root, os.fsdecode(path)) for path in self.paths]  # noqa: PTH118 - a million times

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = os.fsdecode(self.paths[index])
        return {
            "image": read_image(path if self.root is None else self.root / path, self.short_side),
            "label": int(self.labels[index]),
        }


class LabelledArrays:
    """Images in memory with a class each: a selection of one array that the splits share.

    Args:
        images: all images; gray ones are given as three equal channels.
        labels: class of each image.
        chosen: which of them belong to this source, None: all.

    Shape:
        - images: ``[N, H, W]`` (gray) or ``[N, H, W, 3]`` uint8.
        - labels: ``[N]`` int64.
        - chosen: ``[N]`` bool.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, chosen: np.ndarray | None = None) -> None:
        self.images = images
        self.numbers = np.arange(len(images)) if chosen is None else np.flatnonzero(chosen)
        self.labels = labels[self.numbers]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[self.numbers[index]]
        # always a copy: a transform may write into what it is given, and the array is everyone's
        image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
        return {"image": image, "label": int(self.labels[index])}
