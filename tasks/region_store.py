"""The features of a training set's regions on disk, which R-CNN's and SPP-net's SVMs are trained on.

They are written in parts of `IMAGES_PER_PART` images each, so that an interrupted run continues with the next part, and
are memory-mapped when they are read. Shape legend: an image has N objects and P proposals, of which M are trained on
by the box regression; D features of a region, D' pooled ones.
"""

import contextlib
import errno
import json
import os
import shutil
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor

from ..models.detection.two_stage.region_boxes import BoxPairs
from ..models.detection.two_stage.region_svms import ImageRegions

IMAGES_PER_PART = 16
"""Number of images whose features are in one file. 2,000 regions of 4,096 features take 0.5 GB, or 0.25 in float16."""

OPEN_PARTS = 8
"""Number of parts that are memory-mapped at a time."""


class RegionRecord(NamedTuple):
    """What is stored of one image.

    Attributes:
        objects: Ground-truth boxes, ``[N, 4]``.
        labels: int64 ``[N]``.
        proposals: Proposed boxes, ``[P, 4]``.
        features: Features of objects and proposals, ``[N + P, D]``.
        pooled: Pooled features of the proposals in `pairs`, ``[M, D']``.
        pairs: What the box regression is trained on.
        norms: Sums of the norms of the features and of all pooled features.
    """

    objects: Tensor
    labels: Tensor
    proposals: Tensor
    features: np.ndarray
    pooled: np.ndarray
    pairs: BoxPairs
    norms: tuple[float, float]


