"""One raw sample looked at: what is wrong with it, and the few numbers of it that are kept."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..annotations.annotation_errors import RECORDED, DataError, record_faults
from ..annotations.validity import box_faults, differs_from_mask
from ..batches import IGNORE_INDEX
from ..images.read import ImageError, read_image
from ..loading.sources import Source
from ..loading.targets import box_areas, boxes_of_masks, check_targets, fill_defaults
from .faults import findings_of
from .findings import Finding, rows, shown

GRAY, CHROMA = 16, 4  # sides of the small pictures by which images are compared
LOOK = GRAY * GRAY + 2 * CHROMA * CHROMA  # bytes of them


@dataclass
class Looked:
    """What is kept of a sample.

    Attributes:
        path: the image's file, where it is known.
        size: width and height, pixels; 0, 0 where it cannot be read.
        digest: of the pixels, 16 bytes.
        gradient: 64 bits: where the image gets brighter to the right (dHash).
        look: `LOOK` bytes, the image at 16x16 in gray and 4x4 in colour.
        boxes: ``[N, 4]`` float32; of classification ``[1, 4]`` NaN.
        labels: ``[N]`` int32.
        real: ``[N]`` bool, objects other than crowds.
        pixels: pixels of each class, of a semantic mask; None: it has none.
        findings: what is wrong.
    """

    path: str | None = None
    size: tuple[int, int] = (0, 0)
    digest: bytes = b"\0" * 16
    gradient: int = 0
    look: np.ndarray = field(default_factory=lambda: np.zeros(LOOK, np.uint8))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    real: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    pixels: np.ndarray | None = None
    findings: list[Finding] = field(default_factory=list)


def look_at(
    source: Source,
    index: int,
    path: str | None,
    class_names: Sequence[str] | None,
    complaint: Callable[[], str] = lambda: "",
) -> Looked:
    """Read a sample and examine it.

    Args:
        source: gives it.
        index: its number.
        path: its image's file, where that is known beforehand.
        class_names: the classes; None: not known, labels are not looked at.
        complaint: what the decoder has said since it was last asked.
    """
    looked = Looked(path)
    complaint()
    try:
        with record_faults() as faults:  # readers of mask files look at them only now
            raw = source[index]
    except ImageError as error:
        looked.findings.append(_unreadable(error, path, index))
        _look_again(looked, path)
        return looked
    except Exception as error:  # whatever a reader does with one bad file, the others are still to be looked at
        message = f"{type(error).__name__}: {error}" if not isinstance(error, ValueError) else str(error)
        code = error.fault.code if isinstance(error, DataError) and error.fault is not None else "bad-target"
        looked.findings.append(
            Finding(code, path or f"sample {index}", _without(message, path), image=path, index=index)
        )
        _look_again(looked, path)
        return looked
    if path is None and "path" in raw:
        looked.path = path = os.path.abspath(raw["path"])  # noqa: PTH100
    for fault in faults:
        looked.findings += [replace(one, image=path, index=index) for one in findings_of(fault, "")]
    examine = _Examination(raw, path, index, class_names)
    looked.findings += examine.findings()
    if said := complaint():
        looked.findings.append(Finding("damaged-image", examine.where, said, image=path, index=index))
    _keep_image(looked, examine.image)
    if examine.keeps:
        looked.boxes, looked.labels, looked.real = examine.boxes, examine.labels, examine.real
        looked.pixels = examine.pixels
    return looked


def _unreadable(error: ImageError, path: str | None, index: int) -> Finding:
    file = os.path.abspath(error.path)  # noqa: PTH100
    if not Path(file).exists():
        code = "missing-image" if path in (None, file) else "missing-annotation"
    else:
        code = error.code
    return Finding(code, file, error.reason, image=path or file, index=index)


def _look_again(looked: Looked, path: str | None) -> None:
    """The image itself may be sound, and a copy of another."""
    if path is None:
        return
    try:
        _keep_image(looked, read_image(path))
    except Exception:  # what is wrong has been said
        return


def _keep_image(looked: Looked, image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        return
    looked.size = image.shape[1], image.shape[0]
    looked.digest = pixel_digest(image)
    looked.gradient, looked.look = appearance(image)


def pixel_digest(image: np.ndarray) -> bytes:
    """16 bytes that are the same for the same pixels, and for no others."""
    digest = hashlib.sha256(repr(image.shape).encode())  # processors have instructions for it
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()[:16]


def appearance(image: np.ndarray) -> tuple[int, np.ndarray]:
    """What an image looks like, in a few bytes that size and compression hardly change.

    Returns:
        64 bits, each whether one of 8x8 fields is brighter than the one to its left (dHash); and the image in small:
        16x16 in gray, then 4x4 of two colour differences.

    Shape:
        - image: ``[H, W, 3]`` uint8.
        - Output: ``[LOOK]`` uint8.

    Reference: Krawetz, "Kind of Like That", 2013 (dHash).
    """
    small = cv2.resize(image, (72, 64), interpolation=cv2.INTER_AREA)  # both sides a multiple of what follows
    gray = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
    fields = cv2.resize(gray.astype(np.float32), (9, 8), interpolation=cv2.INTER_AREA)
    bits = np.packbits(fields[:, 1:] > fields[:, :-1])
    colours = cv2.cvtColor(cv2.resize(small, (CHROMA, CHROMA), interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2YCrCb)
    tiny = cv2.resize(gray, (GRAY, GRAY), interpolation=cv2.INTER_AREA)
    look = np.concatenate([tiny.ravel(), colours[..., 1:].ravel()])
    return int.from_bytes(bits.tobytes(), "big"), look


def _without(message: str, path: str | None) -> str:
    return message.removeprefix(path).lstrip(": ") if path else message


class _Examination:
    """Looks for what is wrong with a raw sample.

    Attributes:
        keeps: whether its objects fit their convention, so that they may be counted.
    """

    def __init__(self, raw: dict[str, Any], path: str | None, index: int, names: Sequence[str] | None) -> None:
        self.raw, self.path, self.index, self.names = raw, path, index, names
        self.num_classes = None if names is None else len(names)
        self.where = path or f"sample {index}"
        self.image = np.asarray(raw["image"])
        self.pixels: np.ndarray | None = None
        boxes = raw.get("boxes", raw.get("box"))
        labels = raw.get("labels", raw.get("label", ()))
        self.labels = np.asarray(labels).reshape(-1).astype(np.int32)
        self.has_boxes = boxes is not None
        count = len(self.labels)
        self.boxes = (
            np.asarray(boxes, np.float32).reshape(-1, 4)
            if boxes is not None
            else np.full((count, 4), np.nan, np.float32)
        )
        self.real = ~np.asarray(raw.get("iscrowd", np.zeros(count)), np.bool_).reshape(-1)
        self.keeps = len(self.boxes) == len(self.labels) == len(self.real)

    def findings(self) -> list[Finding]:
        """What is wrong with it."""
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            self.keeps = False
            return [self._finding("bad-target", f"its image is {self.image.dtype} {list(self.image.shape)}")]
        if not self.keeps:
            detail = f"{len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.real)} flags of crowds"
            return [self._finding("bad-target", detail)]
        found = self._wrong_labels() + self._wrong_boxes() + self._wrong_masks() + self._wrong_semantic_mask()
        if not found and len(self.labels) == np.size(
            self.raw.get("labels", self.raw.get("label", ()))
        ):  # whatever else training would stop at
            try:
                check_targets(
                    fill_defaults(self.raw, self.index) if "boxes" in self.raw else self.raw, self.num_classes
                )
            except ValueError as error:
                found.append(self._finding("bad-target", str(error)))
        return found

    def _finding(self, code: str, detail: str, boxes: np.ndarray | None = None) -> Finding:
        marked = rows(boxes) if boxes is not None else ()
        return Finding(code, self.where, detail, image=self.path, index=self.index, boxes=marked)

    def _named(self, label: int) -> str:
        return f"class {self.names[label] if self.names is not None and 0 <= label < len(self.names) else label}"

    def _wrong_labels(self) -> list[Finding]:
        said = self.labels == RECORDED
        if said.any():
            self.boxes, self.labels, self.real = self.boxes[~said], self.labels[~said], self.real[~said]
        if self.num_classes is None:
            return []
        wrong = (self.labels < 0) | (self.labels >= self.num_classes)
        range_ = f"but there are {self.num_classes} classes, 0 to {self.num_classes - 1}"
        found = []
        for number in np.flatnonzero(wrong):
            what = f"object {number + 1} has the label" if self.has_boxes else "the label is"
            box = self.boxes[[number]] if self.has_boxes else None
            found.append(self._finding("label-outside", f"{what} {self.labels[number]}, {range_}", box))
        if wrong.any():
            self.boxes, self.labels, self.real = self.boxes[~wrong], self.labels[~wrong], self.real[~wrong]
        return found

    def _wrong_boxes(self) -> list[Finding]:
        if not self.has_boxes or not len(self.boxes):
            return []
        height, width = self.image.shape[:2]
        codes = box_faults(self.boxes, np.broadcast_to((width, height), (len(self.boxes), 2)))
        found = [
            self._finding(codes[number], f"{shown(self.boxes[number])} in {width}x{height}", self.boxes[[number]])
            for number in np.flatnonzero(codes != "")
        ]
        keys = np.column_stack([self.labels.astype(np.float32), self.boxes])[codes == ""]
        if len(keys) > 1:
            _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            twice = np.flatnonzero(first[group.reshape(-1)] != np.arange(len(keys)))
            for number in twice:
                detail = f"{self._named(int(keys[number, 0]))}, box {shown(keys[number, 1:])}"
                found.append(self._finding("duplicate-object", detail, keys[[number], 1:]))
        return found

    def _wrong_masks(self) -> list[Finding]:
        masks = self.raw.get("masks")
        if masks is None or not len(masks) or masks.shape[1:] != self.image.shape[:2] or len(masks) != len(self.boxes):
            return []
        filled = masks.any(axis=(1, 2))
        found = [
            self._finding(
                "empty-mask",
                f"{self._named(self.labels[number])}, box {shown(self.boxes[number])}",
                self.boxes[[number]],
            )
            for number in np.flatnonzero(~filled)
        ]
        tight = boxes_of_masks(masks[filled])
        apart = differs_from_mask(tight, self.boxes[filled])
        for mask_box, box, label in zip(
            tight[apart], self.boxes[filled][apart], self.labels[filled][apart], strict=True
        ):
            detail = f"{self._named(label)}, box {shown(box)}, but its mask fills {shown(mask_box)}"
            found.append(self._finding("mask-box", detail, np.stack([box, mask_box])))
        return found

    def _wrong_semantic_mask(self) -> list[Finding]:
        mask = self.raw.get("mask")
        if mask is None or mask.dtype != np.uint8 or mask.shape != self.image.shape[:2]:
            return []
        counts = np.bincount(mask.ravel(), minlength=256)
        known = self.num_classes if self.num_classes is not None else IGNORE_INDEX
        self.pixels = counts[:known]
        found = []
        if wrong := [value for value in np.flatnonzero(counts[:IGNORE_INDEX]).tolist() if value >= known]:
            values = ", ".join(f"{value} ({counts[value]} pixels)" for value in wrong[:5])
            found.append(self._finding("label-outside", f"the mask has {values}, but there are {known} classes"))
        if counts[IGNORE_INDEX] == mask.size:
            found.append(self._finding("empty-mask", "every pixel is ignored"))
        return found


def object_sizes(boxes: np.ndarray) -> np.ndarray:
    """Square roots of the areas of boxes ``[N, 4]``: ``[N]``, pixels."""
    return np.sqrt(box_areas(boxes).clip(min=0))
