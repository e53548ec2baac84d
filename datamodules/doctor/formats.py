"""The formats that the doctor knows by name: which splits they have, and where to look for unlisted files.

Any other `VisionDataModule` is checked too, by its samples. To add a format, add a row to `FORMATS`.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..annotations.dataset_layout import split_folders
from ..images.file_names import composed
from ..images.listing import IMAGE_SUFFIXES, is_system, list_images
from ..voc.layout import annotated_stems
from ..yolo.labels import label_path
from .report import SPLITS

# (code, path, detail) of each unlisted file
Unlisted = Iterable[tuple[str, str, str]]


def images_beside(code: str, detail: str = "") -> Callable[[Any, set[str]], Unlisted]:
    """Return a search for images beside the listed ones, which are findings of a kind."""
    return lambda data, listed: ((code, path, detail) for path in _files_beside(listed, IMAGE_SUFFIXES))


unlisted_images = images_beside("unused-image")  # other configurations may read them


@dataclass(frozen=True)
class Format:
    """One row of `FORMATS`.

    Attributes:
        reader: Name of its data module in ``striate.datamodules``.
        has: Returns whether a data module has files of a split.
        unlisted: Finds files that nothing lists.
        notes: Returns remarks on a split with known images.
    """

    reader: str
    has: Callable[[Any, str], bool] = lambda data, split: True
    unlisted: Callable[[Any, set[str]], Unlisted] = unlisted_images
    notes: Callable[[Any, str, list[str]], Iterable[str]] = lambda data, split, images: ()

    def splits(self, data: Any) -> list[str]:
        """Return the splits of a data module that have files or are held out."""
        is_held_out = getattr(data, "val_fraction", None) is not None
        return [split for split in SPLITS if (split == "val" and is_held_out) or self.has(data, split)]


def _nothing(data: Any, listed: set[str]) -> Unlisted:
    """For readers that select a part of a data set on purpose, or read all of it."""
    return ()


def has_folder(data: Any, split: str) -> bool:
    """Whether a split has a folder; ``train`` always has one, whose absence its reader reports."""
    try:
        return split == "train" or split in split_folders(data.root)
    except ValueError:  # opening a split reports it
        return False


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
            fits = entry.name.lower().endswith(suffixes) and not is_system(entry.name)
            if fits and entry.name not in names and entry.is_file():
                unlisted.append(f"{folder}/{entry.name}")
    return sorted(unlisted)


def unlisted_by_coco(data: Any, listed: set[str]) -> Unlisted:
    """Find images that no annotation file lists; images without objects are listed."""
    known = set(listed)
    for content in data.contents.values():
        images = content.images
        known |= {os.path.abspath(images.path(number)) for number in range(len(images.names))}  # noqa: PTH100
    return (("orphan-image", path, "not in the annotation files") for path in _files_beside(known, IMAGE_SUFFIXES))


def coco_notes(data: Any, split: str, images: list[str]) -> Iterator[str]:
    """Report how many objects are crowds."""
    objects = data.contents[data.files[split]].objects
    if crowds := int(objects.iscrowd.sum()):
        yield f"{split}: {crowds:,} of {len(objects.iscrowd):,} objects are crowds, which are never trained on."


def unlisted_by_voc(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Find images without XML and XML without image; images with XML that no image set names are only unused."""
    sets = (image_set for split in SPLITS if data.layout.has(split) for image_set in data.layout.image_sets(split))
    for home in sorted({image_set.home for image_set in sets}):
        folder, inside = os.path.abspath(home.images), os.path.relpath(home.annotations, home.folder)  # noqa: PTH100
        paths = list_images(Path(folder)) if home.images.is_dir() else []
        images = {composed(os.path.relpath(path, folder).rpartition(".")[0]): str(path) for path in paths}
        files = {composed(stem): stem for stem in annotated_stems(home)}
        for stem, path in sorted(images.items()):
            if path not in listed and stem not in files:
                yield "orphan-image", path, f"no {stem}.xml" if inside == "." else f"no {inside}/{stem}.xml"
            elif path not in listed:
                yield "unused-image", path, "in none of the image sets"
        for stem in sorted(files.keys() - images.keys()):
            if f"{folder}/{stem}.jpg" not in listed:
                yield (
                    "orphan-annotation",
                    f"{home.annotations}/{files[stem]}.xml",
                    f"no image {stem} in {home.images.name}",
                )


