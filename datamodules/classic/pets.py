"""Oxford-IIIT Pet: heads of cats and dogs, as the publisher's archives unpack."""

import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..annotations.annotation_errors import Problems
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import layout_error
from ..annotations.objects import ImageTable, usable_boxes
from ..annotations.one_box import BoxSource, choose_objects, warn_of_absent
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.sampling import check_fraction, stratified_split
from ..voc.xml import corners_of, image_size, read_xml

PetClasses = Literal["breed", "species"]

_SPECIES = ["cat", "dog"]


class OxfordPets(VisionDataModule):
    """Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs, each with the box of the animal's *head*.

    Expected layout::

        ROOT/images/Abyssinian_1.jpg …
        ROOT/annotations/trainval.txt
        ROOT/annotations/xmls/Abyssinian_1.xml …    (or all of it in ROOT/oxford-iiit-pet)

    Boxes are published for the images of ``trainval.txt`` only, and not for all of them: those without are left out,
    with one warning that counts them. ``test.txt``'s images have no boxes, so validation images are held out of those
    that have one, and **the test split here is the validation set**: choose nothing by it that you then report.

    The boxes are in VOC's form, and are read as VOC's, which count pixels from 1 and name the first and the last
    inside: ``xmin, ymin, xmax, ymax`` becomes ``xmin - 1, ymin - 1, xmax, ymax``. Of several heads the largest is
    taken. A box that cannot be used is left out with one warning that counts them, or stops the run when `strict`.

    Args:
        root: the folder of ``images`` and ``annotations``.
        classes: ``breed``: the 37, in the order of their numbers, named as their files are (``American Bulldog``).
            ``species``: cat and dog.
        val_fraction: part of the images with boxes held out for validation and test: stratified by breed, and fixed by
            `seed`; the same images for both kinds of classes.
        min_visibility: part of the box's area that a step of augmentation must leave; it is drawn again otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files or images are not there; the message shows that tree and what was found.
        ValueError: for a malformed line or malformed XML; the message names file and line.

    Reference: Parkhi, Vedaldi, Zisserman, Jawahar, "Cats and Dogs", 2012.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        root: str,
        classes: PetClasses = "breed",
        val_fraction: float = 0.1,
        min_visibility: float = 0.0,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("classes", classes, get_args(PetClasses))
        check_fraction(val_fraction)
        self.root, self.classes, self.val_fraction = Path(root).expanduser(), classes, val_fraction
        self.min_visibility = min_visibility
        self._pets: Pets | None = None
        self._all: tuple[BoxSource, np.ndarray] | None = None

    @property
    def class_names(self) -> list[str]:
        """The breeds, or cat and dog."""
        return list(_SPECIES if self.classes == "species" else self._listed().breeds)

    def make_source(self, split: str) -> BoxSource:
        """The images of a split; ``test`` is ``val``."""
        if self._all is None:
            self._all = self._read()
        source, breeds = self._all
        held = stratified_split(breeds, self.val_fraction, self.seed)
        return source.part(~held if split == "train" else held)

    def _folder(self) -> Path:
        folder = self.root / "oxford-iiit-pet"
        folder = folder if folder.is_dir() else self.root
        for name in ("annotations/trainval.txt", "annotations/xmls", "images"):
            if not (folder / name).exists():
                what = f"data.init_args.root: no {'file' if '.' in name else 'folder'} {str(folder / name)!r}"
                raise layout_error(what, type(self), self.root)
        return folder

    def _listed(self) -> "Pets":
        if self._pets is None:
            self._pets = read_pets(self._folder() / "annotations" / "trainval.txt")
        return self._pets

    def _read(self) -> tuple[BoxSource, np.ndarray]:
        """The images that have a box, and the breed of each."""
        folder, pets = self._folder(), self._listed()
        paths = np.array([os.fsencode(f"{name}.jpg") for name in pets.names], np.bytes_)
        sizes = np.zeros((len(paths), 2), np.int32)
        ImageTable(folder / "images", paths, sizes, np.arange(len(paths))).check(folder / "annotations/trainval.txt")
        xmls = folder / "annotations" / "xmls"
        there = set(os.listdir(xmls))  # noqa: PTH208 - names alone
        of_image: list[int] = []
        corners: list[list[float]] = []
        for image, name in enumerate(pets.names):
            if (file := f"{name}.xml") in there:
                tree = read_xml(xmls / file)
                sizes[image] = image_size(xmls / file, tree)
                heads = [corners_of(xmls / file, n, item) for n, item in enumerate(tree.findall("object"), start=1)]
                corners += heads
                of_image += [image] * len(heads)
        without = [pets.names[image] for image in sorted(set(range(len(paths))) - set(of_image))]
        warn_of_absent(xmls, without, len(paths), "no box is published for them")
        if not of_image:
            raise ValueError(f"{xmls}: no box for any of the {len(paths)} images of trainval.txt")
        boxes, owners = np.array(corners, np.float64), np.array(of_image)
        boxes[:, :2] -= 1  # see OxfordPets
        problems = Problems(xmls, self.strict)
        names = np.array([f"{pets.names[image]}.xml" for image in of_image])
        usable = np.flatnonzero(usable_boxes(boxes, sizes[owners], names, problems, "file"))
        problems.report()
        chosen = usable[choose_objects(owners[usable], boxes[usable], "largest")]
        own = owners[chosen]
        labels = pets.species if self.classes == "species" else pets.labels
        source = BoxSource(paths[own], labels[own], boxes[chosen].astype(np.float32), folder / "images", sizes[own])
        return source, pets.labels[own]


class Pets(NamedTuple):
    """What a list of images says.

    Attributes:
        names: of the images, without suffix.
        labels: breed of each, ``[N]`` int64.
        species: 0 cat, 1 dog, ``[N]`` int64.
        breeds: the breeds' names, in the order of their numbers.
    """

    names: list[str]
    labels: np.ndarray
    species: np.ndarray
    breeds: list[str]


def read_pets(file: Path) -> Pets:
    """Read a list: the name of an image, its breed's number, its species (1 cat, 2 dog), its breed within that, a line.

    Raises:
        ValueError: for another line, an image that is listed twice, or two breeds of one number.
    """
    names: dict[str, tuple[int, int]] = {}
    breeds: dict[int, str] = {}
    for line, text in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        parts = text.split()
        if not parts or text.startswith("#"):
            continue
        name = parts[0]
        if (
            len(parts) != 4
            or not all(part.isascii() and part.isdecimal() for part in parts[1:])
            or parts[2] not in ("1", "2")
            or "/" in name
            or "\\" in name
        ):
            raise ValueError(f"{file}, line {line}: {text!r} is not a pet, such as 'Abyssinian_100 1 1 1'")
        if name in names:
            raise ValueError(f"{file}, line {line}: {name!r} is there more than once")
        names[name] = int(parts[1]), int(parts[2]) - 1
        breed = name.rpartition("_")[0].replace("_", " ").title()
        if (before := breeds.setdefault(int(parts[1]), breed)) != breed:
            raise ValueError(f"{file}, line {line}: the breed {parts[1]} is {breed!r}, and {before!r} further up")
    if not names:
        raise ValueError(f"{file}: no images in it")
    label_of = {number: label for label, number in enumerate(sorted(breeds))}
    labels = np.array([label_of[breed] for breed, _ in names.values()], np.int64)
    species = np.array([species for _, species in names.values()], np.int64)
    return Pets(list(names), labels, species, [breeds[number] for number in sorted(breeds)])
