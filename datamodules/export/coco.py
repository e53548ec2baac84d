"""COCO's ``instances_*.json``: boxes, and masks as exact run lengths."""

import json
from typing import Any

import numpy as np

from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from ..loading.targets import boxes_of_masks
from .writer import Reader, Settings, Writer, with_boxes


class CocoWriter(Writer):
    """``annotations/instances_SPLIT2017.json`` and ``SPLIT2017/``.

    Class k becomes category k + 1. Masks are written as compressed run lengths, since polygons would lose pixels. A
    semantic mask becomes one object per class; class 0 must be the background, and no pixel may be ignored.
    """

    tasks = ("localization", "detection", "instance_segmentation", "semantic_segmentation")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._semantic = settings.task == "semantic_segmentation"
        if self._semantic and settings.class_names[:1] != ["background"]:
            raise ValueError(
                "format: coco needs 'background' as class 0, since pixels without an object are background, got "
                f"{settings.class_names[0]!r}; use masks or voc"
            )
        # one line of JSON each: a Python object per annotation would take ten times the memory
        self._images: dict[str, list[str]] = {split: [] for split in settings.splits}
        self._objects: dict[str, list[str]] = {split: [] for split in settings.splits}
        self._ids: dict[str, set[int]] = {split: set() for split in settings.splits}

    def add(self, split: str, index: int, sample: Sample) -> None:
        """Write the image, and store its annotations."""
        image_id = int(sample.get("image_id", index))
        if image_id in self._ids[split]:
            raise ValueError(f"image_id: must be unique in {split} for COCO, got {image_id} again")
        self._ids[split].add(image_id)
        name = self.image(sample, self.settings.root / f"{split}2017", self.stem(sample, f"{image_id:012d}"))
        height, width = sample["image"].shape[:2]
        entry = {"id": image_id, "file_name": name, "width": width, "height": height}
        self._images[split].append(json.dumps(entry, ensure_ascii=False))
        objects = _regions(sample) if self._semantic else with_boxes(sample)
        self.lost["`difficult` flags (not part of COCO)"] += int(objects["difficult"].sum())
        for row, label in enumerate(objects["labels"].tolist()):
            self._objects[split].append(self._annotation(split, image_id, objects, row, label))

    def _annotation(self, split: str, image_id: int, objects: Sample, row: int, label: int) -> str:
        x1, y1, x2, y2 = objects["boxes"][row].tolist()
        entry: dict[str, Any] = {
            "id": len(self._objects[split]) + 1,
            "image_id": image_id,
            "category_id": label + 1,
            # exact differences of float32: x + width is x2 again, to the bit
            "bbox": [_without_zero(side) for side in (x1, y1, x2 - x1, y2 - y1)],
            "area": _without_zero(float(objects["area"][row])),
            "iscrowd": int(objects["iscrowd"][row]),
        }
        if "masks" in objects:
            entry["segmentation"] = run_lengths(objects["masks"][row])
        return json.dumps(entry)

    def close(self) -> None:
        """Write the annotation file of each split."""
        names = self.settings.class_names[1:] if self._semantic else self.settings.class_names
        categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        folder = self.settings.root / "annotations"
        folder.mkdir(parents=True, exist_ok=True)
        for split in self.settings.splits:
            with (folder / f"instances_{split}2017.json").open("w", encoding="utf-8") as file:
                file.write('{"info": {"description": "written by striate data export"},\n"categories": ')
                file.write(json.dumps(categories, ensure_ascii=False))
                for key, lines in (("images", self._images[split]), ("annotations", self._objects[split])):
                    file.write(f',\n"{key}": [\n')
                    file.writelines(f"{line}{',' * (last < len(lines))}\n" for last, line in enumerate(lines, start=1))
                    file.write("]")
                file.write("}\n")

    def reader(self) -> Reader:
        """`CocoDetection`, or `CocoLocalization` for one object per image."""
        localization = self.settings.task == "localization"
        arguments = {} if localization else {"task": self.settings.task}
        for split in self.settings.splits:
            arguments[f"{split}_annotations"] = f"annotations/instances_{split}2017.json"
            arguments[f"{split}_images"] = f"{split}2017"
        return Reader("CocoLocalization" if localization else "CocoDetection", arguments)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """Encode a mask ``[H, W]`` of 0 and 1 as COCO's compressed run lengths."""
    from hotcoco import mask as rle  # takes a quarter of a second to import

    packed = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": packed["counts"].decode("ascii")}


def _regions(sample: Sample) -> Sample:
    """Return one object per class of a semantic mask, without the background, class 0: class k has label k - 1."""
    classes = [label for label in np.unique(sample["mask"]).tolist() if label]
    if IGNORE_INDEX in classes:
        raise ValueError("mask: must not have ignored pixels (255) for COCO; use masks or voc")
    masks = np.stack([sample["mask"] == label for label in classes]) if classes else np.zeros((0, 1, 1), np.bool_)
    masks = masks.astype(np.uint8)
    return {
        "boxes": boxes_of_masks(masks),
        "labels": np.array(classes, np.int64) - 1,
        "masks": masks,
        "area": masks.sum(axis=(1, 2), dtype=np.float32),
        "iscrowd": np.zeros(len(classes), np.bool_),
        "difficult": np.zeros(len(classes), np.bool_),
    }


def _without_zero(number: float) -> int | float:
    """Return a whole number as int, so that JSON has no ``.0``."""
    return int(number) if number.is_integer() else number
