"""Small data sets of objects in the publishers' own layouts."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from striate.tests.fixtures import write_image

SIZES = {10: (60, 40), 7: (33, 50), 99: (20, 30)}  # image id: width, height; the last has no objects
CATEGORIES = [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}, {"id": 90, "name": "brush"}]


def noise(width: int, height: int, seed: int = 0) -> np.ndarray:
    """An image ``[height, width, 3]``."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def runs_of(mask: np.ndarray) -> list[int]:
    """Uncompressed run lengths, down the columns, of zeros first."""
    flat = mask.T.ravel()
    ends = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff(np.concatenate([[0], ends, [flat.size]])).tolist()
    return [0, *runs] if flat[0] else runs


def coco_content() -> dict[str, Any]:
    """Three images, five objects: polygons (one of two parts), run lengths of both kinds, a crowd."""
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
    """The publisher's tree, with the same images to train and to validate; returns the annotation file to train."""
    content = coco_content() if content is None else content
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
        for number, (width, height) in SIZES.items():
            write_image(root / f"{split}2017" / f"{number:012d}.png", noise(width, height, number))
    return root / "annotations" / "instances_train2017.json"
