"""Findings from what readers say: the faults they record, and the errors at which they stop."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault
from .findings import Finding, Findings, rows, shown


def findings_of(fault: Fault, split: str) -> Iterator[Finding]:
    """A finding for each annotation of a fault."""
    for number in range(len(fault.names)):
        box = None if fault.boxes is None else fault.boxes[number]
        detail = fault.sentence
        if box is not None:
            detail = shown(box) if fault.code.startswith("box-") else f"{shown(box)}, {detail}"
        image = os.path.abspath(fault.images[number]) if fault.images is not None else None  # noqa: PTH100
        where = image if fault.code == "missing-image" and image else fault.location(number)
        marked = rows(box[None]) if box is not None and np.isfinite(box).all() else ()
        yield Finding(fault.code, where, detail, split, image, boxes=marked)


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
        key = (str(fault.file), fault.code, fault.found, fault.unit, *map(str, fault.names))
        images.update(os.path.abspath(path) for path in fault.images or ())  # noqa: PTH100
        if key in known:
            continue
        known.add(key)
        for finding in findings_of(fault, split):
            findings.add(finding)
    return images


def is_absent(error: Exception, split: str) -> bool:
    """Whether an error means that there is no such split, as many sets have no ``test``."""
    return split == "test" and isinstance(error, AbsentSplitError)


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
