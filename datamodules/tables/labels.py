"""Images named in a table: a CSV or Parquet file with a path and a label a row."""

import csv
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..annotations.annotation_errors import OUTSIDE, RECORDED, AbsentSplitError, Fault, record_error
from ..annotations.argument_checks import did_you_mean
from ..annotations.labeled_images import LabeledFiles
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import check_val_fraction, stratified_split
from .columns import check_headings, open_parquet, table_kind

_WHOLE = re.compile(r"[+-]?\d+")


class Table(NamedTuple):
    """The columns of a manifest.

    Attributes:
        file: the manifest.
        paths: as written.
        labels: as written; whole numbers where the file's type says so.
        lines: the line of each row (CSV, from 1, the heading included), or its number (Parquet, from 1).
        unit: what `lines` counts: ``line`` or ``row``.
        more: further columns, as written; text in a CSV, and empty where a row is too short to have it.
    """

    file: Path
    paths: list[str]
    labels: list[str | int]
    lines: np.ndarray
    unit: str
    more: tuple[list[Any], ...] = ()


class Manifest(VisionDataModule):
    """Images and labels named in tables, CSV or Parquet: one row an image, with its path and its label.

    ::

        path,label
        a/0001.jpg,cat
        b/0002.jpg,dog

    Labels are names, or whole numbers from 0. A label column is taken as names when each of its labels is in
    `class_names`, else as numbers when each is a whole number, else as names. Without `class_names` the classes are
    the training table's names, sorted, or its numbers from 0 on, each of which must then occur.

    Args:
        train: the training table; ``.csv``, or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: the validation table.
        test: the test table.
        root: the folder the paths are relative to, and which none of them may leave, by ``..`` or by an absolute
            path; links are not followed to find out. null: relative to each table's own folder, and free.
        val_fraction: part of the training rows to hold out for validation when there is no `val`: stratified by
            class, and fixed by `seed`.
        path_column: heading of the paths.
        label_column: heading of the labels.
        class_names: the classes in order; null: from the training table.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: for a table that is not there, or images that are not: how many, and the lines of the
            first five.
        ValueError: for a missing column, a row that is short, a path that leaves `root`, a label that is no class.
        ImportError: for a Parquet table without pyarrow.

    Batches are `ClassificationBatch`.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        root: str | None = None,
        val_fraction: float | None = None,
        path_column: str = "path",
        label_column: str = "label",
        class_names: list[str] | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        if val is not None and val_fraction is not None:
            raise ValueError(
                f"data.init_args.val names {val!r}, and val_fraction: {val_fraction} would hold out others: set one"
            )
        if class_names is not None and len(set(class_names)) < len(class_names):
            twice = next(name for name in class_names if class_names.count(name) > 1)
            raise ValueError(f"data.init_args.class_names: {twice!r} is there more than once")
        self.tables = {"train": train, "val": val, "test": test}
        self.root, self.val_fraction = None if root is None else Path(root).expanduser(), val_fraction
        self.columns = {"path_column": path_column, "label_column": label_column}
        self._names = None if class_names is None else list(class_names)
        self._training: LabeledFiles | None = None

    @property
    def class_names(self) -> list[str]:
        """The names given, or those of the training table."""
        if self._names is None:
            self._names = names_of(self._table("train"))
        return list(self._names)

    def make_source(self, split: str) -> LabeledFiles:
        """The files of a split."""
        if split == "test" or (split == "val" and self.tables["val"] is not None):
            return self._read(split)
        if split == "val" and self.val_fraction is None:
            raise ValueError("no validation images: name their table in data.init_args.val, or set val_fraction: 0.1")
        if self._training is None:
            self._training = self._read("train")
        if self.val_fraction is None:
            return self._training
        held = stratified_split(self._training.labels, self.val_fraction, self.seed, self.class_names)
        keep = held if split == "val" else ~held
        return self._training.part(keep)

    def _file(self, split: str) -> Path:
        name = self.tables[split]
        if name is None:
            raise AbsentSplitError(f"no {split} images: name their table in data.init_args.{split}")
        path = Path(name).expanduser()
        if not path.is_file():
            raise FileNotFoundError(f"data.init_args.{split}: no file {str(path)!r}")
        return path

    def _table(self, split: str, more: Mapping[str, Sequence[str]] | None = None) -> Table:
        return read_table(self._file(split), self.columns["path_column"], self.columns["label_column"], more)

    def _read(self, split: str) -> LabeledFiles:
        table, labels, base = self._checked(split)
        return LabeledFiles(table.paths, labels, root=base)

    def _checked(self, split: str, more: Mapping[str, Sequence[str]] | None = None) -> tuple[Table, np.ndarray, Path]:
        """The table of a split, its labels, and the folder of its images, which are there."""
        table = self._table(split, more)
        if self._names is None and split == "train":
            self._names = names_of(table)  # the same table names the classes: read it once
        labels = numbers_of(table, self.class_names)
        base = table.file.parent if self.root is None else self.root
        if not base.is_dir():
            raise FileNotFoundError(f"data.init_args.root: no folder {str(base)!r}")
        if self.root is not None:
            labels[~inside(table, base)] = RECORDED
        table, labels = without_recorded(table, labels)
        check_paths(table, base)
        return table, labels, base


def read_table(
    file: Path, path_column: str, label_column: str, more: Mapping[str, Sequence[str]] | None = None
) -> Table:
    """The path and label columns of a CSV or Parquet file.

    Args:
        file: the table.
        path_column, label_column: headings.
        more: headings of further columns, by the argument that names them.

    Raises:
        ValueError: for another kind of file, a missing column, a row without path or label, or no rows.
        ImportError: for Parquet without pyarrow.
    """
    columns = {"path_column": path_column, "label_column": label_column}
    table = (_read_csv if table_kind(file) == ".csv" else _read_parquet)(file, columns, more or {})
    if not table.paths:
        raise ValueError(f"{file}: no rows below the heading")
    return table


def _check_columns(
    file: Path, headings: Sequence[str], columns: dict[str, str], more: Mapping[str, Sequence[str]]
) -> None:
    named = [*columns.items(), *((key, name) for key, names in more.items() for name in names)]
    check_headings(file, headings, [(f"data.init_args.{key}", name) for key, name in named])


def _read_csv(file: Path, columns: dict[str, str], more: Mapping[str, Sequence[str]]) -> Table:
    paths: list[str] = []
    labels: list[str | int] = []
    lines: list[int] = []
    further: tuple[list[Any], ...] = tuple([] for _ in _headings(more))
    with file.open(encoding="utf-8-sig", newline="") as opened:
        rows = csv.reader(opened)
        try:
            headings = next(rows, [])
            _check_columns(file, headings, columns, more)
            where = [headings.index(name) for name in columns.values()]
            others = [(headings.index(name), column) for name, column in zip(_headings(more), further, strict=True)]
            for row in rows:
                if not row:
                    continue
                if len(row) <= max(where) or not all(row[place].strip() for place in where):
                    found = f"no {' or no '.join(columns.values())} in {row}"
                    record_error(Fault("missing-annotation", file, [rows.line_num], "line", found))
                    continue
                paths.append(row[where[0]])
                labels.append(row[where[1]].strip())
                lines.append(rows.line_num)
                for place, column in others:
                    column.append(row[place].strip() if place < len(row) else "")
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{file}, after line {rows.line_num}: not CSV in UTF-8 ({error})") from error
    return Table(file, paths, labels, np.array(lines, dtype=np.int64), "line", further)


def _headings(more: Mapping[str, Sequence[str]]) -> list[str]:
    return [name for names in more.values() for name in names]


def _read_parquet(file: Path, columns: dict[str, str], more: Mapping[str, Sequence[str]]) -> Table:
    with open_parquet(file) as opened:
        _check_columns(file, opened.schema_arrow.names, columns, more)
        table = opened.read(columns=[*columns.values(), *_headings(more)])
    paths, labels = (table.column(name).to_pylist() for name in columns.values())
    for values, name in ((paths, columns["path_column"]), (labels, columns["label_column"])):
        kinds: tuple[type, ...] = (str,) if values is paths else (str, int)
        for number, value in enumerate(values, start=1):
            if not isinstance(value, kinds) or isinstance(value, bool) or value == "":
                allowed = "text" if values is paths else "text or a whole number"
                raise ValueError(f"{file}, row {number}: {name} is {value!r}, not {allowed}")
    further = tuple(table.column(name).to_pylist() for name in _headings(more))
    return Table(file, paths, labels, np.arange(1, len(paths) + 1), "row", further)


def _whole_numbers(labels: Sequence[str | int]) -> bool:
    return all(isinstance(label, int) or _WHOLE.fullmatch(label) for label in labels)


def names_of(table: Table) -> list[str]:
    """The classes that a training table implies: its names, sorted, or its numbers from 0 to the largest.

    Raises:
        ValueError: when numbers are negative or leave one out, as counting from 1 does; names the line of the first.
    """
    if not _whole_numbers(table.labels):
        return sorted({str(label) for label in table.labels})
    numbers = np.array([int(label) for label in table.labels], dtype=np.int64)
    present = np.unique(numbers)
    if present[0] != 0 or present[-1] != len(present) - 1:
        gaps = [number for number in range(min(int(present[-1]) + 1, len(present) + 5)) if number not in present]
        # the first row that does not follow on from 0: below it, or beyond the first number without an image
        row = int(((numbers < 0) | (numbers > min(gaps, default=numbers.max()))).argmax())
        why = f"no image has {', '.join(map(str, gaps[:5]))}" if gaps else "labels are not negative"
        raise ValueError(
            f"{table.file}, {table.unit} {table.lines[row]}: the label {table.labels[row]!r}, where {why} (they run "
            f"from {present[0]} to {present[-1]}); count from 0 on, or name all classes in data.init_args.class_names"
        )
    return [str(number) for number in present]


def numbers_of(table: Table, class_names: Sequence[str]) -> np.ndarray:
    """The labels of a table as places in `class_names`.

    Shape:
        - Output: ``[N]`` int64.

    Raises:
        ValueError: for a label that is no class; the message names its line. Within `record_faults` its
            number is `RECORDED`.
    """
    number_of: dict[Any, int] = {name: number for number, name in enumerate(class_names)}
    as_names = not _whole_numbers(table.labels) or all(str(label) in number_of for label in table.labels)
    numbers = np.empty(len(table.labels), dtype=np.int64)
    for row, label in enumerate(table.labels):
        number = number_of.get(str(label), -1) if as_names else int(label)
        if not 0 <= number < len(class_names):
            remedy = f"classes are 0 to {len(class_names) - 1}"
            if as_names:
                remedy = f"there are {len(class_names)} classes{did_you_mean(str(label), class_names)}"
            record_error(Fault("label-outside", table.file, [table.lines[row]], table.unit, f"{label!r}", remedy))
            numbers[row] = RECORDED
            continue
        numbers[row] = number
    return numbers


def without_recorded(table: Table, labels: np.ndarray) -> tuple[Table, np.ndarray]:
    """A table and its labels without the rows whose label is `RECORDED`."""
    kept = np.flatnonzero(labels != RECORDED)
    if len(kept) == len(labels):
        return table, labels
    paths, written = [table.paths[row] for row in kept], [table.labels[row] for row in kept]
    more = tuple([column[row] for row in kept] for column in table.more)
    return table._replace(paths=paths, labels=written, lines=table.lines[kept], more=more), labels[kept]


def inside(table: Table, base: Path) -> np.ndarray:
    """Which paths stay in a folder, as they are written: bool ``[N]``.

    Args:
        table: the paths.
        base: what they are relative to.

    Raises:
        DataError: For the first that leads out; see `record_error`.
    """
    folder = os.path.abspath(base)  # noqa: PTH100 - Path.resolve would follow links
    start = folder.rstrip(os.sep) + os.sep
    full = (os.path.normpath(os.path.join(folder, path)) for path in table.paths)  # noqa: PTH118 - a million times
    within = np.array([path.startswith(start) for path in full], np.bool_)
    wrong = np.flatnonzero(~within)
    if len(wrong):
        found = f"{OUTSIDE}, got {table.paths[wrong[0]]!r}"
        remedy = f"root is {folder!r}; set root: null to allow any path"
        record_error(Fault("bad-target", table.file, table.lines[wrong].tolist(), table.unit, found, remedy))
    return within


def check_paths(table: Table, base: Path) -> None:
    """Look whether each image is there, without opening it.

    Args:
        table: the paths.
        base: what they are relative to.

    Raises:
        FileNotFoundError: for missing images: how many, and where the first five are named.
    """
    folder = os.path.abspath(base)  # noqa: PTH100 - Path.resolve would follow links
    missing: list[tuple[int, str]] = []
    for line, path in zip(table.lines, table.paths, strict=True):
        full = os.path.normpath(os.path.join(folder, path))  # noqa: PTH118 - as above
        if not os.path.isfile(full):  # noqa: PTH113
            missing.append((line, path))
    if missing:
        images = [os.path.normpath(os.path.join(folder, path)) for _, path in missing]  # noqa: PTH118
        first = "\n".join(f"    {table.unit} {line}: {path}" for line, path in missing[:5])
        more = f"\n    and {len(missing) - 5} more" if len(missing) > 5 else ""
        record_error(
            Fault("missing-image", table.file, [line for line, _ in missing], table.unit, images=images),
            f"{table.file}: {len(missing)} of {len(table.paths)} images do not exist; relative paths are looked up in "
            f"{folder!r}\n{first}{more}",
        )
