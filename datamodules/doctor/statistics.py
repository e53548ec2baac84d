"""Figures of a data set, and what they suggest."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from .records import SplitRecord
from .samples import object_sizes

ANCHORS = 9
MANY_BOXES = 20_000  # boxes that anchors are fitted to, at most
SMALL = 16.0  # pixels: two cells of the finest map (stride 8) that common detectors look at
IMBALANCE = 5.0  # ratio of the largest to the smallest class above which weights are suggested


@dataclass
class SplitFigures:
    """Counts of one split.

    Attributes:
        name: of the split.
        images, readable: how many, and how many could be read.
        objects: how many, without crowds.
        counts: ``[K]``, objects (images, in classification) of each class; of semantic masks, pixels.
        images_with: ``[K]``, images that have each class.
        per_image: ``[N]``, objects of each image read.
        empty: images without objects; None where each has a label.
        widths, heights: ``[N]``, of the images read.
        box_widths, box_heights: ``[M]``, of objects other than crowds, pixels.
    """

    name: str
    images: int
    readable: int
    objects: int
    counts: np.ndarray
    images_with: np.ndarray
    per_image: np.ndarray
    empty: int | None
    widths: np.ndarray
    heights: np.ndarray
    box_widths: np.ndarray
    box_heights: np.ndarray


@dataclass
class Suggestion:
    """What a figure implies, and the lines of YAML that would say so."""

    title: str
    text: str
    yaml: str = ""


@dataclass
class Statistics:
    """Figures of all splits.

    Attributes:
        kind: what the targets are: ``labels``, ``boxes``, ``pixels``, or ``nothing``.
        class_names: the classes.
        splits: one a split.
        suggestions: what follows.
    """

    kind: str
    class_names: list[str]
    splits: list[SplitFigures]
    suggestions: list[Suggestion] = field(default_factory=list)


def figures(records: Sequence[SplitRecord], class_names: Sequence[str]) -> Statistics:
    """Count what was read."""
    kinds, splits = [], []
    for record in records:
        kind, counted = _figures(record, len(class_names))
        kinds.append(kind)
        splits.append(counted)
    kind = next((kind for kind in ("pixels", "boxes", "labels") if kind in kinds), "nothing")
    statistics = Statistics(kind, list(class_names), splits)
    if splits and splits[0].readable:
        statistics.suggestions = suggestions(statistics)
    return statistics


def _figures(record: SplitRecord, classes: int) -> tuple[str, SplitFigures]:
    table, seen, readable = record.objects(), record.seen, record.readable
    boxed = table.boxed
    real = table.real & (table.labels >= 0) & (table.labels < max(classes, 1))
    pairs = np.unique(np.column_stack([table.image[real], table.labels[real]]), axis=0)
    per_image = np.bincount(table.image[table.real], minlength=len(record))[seen & readable]
    has_boxes = len(boxed) > 0
    kind = "boxes" if has_boxes else "labels" if len(table.labels) else "nothing"
    counts = np.bincount(table.labels[real], minlength=classes)
    images_with = np.bincount(pairs[:, 1], minlength=classes) if len(pairs) else np.zeros(classes, np.int64)
    empty: int | None = int((per_image == 0).sum()) if kind != "labels" else None
    if record.pixels is not None and record.with_class is not None and record.foreground is not None:
        kind, counts, images_with = "pixels", record.pixels, record.with_class
        empty = int((seen & readable & ~record.foreground).sum())
    elif kind == "labels":
        has_none = per_image == 0
        empty = int(has_none.sum()) or None
    return kind, SplitFigures(
        record.name,
        len(record),
        int((seen & readable).sum()),
        int(table.real.sum()),
        counts,
        images_with,
        per_image,
        empty,
        record.sizes[readable, 0],
        record.sizes[readable, 1],
        boxed[:, 2] - boxed[:, 0],
        boxed[:, 3] - boxed[:, 1],
    )


def suggestions(statistics: Statistics) -> list[Suggestion]:
    """What the figures of the first split, the training set, imply."""
    found = [_classes_unseen(statistics), _input_size(statistics)]
    if statistics.kind == "boxes" and statistics.splits[0].objects >= ANCHORS:
        found += [_anchors(statistics.splits[0]), _rare(statistics)]
    if statistics.kind in ("labels", "pixels"):
        found.append(_weights(statistics))
    return [suggestion for suggestion in found if suggestion is not None]


def _classes_unseen(statistics: Statistics) -> Suggestion | None:
    train = statistics.splits[0]
    if train.name != "train" or not len(train.counts):
        return None
    names = [name for name, count in zip(statistics.class_names, train.counts, strict=True) if not count]
    if not names:
        return None
    elsewhere = [
        statistics.class_names[label]
        for label in np.flatnonzero((train.counts == 0) & np.any([s.counts > 0 for s in statistics.splits], axis=0))
    ]
    text = f"{len(names)} of {len(statistics.class_names)} classes never occur in train: {_some(names)}."
    if elsewhere:
        text += f" Of these, val or test have {_some(elsewhere)}: no network can learn them from this."
    return Suggestion("Classes without a training sample", text)


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def to_32(pixels: float) -> int:
    """The nearest multiple of 32, at least one: what networks of stride 32 take without padding."""
    return max(int(pixels / 32 + 0.5), 1) * 32


def _input_size(statistics: Statistics) -> Suggestion | None:
    train = statistics.splits[0]
    short = np.minimum(train.widths, train.heights)
    middle, low, high = (float(np.quantile(short, q)) for q in (0.5, 0.05, 0.95))
    long = float(np.median(np.maximum(train.widths, train.heights)))
    sizes = f"The short side of the images is {middle:.0f} pixels in the middle"
    sizes += f" ({low:.0f} to {high:.0f} for nine of ten)." if high > low else "."
    if statistics.kind != "boxes" or len(train.box_widths) == 0:
        size = min(to_32(middle), 512) if middle >= 32 else int(middle)
        why = (
            "Smaller loses detail that is there, larger invents none."
            if middle <= 512
            else "Beyond that the cost grows faster than the accuracy; objects small in their images want more."
        )
        return Suggestion("Input size", f"{sizes} A start: {size} pixels. {why}")
    sides = np.sqrt(train.box_widths * train.box_heights)
    tenth = float(np.quantile(sides, 0.1))
    text = f"{sizes} Nine of ten objects are larger than {tenth:.0f} pixels (square root of the area)."
    wanted = to_32(middle * SMALL / max(tenth, 1e-3))
    if wanted > 1.1 * middle:
        text += (
            f" A detector whose finest map has stride 8 wants {SMALL:.0f}: a short side of {wanted}, more than the "
            " images have. Keep full resolution, cut large images into tiles, or use a finer map (stride 4)."
        )
        return Suggestion("Input size", text, f"short_side: {to_32(middle)}")
    text += (
        f" With a short side of {max(wanted, 32)} they still have {SMALL:.0f}, the least for a map of stride 8; less "
        f"loses them, more costs time. The long side is then {long / middle * max(wanted, 32):.0f}."
    )
    return Suggestion("Input size", text, f"short_side: {max(wanted, 32)}")


def anchor_sizes(widths: np.ndarray, heights: np.ndarray, count: int = ANCHORS, seed: int = 0) -> np.ndarray:
    """Widths and heights that boxes cluster around, by area: k-means over their logarithms.

    In logarithms, twice as large is as far as half as large, as the intersection over union has it.

    Shape:
        - widths, heights: ``[M]``, pixels.
        - Output: ``[count, 2]``, or fewer where there are fewer boxes that differ.
    """
    from sklearn.cluster import KMeans  # slow to import

    sides = np.column_stack([widths, heights]).astype(np.float64)
    sides = sides[(sides > 0).all(axis=1)]
    if len(sides) > MANY_BOXES:
        sides = sides[np.random.default_rng(seed).permutation(len(sides))[:MANY_BOXES]]
    count = min(count, len(np.unique(np.log(sides).round(6), axis=0)))
    centres = np.exp(KMeans(count, n_init=4, random_state=seed).fit(np.log(sides)).cluster_centers_)
    return centres[np.argsort(centres.prod(axis=1))]


def best_overlap(widths: np.ndarray, heights: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of each box with the anchor that fits it best, centre on centre.

    Shape:
        - widths, heights: ``[M]``.
        - anchors: ``[K, 2]``.
        - Output: ``[M]``.
    """
    best = np.zeros(len(widths))
    for width, height in anchors:
        inner = np.minimum(widths, width) * np.minimum(heights, height)
        best = np.maximum(best, inner / (widths * heights + width * height - inner))
    return best


