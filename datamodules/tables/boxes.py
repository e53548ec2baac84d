"""Boxes in tables: their columns, and their unit."""

from collections.abc import Sequence

import numpy as np

from ..annotations.annotation_errors import DataError, recording
from ..annotations.normalized import reject_fractions, reject_pixels, warn_of_mixed_units, warn_of_percent
from .table_reader import Table

BOX_COLUMNS = ("x1", "y1", "x2", "y2")


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


def read_boxes(table: Table, columns: Sequence[str], required: bool = False) -> np.ndarray:
    """Return the boxes of the rows, NaN where a cell is empty.

    Args:
        table: Table with the columns.
        columns: Headings of x1, y1, x2 and y2.
        required: Whether an empty cell is an error.

    Shape:
        - Output: ``[N, 4]`` float64.

    Raises:
        ValueError: A cell is not a number; the message has its line. Within `record_faults`, the number is NaN.
    """
    sides = []
    for column in columns:
        numbers, empty = table.numbers(column)
        if required and empty.any() and not recording():
            raise DataError(f"{table.location(int(empty.argmax()))}: {column} must be a number, got ''")
        sides.append(numbers)
    return np.stack(sides, axis=1)


def boxes_in_pixels(
    boxes: np.ndarray, sizes: np.ndarray, normalized: bool, table: Table, columns: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Convert boxes of a table to pixels, and check that they have the stated unit.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image; 0: unknown.
        normalized: Whether they are fractions of the image.
        table: Their table, with a row for each.
        columns: Headings of the sides.

    Returns:
        The boxes in pixels, and which of them can be read: all, or within `record_faults` none if the unit is wrong.

    Shape:
        - boxes: ``[N, 4]`` float64.
        - sizes: ``[N, 2]``.
        - Output: ``[N, 4]`` float64 and ``[N]`` bool.

    Raises:
        DataError: Their unit is wrong.
    """
    entry, written = ", ".join(columns), boxes
    if normalized:
        wrong = reject_pixels(boxes, table.file, entry, "set normalized_boxes: false")
        boxes = boxes * np.tile(np.where(sizes > 0, sizes, 1), 2)
    else:
        wrong = reject_fractions(
            boxes, sizes, table.file, entry, "set normalized_boxes: true to read them as fractions"
        )
    if not wrong:
        warn_of_mixed_units(written, sizes, normalized, table.file, table.lines.tolist(), table.unit)
    if not normalized:
        warn_of_percent(written, sizes, table.file, entry)
    return boxes, np.full(len(boxes), not wrong)
