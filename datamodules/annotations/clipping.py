"""Boxes that reach beyond their images: which are clipped silently, which with a warning, and which are refused."""

from pathlib import Path

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from .annotation_errors import Fault, record_error, recording

ROUNDING = 0.05
"""Fraction of an image's side up to which boxes may reach beyond it without a warning.

Tools round, and annotators draw a few pixels over the edge; boxes for another size of the image reach further."""


def report_clipped(
    boxes: np.ndarray, sizes: np.ndarray, codes: np.ndarray, names: np.ndarray, file: Path, unit: str
) -> None:
    """Refuse boxes that reach far beyond their images, and warn of those that lose more than rounding explains.

    Within `record_faults`, nothing happens: the caller records the codes.

    Args:
        boxes: x1, y1, x2, y2 as they are written.
        sizes: Width and height of each box's image, in the same unit.
        codes: Fault of each box, see `box_faults`.
        names, file, unit: See `Fault`; a name for each box.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - codes, names: ``[N]``.

    Raises:
        DataError: A box has the fault ``box-far-beyond``.
    """
    if recording():
        return
    far = np.flatnonzero(codes == "box-far-beyond")
    if len(far):
        found = f", got {box_text(boxes[far[0]])} in an image of {_size(sizes[far[0]])}"
        remedy = "correct it, or remove the object; striate data check lists all of them"
        record_error(Fault("box-far-beyond", file, names[far].tolist(), unit, found, remedy))
    beyond = np.maximum(-boxes[:, :2], boxes[:, 2:] - sizes)
    clipped = np.flatnonzero((codes == "box-beyond") & (beyond > ROUNDING * np.asarray(sizes)).any(axis=1))
    if len(clipped):
        first = Fault("box-beyond", file, names[clipped].tolist(), unit).location(0)
        boxes_are = "box is" if len(clipped) == 1 else "boxes are"
        rank_zero_warn(
            f"{len(clipped)} {boxes_are} clipped, reaching beyond the image by over {ROUNDING:.0%} of its side "
            f"(first: {first}, got {box_text(boxes[clipped[0]])} in an image of {_size(sizes[clipped[0]])}): boxes "
            "and images may be of different sizes; run striate data check to list them"
        )


def box_text(box: np.ndarray) -> str:
    """A box as messages show it, from ``[4]``."""
    return f"[{', '.join(f'{side:g}' for side in box)}]"


def _size(size: np.ndarray) -> str:
    """Width and height as messages show them, from ``[2]``."""
    return "x".join(f"{side:g}" for side in size)
