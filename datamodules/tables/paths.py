"""Paths in tables: which rows have one, whether it stays in a folder, and whether its image exists."""

import os
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import OUTSIDE, Fault, record_error
from ..images.file_names import FileNames, resolve_names
from .table_reader import Table


def rows_with_path(table: Table, column: str) -> np.ndarray:
    """Return which rows have a path: ``[N]`` bool.

    Raises:
        DataError: A row has none; see `record_error`.
    """
    named = np.array([isinstance(name, str) and name != "" for name in table.values[column]], np.bool_)
    for row in np.flatnonzero(~named).tolist():
        table.record("missing-annotation", row, f"{column} must be a path, got {table.values[column][row]!r}")
    return named


def rows_inside(table: Table, column: str, folder: Path) -> np.ndarray:
    """Return which rows have a path that, as it is written, stays in a folder: ``[N]`` bool.

    Raises:
        DataError: A path leads out; see `record_error`.
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - Path.resolve would follow links
    prefix = base.rstrip(os.sep) + os.sep
    paths = table.values[column]
    full = (os.path.normpath(os.path.join(base, path)) for path in paths)  # noqa: PTH118 - a million times
    inside = np.array([path.startswith(prefix) for path in full], np.bool_)
    if len(outside := np.flatnonzero(~inside)):
        found = f"{OUTSIDE}, got {paths[outside[0]]!r}"
        remedy = f"root is {base!r}; set root: null to allow any path"
        record_error(Fault("bad-target", table.file, table.lines[outside].tolist(), table.unit, found, remedy))
    return inside


def resolve_paths(table: Table, column: str, folder: Path) -> Table:
    """Return a table whose paths are those on disk, see `FileNames`; a path without a file is left as it is."""
    return table._replace(values={**table.values, column: resolve_names(folder, table.values[column])})


def check_images_exist(table: Table, column: str, folder: Path) -> None:
    """Check that each image exists, without opening it.

    Raises:
        MissingFileError: Some do not; the message has their number, and the lines of the first five.
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - Path.resolve would follow links
    missing: list[tuple[int, str, str]] = []
    for line, path in zip(table.lines.tolist(), table.values[column], strict=True):
        full = os.path.normpath(os.path.join(base, path))  # noqa: PTH118 - as above
        if not os.path.isfile(full):  # noqa: PTH113
            missing.append((line, path, full))
    if missing:
        lines, _, images = map(list, zip(*missing, strict=True))
        files = FileNames(folder)
        first = "\n".join(f"    {table.unit} {line}: {path}{files.hint(path)}" for line, path, _ in missing[:5])
        more = f"\n    and {len(missing) - 5} more" if len(missing) > 5 else ""
        record_error(
            Fault("missing-image", table.file, lines, table.unit, images=images),
            f"{table.file}: {len(missing)} of {len(table.lines)} images do not exist; relative paths are looked up in "
            f"{base!r}\n{first}{more}",
        )
