"""What is kept of each split: a few arrays, not an object a sample."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .samples import LOOK, Looked


@dataclass
class SplitRecord:
    """The samples of a split.

    Attributes:
        name: ``train``, ``val`` or ``test``.
        num_classes: for the counts of pixels.
        paths: file of each sample's image; None: not in files.
        seen: ``[N]`` bool: read so far.
        faulty: ``[N]`` bool: something is wrong with the sample as a whole, so that a corrected copy leaves it out.
        sizes: ``[N, 2]`` int32, width and height; 0 where unreadable.
        digests: ``[N, 2]`` uint64.
        gradients: ``[N]`` uint64.
        looks: ``[N, LOOK]`` uint8.
        pixels: ``[K]`` int64, pixels of each class in semantic masks; None: there are none.
        with_class: ``[K]`` int64, how many masks have each class.
        foreground: ``[N]`` bool, masks with something other than class 0.
    """

    name: str
    num_classes: int
    paths: list[str | None]
    seen: np.ndarray
    faulty: np.ndarray
    sizes: np.ndarray
    digests: np.ndarray
    gradients: np.ndarray
    looks: np.ndarray
    pixels: np.ndarray | None = None
    with_class: np.ndarray | None = None
    foreground: np.ndarray | None = None
    _parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = field(default_factory=list)

    @classmethod
    def empty(cls, name: str, size: int, num_classes: int, paths: Sequence[str] | None) -> "SplitRecord":
        """A split of which nothing is read yet."""
        return cls(
            name,
            num_classes,
            list(paths) if paths is not None else [None] * size,
            np.zeros(size, np.bool_),
            np.zeros(size, np.bool_),
            np.zeros((size, 2), np.int32),
            np.zeros((size, 2), np.uint64),
            np.zeros(size, np.uint64),
            np.zeros((size, LOOK), np.uint8),
        )

    def __len__(self) -> int:
        return len(self.seen)

    def take(self, start: int, looked: Sequence[Looked]) -> None:
        """Keep what was seen of the samples from `start` on."""
        stop = start + len(looked)
        self.seen[start:stop] = True
        self.sizes[start:stop] = [one.size for one in looked]
        self.digests[start:stop] = np.frombuffer(b"".join(one.digest for one in looked), np.uint64).reshape(-1, 2)
        self.gradients[start:stop] = np.array([one.gradient for one in looked], np.uint64)
        self.looks[start:stop] = [one.look for one in looked]
        for number, one in enumerate(looked, start=start):
            if one.path is not None:
                self.paths[number] = one.path
            if one.pixels is not None:
                self._take_pixels(number, one.pixels)
        own = np.repeat(np.arange(start, stop), [len(one.labels) for one in looked])
        columns = ([one.boxes for one in looked], [one.labels for one in looked], [one.real for one in looked])
        boxes, labels, real = (np.concatenate(column) for column in columns)
        self._parts.append((own, boxes, labels, real))

    def _take_pixels(self, number: int, pixels: np.ndarray) -> None:
        if self.pixels is None or self.with_class is None or self.foreground is None:
            self.pixels, self.with_class = (np.zeros(self.num_classes, np.int64) for _ in range(2))
            self.foreground = np.zeros(len(self), np.bool_)
        self.pixels += pixels[: self.num_classes]
        self.with_class += pixels[: self.num_classes] > 0
        self.foreground[number] = bool(pixels[1:].any())

    def is_twin(self, other: "SplitRecord") -> bool:
        """Whether it has another split's images in the same order: the same files, or in memory the same pixels."""
        return self.paths == other.paths and np.array_equal(self.digests, other.digests)

    @property
    def readable(self) -> np.ndarray:
        """``[N]`` bool: images that were read."""
        return self.sizes[:, 0] > 0

    def objects(self) -> "ObjectTable":
        """All objects found, image by image."""
        if not self._parts:
            empty = np.zeros(0, np.int64)
            return ObjectTable(empty, np.zeros((0, 4), np.float32), empty.astype(np.int32), empty.astype(np.bool_))
        own, boxes, labels, real = (np.concatenate(column) for column in zip(*self._parts, strict=True))
        order = np.argsort(own, kind="stable")
        self._parts = [(own[order], boxes[order], labels[order], real[order])]
        return ObjectTable(*self._parts[0])

    def labels(self) -> np.ndarray | None:
        """Class of each image ``[N]``, where each has exactly one object (-1: none); else None."""
        table = self.objects()
        labels = np.full(len(self), -1, np.int32)
        if len(np.unique(table.image)) < len(table.image):
            return None
        labels[table.image] = table.labels
        return labels


@dataclass(frozen=True)
class ObjectTable:
    """Objects of a split: the number of their image, their boxes (NaN: classification), classes, and if no crowd."""

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    real: np.ndarray

    @property
    def with_box(self) -> np.ndarray:
        """Which are objects other than crowds that have a box: ``[N]`` bool."""
        return self.real & np.isfinite(self.boxes).all(axis=1)

    @property
    def boxed(self) -> np.ndarray:
        """Their boxes, ``[M, 4]``."""
        return self.boxes[self.with_box]
