"""Corrected copies of manifests: tables of images with labels, or with labels and boxes."""

import csv
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import OUTSIDE
from ..annotations.objects import confined
from ..annotations.validity import repair_boxes, repeated_objects
from .fixes import ACTIONS, Excluded, Log, excluded, link, list_excluded, plain, write_rows

if TYPE_CHECKING:
    from .collecting import Report
_SIDES = ("x1", "y1", "x2", "y2")


class _Columns(NamedTuple):
    """Headings of a manifest; no sides: it has no boxes."""

    path: str
    label: str
    sides: tuple[str, ...]
    many: bool  # whether a row is an object, of which an image may have none


def fix_table(report: "Report", folder: Path, log: Log) -> dict[str, Any] | None:
    """``FOLDER/train.csv`` …, and the images linked below ``FOLDER/files`` by the same paths."""
    data: Any = report.data
    columns = _columns(data)
    left_out = excluded(report, log)
    init_args: dict[str, Any] = {"root": str(folder / "files")} if data.root is not None else {}
    names = [str(name) for name in data.class_names]
    for split, table in data.tables.items():
        if table is None:
            continue
        file = Path(table).expanduser()
        base = Path(data.root) if data.root is not None else file.parent
        reasons = dict(left_out.get(split, {}))
        if split == "train" and data.tables["val"] is None:  # rows held out of it are val
            reasons |= left_out.get("val", {})
        try:
            headings, rows = _read(file)
            mend = _Table(file, base, headings, columns, names, log, data.root is not None)
            kept = mend.rows(rows, reasons, report)
        except (ValueError, OSError, KeyError) as error:
            log.left.append(f"{file}: not corrected, since it cannot be read ({type(error).__name__}: {error})")
            continue
        target = folder / f"{split}.csv"
        write_rows(target, headings, [mend.linked(row, folder) for row in kept])
        init_args[split] = str(target)
    list_excluded(folder, left_out)
    return init_args


def _columns(data: Any) -> _Columns:
    if isinstance(data.columns, tuple):
        path, label, sides = data.columns
        return _Columns(path, label, tuple(sides), many=True)
    sides = tuple(getattr(data, "box_columns", ()))
    return _Columns(data.columns["path_column"], data.columns["label_column"], sides, many=False)


