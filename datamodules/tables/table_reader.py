"""Reads columns of CSV and Parquet tables, with the line of each row."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import Fault, record_error, recording
from ..annotations.argument_checks import did_you_mean


class Table(NamedTuple):
    """Columns of a table with N rows.

    Attributes:
        file: CSV or Parquet file.
        values: Cells of each column by its heading: text without surrounding spaces in CSV, the column's type in
            Parquet; an empty cell is ``""``.
        lines: ``[N]`` int64, line of each row in CSV, from 1, with the heading; its number in Parquet, from 1.
        unit: What `lines` counts, ``line`` or ``row``.
    """

    file: Path
    values: dict[str, list[Any]]
    lines: np.ndarray
    unit: str

    def numbers(self, column: str) -> tuple[np.ndarray, np.ndarray]:
        """Return a column of numbers, NaN where a cell is empty, and which cells are: float64 and bool ``[N]``.

        Raises:
            ValueError: A cell is neither; the message has its line. Within `record_faults`, the number is NaN.
        """
        cells = self.values[column]
        empty = np.array([cell == "" for cell in cells], np.bool_)
        numbers = np.full(len(cells), np.nan)
        try:
            numbers[~empty] = [float(cell) for cell in cells if cell != ""]
        except (ValueError, TypeError):
            for row in np.flatnonzero(~empty).tolist():
                try:
                    numbers[row] = float(cells[row])
                except (ValueError, TypeError):
                    if not recording():  # a box with NaN is recorded as not finite
                        raise ValueError(
                            f"{self.location(row)}: {column} must be a number, got {cells[row]!r}"
                        ) from None
        return numbers, empty

    def flags(self, column: str) -> np.ndarray:
        """Return a column of 0 and 1, or false and true, as bool ``[N]``; a missing column or cell is False.

        Raises:
            ValueError: A cell is something else; the message has its line.
        """
        flags = np.zeros(len(self.lines), np.bool_)
        for row, cell in enumerate(self.values.get(column, ())):
            text = str(cell).lower()
            if text not in ("", "0", "1", "false", "true"):
                raise ValueError(f"{self.location(row)}: {column} must be 0 or 1, got {cell!r}")
            flags[row] = text in ("1", "true")
        return flags

    def select(self, kept: np.ndarray) -> "Table":
        """Return some of the rows: bool ``[N]``."""
        if kept.all():
            return self
        rows = np.flatnonzero(kept).tolist()
        values = {name: [cells[row] for row in rows] for name, cells in self.values.items()}
        return self._replace(values=values, lines=self.lines[kept])

    def location(self, row: int) -> str:
        """Return the file and line of a row, for messages."""
        return f"{self.file}, {self.unit} {self.lines[row]}"

    def record(self, code: str, row: int, found: str, remedy: str = "") -> None:
        """Record a fault of one row; see `record_error`."""
        record_error(Fault(code, self.file, [self.lines[row]], self.unit, found, remedy))


def read_table(file: Path, needed: Mapping[str, str], optional: Sequence[str] = (), ragged: bool = False) -> Table:
    """Read columns of a table.

    Args:
        file: ``.csv`` in UTF-8 with the headings in its first line, or ``.parquet`` (needs pyarrow).
        needed: Heading of each needed column by its name in messages, such as the argument that has the heading.
        optional: Headings of further columns, read if they exist.
        ragged: Whether rows of a CSV may have more or fewer cells than the heading; missing cells are empty.

    Raises:
        ValueError: The file is of another kind, a column is missing, a row has a wrong number of cells, or there are no
            rows.
        ImportError: The file is Parquet and pyarrow is not installed.
    """
    table = _csv(file, needed, optional, ragged) if table_kind(file) == ".csv" else _parquet(file, needed, optional)
    if not len(table.lines):
        raise ValueError(f"{file}: must have at least one row, got none below the heading")
    return table


def table_kind(file: Path) -> str:
    """Return ``.csv`` or ``.parquet``.

    Raises:
        ValueError: The file is of another kind.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"{file}: must be .csv or .parquet, got {suffix or 'no suffix'!r}")
    return suffix


def check_headings(file: Path, headings: Sequence[str], needed: Iterable[tuple[str, str]]) -> None:
    """Check that columns exist.

    Args:
        file: Table.
        headings: Headings of its columns.
        needed: Name in messages and heading of each needed column.

    Raises:
        ValueError: A column is missing.
    """
    for name, heading in needed:
        if heading not in headings:
            raise ValueError(
                f"{file}: no column {heading!r} ({name}), got {', '.join(map(repr, headings)) or 'none'}"
                f"{did_you_mean(heading, headings)}"
            )


def open_parquet(file: Path) -> Any:
    """Open a Parquet file; the caller closes it.

    Raises:
        ValueError: It is not a Parquet file.
        ImportError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"{file}: reading Parquet needs pyarrow: pip install pyarrow (or give a .csv)") from error
    try:
        return pyarrow.parquet.ParquetFile(file)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{file}: not a Parquet file ({error})") from error


def _columns(file: Path, headings: Sequence[str], needed: Mapping[str, str], optional: Sequence[str]) -> list[str]:
    """Return the distinct headings of the columns to read."""
    check_headings(file, headings, needed.items())
    return list(dict.fromkeys([*needed.values(), *(name for name in optional if name in headings)]))


def _csv(file: Path, needed: Mapping[str, str], optional: Sequence[str], ragged: bool) -> Table:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.reader(opened)
        try:
            headings = [heading.strip() for heading in next(rows, [])]
            names = _columns(file, headings, needed, optional)
            positions = [headings.index(name) for name in names]
            kept: list[list[str]] = []
            lines: list[int] = []
            for row in rows:
                if not row:
                    continue
                if len(row) != len(headings):
                    if not ragged:
                        found = f"a row must have {len(headings)} cells, as the heading, got {len(row)}: {row}"
                        record_error(Fault("unusable-annotation", file, [rows.line_num], "line", found))
                        continue
                    row += [""] * (len(headings) - len(row))
                kept.append(row)
                lines.append(rows.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, after line {rows.line_num}: must be CSV in UTF-8 ({error})") from error
    values: dict[str, list[Any]] = {
        name: [row[position].strip() for row in kept] for name, position in zip(names, positions, strict=True)
    }
    return Table(file, values, np.array(lines, np.int64), "line")


def _parquet(file: Path, needed: Mapping[str, str], optional: Sequence[str]) -> Table:
    with open_parquet(file) as opened:
        names = _columns(file, opened.schema_arrow.names, needed, optional)
        content = opened.read(columns=names)
    values = {name: ["" if cell is None else cell for cell in content.column(name).to_pylist()] for name in names}
    return Table(file, values, np.arange(1, content.num_rows + 1), "row")
