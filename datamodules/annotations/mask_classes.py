"""Whether the masks of a training set have the classes that the data module names."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..batches import IGNORE_INDEX
from .absence import warn_of_absent_classes
from .annotation_errors import Fault, record_error, recording
from .mask_files import MASK_VALUES, MaskedFiles

MAX_MASKS = 200
"""Masks that are read to find all classes; most sets have them in the first few."""


def check_mask_classes(source: MaskedFiles, class_names: Sequence[str], remedy: str) -> None:
    """Check that the masks of a training set have pixels of each class; reading stops when all are found.

    Masks with smoothed edges among those that are read give a warning.

    Args:
        source: Images and masks.
        class_names: Classes.
        remedy: What to do about masks in which 255 stands for a class.

    Raises:
        DataError: There are two classes, but the only values are 0 and 255, which is ignored.
    """
    classes, values = np.zeros(256, np.bool_), np.zeros(MASK_VALUES + 1, np.bool_)  # the last: values beyond
    step = max(len(source) // MAX_MASKS, 1)
    numbers = range(0, len(source), step)
    smoothed: list[tuple[Path, int]] = []
    is_complete = False
    for number in numbers:
        path = source.root / os.fsdecode(source.masks[number])
        try:
            mask = source.read(path)
        except ValueError:  # reported when its sample is read
            continue
        levels = np.unique(mask)
        levels = np.where((levels < 0) | (levels >= MASK_VALUES), MASK_VALUES, levels.astype(np.int64))
        values[levels] = True
        found = source.lookup[levels[levels < MASK_VALUES]]
        if (found >= 0).all() and not values[-1]:  # otherwise reported when its sample is read
            classes[found] = True
            if not recording() and (on_edges := source.count_smoothed(mask)):
                smoothed.append((path, on_edges))
        if is_complete := bool(classes[: len(class_names)].all()):
            break
    if smoothed:
        path, on_edges = smoothed[0]
        rank_zero_warn(
            f"edges are trained on as other classes ({len(smoothed)} masks have values that occur only along edges, "
            f"first: {path}, {on_edges} values): save the masks without antialiasing or interpolation"
        )
    if is_complete:
        return
    if len(class_names) == 2 and np.flatnonzero(values).tolist() == [0, IGNORE_INDEX] and not classes[1]:
        found_values = f"have only the values 0 and {IGNORE_INDEX}, and {IGNORE_INDEX} is ignored"
        folder = (source.root / os.fsdecode(source.masks[0])).parent
        record_error(Fault("binary-mask", folder, ["masks"], "entry", found_values, remedy))
        return
    known = np.flatnonzero(values[:MASK_VALUES])
    is_refused = not source.learnable(known, source.lookup[known]).any()
    if step == 1 and not is_refused and not recording():
        missing = f"pixel in the training masks of {source.root}"
        warn_of_absent_classes(np.flatnonzero(classes).tolist(), class_names, missing)
