"""Pascal VOC's detection datasets, and other datasets in their layout."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.annotation_errors import AnnotationErrors, DataError, Fault, record_error, recording
from ..annotations.argument_checks import check_choice, check_class_names, did_you_mean
from ..annotations.class_names import reject_similar_names, report_suspicious_names
from ..annotations.dataset_layout import warn_of_same_stems
from ..annotations.normalized import reject_fractions, warn_of_mixed_units, warn_of_percent
from ..annotations.objects import ImageTable, Objects, ObjectSource, image_numbers, usable_boxes
from ..annotations.one_box import UNKNOWN_SIDE
from ..annotations.similar_names import label_lookup, merged_counts
from ..base import ObjectDataModule, ObjectOptions, Unpack
from ..images.file_names import composed
from ..images.listing import is_image
from ..loading.splits import optional_val_fraction, random_split
from .layout import Entry, VocLayout, Year, unannotated_images
from .xml import ObjectAnnotations, object_names, read_annotation, unreadable

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on
ClassNames = list[str] | Literal["auto"] | None
MANY_UNKNOWN = 20
"""Minimum number of objects with one unknown name for which ``striate data check`` reports only the name."""


class VOCDetection(ObjectDataModule):
    """Objects of Pascal VOC 2007, 2012, or both, and of other data sets in VOC's layout.

    Expected layout::

        ROOT/VOCdevkit/VOC2007/ImageSets/Main/trainval.txt    (or ROOT/VOC2007/…; VOC2012 in the same way)
        ROOT/VOCdevkit/VOC2007/Annotations/000005.xml …
        ROOT/VOCdevkit/VOC2007/JPEGImages/000005.jpg …

        ROOT/ImageSets/Main/train.txt, val.txt                (a data set of your own; without them: val_fraction)
        ROOT/Annotations/a.xml …
        ROOT/JPEGImages/a.jpg …                               (or ROOT/images/a.png …)

        ROOT/a.xml, ROOT/a.jpg …                              (files side by side; or ROOT/train/…, ROOT/valid/…)

    VOC counts pixels from 1 and includes the last pixel. Boxes here lie between pixels, so ``xmin, ymin, xmax, ymax``
    becomes ``xmin - 1, ymin - 1, xmax, ymax``: the width stays the same, and the whole image is ``0, 0, W, H``. To
    write results for VOC's own evaluation, add 1 to x1 and y1.

    Objects marked ``difficult`` are kept and flagged; VOC's evaluation does not count them. A box without area or
    outside its image is left out with one warning that counts them, or stops the run if `strict`.

    Args:
        root: Folder that contains ``VOCdevkit``, or ``VOCdevkit`` itself, or the folder of a data set of your own.
        year: ``2007``: train, val and test as published. ``2012``: train and val, which is also test, since the
            objects of the test set are not public. ``07+12``: trainval of both years for training, test of 2007 for
            validation and test, as in most papers. None: the years that are there; for a data set of your own, the
            image sets ``train``, ``val`` and ``test``.
        train: Training image sets, ``YEAR_NAME`` each; ``[2007_trainval, 2007_test, 2012_trainval]`` is known as
            07++12. In a data set of your own, the names of files in ``ImageSets/Main``. None: those of `year`.
        val: Validation image sets, in the same form.
        test: Test image sets, in the same form.
        class_names: Names of the classes. ``auto``: the names in the annotations, in alphabetical order. None: VOC's
            twenty, or ``auto`` for a data set of your own.
        skip_difficult: Whether to train without difficult objects; evaluation always includes them.
        val_fraction: Fraction of the training images held out for validation if there is no image set for it,
            determined by `seed`.
        merge_similar_classes: Whether names in the annotations that differ only in case, blanks or Unicode form are
            one class; they are rejected otherwise.
        **kwargs: ``min_visibility`` and ``group_by_aspect`` of `ObjectDataModule`, and the loader options of
            `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files or images are missing; the message shows the expected layout.
        ValueError: An XML file is malformed (with file and line), or has an unknown class or an invalid box; all boxes
            are fractions of their images.

    Batches are `DetectionBatch`. An ``image_id`` is the number in the file name (2008000008 for ``2008_000008``), or
    the image's position where names are not numbers.
    """

    def __init__(
        self,
        root: str,
        year: Year | None = None,
        train: list[str] | None = None,
        val: list[str] | None = None,
        test: list[str] | None = None,
        class_names: ClassNames = None,
        skip_difficult: bool = False,
        val_fraction: float | None = None,
        merge_similar_classes: bool = False,
        **kwargs: Unpack[ObjectOptions],
    ) -> None:
        super().__init__(**kwargs)
        if year is not None:
            check_choice("year", year, get_args(Year))
        val_fraction = optional_val_fraction(val_fraction)
        if isinstance(class_names, str):
            check_choice("class_names", class_names, ("auto",))
        else:
            check_class_names(class_names)
        self.given_year, self.named_sets = year, {"train": train, "val": val, "test": test}
        self.root, self.skip_difficult, self.val_fraction = Path(root).expanduser(), skip_difficult, val_fraction
        self.given_names, self.merge_similar_classes = class_names, merge_similar_classes
        self.name_counts: Counter[str] | None = None
        self.reported_as: type = type(self)  # class that messages name and whose docstring shows the layout

    @cached_property
    def layout(self) -> VocLayout:
        """Where the files of the data set are."""
        return VocLayout(self.root, self.given_year, self.named_sets, self.reported_as)

    @cached_property
    def _names(self) -> list[str]:
        if isinstance(self.given_names, list):
            return list(self.given_names)
        if self.given_names is None and self.layout.year is not None:
            return list(VOC_CLASSES)
        self.name_counts = self._count_names()
        if self.merge_similar_classes:
            self.name_counts = merged_counts(self.name_counts)
        reject_similar_names(self.name_counts, self.root, "class_names")
        report_suspicious_names(self.name_counts, self.root, "class_names")
        return sorted(self.name_counts)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: those of the argument, VOC's twenty, or those in the annotations, alphabetically."""
        return list(self._names)

    def _count_names(self) -> Counter[str]:
        """Count the objects with each name in all splits.

        Raises:
            DataError: There is no object.
        """
        splits = [split for split in ("train", "val", "test") if self.layout.has(split)]
        files = {entry.annotation for split in splits for entry in self._entries(split)}
        counts = Counter(name for file in sorted(files) for name in object_names(file))
        counts.pop("", None)  # reported when it is read
        if not counts:
            if (error := unreadable(sorted(files))) is not None:
                raise DataError(f"class_names: cannot be read from the annotations: {error}") from error
            raise DataError(f"class_names: no named object in the {len(files)} annotation files of {str(self.root)!r}")
        return counts

    def _entries(self, split: str) -> list[Entry]:
        return [entry for image_set in self.layout.image_sets(split) for entry in self.layout.entries(image_set)]

    def _warn_about_unannotated(self, split: str) -> None:
        """Warn about images without XML file where no image set says which images are meant."""
        homes = [image_set.home for image_set in self.layout.image_sets(split) if image_set.file is None]
        images = [image for home in homes for image in unannotated_images(home)]
        if images and not recording():  # `striate data check` finds them as orphan-image
            rank_zero_warn(
                f"{len(images)} images of {self.root} left out (no XML file, first: {images[0]}); list them in "
                "ImageSets/Main and write an XML file without objects if they have none"
            )

    def make_source(self, split: str) -> ObjectSource:
        """Return the images of a split with their objects."""
        held_out = split == "val" and self.val_fraction is not None
        if self.val_fraction is not None and self.layout.has("val"):
            names = ", ".join(image_set.name for image_set in self.layout.image_sets("val"))
            raise ValueError(
                f"val_fraction: must be null, since {str(self.root)!r} has images for validation ({names}), got "
                f"{self.val_fraction}"
            )
        self._warn_about_unannotated("train" if held_out else split)
        entries = self._entries("train" if held_out else split)
        skip_difficult = self.skip_difficult and split == "train"
        source = read_voc(
            self.layout.base, entries, self._names, skip_difficult, self.strict, self.merge_similar_classes
        )
        if split in ("train", "val") and self.val_fraction is not None:
            mask = random_split(len(source), self.val_fraction, self.seed)
            source.selected = source.selected[mask == held_out]
        return source


def read_voc(
    base: Path,
    entries: Sequence[Entry],
    class_names: Sequence[str],
    skip_difficult: bool = False,
    strict: bool = False,
    merge: bool = False,
) -> ObjectSource:
    """Read the annotations of images.

    Args:
        base: Folder that the names of the images are relative to.
        entries: Images and their annotation files.
        class_names: Classes.
        skip_difficult: Whether to leave out difficult objects.
        strict: Whether to stop at a box that cannot be used, instead of counting it.
        merge: Whether names may differ from those of the classes in case, blanks and Unicode form.
    """
    images = _image_table(base, entries)
    images.check(base)
    _warn_about_same_stems(base, entries)
    label_of = label_lookup(class_names, merge)
    contents_of = ((entry, _read_or_record(base, entry, class_names, label_of)) for entry in entries)
    annotations = {entry: content for entry, content in contents_of if content is not None}
    _report_unknown(base, annotations, class_names)
    if len(annotations) < len(entries):  # only while faults are recorded, or for an image that is listed twice
        entries = [entry for entry in entries if entry in annotations]
        images = _image_table(base, entries)
    contents = [annotations[entry] for entry in entries]
    images.sizes[:] = np.array([content.size for content in contents], np.int32).reshape(-1, 2)
    images.sizes[:] = images.measured()
    image_of = np.repeat(np.arange(len(entries)), [len(content.labels) for content in contents])
    corners = np.array([box for content in contents for box in content.boxes], np.float64).reshape(-1, 4)
    labels = np.array([label for content in contents for label in content.labels], np.int32)
    difficult = np.array([flag for content in contents for flag in content.difficult], np.bool_)
    places = [
        f"{_within(base, entry.annotation)}, object {number}"
        for entry, content in zip(entries, contents, strict=True)
        for number in content.numbers
    ]
    if reject_fractions(corners, images.sizes[image_of], base, "bndbox", "write them in pixels"):
        kept = np.zeros(len(corners), np.bool_)
        image_of, corners, labels, difficult, places = image_of[kept], corners[kept], labels[kept], difficult[kept], []
    warn_of_mixed_units(corners, images.sizes[image_of], False, base, places, "file")
    warn_of_percent(corners, images.sizes[image_of], base, "bndbox")
    _warn_about_points(corners, images.sizes[image_of], places, base)
    corners[:, :2] -= 1  # see VOCDetection
    errors = AnnotationErrors(base, strict, lambda number: str(images.path(image_of[number])))
    limits = np.where(images.sizes == 0, UNKNOWN_SIDE, images.sizes)[image_of]  # of an unreadable image
    usable = usable_boxes(corners, limits, np.array(places), errors, "file")
    errors.warn()
    skipped = usable & difficult if skip_difficult else np.zeros(len(usable), np.bool_)
    usable &= ~skipped
    objects = Objects.grouped(
        len(entries), image_of[usable], corners[usable], labels[usable], difficult=difficult[usable], errors=errors
    )
    if skipped.any():
        left_out = f"{int(skipped.sum())} x difficult (skip_difficult: true)"
        objects = replace(objects, left_out="; ".join(filter(None, (objects.left_out, left_out))))
    return ObjectSource(images, objects)


def _warn_about_same_stems(base: Path, entries: Sequence[Entry]) -> None:
    """Warn about images that share an annotation file with another one, which is not read."""
    read: dict[Path, set[str]] = {}
    for entry in entries:
        folder, name = (base / entry.image).parent, Path(entry.image).stem
        read.setdefault(folder, set()).add(composed(name))
    for folder, stems in read.items():
        names = filter(is_image, os.listdir(folder) if folder.is_dir() else [])  # noqa: PTH208 - a hundred thousand
        alike = [name for name in names if composed(Path(name).stem) in stems]
        warn_of_same_stems(folder, alike, "of which the .jpg, or else the first, is read")


def _image_table(base: Path, entries: Sequence[Entry]) -> ImageTable:
    names = [entry.image for entry in entries]
    return ImageTable.of_names(base, names, ids=image_numbers([Path(name).stem for name in names]))


def _within(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)


def _read_or_record(
    base: Path, entry: Entry, class_names: Sequence[str], label_of: Callable[[str], int | None]
) -> ObjectAnnotations | None:
    """Read the annotation of an image; return None if it cannot be used and faults are recorded."""
    path = entry.annotation
    try:
        content = read_annotation(path, label_of)
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, DataError) and not recording() and error.fault is not None:
            raise
        code, found = "annotation-file", str(error).removeprefix(str(path)).lstrip(":, ")
        if isinstance(error, FileNotFoundError):
            code, found = "missing-annotation", "no such file, but its image is in the image set"
        record_error(Fault(code, path, [str(path)], "path", found, images=[str(base / entry.image)]))
        return None
    if content.unknown and not recording():
        number, name = content.unknown[0]
        record_error(Fault("label-outside", path, [number], "object", f"{name!r}", _unknown_remedy(name, class_names)))
    return content


def _unknown_remedy(name: str, class_names: Sequence[str]) -> str:
    return (
        f"set class_names if it is not one of these {len(class_names)}; class_names: auto takes the names in the "
        f"annotations{did_you_mean(name, class_names)}"
    )


def _report_unknown(base: Path, annotations: dict[Entry, ObjectAnnotations], class_names: Sequence[str]) -> None:
    """Record the objects whose names are not classes; a name of many objects is recorded once, with their number."""
    places: dict[str, list[tuple[Path, int]]] = {}
    for entry, content in annotations.items():
        for number, name in content.unknown:
            places.setdefault(name, []).append((entry.annotation, number))
    for name, found in places.items():
        remedy = _unknown_remedy(name, class_names)
        if len(found) > MANY_UNKNOWN:
            path, number = found[0]
            entries = [f"{len(found):,} objects, the first: {_within(base, path)}, object {number}"]
            record_error(Fault("label-outside", base, entries, "entry", f"{name!r}; {remedy}"))
        else:
            for path, number in found:
                record_error(Fault("label-outside", path, [number], "object", f"{name!r}", remedy))


def _warn_about_points(corners: np.ndarray, sizes: np.ndarray, places: Sequence[str], base: Path) -> None:
    """Warn about boxes ``[N, 4]`` as written that are one pixel of images of sizes ``[N, 2]``, often a click."""
    points = np.flatnonzero(((corners[:, :2] == corners[:, 2:]) & (sizes > 1)).any(axis=1))
    if len(points) and not recording():  # `striate data check` finds them as box-tiny
        rank_zero_warn(
            f"{len(points)} of {len(corners)} boxes of {base} are one pixel wide or high (xmin = xmax or ymin = ymax, "
            f"first: {places[points[0]]}) and are trained on; run striate data check to see them"
        )
