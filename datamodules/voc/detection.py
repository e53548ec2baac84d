"""Pascal VOC's detection sets, and whatever else is annotated in their layout."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from ..annotations.annotation_errors import (
    OUTSIDE,
    AbsentSplitError,
    AnnotationErrors,
    DataError,
    Fault,
    record_error,
    recording,
)
from ..annotations.argument_checks import did_you_mean
from ..annotations.objects import ImageTable, Objects, ObjectSource, confined, usable_boxes
from ..base import LoaderOptions, Unpack, VisionDataModule
from .image_sets import voc_layout_error
from .xml import ObjectAnnotations, read_annotation

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
Year = Literal["2007", "2012", "07+12"]

_SETS: dict[str, dict[str, list[str]]] = {
    "2007": {"train": ["2007_train"], "val": ["2007_val"], "test": ["2007_test"]},
    "2012": {"train": ["2012_train"], "val": ["2012_val"], "test": ["2012_val"]},
    "07+12": {"train": ["2007_trainval", "2012_trainval"], "val": ["2007_test"], "test": ["2007_test"]},
}


class VOCDetection(VisionDataModule):
    """Objects of Pascal VOC 2007, 2012, or both.

    Expected layout::

        ROOT/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt    (or ROOT/VOC2007/…; VOC2012 likewise)
        ROOT/VOCdevkit/VOC2007/Annotations/000005.xml …
        ROOT/VOCdevkit/VOC2007/JPEGImages/000005.jpg …

    VOC counts pixels from 1 and names the first and the last one inside: ``xmin, ymin, xmax, ymax``. Here a box lies
    between pixels, so it becomes ``xmin - 1, ymin - 1, xmax, ymax``: as wide as before, and the whole image is
    ``0, 0, W, H``. To write results for VOC's own evaluation add 1 to x1 and y1.

    Objects marked ``difficult`` are kept and flagged; VOC's evaluation does not count them. A box of no area or
    outside its image is left out, with one warning that counts them, or stops the run when `strict`.

    Args:
        root: the folder of ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: ``2007``: train, val and test as published. ``2012``: train and val, which is test too (the test set's
            objects are not public). ``07+12``: both years' trainval to train, 2007's test for val and test, as most
            papers do.
        train, val, test: image sets of one's own choice, ``YEAR_NAME`` each: ``[2007_trainval, 2007_test,
            2012_trainval]`` is known as 07++12. None: by `year`.
        class_names: of another data set in this layout; None: VOC's twenty.
        skip_difficult: train without difficult objects; evaluation always has them.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files or images are not there; the message shows that tree and what was found.
        ValueError: for malformed XML (file and line), a class that is not known, a box that is no box.

    Batches are `DetectionBatch`. An ``image_id`` is the number in the file's name (``2008_000008``: 2008000008).
    """

    def __init__(
        self,
        root: str,
        year: Year = "07+12",
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        class_names: list[str] | None = None,
        skip_difficult: bool = False,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        if year not in get_args(Year):
            raise ValueError(
                f"data.init_args.year: {year!r} is not one of {', '.join(map(repr, get_args(Year)))}"
                f"{did_you_mean(str(year), get_args(Year))}"
            )
        given = {"train": train, "val": val, "test": test}
        self.sets = {split: given[split] or sets for split, sets in _SETS[year].items()}
        for split, sets in self.sets.items():
            if wrong := [name for name in sets if not all(name.partition("_")[::2])]:
                raise ValueError(f"data.init_args.{split}: {wrong[0]!r} is not YEAR_NAME, such as 2007_trainval")
        self.root, self.skip_difficult, self.min_visibility = Path(root).expanduser(), skip_difficult, min_visibility
        self.group_by_aspect = group_by_aspect
        self._names = list(VOC_CLASSES if class_names is None else class_names)
        self.reported_as: type = type(self)  # class that messages name and whose docstring shows the layout

    @property
    def class_names(self) -> list[str]:
        """The twenty classes in alphabetical order, or those given."""
        return list(self._names)

    @property
    def variable_size_images(self) -> bool:
        """True: images differ in size."""
        return True

    def make_source(self, split: str) -> ObjectSource:
        """The images of a split."""
        devkit = self.root / "VOCdevkit" if (self.root / "VOCdevkit").is_dir() else self.root
        names: list[str] = []
        for chosen in self.sets[split]:
            year, _, image_set = chosen.partition("_")
            file = devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{image_set}.txt"
            if not file.is_file():
                raise voc_layout_error(f"no file {str(file)!r}", self.reported_as, self.root, AbsentSplitError)
            # a line of a class's own list has a second column: -1, 0 or 1
            lines = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not lines:
                raise ValueError(f"{file}: no images in it")
            if wrong := [line for line in lines if not confined(line)]:
                record_error(Fault("bad-target", file, wrong, "image", OUTSIDE, "name it as in JPEGImages"))
            lines = [line for line in lines if confined(line)]
            names += [f"VOC{year}/JPEGImages/{line}.jpg" for line in lines]
        drop = self.skip_difficult and split == "train"
        return read_voc(devkit, names, self._names, drop, self.strict)


def read_voc(
    devkit: Path, names: Sequence[str], class_names: Sequence[str], skip_difficult: bool = False, strict: bool = False
) -> ObjectSource:
    """The objects of some images.

    Args:
        devkit: what `names` are relative to.
        names: ``VOC2007/JPEGImages/000005.jpg``; the annotations are in ``VOC2007/Annotations/000005.xml``.
        class_names: the classes.
        skip_difficult: leave out difficult objects.
        strict: stop at a box that cannot be used, instead of counting it.
    """
    images = _table(devkit, names)
    images.check(devkit)
    number_of = {name: number for number, name in enumerate(class_names)}
    found = {name: parsed for name in names if (parsed := _parse_or_record(devkit, name, number_of)) is not None}
    if len(found) < len(names):  # only while faults are recorded, or for an image listed twice
        names = [name for name in names if name in found]
        images = _table(devkit, names)
    boxes: list[list[float]] = []
    labels: list[int] = []
    difficult: list[bool] = []
    counts, where = np.empty(len(names), np.int64), []
    for image, name in enumerate(names):
        parsed = found[name]
        images.sizes[image], counts[image] = parsed.size, len(parsed.labels)
        boxes += parsed.boxes
        labels += parsed.labels
        difficult += parsed.difficult
        file = str(_xml(Path(), name))
        where += [f"{file}, object {number}" for number in parsed.numbers]
    of_image = np.repeat(np.arange(len(names)), counts)
    corners = np.array(boxes, np.float64).reshape(-1, 4)
    corners[:, :2] -= 1  # see VOCDetection
    errors = AnnotationErrors(devkit, strict, lambda number: str(images.path(of_image[number])))
    usable = usable_boxes(corners, images.sizes[of_image], np.array(where), errors, "file")
    errors.warn()
    flags = np.array(difficult, np.bool_)
    if skip_difficult:
        usable &= ~flags
    kept = corners[usable].astype(np.float32)
    objects = Objects(
        np.searchsorted(of_image[usable], np.arange(len(names) + 1)),
        kept,
        np.array(labels, np.int32)[usable],
        np.zeros(len(kept), np.bool_),
        flags[usable],
        (kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1]),
    )
    return ObjectSource(images, objects)


def image_numbers(stems: Sequence[str]) -> np.ndarray:
    """The numbers that files are named by, or else their places: int64 ``[M]``."""
    digits = [stem.replace("_", "") for stem in stems]
    # isdecimal takes other scripts' digits too, as int does; 18 digits fit into int64
    if all(text.isdecimal() and len(text) <= 18 for text in digits) and len(set(map(int, digits))) == len(digits):
        return np.array([int(text) for text in digits], np.int64)
    return np.arange(len(stems))


def _table(devkit: Path, names: Sequence[str]) -> ImageTable:
    """The images, whose sizes are to be filled in."""
    return ImageTable(
        devkit,
        np.array([os.fsencode(name) for name in names], np.bytes_),
        np.empty((len(names), 2), np.int32),
        image_numbers([Path(name).stem for name in names]),
    )


def _parse_or_record(devkit: Path, name: str, number_of: dict[str, int]) -> ObjectAnnotations | None:
    """The annotation of an image; None if it cannot be used and faults are recorded."""
    path = _xml(devkit, name)
    try:
        return read_annotation(path, number_of)
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, DataError) and not recording():
            raise
        code = "missing-annotation" if isinstance(error, FileNotFoundError) else "annotation-file"
        found = str(error).removeprefix(str(path)).lstrip(":, ")
        if code == "missing-annotation":
            found = "no such file, but its image is in the image set"
        record_error(Fault(code, path, [str(path)], "path", found, images=[str(devkit / name)]))
        return None


def _xml(devkit: Path, name: str) -> Path:
    """The annotation file of an image ``VOC2007/JPEGImages/000005.jpg``."""
    return devkit / Path(name).parent.parent / "Annotations" / f"{Path(name).stem}.xml"
