"""Images with one label and one box each, listed in tables, CSV or Parquet, for localization."""

from collections.abc import Sequence

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors, DataError, recording
from ..annotations.dataset_layout import encode_paths
from ..annotations.one_box import BoxSource, usable_source
from ..base import Unpack
from ..images.sizes import image_sizes
from .boxes import BOX_COLUMNS, boxes_in_pixels, check_box_columns, read_boxes
from .classification import Manifest
from .module import TableOptions
from .table_reader import Table


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

    Labels are as in `Manifest`.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        box_columns: Headings of x1, y1, x2 and y2.
        normalized_boxes: Whether boxes are written in fractions of the image's width and height, not in pixels.
        min_visibility: Minimum fraction of the box that each transform must keep; the augmentation is sampled again
            otherwise.
        **kwargs: Options of `TableDataModule`: ``root``, ``val_fraction``, ``path_column``, ``label_column``,
            ``class_names``; and the loader options of `VisionDataModule`.

    Raises:
        ValueError: A coordinate is not a number, an image occurs twice, or no row of a table can be used. Other errors
            are those of `TableDataModule`.

    Batches are `LocalizationBatch`.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        box_columns: Sequence[str] = BOX_COLUMNS,
        normalized_boxes: bool = False,
        min_visibility: float = 0.0,
        **kwargs: Unpack[TableOptions],
    ) -> None:
        super().__init__(train, val, test, **kwargs)
        self.box_columns, self.normalized_boxes = check_box_columns(box_columns), normalized_boxes
        self.min_visibility = min_visibility

    def _read(self, split: str) -> BoxSource:
        table, labels, folder = self._labeled_table(split)
        first = _first_rows(table, self.path_column)
        table, labels = table.select(first), labels[first]
        paths = encode_paths(table.values[self.path_column])
        errors = AnnotationErrors(table.file, self.strict)
        sizes = image_sizes(folder / path for path in table.values[self.path_column])
        boxes = read_boxes(table, self.box_columns, required=True)
        boxes, readable = boxes_in_pixels(boxes, sizes, self.normalized_boxes, table, self.box_columns)
        names, sizes = table.lines[readable], sizes[readable]
        source, _ = usable_source(
            folder, paths[readable], labels[readable], boxes[readable], errors, names, table.unit, sizes
        )
        if not len(source) and not recording():
            raise DataError(f"{table.file}: must have at least one usable box, got none in {len(paths)} rows")
        return source


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
