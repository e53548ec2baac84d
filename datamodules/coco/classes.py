"""The classes of a file in COCO's format, from its categories."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import DataError, Fault, record_error
from ..annotations.similar_names import canonical
from .json_columns import CocoColumns, record_bad_entry

BACKGROUND = "background"


class CocoClasses(NamedTuple):
    """The classes of a file.

    Attributes:
        names: Name of each of the K classes.
        category_ids: Id of the category of each class, the lowest of those that are merged.
        known_ids: int64 ``[M]``, ids of all categories, ascending.
        label_of: int64 ``[M]``, class of each of them; -1: the background.
    """

    names: list[str]
    category_ids: list[int]
    known_ids: np.ndarray
    label_of: np.ndarray


def read_classes(file: Path, columns: CocoColumns, merge: bool, with_background: bool) -> CocoClasses:
    """Return the classes of a file: its categories in the order of their ids.

    Args:
        file: The file, for messages.
        columns: Its columns.
        merge: Whether categories with the same name are one class, and one named background is the background.
        with_background: Whether there is a background beside the classes, as in semantic masks.

    Raises:
        DataError: There is no category, an id occurs twice, a name is blank, or two names are the same and `merge` is
            not set.
    """
    names: dict[int, str] = {}
    for index, (number, name) in enumerate(zip(columns.category_ids, columns.category_names, strict=True)):
        problem = f"name must not be blank, got {name!r}" if not name.strip() else None
        problem = f"id must be unique, got {number} more than once" if number in names else problem
        if problem is not None:
            record_bad_entry(file, "categories", {"name": name}, index, problem)
        names.setdefault(number, name)
    if not names:
        raise DataError(f"{file}: categories must list at least one category, got []")
    ids = sorted(names)
    first: dict[str, int | None] = {canonical(BACKGROUND): None} if with_background else {}
    label_of, class_names, category_ids = [], [], []
    for number in ids:
        form = canonical(names[number])
        if form in first and not merge:
            _record_same_names(file, first[form], number, names)
        if form not in first or not merge:
            first.setdefault(form, number)
            class_names.append(names[number])
            category_ids.append(number)
            label_of.append(len(class_names) - 1)
        else:
            other = first[form]
            label_of.append(-1 if other is None else category_ids.index(other))
    if not class_names:
        raise DataError(f"{file}: categories must list a category beside the background, got {sorted(names.values())}")
    return CocoClasses(class_names, category_ids, np.array(ids, np.int64), np.array(label_of, np.int64))


def _record_same_names(file: Path, first: int | None, second: int, names: dict[int, str]) -> None:
    """Record two categories with the same name; `first` None: the background."""
    other = "the background (class 0)" if first is None else f"category {first} {names[first]!r}"
    found = f"classes must have different names, got {other} and category {second} {names[second]!r}"
    remedy = "rename or remove one, or set merge_similar_classes: true to make them one class"
    record_error(Fault("similar-classes", file, [f"category {second}"], "entry", found, remedy))
