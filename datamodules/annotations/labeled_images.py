"""Sources of labeled images, stored as a few arrays that forked workers share, without a Python object per sample."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..images.bit_depth import ReadOptions
from ..images.read import read_image
from .dataset_layout import encode_paths


class LabeledFiles:
    """Image files with one class each.

    Args:
        paths: Image files; an array from `encode_paths` is not copied.
        labels: Class of each file.
        root: Folder that the paths are relative to. 1.28 million short relative paths take 40 MB, absolute ones three
            times as much.

    Shape:
        - paths: ``[N]``, as an array.
        - labels: ``[N]`` int64.

    Attributes:
        short_side: Length in pixels that the transforms need (see `read_image`); None: full resolution.
        options: How image files are read, see `ReadOptions`.
    """

    short_side: int | None = None
    options = ReadOptions()

    def __init__(self, paths: Sequence[Path | str] | np.ndarray, labels: np.ndarray, root: Path | None = None) -> None:
        self.paths = paths if isinstance(paths, np.ndarray) else encode_paths(paths)
        self.labels, self.root = labels, root  # labels [N]

    def part(self, selected: np.ndarray) -> "LabeledFiles":
        """Return a subset of the files, selected by a bool mask ``[N]`` or by indices ``[M]``."""
        return LabeledFiles(self.paths[selected], self.labels[selected], self.root)

    def __len__(self) -> int:
        return len(self.paths)

    def files(self) -> list[str]:
        """Return the path of each image."""
        root = "" if self.root is None else str(self.root)
        return [os.path.join(root, os.fsdecode(path)) for path in self.paths]  # noqa: PTH118 - a million times

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = os.fsdecode(self.paths[index])
        return {
            "image": read_image(path if self.root is None else self.root / path, self.short_side, self.options),
            "label": int(self.labels[index]),
        }


class LabeledArrays:
    """Images in memory with one class each; several splits can share the same array.

    Args:
        images: All images; gray ones are returned with three equal channels.
        labels: Class of each image.
        selected: Images that belong to this source; None: all.

    Shape:
        - images: ``[N, H, W]`` (gray) or ``[N, H, W, 3]`` uint8.
        - labels: ``[N]`` int64.
        - selected: ``[N]`` bool.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, selected: np.ndarray | None = None) -> None:
        self.images = images  # [N, H, W] or [N, H, W, 3]
        self.indices = np.arange(len(images)) if selected is None else np.flatnonzero(selected)
        self.labels = labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = self.images[self.indices[index]]
        # always a copy: a transform may write into its input, and the splits share the array
        image = np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image.copy()
        return {"image": image, "label": int(self.labels[index])}