def _read(file: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Headings, and each row with its line (CSV) or number (Parquet)."""
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(file)
        values = zip(*(column.to_pylist() for column in table.columns), strict=True)
        rows = [["" if cell is None else str(cell) for cell in row] for row in values]
        return list(table.column_names), list(enumerate(rows, start=1))
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened)
        headings = next(reader, [])
        return headings, [(reader.line_num, row) for row in reader if row]


class _Table:
    """One table being corrected."""

    def __init__(
        self,
        file: Path,
        base: Path,
        headings: list[str],
        columns: _Columns,
        names: list[str],
        log: Log,
        rooted: bool,
    ) -> None:
        self.file, self.base, self.columns, self.log = file, base, columns, log
        self.names, self.width = names, len(headings)
        self.rooted = rooted
        self.path, self.label = headings.index(columns.path), headings.index(columns.label)
        self.sides = [headings.index(side) for side in columns.sides]

    def rows(
        self, rows: list[tuple[int, list[str]]], reasons: dict[str, Excluded], report: "Report"
    ) -> list[list[str]]:
        """The rows that can be used, with boxes put right."""
        sizes = {
            path: record.sizes[index]
            for record in report.records
            for index, path in enumerate(record.paths)
            if path is not None and self.sides
        }
        kept: list[tuple[int, list[str]]] = []
        gone: dict[str, list[str]] = {}  # images that may be left without objects, with a row of theirs
        seen: set[str] = set()
        for line, row in rows:
            if self.columns.many and len(row) != self.width:
                self._note(line, "unusable-annotation", "left out", f"{len(row)} cells")
                continue
            row = row + [""] * (self.width - len(row))
            filled = sum(row[side].strip() != "" for side in self.sides)
            path = os.path.abspath(self.base / row[self.path])  # noqa: PTH100
            if why := reasons.get(path):
                self._note(line, why.kind, "left out", why.reason)
            elif not row[self.path].strip() or (not row[self.label].strip() and not self.columns.many):
                self._note(line, "missing-annotation", "left out", "no path or no label")
            elif self.rooted and not confined(row[self.path]):
                self._note(line, "bad-target", "left out", OUTSIDE)
            elif self.columns.many and not row[self.label].strip() and filled:
                self._note(line, "missing-annotation", "left out", "a box without label")
                gone.setdefault(path, row)
            elif row[self.label].strip() and not self._is_class(row[self.label]):
                self._note(line, "label-outside", "left out", f"label {row[self.label]!r}")
                gone.setdefault(path, row)
            elif self.columns.many and row[self.label].strip() and filled < len(self.sides):
                self._note(line, "unusable-annotation", "left out", f"{filled} of the four sides of a box")
                gone.setdefault(path, row)
            elif path in seen and not self.columns.many:
                self._note(line, "duplicate-image", "left out", "listed before")
            else:
                kept.append((line, row))
            seen.add(path)
        if self.sides:
            kept = self._mend(kept, sizes, gone)
        if self.columns.many:
            there = {os.path.abspath(self.base / row[self.path]) for _, row in kept}  # noqa: PTH100
            for path, row in gone.items():
                if path not in there:
                    empty = list(row)
                    for place in (self.label, *self.sides):
                        empty[place] = ""
                    kept.append((0, empty))
        return [row for _, row in kept]

    def _is_class(self, label: str) -> bool:
        label = label.strip()
        return label in self.names or (label.lstrip("+").isdecimal() and int(label) < len(self.names))

    def _mend(
        self, rows: list[tuple[int, list[str]]], sizes: dict[str, np.ndarray], gone: dict[str, list[str]]
    ) -> list[tuple[int, list[str]]]:
        paths = [os.path.abspath(self.base / row[self.path]) for _, row in rows]  # noqa: PTH100
        boxed = [place for place, (_, row) in enumerate(rows) if row[self.label].strip()]
        boxes = np.array([[_number(rows[place][1][side]) for side in self.sides] for place in boxed]).reshape(-1, 4)
        large = np.array([2**30, 2**30])  # of an image that was not read
        own = np.array([sizes.get(paths[place], large) for place in boxed]).reshape(-1, 2)
        own = np.where(own > 0, own, large)
        mended, codes, good = repair_boxes(boxes, own)
        labels = np.unique([rows[place][1][self.label].strip() for place in boxed], return_inverse=True)[1]
        images = np.unique([paths[place] for place in boxed], return_inverse=True)[1]
        sound = np.flatnonzero(good)
        copies = set(
            sound[repeated_objects(images[sound], labels[sound], np.clip(mended, 0, np.tile(own, 2))[sound])].tolist()
        )
        dropped = set()
        for number_, place in enumerate(boxed):
            line, row = rows[place]
            code, before = str(codes[number_]), str([row[side] for side in self.sides])
            if not good[number_] or number_ in copies:
                self._note(line, code if not good[number_] else "duplicate-object", "dropped", before)
                dropped.add(place)
                gone.setdefault(paths[place], row)
            elif code:
                self._note(line, code, ACTIONS[code], before)
                row = list(row)
                for side, value in zip(self.sides, mended[number_], strict=True):
                    row[side] = str(plain(value))
                rows[place] = (line, row)
        return [row for place, row in enumerate(rows) if place not in dropped]

    def linked(self, row: list[str], folder: Path) -> list[str]:
        """A row whose image is linked beside the new table; a path that leads elsewhere is made absolute instead."""
        name = row[self.path]
        original = os.path.abspath(self.base / name)  # noqa: PTH100
        if not confined(name):
            return [*row[: self.path], original, *row[self.path + 1 :]]
        copy = (folder / "files" if self.rooted else folder) / name
        if not copy.exists():
            link(original, copy)
        return row

    def _note(self, line: int, kind: str, action: str, reason: str) -> None:
        self.log.add(self.file, f"line {line}" if self.file.suffix == ".csv" else f"row {line}", kind, action, reason)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
