"""What the writers of all formats share: samples with their task, names of files, images, and what a format loses."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import cv2
import numpy as np
from PIL import Image

from ..loading.sources import Sample

COPIED = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
JPEG_ONLY = (".jpg", ".jpeg")


class Settings(NamedTuple):
    """What a writer is told about the export.

    Attributes:
        root: the folder to write into.
        task: of all samples, one of the five.
        class_names: of the classes ``0 … K-1``.
        splits: those that will come, in their order.
        quality: of the JPEG files, where the format wants such, 1 to 100.
    """

    root: Path
    task: str
    class_names: list[str]
    splits: list[str]
    quality: int


class Reader(NamedTuple):
    """How striate reads an export back.

    Attributes:
        name: of the data module.
        arguments: of its constructor, but for ``root``.
    """

    name: str
    arguments: dict[str, Any]


class Writer(ABC):
    """Writes samples in one format, one after another.

    A subclass says in `tasks` what its format holds. What a format has no place for is counted in `lost`, in words
    that follow a number; nothing is left out in silence.
    """

    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lost: Counter[str] = Counter()
        self._stems: set[str] = set()

    @abstractmethod
    def add(self, split: str, number: int, sample: Sample) -> None:
        """Write one sample.

        Args:
            split: where it belongs.
            number: its place in the split.
            sample: complete and checked (`targets`).
        """

    @abstractmethod
    def close(self) -> None:
        """Write what is known only at the end."""

    @abstractmethod
    def reader(self) -> Reader | None:
        """The data module that reads the files; None where there is none."""

    def stem(self, sample: Sample, fallback: str) -> str:
        """A file name without suffix, used for no other sample: that of the sample's own file, where it has one."""
        path = sample.get("path")
        # neither blanks nor commas nor leading dots: lists of files and hidden files
        wanted = (re.sub(r"[^\w.-]+", "_", Path(path).stem).lstrip(".") if path else "") or fallback
        name, times = wanted, 1
        while name.lower() in self._stems:
            times += 1
            name = f"{wanted}-{times}"
        self._stems.add(name.lower())
        return name

    def image(self, sample: Sample, folder: Path, stem: str, suffixes: Sequence[str] = COPIED) -> str:
        """Write a sample's image, and return the name of its file.

        A file that the format can take is copied as it is. Otherwise the pixels are written as PNG or, where the
        format takes only ``.jpg``, as JPEG without chroma subsampling, which changes them a little.
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
            self.lost["images written as JPEG, whose pixels differ a little"] += 1
        name = stem + (".png" if lossless else ".jpg")
        done, data = cv2.imencode(Path(name).suffix, sample["image"][..., ::-1], options)
        if not done:
            raise ValueError(f"{folder / name}: OpenCV cannot write an image of {list(sample['image'].shape)}")
        (folder / name).write_bytes(data.tobytes())
        return name


def _original(sample: Sample, suffixes: Sequence[str]) -> Path | None:
    """The file a sample's image was read from, if the format takes it as it is."""
    path = Path(sample["path"]) if "path" in sample else None
    if path is None or path.suffix.lower() not in suffixes:
        return None
    with Image.open(path) as opened:  # the header alone
        # another size: turned as EXIF asks, or decoded smaller; another mode: 16 bits, CMYK, transparent
        same = opened.mode in ("RGB", "L") and opened.size == sample["image"].shape[1::-1]
    return path if same else None


def write_indexed(path: Path, values: np.ndarray, palette: bytes | None = None) -> None:
    """Write numbers as a PNG: gray, or with a palette to look at. Shape: ``[H, W]`` uint8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette)
    image.save(path)


def task_of(sample: Sample) -> str:
    """The task whose targets a raw sample has.

    Raises:
        ValueError: for one without targets.
    """
    if "boxes" in sample:
        return "instance_segmentation" if "masks" in sample else "detection"
    if "mask" in sample:
        return "semantic_segmentation"
    if "label" in sample:
        return "localization" if "box" in sample else "classification"
    raise ValueError(f"has no label, boxes or mask, but {', '.join(sorted(sample))}: there is nothing to export")


def with_boxes(sample: Sample) -> Sample:
    """A sample of localization as one of detection with one object; others as they are."""
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
