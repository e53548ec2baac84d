"""The score thresholds that a validation recommends: their file, and the line about them at the end of a run."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..drawing.canvas import class_name

THRESHOLDS_FILE = "val_thresholds.csv"
"""Name of the file in the folder of a run."""

ALL_CLASSES = "(all classes)"
"""Name of the last row of the file."""

MAX_LISTED = 8
"""Maximum number of classes in the line at the end of a run."""

MIN_F1 = 0.1
"""F1 of all classes below which no threshold is recommended: the network has hardly learned anything."""


def threshold_rows(columns: Mapping[str, Sequence[float]], names: Sequence[str]) -> list[list[Any]]:
    """The rows of the file, one per class and one for all classes together.

    Args:
        columns: Columns of `ThresholdReporter`, the threshold first, K + 1 values each.
        names: Class names.
    """
    rows: list[list[Any]] = []
    values = list(zip(*columns.values(), strict=True))
    for k, (threshold, *others) in enumerate(values):
        name = ALL_CLASSES if k == len(values) - 1 else class_name(k, names)
        if math.isnan(threshold):
            rows.append([name, *[None] * (1 + len(others))])
        else:  # the shortest number that is this score in float32: rounding up would lose its detection
            rows.append([name, float(str(np.float32(threshold))), *(round(value, 4) for value in others)])
    return rows


def threshold_note(folder: Path) -> str:
    """One line about the thresholds in the folder of a run; empty if there are none, or F1 is below `MIN_F1`."""
    path = folder / THRESHOLDS_FILE
    if not path.is_file():
        return ""
    with path.open(newline="", encoding="utf-8") as file:
        *classes, together = csv.DictReader(file)
    if not together["threshold"] or float(together["f1"]) < MIN_F1:
        return ""
    each = [f"{row['class']} {float(row['threshold']):.2f}" for row in classes if row["threshold"]]
    more = f" and {len(each) - MAX_LISTED} more in {THRESHOLDS_FILE}" if len(each) > MAX_LISTED else ""
    return (
        f"Best score threshold by F1 in the last validation: {float(together['threshold']):.2f} "
        f"(F1 {float(together['f1']):.2f}), for predict --model.score_threshold; "
        f"per class: {', '.join(each[:MAX_LISTED])}{more}"
    )
