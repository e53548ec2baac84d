"""The formats that the doctor knows by name: how to guess their arguments, and where to look for unlisted files.

Any other `VisionDataModule` is checked too, by its samples. To add a format, add a row to `FORMATS`.
"""

import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotations.mask_files import read_mask
from ..batches import IGNORE_INDEX
from ..images.read import IMAGE_SUFFIXES, list_images
from ..yolo.labels import label_path
from .report import SPLITS

# (code, path, detail) of each unlisted file
Unlisted = Iterable[tuple[str, str, str]]
Guess = Callable[[Path, Collection[str]], dict[str, Any]]


def unlisted_images(data: Any, listed: set[str]) -> Unlisted:
    """Images beside the listed ones, which other configurations may read."""
    return (("unused-image", path, "") for path in _files_beside(listed, IMAGE_SUFFIXES))


@dataclass(frozen=True)
class Format:
    """One row of `FORMATS`.

    Attributes:
        reader: Name of its data module in ``striate.datamodules``.
        argument: The argument of the data module that a path on the command line fills.
        guess: Guesses further arguments from the path, and ``splits`` if not all are to be read. It receives the names
            of the given arguments, and guesses none that contradicts them.
        splits: Returns the existing splits of a data module.
        unlisted: Finds files that nothing lists.
        notes: Returns remarks on a split with known images.
    """

    reader: str
    argument: str = "root"
    guess: Guess = lambda path, given: {}
    splits: Callable[[Any], Collection[str]] = lambda data: SPLITS
    unlisted: Callable[[Any, set[str]], Unlisted] = unlisted_images
    notes: Callable[[Any, str, list[str]], Iterable[str]] = lambda data, split, images: ()


def _nothing(data: Any, listed: set[str]) -> Unlisted:
    """For readers that select a part of a data set on purpose, or read all of it."""
    return ()


# -- guesses -----------------------------------------------------------------------------------------


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
    if "val_annotations" not in arguments and "train_annotations" in arguments and not val_is_given:
        # a single file is both
        arguments |= {f"val_{key}": arguments[f"train_{key}"] for key in ("annotations", "images")}
        arguments["splits"] = ["train"]
    return arguments


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
        name = str(content["images"][0]["file_name"])
    except (ValueError, KeyError, IndexError, TypeError):
        name = ""
    stem = file.stem.rpartition("_")[2]  # instances_train2017 -> train2017
    split = next((word for word in SPLITS if word in stem), stem)
    base = file.parent.parent
    folders = [base / stem, base / "images" / stem, base / split, base / "images" / split, base / split / "images"]
    folders += [file.parent, file.parent / "images", base / "images", base]
    return next((folder for folder in folders if name and (folder / name).is_file()), base / stem).resolve()


