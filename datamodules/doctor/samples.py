"""Inspection of one raw sample: its faults, and the few numbers of it that are kept."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..annotations.annotation_errors import RECORDED, DataError, record_faults
from ..annotations.validity import box_faults, differs_from_mask, repeated_objects
from ..batches import IGNORE_INDEX
from ..images.bit_depth import BitDepthError, ReadOptions
from ..images.read import ImageError, orientation_of, read_image
from ..images.similarity import APPEARANCE_BYTES, appearance_of, pixel_digest
from ..loading.sources import Source
from ..loading.targets import boxes_of_masks, check_targets, fill_defaults
from .findings import Finding, box_rows, findings_of, format_box

MIN_LEVELS = 16
"""Levels of 255 between the darkest and the brightest pixel below which an image has no contrast."""


@dataclass
class SampleSummary:
    """What is kept of a sample.

    Attributes:
        path: File of the image, if known.
        size: Width and height in pixels; 0, 0 if the image cannot be read.
        digest: Hash of the pixels, 16 bytes.
        gradient: 64 bits, each whether the image gets brighter to the right (dHash).
        appearance: ``[APPEARANCE_BYTES]`` uint8, see `appearance_of`.
        boxes: ``[N, 4]`` float32; NaN ``[1, 4]`` for classification.
        labels: ``[N]`` int32.
        not_crowd: ``[N]`` bool.
        class_pixels: ``[K]``, pixels of each class of a semantic mask; None: no mask.
        findings: The faults.
    """

    path: str | None = None
    size: tuple[int, int] = (0, 0)
    digest: bytes = b"\0" * 16
    gradient: int = 0
    appearance: np.ndarray = field(default_factory=lambda: np.zeros(APPEARANCE_BYTES, np.uint8))
    boxes: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    not_crowd: np.ndarray = field(default_factory=lambda: np.zeros(0, np.bool_))
    class_pixels: np.ndarray | None = None
    findings: list[Finding] = field(default_factory=list)

    def keep_image(self, image: np.ndarray) -> None:
        """Keep size, hash and appearance of an image ``[H, W, 3]`` uint8; any other array is skipped."""
        if not _is_image(image) or not image.size:
            return
        self.size = image.shape[1], image.shape[0]
        self.digest = pixel_digest(image)
        self.gradient, self.appearance = appearance_of(image)


def inspect_sample(
    source: Source,
    index: int,
    path: str | None,
    class_names: Sequence[str] | None,
    decoder_warnings: Callable[[], str] = str,
) -> SampleSummary:
    """Read a sample and look for faults.

    Args:
        source: Source of the sample.
        index: Its index.
        path: File of its image, if known beforehand.
        class_names: Names of the classes; None: unknown, labels are not checked.
        decoder_warnings: Returns what the image decoders have reported since the last call.
    """
    summary = SampleSummary(path)
    decoder_warnings()
    try:
        with record_faults() as faults:  # mask files are only read now
            raw = source[index]
    except Exception as error:  # for any error of one sample, the others are still inspected
        summary.findings.append(_reading_error(error, path, index))
        if path is not None:  # the image itself may be valid, and a copy of another
            try:
                summary.keep_image(read_image(path, options=getattr(source, "options", ReadOptions())))
            except Exception:
                return summary
        return summary
    if path is None and "path" in raw:
        summary.path = path = os.path.abspath(raw["path"])  # noqa: PTH100
    for fault in faults:
        summary.findings += [replace(finding, image=path, index=index) for finding in findings_of(fault, "")]
    inspection = _Inspection(raw, path, index, class_names)
    summary.findings += inspection.findings()
    if warning := decoder_warnings():
        summary.findings.append(Finding("damaged-image", inspection.location, warning, image=path, index=index))
    summary.keep_image(inspection.image)
    summary.findings += _image_findings(inspection, summary.findings)
    if inspection.countable:
        summary.boxes, summary.labels, summary.not_crowd = inspection.boxes, inspection.labels, inspection.not_crowd
        summary.class_pixels = inspection.class_pixels
    return summary


def _reading_error(error: Exception, path: str | None, index: int) -> Finding:
    """The finding for an error that a source raised."""
    if isinstance(error, ImageError):
        file, code = os.path.abspath(error.path), error.code  # noqa: PTH100
        if not Path(file).exists():
            code = "missing-image" if path in (None, file) else "missing-annotation"
        return Finding(code, file, error.reason, image=path or file, index=index)
    message = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    if path is not None:
        for name in (path, os.path.relpath(path)):  # as the reader was given it
            message = message.removeprefix(f"{name}: ")
    code = error.fault.code if isinstance(error, DataError) and error.fault is not None else "bad-target"
    code = "bit-depth" if isinstance(error, BitDepthError) else code
    return Finding(code, path or f"sample {index}", message, image=path, index=index)


def _image_findings(inspection: "_Inspection", reported: Sequence[Finding]) -> list[Finding]:
    """The findings about an image itself: without contrast, or turned by EXIF although it has boxes."""
    if not _is_image(inspection.image) or not inspection.image.size:
        return []
    found = []
    low, high = int(inspection.image.min()), int(inspection.image.max())
    if high - low < MIN_LEVELS:
        found.append(inspection.finding("flat-image", f"its pixels are {low} to {high} of 255"))
    is_reported = any(finding.code == "turned-mask" for finding in reported)
    turnable = inspection.has_boxes and inspection.path is not None and not is_reported
    if turnable and (orientation := orientation_of(inspection.path or "")) != 1:
        found.append(inspection.finding("turned-image", f"orientation {orientation}"))
    return found


def _is_image(image: np.ndarray) -> bool:
    """Whether an array is an image ``[H, W, 3]`` uint8."""
    return image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8


class _Inspection:
    """Looks for the faults of a raw sample.

    Attributes:
        countable: Whether its objects have consistent shapes and enter the statistics.
    """

    def __init__(self, raw: dict[str, Any], path: str | None, index: int, names: Sequence[str] | None) -> None:
        self.raw, self.path, self.index, self.names = raw, path, index, names
        self.num_classes = None if names is None else len(names)
        self.location = path or f"sample {index}"
        self.image = np.asarray(raw["image"])
        self.class_pixels: np.ndarray | None = None
        boxes, labels = raw.get("boxes", raw.get("box")), raw.get("labels", raw.get("label", ()))
        self.labels = np.asarray(labels).reshape(-1).astype(np.int32)
        self.has_boxes = boxes is not None
        count = len(self.labels)
        self.boxes = np.full((count, 4), np.nan, np.float32)
        if boxes is not None:
            self.boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        self.not_crowd = ~np.asarray(raw.get("iscrowd", np.zeros(count)), np.bool_).reshape(-1)
        self.countable = len(self.boxes) == count == len(self.not_crowd)

    def findings(self) -> list[Finding]:
        """Return the faults of the sample."""
        if not _is_image(self.image):
            self.countable = False
            return [self.finding("bad-target", f"its image is {self.image.dtype} {list(self.image.shape)}")]
        if not self.countable:
            detail = f"{len(self.boxes)} boxes, {len(self.labels)} labels, {len(self.not_crowd)} flags of crowds"
            return [self.finding("bad-target", detail)]
        count = len(self.labels)
        found = self._label_faults() + self._box_faults() + self._mask_faults() + self._semantic_mask_faults()
        if not found and len(self.labels) == count:  # any other error that would stop training
            try:
                check_targets(
                    fill_defaults(self.raw, self.index) if "boxes" in self.raw else self.raw, self.num_classes
                )
            except ValueError as error:
                found.append(self.finding("bad-target", str(error)))
        return found

    def finding(self, code: str, detail: str, boxes: np.ndarray | None = None) -> Finding:
        """Return a finding of this sample, with boxes ``[N, 4]`` to mark."""
        marked = box_rows(boxes) if boxes is not None else ()
        return Finding(code, self.location, detail, image=self.path, index=self.index, boxes=marked)

    def _object(self, label: int, box: np.ndarray) -> str:
        """Name an object by its class and its box ``[4]``."""
        name = self.names[label] if self.names is not None and 0 <= label < len(self.names) else label
        return f"class {name}, box {format_box(box)}"

    def _keep(self, kept: np.ndarray) -> None:
        """Drop the objects that are not `kept`, bool ``[N]``."""
        self.boxes, self.labels, self.not_crowd = self.boxes[kept], self.labels[kept], self.not_crowd[kept]

    def _label_faults(self) -> list[Finding]:
        self._keep(self.labels != RECORDED)
        if self.num_classes is None:
            return []
        wrong = (self.labels < 0) | (self.labels >= self.num_classes)
        classes = f"but there are {self.num_classes} classes, 0 to {self.num_classes - 1}"
        found = []
        for number in np.flatnonzero(wrong):
            owner = f"object {number + 1} has the label" if self.has_boxes else "the label is"
            box = self.boxes[[number]] if self.has_boxes else None
            found.append(self.finding("label-outside", f"{owner} {self.labels[number]}, {classes}", box))
        self._keep(~wrong)
        return found

    def _box_faults(self) -> list[Finding]:
        if not self.has_boxes or not len(self.boxes):
            return []
        height, width = self.image.shape[:2]
        codes = box_faults(self.boxes, np.broadcast_to((width, height), (len(self.boxes), 2)))
        found = [
            self.finding(codes[number], f"{format_box(self.boxes[number])} in {width}x{height}", self.boxes[[number]])
            for number in np.flatnonzero(codes != "")
        ]
        valid = np.flatnonzero(codes == "")
        repeated = valid[repeated_objects(np.zeros(len(valid)), self.labels[valid], self.boxes[valid])]
        for number in repeated:
            detail = self._object(self.labels[number], self.boxes[number])
            found.append(self.finding("duplicate-object", detail, self.boxes[[number]]))
        return found

    def _mask_faults(self) -> list[Finding]:
        masks = self.raw.get("masks")
        if masks is None or not len(masks) or masks.shape[1:] != self.image.shape[:2] or len(masks) != len(self.boxes):
            return []
        filled = masks.any(axis=(1, 2))
        found = [
            self.finding("empty-mask", self._object(self.labels[number], self.boxes[number]), self.boxes[[number]])
            for number in np.flatnonzero(~filled)
        ]
        tight, boxes, labels = boxes_of_masks(masks[filled]), self.boxes[filled], self.labels[filled]
        for number in np.flatnonzero(differs_from_mask(tight, boxes)):
            detail = f"{self._object(labels[number], boxes[number])}, but its mask fills {format_box(tight[number])}"
            found.append(self.finding("mask-box", detail, np.stack([boxes[number], tight[number]])))
        return found

    def _semantic_mask_faults(self) -> list[Finding]:
        mask = self.raw.get("mask")
        if mask is None or mask.dtype != np.uint8 or mask.shape != self.image.shape[:2]:
            return []
        counts = np.bincount(mask.ravel(), minlength=max(256, self.num_classes or 0))
        known = self.num_classes if self.num_classes is not None else IGNORE_INDEX
        self.class_pixels = counts[:known]
        found = []
        if wrong := [value for value in np.flatnonzero(counts[:IGNORE_INDEX]).tolist() if value >= known]:
            values = ", ".join(f"{value} ({counts[value]} pixels)" for value in wrong[:5])
            found.append(self.finding("label-outside", f"the mask has {values}, but there are {known} classes"))
        if counts[IGNORE_INDEX] == mask.size:
            found.append(self.finding("empty-mask", "every pixel is ignored"))
        return found
