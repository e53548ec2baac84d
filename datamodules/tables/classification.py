"""Images and labels listed in tables, CSV or Parquet, for classification."""

from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import RECORDED
from ..annotations.labeled_images import LabeledFiles
from ..base import Unpack
from ..loading.splits import stratified_split
from .labels import class_labels, implied_class_names, labeled_rows
from .module import TableDataModule, TableOptions
from .paths import check_images_exist, resolve_paths, rows_inside
from .table_reader import Table


class Manifest(TableDataModule):
    """Images and labels listed in tables, CSV or Parquet, with one row per image.

    ::

        path,label
        a/0001.jpg,cat
        b/0002.jpg,dog

    Labels are names, or whole numbers from 0. A label column has names if each of its labels is in ``class_names``;
    otherwise numbers if each label is a whole number; otherwise names. Without ``class_names``, the classes are the
    training table's names, sorted, or its numbers from 0, each of which must occur.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        **kwargs: Options of `TableDataModule`: ``root``, ``val_fraction``, ``path_column``, ``label_column``,
            ``class_names``; and the loader options of `VisionDataModule`.

    Errors are those of `TableDataModule`.

    Batches are `ClassificationBatch`.
    """

    def __init__(
        self, train: str, val: str | None = None, test: str | None = None, **kwargs: Unpack[TableOptions]
    ) -> None:
        super().__init__(train, val, test, **kwargs)
        self._training: LabeledFiles | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: those of the argument, or of the training table."""
        if self._names is None:
            self._names = implied_class_names(self._table("train"), self.label_column, self.merge)
        return list(self._names)

    def make_source(self, split: str) -> LabeledFiles:
        """Return the images of a split with their labels."""
        held_out = self._is_held_out(split)
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
        table = self._read_table(split)
        return table.select(labeled_rows(table, self.label_column))

    def _labeled_table(self, split: str) -> tuple[Table, np.ndarray, Path]:
        """Read the table of a split, the class of each row ``[N]``, and the folder of its images, which exist."""
        table = self._table(split)
        if self._names is None and split == "train":
            self._names = implied_class_names(
                table, self.label_column, self.merge
            )  # avoids reading the same table again
        labels = class_labels(table, self.label_column, self.class_names, self.merge)
        folder = self._image_folder(table)
        usable = labels != RECORDED
        if self.root is not None:
            usable &= rows_inside(table, self.path_column, folder)
        table, labels = resolve_paths(table.select(usable), self.path_column, folder), labels[usable]
        check_images_exist(table, self.path_column, folder)
        return table, labels, folder

    def _read(self, split: str) -> LabeledFiles:
        table, labels, folder = self._labeled_table(split)
        return LabeledFiles(table.values[self.path_column], labels, root=folder)
