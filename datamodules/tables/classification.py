"""Images and labels listed in tables, CSV or Parquet, for classification."""

from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import RECORDED
from ..annotations.argument_checks import check_class_names
from ..annotations.labeled_images import LabeledFiles
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import stratified_split
from .files import (
    check_images_exist,
    check_split_arguments,
    image_folder,
    is_held_out,
    rows_inside,
    rows_with_path,
    table_file,
)
from .labels import class_labels, implied_class_names, labeled_rows
from .table_reader import Table, read_table


class Manifest(VisionDataModule):
    """Images and labels listed in tables, CSV or Parquet, with one row per image.

    ::

        path,label
        a/0001.jpg,cat
        b/0002.jpg,dog

    Labels are names, or whole numbers from 0. A label column has names if each of its labels is in `class_names`;
    otherwise numbers if each label is a whole number; otherwise names. Without `class_names`, the classes are the
    training table's names, sorted, or its numbers from 0, each of which must occur.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        root: Folder that the paths are relative to, and which they must not leave, by ``..`` or by an absolute path;
            links are not followed for this check. null: each table's own folder, and any path is valid.
        val_fraction: Fraction of the training rows held out for validation if there is no `val`; stratified by class
            and determined by `seed`.
        path_column: Heading of the paths.
        label_column: Heading of the labels.
        class_names: Classes in the order of their labels; null: those of the training table.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: A table or images are missing; the message has the lines of the first five images.
        ValueError: A column, a path or a label is missing, a path leaves `root`, or a label is not a class.
        ImportError: A table is Parquet and pyarrow is not installed.

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
        check_split_arguments(val, val_fraction)
        check_class_names(class_names)
        self.tables = {"train": train, "val": val, "test": test}
        self.root, self.val_fraction = None if root is None else Path(root).expanduser(), val_fraction
        self.path_column, self.label_column = path_column, label_column
        self.box_columns: list[str] = []  # read without boxes; see LocalizationManifest
        self._names = None if class_names is None else list(class_names)
        self._training: LabeledFiles | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: those of the argument, or of the training table."""
        if self._names is None:
            self._names = implied_class_names(self._table("train"), self.label_column)
        return list(self._names)

    def make_source(self, split: str) -> LabeledFiles:
        """Return the images of a split."""
        held_out = is_held_out(split, self.tables, self.val_fraction)
        if split != "train" and not held_out:
            return self._read(split)
        if self._training is None:
            self._training = self._read("train")
        if self.val_fraction is None:
            return self._training
        mask = stratified_split(self._training.labels, self.val_fraction, self.seed, self.class_names)
        return self._training.part(mask if held_out else ~mask)

    def _table(self, split: str) -> Table:
        """Read the table of a split; each row has a path and a label."""
        needed = {"path_column": self.path_column, "label_column": self.label_column}
        needed |= {f"box_columns[{index}]": heading for index, heading in enumerate(self.box_columns)}
        table = read_table(table_file(self.tables, split), needed, ragged=True)
        table = table.select(rows_with_path(table, self.path_column))
        return table.select(labeled_rows(table, self.label_column))

    def _labeled_table(self, split: str) -> tuple[Table, np.ndarray, Path]:
        """Read the table of a split, the class of each row ``[N]``, and the folder of its images, which exist."""
        table = self._table(split)
        if self._names is None and split == "train":
            self._names = implied_class_names(table, self.label_column)  # avoids reading the same table again
        labels = class_labels(table, self.label_column, self.class_names)
        folder = image_folder(table, self.root)
        usable = labels != RECORDED
        if self.root is not None:
            usable &= rows_inside(table, self.path_column, folder)
        table, labels = table.select(usable), labels[usable]
        check_images_exist(table, self.path_column, folder)
        return table, labels, folder

    def _read(self, split: str) -> LabeledFiles:
        table, labels, folder = self._labeled_table(split)
        return LabeledFiles(table.values[self.path_column], labels, root=folder)
