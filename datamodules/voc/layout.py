"""Where annotations and images of a data set in VOC's layout are: in folders by year, in one folder, or side by side.

A home is a folder with annotations and images: ``VOC2007`` in VOC's devkit; a folder of its own, with ``Annotations``,
``JPEGImages`` and image sets, as labelImg and CVAT write it; or a folder with each XML file beside its image.
"""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, NamedTuple

from ..annotations.annotation_errors import OUTSIDE, AbsentSplitError, DataError, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.dataset_layout import layout_error, split_folders, split_of_name, subfolders
from ..annotations.objects import confined
from ..annotations.text_files import read_text
from ..images.file_names import FileNames, composed
from ..images.listing import IMAGE_SUFFIXES, is_image, is_system, list_images
from .xml import read_xml, reject_other_format

Year = Literal["2007", "2012", "07+12"]

YEAR_SETS: dict[str, dict[str, list[str]]] = {
    "2007": {"train": ["2007_train"], "val": ["2007_val"], "test": ["2007_test"]},
    "2012": {"train": ["2012_train"], "val": ["2012_val"], "test": ["2012_val"]},
    "07+12": {"train": ["2007_trainval", "2012_trainval"], "val": ["2007_test"], "test": ["2007_test"]},
}
SPLITS = ("train", "val", "test")
_IMAGE_FOLDERS = ("JPEGImages", "images", "image", "imgs")
_WITH_FLAG = re.compile(r"(.*\S)\s+(?:-1|0|1)")  # the list of a class has a second column


class Home(NamedTuple):
    """A folder of annotations with its images; the three may be the same.

    Attributes:
        folder: Folder that has the others.
        annotations: Folder of the XML files.
        images: Folder of the images.
    """

    folder: Path
    annotations: Path
    images: Path


class ImageSet(NamedTuple):
    """Images that are listed together.

    Attributes:
        name: Name in messages and arguments, such as ``2007_train`` or ``train``.
        home: Folder that the images are in.
        file: List of the images; None: all annotated images of the home.
    """

    name: str
    home: Home
    file: Path | None

    def description(self, root: Path) -> str:
        """Return what is read, in words, with paths relative to `root`."""
        images, annotations = (os.path.relpath(folder, root) for folder in (self.home.images, self.home.annotations))
        listed = "all annotated images" if self.file is None else f"the images in {os.path.relpath(self.file, root)}"
        return f"{listed}, images in {images}, XML files in {annotations}"


class Entry(NamedTuple):
    """An image of an image set.

    Attributes:
        image: Image file, relative to the root of the layout.
        annotation: XML file.
    """

    image: str
    annotation: Path


def year_home(devkit: Path, year: str) -> Home:
    """Return the folder of a year in VOC's devkit, whether it exists or not."""
    folder = devkit / f"VOC{year}"
    return Home(folder, folder / "Annotations", folder / "JPEGImages")


def find_home(folder: Path) -> Home | None:
    """Return the home that a folder is; None: it has no annotations."""
    children = {child.name: child for child in folder.iterdir() if child.is_dir()} if folder.is_dir() else {}
    by_case = {name.lower(): child for name, child in sorted(children.items())}
    annotations = children.get("Annotations")
    if annotations is None:
        other = by_case.get("annotations")
        annotations = other if other is not None and _has_xml(other) else None
    if annotations is None:
        return Home(folder, folder, folder) if _has_xml(folder) else None
    images = next((by_case[name.lower()] for name in _IMAGE_FOLDERS if name.lower() in by_case), None)
    if images is None:
        images = annotations if _has_images(annotations) else folder
    return Home(folder, annotations, images)


def _has_xml(folder: Path) -> bool:
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208
    return any(name.lower().endswith(".xml") and not is_system(name) for name in names)


def _has_images(folder: Path) -> bool:
    return any(is_image(name) for name in os.listdir(folder))  # noqa: PTH208


