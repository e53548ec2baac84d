"""Caltech-UCSD Birds-200-2011, in the layout of its publisher's archive."""

import re
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors
from ..annotations.dataset_layout import encode_paths, layout_error
from ..annotations.objects import ImageTable, confined
from ..annotations.one_box import BoxSource, usable_source
from ..annotations.text_files import read_text
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import check_val_fraction, stratified_split

_LISTS = ("images.txt", "classes.txt", "image_class_labels.txt", "bounding_boxes.txt", "train_test_split.txt")


class CUB200(VisionDataModule):
    """Caltech-UCSD Birds-200-2011: 11,788 photographs of 200 species of birds, each with the box of its bird.

    Expected layout::

        ROOT/CUB_200_2011/images.txt, classes.txt, image_class_labels.txt, bounding_boxes.txt, train_test_split.txt
        ROOT/CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg …

    The boxes in ``bounding_boxes.txt`` (x, y, width, height) become x1, y1, x2, y2, clipped to the image. A box that
    cannot be used (not finite, without area, or outside its image) is left out with one warning that counts them, or
    stops the run if `strict`. For this check, the header of each image is read at setup.

    Classes are in the order of ``classes.txt``, named without numbers: ``Black footed Albatross``.

    Args:
        root: Folder that contains ``CUB_200_2011``, or that folder itself.
        val_fraction: Fraction of the 5,994 official training images held out for validation, stratified by class and
            determined by `seed`; the dataset has no validation images. 0: train on all of them and validate on the
            test set, as many papers do. The test split is the official one (5,794 images).
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Lists or images are missing; the message shows the expected layout.
        ValueError: A line is malformed or contradicts another list; the message names it.

    Reference: Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self, root: str, val_fraction: float = 0.1, min_visibility: float = 0.0, **kwargs: Unpack[LoaderOptions]
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction, allow_zero=True)
        self.root, self.val_fraction, self.min_visibility = Path(root).expanduser(), val_fraction, min_visibility
        self._all: tuple[BoxSource, np.ndarray] | None = None
        self._names: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the species, without their numbers."""
        if self._names is None:
            classes = read_numbered(self._folder() / "classes.txt", 1)
            self._names = [re.sub(r"^\d+\.", "", classes[number][0]).replace("_", " ") for number in sorted(classes)]
        return list(self._names)

    def make_source(self, split: str) -> BoxSource:
        """Return the images of a split; without a held-out part, ``val`` is ``test``."""
        if self._all is None:
            self._all = self._read()
        source, is_training = self._all
        of_test = split == "test" or (split == "val" and self.val_fraction == 0)
        source = source.part(~is_training if of_test else is_training)
        if not len(source):
            raise ValueError(
                f"{self._folder() / 'train_test_split.txt'}: no image with a usable box is marked "
                f"{'0 (test)' if of_test else '1 (training)'}"
            )
        if of_test or self.val_fraction == 0:
            return source
        held_out = stratified_split(source.labels, self.val_fraction, self.seed, self.class_names)
        return source.part(held_out if split == "val" else ~held_out)

    def _folder(self) -> Path:
        folder = self.root / "CUB_200_2011"
        folder = folder if folder.is_dir() else self.root
        for name in _LISTS:
            if not (folder / name).is_file():
                raise layout_error(f"root: no file {str(folder / name)!r}", type(self), self.root)
        return folder

    def _read(self) -> tuple[BoxSource, np.ndarray]:
        """Read all images with usable boxes, and which of them are for training: ``[N]`` bool."""
        folder = self._folder()
        names, classes, class_of, boxes, training = (
            read_numbered(folder / file, columns) for file, columns in zip(_LISTS, (1, 1, 1, 4, 1), strict=True)
        )
        for file, entries in zip(_LISTS[2:], (class_of, boxes, training), strict=True):
            if unmatched := sorted(names.keys() ^ entries.keys()):
                incomplete = "images.txt" if unmatched[0] in entries else file
                raise ValueError(f"{folder / incomplete}: no line for image {unmatched[0]}, which other files list")
        label_of = {str(number): label for label, number in enumerate(sorted(classes))}
        numbers = sorted(names)
        for number in numbers:
            _check(folder, number, names[number][0], class_of[number][0], training[number][0], label_of)
        corners = _box_values(folder / "bounding_boxes.txt", boxes, numbers)
        with np.errstate(invalid="ignore"):  # infinite values are counted later
            corners[:, 2:] += corners[:, :2]
        ids = np.array(numbers, np.int64)
        paths = encode_paths(names[number][0] for number in numbers)
        ImageTable(folder / "images", paths, np.empty((len(ids), 2), np.int32), ids).check(folder / "images.txt")
        labels = np.array([label_of[class_of[number][0]] for number in numbers], np.int64)
        errors = AnnotationErrors(folder / "bounding_boxes.txt", self.strict)
        source, usable = usable_source(folder / "images", paths, labels, corners, errors, ids, "image")
        return source, np.array([training[number][0] == "1" for number in numbers])[usable]


def read_numbered(file: Path, columns: int) -> dict[int, list[str]]:
    """Read a list in which each line has a number and further entries.

    Args:
        file: Text file.
        columns: Number of entries after each number.

    Returns:
        The entries by number.

    Raises:
        ValueError: A line has another form, or a number occurs twice; the message names the line.
    """
    entries_of: dict[int, list[str]] = {}
    for line, text in enumerate(read_text(file).splitlines(), start=1):
        number, *entries = text.split() or [""]
        if not number:
            continue
        if not (number.isascii() and number.isdecimal()) or len(entries) != columns:
            raise ValueError(f"{file}, line {line}: must have a number and {columns} more column(s), got {text!r}")
        if int(number) in entries_of:
            raise ValueError(f"{file}, line {line}: each number must be unique, got {number} more than once")
        entries_of[int(number)] = entries
    if not entries_of:
        raise ValueError(f"{file}: must have at least one line, got an empty list")
    return entries_of


def _check(folder: Path, number: int, name: str, label: str, training: str, label_of: dict[str, int]) -> None:
    if not confined(name):
        raise ValueError(f"{folder / 'images.txt'}, image {number}: must be in the folder 'images', got {name!r}")
    if label not in label_of:
        raise ValueError(f"{folder / 'image_class_labels.txt'}, image {number}: class {label!r} is not in classes.txt")
    if training not in ("0", "1"):
        raise ValueError(
            f"{folder / 'train_test_split.txt'}, image {number}: must be 1 (training) or 0 (test), got {training!r}"
        )


def _box_values(file: Path, entries: dict[int, list[str]], numbers: list[int]) -> np.ndarray:
    """Return the boxes of the numbered images as written: ``[N, 4]`` float64."""
    try:
        return np.array([entries[number] for number in numbers]).astype(np.float64)
    except ValueError:
        for number in numbers:
            try:
                np.array(entries[number]).astype(np.float64)
            except ValueError:
                raise ValueError(
                    f"{file}, image {number}: must be four numbers, x y width height, got {' '.join(entries[number])!r}"
                ) from None
        raise
