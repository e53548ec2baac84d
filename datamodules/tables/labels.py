"""Labels in tables: which cells are labels, the classes that a column implies, and the class of each row."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..annotations.annotation_errors import RECORDED
from ..annotations.argument_checks import did_you_mean
from ..annotations.class_names import reject_similar_names
from ..annotations.similar_names import canonical, merged_names
from .table_reader import Table

_WHOLE = re.compile(r"[+-]?\d+")
_BEYOND = 2**31  # beyond any number of classes


def labeled_rows(table: Table, column: str, allow_empty: bool = False) -> np.ndarray:
    """Return which rows have a label, text or a whole number: ``[N]`` bool.

    Args:
        table: Table with the labels.
        column: Heading of the labels.
        allow_empty: Whether empty cells are valid; they still have no label.

    Raises:
        DataError: A cell is something else; see `record_error`.
    """
    cells = table.values[column]
    labeled = np.array([type(cell) in (str, int) and cell != "" for cell in cells], np.bool_)
    for row in np.flatnonzero(~labeled).tolist():
        if cells[row] != "":
            table.record("label-outside", row, f"{cells[row]!r}", f"{column} must be text or a whole number")
        elif not allow_empty:
            table.record("missing-annotation", row, f"{column} must be text or a whole number, got ''")
    return labeled


def implied_class_names(table: Table, column: str, merge: bool = False) -> list[str]:
    """Return the classes that a training table implies: its labels, sorted, or the numbers from 0 to the largest.

    Args:
        table: Table in which each row has a label.
        column: Heading of the labels.
        merge: Whether labels that differ only in case, blanks or Unicode form are one class.

    Raises:
        ValueError: Numbers are negative or have gaps, as when they count from 1; the message has the first line. Or
            such labels exist, unless `merge`.
    """
    labels = table.values[column]
    if not _are_whole_numbers(labels):
        names = sorted({str(label) for label in labels})
        if merge:
            return sorted(set(merged_names(names).values()))
        reject_similar_names(names, table.file, column, column, "column")
        return names
    numbers = np.array([_int(label) for label in labels], dtype=np.int64)
    present = np.unique(numbers)
    if present[0] != 0 or present[-1] != len(present) - 1:
        gaps = [number for number in range(min(int(present[-1]) + 1, len(present) + 5)) if number not in present]
        # the first row that does not continue from 0: a negative number, or one beyond the first gap
        row = int(((numbers < 0) | (numbers > min(gaps, default=numbers.max()))).argmax())
        problem = f"no image has {', '.join(map(str, gaps[:5]))}" if gaps else "labels must not be negative"
        raise ValueError(
            f"{table.location(row)}: labels must count from 0 without gaps, got {labels[row]!r}; {problem} (labels are "
            f"{present[0]} to {present[-1]}); renumber them, or name all classes in class_names"
        )
    return [str(number) for number in present]


def class_labels(table: Table, column: str, class_names: Sequence[str], merge: bool = False) -> np.ndarray:
    """Return the class of each row.

    Args:
        table: Table in which each row has a label.
        column: Heading of the labels.
        class_names: Classes.
        merge: Whether labels may differ from them in case, blanks and Unicode form.

    Shape:
        - Output: ``[N]`` int64.

    Raises:
        DataError: A label is not a class; within `record_faults`, its row has `RECORDED` instead.
    """
    written = table.values[column]
    key = canonical if merge else str
    label_of: dict[Any, int] = {key(name): label for label, name in enumerate(class_names)}
    are_names = not _are_whole_numbers(written) or all(key(str(label)) in label_of for label in written)
    # a number of any size is clipped to one that is not a class
    last = len(class_names)
    numbers = [label_of.get(key(str(text)), -1) if are_names else max(-1, min(_int(text), last)) for text in written]
    labels = np.array(numbers, dtype=np.int64)
    for row in np.flatnonzero((labels < 0) | (labels >= last)).tolist():
        remedy = f"classes are 0 to {len(class_names) - 1}"
        if are_names:
            remedy = f"there are {len(class_names)} classes{did_you_mean(str(written[row]), class_names)}"
        table.record("label-outside", row, f"{written[row]!r}", remedy)
        labels[row] = RECORDED
    return labels


def _int(label: str | int) -> int:
    """The number that a label is; one beyond any number of classes is replaced by such a one."""
    if isinstance(label, str) and len(label.lstrip("+-0")) > 18:  # int() refuses thousands of digits
        return -_BEYOND if label.startswith("-") else _BEYOND
    return max(-_BEYOND, min(int(label), _BEYOND))


def _are_whole_numbers(labels: Sequence[str | int]) -> bool:
    return all(isinstance(label, int) or _WHOLE.fullmatch(label) for label in labels)
