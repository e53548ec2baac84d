"""Objects listed in tables, CSV or Parquet, for detection: one row per object."""

import numpy as np

from ..annotations.annotation_errors import AnnotationErrors
from ..annotations.objects import ImageTable, Objects, ObjectSource, usable_boxes
from ..annotations.one_box import UNKNOWN_SIDE
from ..base import Unpack
from ..loading.splits import random_split
from .boxes import BOX_COLUMNS, boxes_in_pixels, check_box_columns, read_boxes
from .labels import class_labels, implied_class_names, labeled_rows
from .module import TableDataModule, TableOptions
from .paths import check_images_exist, resolve_paths, rows_inside
from .table_reader import Table

_OPTIONAL = ("difficult", "iscrowd", "width", "height")


class DetectionManifest(TableDataModule):
    """Objects listed in tables, CSV or Parquet, with one row per object: the path of its image, its label and its box.

    ::

        path,label,x1,y1,x2,y2
        a/0001.jpg,cat,10,20,110,95.5
        a/0001.jpg,dog,0,5,40,80
        b/0002.jpg,,,,,

    The last row is an image without objects. Boxes are in pixels and lie between them: the whole image is
    ``0, 0, W, H``. Further columns are read if they exist: ``difficult`` and ``iscrowd``, 0 or 1, and ``width`` and
    ``height`` of the image, without which the header of each image file is read. The rows of an image need not be
    adjacent.

    Labels are names, or whole numbers from 0, as in `Manifest`.

    Objects that cannot be used are left out with one warning that counts them, or stop the run if `strict`: a NaN or
    infinite coordinate, a box without area or outside its image. Boxes are clipped to their image.

    Args:
        train: Training table, ``.csv`` or ``.parquet`` (needs pyarrow: ``pip install pyarrow``).
        val: Validation table.
        test: Test table.
        box_columns: Headings of x1, y1, x2 and y2; null: these names.
        normalized_boxes: Whether boxes are written in fractions of the image's width and height, not in pixels.
        skip_empty: Whether to train without images that have no object other than crowds; evaluation always includes
            all images.
        min_visibility: Minimum fraction of a box's area that each transform must keep; objects that lose more are
            removed.
        group_by_aspect: Whether training batches have images of similar aspect ratio, which reduces padding.
        **kwargs: Options of `TableDataModule`: ``root``, ``val_fraction``, ``path_column``, ``label_column``,
            ``class_names``; and the loader options of `VisionDataModule`.

    Raises:
        ValueError: A row has a label without box, or a box without label; the message has the line. Other errors are
            those of `TableDataModule`.

    Batches are `DetectionBatch`. An ``image_id`` is the image's position in its table, from 0, by its first row.
    """

    def __init__(
        self,
        train: str,
        val: str | None = None,
        test: str | None = None,
        box_columns: list[str] | None = None,
        normalized_boxes: bool = False,
        skip_empty: bool = False,
        min_visibility: float = 0.0,
        group_by_aspect: bool = False,
        **kwargs: Unpack[TableOptions],
    ) -> None:
        super().__init__(train, val, test, **kwargs)
        self.box_columns = check_box_columns(BOX_COLUMNS if box_columns is None else box_columns)
        self.normalized_boxes = normalized_boxes
        self.skip_empty, self.min_visibility, self.group_by_aspect = skip_empty, min_visibility, group_by_aspect
        self._sources: dict[str, ObjectSource] = {}

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: those of the argument, or of the training table."""
        if self._names is None:
            table = self._read_table("train", _OPTIONAL)
            self._names = self._implied_names(table.select(self._object_rows(table)))
        return list(self._names)

    @property
    def variable_size_images(self) -> bool:
        """Whether a batch is a list of images; True, since they differ in size."""
        return True

    def make_source(self, split: str) -> ObjectSource:
        """Return the images of a split with their objects."""
        held_out = self._is_held_out(split)
        name = "train" if held_out else split
        if name not in self._sources:
            self._sources[name] = self._read(name)
        whole = self._sources[name]
        source = ObjectSource(whole.images, whole.objects, skip_empty=self.skip_empty and split == "train")
        if name == "train" and self.val_fraction is not None:
            mask = random_split(len(whole), self.val_fraction, self.seed)
            source.selected = source.selected[mask[source.selected] == held_out]
        return source

    def _object_rows(self, table: Table) -> np.ndarray:
        """Return which rows have an object, a label and a whole box: ``[N]`` bool.

        Raises:
            DataError: A row has a label without a whole box, or the reverse; see `record_error`.
        """
        labeled = labeled_rows(table, self.label_column, allow_empty=True)
        sides = np.array([[cell != "" for cell in table.values[heading]] for heading in self.box_columns]).sum(axis=0)
        for row in np.flatnonzero(sides != np.where(labeled, 4, 0)).tolist():
            label = table.values[self.label_column][row]
            if not labeled[row] and label != "":
                continue  # recorded as not a label
            code = "unusable-annotation" if labeled[row] else "missing-annotation"
            count = f"{sides[row]} of {', '.join(self.box_columns)}"
            found = f"{self.label_column} is {label!r}, and {count}" if labeled[row] else f"no label, and {count}"
            remedy = "an object has a label and all four, an image without objects none"
            table.record(code, row, found, remedy)
            labeled[row] = False
        return labeled

    def _implied_names(self, objects: Table) -> list[str]:
        if not len(objects.lines):
            raise ValueError(f"{objects.file}: no objects to take the classes from; set class_names")
        return implied_class_names(objects, self.label_column, self.merge)

    def _read(self, split: str) -> ObjectSource:
        table = self._read_table(split, _OPTIONAL)
        folder = self._image_folder(table)
        if self.root is not None:
            table = table.select(rows_inside(table, self.path_column, folder))
        table = resolve_paths(table, self.path_column, folder)
        is_object = self._object_rows(table)
        objects = table.select(is_object)
        if self._names is None and split == "train":
            self._names = self._implied_names(objects)  # avoids reading the same table again
        labels = class_labels(objects, self.label_column, self.class_names, self.merge)
        index_of: dict[str, int] = {}
        paths = table.values[self.path_column]
        image_of = np.array([index_of.setdefault(path, len(index_of)) for path in paths], np.int64)
        first = np.zeros(len(paths), np.bool_)
        first[np.unique(image_of, return_index=True)[1]] = True
        check_images_exist(table.select(first), self.path_column, folder)
        images = ImageTable.of_names(folder, list(index_of), _image_sizes(table, np.flatnonzero(first)))
        images.sizes[...] = images.measured()
        return ObjectSource(images, self._objects(objects, labels, image_of[is_object], images))

    def _objects(self, table: Table, labels: np.ndarray, image_of: np.ndarray, images: ImageTable) -> Objects:
        """Build the usable objects, sorted by image.

        Args:
            table: One row per object.
            labels: Class of each object, ``[N]``.
            image_of: Index of each object's image, ``[N]``.
            images: Images.
        """
        boxes, sizes = read_boxes(table, self.box_columns), images.sizes[image_of]
        boxes, kept = boxes_in_pixels(boxes, sizes, self.normalized_boxes, table, self.box_columns)
        table, labels, image_of, boxes, sizes = (
            table.select(kept),
            labels[kept],
            image_of[kept],
            boxes[kept],
            sizes[kept],
        )
        errors = AnnotationErrors(table.file, self.strict)
        usable = usable_boxes(boxes, np.where(sizes == 0, UNKNOWN_SIDE, sizes), table.lines, errors, table.unit)
        errors.warn()
        order = np.argsort(image_of, kind="stable")
        order = order[usable[order]]
        crowds, difficult = table.flags("iscrowd"), table.flags("difficult")
        return Objects.grouped(
            len(images.names),
            image_of[order],
            boxes[order],
            labels[order],
            crowds[order],
            difficult[order],
            errors=errors,
        )


def _image_sizes(table: Table, rows: np.ndarray) -> np.ndarray:
    """Return width and height of the images in rows ``[M]``, 0, 0 where a row does not have them: int32 ``[M, 2]``."""
    sizes = np.zeros((len(rows), 2), np.int32)
    if not {"width", "height"} <= set(table.values):
        return sizes
    for axis, name in enumerate(("width", "height")):
        numbers, empty = table.numbers(name)
        numbers[empty] = 0
        if (invalid := ~((numbers >= 0) & (numbers < 2**31) & (numbers % 1 == 0))).any():
            row = int(np.argmax(invalid))
            raise ValueError(f"{table.location(row)}: {name} must be a number of pixels, got {numbers[row]:g}")
        sizes[:, axis] = numbers[rows]
    sizes[(sizes == 0).any(axis=1)] = 0
    return sizes
