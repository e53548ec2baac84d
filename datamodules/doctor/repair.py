"""Repair of annotations: one decision, for all formats, on what is kept, clipped, reordered and dropped."""

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_table import AnnotationTable, ObjectEntry, Reason
from ..annotations.fault_kinds import KINDS
from ..annotations.object_masks import ObjectMasksBuilder
from ..annotations.validity import box_faults, differs_from_mask, repair_boxes, repeated_objects
from ..images.similarity import exact_groups
from ..loading.targets import boxes_of_masks
from .duplicates import ImagePool
from .findings import format_box
from .report import Report

UNKNOWN_SIDE = 2**30
"""Side of an image that was not read: no box is outside it."""
_BOX_ACTIONS = {"box-inverted": "corners reordered", "box-beyond": "clipped"}


class Change(NamedTuple):
    """One change: its file, the location in it, the kind of fault (`KINDS`), the action, and the reason."""

    file: str
    location: str
    kind: str
    action: str
    reason: str


@dataclass
class RepairLog:
    """The changes of a repair, and the decisions that it leaves to the user."""

    changes: dict[Change, None] = field(default_factory=dict)  # in their order
    remaining: list[str] = field(default_factory=list)

    def add(self, file: Path | str, location: str, kind: str, action: str, reason: str = "") -> None:
        """Add a change, unless it was added before: two lists may share a file."""
        self.changes.setdefault(Change(str(file), location, kind, action, reason or KINDS[kind].title))

    def counts(self) -> Counter[tuple[str, str]]:
        """Count the changes by kind and action."""
        return Counter((change.kind, change.action) for change in self.changes)


def repair(table: AnnotationTable, excluded: Mapping[str, Reason], log: RepairLog) -> AnnotationTable:
    """Decide which annotations a corrected copy keeps, and correct their boxes.

    - Images with a fault, excluded ones, and repeated entries are left out with their objects.
    - Objects with a fault of their own, or with an unusable or empty mask, are dropped.
    - A box that is invalid or differs from its mask is taken from the mask, where masks are required.
    - Corners are reordered and boxes clipped to their image; boxes that are still invalid are dropped.
    - Objects that repeat the class and box of an earlier one of their image are dropped.

    Args:
        table: The annotations as written; boxes of its entries are changed in place.
        excluded: Images to leave out, by path.
        log: Receives the changes.
    """
    images, seen = [], set()
    for image in table.images:
        reason = excluded.get(image.path) or image.fault
        if reason is None and image.path in seen:
            reason = Reason("duplicate-image", "listed before")
        if reason is None:
            images.append(image)
        else:
            log.add(image.file, image.name, reason.kind, "left out", reason.detail)
        seen.add(image.path)
    kept, objects = set(images), []
    for entry in table.objects:
        if entry.fault is not None and (entry.image is None or entry.image in kept):
            _drop(entry, entry.fault.kind, log, entry.fault.detail)
        elif entry.image in kept:
            objects.append(entry)
    if table.with_masks:
        objects = [entry for entry in objects if _repair_mask(entry, table.with_boxes, log)]
    if table.with_boxes and objects:
        objects = _repair_boxes(objects, table.min_side, log)
    return AnnotationTable(images, objects, table.with_boxes, table.with_masks, table.min_side)


def _file_of(entry: ObjectEntry) -> Path | str:
    assert entry.file is not None or entry.image is not None
    return entry.file if entry.file is not None else entry.image.file  # type: ignore[union-attr]


def _drop(entry: ObjectEntry, kind: str, log: RepairLog, reason: str = "") -> None:
    log.add(_file_of(entry), entry.name, kind, "dropped", reason or entry.text)


def _repair_mask(entry: ObjectEntry, with_boxes: bool, log: RepairLog) -> bool:
    """Whether the mask of an object can be used; its box is taken from the mask if it is invalid or differs."""
    assert entry.image is not None
    width, height = (int(side) for side in entry.image.size)
    box = np.array([entry.box], np.float64)
    # readers look at the box first: of an object with two faults, the box names the fault
    kind = str(box_faults(box, np.array([[width, height]]))[0]) if with_boxes else ""
    kind = "" if kind == "box-beyond" else kind  # clipped later
    builder = ObjectMasksBuilder()
    if defect := builder.add(entry.segmentation, height, width):
        _drop(entry, kind or "bad-mask", log, defect)
        return False
    mask = builder.build().decode([0], height, width)
    if not with_boxes:
        return True
    if not mask.any():
        _drop(entry, kind or "empty-mask", log)
        return False
    tight = boxes_of_masks(mask)
    if kind or differs_from_mask(tight, np.clip(box, 0, [width, height] * 2))[0]:
        reason = f"{entry.text}, mask {format_box(tight[0])}"
        log.add(_file_of(entry), entry.name, kind or "mask-box", "box taken from the mask", reason)
        entry.box, entry.changed = tight[0], True
    return True


