"""Classes of the object ids in instance masks: one class, by a divisor, or from a table."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from ..batches import IGNORE_INDEX
from ..images.file_names import composed
from ..tables.labels import class_labels, implied_class_names, labeled_rows
from ..tables.table_reader import Table, read_table


class IdClasses(Protocol):
    """Returns the class of each object of an image."""

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """Return the class of each object id, -1 = not an object.

        Args:
            ids: Ids in the mask of an image.
            image: Index of the image.
            mask: Mask file, for messages.

        Shape:
            - ids, Output: ``[N]`` int64.

        Raises:
            ValueError: An id has no class.
        """


class OneClass:
    """Every id is an object of class 0."""

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """Return zeros: ``[N]`` int64; see `IdClasses`."""
        return np.zeros(len(ids), np.int64)


class ClassesByDivisor:
    """Classes by ``id // divisor``, the same in all masks.

    Args:
        divisor: Divisor of the ids.
        labels: Class of each quotient, -1 = not an object; other quotients are rejected.
    """

    def __init__(self, divisor: int, labels: Mapping[int, int]) -> None:
        self.divisor, self.labels = divisor, dict(labels)

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """Return the classes of ids ``[N]``: ``[N]`` int64; see `IdClasses`."""
        quotients, inverse = np.unique(ids // self.divisor, return_inverse=True)
        if unknown := [quotient for quotient in quotients.tolist() if quotient not in self.labels]:
            first = int(ids[ids // self.divisor == unknown[0]][0])
            known = sorted(self.labels)
            raise ValueError(
                f"{mask}: values // {self.divisor} must be {', '.join(map(str, known[:8]))}"
                f"{', …' if len(known) > 8 else ''}, got {first} // {self.divisor} = {unknown[0]}"
            )
        return np.array([self.labels[quotient] for quotient in quotients.tolist()], np.int64)[inverse]


class ClassesInTable:
    """Classes from a table.

    Args:
        file: Table, for messages.
        ids: Ids, ascending within each image.
        labels: Class of each id.
        starts: First position of each image's ids; None: all images have the same ids.

    Shape:
        - ids, labels: ``[N]``.
        - starts: ``[M + 1]`` for M images.
    """

    def __init__(self, file: Path, ids: np.ndarray, labels: np.ndarray, starts: np.ndarray | None) -> None:
        self.file, self.ids, self.labels, self.starts = file, ids, labels, starts  # ids, labels [N]

    def __call__(self, ids: np.ndarray, image: int, mask: Path) -> np.ndarray:
        """Return the classes of ids ``[N]``: ``[N]`` int64; see `IdClasses`."""
        rows = slice(None) if self.starts is None else slice(self.starts[image], self.starts[image + 1])
        known, labels = self.ids[rows], self.labels[rows]
        positions = np.searchsorted(known, ids)
        is_known = np.zeros(len(ids), np.bool_)
        in_range = positions < len(known)
        is_known[in_range] = known[positions[in_range]] == ids[in_range]
        if not is_known.all():
            more = f" (and {(~is_known).sum() - 1} more)" if (~is_known).sum() > 1 else ""
            raise ValueError(f"{mask}: the value {ids[~is_known][0]}{more} has no class in {str(self.file)!r}")
        return labels[positions].astype(np.int64)


def classes_by_divisor(divisor: int | None, classes: Mapping[int, int] | None, num_classes: int) -> IdClasses:
    """Return the classes for the arguments ``divisor`` and ``classes`` of `InstanceMasks`."""
    if divisor is None:
        return OneClass()
    if classes is None:
        return ClassesByDivisor(divisor, {0: -1} | {label + 1: label for label in range(num_classes)})
    return ClassesByDivisor(divisor, {0: -1} | {part: -1 if k == IGNORE_INDEX else k for part, k in classes.items()})


def read_id_classes(
    file: Path, class_names: Sequence[str] | None, images: Sequence[str] | None
) -> tuple[ClassesInTable, list[str]]:
    """Read classes from a table with the columns ``id`` and ``label``, and optionally ``path``.

    Args:
        file: Table.
        class_names: Classes; None: those that the table's labels imply.
        images: Names of the images, without suffix, to which the paths refer; None: paths are ignored.

    Returns:
        The classes of the ids, and the class names.

    Raises:
        ValueError: An id is not a positive whole number or occurs twice, a label is not a class, or a path is not an
            image; the message has the line.
    """
    table = read_table(file, {"ids": "id", "classes": "label"}, ("path",))
    numbers, empty = table.numbers("id")
    if (invalid := empty | ~((numbers >= 1) & (numbers % 1 == 0))).any():
        row = int(np.argmax(invalid))
        raise ValueError(f"{table.location(row)}: id must be a positive whole number, got {table.values['id'][row]!r}")
    labeled = labeled_rows(table, "label")
    table, ids = table.select(labeled), numbers[labeled].astype(np.int64)
    names = list(class_names) if class_names is not None else implied_class_names(table, "label")
    labels = class_labels(table, "label", names).astype(np.int32)
    if "path" in table.values and images is None:
        return ClassesInTable(file, ids, labels, None), names
    image_of = _image_of_rows(table, images) if "path" in table.values and images is not None else np.zeros_like(ids)
    order = np.lexsort((ids, image_of))
    ids, labels, image_of = ids[order], labels[order], image_of[order]
    if (repeated := (np.diff(ids) == 0) & (np.diff(image_of) == 0)).any():
        row = int(order[int(np.argmax(repeated)) + 1])
        raise ValueError(f"{table.location(row)}: each id must be unique, got {table.values['id'][row]} more than once")
    starts = None
    if "path" in table.values and images is not None:
        starts = np.searchsorted(image_of, np.arange(len(images) + 1))
    return ClassesInTable(file, ids, labels, starts), names


def _image_of_rows(table: Table, images: Sequence[str]) -> np.ndarray:
    """Return the index of each row's image: ``[N]`` int64."""
    index_of = {name: index for index, name in enumerate(images)}
    image_of = np.zeros(len(table.lines), np.int64)
    for row, path in enumerate(table.values["path"]):
        name = composed(str(path))
        image_of[row] = index_of.get(name, index_of.get(os.path.splitext(name)[0], -1))  # noqa: PTH122
        if image_of[row] < 0:
            raise ValueError(f"{table.location(row)}: path must be one of the {len(images)} images, got {path!r}")
    return image_of
