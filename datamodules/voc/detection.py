"""Pascal VOC's detection datasets, and other datasets in their layout."""

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
from ..annotations.argument_checks import check_choice
from ..annotations.objects import ImageTable, Objects, ObjectSource, confined, image_numbers, usable_boxes
from ..base import ObjectDataModule, ObjectOptions, Unpack
from .image_sets import voc_layout_error
from .xml import ObjectAnnotations, read_annotation

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
Year = Literal["2007", "2012", "07+12"]

_SETS: dict[str, dict[str, list[str]]] = {
    "2007": {"train": ["2007_train"], "val": ["2007_val"], "test": ["2007_test"]},
    "2012": {"train": ["2012_train"], "val": ["2012_val"], "test": ["2012_val"]},
    "07+12": {"train": ["2007_trainval", "2012_trainval"], "val": ["2007_test"], "test": ["2007_test"]},
}


class VOCDetection(ObjectDataModule):
    """Objects of Pascal VOC 2007, 2012, or both.

    Expected layout::

        ROOT/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt    (or ROOT/VOC2007/…; VOC2012 in the same way)
        ROOT/VOCdevkit/VOC2007/Annotations/000005.xml …
        ROOT/VOCdevkit/VOC2007/JPEGImages/000005.jpg …

    VOC counts pixels from 1 and includes the last pixel. Boxes here lie between pixels, so ``xmin, ymin, xmax, ymax``
    becomes ``xmin - 1, ymin - 1, xmax, ymax``: the width stays the same, and the whole image is ``0, 0, W, H``. To
    write results for VOC's own evaluation, add 1 to x1 and y1.

    Objects marked ``difficult`` are kept and flagged; VOC's evaluation does not count them. A box without area or
    outside its image is left out with one warning that counts them, or stops the run if `strict`.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself.
        year: ``2007``: train, val and test as published. ``2012``: train and val, which is also test, since the
            objects of the test set are not public. ``07+12``: trainval of both years for training, test of 2007 for
            validation and test, as in most papers.
        train: Training image sets, ``YEAR_NAME`` each; ``[2007_trainval, 2007_test, 2012_trainval]`` is known as
            07++12. None: those of `year`.
        val: Validation image sets, in the same form.
        test: Test image sets, in the same form.
        class_names: Classes of another dataset in this layout; None: VOC's twenty.
        skip_difficult: Whether to train without difficult objects; evaluation always includes them.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: An XML file is malformed (with file and line), or has an unknown class or an invalid box.

    Batches are `DetectionBatch`. An ``image_id`` is the number in the file name (2008000008 for ``2008_000008``).
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
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_choice("year", year, get_args(Year))
        sets = {"train": train, "val": val, "test": test}
        self.sets = {split: sets[split] or default for split, default in _SETS[year].items()}
        for split, names in self.sets.items():
            if invalid := [name for name in names if not all(name.partition("_")[::2])]:
                raise ValueError(f"{split}: image sets must be YEAR_NAME, such as 2007_trainval, got {invalid[0]!r}")
        self.root, self.skip_difficult = Path(root).expanduser(), skip_difficult
        self._names = list(VOC_CLASSES if class_names is None else class_names)
        self.reported_as: type = type(self)  # class that messages name and whose docstring shows the layout

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: VOC's twenty in alphabetical order, or those of the argument."""
        return list(self._names)

    def make_source(self, split: str) -> ObjectSource:
        """Return the images of a split with their objects."""
        devkit = self.root / "VOCdevkit" if (self.root / "VOCdevkit").is_dir() else self.root
        names: list[str] = []
        for year, _, image_set in (name.partition("_") for name in self.sets[split]):
            file = devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{image_set}.txt"
            if not file.is_file():
                raise voc_layout_error(f"no file {str(file)!r}", self.reported_as, self.root, AbsentSplitError)
            # the list of a class has a second column: -1, 0 or 1
            stems = [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if not stems:
                raise ValueError(f"{file}: must have at least one image, got an empty list")
            if outside := [stem for stem in stems if not confined(stem)]:
                record_error(Fault("bad-target", file, outside, "image", OUTSIDE, "name it as in JPEGImages"))
            names += [f"VOC{year}/JPEGImages/{stem}.jpg" for stem in stems if confined(stem)]
        skip_difficult = self.skip_difficult and split == "train"
        return read_voc(devkit, names, self._names, skip_difficult, self.strict)


def read_voc(
    devkit: Path, names: Sequence[str], class_names: Sequence[str], skip_difficult: bool = False, strict: bool = False
) -> ObjectSource:
    """Read the annotations of images.

    Args:
        devkit: Folder that `names` are relative to.
        names: Images, such as ``VOC2007/JPEGImages/000005.jpg``, annotated in ``VOC2007/Annotations/000005.xml``.
        class_names: Classes.
        skip_difficult: Whether to leave out difficult objects.
        strict: Whether to stop at a box that cannot be used, instead of counting it.
    """
    images = _image_table(devkit, names)
    images.check(devkit)
    label_of = {name: label for label, name in enumerate(class_names)}
    annotations = {name: content for name in names if (content := _read_or_record(devkit, name, label_of)) is not None}
    if len(annotations) < len(names):  # only while faults are recorded, or for an image that is listed twice
        names = [name for name in names if name in annotations]
        images = _image_table(devkit, names)
    contents = [annotations[name] for name in names]
    images.sizes[:] = np.array([content.size for content in contents], np.int32).reshape(-1, 2)
    image_of = np.repeat(np.arange(len(names)), [len(content.labels) for content in contents])
    corners = np.array([box for content in contents for box in content.boxes], np.float64).reshape(-1, 4)
    corners[:, :2] -= 1  # see VOCDetection
    labels = np.array([label for content in contents for label in content.labels], np.int32)
    difficult = np.array([flag for content in contents for flag in content.difficult], np.bool_)
    places = [
        f"{_annotation_file(Path(), name)}, object {number}"
        for name, content in zip(names, contents, strict=True)
        for number in content.numbers
    ]
    errors = AnnotationErrors(devkit, strict, lambda number: str(images.path(image_of[number])))
    usable = usable_boxes(corners, images.sizes[image_of], np.array(places), errors, "file")
    errors.warn()
    if skip_difficult:
        usable &= ~difficult
    objects = Objects.grouped(
        len(names), image_of[usable], corners[usable], labels[usable], difficult=difficult[usable]
    )
    return ObjectSource(images, objects)


def _image_table(devkit: Path, names: Sequence[str]) -> ImageTable:
    return ImageTable.of_names(devkit, names, ids=image_numbers([Path(name).stem for name in names]))


def _read_or_record(devkit: Path, name: str, label_of: dict[str, int]) -> ObjectAnnotations | None:
    """Read the annotation of an image; return None if it cannot be used and faults are recorded."""
    path = _annotation_file(devkit, name)
    try:
        return read_annotation(path, label_of)
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, DataError) and not recording():
            raise
        code, found = "annotation-file", str(error).removeprefix(str(path)).lstrip(":, ")
        if isinstance(error, FileNotFoundError):
            code, found = "missing-annotation", "no such file, but its image is in the image set"
        record_error(Fault(code, path, [str(path)], "path", found, images=[str(devkit / name)]))
        return None


def _annotation_file(devkit: Path, name: str) -> Path:
    """Return the annotation file of an image ``VOC2007/JPEGImages/000005.jpg``."""
    return devkit / Path(name).parent.parent / "Annotations" / f"{Path(name).stem}.xml"
