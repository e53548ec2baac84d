"""Reads columns of CSV and Parquet tables, with the line of each row."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import DataError, Fault, record_error, recording
from ..annotations.argument_checks import did_you_mean
from ..annotations.flags import FLAG_RULE, read_flag
from ..annotations.text_files import parse_decimal, read_text

_DELIMITERS = (",", ";", "\t", "|")


class Table(NamedTuple):
    """Columns of a table with N rows.

    Attributes:
        file: CSV or Parquet file.
        values: Cells of each column by its heading: text without surrounding spaces in CSV, the column's type in
            Parquet, where text has no surrounding spaces either; an empty cell is ``""``.
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
            numbers[~empty] = [_number(cell) for cell in cells if cell != ""]
        except (ValueError, TypeError, OverflowError):
            for row in np.flatnonzero(~empty).tolist():
                try:
                    numbers[row] = _number(cells[row])
                except (ValueError, TypeError, OverflowError):
                    if not recording():  # a box with NaN is recorded as not finite
                        remedy = "; write decimals with a point" if "," in str(cells[row]) else ""
                        raise DataError(
                            f"{self.location(row)}: {column} must be a number, got {cells[row]!r}{remedy}"
                        ) from None
        return numbers, empty

    def flags(self, column: str) -> np.ndarray:
        """Return a column of flags (see `read_flag`) as bool ``[N]``; a missing column or cell is False.

        Raises:
            DataError: A cell is something else; within `record_faults`, it is False.
        """
        flags = np.zeros(len(self.lines), np.bool_)
        for row, cell in enumerate(self.values.get(column, ())):
            flag = read_flag(cell)
            if flag is None:
                self.record("unusable-annotation", row, f"{column} {FLAG_RULE}, got {cell!r}")
            flags[row] = bool(flag)
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


def read_table(file: Path, needed: Mapping[str, str], optional: Sequence[str] = ()) -> Table:
    """Read columns of a table.

    Args:
        file: ``.csv`` with the headings in its first line, or ``.parquet`` (needs pyarrow). See `csv_rows`.
        needed: Heading of each needed column by its name in messages, such as the argument that has the heading.
        optional: Headings of further columns, read if they exist.

    Raises:
        ValueError: The file is of another kind, a column is missing, a row has a wrong number of cells, or there are no
            rows.
        ImportError: The file is Parquet and pyarrow is not installed.
    """
    table = _csv(file, needed, optional) if table_kind(file) == ".csv" else _parquet(file, needed, optional)
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
        ValueError: A column is missing, or there are two of it.
    """
    for name, heading in needed:
        if list(headings).count(heading) > 1:
            raise ValueError(f"{file}: must have one column {heading!r} ({name}), got {list(headings).count(heading)}")
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


def csv_rows(file: Path, needed: Sequence[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Read a CSV file.

    It is in UTF-8, or has a byte order mark. Cells are separated by commas, or by the semicolons, tabs or bars that
    separate the needed headings. Spaces around cells are removed, and rows without content skipped.

    Args:
        file: CSV file.
        needed: Headings that its first row has.

    Returns:
        The headings; for each row the line where it begins, and its cells, as many as it has.

    Raises:
        ValueError: The file has another encoding, or a quote is not closed; the message has the line.
    """
    text = read_text(file)
    head = next((line for line in text.splitlines() if line.strip()), "")
    separated: dict[str, list[str]] = {
        delimiter: next(_reader([head], delimiter, strict=False), []) for delimiter in _DELIMITERS
    }
    fitting = (delimiter for delimiter, row in separated.items() if set(needed) <= {cell.strip() for cell in row})
    reader = _reader(io.StringIO(text, newline=""), next(fitting, ","))
    rows: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in reader:
            if any(cells := [cell.strip() for cell in row]):
                rows.append((line, cells))
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{file}, line {line}: malformed CSV ({error}); a quote that opens there must be closed, and followed by a "
            "separator"
        ) from error
    return (rows[0][1], rows[1:]) if rows else ([], [])


def _reader(lines: Iterable[str], delimiter: str, strict: bool = True) -> Any:
    return csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)


def _csv(file: Path, needed: Mapping[str, str], optional: Sequence[str]) -> Table:
    headings, rows = csv_rows(file, list(needed.values()))
    names = _columns(file, headings, needed, optional)
    positions = [headings.index(name) for name in names]
    kept: list[list[str]] = []
    lines: list[int] = []
    for line, row in rows:
        if len(row) != len(headings):
            written = str(row) if len(str(row)) <= 120 else f"{str(row)[:117]}…"
            found = f"a row must have {len(headings)} cells, as the heading, got {len(row)}: {written}"
        elif broken := next((row[position] for position in positions if len(row[position].splitlines()) > 1), ""):
            shown = broken if len(broken) <= 60 else f"{broken[:57]}…"
            found = f"a cell must be on one line, got {shown!r}; close its quote"
        else:
            kept.append(row)
            lines.append(line)
            continue
        record_error(Fault("unusable-annotation", file, [line], "line", found))
    values: dict[str, list[Any]] = {
        name: [row[position] for row in kept] for name, position in zip(names, positions, strict=True)
    }
    return Table(file, values, np.array(lines, np.int64), "line")


def _number(cell: Any) -> float:
    return parse_decimal(cell) if isinstance(cell, str) else float(cell)


def _parquet(file: Path, needed: Mapping[str, str], optional: Sequence[str]) -> Table:
    with open_parquet(file) as opened:
        names = _columns(file, opened.schema_arrow.names, needed, optional)
        content = opened.read(columns=names)
    values = {name: [_stripped(cell) for cell in content.column(name).to_pylist()] for name in names}
    return Table(file, values, np.arange(1, content.num_rows + 1), "row")


def _stripped(cell: Any) -> Any:
    return cell.strip() if isinstance(cell, str) else "" if cell is None else cell
