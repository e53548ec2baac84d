"""What COCO's JSON says of images, annotations and categories, column by column.

Two ways lead there. `fast_columns` has msgspec decode the bytes straight into typed fields, which takes a tenth of the
time and a third of the memory of Python's own objects; it knows COCO's types only, and gives up at whatever else. Then
`careful_columns` reads the file with the standard library, and says what is wrong and where, or takes what is unusual
but sound (numbers that are NaN, to be counted; ids that are text).
"""

import dataclasses
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..annotations.annotation_errors import Fault, record_error
from ..annotations.argument_checks import did_you_mean

ENTRY_CODES = {"images": "bad-target", "annotations": "unusable-annotation", "categories": "unopened-split"}
"""Fault of an entry that cannot be used, by the list that it is in."""

_FIELDS: dict[str, dict[str, type]] = {
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "annotations": {"image_id": int, "category_id": int, "bbox": list},
    "categories": {"id": int, "name": str},
}
_CALLED = {
    "images": ("image", ("file_name", "id")),
    "annotations": ("annotation", ("id",)),
    "categories": ("category", ("name", "id")),
}
_NAMES = {int: "a whole number", str: "text", list: "a list"}
Box = tuple[float, float, float, float]


@dataclass(eq=False)
class Columns:
    """The three lists of a file in COCO's format.

    Attributes:
        image_ids, image_names: of the images.
        image_sizes: int32 ``[M, 2]``, width and height.
        category_ids, category_names: of the categories, in the file's order.
        ids: what to call each annotation in a message: its id, or its place.
        of_image, of_category: int64 ``[N]``, ids.
        boxes: float64 ``[N, 4]``, x, y, width, height.
        area: float64 ``[N]``; NaN where the file gives none.
        iscrowd: bool ``[N]``.
        segmentations: of each annotation, JSON's text (bytes) or what it stands for; empty when not asked for.
    """

    image_ids: list[int]
    image_names: list[str]
    image_sizes: np.ndarray
    category_ids: list[int]
    category_names: list[str]
    ids: np.ndarray
    of_image: np.ndarray
    of_category: np.ndarray
    boxes: np.ndarray
    area: np.ndarray
    iscrowd: np.ndarray
    segmentations: Sequence[Any]

    def of_images(self, kept: np.ndarray) -> "Columns":
        """The same without the images that are not `kept`, bool ``[M]``, and without their annotations."""
        numbers = np.array(self.image_ids)
        gone = np.isin(self.of_image, np.setdiff1d(numbers[~kept], numbers[kept]))
        chosen = np.flatnonzero(kept).tolist()
        return dataclasses.replace(
            self.part(~gone),
            image_ids=[self.image_ids[place] for place in chosen],
            image_names=[self.image_names[place] for place in chosen],
            image_sizes=self.image_sizes[kept],
        )

    def part(self, kept: np.ndarray) -> "Columns":
        """The same without the annotations that are not `kept`: bool ``[N]``."""
        fields = ("ids", "of_image", "of_category", "boxes", "area", "iscrowd")
        own = {name: getattr(self, name)[kept] for name in fields}
        chosen = np.flatnonzero(kept).tolist() if len(self.segmentations) else []
        texts = [self.segmentations[number] for number in chosen]
        return dataclasses.replace(self, **own, segmentations=texts)


class _Image(msgspec.Struct, gc=False):
    id: int
    file_name: str
    width: int
    height: int


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Annotation(msgspec.Struct, gc=False):
    id: int
    image_id: int
    category_id: int
    bbox: Box
    area: float = float("nan")
    iscrowd: bool | int = 0