def guess_voc(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the year, if there is only one."""
    devkit = path / "VOCdevkit" if (path / "VOCdevkit").is_dir() else path
    years = [year for year in ("2007", "2012") if (devkit / f"VOC{year}" / "ImageSets" / "Main").is_dir()]
    return {"year": years[0]} if len(years) == 1 else {}


def guess_masks(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess as many classes as the first fifty masks of each split have values; 255 is ignored."""
    folders = [path / split / "masks" for split in SPLITS]
    masks = [mask for folder in folders if folder.is_dir() for mask in list_images(folder)[:50]]
    highest = 0
    for mask in masks:
        try:
            values = read_mask(mask)
        except ValueError:
            continue
        highest = max(highest, int(values[values != IGNORE_INDEX].max(initial=0)))
    class_names = [f"class {number}" for number in range(min(highest + 1, IGNORE_INDEX - 1))]
    return {"class_names": class_names} | guess_folder(path, given)


def guess_folder(path: Path, given: Collection[str]) -> dict[str, Any]:
    """Guess the splits: without ``val`` nothing is held out, since all images are to be checked."""
    existing = ["train", *(split for split in ("val", "test") if (path / split).is_dir())]
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


def splits_of_folders(data: Any) -> list[str]:
    """Return train and the splits that have a folder or are held out."""
    held_out = {"val"} if data.val_fraction is not None else set()
    return [split for split in SPLITS if split in {"train", *held_out} or (data.root / split).is_dir()]


def splits_of_tables(data: Any) -> list[str]:
    """Return the splits that have a table or are held out."""
    held_out = {"val"} if data.val_fraction is not None else set()
    return [split for split in SPLITS if split in held_out or data.tables[split] is not None]


# -- unlisted files ------------------------------------------------------------------------------------


def _files_beside(files: Iterable[str], suffixes: tuple[str, ...]) -> list[str]:
    """The other files with these suffixes in the folders of `files`, sorted."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        listed.setdefault(folder, set()).add(name)
    unlisted = []
    for folder, names in listed.items():
        base = Path(folder or "/")
        for entry in base.iterdir() if base.is_dir() else ():
            hidden = entry.name[0] == "."
            if not hidden and entry.name not in names and entry.name.lower().endswith(suffixes) and entry.is_file():
                unlisted.append(f"{folder}/{entry.name}")
    return sorted(unlisted)


def unlisted_by_coco(data: Any, listed: set[str]) -> Unlisted:
    """Images that no annotation file lists; images without objects are listed."""
    known = set(listed)
    for content in data.contents.values():
        images = content.images
        known |= {os.path.abspath(images.path(number)) for number in range(len(images.names))}  # noqa: PTH100
    return (("orphan-image", path, "not in the annotation files") for path in _files_beside(known, IMAGE_SUFFIXES))


def unlisted_by_voc(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Images without XML, XML without image; images with XML that no image set names are only unused."""
    for folder in sorted({str(Path(path).parent) for path in listed}):
        annotations = Path(folder).parent / "Annotations"
        images = {path.stem: str(path) for path in Path(folder).iterdir() if path.suffix.lower() in IMAGE_SUFFIXES}
        files = {path.stem: str(path) for path in annotations.glob("*.xml")} if annotations.is_dir() else {}
        for stem, path in sorted(images.items()):
            if path not in listed and stem not in files:
                yield "orphan-image", path, f"no {annotations.name}/{stem}.xml"
            elif path not in listed:
                yield "unused-image", path, "in none of the image sets"
        for stem in sorted(files.keys() - images.keys()):
            if f"{folder}/{stem}.jpg" not in listed:
                yield "orphan-annotation", files[stem], f"no image {stem} in {Path(folder).name}"


def unlisted_by_masks(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Masks without image."""
    for split in SPLITS:
        images, masks = (data.root / split / folder for folder in data.folders)
        if not masks.is_dir() or not images.is_dir():
            continue
        known = {path.relative_to(images).with_suffix("").as_posix() for path in list_images(images)}
        for mask in list_images(masks):
            if mask.relative_to(masks).with_suffix("").as_posix() not in known:
                yield "orphan-annotation", str(mask), f"no image of that name in {split}/{data.folders[0]}"


def unlisted_by_tables(data: Any, listed: set[str]) -> Unlisted:
    """Images beside the listed ones that no table names."""
    return (("orphan-image", path, "in none of the tables") for path in _files_beside(listed, IMAGE_SUFFIXES))


def unlisted_by_yolo(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Label files without image, and images beside the listed ones that no split names."""
    for path in _files_beside(_label_files(data, listed), (".txt",)):
        if Path(path).name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
            yield "orphan-annotation", path, "no image of that name"
    for path in _files_beside(listed, IMAGE_SUFFIXES):
        yield "orphan-image", path, "in none of the splits"


def yolo_notes(data: Any, split: str, images: list[str]) -> Iterator[str]:
    """Report how many images have no label file, which may be intended."""
    bare = [path for path, file in zip(images, _label_files(data, images), strict=True) if not Path(file).is_file()]
    if bare:
        yield (
            f"{split}: {len(bare):,} of {len(images):,} images have no label file, and count as images without "
            f"objects; the first: {os.path.relpath(bare[0], data.content.root)}"
        )


def _label_files(data: Any, images: Iterable[str]) -> list[str]:
    """The label file of each image, whether it exists or not."""
    root = os.path.abspath(data.content.root)  # noqa: PTH100 - a link stays one
    return [label_path(root, os.path.relpath(path, root)) for path in images]


_TABLES = {"argument": "train", "guess": guess_tables, "splits": splits_of_tables, "unlisted": unlisted_by_tables}
FORMATS: dict[str, Format] = {
    "coco": Format("CocoDetection", guess=guess_coco, unlisted=unlisted_by_coco),
    "voc": Format("VOCDetection", guess=guess_voc, unlisted=unlisted_by_voc),
    "yolo": Format("YoloDetection", unlisted=unlisted_by_yolo, notes=yolo_notes),
    "masks": Format("MaskFolder", guess=guess_masks, splits=splits_of_folders, unlisted=unlisted_by_masks),
    "folder": Format("ImageFolder", guess=guess_folder, splits=splits_of_folders, unlisted=_nothing),
    "manifest": Format("Manifest", **_TABLES),
    "detection_manifest": Format("DetectionManifest", **_TABLES),
    "localization_manifest": Format("LocalizationManifest", **_TABLES),
    "coco_localization": Format("CocoLocalization", guess=guess_coco_files, unlisted=_nothing),
    "voc_localization": Format("VOCLocalization", guess=guess_voc, unlisted=_nothing),
    "voc_segmentation": Format("VOCSegmentation", unlisted=_nothing),
    "voc_instances": Format("VOCInstances", unlisted=_nothing),
    "instance_masks": Format("InstanceMasks"),
    "cityscapes": Format("Cityscapes", unlisted=_nothing),
    "ade20k": Format("ADE20K"),
    "cub": Format("CUB200"),
    "pets": Format("OxfordPets", unlisted=_nothing),
    "imagenet": Format("ImageNet", unlisted=_nothing),
    "imagenet_localization": Format("ImageNetLocalization", unlisted=_nothing),
    "caltech101": Format("Caltech101", unlisted=_nothing),
    "caltech256": Format("Caltech256", unlisted=_nothing),
    "cifar10": Format("CIFAR10", unlisted=_nothing),
    "cifar100": Format("CIFAR100", unlisted=_nothing),
    "mnist": Format("MNIST", unlisted=_nothing),
    "fashion_mnist": Format("FashionMNIST", unlisted=_nothing),
}


def format_name(data: Any) -> str | None:
    """Return the name of a data module's format, by its class or the closest class it derives from; None: unknown."""
    names = {known.reader: name for name, known in FORMATS.items()}
    return next((names[cls.__name__] for cls in type(data).__mro__ if cls.__name__ in names), None)


def format_of(data: Any) -> Format | None:
    """Return the format of a data module; None: unknown."""
    return FORMATS.get(format_name(data) or "")
