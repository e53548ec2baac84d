"""Caltech-UCSD Birds-200-2011, as its publisher's archive unpacks."""

import os
import re
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import Problems
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import ImageTable, confined
from ..annotations.one_box import BoxSource, usable_source
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.sampling import check_fraction, stratified_split

_FILES = ("images.txt", "classes.txt", "image_class_labels.txt", "bounding_boxes.txt", "train_test_split.txt")


class CUB200(VisionDataModule):
    """Caltech-UCSD Birds-200-2011: 11,788 photographs of 200 kinds of birds, each with the box of its bird.

    Expected layout::

        ROOT/CUB_200_2011/images.txt, classes.txt, image_class_labels.txt, bounding_boxes.txt, train_test_split.txt
        ROOT/CUB_200_2011/images/001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg …

    ``bounding_boxes.txt`` has x, y, width and height; they are taken as x, y, x + width, y + height, and clipped to
    the image. A box that cannot be used (not finite, of no area, outside its image) is left out with one warning that
    counts them, or stops the run when `strict`; to know that, the header of each image is read at set-up.

    Classes are in the order of ``classes.txt``, without their numbers: ``Black footed Albatross``.

    Args:
        root: the folder of ``CUB_200_2011``, or that folder itself.
        val_fraction: part of the official training images (5,994) held out for validation, which the set has no
            images for: stratified by class, and fixed by `seed`. 0: train on all of them and validate on the test set,
            as many papers do. The test split (5,794) is the official one.
        min_visibility: part of the box's area that a step of augmentation must leave; it is drawn again otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files or images are not there; the message shows that tree and what was found.
        ValueError: for a line that is malformed, or that contradicts the other files; the message names it.

    Reference: Wah, Branson, Welinder, Perona, Belongie, "The Caltech-UCSD Birds-200-2011 Dataset", 2011.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        val_fraction: float = 0.1,
        min_visibility: float = 0.0,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_fraction(val_fraction, zero=True)
        self.root, self.val_fraction, self.min_visibility = Path(root).expanduser(), val_fraction, min_visibility
        self._all: tuple[BoxSource, np.ndarray] | None = None
        self._names: list[str] | None = None

    @property
    def class_names(self) -> list[str]:
        """The birds' names."""
        if self._names is None:
            classes = read_numbered(self._folder() / "classes.txt", 1)
            self._names = [re.sub(r"^\d+\.", "", classes[number][0]).replace("_", " ") for number in sorted(classes)]
        return list(self._names)

    def make_source(self, split: str) -> BoxSource:
        """The images of a split."""
        if self._all is None:
            self._all = self._read()
        whole, training = self._all
        chosen = ~training if split == "test" or (split == "val" and self.val_fraction == 0) else training
        if not chosen.any():
            raise ValueError(
                f"{self._folder() / 'train_test_split.txt'}: no image with a usable box is marked "
                f"{'1 (training)' if chosen is training else '0 (test)'}"
            )
        source = whole.part(chosen)
        if split == "test" or self.val_fraction == 0:
            return source
        held = stratified_split(source.labels, self.val_fraction, self.seed, self.class_names)
        return source.part(held if split == "val" else ~held)

    def _folder(self) -> Path:
        folder = self.root / "CUB_200_2011"
        folder = folder if folder.is_dir() else self.root
        for name in _FILES:
            if not (folder / name).is_file():
                what = f"data.init_args.root: no file {str(folder / name)!r}"
                raise layout_error(what, type(self), self.root)
        return folder

    def _read(self) -> tuple[BoxSource, np.ndarray]:
        """All images whose boxes can be used, and which of them are for training."""
        folder = self._folder()
        names, classes, class_of, boxes, training = (
            read_numbered(folder / file, columns) for file, columns in zip(_FILES, (1, 1, 1, 4, 1), strict=True)
        )
        for file, content in zip(_FILES[2:], (class_of, boxes, training), strict=True):
            if odd := sorted(names.keys() ^ content.keys()):
                missing = "images.txt" if odd[0] in content else file
                raise ValueError(f"{folder / missing}: no line for the image {odd[0]}, which other files list")
        label_of = {str(number): label for label, number in enumerate(sorted(classes))}
        numbers = sorted(names)
        for number in numbers:
            _check(folder, number, names[number][0], class_of[number][0], training[number][0], label_of)
        corners = _floats(folder / "bounding_boxes.txt", boxes, numbers)
        with np.errstate(invalid="ignore"):  # infinite ones are counted later
            corners[:, 2:] += corners[:, :2]
        ids = np.array(numbers, np.int64)
        paths = np.array([os.fsencode(names[number][0]) for number in numbers], np.bytes_)
        ImageTable(folder / "images", paths, np.empty((len(ids), 2), np.int32), ids).check(folder / "images.txt")
        labels = np.array([label_of[class_of[number][0]] for number in numbers], np.int64)
        problems = Problems(folder / "bounding_boxes.txt", self.strict)
        source, usable = usable_source(folder / "images", paths, labels, corners, problems, ids, "image")
        return source, np.array([training[number][0] == "1" for number in numbers])[usable]


def read_numbered(file: Path, columns: int) -> dict[int, list[str]]:
    """A list whose lines begin with a number.

    Args:
        file: text.
        columns: how many entries follow each number.

    Returns:
        The entries behind each number.

    Raises:
        ValueError: for a line of another form, or a number that is there twice; the message names the line.
    """
    found: dict[int, list[str]] = {}
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        number, *entries = text.split() or [""]
        if not number:
            continue
        if not (number.isascii() and number.isdecimal()) or len(entries) != columns:
            raise ValueError(f"{file}, line {line}: {text!r} is not a number and {columns} more column(s)")
        if int(number) in found:
            raise ValueError(f"{file}, line {line}: the number {number} is there more than once")
        found[int(number)] = entries
    if not found:
        raise ValueError(f"{file}: no lines in it")
    return found


def _check(folder: Path, number: int, name: str, label: str, training: str, label_of: dict[str, int]) -> None:
    if not confined(name):
        raise ValueError(f"{folder / 'images.txt'}, image {number}: {name!r} leads out of the folder 'images'")
    if label not in label_of:
        raise ValueError(
            f"{folder / 'image_class_labels.txt'}, image {number}: the class {label!r} is not in classes.txt"
        )
    if training not in ("0", "1"):
        raise ValueError(
            f"{folder / 'train_test_split.txt'}, image {number}: {training!r} is not 1 (training) or 0 (test)"
        )


def _floats(file: Path, entries: dict[int, list[str]], numbers: list[int]) -> np.ndarray:
    """The entries of the numbers given as float64 ``[N, 4]``."""
    try:
        return np.array([entries[number] for number in numbers]).astype(np.float64)
    except ValueError:
        for number in numbers:
            try:
                np.array(entries[number]).astype(np.float64)
            except ValueError:
                raise ValueError(
                    f"{file}, image {number}: {' '.join(entries[number])!r} is not four numbers, x y width height"
                ) from None
        raise
