"""Pascal VOC's devkit: boxes in XML, masks as palette PNGs."""

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from .writer import JPEG_ONLY, Reader, Settings, Writer, with_boxes, write_indexed

_YEAR = "2012"


class VocWriter(Writer):
    """``VOCdevkit/VOC2012/{JPEGImages,Annotations,ImageSets,SegmentationClass,SegmentationObject}``.

    VOC's images are ``.jpg``; others are re-encoded as JPEG. Its boxes count pixels from 1 and include the last one;
    fractions of pixels are preserved. Its masks have one object per pixel; where objects overlap, the smaller one is on
    top.
    """

    tasks = ("localization", "detection", "semantic_segmentation", "instance_segmentation")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._folder = settings.root / "VOCdevkit" / f"VOC{_YEAR}"
        self._sets: dict[str, list[str]] = {split: [] for split in settings.splits}
        self._palette = palette()
        if len(settings.class_names) >= IGNORE_INDEX:
            raise ValueError(
                f"class_names: must be at most {IGNORE_INDEX - 1} for VOC's palette, got {len(settings.class_names)}"
            )

    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write the image, its annotation and its masks."""
        total = sum(map(len, self._sets.values()))  # over all splits, which share a folder
        stem = self.stem(sample, f"{_YEAR}_{total:06d}")
        self._sets[split].append(stem)
        name = self.image(sample, self._folder / "JPEGImages", stem, JPEG_ONLY)
        if self.settings.task == "semantic_segmentation":
            write_indexed(self._folder / "SegmentationClass" / f"{stem}.png", sample["mask"], self._palette)
            return
        objects = with_boxes(sample)
        segmented = self.settings.task == "instance_segmentation"
        self.lost["crowds (not part of VOC; written as `difficult` objects)"] += int(objects["iscrowd"].sum())
        self._annotation(name, sample["image"].shape, objects, segmented)
        if segmented:
            self._masks(stem, sample["image"].shape[:2], objects)

    def _annotation(self, name: str, shape: Sequence[int], objects: Sample, segmented: bool) -> None:
        root = ElementTree.Element("annotation")
        _tags(root, folder=f"VOC{_YEAR}", filename=name)
        _tags(ElementTree.SubElement(root, "source"), database="striate data export")
        _tags(ElementTree.SubElement(root, "size"), width=shape[1], height=shape[0], depth=3)
        _tags(root, segmented=int(segmented))
        difficult_flags = objects["difficult"] | objects["iscrowd"]
        for box, label, difficult in zip(objects["boxes"].tolist(), objects["labels"], difficult_flags, strict=True):
            item = ElementTree.SubElement(root, "object")
            _tags(
                item, name=self.settings.class_names[label], pose="Unspecified", truncated=0, difficult=int(difficult)
            )
            x1, y1, x2, y2 = (f"{side:.17g}" for side in (box[0] + 1, box[1] + 1, box[2], box[3]))
            _tags(ElementTree.SubElement(item, "bndbox"), xmin=x1, ymin=y1, xmax=x2, ymax=y2)
        ElementTree.indent(root, "\t")
        path = self._folder / "Annotations" / f"{Path(name).stem}.xml"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(ElementTree.tostring(root, "utf-8") + b"\n")

    def _masks(self, stem: str, size: tuple[int, int], objects: Sample) -> None:
        masks = objects["masks"] != 0
        if len(masks) >= IGNORE_INDEX:
            raise ValueError(f"masks: must be at most {IGNORE_INDEX - 1} for VOC, got {len(masks)}; use coco")
        numbers, classes = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        # smaller objects over larger ones, and crowds below all
        for index in np.lexsort((-masks.sum(axis=(1, 2)), ~objects["iscrowd"])):
            numbers[masks[index]], classes[masks[index]] = index + 1, objects["labels"][index] + 1
        visible = np.bincount(numbers.ravel(), minlength=len(masks) + 1)[1:]
        covered = int((visible < masks.sum(axis=(1, 2))).sum())
        self.lost["masks partly or fully covered by others (VOC has one object per pixel)"] += covered
        write_indexed(self._folder / "SegmentationObject" / f"{stem}.png", numbers, self._palette)
        write_indexed(self._folder / "SegmentationClass" / f"{stem}.png", classes, self._palette)

    def close(self) -> None:
        """Write the image sets of all splits."""
        segmented = "segmentation" in self.settings.task
        sets = dict(self._sets)
        if {"train", "val"} <= sets.keys():
            sets["trainval"] = sets["train"] + sets["val"]
        for part in ("Main", "Segmentation") if segmented else ("Main",):
            folder = self._folder / "ImageSets" / part
            folder.mkdir(parents=True, exist_ok=True)
            for name, stems in sets.items():
                (folder / f"{name}.txt").write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")

    def reader(self) -> Reader:
        """`VOCDetection` or `VOCLocalization` for boxes, `VOCSegmentation` and `VOCInstances` for masks."""
        names = {"class_names": self.settings.class_names}
        if "segmentation" in self.settings.task:
            name = "VOCSegmentation" if self.settings.task == "semantic_segmentation" else "VOCInstances"
            return Reader(name, {"year": _YEAR, **{split: split for split in self.settings.splits}, **names})
        sets = {split: [f"{_YEAR}_{split}"] for split in self.settings.splits}
        name = "VOCLocalization" if self.settings.task == "localization" else "VOCDetection"
        return Reader(name, {"year": _YEAR, **sets, **names})


def _tags(parent: ElementTree.Element, **texts: str | int) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = str(text)


def palette() -> bytes:
    """Return VOC's 256 colors, R, G, B each: the bits of an index go to red, green and blue in turn, high bits first.

    >>> palette()[:12].hex(" ", 3)
    '000000 800000 008000 808000'
    """
    indices = np.arange(256)
    colors = np.zeros((256, 3), np.int64)
    for bit in range(8):
        channel, target = bit % 3, 7 - bit // 3
        colors[:, channel] |= (indices >> bit & 1) << target
    return colors.astype(np.uint8).tobytes()
