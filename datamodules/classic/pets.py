"""Oxford-IIIT Pet: heads of cats and dogs, in the layout of the publisher's archives."""

import os
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors
from ..annotations.argument_checks import check_choice
from ..annotations.dataset_layout import encode_paths, layout_error
from ..annotations.objects import ImageTable, usable_boxes
from ..annotations.one_box import BoxSource, select_objects, warn_about_missing_boxes
from ..annotations.text_files import read_text
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import check_val_fraction, stratified_split
from ..voc.xml import corners_of, image_size, read_xml

PetClasses = Literal["breed", "species"]

_SPECIES = ["cat", "dog"]


class OxfordPets(VisionDataModule):
    """Oxford-IIIT Pet: photographs of 37 breeds of cats and dogs, each with the box of the animal's *head*.

    Expected layout::

        ROOT/images/Abyssinian_1.jpg …
        ROOT/annotations/trainval.txt
        ROOT/annotations/xmls/Abyssinian_1.xml …    (or all of it in ROOT/oxford-iiit-pet)

    Boxes are published only for images of ``trainval.txt``, and not for all of them; images without a box are left out
    with one warning that counts them. The images of ``test.txt`` have no boxes, so **the test split here is the
    validation set**, held out of the images with boxes: do not report results on it after selecting models by it.

    The boxes are read as VOC's, which count pixels from 1 and include the last pixel: ``xmin, ymin, xmax, ymax``
    becomes ``xmin - 1, ymin - 1, xmax, ymax``. Of several heads, the largest is used. A box that cannot be used is left
    out with one warning that counts them, or stops the run if `strict`.

    Args:
        root: Folder that contains ``images`` and ``annotations``.
        classes: ``breed``: the 37 breeds, in the order of their numbers, named by the file names (``American
            Bulldog``). ``species``: cat and dog.
        val_fraction: Fraction of the images with boxes held out for validation and test, stratified by breed and
            determined by `seed`; the same images for both kinds of classes.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: A line or an XML file is malformed; the message names file and line.

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
        check_val_fraction(val_fraction)
        self.root, self.classes, self.val_fraction = Path(root).expanduser(), classes, val_fraction
        self.min_visibility = min_visibility
        self._pets: Pets | None = None
        self._all: tuple[BoxSource, np.ndarray] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the breeds, or cat and dog."""
        return list(_SPECIES if self.classes == "species" else self._read_list().breeds)

    def make_source(self, split: str) -> BoxSource:
        """Return the images of a split; ``test`` is ``val``."""
        if self._all is None:
            self._all = self._read()
        source, breeds = self._all
        held_out = stratified_split(breeds, self.val_fraction, self.seed)
        return source.part(~held_out if split == "train" else held_out)

    def _folder(self) -> Path:
        folder = self.root / "oxford-iiit-pet"
        folder = folder if folder.is_dir() else self.root
        for name in ("annotations/trainval.txt", "annotations/xmls", "images"):
            if not (folder / name).exists():
                problem = f"root: no {'file' if '.' in name else 'folder'} {str(folder / name)!r}"
                raise layout_error(problem, type(self), self.root)
        return folder

    def _read_list(self) -> "Pets":
        if self._pets is None:
            self._pets = read_pets(self._folder() / "annotations" / "trainval.txt")
        return self._pets

    def _read(self) -> tuple[BoxSource, np.ndarray]:
        """Read the images that have a box, and the breed of each: ``[N]`` int64."""
        folder, pets = self._folder(), self._read_list()
        paths = encode_paths(f"{name}.jpg" for name in pets.names)
        sizes = np.zeros((len(paths), 2), np.int32)
        ImageTable(folder / "images", paths, sizes, np.arange(len(paths))).check(folder / "annotations/trainval.txt")
        xmls = folder / "annotations" / "xmls"
        files = set(os.listdir(xmls))  # noqa: PTH208 - names alone
        image_of: list[int] = []
        corners: list[list[float]] = []
        for image, name in enumerate(pets.names):
            if (file := f"{name}.xml") in files:
                tree = read_xml(xmls / file)
                sizes[image] = image_size(xmls / file, tree)
                heads = [corners_of(xmls / file, n, item) for n, item in enumerate(tree.findall("object"), start=1)]
                corners += heads
                image_of += [image] * len(heads)
        without = [pets.names[image] for image in sorted(set(range(len(paths))) - set(image_of))]
        warn_about_missing_boxes(xmls, without, len(paths), "no box is published for them")
        if not image_of:
            raise ValueError(f"{xmls}: no box for any of the {len(paths)} images of trainval.txt")
        boxes, images = np.array(corners, np.float64), np.array(image_of)
        boxes[:, :2] -= 1  # see OxfordPets
        errors = AnnotationErrors(xmls, self.strict)
        names = np.array([f"{pets.names[image]}.xml" for image in image_of])
        usable = np.flatnonzero(usable_boxes(boxes, sizes[images], names, errors, "file"))
        errors.warn()
        selected = usable[select_objects(images[usable], boxes[usable], "largest")]
        kept = images[selected]
        labels = pets.species if self.classes == "species" else pets.labels
        source = BoxSource(
            paths[kept], labels[kept], boxes[selected].astype(np.float32), folder / "images", sizes[kept]
        )
        return source, pets.labels[kept]


class Pets(NamedTuple):
    """Content of a list of images.

    Attributes:
        names: Names of the images, without suffix.
        labels: Breed of each image, ``[N]`` int64.
        species: 0 cat, 1 dog, ``[N]`` int64.
        breeds: Names of the breeds, in the order of their numbers.
    """

    names: list[str]
    labels: np.ndarray
    species: np.ndarray
    breeds: list[str]


def read_pets(file: Path) -> Pets:
    """Read a list of images: name, number of the breed, species (1 cat, 2 dog), and breed within the species per line.

    Raises:
        ValueError: A line has another form, an image occurs twice, or two breeds share a number.
    """
    images: dict[str, tuple[int, int]] = {}
    breeds: dict[int, str] = {}
    for line, text in enumerate(read_text(file).splitlines(), start=1):
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
            raise ValueError(f"{file}, line {line}: must be an image such as 'Abyssinian_100 1 1 1', got {text!r}")
        if name in images:
            raise ValueError(f"{file}, line {line}: each image must be unique, got {name!r} more than once")
        images[name] = int(parts[1]), int(parts[2]) - 1
        breed = name.rpartition("_")[0].replace("_", " ").title()
        if (earlier := breeds.setdefault(int(parts[1]), breed)) != breed:
            raise ValueError(f"{file}, line {line}: breed {parts[1]} was {earlier!r} before, got {breed!r}")
    if not images:
        raise ValueError(f"{file}: must have at least one image, got an empty list")
    label_of = {number: label for label, number in enumerate(sorted(breeds))}
    labels = np.array([label_of[breed] for breed, _ in images.values()], np.int64)
    species = np.array([species for _, species in images.values()], np.int64)
    return Pets(list(images), labels, species, [breeds[number] for number in sorted(breeds)])
