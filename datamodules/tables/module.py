"""Base of the data modules that read tables: the table of each split, its columns, and the classes."""

from pathlib import Path

from ..annotations.annotation_errors import AbsentSplitError, MissingFileError
from ..annotations.argument_checks import check_class_names
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..loading.splits import optional_val_fraction
from .paths import rows_with_path
from .table_reader import Table, read_table


class TableOptions(LoaderOptions, total=False):
    """`LoaderOptions` and the options of `TableDataModule`, for a constructor's ``**kwargs``."""

    root: str | None
    val_fraction: float | None
    path_column: str
    label_column: str
    class_names: list[str] | None
    merge_similar_classes: bool


class TableDataModule(VisionDataModule):
    """Base of the data modules that read tables, CSV or Parquet.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        root: Folder that the paths are relative to, and which they must not leave, by ``..`` or by an absolute path;
            links are not followed for this check. null: each table's own folder, and any path is valid.
        val_fraction: Fraction of the training images held out for validation if there is no `val`, determined by
            `seed`; stratified by class, except in `DetectionManifest`.
        path_column: Heading of the paths.
        label_column: Heading of the labels.
        class_names: Classes in the order of their labels; null: those of the training table.
        merge_similar_classes: Whether labels that differ only in case, blanks or Unicode form (``Cat``, ``cat``) are
            one class, with the first of these names; they are rejected otherwise.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: A table or images are missing; the message has the lines of the first five images.
        ValueError: A column, a path or a label is missing, a path leaves `root`, or a label is not a class.
        ImportError: A table is Parquet and pyarrow is not installed.
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
        merge_similar_classes: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        val_fraction = optional_val_fraction(val_fraction)
        if val is not None and val_fraction is not None:
            raise ValueError(f"val_fraction: must be null if val is set, got {val_fraction} and {val!r}; set one")
        check_class_names(class_names)
        self.tables = {"train": train, "val": val, "test": test}
        self.root, self.val_fraction = None if root is None else Path(root).expanduser(), val_fraction
        self.path_column, self.label_column, self.merge = path_column, label_column, merge_similar_classes
        self.box_columns: list[str] = []  # set by the data modules with boxes
        self._names = None if class_names is None else list(class_names)

    def _is_held_out(self, split: str) -> bool:
        """Return whether the images of a split are held out of the training table."""
        if split != "val" or self.tables["val"] is not None:
            return False
        if self.val_fraction is None:
            raise ValueError("val: must name a table, got null; or set val_fraction: 0.1")
        return True

    def _read_table(self, split: str, optional: tuple[str, ...] = ()) -> Table:
        """Read the table of a split, without rows that have no path; see `read_table`."""
        name = self.tables[split]
        if name is None:
            raise AbsentSplitError(f"{split}: must name a table, got null")
        file = Path(name).expanduser()
        if not file.is_file():
            raise MissingFileError(f"{split}: no file {str(file)!r}")
        needed = {"path_column": self.path_column, "label_column": self.label_column}
        needed |= {f"box_columns[{index}]": heading for index, heading in enumerate(self.box_columns)}
        table = read_table(file, needed, optional)
        return table.select(rows_with_path(table, self.path_column))

    def _image_folder(self, table: Table) -> Path:
        """Return the folder that a table's paths are relative to."""
        folder = table.file.parent if self.root is None else self.root
        if not folder.is_dir():
            raise MissingFileError(f"root: no folder {str(folder)!r}")
        return folder