def _repair_boxes(entries: list[ObjectEntry], min_side: float, log: RepairLog) -> list[ObjectEntry]:
    """Objects with corrected boxes, without those that cannot be corrected and without repeated ones."""
    owners = [entry.image for entry in entries if entry.image is not None]
    sizes = np.array([image.size for image in owners], np.float64)
    sizes[(sizes <= 0).any(axis=1)] = UNKNOWN_SIDE
    boxes = np.array([entry.box for entry in entries], np.float64).reshape(-1, 4)
    boxes, codes, valid = repair_boxes(boxes, sizes, np.array([image.pixel for image in owners]), min_side)
    numbers: dict[Hashable, int] = {}
    labels = np.array([numbers.setdefault(("label", entry.label), len(numbers)) for entry in entries])
    images = np.array([numbers.setdefault(image, len(numbers)) for image in owners])
    usable = np.flatnonzero(valid)
    clipped = np.clip(boxes, 0, np.tile(sizes, 2))[usable]
    repeated = set(usable[repeated_objects(images[usable], labels[usable], clipped)].tolist())
    kept = []
    for number, (entry, code) in enumerate(zip(entries, codes.tolist(), strict=True)):
        if not valid[number] or number in repeated:
            _drop(entry, code if not valid[number] else "duplicate-object", log)
            continue
        if code:
            log.add(_file_of(entry), entry.name, code, _BOX_ACTIONS[code], entry.text)
            entry.box, entry.changed = boxes[number], True
        kept.append(entry)
    return kept


# -- excluded images -----------------------------------------------------------------------------------


Exclusions = dict[str, dict[str, Reason]]
"""Images to leave out, by split and path."""
Fixer = Callable[[Report, Exclusions, Path, RepairLog], dict[str, Any] | None]
"""Writes a corrected copy to a folder; returns the arguments that make the data module read it, or None."""


def find_exclusions(report: Report, log: RepairLog) -> Exclusions:
    """Return the images that a corrected copy leaves out.

    Of images with the same pixels one is kept: in the latest of train, val and test, the first. If their classes
    differ, all are kept, and the log says so.
    """
    exclusions: Exclusions = {record.name: {} for record in report.records}
    for finding in report.findings:
        if finding.excludes_sample and finding.image is not None:
            reason = Reason(finding.code, finding.detail)
            exclusions.setdefault(finding.split, {}).setdefault(finding.image, reason)
    for record in report.records:  # more findings than are kept
        for index in np.flatnonzero(record.excluded):
            if (path := record.paths[index]) is not None:
                exclusions[record.name].setdefault(path, Reason("bad-target", "see the report"))
    if report.records and not {"duplicate-image", "leaked-image"} <= report.findings.ignored:
        _exclude_duplicates(report, exclusions, log)
    return exclusions


def _exclude_duplicates(report: Report, exclusions: Exclusions, log: RepairLog) -> None:
    names, pool = report.statistics.class_names, ImagePool(report.records, report.statistics.class_names)
    usable = np.concatenate([record.readable & ~record.excluded for record in report.records])
    for group in exact_groups(pool.digests, usable):
        members = [pool.position(number) for number in group.tolist()]
        paths = [pool.location(*member) for member in members]
        classes = {label for member in members if (label := pool.label(*member)) is not None}
        if len(classes) > 1 and report.statistics.kind == "labels":
            listed = ", ".join(names[label] for label in sorted(classes))
            log.remaining.append(f"the same image with different labels ({listed}): {', '.join(paths[:4])}")
            continue
        kept = max(range(len(members)), key=lambda number: (members[number][0], -number))
        for number, ((split, _), path) in enumerate(zip(members, paths, strict=True)):
            same_split = split == members[kept][0]
            if number != kept and not (path == paths[kept] and same_split):
                detail = f"the same pixels as {report.records[members[kept][0]].name}: {paths[kept]}"
                reason = Reason("duplicate-image" if same_split else "leaked-image", detail)
                exclusions[report.records[split].name].setdefault(path, reason)
