"""Images named in a table with a label and a box each: CSV or Parquet for classification with localization."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..annotations.annotation_errors import RECORDED, AnnotationErrors, Fault, record_error, recording
from ..annotations.one_box import BoxSource, usable_source
from ..base import LoaderOptions, Unpack
from .labels import Manifest, Table, without_recorded

_CORNERS = ("x1", "y1", "x2", "y2")


class LocalizationManifest(Manifest):
    """Images, labels and boxes named in tables, CSV or Parquet: one row an image.

    ::

        path,label,x1,y1,x2,y2
        a/0001.jpg,cat,12,30.5,200,180
        b/0002.jpg,dog,0,0,64,48

    Boxes are x1, y1, x2, y2 in pixels, between pixels and not on them: one that covers the whole image is
    0, 0, W, H. One that reaches out of its image is clipped. Rows whose box cannot be used (a NaN or infinite
    coordinate, no area, outside its image) are left out with one warning that counts them, or stop the run when
    `strict`. To know that, the header of each image is read at set-up.

    Labels, paths and `root` are as in `Manifest`.

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
        box_columns: headings of the four corners' coordinates.
        class_names: the classes in order; null: from the training table.
        min_visibility: part of the box's area that a step of augmentation must leave; it is drawn again otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: for a table that is not there, or images that are not: how many, and the lines of the
            first five.
        ValueError: for a missing column, a row that is short, a path that leaves `root` or is there twice, a label
            that is no class, a coordinate that is no number, a table of which no row can be used.
        ImportError: for a Parquet table without pyarrow.

    Batches are `LocalizationBatch`.
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
        box_columns: Sequence[str] = _CORNERS,
        class_names: list[str] | None = None,
        min_visibility: float = 0.0,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(train, val, test, root, val_fraction, path_column, label_column, class_names, **kwargs)
        if len(box_columns) != 4 or len(set(box_columns)) < 4:
            raise ValueError(
                f"data.init_args.box_columns: {list(box_columns)} are not four headings, such as {list(_CORNERS)}"
            )
        self.box_columns, self.min_visibility = list(box_columns), min_visibility

    def _read(self, split: str) -> BoxSource:
        table, labels, base = self._checked(split, {"box_columns": self.box_columns})
        first = _first_of_each(table)
        table, labels = without_recorded(table, np.where(first, labels, RECORDED))
        boxes = box_corners(table, self.box_columns)
        paths = np.array([os.fsencode(path) for path in table.paths], np.bytes_)
        errors = AnnotationErrors(table.file, self.strict)
        source, _ = usable_source(base, paths, labels, boxes, errors, table.lines, table.unit)
        if not len(source):
            raise ValueError(f"{table.file}: none of its {len(paths)} rows has a box that can be used")
        return source


def box_corners(table: Table, names: Sequence[str]) -> np.ndarray:
    """The further columns of a table as boxes.

    Args:
        table: read with the box's columns as its `more`.
        names: their headings.

    Shape:
        - Output: ``[N, 4]`` float64.

    Raises:
        ValueError: for what is no number; the message names its line and column.
    """
    try:
        if any(None in column for column in table.more):  # numpy would make it NaN
            raise ValueError
        return np.array([np.array(column).astype(np.float64) for column in table.more]).T.reshape(-1, 4)
    except (ValueError, TypeError):
        for name, column in zip(names, table.more, strict=True):
            for line, value in zip(table.lines, column, strict=True):
                if not _is_number(value) and not recording():  # else it is NaN, and recorded as not finite
                    raise ValueError(
                        f"{table.file}, {table.unit} {line}: {name} is {value!r}, and must be a number of pixels"
                    ) from None
    columns = [[float(value) if _is_number(value) else np.nan for value in column] for column in table.more]
    return np.array(columns, np.float64).T.reshape(-1, 4)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _first_of_each(table: Table) -> np.ndarray:
    """Which rows are the first of their image: bool ``[N]``.

    Raises:
        DataError: For one that is not; see `record_error`.
    """
    seen: dict[str, int] = {}
    first = np.ones(len(table.paths), np.bool_)
    for row, (line, path) in enumerate(zip(table.lines.tolist(), table.paths, strict=True)):
        if (before := seen.setdefault(path, line)) != line:
            found = f"{path!r} again ({table.unit} {before})"
            remedy = "localization has one object per image; keep one row"
            record_error(Fault("duplicate-image", table.file, [line], table.unit, found, remedy))
            first[row] = False
    return first
