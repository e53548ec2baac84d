"""Small COCO and VOC datasets in the publishers' layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from striate.tests.helpers.fixtures import noise, write_image

SIZES = {10: (60, 40), 7: (33, 50), 99: (20, 30)}  # image id: width, height; the last has no objects
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "brush"}]


def one_box_samples(source):
    """Return the samples of a source as file name, label and box."""
    return [(Path(s["path"]).stem, s["label"], s["box"].tolist()) for s in source]


def runs_of(mask: np.ndarray) -> list[int]:
    """Return uncompressed run lengths, column by column, starting with zeros."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def coco_content() -> dict[str, Any]:
    """Return three images and five objects: polygons (one in two parts), run lengths of both kinds, a crowd."""
    from pycocotools import mask as oracle

    crowd = np.zeros((40, 60), np.uint8)
    crowd[30:38, 5:50] = 1
    blob = (np.hypot(*np.mgrid[-25:25, -16:17]) < 9.5).astype(np.uint8)  # [50, 33]
    packed = oracle.encode(np.asfortranarray(blob))
    packed["counts"] = packed["counts"].decode()
    objects = [
        (1, 10, 3, [[10.5, 5.25, 30.75, 6, 29, 20.01, 11, 19]], [10.5, 5.25, 20.25, 14.76], 285.5),
        (2, 7, 18, packed, [7, 16, 19, 19], 293.0),
        (3, 10, 18, [[40, 20, 59.5, 20, 59.5, 39, 40, 39], [2, 2, 8, 2, 5, 9]], [2, 2, 57.5, 37], 391.5),
        (4, 10, 3, {"size": [40, 60], "counts": runs_of(crowd)}, [5, 30, 45, 8], 360.0),
        (5, 7, 90, [[1, 1, 9.33, 1.5, 5, 12.125]], [1, 1, 8.33, 11.125], 46.0),
    ]
    keys = ("id", "image_id", "category_id", "segmentation", "bbox", "area")
    annotations = [dict(zip(keys, o, strict=True)) | {"iscrowd": int(o[0] == 4)} for o in objects]
    images = [{"id": i, "file_name": f"{i:012d}.png", "width": w, "height": h} for i, (w, h) in SIZES.items()]
    return {"info": {}, "images": images, "annotations": annotations, "categories": list(CATEGORIES)}


def write_coco(root: Path, content: dict[str, Any] | None = None) -> Path:
    """Write the publisher's layout, with the same images in train and val; return the training annotations."""
    content = coco_content() if content is None else content
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        for number, (width, height) in SIZES.items():
            write_image(root / f"{split}2017" / f"{number:012d}.png", noise(width, height, number))
    return root / "annotations" / "instances_train2017.json"


# -- VOC ---------------------------------------------------------------------------------------------

VOC_OBJECTS = {
    "000005": [("chair", (263, 211, 324, 339), 0), ("chair", (5, 244, 67, 374), 1), ("person", (1, 1, 500, 375), 0)],
    "000007": [("car", (141, 50, 500, 330), 0)],
    "2008_000008": [("horse", (53, 87, 471, 420), 0), ("person", (158.5, 44, 289.25, 167), 0)],
}


def voc_xml(name: str, size: tuple[int, int], objects: list[tuple[str, Any, int]]) -> str:
    """Return an annotation file as the publisher writes it."""
    lines = ["<annotation>", f"\t<filename>{name}.jpg</filename>"]
    lines += ["\t<size>", f"\t\t<width>{size[0]}</width>", f"\t\t<height>{size[1]}</height>", "\t\t<depth>3</depth>"]
    lines += ["\t</size>", "\t<segmented>0</segmented>"]
    for label, box, difficult in objects:
        lines += ["\t<object>", f"\t\t<name>{label}</name>", "\t\t<pose>Rear</pose>", "\t\t<truncated>0</truncated>"]
        lines += [f"\t\t<difficult>{difficult}</difficult>", "\t\t<bndbox>"]
        lines += [f"\t\t\t<{k}>{v}</{k}>" for k, v in zip(("xmin", "ymin", "xmax", "ymax"), box, strict=True)]
        lines += ["\t\t</bndbox>", "\t</object>"]
    return "\n".join([*lines, "</annotation>", ""])


def write_voc(root: Path, objects: dict[str, Any] | None = None) -> Path:
    """Write ``VOCdevkit`` with two images of 2007 and one of 2012, each in every image set of its year."""
    devkit = root / "VOCdevkit"
    for name, found in (VOC_OBJECTS if objects is None else objects).items():
        folder = devkit / ("VOC2012" if "_" in name else "VOC2007")
        for part in ("Annotations", "ImageSets/Main", "JPEGImages"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        size = (500, 442) if "_" in name else (500, 375)
        (folder / "Annotations" / f"{name}.xml").write_text(voc_xml(name, size, found))
        write_image(folder / "JPEGImages" / f"{name}.jpg", noise(*size))
        for image_set in ("train", "val", "trainval", "test"):
            with (folder / "ImageSets" / "Main" / f"{image_set}.txt").open("a") as file:
                file.write(f"{name}\n")
    return devkit
