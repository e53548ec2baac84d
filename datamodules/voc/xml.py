"""Reads Pascal VOC's XML annotation files."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from ..annotations.annotation_errors import DataError, Fault, record_error
from ..annotations.flags import FLAG_RULE, read_flag
from ..annotations.other_formats import other_format_of_text
from ..annotations.text_files import decode, marked_encoding, parse_decimal

_DECLARED = re.compile(rb"""\s*<\?xml[^>]*?\bencoding\s*=\s*["']([^"']*)["']""")
_SUPERSETS = {"gb2312": "gb18030", "gb_2312": "gb18030", "gbk": "gb18030", "cp936": "gb18030"}
MAX_SIDE = 2**31 - 1
"""Greatest width and height of an image that an annotation may state, pixels."""


class ObjectAnnotations(NamedTuple):
    """Content of an annotation file.

    Attributes:
        size: Width and height of the image; 0, 0: not stated, or stated as 0.
        boxes: ``xmin, ymin, xmax, ymax`` of each object, as written.
        labels: Class of each object.
        difficult: Whether each object is difficult.
        numbers: Position of each object in the file, from 1.
        unknown: Position and name of each object whose name is not a class, which the other fields lack.
    """

    size: tuple[int, int]
    boxes: list[list[float]]
    labels: list[int]
    difficult: list[bool]
    numbers: list[int]
    unknown: list[tuple[int, str]]


def read_annotation(path: Path, label_of: Callable[[str], int | None]) -> ObjectAnnotations:
    """Read an annotation file.

    Args:
        path: XML file.
        label_of: Returns the label of a class name; None: not a class.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The XML is malformed (with the line), or not VOC's.
    """
    tree = read_xml(path)
    reject_other_format(path, tree)
    content = ObjectAnnotations(stated_size(path, tree), [], [], [], [], [])
    for number, item in enumerate(tree.findall("object"), start=1):
        name = name_of(item)
        if (label := label_of(name)) is None:
            content.unknown.append((number, name))
            continue
        try:
            corners, difficult = corners_of(path, number, item), _difficult(path, number, item)
        except DataError as error:
            if error.fault is None:
                raise
            record_error(error.fault)
            continue
        content.boxes.append(corners)
        content.labels.append(label)
        content.difficult.append(difficult)
        content.numbers.append(number)
    return content


def reject_other_format(path: Path, tree: ElementTree.Element) -> None:
    """Reject the XML of another tool, such as CVAT's, which has all images in one file.

    Raises:
        DataError: The root is not ``<annotation>``, and has no objects as VOC writes them.
    """
    if tree.tag.lower() != "annotation" and tree.find("object") is None:
        advice = other_format_of_text(f"<{tree.tag}>".encode())
        raise DataError(f"{path}: must be Pascal VOC's XML, whose root is <annotation>, got <{tree.tag}>: {advice}")


def name_of(item: ElementTree.Element) -> str:
    """Return the class of an object as it is written, without surrounding spaces."""
    return (item.findtext("name") or "").strip()


def object_names(path: Path) -> list[str]:
    """Return the class of each object in an annotation file; nothing if it cannot be read, which its reader reports."""
    return [] if isinstance(tree := _readable(path), Exception) else [name_of(item) for item in tree.findall("object")]


def unreadable(paths: Iterable[Path]) -> Exception | None:
    """Return why the first annotation file that cannot be read cannot be; None: all can."""
    return next((error for path in paths if isinstance(error := _readable(path), Exception)), None)


def _readable(path: Path) -> ElementTree.Element | Exception:
    try:
        tree = read_xml(path)
        reject_other_format(path, tree)
        return tree
    except (OSError, ValueError) as error:
        return error


def _difficult(path: Path, number: int, item: ElementTree.Element) -> bool:
    text = item.findtext("difficult")
    if (flag := read_flag(text)) is None:
        raise DataError.of(
            Fault("unusable-annotation", path, [number], "object", f"difficult {FLAG_RULE}, got {text!r}")
        )
    return flag


def read_xml(path: Path) -> ElementTree.Element:
    """Parse an XML file in any encoding that it declares or marks; without either, in UTF-8.

    Raises:
        ValueError: The XML is malformed, or in another encoding; the message has the line.
    """
    text = _decoded(path, path.read_bytes())
    try:
        return ElementTree.fromstring(text)  # of text, the parser ignores the declared encoding
    except ElementTree.ParseError as error:
        line, column = error.position
        raise ValueError(
            f"{path}, line {line}, column {column + 1}: malformed XML ({error}); is the file complete?"
        ) from error


def _decoded(path: Path, data: bytes) -> str:
    if marked := marked_encoding(data):
        return decode(path, data, marked)
    for start, encoding in ((b"<\0", "utf-16-le"), (b"\0<", "utf-16-be")):
        if data.startswith(start):
            return decode(path, data, encoding)
    match = _DECLARED.match(data)
    declared = match[1].decode("ascii", "replace") if match else "utf-8"
    encoding = _SUPERSETS.get(declared.lower(), declared)
    if encoding.lower().startswith(("utf-16", "utf16", "utf-32", "us-ascii", "ucs")):
        encoding = "utf-8"  # a declaration that reads as ASCII contradicts UTF-16; tools write it for UTF-8
    try:
        return decode(path, data, encoding, ", as it declares" if match else "")
    except (LookupError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path}, line 1: declares an unknown encoding, got {declared!r}; save it as UTF-8") from error


def stated_size(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    """Return width and height as `image_size` does; 0, 0 where both are missing or 0, as some tools write them."""
    written = [(tree.findtext(f"size/{side}") or "").strip() for side in ("width", "height")]
    return (0, 0) if all(text in ("", "0") for text in written) else image_size(path, tree)


def image_size(path: Path, tree: ElementTree.Element) -> tuple[int, int]:
    """Return width and height of the image that an annotation file is for."""

    def pixels(key: str) -> int:
        text = (tree.findtext(key) or "").strip()
        try:
            value = parse_decimal(text)
        except ValueError:
            value = 0.0
        if not (1 <= value <= MAX_SIDE and value.is_integer()):
            raise ValueError(f"{path}: {key} must be a positive number of pixels, got {text[:40]!r}")
        return int(value)

    return pixels("size/width"), pixels("size/height")


def repeated_tag(item: ElementTree.Element) -> str | None:
    """Return which part of an object occurs more than once, of which all but the first would be lost; None: none."""
    tags = ("name", "difficult", "bndbox", *(f"bndbox/{side}" for side in ("xmin", "ymin", "xmax", "ymax")))
    return next((tag for tag in tags if len(item.findall(tag)) > 1), None)


def corners_of(path: Path, number: int, item: ElementTree.Element) -> list[float]:
    """Return ``xmin, ymin, xmax, ymax`` of the object with this number in its file, as written.

    Raises:
        DataError: One is not a number, or the object has two names, boxes or sides.
    """
    if (tag := repeated_tag(item)) is not None:
        found = f"{tag} must occur once, got {len(item.findall(tag))}; write an object for each box"
        raise DataError.of(Fault("unusable-annotation", path, [number], "object", found))
    if item.find("bndbox") is None:
        rotated = item.find("robndbox") is not None
        found = "robndbox is a rotated box" if rotated else f"no bndbox, got {', '.join(part.tag for part in item)}"
        remedy = "write the smallest upright box around it as bndbox: xmin, ymin, xmax, ymax"
        raise DataError.of(Fault("unusable-annotation", path, [number], "object", found, remedy))
    corners = []
    for side in ("xmin", "ymin", "xmax", "ymax"):
        text = item.findtext(f"bndbox/{side}")
        try:
            corners.append(parse_decimal(text or ""))  # VOC 2011 and later have a few fractions of pixels
        except ValueError:
            found = f"bndbox/{side} must be a number of pixels, got {text!r}"
            raise DataError.of(Fault("unusable-annotation", path, [number], "object", found)) from None
    return corners
