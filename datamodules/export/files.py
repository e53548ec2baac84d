"""Formats based on folders: class folders, masks beside images, and YOLO's text files."""

from collections.abc import Iterable

import numpy as np
import yaml

from ..loading.sources import Sample
from .outlines import outline
from .writer import Reader, Settings, Writer, with_boxes, write_indexed


class FolderWriter(Writer):
    """``SPLIT/CLASS/`` with images, for `ImageFolder` and many other readers.

    Readers number such classes in alphabetical order, and do not know classes without images.
    """

    tasks = ("classification",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        names = [name.replace("/", "_").replace("\\", "_").strip() for name in settings.class_names]
        self._names = [f"_{name}" if name.startswith(".") or not name else name for name in names]
        if len({name.lower() for name in self._names}) < len(names):
            raise ValueError(f"class_names: folder names must be unique, got {settings.class_names}")
        changed = sum(a != b for a, b in zip(self._names, settings.class_names, strict=True))
        self.lost["class names changed to valid folder names"] += changed
        self._labels: dict[str, set[int]] = {split: set() for split in settings.splits}

    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write the image into its class folder."""
        label = int(sample["label"])
        self._labels[split].add(label)
        self.image(sample, self.settings.root / split / self._names[label], self.stem(sample, f"{split}_{index:06d}"))

    def close(self) -> None:
        """Count classes that readers will not know, or number differently."""
        labels = self._labels.get("train", set.union(*self._labels.values()))
        self.lost["classes without a training image (unknown to readers)"] += len(self._names) - len(labels)
        order = sorted(range(len(self._names)), key=self._names.__getitem__)
        renumbered = sum(new != old for new, old in enumerate(order))
        self.lost["classes numbered differently by readers (alphabetical order)"] += renumbered

    def reader(self) -> Reader:
        """`ImageFolder`, without further arguments."""
        return Reader("ImageFolder", {})


class MaskWriter(Writer):
    """``SPLIT/images/`` and ``SPLIT/masks/`` for `MaskFolder`: PNG files whose values are the classes."""

    tasks = ("semantic_segmentation",)

    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write the image, and its mask as PNG."""
        stem = self.stem(sample, f"{split}_{index:06d}")
        self.image(sample, self.settings.root / split / "images", stem)
        write_indexed(self.settings.root / split / "masks" / f"{stem}.png", sample["mask"])

    def close(self) -> None:
        """Write the class names, one per line, in the order of their values."""
        text = "".join(f"{name}\n" for name in self.settings.class_names)
        (self.settings.root / "classes.txt").write_text(text, encoding="utf-8")

    def reader(self) -> Reader:
        """`MaskFolder` with the class names."""
        return Reader("MaskFolder", {"class_names": self.settings.class_names})


class YoloWriter(Writer):
    """``data.yaml``, ``images/SPLIT/``, ``labels/SPLIT/``: one line per object, relative to the image.

    A line is ``class cx cy w h``. Objects with masks have a polygon instead of a box, ``class x1 y1 x2 y2 …``, which is
    exact (`outline`). Crowds are omitted, since YOLO would treat them as ordinary objects. An image without objects has
    an empty file.
    """

    tasks = ("localization", "detection", "instance_segmentation")

    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write the image and its objects."""
        stem = self.stem(sample, f"{split}_{index:06d}")
        self.image(sample, self.settings.root / "images" / split, stem)
        objects = with_boxes(sample)
        self.lost["crowds (not part of YOLO; omitted)"] += int(objects["iscrowd"].sum())
        self.lost["`difficult` flags (not part of YOLO)"] += int(objects["difficult"].sum())
        exported = ~objects["iscrowd"]
        labels, shape = objects["labels"][exported].tolist(), sample["image"].shape
        if "masks" in objects:
            lines = yolo_polygons(labels, objects["masks"][exported], shape)
        else:
            lines = yolo_lines(labels, objects["boxes"][exported].tolist(), shape)
        folder = self.settings.root / "labels" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def close(self) -> None:
        """Write ``data.yaml``, with folders relative to it."""
        content: dict[str, object] = {split: f"images/{split}" for split in self.settings.splits}
        content["names"] = dict(enumerate(self.settings.class_names))
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self.settings.root / "data.yaml").write_text(f"# written by striate data export\n{text}", encoding="utf-8")

    def reader(self) -> Reader:
        """`YoloDetection` with the task."""
        masks = self.settings.task == "instance_segmentation"
        return Reader("YoloDetection", {"task": "instance_segmentation" if masks else "detection"})


def yolo_lines(labels: list[int], boxes: list[list[float]], shape: tuple[int, ...]) -> list[str]:
    """Format objects for YOLO: center and size relative to the image, with twelve decimals.

    Args:
        labels: N classes.
        boxes: N times x1, y1, x2, y2, in pixels.
        shape: Shape of the image, height and width first.

    >>> yolo_lines([3], [[10, 0, 30, 20]], (40, 80, 3))
    ['3 0.25 0.25 0.25 0.5']
    """
    height, width = shape[:2]
    lines = []
    for label, (x1, y1, x2, y2) in zip(labels, boxes, strict=True):
        coordinates = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(yolo_line(label, coordinates))
    return lines


def yolo_polygons(labels: list[int], masks: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    """Format objects with masks for YOLO: the corners of a polygon relative to the image.

    Args:
        labels: N classes.
        masks: Masks of the objects; none is empty.
        shape: Shape of the image, height and width first.

    Shape:
        - masks: ``[N, H, W]``.

    >>> yolo_polygons([3], np.array([[[0, 1], [0, 1]]]), (2, 2, 3))
    ['3 0.5 0 1 0 1 1 0.5 1']
    """
    size = np.array([shape[1], shape[0]])
    return [yolo_line(label, (outline(mask) / size).ravel()) for label, mask in zip(labels, masks, strict=True)]


def yolo_line(label: int, coordinates: Iterable[float]) -> str:
    """Format a class and its coordinates, with up to twelve decimals."""
    return " ".join([str(label), *(f"{value:.12f}".rstrip("0").rstrip(".") for value in coordinates)])
