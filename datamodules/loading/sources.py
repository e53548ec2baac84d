"""Sources of raw samples, and what a source may know about its samples before it reads them.

Only `Source` is required; a list of samples is one. The ``Has…`` protocols are optional capabilities, which the loaders
use where a source has them.
"""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..annotations.annotation_errors import Fault
from ..images.bit_depth import ReadOptions
from ..images.sizes import image_sizes
from .epoch_sampling import ClassPresence

Sample = dict[str, Any]
"""Fields of one sample, as numpy arrays and numbers; see `striate.datamodules.batches`."""


def prediction_sample(image: np.ndarray, path: str) -> Sample:
    """Return the sample of an image ``[H, W, 3]`` to predict, with what leads from a transformed image back to it."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (0, height)], np.float32)
    return {"image": image, "path": path, "file_size": np.array([height, width]), "corners": corners}


class ProposalsByIndex(Protocol):
    """Stored proposals of the samples of a source, by index."""

    def boxes(self, index: int, size: tuple[int, int], /) -> np.ndarray:
        """Return the proposals of a sample whose image has this width and height: ``[P, 4]`` float32."""
        ...


class Source(Protocol):
    """Raw samples by index: ``image`` (RGB uint8 ``[H, W, 3]``, numpy) and the targets that belong to it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@runtime_checkable
class HasShortSide(Protocol):
    """A source that can decode images at reduced size."""

    short_side: int | None
    """Length in pixels that the short side needs; None: full resolution. Set by the data module."""


@runtime_checkable
class HasReadOptions(Protocol):
    """A source that reads image files."""

    options: ReadOptions
    """How to read ambiguous image files. Set by the data module."""


@runtime_checkable
class HasLabels(Protocol):
    """A source with one class per sample."""

    labels: np.ndarray
    """int64 ``[N]``."""


@runtime_checkable
class HasPresence(Protocol):
    """A source with several classes per sample."""

    def presence(self) -> ClassPresence:
        """Which classes each sample has."""
        ...


@runtime_checkable
class HasSizes(Protocol):
    """A source that knows the sizes of its images."""

    sizes: np.ndarray
    """``[N, 2]``, width and height in pixels; 0, 0 where unknown."""


@runtime_checkable
class HasPath(Protocol):
    """A source whose samples have image files."""

    def path(self, index: int, /) -> str | Path:
        """Return the image file of a sample."""
        ...


@runtime_checkable
class HasFiles(Protocol):
    """A source that lists its image files."""

    def files(self) -> list[str]:
        """Return the image file of each sample, in order."""
        ...


@runtime_checkable
class HasAbsence(Protocol):
    """A source that may have nothing to learn from, and knows why."""

    def absence(self, training: bool = False) -> Fault | None:
        """Return why no sample has anything to learn from; None: one has. Difficult objects count in `training`."""
        ...


def present_classes(source: Source) -> set[int] | None:
    """Return the classes that a source has; None: it does not know them without reading its samples."""
    if isinstance(source, HasPresence):
        return set(np.unique(source.presence().classes).tolist())
    return set(np.unique(source.labels).tolist()) if isinstance(source, HasLabels) else None


def class_presence(source: Source, sampling: str) -> ClassPresence:
    """Return which classes each sample of a source has.

    Args:
        source: A source with ``presence()`` or ``labels``.
        sampling: Name of the sampling that needs it, for the message.

    Raises:
        ValueError: The source has neither.
    """
    if isinstance(source, HasPresence):
        return source.presence()
    if isinstance(source, HasLabels):
        return ClassPresence.of_labels(source.labels)
    raise ValueError(
        f"sampling: {sampling} needs the classes of all samples in advance, got {type(source).__name__} with neither "
        "an array `labels` nor a method `presence`; set sampling: uniform"
    )


def source_sizes(source: Source) -> np.ndarray:
    """Return width and height of each image of a source.

    Sizes come from the source's ``sizes``; unknown ones (0) from the headers of the files that ``path(index)`` returns.
    An unreadable image counts as square: it is handled where it is decoded.

    Shape:
        - Output: ``[N, 2]`` int64.

    Raises:
        ValueError: A size is unknown, and the source has no ``path``.
    """
    sizes = np.array(source.sizes, np.int64) if isinstance(source, HasSizes) else np.zeros((len(source), 2), np.int64)
    unknown = np.flatnonzero((sizes < 1).any(axis=1)).tolist()
    if isinstance(source, HasPath):
        sizes[unknown] = np.maximum(image_sizes(map(source.path, unknown)), 1)
    elif unknown or not isinstance(source, HasSizes):
        raise ValueError(
            f"group_by_aspect: needs the sizes of all images in advance, got {type(source).__name__} with "
            f"{len(unknown)} unknown size(s) and no method `path`; set group_by_aspect: false"
        )
    return sizes
