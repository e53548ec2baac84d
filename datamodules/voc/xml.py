"""Reads Pascal VOC's XML annotation files."""

from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ..annotations.annotation_errors import DataError, Fault, record_error
from ..annotations.argument_checks import did_you_mean


class ObjectAnnotations(NamedTuple):
    """Boxes as they are written, with their classes, flags and numbers in the file, and the size of their image."""

    size: tuple[int, int]
    boxes: list[list[float]]
    labels: list[int]
    difficult: list[bool]
    numbers: list[int]


def read_annotation(path: Path, number_of: dict[str, int]) -> ObjectAnnotations:
    """One annotation file.

    Raises:
        FileNotFoundError: when it is not there.
        ValueError: for malformed XML, with the line, and for what is not VOC's.
    """
    tree = read_xml(path)
    boxes, labels, difficult, numbers = [], [], [], []
    size = image_size(path, tree)
    for number, item in enumerate(tree.findall("object"), start=1):
        name = (item.findtext("name") or "").strip()
        if name not in number_of:
            hint = did_you_mean(name, number_of) or "."
            remedy = f"there are {len(number_of)} classes{hint} Name those of another data set in class_names"
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
        labels.append(number_of[name])
        difficult.append((item.findtext("difficult") or "0").strip() == "1")
        numbers.append(number)
    return ObjectAnnotations(size, boxes, labels, difficult, numbers)


def read_xml(path: Path) -> ElementTree.Element:
    """The content of an XML file.

    Raises:
        ValueError: where it is malformed; the message has the line.
    """
    try:
        return ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        line, column = error.position
        raise ValueError(
            f"{path}, line {line}, column {column + 1}: malformed XML ({error}); is the file complete?"
        ) from error


def image_size(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    """Width and height of the image that an annotation file is about."""
    return _whole(path, tree, "size/width"), _whole(path, tree, "size/height")


def corners_of(path: Path, number: int, item: ElementTree.Element) -> list[float]:
    """``xmin, ymin, xmax, ymax`` of the object with this number in its file, as written."""
    return [_number(path, number, item, f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")]


def _number(path: Path, number: int, item: ElementTree.Element, key: str) -> float:
    text = item.findtext(key)
    try:
        return float(text or "")  # VOC 2011 and later have a few fractions of pixels
    except ValueError:
        found = f"{key} is {text!r}, and must be a number of pixels"
        raise DataError.of(Fault("unusable-annotation", path, [number], "object", found)) from None


def _whole(path: Path, tree: ElementTree.Element, key: str) -> int:
    text = (tree.findtext(key) or "").strip()
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"{path}: {key} is {text!r}, and must be a number of pixels")
    return int(text)