class VocLayout:
    """Finds the image sets of splits, and the files of their images.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or a home, or folders of splits.
        year: Years of VOC's devkit; None: those that are there.
        sets: Names of the image sets of each split; None: by the name of the split.
        reader: Data module that messages name, and whose docstring shows the layout.
    """

    def __init__(self, root: Path, year: str | None, sets: Mapping[str, Sequence[str] | None], reader: type) -> None:
        self.root, self.reader = root, reader
        self.named = {split: None if (names := sets.get(split)) is None else list(names) for split in SPLITS}
        self.devkit = root / "VOCdevkit" if (root / "VOCdevkit").is_dir() else root
        self.given_year = year

    @cached_property
    def homes(self) -> dict[str, Home] | Home | None:
        """The home of all splits, or of each; None: the data set has VOC's folders by year."""
        years = [
            "2007",
            "2012",
            *(name[:4] for names in self.named.values() for name in names or () if name[4:5] == "_"),
        ]
        if any((self.devkit / f"VOC{year}").is_dir() for year in years):
            return None
        if (home := find_home(self.root)) is not None:
            return home
        of_split = {
            split: home
            for split, name in split_folders(self.devkit).items()
            if (home := find_home(self.devkit / name)) is not None
        }
        if "train" in of_split:
            return of_split
        folders = [self.devkit / name for name in subfolders(self.devkit)] if self.devkit.is_dir() else []
        homes = [home for child in folders if (home := find_home(child)) is not None]
        return homes[0] if len(homes) == 1 else None

    @property
    def year(self) -> str | None:
        """The years that are read; None: the data set has no folders by year.

        Raises:
            ValueError: Years are given for such a data set.
        """
        if self.homes is None:
            here = [year for year in ("2007", "2012") if (self.devkit / f"VOC{year}").is_dir()]
            return self.given_year or (here[0] if len(here) == 1 else "07+12")
        name = self.homes.folder.resolve().name if isinstance(self.homes, Home) else ""
        if self.given_year is not None and name != f"VOC{self.given_year}":
            above = self.root.parent if self.root.name else self.root / ".."
            remedy = f"; set root: {above} for other years" if re.fullmatch(r"VOC20\d\d", name) else ""
            raise ValueError(
                f"year: must be null, since {str(self.root)!r} is a data set of its own, without VOC2007 and VOC2012, "
                f"got {self.given_year!r}{remedy}"
            )
        return None

    @property
    def base(self) -> Path:
        """Folder that the names of images are relative to."""
        return self.devkit if self.year is not None else self.root

    def image_sets(self, split: str) -> list[ImageSet]:
        """Return the image sets of a split.

        Raises:
            AbsentSplitError: There are none, or a file does not exist; the message shows the expected layout.
            ValueError: A name is not one of an image set.
        """
        named = self.named[split]
        if (year := self.year) is not None:
            return self._by_year(split, named or YEAR_SETS[year][split])
        if isinstance(self.homes, dict):
            if named is not None:
                raise ValueError(f"{split}: must be null, since the folders of {str(self.root)!r} are the splits, "
                                 f"got {named}")  # fmt: skip
            if split not in self.homes:
                raise self._absent(split, f"no folder {split!r}")
            return [ImageSet(self.homes[split].folder.name, self.homes[split], None)]
        assert self.homes is not None
        return self._of_home(self.homes, split, named)

    def has(self, split: str) -> bool:
        """Return whether a split has image sets."""
        try:
            return bool(self.image_sets(split))
        except AbsentSplitError:
            return False

    def _by_year(self, split: str, names: Sequence[str]) -> list[ImageSet]:
        sets = []
        for name in names:
            year, separator, image_set = name.partition("_")
            if not (year and separator and image_set):
                raise ValueError(f"{split}: image sets must be YEAR_NAME, such as 2007_trainval, got {name!r}")
            home = year_home(self.devkit, year)
            file = home.folder / "ImageSets" / "Main" / f"{image_set}.txt"
            if not file.is_file():
                raise layout_error(f"no file {str(file)!r}", self.reader, self.root, AbsentSplitError)
            sets.append(ImageSet(name, home, file))
        return sets

    def _of_home(self, home: Home, split: str, named: Sequence[str] | None) -> list[ImageSet]:
        lists = _image_lists(home)
        if named is not None:
            for name in named:
                if name not in lists:
                    problem = f"{split}: no image set {name!r}{did_you_mean(name, lists)}"
                    raise layout_error(problem, self.reader, home.folder, AbsentSplitError)
            return [ImageSet(name, home, lists[name]) for name in named]
        if not lists:
            if split == "train":
                return [ImageSet(home.folder.name or str(home.folder), home, None)]
            raise self._absent(split, f"no image sets in {str(home.folder / 'ImageSets' / 'Main')!r}")
        found: dict[str, str] = {known: name for name in reversed(lists) if (known := split_of_name(name))}
        chosen = found.get(split)
        if split == "train" and chosen is None:
            whole = "trainval" if "trainval" in lists and "val" not in found else None
            chosen = next(iter(lists)) if whole is None and len(lists) == 1 and not found else whole
        if chosen is None:
            raise self._absent(split, f"the image sets are {', '.join(map(repr, lists))}")
        return [ImageSet(chosen, home, lists[chosen])]

    def _absent(self, split: str, found: str) -> AbsentSplitError:
        remedy = {
            "val": "set val_fraction: 0.1 to hold out a part of the training images, or name an image set",
            "train": "name an image set, such as train: [trainval]",
        }
        return AbsentSplitError(
            f"{split}: no image set for it in {str(self.root)!r} ({found})"
            + (f"; {remedy[split]}" if split in remedy else "")
        )

    def entries(self, image_set: ImageSet) -> list[Entry]:
        """Return the images of an image set with their files, whether these exist or not.

        Raises:
            DataError: The list has no images, or a name in it leads out of its folder; see `record_error`.
        """
        home, annotations = image_set.home, FileNames(image_set.home.annotations)
        stems = annotated_stems(home) if image_set.file is None else list(_listed(image_set.file, annotations))
        if not stems:
            place = image_set.file or home.annotations
            raise DataError(
                f"{place}: must have at least one image, got an empty {'list' if image_set.file else 'folder'}"
            )
        if image_set.file and (outside := [stem for stem in stems if not confined(stem)]):
            record_error(Fault("bad-target", image_set.file, outside, "image", OUTSIDE, "name it as in JPEGImages"))
        images, folder = _ImageNames(home.images), os.path.relpath(home.images, self.base)
        prefix = "" if folder == "." else f"{folder}/"
        entries = [
            Entry(
                f"{prefix}{images.of(stem)}", home.annotations / (annotations.resolve(f"{stem}.xml") or f"{stem}.xml")
            )
            for stem in stems
            if confined(stem)
        ]
        lone = next((one for one in entries if images.files.resolve(one.image.removeprefix(prefix)) is None), None)
        if lone is not None and lone.annotation.is_file():  # an export of all images in one file, perhaps
            reject_other_format(lone.annotation, read_xml(lone.annotation))
        return entries


