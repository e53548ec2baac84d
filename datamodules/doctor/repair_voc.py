"""Reads and writes Pascal VOC's layout for the repair."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np

from ..annotations.annotation_errors import OUTSIDE
from ..annotations.objects import confined
from .repair import (
    AnnotationTable,
    Exclusions,
    ImageEntry,
    ObjectEntry,
    Reason,
    RepairLog,
    link,
    plain_number,
    repair,
    write_lines,
)
from .report import Report

_SIDES = ("xmin", "ymin", "xmax", "ymax")
_ORIGIN = np.array([1.0, 1.0, 0.0, 0.0])  # VOC counts pixels from 1 and includes the last one


class _VocImage(NamedTuple):
    """Line of an image in its image set, its annotation file, and the parsed content of that."""

    line: str
    file: Path
    content: ElementTree.ElementTree | None


def fix_voc(report: Report, exclusions: Exclusions, folder: Path, log: RepairLog) -> dict[str, Any] | None:
    """Write ``FOLDER/VOCdevkit/VOCyear/{Annotations,ImageSets/Main}``, and link ``JPEGImages``."""
    data: Any = report.data
    devkit = data.root / "VOCdevkit" if (data.root / "VOCdevkit").is_dir() else data.root
    splits_of: dict[str, list[str]] = {}  # by image set
    for split, names in data.sets.items():
        for name in names:
            splits_of.setdefault(name, []).append(split)
    for name, splits in splits_of.items():
        year, _, image_set = name.partition("_")
        home = devkit / f"VOC{year}"
        file = home / "ImageSets" / "Main" / f"{image_set}.txt"
        if not file.is_file():
            log.remaining.append(f"{file}: not corrected, does not exist")
            continue
        excluded = {path: reason for split in splits for path, reason in exclusions.get(split, {}).items()}
        table = repair(read_voc(file, home, data.class_names, excluded), excluded, log)
        write_voc(table, folder / "VOCdevkit" / home.name, file.name)
    return {"root": str(folder)}


def read_voc(file: Path, home: Path, class_names: list[str], excluded: dict[str, Reason]) -> AnnotationTable:
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
            content = ElementTree.parse(annotation)
            image.item = _VocImage(line, annotation, content)
            width, height = (int(content.findtext(f"size/{key}") or 0) for key in ("width", "height"))
            image.size = width, height
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


def write_voc(table: AnnotationTable, home: Path, name: str) -> None:
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
                    entry.item.find(f"bndbox/{side}").text = str(plain_number(value))
        if dropped or any(entry.changed for entry in entries):
            content.write(copy, encoding="utf-8")
        else:
            shutil.copyfile(file, copy)
