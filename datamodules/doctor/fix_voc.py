"""A corrected copy of a data set in Pascal VOC's layout."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from ..annotations.annotation_errors import OUTSIDE
from ..annotations.objects import confined
from ..annotations.validity import repair_boxes, repeated_objects
from .fixes import ACTIONS, Log, excluded, link, list_excluded, plain

if TYPE_CHECKING:
    from .collecting import Report
_SIDES = ("xmin", "ymin", "xmax", "ymax")
_FIRST = np.array([1.0, 1.0, 0.0, 0.0])  # VOC counts from 1 and names the last pixel inside


def fix_voc(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``FOLDER/VOCdevkit/VOCyear/{Annotations,ImageSets/Main}`` corrected, ``JPEGImages`` linked."""
    data: Any = report.data
    devkit = data.root / "VOCdevkit" if (data.root / "VOCdevkit").is_dir() else data.root
    left_out = excluded(report, log)
    sets: dict[str, set[str]] = {}  # image set: the splits that take it
    for split, names in data.sets.items():
        for name in names:
            sets.setdefault(name, set()).add(split)
    done: set[Path] = set()
    for name, splits in sets.items():
        year, _, image_set = name.partition("_")
        file = devkit / f"VOC{year}" / "ImageSets" / "Main" / f"{image_set}.txt"
        if not file.is_file():
            log.left.append(f"{file}: not there, and so not corrected")
            continue
        reasons = {path: why for split in splits for path, why in left_out.get(split, {}).items()}
        kept, seen = [], set()
        for line in file.read_text(encoding="utf-8").splitlines():
            if not line.strip():
                continue
            stem = line.split()[0]
            image = devkit / f"VOC{year}" / "JPEGImages" / f"{stem}.jpg"
            if not confined(stem):
                log.add(file, f"image {stem}", "bad-target", "left out", OUTSIDE)
            elif why := reasons.get(os.path.abspath(image)):  # noqa: PTH100
                log.add(file, stem, why.kind, "left out, with its objects", why.reason)
            elif stem in seen:
                log.add(file, stem, "duplicate-image", "left out", "listed before")
            else:
                kept.append(line)
                own = folder / "VOCdevkit" / f"VOC{year}"
                if image not in done:
                    done.add(image)
                    link(image, own / "JPEGImages" / image.name)
                    annotation = devkit / f"VOC{year}" / "Annotations" / f"{stem}.xml"
                    _write_xml(annotation, own / "Annotations" / annotation.name, data.class_names, log)
            seen.add(stem)
        target = folder / "VOCdevkit" / f"VOC{year}" / "ImageSets" / "Main" / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    list_excluded(folder, left_out)
    return {"root": str(folder)}


def _write_xml(file: Path, copy: Path, class_names: list[str], log: Log) -> None:
    """An annotation file without the objects that cannot be used; word for word where all can."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    tree = ElementTree.parse(file)
    root = tree.getroot()
    size = np.array([[int(root.findtext(f"size/{key}") or 0) for key in ("width", "height")]])
    items = root.findall("object")
    boxes, labels, faults = np.zeros((len(items), 4)), np.zeros(len(items), np.int64), {}
    for place, item in enumerate(items):
        name = (item.findtext("name") or "").strip()
        labels[place] = class_names.index(name) if name in class_names else -1
        if labels[place] < 0:
            faults[place] = ("label-outside", f"class {name!r}")
            continue
        try:
            boxes[place] = [float(item.findtext(f"bndbox/{side}") or "") for side in _SIDES]
        except ValueError:
            faults[place] = ("unusable-annotation", "a side of its box is no number")
    sizes = np.repeat(size, len(items), axis=0)
    mended, codes, kept = repair_boxes(boxes - _FIRST, sizes)
    for place in np.flatnonzero(codes != "").tolist():
        if place in faults:
            continue
        code = str(codes[place])
        before = f"bndbox {boxes[place].tolist()}"
        if not kept[place]:
            faults[place] = (code, before)
            continue
        log.add(file, f"object {place + 1}", code, ACTIONS[code], before)
        for side, value in zip(_SIDES, mended[place] + _FIRST, strict=True):
            element = items[place].find(f"bndbox/{side}")
            assert element is not None  # its number was read
            element.text = str(plain(value))
    sound = np.array([place for place in range(len(items)) if place not in faults], np.int64)
    for place in sound[
        repeated_objects(np.zeros(len(sound)), labels[sound], np.clip(mended, 0, np.tile(sizes, 2))[sound])
    ].tolist():
        faults[place] = ("duplicate-object", f"bndbox {boxes[place].tolist()}")
    for place, (code, reason) in sorted(faults.items()):
        log.add(file, f"object {place + 1}", code, "dropped", reason)
        root.remove(items[place])
    if faults or (codes != "").any():
        tree.write(copy, encoding="utf-8")
    else:
        shutil.copyfile(file, copy)
