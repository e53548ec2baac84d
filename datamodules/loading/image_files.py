"""Images by path, without targets: the source for ``predict``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..images.bit_depth import ReadOptions
from ..images.read import read_image
from .sources import prediction_sample


class ImageFiles:
    """Images by path, without targets: the source for ``predict``.

    Args:
        paths: The image files.
    """

    options = ReadOptions()  # how they are read; set by the data module

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def files(self) -> list[str]:
        """Return the path of each image."""
        return [str(path) for path in self.paths]

    def __getitem__(self, index: int) -> dict[str, Any]:
        path = self.paths[index]
        return prediction_sample(read_image(path, options=self.options), str(path))