def _anchors(train: SplitFigures) -> Suggestion | None:
    anchors = anchor_sizes(train.box_widths, train.box_heights)
    overlap = best_overlap(train.box_widths, train.box_heights, anchors)
    text = (
        f"{len(anchors)} anchors by k-means, width x height in pixels of the images as they are. A box and its best "
        f"anchor overlap by {overlap.mean():.2f} on average (intersection over union); {(overlap < 0.5).mean():.1%} of "
        "the boxes have none above 0.5. Scale them with the images."
    )
    pairs = ", ".join(f"[{width:.0f}, {height:.0f}]" for width, height in anchors)
    return Suggestion("Anchor sizes", text, f"anchors: [{pairs}]")


def _rare(statistics: Statistics) -> Suggestion | None:
    train = statistics.splits[0]
    shares = train.images_with / max(train.readable, 1)
    rare = np.flatnonzero((shares > 0) & (shares < 0.01))
    present = train.counts[train.counts > 0]
    if not len(rare) or not len(present) or present.max() < IMBALANCE * present.min():
        return None
    names = [statistics.class_names[label] for label in rare[np.argsort(shares[rare])]]
    text = (
        f"{len(rare)} classes are in fewer than one training image of a hundred: {_some(names)}. Sampling their images "
        "more often (repeat factors, threshold 0.01) helps such classes."
    )
    return Suggestion("Rare classes", text)