def unannotated_images(home: Home) -> list[Path]:
    """Return the images of a home that have no annotation file."""
    stems = set(map(composed, annotated_stems(home)))
    images = list_images(home.images) if home.images.is_dir() else []
    return [image for image in images if composed(_stem(image.relative_to(home.images).as_posix())) not in stems]


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]  # noqa: PTH122 - names with dots and slashes


def _image_lists(home: Home) -> dict[str, Path]:
    """The files of the image sets of a home, by name."""
    for folder in (home.folder / "ImageSets" / "Main", home.folder / "ImageSets"):
        if files := sorted(folder.glob("*.txt")):
            return {file.stem: file for file in files}
    return {}


def _listed(file: Path, annotations: FileNames) -> Iterator[str]:
    """Yield the names in an image set, without suffix; the annotation shows where a name with spaces ends."""
    for line in filter(None, map(str.strip, read_text(file).splitlines())):
        flagged = _WITH_FLAG.fullmatch(line)
        candidates = [line, *([flagged[1]] if flagged else [])]
        candidates += [_stem(text) for text in candidates if text.lower().endswith(IMAGE_SUFFIXES)]
        found = (text for text in candidates if annotations.resolve(f"{text}.xml") is not None)
        yield next(found, line.split()[0])


def annotated_stems(home: Home) -> list[str]:
    """The names of all annotation files of a home, without suffix, relative to their folder, sorted."""
    files = (path for path in home.annotations.rglob("*") if path.suffix.lower() == ".xml")
    names = (path.relative_to(home.annotations) for path in files)
    return sorted(name.with_suffix("").as_posix() for name in names if not any(map(is_system, name.parts)))


class _ImageNames:
    """Finds the image of a name without suffix: ``.jpg``, or else the one with another suffix."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.files = folder, FileNames(folder)
        self._by_stem: dict[str, dict[str, str]] = {}

    def of(self, stem: str) -> str:
        """Return the file of an image relative to the folder; with ``.jpg`` if there is none."""
        if (found := self.files.resolve(f"{stem}.jpg")) is not None:
            return found
        parent, _, name = stem.rpartition("/")
        if parent not in self._by_stem:
            inner = self.folder / parent
            names = sorted(os.listdir(inner)) if inner.is_dir() else []  # noqa: PTH208
            images = filter(is_image, reversed(names))
            self._by_stem[parent] = {composed(_stem(image)): image for image in images}
        image = self._by_stem[parent].get(composed(name), f"{name}.jpg")
        return f"{parent}/{image}" if parent else image
