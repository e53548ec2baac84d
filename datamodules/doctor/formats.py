"""The formats that the doctor knows by name: what it guesses of a path, where it looks for orphans, what it can mend.

Any other `VisionDataModule` is checked too, by its samples. To add a format: a row in `FORMATS`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..images import IMAGE_SUFFIXES, list_images
from ..mask_files import read_mask
from .faults import orphans_beside
from .fix_coco import fix_coco
from .fix_tables import fix_table
from .fix_trees import fix_class_folders, fix_mask_folders
from .fix_voc import fix_voc
from .fix_yolo import fix_yolo, label_files, yolo_notes
from .fixes import Fixer

# (code, path, what is wrong with it) of each file that nothing lists
Orphans = Callable[[Any, set[str]], Iterable[tuple[str, str, str]]]


@dataclass(frozen=True)
class Format:
    """A format by name.

    Attributes:
        reader: its data module in ``striate.datamodules``.
        argument: that argument of it which a path on the command line fills.
        guess: further arguments, guessed from the path; and ``splits`` where not all are to be read.
        orphans: finds files that nothing lists; None: images beside those listed are only noted, not complained of.
        notes: remarks on a split whose images are known.
        fix: writes a corrected copy; None: lists and a manifest are all that is written.
    """

    reader: str
    argument: str = "root"
    guess: Callable[[Path], dict[str, Any]] = lambda path: {}
    orphans: Orphans | None = None
    notes: Callable[[Any, str, list[str]], Iterable[str]] = lambda data, split, images: ()
    fix: Fixer | None = None


def _none(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """For readers that take part of a set on purpose, or all there is."""
    yield from ()


# -- guesses -----------------------------------------------------------------------------------------


def guess_coco(path: Path) -> dict[str, Any]:
    """Annotation files and image folders below a folder, by their names; or those of a single file."""
    if path.is_file():
        own = {"annotations": str(path.resolve()), "images": str(_images_of(path))}
        both = {f"{split}_{key}": value for split in ("train", "val") for key, value in own.items()}
        return {"root": str(path.parent), **both, "splits": ["train"]}
    found: dict[str, Any] = {}
    files = sorted(path.glob("annotations/*.json")) + sorted(path.glob("*/*.coco.json")) + sorted(path.glob("*.json"))
    files = [
        file for file in files if not file.name.startswith(("captions", "person_keypoints", "panoptic", "image_info"))
    ]
    for split, words in (("train", ("train",)), ("val", ("val",)), ("test", ("test",))):
        file = next(
            (file for file in files if any(word in str(file.relative_to(path)).lower() for word in words)), None
        )
        if file is not None:
            found[f"{split}_annotations"] = str(file.relative_to(path))
            found[f"{split}_images"] = os.path.relpath(_images_of(file), path)
    if "val_annotations" not in found and "train_annotations" in found:  # one file alone: it is both
        found |= {f"val_{key}": found[f"train_{key}"] for key in ("annotations", "images")} | {"splits": ["train"]}
    return found


def _images_of(file: Path) -> Path:
    """The folder in which the first image of an annotation file lies."""
    try:
        content = json.loads(file.read_bytes())
        name = str(content["images"][0]["file_name"])
    except (ValueError, KeyError, IndexError, TypeError):
        name = ""
    stem = file.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    split = next((word for word in ("train", "val", "test") if word in stem), stem)
    above = file.parent.parent
    folders = [above / stem, above / "images" / stem, above / split, above / "images" / split, above / split / "images"]
    folders += [file.parent, file.parent / "images", above / "images", above]
    return next((folder for folder in folders if name and (folder / name).is_file()), above / stem).resolve()


def guess_voc(path: Path) -> dict[str, Any]:
    """The years that are there."""
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = [year for year in ("2007", "2012") if (devkit / f"VOC{year}" / "ImageSets" / "Main").is_dir()]
    return {"year": years[0]} if len(years) == 1 else {}


def guess_masks(path: Path) -> dict[str, Any]:
    """As many classes as the values of the first fifty masks call for; 255 is ignored."""
    folders = [path / split / "masks" for split in ("train", "val", "test")]
    masks = [mask for folder in folders if folder.is_dir() for mask in list_images(folder)[:50]]
    highest = 0
    for mask in masks:
        try:
            values = read_mask(mask)
        except ValueError:
            continue
        inside = values[values != 255]
        highest = max(highest, int(inside.max()) if inside.size else 0)
    guess: dict[str, Any] = {"class_names": [f"class {number}" for number in range(min(highest + 1, 254))]}
    return guess if (path / "val").is_dir() else guess | {"val_fraction": 0.1}


def guess_folder(path: Path) -> dict[str, Any]:
    """A part held out, where there is no ``val``."""
    return {} if (path / "val").is_dir() else {"val_fraction": 0.1}


def guess_tables(path: Path) -> dict[str, Any]:
    """The tables of val and test beside that of train; without one for val, a part held out."""
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        beside = path.with_name(path.name.replace("train", split))
        if beside != path and beside.is_file():
            found[split] = str(beside)
    return found if "val" in found else found | {"val_fraction": 0.1}


# -- files that nothing lists ------------------------------------------------------------------------


def coco_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Images in the folders that no annotation file lists; those without objects are listed."""
    known = set(listed)
    for content in data._read.values():
        known |= {os.path.abspath(content.images.path(place)) for place in range(len(content.images.names))}  # noqa: PTH100
    for path in orphans_beside(known, IMAGE_SUFFIXES, set()):
        yield "orphan-image", path, "not in the annotation files"