class _MaskedAnnotation(_Annotation, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class _Content(msgspec.Struct):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


class _MaskedContent(msgspec.Struct):
    images: list[_Image]
    annotations: list[_MaskedAnnotation]
    categories: list[_Category]


def coco_columns(file: Path, with_masks: bool) -> Columns:
    """The columns of a file, whichever way.

    Raises:
        ValueError: for a file that is not JSON, or not COCO's; the message says where.
    """
    return fast_columns(file, with_masks) or careful_columns(file)


def fast_columns(file: Path, with_masks: bool) -> Columns | None:
    """The columns of a file that has COCO's types throughout; None for any other."""
    with file.open("rb") as opened:
        try:
            text = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file
            return None
    try:
        content: Any = msgspec.json.decode(text, type=_MaskedContent if with_masks else _Content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    _forget_pages(text)
    images, items, categories = content.images, content.annotations, content.categories
    try:
        return Columns(
            [image.id for image in images],
            [image.file_name for image in images],
            np.array([(image.width, image.height) for image in images], np.int32).reshape(-1, 2),
            [category.id for category in categories],
            [category.name for category in categories],
            np.array([item.id for item in items], np.int64),
            np.array([item.image_id for item in items], np.int64),
            np.array([item.category_id for item in items], np.int64),
            np.array([item.bbox for item in items], np.float64).reshape(-1, 4),
            np.array([item.area for item in items], np.float64),
            np.array([bool(item.iscrowd) for item in items], np.bool_),
            _Texts([item.segmentation for item in items if isinstance(item, _MaskedAnnotation)], text),
        )
    except OverflowError:  # a whole number of more than 64 bits
        return None


class _Texts(Sequence[bytes]):
    """Pieces of a mapped file as text; what has been read of it is given back now and then."""

    def __init__(self, pieces: list[msgspec.Raw], file: mmap.mmap) -> None:
        self._pieces, self._file, self._read = pieces, file, 0

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, number: Any) -> Any:
        self._read += 1
        if self._read % 2**16 == 0:
            _forget_pages(self._file)
        return bytes(self._pieces[number])


def _forget_pages(text: mmap.mmap) -> None:
    """Give a mapped file's memory back; what is read again comes from the system's cache."""
    if hasattr(mmap, "MADV_DONTNEED"):
        text.madvise(mmap.MADV_DONTNEED)


def careful_columns(file: Path) -> Columns:
    """The columns of any file in COCO's format.

    Raises:
        ValueError: for a file that is not JSON, or not COCO's; the message says where. Within
            `record_faults`, entries that are not COCO's are recorded and left out, annotations of such images silently.
    """
    content = read_json(file)
    images, items, categories = (_list(file, content, key) for key in ("images", "annotations", "categories"))
    listed = _sound(file, "images", images)
    categories, items = _sound(file, "categories", categories), _sound(file, "annotations", items)
    if len(listed) < len(images):  # only while faults are recorded
        gone = {image.get("id") for image in images if isinstance(image, dict)} - {image["id"] for image in listed}
        items = [item for item in items if item["image_id"] not in gone]
    return Columns(
        [image["id"] for image in listed],
        [image["file_name"] for image in listed],
        np.array([(image["width"], image["height"]) for image in listed], np.int32).reshape(-1, 2),
        [category["id"] for category in categories],
        [category["name"] for category in categories],
        np.array([item.get("id", number) for number, item in enumerate(items)]),
        np.array([item["image_id"] for item in items], np.int64),
        np.array([item["category_id"] for item in items], np.int64),
        np.array([item["bbox"] for item in items], np.float64).reshape(-1, 4),
        np.array([_number(item.get("area")) for item in items], np.float64),
        np.array([bool(item.get("iscrowd", 0)) for item in items], np.bool_),
        [item.get("segmentation") for item in items],
    )


def _sound(file: Path, what: str, entries: list[Any]) -> list[dict[str, Any]]:
    sound = []
    for number, entry in enumerate(entries):
        if (why := entry_fault(what, entry)) is None:
            sound.append(with_whole_numbers(what, entry))
        else:
            refuse_entry(file, what, entry, number, why)
    return sound


def refuse_entry(file: Path, what: str, entry: Any, number: int, why: str) -> None:
    """Record an entry of a list that cannot be used; see `record_error`."""
    record_error(Fault(ENTRY_CODES[what], file, [called(what, entry, number)], "entry", why))


def called(what: str, entry: Any, number: int) -> str:
    """What to call an entry of a list: by its name or id, which a search finds, and by its place.

    >>> called("images", {"id": 7, "file_name": "a.jpg"}, 2), called("annotations", {}, 5)
    ("image 'a.jpg' (images[2])", 'annotations[5]')
    """
    one, keys = _CALLED[what]
    place = f"{what}[{number}]"
    fields = entry if isinstance(entry, dict) else {}
    name = next((fields[key] for key in keys if isinstance(fields.get(key), str | int)), None)
    return place if name is None else f"{one} {name!r} ({place})"


def entry_fault(what: str, entry: Any) -> str | None:
    """What is wrong with an entry of a list, which has not its fields, or they are not of their kind."""
    if not isinstance(entry, dict):
        return f"{_shown(entry)}, and must be an object with {', '.join(_FIELDS[what])}"
    for key, kind in _FIELDS[what].items():
        if not isinstance(entry.get(key), kind) and not (kind is int and _is_whole(entry.get(key))):
            found = f"is {_shown(entry[key])}" if key in entry else "is not there"
            return f"{key} {found}, and must be {_NAMES[kind]}"
    box = entry["bbox"] if what == "annotations" else [0] * 4
    if len(box) == 4 and all(isinstance(side, int | float) for side in box):
        return None
    return f"bbox is {_shown(box)}, and must be four numbers, x, y, width, height"


def _is_whole(value: Any) -> bool:
    return isinstance(value, float) and value.is_integer()


def with_whole_numbers(what: str, entry: Any) -> Any:
    """An entry of a list with its whole numbers as such, where it has them as 64.0.

    >>> with_whole_numbers("images", {"id": 1.0, "width": 64.5, "height": 48})
    {'id': 1, 'width': 64.5, 'height': 48}
    """
    if not isinstance(entry, dict):
        return entry
    wrong = [key for key, kind in _FIELDS[what].items() if kind is int and _is_whole(entry.get(key))]
    return entry | {key: int(entry[key]) for key in wrong} if wrong else entry


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def read_json(file: Path) -> Any:
    """The content of a JSON file.

    Raises:
        ValueError: where it is malformed; the message has the line.
    """
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file}, line {error.lineno}, column {error.colno}: malformed JSON ({error.msg}); is the file complete?"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not JSON, which is text in UTF-8 ({error})") from error


def _list(file: Path, content: Any, key: str) -> list[Any]:
    part = content.pop(key, None) if isinstance(content, dict) else None
    if not isinstance(part, list):
        known = list(content) if isinstance(content, dict) else type(content).__name__
        hint = did_you_mean(key, content) if isinstance(content, dict) else ""
        raise ValueError(f"{file}: no list {key!r} in it, but {known}{hint}; expected COCO's instances_*.json")
    return part


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")
