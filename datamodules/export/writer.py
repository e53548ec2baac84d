"""Base of the writers of all formats: file names, images, and counts of what a format cannot store."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..images.read import bits_per_channel
from ..loading.sources import Sample

COPIED = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
JPEG_ONLY = (".jpg", ".jpeg")


class Settings(NamedTuple):
    """Settings of an export.

    Attributes:
        root: Folder to write into.
        task: Task of all samples, one of the five.
        class_names: Names of the classes ``0 … K-1``.
        splits: Splits to write, in order.
        quality: Quality of JPEG files, 1 to 100, if the format uses them.
    """

    root: Path
    task: str
    class_names: list[str]
    splits: list[str]
    quality: int


class Reader(NamedTuple):
    """The data module that reads an export.

    Attributes:
        name: Class name of the data module.
        arguments: Arguments of its constructor, except ``root``.
    """

    name: str
    arguments: dict[str, Any]


class Writer(ABC):
    """Base of the writers: write samples in one format, one after another.

    A subclass lists the tasks of its format in `tasks`. Data that a format cannot store is counted in `lost`, by a noun
    phrase that follows the count; nothing is omitted silently.
    """

    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lost: Counter[str] = Counter()
        self._stems: set[str] = set()

    @abstractmethod
    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write one sample.

        Args:
            split: Split of the sample.
            index: Index of the sample in its split.
            sample: Complete and checked sample (`fill_defaults`, `check_targets`).
        """

    @abstractmethod
    def close(self) -> None:
        """Write files that depend on all samples."""

    @abstractmethod
    def reader(self) -> Reader | None:
        """Return the data module that reads the files; None if there is none."""

    def stem(self, sample: Sample, fallback: str) -> str:
        """Return a unique file name without suffix: that of the sample's file, or `fallback` without one."""
        path = sample.get("path")
        # no blanks, commas or leading dots, which break lists of files or hide files
        base = (re.sub(r"[^\w.-]+", "_", Path(path).stem).lstrip(".") if path else "") or fallback
        name, count = base, 1
        while name.lower() in self._stems:
            count += 1
            name = f"{base}-{count}"
        self._stems.add(name.lower())
        return name

    def image(self, sample: Sample, folder: Path, stem: str, suffixes: Sequence[str] = COPIED) -> str:
        """Write a sample's image, and return its file name.

        A file that the format accepts is copied. Otherwise the pixels are written as PNG or, if the format accepts only
        ``.jpg``, as JPEG without chroma subsampling, which changes them slightly.
        """
        folder.mkdir(parents=True, exist_ok=True)
        if (original := _original(sample, suffixes)) is not None:
            name = stem + (".jpg" if suffixes == JPEG_ONLY else original.suffix.lower())
            (folder / name).write_bytes(original.read_bytes())
            return name
        lossless = suffixes != JPEG_ONLY
        options = [] if lossless else [cv2.IMWRITE_JPEG_QUALITY, self.settings.quality]
        if not lossless:
            options += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
            self.lost["images re-encoded as JPEG (pixels differ slightly)"] += 1
        name = stem + (".png" if lossless else ".jpg")
        encoded, data = cv2.imencode(Path(name).suffix, sample["image"][..., ::-1], options)
        if not encoded:
            raise ValueError(f"image: OpenCV cannot write {list(sample['image'].shape)} to {str(folder / name)!r}")
        (folder / name).write_bytes(data.tobytes())
        return name


def _original(sample: Sample, suffixes: Sequence[str]) -> Path | None:
    """Return the file of a sample's image, if the format accepts it and it holds the same pixels."""
    path = Path(sample["path"]) if "path" in sample else None
    if path is None or path.suffix.lower() not in suffixes:
        return None
    with Image.open(path) as opened:  # reads the header only
        # another size: rotated by EXIF, or decoded at reduced size; another mode: CMYK, transparent
        same = opened.mode in ("RGB", "L") and opened.size == sample["image"].shape[1::-1]
        same = same and bits_per_channel(opened) <= 8 and getattr(opened, "n_frames", 1) == 1
    return path if same else None


def write_indexed(path: Path, values: np.ndarray, palette: bytes | None = None) -> None:
    """Write values ``[H, W]`` uint8 as a PNG: gray, or with a palette for display."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def task_of(sample: Sample) -> str:
    """Return the task whose targets a raw sample has.

    Raises:
        ValueError: The sample has no targets.
    """
    if "boxes" in sample:
        return "instance_segmentation" if "masks" in sample else "detection"
    if "mask" in sample:
        return "semantic_segmentation"
    if "label" in sample:
        return "localization" if "box" in sample else "classification"
    raise ValueError(f"targets: need label, boxes or mask to export, got {', '.join(sorted(sample))}")


def with_boxes(sample: Sample) -> Sample:
    """Return a localization sample as a detection sample with one object; others unchanged."""
    if "box" not in sample:
        return sample
    box = np.asarray(sample["box"], np.float32).reshape(1, 4)
    return {key: value for key, value in sample.items() if key not in ("label", "box")} | {
        "boxes": box,
        "labels": np.array([sample["label"]], np.int64),
        "iscrowd": np.zeros(1, np.bool_),
        "difficult": np.zeros(1, np.bool_),
        "area": (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1]),
    }
