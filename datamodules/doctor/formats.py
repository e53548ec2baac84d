"""The formats that the doctor knows by name: what it guesses of a path, where it looks for orphans, what it can mend.

Any other `VisionDataModule` is checked too, by its samples. To add a format: a row in `FORMATS`.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotations.mask_files import read_mask
from ..images.read import IMAGE_SUFFIXES, list_images
from .faults import orphans_beside
from .fix_coco import fix_coco
from .fix_tables import fix_table
from .fix_trees import fix_class_folders, fix_image_trees, fix_mask_folders
from .fix_voc import fix_voc
from .fix_voc_masks import fix_voc_masks
from .fix_yolo import fix_yolo, label_files, yolo_notes
from .fixes import Fixer

# (code, path, what is wrong with it) of each file that nothing lists
Orphans = Callable[[Any, set[str]], Iterable[tuple[str, str, str]]]
Guess = Callable[[Path, Collection[str]], dict[str, Any]]
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Format:
    """A format by name.

    Attributes:
        reader: its data module in ``striate.datamodules``.
        argument: that argument of it which a path on the command line fills.
        guess: further arguments, guessed from the path, and ``splits`` where not all are to be read; it is told
            which arguments were given, and guesses none that contradicts them.
        splits: those that there are, of a data module of this format.
        orphans: finds files that nothing lists; None: images beside those listed are only noted, not complained of.
        notes: remarks on a split whose images are known.
        fix: writes a corrected copy; None: lists and a manifest are all that is written.
    """

    reader: str
    argument: str = "root"
    guess: Guess = lambda path, given: {}
    splits: Callable[[Any], Collection[str]] = lambda data: SPLITS
    orphans: Orphans | None = None
    notes: Callable[[Any, str, list[str]], Iterable[str]] = lambda data, split, images: ()
    fix: Fixer | None = None


def _none(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """For readers that take part of a set on purpose, or all there is."""
    yield from ()


# -- guesses -----------------------------------------------------------------------------------------


def guess_coco(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Annotation files and image folders by name (`guess_coco_files`); with masks, where most objects have one.

    Most: of a set of boxes with a few masks, all others would be complained of, and dropped by a correction.
    """
    found = guess_coco_files(path, given)
    if "task" not in given and "train_annotations" in found:
        found["task"] = "instance_segmentation" if _has_masks(path, found["train_annotations"]) else "detection"
    return found


def guess_coco_files(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Annotation files and image folders below a folder, by their names; or those of a single file."""
    if path.is_file():
        own = {"annotations": str(path.resolve()), "images": str(_images_of(path))}
        both = {f"{split}_{key}": value for split in ("train", "val") for key, value in own.items()}
        return {"root": str(path.parent), **both} | ({} if _names_val(given) else {"splits": ["train"]})
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
    if "val_annotations" not in found and "train_annotations" in found and not _names_val(given):
        # one file alone: it is both
        found |= {f"val_{key}": found[f"train_{key}"] for key in ("annotations", "images")} | {"splits": ["train"]}
    return found


def _names_val(given: Collection[str]) -> bool:
    return bool({"val_annotations", "val_images"} & set(given))


def _has_masks(root: Path, name: str) -> bool:
    """Whether most objects of an annotation file have a segmentation."""
    try:
        items = json.loads((root if root.is_dir() else root.parent).joinpath(name).read_bytes())["annotations"]
        return 2 * sum(bool(item.get("segmentation")) for item in items) > len(items)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False  # what is wrong with it, its reader says


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


def guess_voc(path: Path, given: Collection[str]) -> dict[str, Any]:
    """The years that are there."""
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = [year for year in ("2007", "2012") if (devkit / f"VOC{year}" / "ImageSets" / "Main").is_dir()]
    return {"year": years[0]} if len(years) == 1 else {}


def guess_masks(path: Path, given: Collection[str]) -> dict[str, Any]:
    """As many classes as the values of the first fifty masks call for; 255 is ignored."""
    folders = [path / split / "masks" for split in SPLITS]
    masks = [mask for folder in folders if folder.is_dir() for mask in list_images(folder)[:50]]
    highest = 0
    for mask in masks:
        try:
            values = read_mask(mask)
        except ValueError:
            continue
        inside = values[values != 255]
        highest = max(highest, int(inside.max()) if inside.size else 0)
    names = {"class_names": [f"class {number}" for number in range(min(highest + 1, 254))]}
    return names | guess_folder(path, given)


def guess_folder(path: Path, given: Collection[str]) -> dict[str, Any]:
    """The splits that there are: without ``val`` nothing is held out, since all is to be looked at."""
    there = ["train", *(split for split in ("val", "test") if (path / split).is_dir())]
    return {"splits": there} if "val" not in there and "val_fraction" not in given else {}


def guess_tables(path: Path, given: Collection[str]) -> dict[str, Any]:
    """The tables of val and test beside that of train; without one for val nothing is held out, as `guess_folder`."""
    found: dict[str, Any] = {}
    for split in ("val", "test"):
        beside = path.with_name(path.name.replace("train", split))
        if beside != path and beside.is_file() and split not in given:
            found[split] = str(beside)
    if "val_fraction" in given:
        found.pop("val", None)
    elif "val" not in {*found, *given}:
        found["splits"] = ["train", *({"test"} & {*found, *given})]
    return found


def splits_of_folders(data: Any) -> list[str]:
    """Train, and those that have a folder; val too, where it is held out."""
    held = data.val_fraction is not None
    return [one for one in SPLITS if one == "train" or (one == "val" and held) or (data.root / one).is_dir()]


def splits_of_tables(data: Any) -> list[str]:
    """Those that have a table; val too, where it is held out."""
    held = data.val_fraction is not None
    return [one for one in SPLITS if data.tables[one] is not None or (one == "val" and held)]


# -- files that nothing lists ------------------------------------------------------------------------


def coco_orphans(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Images in the folders that no annotation file lists; those without objects are listed."""
    known = set(listed)
    for content in data.contents.values():
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
    for split in SPLITS:
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
    "masks": Format(
        "MaskFolder", guess=guess_masks, splits=splits_of_folders, orphans=mask_orphans, fix=fix_mask_folders
    ),
    "folder": Format("ImageFolder", guess=guess_folder, splits=splits_of_folders, orphans=_none, fix=fix_class_folders),
    "manifest": Format("Manifest", "train", guess_tables, splits_of_tables, table_orphans, fix=fix_table),
    "detection_manifest": Format(
        "DetectionManifest", "train", guess_tables, splits_of_tables, table_orphans, fix=fix_table
    ),
    "localization_manifest": Format(
        "LocalizationManifest", "train", guess_tables, splits_of_tables, table_orphans, fix=fix_table
    ),
    "coco_localization": Format("CocoLocalization", guess=guess_coco_files, orphans=_none),
    "voc_localization": Format("VOCLocalization", guess=guess_voc, orphans=_none),
    "voc_segmentation": Format("VOCSegmentation", orphans=_none, fix=fix_voc_masks),
    "voc_instances": Format("VOCInstances", orphans=_none, fix=fix_voc_masks),
    "instance_masks": Format("InstanceMasks", fix=fix_image_trees),
    "cityscapes": Format("Cityscapes", orphans=_none, fix=fix_image_trees),
    "ade20k": Format("ADE20K", fix=fix_image_trees),
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
