"""CSV and Parquet tables as an `AnnotationTable`, read and written: images with labels, with boxes, or both."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..annotations.annotation_errors import OUTSIDE
from ..annotations.annotation_table import AnnotationTable, ImageEntry, ObjectEntry, Reason, link, rounded, write_csv
from ..annotations.objects import confined
from ..annotations.similar_names import canonical
from ..annotations.validity import class_number
from ..images.file_names import FileNames
from .table_reader import csv_rows


class TableFile:
    """A CSV or Parquet file of a manifest.

    Args:
        file: The table.
        data: Its data module, which names the columns.

    Raises:
        ValueError: For a table without these columns.
    """

    def __init__(self, file: Path, data: Any) -> None:
        self.file, self.class_names, self.rooted = file, [str(name) for name in data.class_names], data.root is not None
        self.base = Path(data.root) if self.rooted else file.parent
        self.merge = data.merge
        self.many = data.variable_size_images  # one row per object, of which an image may have none
        self.normalized = getattr(data, "normalized_boxes", False)
        self.headings, self.rows = _read_rows(file, [data.path_column, data.label_column, *data.box_columns])
        self.path, self.label = self.headings.index(data.path_column), self.headings.index(data.label_column)
        self.sides = [self.headings.index(side) for side in data.box_columns]

    def read(self, sizes: Mapping[str, tuple[int, int]]) -> AnnotationTable:
        """Return the images and the objects.

        Args:
            sizes: Width and height of each image, by path.
        """
        table = AnnotationTable([], with_boxes=bool(self.sides))
        images: dict[str, ImageEntry] = {}
        unit = "line" if self.file.suffix.lower() == ".csv" else "row"
        files = FileNames(self.base)
        for number, row in self.rows:
            cells = [*row, *[""] * (len(self.headings) - len(row))]
            cells[self.path] = files.resolve(cells[self.path]) or cells[self.path]
            name, path = f"{unit} {number}", os.path.abspath(self.base / cells[self.path])  # noqa: PTH100
            fault, nameless = self._fault(row, cells)
            image = ImageEntry(self.file, name, path, sizes.get(path, (0, 0)), item=(number, cells))
            if self.normalized:
                width, height = image.size
                image.pixel = (1 / width if width else 0.01, 1 / height if height else 0.01)
                image.size = (1, 1)
            if not self.many:
                image.fault, fault = fault, None
            elif not nameless:  # an image may be left without objects
                image = images.setdefault(path, image)
            if image.name == name and not (self.many and nameless):
                table.images.append(image)
            if fault is not None or (self.sides and cells[self.label].strip()):
                sides = [cells[side] for side in self.sides]
                box = [_number(side) for side in sides]
                owner = None if self.many and nameless else image
                text, label = ", ".join(sides), cells[self.label].strip()
                entry = ObjectEntry(owner, name, text, label, box, (number, cells), fault, file=self.file)
                table.objects.append(entry)
        return table

    def _fault(self, row: list[str], cells: list[str]) -> tuple[Reason | None, bool]:
        """What is wrong with a row apart from its box, and whether it names no image."""
        label, filled = cells[self.label].strip(), sum(cells[side].strip() != "" for side in self.sides)
        if len(row) != len(self.headings):
            return Reason("unusable-annotation", f"{len(row)} cells"), True
        if not cells[self.path].strip():
            return Reason("missing-annotation", "no path"), True
        if self.rooted and not confined(cells[self.path]):
            return Reason("bad-target", OUTSIDE), True
        if not label and (filled or not self.many):
            return Reason("missing-annotation", "no label"), False
        names = [canonical(name) for name in self.class_names] if self.merge else self.class_names
        if label and class_number(canonical(label) if self.merge else label, names) < 0:
            return Reason("label-outside", f"label {label!r}"), False
        if self.many and label and filled < len(self.sides):
            return Reason("unusable-annotation", f"{filled} of the four sides of a box"), False
        return None, False

    def write(self, table: AnnotationTable, folder: Path, target: Path) -> None:
        """Write the rows of a table, and link its images below `folder`."""
        rows: list[tuple[int, list[str]]] = []
        for image, entries in table.objects_of().items():
            for entry in entries:
                number, cells = entry.item
                if entry.changed and entry.box is not None:
                    cells = list(cells)
                    for side, value in zip(self.sides, entry.box, strict=True):
                        cells[side] = f"{value:.9g}" if self.normalized else str(rounded(value))
                rows.append((number, cells))
            if not entries and (self.many or not self.sides):
                number, cells = image.item
                cleared = (self.label, *self.sides) if self.many else ()
                rows.append((number, ["" if place in cleared else cell for place, cell in enumerate(cells)]))
        write_csv(target, self.headings, [self._linked(cells, folder) for _, cells in sorted(rows)])

    def _linked(self, cells: list[str], folder: Path) -> list[str]:
        """The row, with its image linked beside the new table, or with an absolute path if it lies elsewhere."""
        name = cells[self.path]
        original = os.path.abspath(self.base / name)  # noqa: PTH100
        if confined(name):
            link(original, (folder / "files" if self.rooted else folder) / name)
            return cells
        return [*cells[: self.path], original, *cells[self.path + 1 :]]


def _read_rows(file: Path, needed: list[str]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Headings, and each row with its line (CSV) or number (Parquet)."""
    if file.suffix.lower() == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(file)
        values = zip(*(column.to_pylist() for column in table.columns), strict=True)
        rows = [["" if cell is None else str(cell).strip() for cell in row] for row in values]
        return list(table.column_names), list(enumerate(rows, start=1))
    return csv_rows(file, needed)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
