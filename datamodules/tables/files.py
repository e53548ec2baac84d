"""Files of tables: the table of each split, and the images that a table lists."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import OUTSIDE, AbsentSplitError, Fault, MissingFileError, record_error
from ..loading.splits import check_val_fraction
from .table_reader import Table


def check_split_arguments(val: str | None, val_fraction: float | None) -> None:
    """Check the arguments for the validation split.

    Raises:
        ValueError: `val_fraction` is out of range, or both are set.
    """
    check_val_fraction(val_fraction)
    if val is not None and val_fraction is not None:
        raise ValueError(f"val_fraction: must be null if val is set, got {val_fraction} and {val!r}; set one")


def is_held_out(split: str, tables: Mapping[str, str | None], val_fraction: float | None) -> bool:
    """Return whether the samples of a split are held out of the training table.

    Raises:
        ValueError: The split is ``val``, and has neither a table nor a fraction.
    """
    if split != "val" or tables["val"] is not None:
        return False
    if val_fraction is None:
        raise ValueError("val: must name a table, got null; or set val_fraction: 0.1")
    return True


def table_file(tables: Mapping[str, str | None], split: str) -> Path:
    """Return the table of a split.

    Raises:
        FileNotFoundError: There is none.
    """
    name = tables[split]
    if name is None:
        raise AbsentSplitError(f"{split}: must name a table, got null")
    file = Path(name).expanduser()
    if not file.is_file():
        raise MissingFileError(f"{split}: no file {str(file)!r}")
    return file


def image_folder(table: Table, root: Path | None) -> Path:
    """Return the folder that a table's paths are relative to: `root`, or None: the table's own.

    Raises:
        FileNotFoundError: It does not exist.
    """
    folder = table.file.parent if root is None else root
    if not folder.is_dir():
        raise MissingFileError(f"root: no folder {str(folder)!r}")
    return folder


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


def check_images_exist(table: Table, column: str, folder: Path) -> None:
    """Check that each image exists, without opening it.

    Raises:
        MissingFileError: Some do not; the message has their number, and the lines of the first five.
    """
    base = os.path.abspath(folder)  # noqa: PTH100 - Path.resolve would follow links
    missing: list[tuple[int, str, str]] = []
    for line, path in zip(table.lines, table.values[column], strict=True):
        full = os.path.normpath(os.path.join(base, path))  # noqa: PTH118 - as above
        if not os.path.isfile(full):  # noqa: PTH113
            missing.append((line, path, full))
    if missing:
        lines, _, images = map(list, zip(*missing, strict=True))
        first = "\n".join(f"    {table.unit} {line}: {path}" for line, path, _ in missing[:5])
        more = f"\n    and {len(missing) - 5} more" if len(missing) > 5 else ""
        record_error(
            Fault("missing-image", table.file, lines, table.unit, images=images),
            f"{table.file}: {len(missing)} of {len(table.lines)} images do not exist; relative paths are looked up in "
            f"{base!r}\n{first}{more}",
        )