class RegionStore:
    """The stored regions of a training set.

    Args:
        folder: Where the files are; it is created.
        count: Number of images of the training set.
        fingerprint: Identifies network, data and settings. Files of another fingerprint are removed.
        half_precision: Whether features are stored in float16, in half the space.

    Attributes:
        discarded: Whether files of another fingerprint were removed.
    """

    def __init__(self, folder: Path, count: int, fingerprint: str, half_precision: bool = False) -> None:
        self.folder, self.count = folder, count
        self.dtype = np.float16 if half_precision else np.float32
        state = folder / "fingerprint.json"
        previous = json.loads(state.read_text(encoding="utf-8")) if state.is_file() else None
        self.discarded = previous is not None and previous != fingerprint
        if previous != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            with self.write("fingerprint.json") as file:
                file.write(json.dumps(fingerprint).encode())

    @property
    def parts(self) -> int:
        """Number of parts of a complete store."""
        return -(-self.count // IMAGES_PER_PART)

    @property
    def complete_parts(self) -> int:
        """Number of parts, from the first, that are stored."""
        return next((part for part in range(self.parts) if not self._path("regions", part).is_file()), self.parts)

    @property
    def size(self) -> int:
        """Bytes of all files on disk."""
        return sum(path.stat().st_size for path in self.folder.iterdir() if path.is_file())

    @contextlib.contextmanager
    def write(self, name: str) -> Iterator[BinaryIO]:
        """Open a file for writing that appears under its name when it is complete.

        Raises:
            OSError: It cannot be written; a full disk is named, with what is stored so far.
        """
        partial = self.folder / f".{name}.partial"
        try:
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.folder / name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                stored, total = f"{self.size / 1e9:.1f} GB", f"{self.estimate() / 1e9:.1f}"
                message = f"{error.strerror} after {stored} of features of regions, of about {total}"
                raise OSError(error.errno, message, str(self.folder / name)) from error
            raise
        finally:
            partial.unlink(missing_ok=True)

    def estimate(self) -> float:
        """Expected number of bytes of the complete store, from the stored parts; 0 without any."""
        done = self.complete_parts
        return self.size / done * self.parts if done else 0.0

    def add(self, part: int, records: Sequence[RegionRecord]) -> None:
        """Store the images of a part, in order; it may have none, if none could be read.

        Raises:
            OSError: The disk is full, or will be before all parts are stored.
        """
        arrays = {"features": [r.features for r in records], "pooled": [r.pooled for r in records]}
        for kind, values in arrays.items():
            joined = np.concatenate(values).astype(self.dtype) if values else np.zeros((0, 0), self.dtype)
            with self.write(self._path(kind, part).name) as file:
                np.save(file, joined)
        columns: dict[str, list[Any]] = {
            "counts": [[len(r.objects), len(r.proposals), len(r.pairs.rows)] for r in records],
            "norms": [[*r.norms] for r in records],
        }
        tensors = {
            "objects": [r.objects for r in records],
            "labels": [r.labels for r in records],
            "proposals": [r.proposals for r in records],
            "pair_rows": [r.pairs.rows for r in records],
            "pair_labels": [r.pairs.labels for r in records],
            "pair_offsets": [r.pairs.offsets for r in records],
        }
        data: dict[str, Any] = {name: np.array(values) for name, values in columns.items()}
        data |= {name: torch.cat(values).cpu().numpy() if values else np.zeros(0) for name, values in tensors.items()}
        with self.write(self._path("regions", part).name) as file:  # last: it marks the part as complete
            np.savez(file, **data)
        if part == 0:
            self._check_space()

    def _check_space(self) -> None:
        """Stop early if the disk has no space for the other parts."""
        missing, free = self.estimate() - self.size, shutil.disk_usage(self.folder).free
        if missing > free:
            raise OSError(
                errno.ENOSPC,
                f"No space left for the features of regions: they need about {missing / 1e9:.1f} GB more, "
                f"{free / 1e9:.1f} GB are free; store them in half precision "
                "(trainer.callbacks: RegionStages, half_precision: true), or lower the model's proposer.max_proposals",
                str(self.folder),
            )

    def _path(self, kind: str, part: int) -> Path:
        return self.folder / f"{kind}-{part:05d}.{'npz' if kind == 'regions' else 'npy'}"

    def index(self) -> "StoredRegions":
        """Open the complete store for reading."""
        return StoredRegions([self._load(part) for part in range(self.parts)], self._open)

    def _load(self, part: int) -> dict[str, np.ndarray]:
        with np.load(self._path("regions", part)) as file:
            return dict(file)

    def _open(self, kind: str, part: int) -> np.ndarray:
        """Memory-map the features ``[R, D]`` of a part."""
        return np.load(self._path(kind, part), mmap_mode="r")

    def remove(self) -> None:
        """Remove all files of the store."""
        shutil.rmtree(self.folder, ignore_errors=True)


class StoredRegions(Sequence[ImageRegions]):
    """The images of a complete store, whose features are memory-mapped when an image is indexed.

    Args:
        parts: Boxes, labels and counts of each part.
        open_file: Memory-maps the features of a kind and a part.

    Shape:
        - parts: ``objects`` ``[N, 4]``, ``counts`` ``[I, 3]`` for I images, and so on
        - open_file: ``[R, D]``
    """

    def __init__(self, parts: Sequence[dict[str, np.ndarray]], open_file: Callable[[str, int], np.ndarray]) -> None:
        self._parts, self._open_file = parts, open_file  # boxes [N, 4]; features [R, D]
        self._opened: OrderedDict[tuple[str, int], np.ndarray] = OrderedDict()
        # for each image its part, and the starts of its objects, proposals and pairs in it
        self._images: list[tuple[int, np.ndarray, np.ndarray]] = []
        for part, data in enumerate(parts):
            counts = data["counts"].reshape(-1, 3).astype(np.int64)
            ends = counts.cumsum(0)
            self._images += [(part, end - count, end) for end, count in zip(ends, counts, strict=True)]

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> ImageRegions: ...

    @overload
    def __getitem__(self, index: slice) -> list[ImageRegions]: ...

    def __getitem__(self, index: int | slice) -> ImageRegions | list[ImageRegions]:
        """The regions of an image, or a list of those of several images."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        part, start, end = self._images[index]
        rows = slice(int(start[:2].sum()), int(end[:2].sum()))
        return ImageRegions(
            self._features("features", part)[rows],
            self._column(part, "objects", start[0], end[0]),
            self._column(part, "labels", start[0], end[0]),
            self._column(part, "proposals", start[1], end[1]),
        )

    def pairs(self) -> list[BoxPairs]:
        """The pairs of each image that box regression is trained on."""
        names = ("pair_rows", "pair_labels", "pair_offsets")
        return [
            BoxPairs(*(self._column(part, name, start[2], end[2]) for name in names))
            for part, start, end in self._images
        ]

    def pooled(self) -> "PooledFeatures":
        """The pooled features of the pairs of each image."""
        return PooledFeatures(
            [(part, slice(int(start[2]), int(end[2]))) for part, start, end in self._images], self._features
        )

    def mean_norms(self) -> tuple[float, float]:
        """Mean norm of the features, and of the pooled features, of all regions; 0 without regions."""
        counts = sum(int(data["counts"].reshape(-1, 3)[:, :2].sum()) for data in self._parts)
        sums = np.sum([data["norms"].reshape(-1, 2).sum(0) for data in self._parts], axis=0)
        features, pooled = (float(value) / max(counts, 1) for value in np.broadcast_to(sums, 2))
        return features, pooled

    def region_count(self) -> int:
        """Number of regions of all images, objects included."""
        return sum(int(data["counts"].reshape(-1, 3)[:, :2].sum()) for data in self._parts)

    def _column(self, part: int, name: str, start: int, end: int) -> Tensor:
        """Rows of a stored tensor, such as ``[N, 4]``."""
        return torch.from_numpy(self._parts[part][name][start:end])

    def _features(self, kind: str, part: int) -> np.ndarray:
        """The memory-mapped features of a part, ``[R, D]``; the least recently used one is closed."""
        key = (kind, part)
        if key not in self._opened:
            self._opened[key] = self._open_file(kind, part)
            if len(self._opened) > OPEN_PARTS:
                self._opened.popitem(last=False)
        self._opened.move_to_end(key)
        return self._opened[key]


class PooledFeatures(Sequence[np.ndarray]):
    """The pooled features of each image's pairs, memory-mapped when an image is indexed.

    Args:
        rows: Part of each image, and its rows in it.
        features: Memory-maps the features of a kind and a part.

    Shape:
        - features: ``[R, D']``; items: ``[M, D']``
    """

    def __init__(self, rows: Sequence[tuple[int, slice]], features: Callable[[str, int], np.ndarray]) -> None:
        self._rows, self._features = rows, features  # those of a part: [R, D']

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> np.ndarray:
        """The pooled features ``[M, D']`` of the pairs of one image."""

    @overload
    def __getitem__(self, index: slice) -> list[np.ndarray]:
        """The pooled features ``[M, D']`` of the pairs of several images."""

    def __getitem__(self, index: int | slice) -> np.ndarray | list[np.ndarray]:
        """The pooled features ``[M, D']`` of an image's pairs, or a list of those of several images."""
        if isinstance(index, slice):
            return [self[one] for one in range(*index.indices(len(self)))]
        part, rows = self._rows[index]
        return self._features("pooled", part)[rows]
