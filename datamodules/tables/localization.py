"""Images with one label and one box each, listed in tables, CSV or Parquet, for localization."""

from collections.abc import Sequence

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, recording
from ..annotations.dataset_layout import encode_paths
from ..annotations.one_box import BoxSource, usable_source
from ..base import LoaderOptions, Unpack
from .classification import Manifest
from .table_reader import Table

BOX_COLUMNS = ("x1", "y1", "x2", "y2")


class LocalizationManifest(Manifest):
    """Images, labels and boxes listed in tables, CSV or Parquet, with one row per image.

    ::

        path,label,x1,y1,x2,y2
        a/0001.jpg,cat,12,30.5,200,180
        b/0002.jpg,dog,0,0,64,48

    Boxes are x1, y1, x2, y2 in pixels and lie between pixels: the whole image is 0, 0, W, H. A box that extends beyond
    its image is clipped. Rows whose box cannot be used (a NaN or infinite coordinate, no area, outside its image) are
    left out with one warning that counts them, or stop the run if `strict`. For this check, the header of each image is
    read at setup.

    Labels, paths and `root` are as in `Manifest`.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        root: Folder that the paths are relative to, and which they must not leave; see `Manifest`.
        val_fraction: Fraction of the training rows held out for validation if there is no `val`; stratified by class
            and determined by `seed`.
        path_column: Heading of the paths.
        label_column: Heading of the labels.
        box_columns: Headings of x1, y1, x2 and y2.
        class_names: Classes in the order of their labels; null: those of the training table.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: A table or images are missing; the message has the lines of the first five images.
        ValueError: A column, a path, a label or a coordinate is missing, a path leaves `root` or occurs twice, a label
            is not a class, or no row of a table can be used.
        ImportError: A table is Parquet and pyarrow is not installed.

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
        box_columns: Sequence[str] = BOX_COLUMNS,
        class_names: list[str] | None = None,
        min_visibility: float = 0.0,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(train, val, test, root, val_fraction, path_column, label_column, class_names, **kwargs)
        self.box_columns, self.min_visibility = check_box_columns(box_columns), min_visibility

    def _read(self, split: str) -> BoxSource:
        table, labels, folder = self._labeled_table(split)
        first = _first_rows(table, self.path_column)
        table, labels = table.select(first), labels[first]
        paths = encode_paths(table.values[self.path_column])
        errors = AnnotationErrors(table.file, self.strict)
        boxes = _boxes(table, self.box_columns)
        source, _ = usable_source(folder, paths, labels, boxes, errors, table.lines, table.unit)
        if not len(source):
            raise ValueError(f"{table.file}: must have at least one usable box, got none in {len(paths)} rows")
        return source


def check_box_columns(columns: Sequence[str]) -> list[str]:
    """Return the headings of the four sides of a box.

    Raises:
        ValueError: There are not four distinct ones.
    """
    if len(columns) != 4 or len(set(columns)) < 4:
        raise ValueError(
            f"box_columns: must be four distinct headings, such as {list(BOX_COLUMNS)}, got {list(columns)}"
        )
    return list(columns)


def _boxes(table: Table, columns: Sequence[str]) -> np.ndarray:
    """Return the boxes of the rows: ``[N, 4]`` float64.

    Raises:
        ValueError: A cell is not a number; the message has its line. Within `record_faults`, the number is NaN.
    """
    sides = []
    for column in columns:
        numbers, empty = table.numbers(column)
        if empty.any() and not recording():
            raise ValueError(f"{table.location(int(empty.argmax()))}: {column} must be a number, got ''")
        sides.append(numbers)
    return np.stack(sides, axis=1)


def _first_rows(table: Table, path_column: str) -> np.ndarray:
    """Return which rows are the first of their image: ``[N]`` bool.

    Raises:
        DataError: An image has a second row; see `record_error`.
    """
    line_of: dict[str, int] = {}
    first = np.ones(len(table.lines), np.bool_)
    for row, (line, path) in enumerate(zip(table.lines.tolist(), table.values[path_column], strict=True)):
        if (earlier := line_of.setdefault(path, line)) != line:
            remedy = "localization has one object per image; keep one row"
            table.record("duplicate-image", row, f"{path!r} again ({table.unit} {earlier})", remedy)
            first[row] = False
    return first
