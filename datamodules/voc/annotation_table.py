"""Pascal VOC's image sets and XML as an `AnnotationTable`, read and written."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..annotations.annotation_errors import OUTSIDE
from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, rounded, write_lines
from ..annotations.objects import confined

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ORIGIN = np.array([1.0, 1.0, 0.0, 0.0])  # VOC counts pixels from 1 and includes the last one


class _VocImage(NamedTuple):
    """Line of an image in its image set, its annotation file, and the parsed content of that."""

    line: str
    file: Path
    content: Any


def read_voc_table(file: Path, home: Path, class_names: list[str], excluded: Collection[str]) -> AnnotationTable:
    """Read an image set, and the annotation files of its images that are not `excluded`.

    Args:
        file: The image set.
        home: Folder of its year.
        class_names: Names of the classes.
        excluded: Images whose annotations are not read, by path.
    """
    table = AnnotationTable([])
    for line in filter(str.strip, file.read_text(encoding="utf-8").splitlines()):
        stem = line.split()[0]
        path = os.path.abspath(home / "JPEGImages" / f"{stem}.jpg")  # noqa: PTH100
        image = ImageEntry(file, f"image {stem}", path)
        annotation = home / "Annotations" / f"{stem}.xml"
        image.item = _VocImage(line, annotation, None)
        table.images.append(image)
        if not confined(stem):
            image.fault = Reason("bad-target", OUTSIDE)
        elif path not in excluded:
            try:
                content = ElementTree.parse(annotation)
                image.size = int(content.findtext("size/width") or 0), int(content.findtext("size/height") or 0)
            except (OSError, ValueError, ElementTree.ParseError) as error:  # of a split that was not checked
                image.fault = Reason("annotation-file", str(error))
                continue
            image.item = _VocImage(line, annotation, content)
            items = enumerate(content.findall("object"), start=1)
            table.objects += [_read_object(image, number, item, class_names) for number, item in items]
    return table


def _read_object(image: ImageEntry, number: int, item: ElementTree.Element, class_names: list[str]) -> ObjectEntry:
    name = (item.findtext("name") or "").strip()
    sides = [item.findtext(f"bndbox/{side}") or "" for side in _SIDES]
    entry = ObjectEntry(image, f"object {number}", f"bndbox {', '.join(sides)}", name, item=item, file=image.item.file)
    if name not in class_names:
        entry.fault = Reason("label-outside", f"class {name!r}")
    try:
        entry.box = np.array([float(side) for side in sides]) - _ORIGIN
    except ValueError:
        entry.fault = entry.fault or Reason("unusable-annotation", "a side of its box is not a number")
    return entry


def write_voc_table(table: AnnotationTable, home: Path, name: str) -> None:
    """Write an image set and its annotation files; those without a change are copied verbatim."""
    write_lines(home / "ImageSets" / "Main" / name, [image.item.line for image in table.images])
    for image, entries in table.objects_of().items():
        _, file, content = image.item
        link(image.path, home / "JPEGImages" / Path(image.path).name)
        copy = home / "Annotations" / file.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        kept = {entry.item for entry in entries}
        dropped = [item for item in content.findall("object") if item not in kept]
        for item in dropped:
            content.getroot().remove(item)
        for entry in entries:
            if entry.changed:
                for side, value in zip(_SIDES, entry.box + _ORIGIN, strict=True):
                    entry.item.find(f"bndbox/{side}").text = str(rounded(value))
        if dropped or any(entry.changed for entry in entries):
            content.write(copy, encoding="utf-8")
        else:
            shutil.copyfile(file, copy)
