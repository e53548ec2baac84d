"""What the figures of a training set imply; each suggestion names the figure that it follows from."""

from collections.abc import Sequence

import numpy as np

from .statistics import SplitFigures, Statistics, Suggestion
from .words import counted

ANCHORS = 9
BOXES_EACH = 10  # boxes for each anchor, at least
MANY_BOXES = 20_000  # boxes that anchors are fitted to, at most
STRIDE = 8  # pixels between the cells of the finest map that common detectors look at
SMALL = 2 * STRIDE  # pixels: an object of two cells
LARGE = 512  # pixels: beyond, a network's first steps take most of its time and memory
IMBALANCE = 5.0  # ratio of the largest to the smallest class above which weights are suggested
RARE = 0.01  # part of the images that have a class, below which it is rare


def suggestions(statistics: Statistics) -> list[Suggestion]:
    """What the figures of the training set imply; nothing where it was not read."""
    train = statistics.splits[0] if statistics.splits else None
    if train is None or train.name != "train" or not train.readable:
        return []
    found = [_classes_unseen(statistics, train)]
    if statistics.kind == "boxes" and not statistics.one_each:
        found += [_detector_size(train), _anchors(train), _rare(statistics, train)]
    else:
        found += [_input_size(train), _weights(statistics, train)]
    return [suggestion for suggestion in found if suggestion is not None]


def _classes_unseen(statistics: Statistics, train: SplitFigures) -> Suggestion | None:
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


def _short_sides(train: SplitFigures) -> tuple[float, str]:
    """The median short side, and what is said of them."""
    short = np.minimum(train.widths, train.heights)
    middle, low, high = (float(np.quantile(short, q)) for q in (0.5, 0.05, 0.95))
    if round(low) == round(high):
        return middle, f"The short side of the images is {middle:.0f} pixels."
    return (
        middle,
        f"The short side of the images is {middle:.0f} pixels in the middle, {low:.0f} to {high:.0f} for nine of ten.",
    )


def _input_size(train: SplitFigures) -> Suggestion:
    """For networks that look at an image as a whole, in steps of 32 pixels."""
    middle, sizes = _short_sides(train)
    if middle > LARGE:
        more = (middle / LARGE) ** 2
        text = (
            f"{sizes} A start: {LARGE} pixels. Images as they are have {more:.1f} times as many, and cost as much more."
        )
        return Suggestion("Input size", text)
    size = int(middle // 32) * 32 if middle >= 32 else round(middle)
    multiple = f", the multiple of 32 below {middle:.0f}" if size != round(middle) else ""
    return Suggestion(
        "Input size", f"{sizes} A start: {size} pixels{multiple}. Less loses detail that is there, more invents none."
    )


def _detector_size(train: SplitFigures) -> Suggestion:
    """For detectors, which must see the small objects."""
    middle, sizes = _short_sides(train)
    if not len(train.box_shares):
        return _input_size(train)
    share = max(float(np.quantile(train.box_shares, 0.1)), 1e-6)
    text = (
        f"{sizes} Nine of ten objects are larger than {100 * share:.3g} % of it (square root of the area), "
        f"{share * middle:.3g} pixels. On a map of stride {STRIDE}, {SMALL} pixels are two cells: the least to be "
        "found reliably"
    )
    least = SMALL / share
    if least > middle:
        finer = "use a finer map (stride 4), or cut" if share * middle >= SMALL / 2 else "cut"
        text += (
            f", which takes a short side of {least:.0f}, {least / middle:.2g} times what the images have. Make none "
            f"smaller, and {finer} the images into tiles and enlarge these."
        )
        return Suggestion("Input size", text, f"short_side: {middle:.0f}")
    size = min(-(-least // 32) * 32, float(int(middle)))
    long = size * float(np.median(np.maximum(train.widths, train.heights))) / middle
    text += (
        f". A short side of {size:.0f} leaves them {size * share:.3g}, and the long side is then {long:.0f}. Less "
        "loses them, more shows more detail and costs more time."
    )
    return Suggestion("Input size", text, f"short_side: {size:.0f}")


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
    count = min(ANCHORS, len(train.box_widths) // BOXES_EACH)
    if count < 1:
        return None
    # as they are written below, so that the figures are those of what is written
    anchors = np.unique(anchor_sizes(train.box_widths, train.box_heights, count).round().clip(1), axis=0)
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    overlap = best_overlap(train.box_widths, train.box_heights, anchors)
    text = (
        f"{counted(len(anchors), 'anchor')} by k-means over {counted(len(overlap), 'box', 'boxes')}, width x height in "
        f"pixels of the images as they are. A box and its best anchor overlap by {overlap.mean():.2f} on average "
        f"(intersection over union); {(overlap < 0.5).mean():.1%} of the boxes have none above 0.5. Scale them with "
        "the images."
    )
    pairs = ", ".join(f"[{width:.0f}, {height:.0f}]" for width, height in anchors)
    return Suggestion("Anchor sizes", text, f"anchors: [{pairs}]")


def _rare(statistics: Statistics, train: SplitFigures) -> Suggestion | None:
    shares = train.images_with / max(train.readable, 1)
    rare = np.flatnonzero((shares > 0) & (shares < RARE))
    present = train.counts[train.counts > 0]
    if not len(rare) or not len(present) or present.max() < IMBALANCE * present.min():
        return None
    order = rare[np.argsort(shares[rare], kind="stable")]
    names = [f"{statistics.class_names[label]} ({train.images_with[label]})" for label in order]
    text = (
        f"{counted(len(rare), 'class is', 'classes are')} in fewer than {RARE:.0%} of the {train.readable:,} training "
        f"images: {_some(names)}. Sampling their images more often helps them: RepeatFactor with threshold {RARE}."
    )
    yaml = f"sampling: {{class_path: striate.datamodules.RepeatFactor, init_args: {{threshold: {RARE}}}}}"
    return Suggestion("Rare classes", text, yaml)


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
    weights[present] = 1 / (counts[present] if kind != "pixels" else np.sqrt(counts[present]))
    return weights / max(weights[present].mean(), 1e-30) if present.any() else weights


def _weights(statistics: Statistics, train: SplitFigures) -> Suggestion | None:
    present = train.counts[train.counts > 0]
    if len(present) < 2 or present.max() < IMBALANCE * present.min():
        return None
    weights = class_weights(train.counts, statistics.kind)
    names = np.array(statistics.class_names)
    low = int(np.argmin(np.where(train.counts > 0, train.counts, np.inf)))
    high = int(train.counts.argmax())
    pixels = statistics.kind == "pixels"
    unit, root = ("pixels", "the square root of ") if pixels else ("images", "")
    text = (
        f"{names[high]} has {train.counts[high] / train.counts[low]:.0f} times as many {unit} as {names[low]} "
        f"({train.counts[high]:,} and {train.counts[low]:,}). Weights inverse to {root}their number, 1 on average over "
        f"the {len(present)} classes that occur"
        + ("." if pixels else "; or draw each class equally often, with data.init_args.sampling: class_balanced.")
    )
    return Suggestion("Class weights", text, "class_weights: [" + ", ".join(f"{w:.3g}" for w in weights) + "]")
