"""Findings from what readers say: the faults they record, and the errors at which they stop."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import Fault
from .findings import Finding, Findings, rows, shown

# by the words that readers use, the first that fits; what fits none is an annotation that is left out
_WORDS: tuple[tuple[str, str], ...] = (
    ("an entry of images", "bad-target"),
    ("leads out of its folder", "bad-target"),
    ("second row of its image", "duplicate-image"),
    ("an entry of annotations", "unusable-annotation"),
    ("an entry of categories", "unopened-split"),
    ("NaN or infinite", "box-not-finite"),
    ("zero or negative width", "box-zero-area"),
    ("zero width", "box-zero-area"),
    ("invert", "box-inverted"),
    ("reaches beyond", "box-beyond"),
    ("outside its image", "box-outside"),
    ("of it inside its image", "box-outside"),
    ("image that is not listed", "unknown-image"),
    ("category that is not listed", "label-outside"),
    ("no class", "label-outside"),
    ("not one of the classes", "label-outside"),
    ("class folder that", "label-outside"),
    ("image that is not there", "missing-image"),
    ("image without", "missing-annotation"),
    ("no such annotation file", "missing-annotation"),
    ("row without", "missing-annotation"),
    ("without images", "bad-target"),
    ("annotation file", "annotation-file"),
    ("polygon", "bad-mask"),
    ("run lengths", "bad-mask"),
    ("mask", "bad-mask"),
)
_NO_SPLIT = re.compile(r"no (file|folder|images?|test|val|validation|split)\b")


def code_of(kind: str) -> str:
    """The code of a fault, by the words that its reader uses for it."""
    if "polygon with a coordinate" in kind:
        return "bad-mask"
    return next((code for words, code in _WORDS if words in kind), "unusable-annotation")


def findings_of(fault: Fault, split: str) -> Iterator[Finding]:
    """A finding for each annotation of a fault."""
    code = code_of(fault.kind)
    for number, name in enumerate(fault.where):
        box = None if fault.boxes is None else fault.boxes[number]
        detail, own = fault.kind, code
        if box is not None:
            detail = shown(box) if code.startswith("box-") else f"{shown(box)}, {fault.kind}"
            if code == "box-zero-area" and (box[2:] < box[:2]).any():
                own = "box-inverted"
        image = os.path.abspath(fault.images(number)) if fault.images is not None else None  # noqa: PTH100
        place = name if fault.unit == "entry" else f"{fault.unit} {name}"
        where = image if code == "missing-image" and image else f"{fault.file}, {place}"
        if fault.unit == "file":  # in a folder: one path, to be clicked
            where = f"{fault.file}/{name}"
        if code in ("missing-annotation", "annotation-file") and fault.unit in ("file", "image"):
            where = str(fault.file) if fault.unit == "file" else str(name)
        marked = rows(box[None]) if box is not None and np.isfinite(box).all() else ()
        yield Finding(own, where, detail, split, image, boxes=marked)


def add_faults(findings: Findings, faults: Iterable[Fault], split: str, known: set[tuple[str, ...]]) -> set[str]:
    """Add the findings of faults that were not recorded before.

    A reader may open the same file for two splits, or twice for one.

    Args:
        findings: added to.
        faults: what readers recorded.
        split: for which split they were read.
        known: what was recorded before; added to.

    Returns:
        The images that the faults are about.
    """
    images: set[str] = set()
    for fault in faults:
        key = (str(fault.file), fault.kind, fault.unit, *map(str, fault.where))
        about = [fault.images(number) for number in range(len(fault.where))] if fault.images is not None else []
        images.update(os.path.abspath(path) for path in about)  # noqa: PTH100
        if key in known:
            continue
        known.add(key)
        for finding in findings_of(fault, split):
            findings.add(finding)
    return images


def is_absent(error: Exception, split: str) -> bool:
    """Whether an error says that there is no such split, as many sets have no ``test``."""
    text = str(error)
    # a file that the configuration names must be there
    return split == "test" and isinstance(error, FileNotFoundError | ValueError) and bool(_NO_SPLIT.match(text))


def first_line(error: Exception) -> str:
    """An error in one line, with its type where it is not one of the readers' own."""
    own = isinstance(error, ValueError | FileNotFoundError | ImportError) and str(error)
    text = str(error) if own else f"{type(error).__name__}: {error}"
    return " ".join(text.split())


def orphans_beside(files: Iterable[str], suffixes: tuple[str, ...], also: set[str]) -> list[str]:
    """Files of these suffixes in the folders of `files` that are neither among them nor in `also`; sorted."""
    listed: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        listed.setdefault(folder, set()).add(name)
    found = []
    for folder, names in listed.items():
        base = Path(folder or "/")
        if not base.is_dir():
            continue
        for entry in base.iterdir():
            if entry.name[0] != "." and entry.name not in names and entry.name.lower().endswith(suffixes):
                path = f"{folder}/{entry.name}"
                if path not in also and entry.is_file():
                    found.append(path)
    return sorted(found)
