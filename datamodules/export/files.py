"""The formats that are folders: class folders, masks beside images, and YOLO's text files."""

from collections.abc import Iterable

import numpy as np
import yaml

from ..loading.sources import Sample
from .outlines import outline
from .writer import Reader, Settings, Writer, with_boxes, write_indexed


class FolderWriter(Writer):
    """``SPLIT/CLASS/`` with images, as `ImageFolder` and many others read them.

    Readers number such classes by the alphabet, and know no class without images.
    """

    tasks = ("classification",)

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        names = [name.replace("/", "_").replace("\\", "_").strip() for name in settings.class_names]
        self._names = [f"_{name}" if name.startswith(".") or not name else name for name in names]
        if len({name.lower() for name in self._names}) < len(names):
            raise ValueError(f"format folder: two of the class names {settings.class_names} make the same folder")
        changed = sum(a != b for a, b in zip(self._names, settings.class_names, strict=True))
        self.lost["class names that are no folder's name, and were changed"] += changed
        self._seen: dict[str, set[int]] = {split: set() for split in settings.splits}

    def add(self, split: str, number: int, sample: Sample) -> None:
        """Write the image."""
        label = int(sample["label"])
        self._seen[split].add(label)
        self.image(sample, self.settings.root / split / self._names[label], self.stem(sample, f"{split}_{number:06d}"))

    def close(self) -> None:
        """See which classes a reader will find."""
        found = set.union(*self._seen.values())
        absent = len(self._names) - len(self._seen.get("train", found))
        self.lost["classes without a training image, which readers will not know"] += absent
        order = sorted(range(len(self._names)), key=self._names.__getitem__)
        moved = sum(place != label for place, label in enumerate(order))
        self.lost["classes numbered otherwise by readers, which go by the alphabet"] += moved

    def reader(self) -> Reader:
        """`ImageFolder`."""
        return Reader("ImageFolder", {})


class MaskWriter(Writer):
    """``SPLIT/images/`` and ``SPLIT/masks/``, as `MaskFolder` reads them: PNGs whose values are the classes."""

    tasks = ("semantic_segmentation",)

    def add(self, split: str, number: int, sample: Sample) -> None:
        """Write the image and its mask."""
        stem = self.stem(sample, f"{split}_{number:06d}")
        self.image(sample, self.settings.root / split / "images", stem)
        write_indexed(self.settings.root / split / "masks" / f"{stem}.png", sample["mask"])

    def close(self) -> None:
        """Write the class names, one a line, in the order of their values."""
        text = "".join(f"{name}\n" for name in self.settings.class_names)
        (self.settings.root / "classes.txt").write_text(text, encoding="utf-8")

    def reader(self) -> Reader:
        """`MaskFolder`."""
        return Reader("MaskFolder", {"class_names": self.settings.class_names})


class YoloWriter(Writer):
    """``data.yaml``, ``images/SPLIT/``, ``labels/SPLIT/``: a line an object, ``class cx cy w h`` as parts of the image.

    Objects with masks have a polygon instead of their box, ``class x1 y1 x2 y2 …``, which is exact (`outline`). Crowds
    are left out: here they would be objects like others. An image without objects has an empty file.
    """

    tasks = ("localization", "detection", "instance_segmentation")

    def add(self, split: str, number: int, sample: Sample) -> None:
        """Write the image and its objects."""
        stem = self.stem(sample, f"{split}_{number:06d}")
        self.image(sample, self.settings.root / "images" / split, stem)
        objects = with_boxes(sample)
        self.lost["crowds, which YOLO has not: left out"] += int(objects["iscrowd"].sum())
        self.lost["flags `difficult`, which YOLO has not"] += int(objects["difficult"].sum())
        kept = ~objects["iscrowd"]
        labels, shape = objects["labels"][kept].tolist(), sample["image"].shape
        if "masks" in objects:
            lines = yolo_polygons(labels, objects["masks"][kept], shape)
        else:
            lines = yolo_lines(labels, objects["boxes"][kept].tolist(), shape)
        folder = self.settings.root / "labels" / split
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{stem}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def close(self) -> None:
        """Write ``data.yaml``, whose folders are relative to it."""
        content: dict[str, object] = {split: f"images/{split}" for split in self.settings.splits}
        content["names"] = dict(enumerate(self.settings.class_names))
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self.settings.root / "data.yaml").write_text(f"# written by striate data export\n{text}", encoding="utf-8")

    def reader(self) -> Reader:
        """`YoloDetection`."""
        masks = self.settings.task == "instance_segmentation"
        return Reader("YoloDetection", {"task": "instance_segmentation" if masks else "detection"})


def yolo_lines(labels: list[int], boxes: list[list[float]], shape: tuple[int, ...]) -> list[str]:
    """Objects as YOLO writes them: centre and size divided by the image's, with twelve decimals.

    Args:
        labels: N classes.
        boxes: N times x1, y1, x2, y2, pixels.
        shape: height and width of the image first.

    >>> yolo_lines([3], [[10, 0, 30, 20]], (40, 80, 3))
    ['3 0.25 0.25 0.25 0.5']
    """
    height, width = shape[:2]
    lines = []
    for label, (x1, y1, x2, y2) in zip(labels, boxes, strict=True):
        parts = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height)
        lines.append(yolo_line(label, parts))
    return lines


def yolo_polygons(labels: list[int], masks: np.ndarray, shape: tuple[int, ...]) -> list[str]:
    """Objects with masks as YOLO writes them: the corners of a polygon divided by the image's size.

    Args:
        labels: N classes.
        masks: none of them empty.
        shape: height and width of the image first.

    Shape:
        - masks: ``[N, H, W]``.

    >>> yolo_polygons([3], np.array([[[0, 1], [0, 1]]]), (2, 2, 3))
    ['3 0.5 0 1 0 1 1 0.5 1']
    """
    size = np.array([shape[1], shape[0]])
    return [yolo_line(label, (outline(mask) / size).ravel()) for label, mask in zip(labels, masks, strict=True)]


def yolo_line(label: int, parts: Iterable[float]) -> str:
    """Format a class and the numbers that follow it, with twelve decimals."""
    return " ".join([str(label), *(f"{part:.12f}".rstrip("0").rstrip(".") for part in parts)])