def voc_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Images without XML, XML without image; images with XML that no image set names are but unused."""
    for folder in sorted({str(Path(path).parent) for path in listed}):
        annotations = Path(folder).parent / "Annotations"
        names = {path.stem: path for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
        described = {path.stem: path for path in annotations.glob("*.xml")} if annotations.is_dir() else {}
        for stem in sorted(names.keys() - described.keys()):
            if str(names[stem]) not in listed:
                yield "orphan-image", str(names[stem]), f"no {annotations.name}/{stem}.xml"
        for stem in sorted(described.keys() - names.keys()):
            if f"{folder}/{stem}.jpg" not in listed:
                yield "orphan-annotation", str(described[stem]), f"no image {stem} in {Path(folder).name}"
        for stem in sorted(described.keys() & names.keys()):
            if str(names[stem]) not in listed:
                yield "unused-image", str(names[stem]), "in none of the image sets"


def mask_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Masks without image."""
    images, masks = data.folders
    for split in ("train", "val", "test"):
        base, beside = data.root / split / masks, data.root / split / images
        if not base.is_dir() or not beside.is_dir():
            continue
        known = {path.relative_to(beside).with_suffix("").as_posix() for path in list_images(beside)}
        for mask in list_images(base):
            if mask.relative_to(base).with_suffix("").as_posix() not in known:
                yield "orphan-annotation", str(mask), f"no image of that name in {split}/{images}"


def table_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Images beside those listed that no table names."""
    for path in orphans_beside(listed, IMAGE_SUFFIXES, set()):
        yield "orphan-image", path, "in none of the tables"


def yolo_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Label files without image, and images beside those listed that no split names."""
    known = label_files(data, listed)
    for path in orphans_beside(known, (".txt",), set()):
        if Path(path).name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
            yield "orphan-annotation", path, "no image of that name"
    for path in orphans_beside(listed, IMAGE_SUFFIXES, set()):
        yield "orphan-image", path, "in none of the splits"


FORMATS: dict[str, Format] = {
    "coco": Format("CocoDetection", guess=guess_coco, orphans=coco_orphans, fix=fix_coco),
    "voc": Format("VOCDetection", guess=guess_voc, orphans=voc_orphans, fix=fix_voc),
    "yolo": Format("YoloDetection", orphans=yolo_orphans, notes=yolo_notes, fix=fix_yolo),
    "masks": Format("MaskFolder", guess=guess_masks, orphans=mask_orphans, fix=fix_mask_folders),
    "folder": Format("ImageFolder", guess=guess_folder, orphans=_none, fix=fix_class_folders),
    "manifest": Format("Manifest", "train", guess_tables, table_orphans, fix=fix_table),
    "detection_manifest": Format("DetectionManifest", "train", guess_tables, table_orphans, fix=fix_table),
    "localization_manifest": Format("LocalizationManifest", "train", guess_tables, table_orphans, fix=fix_table),
    "coco_localization": Format("CocoLocalization", guess=guess_coco, orphans=_none),
    "voc_localization": Format("VOCLocalization", guess=guess_voc, orphans=_none),
    "voc_segmentation": Format("VOCSegmentation", orphans=_none),
    "voc_instances": Format("VOCInstances", orphans=_none),
    "instance_masks": Format("InstanceMasks"),
    "cityscapes": Format("Cityscapes", orphans=_none),
    "ade20k": Format("ADE20K"),
    "cub": Format("CUB200"),
    "pets": Format("OxfordPets", orphans=_none),
    "imagenet": Format("ImageNet", orphans=_none),
    "imagenet_localization": Format("ImageNetLocalization", orphans=_none),
    "caltech101": Format("Caltech101", orphans=_none),
    "caltech256": Format("Caltech256", orphans=_none),
    "cifar10": Format("CIFAR10", orphans=_none),
    "cifar100": Format("CIFAR100", orphans=_none),
    "mnist": Format("MNIST", orphans=_none),
    "fashion_mnist": Format("FashionMNIST", orphans=_none),
}


def format_of(data: Any) -> Format | None:
    """The format of a data module, by its class or the nearest one that it is derived from; None: not known."""
    for cls in type(data).__mro__:
        for known in FORMATS.values():
            if known.reader == cls.__name__:
                return known
    return None
