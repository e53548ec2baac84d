"""Guesses the arguments of a data module from a path on the command line: ``--format coco PATH``."""

import json
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from ...datamodules.annotations.dataset_layout import split_folders
from ...datamodules.annotations.mask_files import read_mask
from ...datamodules.batches import IGNORE_INDEX
from ...datamodules.coco.annotation_file import is_coco
from ...datamodules.doctor.report import SPLITS
from ...datamodules.images.listing import list_images
from ...datamodules.voc.detection import VOC_CLASSES, VOCDetection
from ...datamodules.voc.layout import VocLayout
from ...datamodules.voc.xml import object_names
from ...datamodules.yolo.detection import YoloDetection

MAX_FILES = 500
"""Annotation files that are read to guess whether the classes are VOC's."""

Guess = Callable[[Path, Collection[str]], dict[str, Any]]
"""Guesses arguments from a path, and ``splits`` if not all are to be read.

It receives the names of the given arguments, and guesses none that contradicts them."""


def guess_coco(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess files and folders (see `guess_coco_files`), and the task: with masks if most objects have one.

    In a data set of boxes with a few masks, all other objects would be reported, and dropped by a repair.
    """
    arguments = guess_coco_files(path, given)
    if "task" not in given and "train_annotations" in arguments:
        masks = _has_masks(path, arguments["train_annotations"])
        arguments["task"] = "instance_segmentation" if masks else "detection"
    return arguments


def guess_coco_files(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess annotation files and image folders below a folder by their names, or those of a single file."""
    val_is_given = bool({"val_annotations", "val_images"} & set(given))
    if path.is_file():
        pair = {"annotations": str(path.resolve()), "images": str(_images_of(path))}
        both = {f"{split}_{key}": value for split in ("train", "val") for key, value in pair.items()}
        return {"root": str(path.parent), **both} | ({} if val_is_given else {"splits": ["train"]})
    arguments: dict[str, Any] = {}
    others = ("captions", "person_keypoints", "panoptic", "image_info")
    files = [
        *sorted(path.glob("annotations/*.json")),
        *sorted(path.glob("*/*.coco.json")),
        *sorted(path.glob("*.json")),
    ]
    names = {file: str(file.relative_to(path)) for file in files if not file.name.startswith(others)}
    for split in SPLITS:
        file = next((file for file, name in names.items() if split in name.lower()), None)
        if file is not None:
            arguments[f"{split}_annotations"] = names[file]
            arguments[f"{split}_images"] = os.path.relpath(_images_of(file), path)
    if not arguments and (single := _only_annotations(names)) is not None:
        arguments = {"train_annotations": names[single], "train_images": os.path.relpath(_images_of(single), path)}
    if "val_annotations" not in arguments and "train_annotations" in arguments and not val_is_given:
        # a single file is both
        arguments |= {f"val_{key}": arguments[f"train_{key}"] for key in ("annotations", "images")}
        arguments["splits"] = ["train"]
    return arguments


def _only_annotations(files: Collection[Path]) -> Path | None:
    """The only file that is COCO's by its content, such as CVAT's ``instances_default.json``; None: none or several."""
    found = list(filter(is_coco, files))
    return found[0] if len(found) == 1 else None


def _has_masks(root: Path, name: str) -> bool:
    """Whether most objects of an annotation file have a segmentation."""
    try:
        items = json.loads((root if root.is_dir() else root.parent).joinpath(name).read_bytes())["annotations"]
        return 2 * sum(bool(item.get("segmentation")) for item in items) > len(items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # the reader reports what is wrong with it


def _images_of(file: Path) -> Path:
    """The folder that contains the first image of an annotation file."""
    try:
        content = json.loads(file.read_bytes())
        name = str(content["images"][0]["file_name"]).replace("\\", "/")
    except (ValueError, KeyError, IndexError, TypeError):
        name = ""
    stem = file.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    split = next((word for word in SPLITS if word in stem), stem)
    base = file.parent.parent
    folders = [base / stem, base / "images" / stem, base / split, base / "images" / split, base / split / "images"]
    folders += [file.parent, file.parent / "images", base / "images", base]
    return next((folder for folder in folders if name and (folder / name).is_file()), base / stem).resolve()


def guess_voc(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the classes: ``auto`` if the annotations have a name that is not one of VOC's; and the splits.

    The data module itself finds folders and years.
    """
    layout = VocLayout(path, None, {}, VOCDetection)
    arguments: dict[str, Any] = {}
    try:
        if "class_names" not in given and layout.year is not None:
            files = [entry.annotation for part in layout.image_sets("train") for entry in layout.entries(part)]
            names = {name for file in files[:MAX_FILES] for name in object_names(file)}
            arguments = {"class_names": "auto"} if names - {*VOC_CLASSES} else {}
        if not {"val", "val_fraction"} & set(given) and not layout.has("val"):
            arguments["splits"] = ["train", *({"test"} if layout.has("test") else ())]
    except (OSError, ValueError):
        pass  # the reader reports what is wrong
    return arguments


def guess_yolo(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the splits: without images for validation, as tools often write it, nothing is held out."""
    try:
        existing = YoloDetection(str(path), merge_similar_classes=True).content.splits
    except (OSError, ValueError):
        return {}  # the reader reports what is wrong
    if {"val", "val_fraction"} & {*existing, *given}:
        return {}
    return {"splits": ["train", *({"test"} & {*existing})]}


def guess_masks(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess as many classes as the first fifty masks of each split have values; 255 is ignored."""
    folders = [path / split / "masks" for split in _split_folders(path).values()]
    masks = [mask for folder in folders if folder.is_dir() for mask in list_images(folder)[:50]]
    highest, has_255 = 0, False
    for mask in masks:
        try:
            values = read_mask(mask)
        except ValueError:
            continue
        highest = max(highest, int(values[values != IGNORE_INDEX].max(initial=0)))
        has_255 |= bool((values == IGNORE_INDEX).any())
    if highest == 0 and has_255:  # masks of 0 and 255 have a second class; what 255 means, the reader asks
        highest = 1
    class_names = [f"class {number}" for number in range(min(highest + 1, IGNORE_INDEX - 1))]
    return {"class_names": class_names} | guess_folder(path, given)


def _split_folders(path: Path) -> dict[str, str]:
    """The folder of each split; none if they are ambiguous, which the reader reports."""
    try:
        return split_folders(path)
    except ValueError:
        return {}


def guess_folder(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the splits: without ``val`` nothing is held out, since all images are to be checked."""
    existing = ["train", *(split for split in ("val", "test") if split in _split_folders(path))]
    return {"splits": existing} if "val" not in existing and "val_fraction" not in given else {}


def guess_tables(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the tables of val and test beside that of train; without one for val nothing is held out."""
    arguments: dict[str, Any] = {}
    for split in ("val", "test"):
        beside = path.with_name(path.name.replace("train", split))
        if beside != path and beside.is_file() and split not in given:
            arguments[split] = str(beside)
    if "val_fraction" in given:
        arguments.pop("val", None)
    elif "val" not in {*arguments, *given}:
        arguments["splits"] = ["train", *({"test"} & {*arguments, *given})]
    return arguments


GUESSES: dict[str, Guess] = {
    "coco": guess_coco,
    "labelme": guess_folder,
    "label_studio": guess_folder,
    "coco_localization": guess_coco_files,
    "voc": guess_voc,
    "voc_localization": guess_voc,
    "yolo": guess_yolo,
    "masks": guess_masks,
    "folder": guess_folder,
    "manifest": guess_tables,
    "detection_manifest": guess_tables,
    "localization_manifest": guess_tables,
}
"""Guess for each format of the doctor that has one."""
