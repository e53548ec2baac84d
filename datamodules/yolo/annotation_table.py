"""YOLO's label files as an `AnnotationTable`, read and written."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, write_lines
from ..export.files import yolo_line, yolo_lines
from .labels import SLIVER, Defect, corners_of_label, label_defect, label_lines, label_path, parse_label, pixels_of


def read_yolo_table(
    sizes: Mapping[str, tuple[int, int]], root: str, num_classes: int, with_masks: bool, keypoints: bool = False
) -> AnnotationTable:
    """Read the label files of images, given their paths and their widths and heights (0: unknown).

    Keypoints behind boxes are left out, since a corrected copy is one of boxes.
    """
    table = AnnotationTable([], min_side=SLIVER)
    for path, size in sizes.items():
        width, height = pixels_of([size])[0].tolist()
        image = ImageEntry(path, "the image", path, (1, 1), (width, height))
        image.item = Path(label_path(root, os.path.relpath(path, root)))
        table.images.append(image)
        if image.item.is_file():
            lines = label_lines(image.item, image.item.read_bytes())
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    words = line.decode(errors="replace").split()
                    words = words[:5] if keypoints else words
                    table.objects.append(read_line(image, number, words, num_classes, with_masks))
    return table


def read_line(image: ImageEntry, number: int, words: Sequence[str], num_classes: int, with_masks: bool) -> ObjectEntry:
    """Read a line of a label file, split into words."""
    text = " ".join(words)
    entry = ObjectEntry(image, f"line {number}", text[:80], item=text, file=image.item)
    parsed = parse_label(words, num_classes)
    defect = parsed if isinstance(parsed, Defect) else label_defect(parsed[1], with_masks)
    if defect is not None:
        entry.fault = Reason(defect.code, defect.found or text[:80])
    if not isinstance(parsed, Defect):
        entry.label, entry.box = parsed[0], corners_of_label(parsed[1])
    return entry


def write_yolo_table(table: AnnotationTable, root: str, folder: Path, name: str) -> None:
    """Write the label files of a split and the list of its images, and link the images."""
    listed = []
    for image, entries in table.objects_of().items():
        # below `images`, so that its labels go below `labels`, wherever they were before
        position = os.path.relpath(image.path, root)
        position = position if "images" in Path(position).parts[:-1] else f"images/{position}"
        listed.append(f"./{position}")
        link(image.path, folder / position)
        if image.item.is_file():
            write_lines(Path(label_path(str(folder), position)), [label_line(entry) for entry in entries])
    write_lines(folder / name, listed)


def label_line(entry: ObjectEntry) -> str:
    """Return the line of an object: as it was, or with its corrected box or clipped polygon.

    >>> label_line(ObjectEntry(None, "line 1", "", 0, (0.625, 0.25, 1, 0.75), "0 0.875 0.5 0.5 0.5", changed=True))
    '0 0.8125 0.5 0.375 0.5'
    """
    if not entry.changed or entry.box is None:
        return str(entry.item)
    label, *numbers = (float(word) for word in entry.item.split())
    if len(numbers) == 4:
        return yolo_lines([int(label)], [list(entry.box)], (1, 1))[0]
    return yolo_line(int(label), clip_polygon(np.reshape(numbers, (-1, 2))).ravel())


def clip_polygon(points: np.ndarray) -> np.ndarray:
    """Return the part of a polygon within the unit square, clipped side by side.

    Where the polygon is concave, parts of the result may be connected by an edge along the border, which covers
    nothing.

    Shape:
        - points: ``[N, 2]``.
        - Output: ``[M, 2]``.

    Reference: Sutherland and Hodgman, "Reentrant Polygon Clipping", Communications of the ACM 17 (1), 1974.
    """
    for axis, limit, sign in ((0, 0.0, 1), (0, 1.0, -1), (1, 0.0, 1), (1, 1.0, -1)):
        inside = sign * (points[:, axis] - limit) >= 0
        clipped: list[np.ndarray] = []
        for number, (point, within) in enumerate(zip(points, inside, strict=True)):
            previous = points[number - 1]
            if within != inside[number - 1]:
                crossing = previous + (limit - previous[axis]) / (point[axis] - previous[axis]) * (point - previous)
                crossing[axis] = limit
                clipped.append(crossing)
            if within:
                clipped.append(point)
        points = np.array(clipped).reshape(-1, 2)
    return points
