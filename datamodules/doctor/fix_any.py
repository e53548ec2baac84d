"""What can be written of a data set whose format the doctor does not know how to write: lists and a manifest."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..annotations.validity import box_faults
from .fixes import Excluded, Log, excluded, link, list_excluded, write_rows

if TYPE_CHECKING:
    from .collecting import Report
    from .records import SplitRecord

_BOX = ("x1", "y1", "x2", "y2")


def fix_any(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``excluded.csv``, and, where labels or boxes are all there is, tables that the manifests' data modules read."""
    left_out = excluded(report, log)
    list_excluded(folder, left_out)
    name = type(report.data).__name__
    kind = report.statistics.kind
    in_files = report.records and all(path is not None for record in report.records for path in record.paths)
    if not in_files or kind not in ("labels", "boxes") or "masks" in _fields(report):
        _say_nothing_is_corrected(left_out, log)
        return None
    many = kind == "boxes" and getattr(report.data, "variable_size_images", True)
    headings = ("path", "label", *(_BOX if kind == "boxes" else ()))
    tables: dict[str, Any] = {}
    for record in report.records:
        table = folder / f"{record.name}.csv"
        write_rows(table, headings, _rows(report, record, left_out[record.name].keys(), many, folder))
        tables[record.name] = str(table)
    tables |= {split: tables[other] for split, other in report.aliases.items() if other in tables}
    if "train" not in tables:
        _say_nothing_is_corrected(left_out, log)
        return None
    for own in left_out.values():
        for path, why in own.items():
            log.add(path, "the image", why.kind, "left out", why.reason)
    log.left.append(f"a corrected copy of {name} is written as tables, not in its own format")
    reader = "Manifest" if kind == "labels" else "DetectionManifest" if many else "LocalizationManifest"
    return {"class_path": f"striate.datamodules.{reader}", **tables, "class_names": report.statistics.class_names}


def _say_nothing_is_corrected(left_out: dict[str, dict[str, Excluded]], log: Log) -> None:
    count = sum(map(len, left_out.values()))
    samples = "1 sample to leave out is" if count == 1 else f"{count:,} samples to leave out are"
    log.left.append("nothing can be corrected automatically" + (f": {samples} listed in excluded.csv" if count else ""))


def _fields(report: "Report") -> set[str]:
    for record in report.records:
        for index in np.flatnonzero(record.readable & ~record.faulty)[:1]:
            return set(report.sources[record.name][int(index)])
    return set()


def _rows(report: "Report", record: "SplitRecord", left_out: Any, many: bool, folder: Path) -> list[tuple[Any, ...]]:
    table, names = record.objects(), report.statistics.class_names
    root = os.path.abspath(getattr(report.data, "root", None) or os.sep)  # noqa: PTH100
    starts = np.searchsorted(table.image, np.arange(len(record) + 1))
    rows: list[tuple[Any, ...]] = []
    for index, path in enumerate(record.paths):
        if path is None or path in left_out:
            continue
        own = slice(starts[index], starts[index + 1])
        path, found = _linked(path, root, folder), []
        sizes = np.repeat(record.sizes[[index]], starts[index + 1] - starts[index], axis=0)
        usable = box_faults(table.boxes[own], sizes) == ""
        for label, box, good, real in zip(table.labels[own], table.boxes[own], usable, table.real[own], strict=True):
            if np.isnan(box).any():
                found.append((path, names[label]))
            elif good and real:
                found.append((path, names[label], *(round(float(side), 4) for side in box)))
        rows += dict.fromkeys(found) or ([(path, "", "", "", "", "")] if many else [])
    return rows


def _linked(path: str, root: str, folder: Path) -> str:
    """The path of an image for a table in `folder`: of a link there, or, outside `root`, of the image itself."""
    inner = os.path.relpath(path, root)
    if inner.startswith(".."):
        return path
    inner = f"files/{inner}"
    if not (folder / inner).exists():
        link(path, folder / inner)
    return inner
