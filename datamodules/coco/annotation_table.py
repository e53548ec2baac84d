"""COCO's JSON as an `AnnotationTable`, read and written."""

import json
import os
from pathlib import Path
from typing import Any

from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, rounded
from ..annotations.objects import confined
from .json_columns import entry_name, entry_problem, read_json, with_integers


def read_coco_table(file: Path, folder: Path, task: str) -> tuple[dict[str, Any], AnnotationTable]:
    """Read an annotation file: its whole content, and its images and annotations as a table."""
    content = read_json(file)
    for key in ("images", "annotations", "categories"):
        content[key] = [with_integers(key, item) for item in content[key]]
    images = _read_images(file, folder, content["images"])
    by_id: dict[int, ImageEntry] = {}
    for image in images:
        number = image.item.get("id") if isinstance(image.item, dict) else None
        if isinstance(number, int) and (number not in by_id or by_id[number].fault is not None):
            by_id[number] = image
    categories = {item["id"] for item in content["categories"] if entry_problem("categories", item) is None}
    objects = []
    for position, item in enumerate(content["annotations"]):
        if defect := entry_problem("annotations", item):
            name, fault = entry_name("annotations", item, position), Reason("unusable-annotation", defect)
            objects.append(ObjectEntry(None, name, fault=fault, file=file))
            continue
        x, y, width, height = item["bbox"]
        entry = ObjectEntry(
            by_id.get(item["image_id"]),
            f"annotation {item.get('id', position)}",
            f"bbox {item['bbox']}",
            item["category_id"],
            (x, y, x + width, y + height),
            item,
            segmentation=item.get("segmentation"),
            file=file,
        )
        if entry.image is None:
            entry.fault = Reason("unknown-image", f"image_id {item['image_id']}")
        elif item["category_id"] not in categories:
            entry.fault = Reason("label-outside", f"category_id {item['category_id']}")
        objects.append(entry)
    return content, AnnotationTable(images, objects, task != "semantic_segmentation", task != "detection")


def _read_images(file: Path, folder: Path, items: list[Any]) -> list[ImageEntry]:
    images, ids = [], set()
    for position, item in enumerate(items):
        image = ImageEntry(file, entry_name("images", item, position), "", item=item)
        defect = entry_problem("images", item)
        if defect is None:
            image.path = os.path.abspath(folder / item["file_name"])  # noqa: PTH100
            image.size = item["width"], item["height"]
            if item["id"] in ids:
                defect = f"the id {item['id']} occurs more than once"
            elif not confined(item["file_name"]):
                defect = "its file_name leads out of its folder"
            elif min(image.size) < 1:
                defect = f"its size is {item['width']}x{item['height']}"
        if defect is not None:
            image.path, image.fault = "", Reason("bad-target", defect)
        else:
            ids.add(item["id"])
        images.append(image)
    return images


def write_coco_table(content: dict[str, Any], table: AnnotationTable, target: Path, folder: Path) -> None:
    """Write an annotation file with the images and annotations of `table`, and link its images below `folder`."""
    annotations = []
    for entry in table.objects:
        item = entry.item
        if entry.changed and entry.box is not None:
            x1, y1, x2, y2 = entry.box
            item = item | {"bbox": [rounded(side) for side in (x1, y1, x2 - x1, y2 - y1)]}
        annotations.append(item)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = content | {"images": [image.item for image in table.images], "annotations": annotations}
    target.write_text(json.dumps(content), encoding="utf-8")
    for image in table.images:
        link(image.path, folder / image.item["file_name"])