def voc_notes(data: Any, split: str, images: list[str]) -> Iterator[str]:
    """Report the image sets of a data set of its own, and the classes that were read from its annotations."""
    layout = data.layout
    if layout.year is None and layout.has(split):
        yield f"{split}: {'; '.join(image_set.description(data.root) for image_set in layout.image_sets(split))}."
    if split == "train" and data.name_counts is not None:
        counts = data.name_counts.most_common(30)
        more = f" and {len(data.name_counts) - 30} more" if len(data.name_counts) > 30 else ""
        listed = ", ".join(f"{name} ({count:,})" for name, count in counts)
        yield f"Classes are the names in the annotations, with their number of objects: {listed}{more}."


def unlisted_by_masks(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Find masks that have no image."""
    for split in split_folders(data.root).values():
        images, masks = (data.root / split / folder for folder in data.folders)
        if not masks.is_dir() or not images.is_dir():
            continue
        known = {composed(path.relative_to(images).with_suffix("").as_posix()) for path in list_images(images)}
        for mask in list_images(masks):
            if composed(mask.relative_to(masks).with_suffix("").as_posix()) not in known:
                yield "orphan-annotation", str(mask), f"no image of that name in {split}/{data.folders[0]}"


def unlisted_by_yolo(data: Any, listed: set[str]) -> Iterator[tuple[str, str, str]]:
    """Find label files without image, and images beside the listed ones that no split names."""
    for path in _files_beside(_label_files(data, listed), (".txt",)):
        if Path(path).name not in ("classes.txt", "train.txt", "val.txt", "test.txt"):
            yield "orphan-annotation", path, "no image of that name"
    for path in _files_beside(listed, IMAGE_SUFFIXES):
        yield "orphan-image", path, "in none of the splits"


def has_yolo_images(data: Any, split: str) -> bool:
    """Whether the ``data.yaml`` names images of a split."""
    try:
        return split in data.content.splits
    except (OSError, ValueError):  # opening a split reports it
        return True


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


_TABLES: dict[str, Any] = {
    "has": lambda data, split: data.tables[split] is not None,
    "unlisted": images_beside("orphan-image", "in none of the tables"),
}
_TOOLS: dict[str, Any] = {"has": lambda data, split: split == "train" or data.read_drawings(split) is not None}
_VOC: dict[str, Any] = {"has": lambda data, split: data.layout.has(split)}
FORMATS: dict[str, Format] = {
    "coco": Format("CocoDetection", unlisted=unlisted_by_coco, notes=coco_notes),
    "voc": Format("VOCDetection", **_VOC, unlisted=unlisted_by_voc, notes=voc_notes),
    "yolo": Format("YoloDetection", has_yolo_images, unlisted=unlisted_by_yolo, notes=yolo_notes),
    "labelme": Format("LabelmeJson", **_TOOLS),
    "label_studio": Format("LabelStudioJson", **_TOOLS),
    "masks": Format("MaskFolder", has=has_folder, unlisted=unlisted_by_masks),
    "folder": Format("ImageFolder", has=has_folder, unlisted=_nothing),
    "manifest": Format("Manifest", **_TABLES),
    "detection_manifest": Format("DetectionManifest", **_TABLES),
    "localization_manifest": Format("LocalizationManifest", **_TABLES),
    "coco_localization": Format("CocoLocalization", unlisted=_nothing),
    "voc_localization": Format("VOCLocalization", **_VOC, unlisted=_nothing),
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
