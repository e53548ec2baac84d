"""The samples of a split as a few arrays, not as one object per sample."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..images.similarity import APPEARANCE_BYTES
from .samples import SampleSummary


@dataclass(frozen=True)
class ObjectTable:
    """The N objects of a split, image by image.

    Attributes:
        image: ``[N]`` int64, index of the image of each.
        boxes: ``[N, 4]`` float32; NaN for classification.
        labels: ``[N]`` int32.
        not_crowd: ``[N]`` bool.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    not_crowd: np.ndarray

    @property
    def with_box(self) -> np.ndarray:
        """``[N]`` bool, objects other than crowds that have a box."""
        return self.not_crowd & np.isfinite(self.boxes).all(axis=1)


class SplitRecord:
    """The samples of a split.

    Args:
        name: ``train``, ``val`` or ``test``.
        size: Number of samples N.
        num_classes: Number of classes K.
        paths: File of each sample's image; None: not in files.

    Attributes:
        inspected: ``[N]`` bool.
        excluded: ``[N]`` bool, samples that a corrected copy leaves out as a whole.
        sizes: ``[N, 2]`` int32, width and height; 0 if unreadable.
        digests: ``[N, 2]`` uint64.
        gradients: ``[N]`` uint64.
        appearances: ``[N, APPEARANCE_BYTES]`` uint8.
        class_pixels: ``[K]`` int64, pixels of each class in semantic masks; None: no masks.
        masks_with_class: ``[K]`` int64, number of masks that contain each class.
        has_foreground: ``[N]`` bool, masks with a class other than 0.
    """

    def __init__(self, name: str, size: int, num_classes: int, paths: Sequence[str] | None) -> None:
        self.name, self.num_classes = name, num_classes
        self.paths: list[str | None] = list(paths) if paths is not None else [None] * size
        self.inspected, self.excluded = np.zeros(size, np.bool_), np.zeros(size, np.bool_)
        self.sizes = np.zeros((size, 2), np.int32)
        self.digests, self.gradients = np.zeros((size, 2), np.uint64), np.zeros(size, np.uint64)
        self.appearances = np.zeros((size, APPEARANCE_BYTES), np.uint8)
        self.class_pixels: np.ndarray | None = None
        self.masks_with_class = np.zeros(num_classes, np.int64)
        self.has_foreground = np.zeros(size, np.bool_)
        self._parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        return len(self.inspected)

    def add(self, start: int, summaries: Sequence[SampleSummary]) -> None:
        """Keep the summaries of the samples from `start` on."""
        stop = start + len(summaries)
        self.inspected[start:stop] = True
        self.sizes[start:stop] = [one.size for one in summaries]
        self.digests[start:stop] = np.frombuffer(b"".join(one.digest for one in summaries), np.uint64).reshape(-1, 2)
        self.gradients[start:stop] = np.array([one.gradient for one in summaries], np.uint64)
        self.appearances[start:stop] = [one.appearance for one in summaries]
        for index, one in enumerate(summaries, start=start):
            self.excluded[index] = any(finding.excludes_sample for finding in one.findings)
            if one.path is not None:
                self.paths[index] = one.path
            if one.class_pixels is not None:
                pixels = one.class_pixels[: self.num_classes]
                self.class_pixels = pixels.astype(np.int64) + (0 if self.class_pixels is None else self.class_pixels)
                self.masks_with_class += pixels > 0
                self.has_foreground[index] = bool(one.class_pixels[1:].any())
        images = np.repeat(np.arange(start, stop), [len(one.labels) for one in summaries])
        columns = zip(*((one.boxes, one.labels, one.not_crowd) for one in summaries), strict=True)
        boxes, labels, not_crowd = (np.concatenate(column) for column in columns)
        self._parts.append((images, boxes, labels, not_crowd))

    def is_twin(self, other: "SplitRecord") -> bool:
        """Whether it has another split's images in the same order: the same files, or in memory the same pixels."""
        return self.paths == other.paths and np.array_equal(self.digests, other.digests)

    @property
    def readable(self) -> np.ndarray:
        """``[N]`` bool: images that were read."""
        return self.sizes[:, 0] > 0

    def sizes_by_path(self) -> dict[str, tuple[int, int]]:
        """Return width and height of the images in files."""
        sizes = zip(self.paths, self.sizes.tolist(), strict=True)
        return {path: (width, height) for path, (width, height) in sizes if path is not None}

    def objects(self) -> ObjectTable:
        """Return all objects, image by image."""
        if not self._parts:
            empty = np.zeros(0, np.int64)
            return ObjectTable(empty, np.zeros((0, 4), np.float32), empty.astype(np.int32), empty.astype(np.bool_))
        images, *columns = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(images, kind="stable")
        boxes, labels, not_crowd = (column[order] for column in columns)
        self._parts = [(images[order], boxes, labels, not_crowd)]
        return ObjectTable(*self._parts[0])

    def labels(self) -> np.ndarray | None:
        """Return the class of each image ``[N]`` (-1: none) if no image has more than one object; else None."""
        table = self.objects()
        labels = np.full(len(self), -1, np.int32)
        if len(np.unique(table.image)) < len(table.image):
            return None
        labels[table.image] = table.labels
        return labels
