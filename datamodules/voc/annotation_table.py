"""Pascal VOC's image sets and XML as an `AnnotationTable`, read and written."""

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..annotations.annotation_errors import OUTSIDE, record_faults
from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, rounded, write_lines
from ..annotations.flags import FLAG_RULE, read_flag
from ..annotations.text_files import parse_decimal
from ..images.sizes import image_sizes
from .layout import ImageSet, VocLayout
from .xml import name_of, read_xml, repeated_tag, stated_size

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ORIGIN = np.array([1.0, 1.0, 0.0, 0.0])  # VOC counts pixels from 1 and includes the last one


class _VocImage(NamedTuple):
    """Name of an image without suffix, its annotation file, and the parsed content of that."""

    stem: str
    file: Path
    content: Any


def read_voc_table(
    layout: VocLayout, image_set: ImageSet, label_of: Callable[[str], int | None], excluded: Collection[str]
) -> AnnotationTable:
    """Read an image set, and the annotation files of its images that are not `excluded`.

    Args:
        layout: Where the files are.
        image_set: The image set.
        label_of: Returns the label of a class name; None: not a class.
        excluded: Images whose annotations are not read, by path.
    """
    table = AnnotationTable([])
    file = image_set.file or image_set.home.annotations
    with record_faults() as faults:
        entries = layout.entries(image_set)
    for stem in (name for fault in faults for name in fault.names):
        path = os.path.abspath(image_set.home.images / f"{stem}.jpg")  # noqa: PTH100
        item = _VocImage(stem, image_set.home.annotations / f"{stem}.xml", None)
        table.images.append(ImageEntry(file, f"image {stem}", path, item=item, fault=Reason("bad-target", OUTSIDE)))
    for entry in entries:
        path = os.path.abspath(layout.base / entry.image)  # noqa: PTH100
        stem = os.path.splitext(os.path.relpath(layout.base / entry.image, image_set.home.images))[0]  # noqa: PTH122
        image = ImageEntry(file, f"image {stem}", path, item=_VocImage(stem, entry.annotation, None))
        table.images.append(image)
        if path not in excluded:
            try:
                content = read_xml(entry.annotation)
                size = stated_size(entry.annotation, content)
                image.size = size if all(size) else tuple(image_sizes([path])[0].tolist())
            except (OSError, ValueError) as error:  # of a split that was not checked
                image.fault = Reason("annotation-file", str(error))
                continue
            image.item = _VocImage(stem, entry.annotation, content)
            items = enumerate(content.findall("object"), start=1)
            table.objects += [_read_object(image, number, item, label_of) for number, item in items]
    return table


def _read_object(
    image: ImageEntry, number: int, item: ElementTree.Element, label_of: Callable[[str], int | None]
) -> ObjectEntry:
    name, label = name_of(item), label_of(name_of(item))
    sides = [item.findtext(f"bndbox/{side}") or "" for side in _SIDES]
    entry = ObjectEntry(image, f"object {number}", f"bndbox {', '.join(sides)}", label, item=item, file=image.item.file)
    if label is None:
        entry.fault = Reason("label-outside", f"class {name!r}")
    try:
        entry.box = np.array([parse_decimal(side) for side in sides]) - _ORIGIN
    except ValueError:
        entry.fault = entry.fault or Reason("unusable-annotation", "a side of its box is not a number")
    if (tag := repeated_tag(item)) is not None:
        entry.fault = entry.fault or Reason("unusable-annotation", f"{tag} must occur once")
    if read_flag(item.findtext("difficult")) is None:
        entry.fault = entry.fault or Reason("unusable-annotation", f"difficult {FLAG_RULE}")
    return entry


def write_voc_table(table: AnnotationTable, home: Path, name: str) -> None:
    """Write an image set and its annotation files; those without a change are copied verbatim."""
    write_lines(home / "ImageSets" / "Main" / name, [image.item.stem for image in table.images])
    for image, entries in table.objects_of().items():
        stem, file, root = image.item
        link(image.path, (home / "JPEGImages" / stem).with_name(Path(image.path).name))
        copy = home / "Annotations" / f"{stem}.xml"
        copy.parent.mkdir(parents=True, exist_ok=True)
        kept = {entry.item for entry in entries}
        dropped = [item for item in root.findall("object") if item not in kept]
        for item in dropped:
            root.remove(item)
        for entry in entries:
            if entry.changed:
                for side, value in zip(_SIDES, entry.box + _ORIGIN, strict=True):
                    entry.item.find(f"bndbox/{side}").text = str(rounded(value))
        if dropped or any(entry.changed for entry in entries):
            ElementTree.ElementTree(root).write(copy, encoding="utf-8")
        else:
            shutil.copyfile(file, copy)
