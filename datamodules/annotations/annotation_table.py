"""Annotations as they are written, in a form that all formats share, so that one repair serves them all.

A format reads its files into an `AnnotationTable`, and writes the entries that are left as a corrected copy: a separate
folder with corrected annotations and one link per image, which the same data module reads.
"""

import csv
import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Reason(NamedTuple):
    """Why an image or an object is left out: the kind of fault (`KINDS`), and a detail."""

    kind: str
    detail: str = ""


@dataclass(eq=False)
class ImageEntry:
    """An image as a format lists it.

    Attributes:
        file: File that lists it, for the log.
        name: Its name in that file.
        path: The image file; empty: unknown.
        size: Width and height in the unit of the boxes; 0: unknown.
        pixel: Width and height of a pixel in that unit.
        item: The format's own entry.
        fault: Why it cannot be used; None: it can.
    """

    file: Path | str
    name: str
    path: str
    size: tuple[float, float] = (0, 0)
    pixel: tuple[float, float] = (1, 1)
    item: Any = None
    fault: Reason | None = None


@dataclass(eq=False)
class ObjectEntry:
    """An object as a format writes it.

    Attributes:
        image: Its image; None: not listed.
        name: Its name in its file.
        text: Its box as written, for the log.
        label: Its class, as the format writes it.
        box: x1, y1, x2, y2; None: the format has no boxes.
        item: The format's own entry.
        fault: Why it cannot be used apart from its box and mask; None: it can.
        segmentation: Polygons or run lengths in COCO's form, where masks are required.
        file: Its file, for the log; None: that of its image.
        changed: Whether `repair` changed its box.
    """

    image: ImageEntry | None
    name: str
    text: str = ""
    label: Hashable = None
    box: Sequence[float] | np.ndarray | None = None
    item: Any = None
    fault: Reason | None = None
    segmentation: Any = None
    file: Path | str | None = None
    changed: bool = False


@dataclass
class AnnotationTable:
    """The annotations of one file or split.

    Attributes:
        images, objects: Its entries.
        with_boxes: Whether boxes are required.
        with_masks: Whether masks are required.
        min_side: Smallest side of a valid box.
    """

    images: list[ImageEntry]
    objects: list[ObjectEntry] = field(default_factory=list)
    with_boxes: bool = True
    with_masks: bool = False
    min_side: float = 0.0

    def objects_of(self) -> dict[ImageEntry, list[ObjectEntry]]:
        """Group the objects by image; images without objects have an empty list."""
        groups: dict[ImageEntry, list[ObjectEntry]] = {image: [] for image in self.images}
        for entry in self.objects:
            if entry.image is not None:
                groups[entry.image].append(entry)
        return groups


def rounded(value: float) -> int | float:
    """Round a number to four decimals; whole numbers are returned as int."""
    return int(value) if float(value).is_integer() else round(float(value), 4)


def link(original: Path | str, copy: Path) -> None:
    """Make `copy` a link to `original`, unless it exists; its folders are created."""
    if not copy.exists():
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.symlink_to(os.path.abspath(original))  # noqa: PTH100 - a link to a link stays one


def write_lines(file: Path, lines: Sequence[str]) -> None:
    """Write a text file, one line each; its folders are created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_csv(file: Path, headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a CSV file; its folders are created."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(headings)
        writer.writerows(rows)
