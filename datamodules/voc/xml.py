"""Reads Pascal VOC's XML annotation files."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ..annotations.annotation_errors import DataError, Fault, record_error
from ..annotations.argument_checks import did_you_mean


class ObjectAnnotations(NamedTuple):
    """Content of an annotation file.

    Attributes:
        size: Width and height of the image.
        boxes: ``xmin, ymin, xmax, ymax`` of each object, as written.
        labels: Class of each object.
        difficult: Whether each object is difficult.
        numbers: Position of each object in the file, from 1.
    """

    size: tuple[int, int]
    boxes: list[list[float]]
    labels: list[int]
    difficult: list[bool]
    numbers: list[int]


def read_annotation(path: Path, label_of: dict[str, int]) -> ObjectAnnotations:
    """Read an annotation file.

    Args:
        path: XML file.
        label_of: Label of each class name.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The XML is malformed (with the line), or not VOC's.
    """
    tree = read_xml(path)
    boxes, labels, difficult, numbers = [], [], [], []
    size = image_size(path, tree)
    for number, item in enumerate(tree.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        if name not in label_of:
            remedy = f"set class_names if it is not one of these {len(label_of)}{did_you_mean(name, label_of)}"
            record_error(Fault("label-outside", path, [number], "object", f"{name!r}", remedy))
            continue
        try:
            corners = corners_of(path, number, item)
        except DataError as error:
            if error.fault is None:
                raise
            record_error(error.fault)
            continue
        boxes.append(corners)
        labels.append(label_of[name])
        difficult.append((item.findtext("difficult") or "0").strip() == "1")
        numbers.append(number)
    return ObjectAnnotations(size, boxes, labels, difficult, numbers)


def read_xml(path: Path) -> ElementTree.Element:
    """Parse an XML file.

    Raises:
        ValueError: The XML is malformed; the message has the line.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        line, column = error.position
        raise ValueError(
            f"{path}, line {line}, column {column + 1}: malformed XML ({error}); is the file complete?"
        ) from error


def image_size(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    """Return width and height of the image that an annotation file is for."""

    def pixels(key: str) -> int:
        text = (tree.findtext(key) or "").strip()
        if not text.isdecimal() or int(text) < 1:
            raise ValueError(f"{path}: {key} must be a positive number of pixels, got {text!r}")
        return int(text)

    return pixels("size/width"), pixels("size/height")


def corners_of(path: Path, number: int, item: ElementTree.Element) -> list[float]:
    """Return ``xmin, ymin, xmax, ymax`` of the object with this number in its file, as written.

    Raises:
        DataError: One is not a number.
    """
    corners = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        text = item.findtext(f"bndbox/{side}")
        try:
            corners.append(float(text or ""))  # VOC 2011 and later have a few fractions of pixels
        except ValueError:
            found = f"bndbox/{side} must be a number of pixels, got {text!r}"
            raise DataError.of(Fault("unusable-annotation", path, [number], "object", found)) from None
    return corners
