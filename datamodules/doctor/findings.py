"""What can be wrong with a data set: the kinds of findings, what each means, and what to do about it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        title: what it is, in the plural.
        severity: ``error``: a sample or an object is lost, or is taught wrong; ``warning``: a figure measured on this
            data would mislead; ``note``: worth knowing. Errors and warnings make the exit code 1.
        advice: what it leads to, and what to do about it.
        fixed: what ``--fix`` does about it; empty: a person must decide.
    """

    title: str
    severity: Severity
    advice: str
    fixed: str = ""


KINDS: dict[str, Kind] = {
    "unopened-split": Kind(
        "splits that cannot be opened",
        "error",
        "Training would stop before its first step. The message says what is wrong; mend that and check again.",
    ),
    "annotation-file": Kind(
        "annotation files that cannot be used",
        "error",
        "Their images are not checked any further. Write them anew, or take their images out of the list.",
        "the images are left out",
    ),
    "missing-image": Kind(
        "images that are not there",
        "error",
        "The annotations list them, the folder lacks them. Fetch them again, or take them out of the annotations.",
        "left out, with their objects",
    ),
    "unreadable-image": Kind(
        "images that cannot be read",
        "error",
        "Empty, truncated or not an image. Training skips them and counts them. Fetch them again.",
        "left out, with their objects",
    ),
    "damaged-image": Kind(
        "images that are damaged inside",
        "error",
        "The decoder gives pixels, but says that data is missing or wrong: parts are gray or displaced. Fetch them "
        "again.",
        "left out, with their objects",
    ),
    "size-mismatch": Kind(
        "images whose annotations are for another size",
        "error",
        "Image and annotation belong to different versions, one was turned (EXIF), or width and height are swapped. "
        "Training leaves these images out, since boxes and masks would lie elsewhere.",
        "left out, with their objects; if only the stated size is wrong, mend that instead",
    ),
    "missing-annotation": Kind(
        "images without their annotation",
        "error",
        "Annotate them, or take them out of the set.",
        "left out",
    ),
    "bad-target": Kind(
        "targets that the reader refuses",
        "error",
        "Training would stop at them. The message says what is wrong.",
        "left out",
    ),
    "label-outside": Kind(
        "labels outside the classes",
        "error",
        "A class is missing from the list, ids count from 1, or a mask has values nobody declared.",
        "the object is dropped (objects), or the image left out (masks, classification)",
    ),
    "unknown-image": Kind(
        "annotations of images that are not listed",
        "error",
        "Training refuses such a file. List the image, or remove the annotation.",
        "dropped",
    ),
    "box-not-finite": Kind(
        "boxes with a coordinate that is NaN or infinite",
        "error",
        "Training drops these objects, and their pixels become background. Draw the boxes anew.",
        "dropped; taken from the mask where there is one",
    ),
    "box-zero-area": Kind(
        "boxes of zero width or height",
        "error",
        "Training drops these objects. Often a click instead of a drag; draw them anew.",
        "dropped; taken from the mask where there is one",
    ),
    "box-inverted": Kind(
        "boxes whose corners are the wrong way round",
        "error",
        "Training drops these objects. Corners were swapped, or another format (x, y, width, height) was meant.",
        "corners are put in order; dropped if that leaves nothing usable",
    ),
    "box-outside": Kind(
        "boxes outside their image",
        "error",
        "Training drops these objects. Often the image was cropped or resized after it was annotated.",
        "dropped; taken from the mask where there is one",
    ),
    "box-beyond": Kind(
        "boxes that reach beyond their image by a pixel or more",
        "warning",
        "Training clips them. Harmless if few; if many, boxes and images may be of different sizes.",
        "clipped",
    ),
    "bad-mask": Kind(
        "objects whose mask cannot be used",
        "error",
        "Training drops these objects.",
        "dropped",
    ),
    "empty-mask": Kind(
        "masks without a pixel",
        "error",
        "There is nothing to learn from: an object whose polygon covers no pixel, or an image all of which is ignored.",
        "the object is dropped (objects), or the image left out (semantic masks)",
    ),
    "mask-box": Kind(
        "masks that disagree with their boxes",
        "warning",
        "Box (red) and mask (yellow) lie apart: one of them belongs to another object, or was edited alone.",
        "the box is taken from the mask",
    ),
    "duplicate-object": Kind(
        "objects annotated twice",
        "warning",
        "Same image, class and box. One of them can never be matched: a perfect detector would miss it.",
        "the later ones are dropped",
    ),
    "duplicate-image": Kind(
        "images that are twice in a split, pixel for pixel",
        "warning",
        "They weigh double, and may carry different annotations. Keep one.",
        "the first is kept, unless their labels differ",
    ),
    "leaked-image": Kind(
        "images that are in two splits, pixel for pixel",
        "warning",
        "Leakage: what is measured on such an image was learned by heart.",
        "left out of the training split (of val, where it is in val and test)",
    ),
    "leaked-split": Kind(
        "splits that have the training images",
        "warning",
        "What is measured there was learned by heart. Hold out a part of the data.",
    ),
    "near-duplicate": Kind(
        "images of a split that look the same",
        "note",
        "Copies in another size or quality, or neighbouring frames. They weigh double.",
    ),
    "near-leak": Kind(
        "images that look the same as one of another split",
        "warning",
        "Leakage by copies in another size or quality, or by frames of one film: split by film, place or patient.",
    ),
    "orphan-image": Kind(
        "image files that no annotation lists",
        "warning",
        "They lie among the images and are never read. Annotate, list or delete them.",
    ),
    "orphan-annotation": Kind(
        "annotation files without an image",
        "warning",
        "They lie among the annotations and are never read. Fetch their images, or delete them.",
    ),
    "unused-image": Kind(
        "image files that no split of this configuration reads",
        "note",
        "As it should be, if the configuration takes a part of the data.",
    ),
    "crash": Kind(
        "images at which the reading process died",
        "error",
        "A decoder crashed, or memory ran out. In training this kills a loader's worker, and with it the run.",
        "left out, with their objects",
    ),
    "unusable-annotation": Kind(
        "annotations that the reader leaves out",
        "error",
        "Training drops them, with one counted warning, or stops at the first.",
        "dropped",
    ),
}
ORDER = {"error": 0, "warning": 1, "note": 2}
# findings about a sample as a whole: a corrected copy leaves it out
WHOLE = frozenset(
    ("missing-image", "unreadable-image", "damaged-image", "size-mismatch", "bad-target", "crash", "missing-annotation")
)
KEPT = 20_000  # findings of a kind kept one by one; beyond that they are only counted
MAX_BOXES = 64  # boxes kept with a finding


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        code: its kind, a key of `KINDS`.
        where: the file, and the line, annotation or object in it.
        detail: what is wrong there.
        split: where it was found; empty: the whole set.
        image: path of the image to show.
        index: number of the sample in its split, where it has one.
        boxes: what to mark in the image, x1, y1, x2, y2 in pixels.
        other: a second image, with its split, to show beside the first.
    """

    code: str
    where: str
    detail: str = ""
    split: str = ""
    image: str | None = None
    index: int | None = None
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    other: tuple[str, int] | None = None


class Findings:
    """All findings: each kind counted, and the first `KEPT` of a kind kept.

    Args:
        ignored: kinds to pass over.
    """

    def __init__(self, ignored: frozenset[str] = frozenset()) -> None:
        self.ignored = ignored
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {}

    def add(self, finding: Finding) -> None:
        """Take a finding, unless its kind is ignored."""
        if finding.code in self.ignored:
            return
        self.counts[finding.code] += 1
        kept = self._kept.setdefault(finding.code, [])
        if len(kept) < KEPT:
            kept.append(finding)

    def of(self, code: str) -> list[Finding]:
        """The findings of a kind that are kept."""
        return self._kept.get(code, [])

    def codes(self) -> list[str]:
        """The kinds found, the worst first, in the order of `KINDS`."""
        return sorted(self.counts, key=lambda code: (ORDER[KINDS[code].severity], list(KINDS).index(code)))

    def __iter__(self) -> Iterator[Finding]:
        for code in self.codes():
            yield from self.of(code)

    def total(self, *severities: Severity) -> int:
        """How many findings there are of these severities."""
        return sum(count for code, count in self.counts.items() if KINDS[code].severity in severities)


def spoils(finding: Finding) -> bool:
    """Whether a finding is about its sample as a whole, so that a corrected copy leaves the sample out."""
    # of objects, one alone is dropped; the class of an image, or a mask of all its pixels, goes with its sample
    return finding.code in WHOLE or (finding.code in ("label-outside", "empty-mask") and not finding.boxes)


def rows(boxes: np.ndarray) -> tuple[tuple[float, float, float, float], ...]:
    """Boxes ``[N, 4]`` as a finding keeps them."""
    return tuple((float(a), float(b), float(c), float(d)) for a, b, c, d in boxes[:MAX_BOXES])


def shown(box: np.ndarray) -> str:
    """A box as text, to a tenth of a pixel."""
    return "[" + ", ".join(f"{float(side):.1f}".removesuffix(".0") for side in box) + "]"


def judge(boxes: np.ndarray, sizes: np.ndarray, pixel: np.ndarray | float = 1.0) -> np.ndarray:
    """What is wrong with boxes as they are written.

    Args:
        boxes: x1, y1, x2, y2 in pixels.
        sizes: width and height of each box's image.
        pixel: what a pixel is, where all of these are in another unit.

    Returns:
        For each the code of its kind, such as ``box-inverted``, or an empty text.

    Shape:
        - boxes: ``[N, 4]``.
        - sizes: ``[N, 2]``.
        - pixel: a number, or ``[N, 2]``.
        - Output: ``[N]``, text.
    """
    sizes = np.asarray(sizes)
    first, last = boxes[:, :2], boxes[:, 2:]
    with np.errstate(invalid="ignore"):
        clipped = np.clip(boxes, 0, np.concatenate([sizes, sizes], axis=1)).astype(np.float32)
        checks = [
            (~np.isfinite(boxes).all(axis=1), "box-not-finite"),
            ((last < first).any(axis=1), "box-inverted"),
            ((last == first).any(axis=1), "box-zero-area"),
            (((first >= sizes) | (last <= 0)).any(axis=1), "box-outside"),
            ((clipped[:, 2:] <= clipped[:, :2]).any(axis=1), "box-outside"),
            (((first <= -pixel) | (last >= sizes + pixel)).any(axis=1), "box-beyond"),
        ]
    return np.select([wrong for wrong, _ in checks], [code for _, code in checks], "")
