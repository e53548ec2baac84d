"""Objects named in a table: a CSV or Parquet file with an image, a label and a box a row."""

import os
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, AnnotationErrors, Fault, record_error
from ..annotations.objects import ImageTable, Objects, ObjectSource, usable_boxes
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import check_val_fraction, random_split
from .columns import Columns, read_columns
from .labels import Table, check_paths, inside, names_of, numbers_of

_BOX_COLUMNS = ("x1", "y1", "x2", "y2")
_UNKNOWN = 2**30  # stands for the side of an image that cannot be read: no box is outside it


class DetectionManifest(VisionDataModule):
    """Objects named in tables, CSV or Parquet: one row an object, with its image's path, its label and its box.

    ::

        path,label,x1,y1,x2,y2
        a/0001.jpg,cat,10,20,110,95.5
        a/0001.jpg,dog,0,5,40,80
        b/0002.jpg,,,,,

    The last row is an image without objects. Boxes are in pixels and lie between them: one that covers the whole image
    is ``0, 0, W, H``. Further columns are read where they are there: ``difficult`` and ``iscrowd``, 0 or 1; ``width``
    and ``height`` of the image, without which the start of each image file is read. The rows of an image need not be
    together.

    Labels are names, or whole numbers from 0, as `Manifest` has them.

    Objects that cannot be used are left out with one warning that counts them, or stop the run when `strict`: a NaN or
    infinite coordinate, a box of no area or outside its image. Boxes are clipped to their image.

    Args:
        train: the training table; ``.csv``, or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: the validation table.
        test: the test table.
        root: the folder the paths are relative to, and which none of them may leave, by ``..`` or by an absolute
            path; links are not followed to find out. null: relative to each table's own folder, and free.
        val_fraction: part of the training images to hold out for validation when there is no `val`; fixed by `seed`.
        path_column: heading of the paths.
        label_column: heading of the labels.
        box_columns: headings of the four sides; null: x1, y1, x2, y2.
        class_names: the classes in order; null: from the training table.
        skip_empty: train without images that have no object other than crowds; evaluation always has all.
        min_visibility: part of a box's area that a step of augmentation must leave, or its object is removed.
        group_by_aspect: make training batches of images of like shape, so that less is padded.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: for a table that is not there, or images that are not: how many, and the lines of the
            first five.
        ValueError: for a missing column, a label without box, a box without label, a path that leaves `root`, a label
            that is no class; the message names the line.
        ImportError: for a Parquet table without pyarrow.

    Batches are `DetectionBatch`. An ``image_id`` is the image's place in its table, from 0, by its first row.
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
        box_columns: list[str] | None = None,
        class_names: list[str] | None = None,
        skip_empty: bool = False,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        if val is not None and val_fraction is not None:
            raise ValueError(
                f"data.init_args.val names {val!r}, and val_fraction: {val_fraction} would hold out others: set one"
            )
        if box_columns is not None and (len(box_columns) != 4 or len(set(box_columns)) < 4):
            raise ValueError(f"data.init_args.box_columns: {box_columns}; give four headings, as {list(_BOX_COLUMNS)}")
        if class_names is not None and len(set(class_names)) < len(class_names):
            twice = next(name for name in class_names if class_names.count(name) > 1)
            raise ValueError(f"data.init_args.class_names: {twice!r} is there more than once")
        self.tables = {"train": train, "val": val, "test": test}
        self.root, self.val_fraction = None if root is None else Path(root).expanduser(), val_fraction
        self.columns = path_column, label_column, tuple(box_columns or _BOX_COLUMNS)
        self.skip_empty, self.min_visibility = skip_empty, min_visibility
        self.group_by_aspect = group_by_aspect
        self._names = None if class_names is None else list(class_names)
        self._read: dict[str, ObjectSource] = {}

    @property
    def class_names(self) -> list[str]:
        """The names given, or those of the training table."""
        if self._names is None:
            self._names = _names(_objects(self._columns("train"), *self.columns))
        return list(self._names)

    @property
    def variable_size_images(self) -> bool:
        """True: images differ in size."""
        return True

    def make_source(self, split: str) -> ObjectSource:
        """The images of a split."""
        held_out = split == "val" and self.tables["val"] is None
        if held_out and self.val_fraction is None:
            raise ValueError("no validation images: name their table in data.init_args.val, or set val_fraction: 0.1")
        table = "train" if held_out else split
        if table not in self._read:
            self._read[table] = self._open(table)
        whole = self._read[table]
        source = ObjectSource(whole.images, whole.objects, skip_empty=self.skip_empty and split == "train")
        if table == "train" and self.val_fraction is not None:
            held = random_split(len(whole), self.val_fraction, self.seed)
            source.selected = source.selected[held[source.selected] == held_out]
        return source

    def _columns(self, split: str) -> Columns:
        name = self.tables[split]
        if name is None:
            raise AbsentSplitError(f"no {split} images: name their table in data.init_args.{split}")
        file = Path(name).expanduser()
        if not file.is_file():
            raise FileNotFoundError(f"data.init_args.{split}: no file {str(file)!r}")
        path, label, box = self.columns
        needed = {"data.init_args.path_column": path, "data.init_args.label_column": label}
        needed |= {f"data.init_args.box_columns[{place}]": heading for place, heading in enumerate(box)}
        return read_columns(file, needed, ("difficult", "iscrowd", "width", "height"))

    def _open(self, split: str) -> ObjectSource:
        columns = self._columns(split)
        base = columns.file.parent if self.root is None else self.root
        if not base.is_dir():
            raise FileNotFoundError(f"data.init_args.root: no folder {str(base)!r}")
        columns = columns.part(_with_path(columns, self.columns[0]))
        if self.root is not None:
            columns = columns.part(inside(_paths(columns, self.columns[0]), base))
        table = _objects(columns, *self.columns)
        if self._names is None and split == "train":
            self._names = _names(table)  # the same table names the classes: read it once
        labels = numbers_of(table, self.class_names)
        place_of: dict[str, int] = {}
        paths = columns.values[self.columns[0]]
        of_row = np.array([place_of.setdefault(path, len(place_of)) for path in paths], np.int64)
        first = np.unique(of_row, return_index=True)[1]
        check_paths(Table(columns.file, list(place_of), [], columns.lines[first], columns.unit), base)
        images = ImageTable(
            base,
            np.array([os.fsencode(path) for path in place_of], np.bytes_),
            _sizes(columns, first),
            np.arange(len(place_of)),
        )
        images.sizes[...] = images.measured()
        return ObjectSource(images, _usable(columns, self.columns[2], table.lines, labels, of_row, images, self.strict))


def _paths(columns: Columns, path: str) -> Table:
    return Table(columns.file, columns.values[path], [], columns.lines, columns.unit)


def _with_path(columns: Columns, path: str) -> np.ndarray:
    """Which rows have a path: bool ``[N]``.

    Raises:
        DataError: For one that has none; see `record_error`.
    """
    named = np.array([isinstance(name, str) and name != "" for name in columns.values[path]], np.bool_)
    wrong = np.flatnonzero(~named)
    if len(wrong):
        found = f"{path} is {columns.values[path][wrong[0]]!r}, and must be an image's path"
        record_error(Fault("missing-annotation", columns.file, columns.lines[wrong].tolist(), columns.unit, found))
    return named


def _objects(columns: Columns, path: str, label: str, box: tuple[str, ...]) -> Table:
    """The rows that have an object, as a table of labels.

    Raises:
        ValueError: for a row with a label and no box, or the other way round, or with half a box. Within
            `record_faults` it has no object.
    """
    paths, labels = columns.values[path], columns.values[label]
    sides = np.array([[cell != "" for cell in columns.values[heading]] for heading in box], np.bool_).sum(axis=0)
    rows = []
    for row, text in enumerate(labels):
        if isinstance(text, bool) or not isinstance(text, str | int):
            found, remedy = f"{text!r}", f"{label} must be text or a whole number"
            record_error(Fault("label-outside", columns.file, [columns.lines[row]], columns.unit, found, remedy))
        elif sides[row] != (0 if text == "" else 4):
            code = "unusable-annotation" if text != "" else "missing-annotation"
            found = f"{f'{label} is {text!r}' if text != '' else f'no {label}'}, and {sides[row]} of {', '.join(box)}"
            remedy = "an object has a label and all four, an image without objects none"
            record_error(Fault(code, columns.file, [columns.lines[row]], columns.unit, found, remedy))
        elif text != "":
            rows.append(row)
    return Table(
        columns.file,
        [paths[row] for row in rows],
        [labels[row] for row in rows],
        columns.lines[np.array(rows, np.int64)],
        columns.unit,
    )


def _names(table: Table) -> list[str]:
    if not table.labels:
        raise ValueError(f"{table.file}: no objects in it; name the classes in data.init_args.class_names")
    return names_of(table)


def _sizes(columns: Columns, rows: np.ndarray) -> np.ndarray:
    """Width and height of each image, 0, 0 where its first row does not say: int32 ``[M, 2]``."""
    sizes = np.zeros((len(rows), 2), np.int32)
    if not {"width", "height"} <= set(columns.values):
        return sizes
    for place, name in enumerate(("width", "height")):
        numbers, empty = columns.numbers(name)
        numbers[empty] = 0
        if (wrong := ~((numbers >= 0) & (numbers < 2**31) & (numbers % 1 == 0))).any():
            row = int(np.argmax(wrong))
            raise ValueError(f"{columns.where(row)}: {name} is {numbers[row]:g}, and must be a number of pixels")
        sizes[:, place] = numbers[rows]
    sizes[(sizes == 0).any(axis=1)] = 0
    return sizes


def _usable(
    columns: Columns,
    box: tuple[str, ...],
    lines: np.ndarray,
    labels: np.ndarray,
    of_row: np.ndarray,
    images: ImageTable,
    strict: bool,
) -> Objects:
    """The objects that can be used, image by image."""
    rows = np.searchsorted(columns.lines, lines)
    boxes = np.stack([columns.numbers(heading)[0][rows] for heading in box], axis=1)
    sizes = np.where(images.sizes == 0, _UNKNOWN, images.sizes)[of_row[rows]]
    errors = AnnotationErrors(columns.file, strict)
    usable = usable_boxes(boxes, sizes, lines, errors, columns.unit)
    errors.warn()
    order = np.argsort(of_row[rows], kind="stable")
    order = order[usable[order]]
    kept = boxes[order].astype(np.float32)
    return Objects(
        np.searchsorted(of_row[rows][order], np.arange(len(images.names) + 1)),
        kept,
        labels[order].astype(np.int32),
        columns.flags("iscrowd")[rows][order],
        columns.flags("difficult")[rows][order],
        (kept[:, 2] - kept[:, 0]) * (kept[:, 3] - kept[:, 1]),
    )
