"""COCO's JSON as an `AnnotationTable`, read and written."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, rounded
from ..annotations.json_files import read_json
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.objects import confined
from ..images.file_names import FileNames
from .checks import impossible_areas
from .json_columns import FORMAT, entry_name, entry_problem, is_path, with_integers
from .options import BoxFormat


def read_coco_table(
    file: Path, folder: Path, task: str, box_format: BoxFormat = "auto"
) -> tuple[dict[str, Any], AnnotationTable]:
    """Read an annotation file: its whole content, and its images and annotations as a table."""
    content = read_json(file, FORMAT)
    for key in ("images", "annotations", "categories"):
        content[key] = [with_integers(key, item) for item in content[key]]
    images = _read_images(file, folder, content["images"])
    by_id: dict[int, ImageEntry] = {}
    by_file: dict[tuple[Any, ...], ImageEntry] = {}  # entries of one file are merged: the first has all objects
    for image in images:
        number = image.item.get("id") if isinstance(image.item, dict) else None
        if isinstance(number, int) and (number not in by_id or by_id[number].fault is not None):
            same_file = image if image.fault else by_file.setdefault((image.path, *image.size), image)
            by_id[number] = same_file
    categories = {item["id"] for item in content["categories"] if entry_problem("categories", item) is None}
    objects = []
    for position, item in enumerate(content["annotations"]):
        if defect := entry_problem("annotations", item):
            name, fault = entry_name("annotations", item, position), Reason("unusable-annotation", defect)
            objects.append(ObjectEntry(None, name, fault=fault, file=file))
            continue
        x, y, *size = item["bbox"]
        x2, y2 = size if box_format == "xyxy" else (x + size[0], y + size[1])
        entry = ObjectEntry(
            by_id.get(item["image_id"]),
            f"annotation {item.get('id', position)}",
            f"bbox {item['bbox']}",
            item["category_id"],
            (x, y, x2, y2),
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
    images, ids, files = [], set(), FileNames(folder)
    for position, item in enumerate(items):
        image = ImageEntry(file, entry_name("images", item, position), "", item=item)
        defect = entry_problem("images", item)
        if defect is None and not is_path(item["file_name"]):
            defect = "its file_name is not the path of a file"
        if defect is None:
            image.path = os.path.abspath(folder / (files.resolve(item["file_name"]) or item["file_name"]))  # noqa: PTH100
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


def correct_areas(table: AnnotationTable) -> list[ObjectEntry]:
    """Compute impossible areas from masks or boxes, in the entries of a table; return the entries that had one."""
    entries = [entry for entry in table.objects if entry.box is not None and entry.image is not None]
    boxes = np.array([entry.box for entry in entries], np.float64).reshape(-1, 4)
    sizes = np.array([entry.image.size for entry in entries if entry.image is not None], np.float64).reshape(-1, 2)
    areas = np.array([np.nan if (area := entry.item.get("area")) is None else area for entry in entries], np.float64)
    box_areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    corrected = [entries[index] for index in np.flatnonzero(impossible_areas(areas, box_areas, sizes))]
    for entry in corrected:
        assert entry.image is not None and entry.box is not None
        width, height = (int(side) for side in entry.image.size)
        builder = ObjectMasksBuilder()
        has_mask = builder.add(entry.segmentation, height, width) is None
        pixels = int(builder.build().decode([0], height, width).sum()) if has_mask else 0
        x1, y1, x2, y2 = entry.box
        entry.item = entry.item | {"area": pixels or rounded((x2 - x1) * (y2 - y1))}
    return corrected


def write_coco_table(
    content: dict[str, Any], table: AnnotationTable, target: Path, folder: Path, box_format: BoxFormat = "auto"
) -> None:
    """Write an annotation file with the images and annotations of `table`, and link its images below `folder`."""
    annotations = []
    for entry in table.objects:
        assert entry.image is not None
        item = entry.item | {"image_id": entry.image.item["id"]}
        if entry.changed and entry.box is not None:
            x1, y1, x2, y2 = entry.box
            size = (x2, y2) if box_format == "xyxy" else (x2 - x1, y2 - y1)
            item |= {"bbox": [rounded(side) for side in (x1, y1, *size)]}
        annotations.append(item)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = content | {"images": [image.item for image in table.images], "annotations": annotations}
    target.write_text(json.dumps(content), encoding="utf-8")
    for image in table.images:
        link(image.path, folder / image.item["file_name"])