def class_weights(counts: np.ndarray, kind: str) -> np.ndarray:
    """Weights against imbalance, 1 on average over the classes that occur; 0 for the others.

    Images: inverse to their number. Pixels: inverse to the square root of their number, since classes that differ by a
    thousand would otherwise outweigh all else.

    Shape:
        - counts: ``[K]``.
        - Output: ``[K]``.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = 1 / (counts[present] if kind == "labels" else np.sqrt(counts[present]))
    return weights / max(weights[present].mean(), 1e-30) if present.any() else weights


def _weights(statistics: Statistics) -> Suggestion | None:
    train = statistics.splits[0]
    present = train.counts[train.counts > 0]
    if len(present) < 2 or present.max() < IMBALANCE * present.min():
        return None
    weights = class_weights(train.counts, statistics.kind)
    names = np.array(statistics.class_names)
    low, high = (
        int(label) for label in (np.argmin(np.where(train.counts > 0, train.counts, np.inf)), train.counts.argmax())
    )
    unit = "pixels" if statistics.kind == "pixels" else "images"
    root = "the square root of " if statistics.kind == "pixels" else ""
    text = (
        f"{names[high]} has {train.counts[high] / train.counts[low]:.0f} times as many {unit} as {names[low]}. Weights "
        f"inverse to {root}their number, 1 on average"
        + (
            "; or draw each class equally often, with data.init_args.sampling: class_balanced."
            if unit == "images"
            else "."
        )
    )
    return Suggestion("Class weights", text, "class_weights: [" + ", ".join(f"{w:.3g}" for w in weights) + "]")


def box_sides(split: SplitFigures) -> np.ndarray:
    """Square roots of the areas of a split's boxes: ``[M]``, pixels."""
    zeros = np.zeros_like(split.box_widths)
    return object_sizes(np.column_stack([zeros, zeros, split.box_widths, split.box_heights]))
