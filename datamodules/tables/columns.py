"""Columns of CSV and Parquet tables, as they are written, with the line of each row."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import Fault, record_error, recording
from ..annotations.argument_checks import did_you_mean


class Columns(NamedTuple):
    """Columns of a table.

    Attributes:
        file: the table.
        values: the cells of each column by its heading; in a CSV text without spaces around it, in Parquet as its type
            has them; an empty cell is ``""``.
        lines: the line of each row (CSV, from 1, the heading included), or its number (Parquet, from 1).
        unit: what `lines` counts: ``line`` or ``row``.
    """

    file: Path
    values: dict[str, list[Any]]
    lines: np.ndarray
    unit: str

    def numbers(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A column of numbers, NaN where a cell is empty; and which are: float64 and bool ``[N]``.

        Raises:
            ValueError: for a cell that is neither; the message names its line. Within `record_faults` it is
                NaN.
        """
        cells = self.values[name]
        empty = np.array([cell == "" for cell in cells], np.bool_)
        numbers = np.full(len(cells), np.nan)
        try:
            numbers[~empty] = [float(cell) for cell in cells if cell != ""]
        except (ValueError, TypeError):
            for row in np.flatnonzero(~empty).tolist():
                try:
                    float(cells[row])
                except (ValueError, TypeError):
                    if not recording():  # a box that has one is recorded as what it then is, not finite
                        raise ValueError(f"{self.where(row)}: {name} is {cells[row]!r}, and must be a number") from None
                else:
                    numbers[row] = float(cells[row])
        return numbers, empty

    def flags(self, name: str) -> np.ndarray:
        """A column of 0 and 1, or false and true; empty or not there: 0. bool ``[N]``.

        Raises:
            ValueError: for another cell; the message names its line.
        """
        flags = np.zeros(len(self.lines), np.bool_)
        for row, cell in enumerate(self.values.get(name, ())):
            text = str(cell).lower()
            if text not in ("", "0", "1", "false", "true"):
                raise ValueError(f"{self.where(row)}: {name} is {cell!r}, and must be 0 or 1")
            flags[row] = text in ("1", "true")
        return flags

    def part(self, kept: np.ndarray) -> "Columns":
        """Some of the rows: bool ``[N]``."""
        chosen = np.flatnonzero(kept).tolist()
        values = {name: [cells[row] for row in chosen] for name, cells in self.values.items()}
        return self._replace(values=values, lines=self.lines[kept])

    def where(self, row: int) -> str:
        """What to call a row in a message."""
        return f"{self.file}, {self.unit} {self.lines[row]}"


def read_columns(file: Path, needed: Mapping[str, str], optional: Sequence[str] = ()) -> Columns:
    """Some columns of a table.

    Args:
        file: ``.csv`` in UTF-8, its first line the headings; or ``.parquet`` (needs pyarrow).
        needed: the heading of each column that must be there, by what to call it in a message, such as the argument
            that names it.
        optional: headings of further columns, taken where they are there.

    Raises:
        ValueError: for another kind of file, a missing column, a row with more or fewer cells than headings, or no
            rows.
        ImportError: for Parquet without pyarrow.
    """
    columns = (_csv if table_kind(file) == ".csv" else _parquet)(file, needed, optional)
    if not len(columns.lines):
        raise ValueError(f"{file}: no rows below the heading")
    return columns


def table_kind(file: Path) -> str:
    """``.csv`` or ``.parquet``.

    Raises:
        ValueError: for another kind of file.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"{file}: {suffix or 'no suffix'!r} is not a kind of table read here; give .csv or .parquet")
    return suffix


def check_headings(file: Path, headings: Sequence[str], needed: Iterable[tuple[str, str]]) -> None:
    """Look whether each column is there.

    Args:
        file: the table.
        headings: of its columns.
        needed: what to call a column in a message, and its heading.

    Raises:
        ValueError: for a column that is not there.
    """
    for key, name in needed:
        if name not in headings:
            raise ValueError(
                f"{file}: no column {name!r} ({key}); its columns are {', '.join(map(repr, headings)) or 'none'}"
                f"{did_you_mean(name, headings)}"
            )


def open_parquet(file: Path) -> Any:
    """A Parquet file, to be read and closed.

    Raises:
        ValueError: for a file that is none.
        ImportError: without pyarrow.
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


def _chosen(file: Path, headings: Sequence[str], needed: Mapping[str, str], optional: Sequence[str]) -> list[str]:
    check_headings(file, headings, needed.items())
    return list(dict.fromkeys([*needed.values(), *(name for name in optional if name in headings)]))


def _csv(file: Path, needed: Mapping[str, str], optional: Sequence[str]) -> Columns:
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.reader(opened)
        try:
            headings = [heading.strip() for heading in next(rows, [])]
            names = _chosen(file, headings, needed, optional)
            places = [headings.index(name) for name in names]
            cells: list[list[str]] = [[] for _ in names]
            lines: list[int] = []
            for row in rows:
                if not row:
                    continue
                if len(row) != len(headings):
                    found = f"{len(row)} cells, but the heading has {len(headings)}: {row}"
                    record_error(Fault("unusable-annotation", file, [rows.line_num], "line", found))
                    continue
                for place, column in zip(places, cells, strict=True):
                    column.append(row[place].strip())
                lines.append(rows.line_num)
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, after line {rows.line_num}: not CSV in UTF-8 ({error})") from error
    return Columns(file, dict(zip(names, cells, strict=True)), np.array(lines, np.int64), "line")


def _parquet(file: Path, needed: Mapping[str, str], optional: Sequence[str]) -> Columns:
    with open_parquet(file) as opened:
        names = _chosen(file, opened.schema_arrow.names, needed, optional)
        table = opened.read(columns=names)
    values = {name: ["" if cell is None else cell for cell in table.column(name).to_pylist()] for name in names}
    return Columns(file, values, np.arange(1, table.num_rows + 1), "row")
