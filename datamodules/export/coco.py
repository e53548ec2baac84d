"""COCO's ``instances_*.json``: boxes and, as exact run lengths, masks."""

import json
from typing import Any

import numpy as np

from ..batches import IGNORE_INDEX
from ..loading.sources import Sample
from ..loading.targets import boxes_of_masks
from .writer import Reader, Settings, Writer, with_boxes


class CocoWriter(Writer):
    """``annotations/instances_SPLIT2017.json`` and ``SPLIT2017/``.

    Class k becomes the category k + 1. Masks are written as compressed run lengths, since polygons would lose pixels.
    A semantic mask becomes one object a class, for which class 0 must be the background and nothing be ignored.
    """

    tasks = ("localization", "detection", "instance_segmentation", "semantic_segmentation")

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._semantic = settings.task == "semantic_segmentation"
        if self._semantic and settings.class_names[:1] != ["background"]:
            raise ValueError(
                f"format coco: pixels of no object are background, and class 0 of this data set is "
                f"{settings.class_names[0]!r}; write it with --format masks or voc"
            )
        # one line of JSON each: an object an annotation would take ten times the room
        self._images: dict[str, list[str]] = {split: [] for split in settings.splits}
        self._objects: dict[str, list[str]] = {split: [] for split in settings.splits}
        self._ids: dict[str, set[int]] = {split: set() for split in settings.splits}

    def add(self, split: str, number: int, sample: Sample) -> None:
        """Write the image, and keep its annotations."""
        image_id = int(sample.get("image_id", number))
        if image_id in self._ids[split]:
            raise ValueError(f"has the image_id {image_id} of another sample of {split}, and COCO's are unique")
        self._ids[split].add(image_id)
        name = self.image(sample, self.settings.root / f"{split}2017", self.stem(sample, f"{image_id:012d}"))
        height, width = sample["image"].shape[:2]
        entry = {"id": image_id, "file_name": name, "width": width, "height": height}
        self._images[split].append(json.dumps(entry, ensure_ascii=False))
        objects = _regions(sample) if self._semantic else with_boxes(sample)
        self.lost["flags `difficult`, which COCO has not"] += int(objects["difficult"].sum())
        for place, label in enumerate(objects["labels"].tolist()):
            self._objects[split].append(self._annotation(split, image_id, objects, place, label))

    def _annotation(self, split: str, image_id: int, objects: Sample, place: int, label: int) -> str:
        x1, y1, x2, y2 = objects["boxes"][place].tolist()
        entry: dict[str, Any] = {
            "id": len(self._objects[split]) + 1,
            "image_id": image_id,
            "category_id": label + 1,
            # float32 and differences of float32 as they are: x + width is x2 again, to the bit
            "bbox": [_short(side) for side in (x1, y1, x2 - x1, y2 - y1)],
            "area": _short(float(objects["area"][place])),
            "iscrowd": int(objects["iscrowd"][place]),
        }
        if "masks" in objects:
            entry["segmentation"] = run_lengths(objects["masks"][place])
        return json.dumps(entry)

    def close(self) -> None:
        """Write the annotation files."""
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
        """`CocoDetection`, or `CocoLocalization`."""
        localization = self.settings.task == "localization"
        arguments = {} if localization else {"task": self.settings.task}
        for split in self.settings.splits:
            arguments[f"{split}_annotations"] = f"annotations/instances_{split}2017.json"
            arguments[f"{split}_images"] = f"{split}2017"
        return Reader("CocoLocalization" if localization else "CocoDetection", arguments)


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask ``[H, W]`` of 0 and 1 in COCO's compressed form."""
    from hotcoco import mask as rle  # takes a quarter of a second to import

    packed = rle.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": packed["counts"].decode("ascii")}


def _regions(sample: Sample) -> Sample:
    """One object for each class of a semantic mask but the background, whose class is 0: class k is label k - 1."""
    classes = [label for label in np.unique(sample["mask"]).tolist() if label]
    if IGNORE_INDEX in classes:
        raise ValueError("has pixels to be ignored (255), and COCO has no such; write it with --format masks or voc")
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


def _short(number: float) -> int | float:
    """A whole number without ``.0``."""
    return int(number) if number.is_integer() else number
