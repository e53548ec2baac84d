"""What the statistics of a training set imply; each suggestion names the number that it follows from."""

from collections.abc import Sequence

import numpy as np

from .formatting import pluralize
from .statistics import SplitStatistics, Statistics, Suggestion

ANCHORS = 9
BOXES_PER_ANCHOR = 10  # minimum
MAX_BOXES = 20_000  # to which anchors are fitted
STRIDE = 8  # pixels, of the finest feature map that common detectors use
SMALL = 2 * STRIDE  # pixels: an object of two cells
LARGE = 512  # pixels; for larger images the first layers take most of the time and memory
IMBALANCE = 5.0  # ratio of the largest to the smallest class from which weights are suggested
RARE = 0.01  # fraction of the images that contain a class, below which it is rare


def suggestions(statistics: Statistics) -> list[Suggestion]:
    """Return what the statistics of the training set imply; nothing if it was not read."""
    train = statistics.splits[0] if statistics.splits else None
    if train is None or train.name != "train" or not train.readable:
        return []
    found = [_unseen_classes(statistics, train)]
    if statistics.kind == "boxes" and not statistics.one_each:
        found += [_detector_size(train), _anchors(train), _rare_classes(statistics, train)]
    else:
        found += [_input_size(train), _class_weights(statistics, train)]
    return [suggestion for suggestion in found if suggestion is not None]


def _unseen_classes(statistics: Statistics, train: SplitStatistics) -> Suggestion | None:
    names = [name for name, count in zip(statistics.class_names, train.counts, strict=True) if not count]
    if not names:
        return None
    elsewhere = (train.counts == 0) & np.any([split.counts > 0 for split in statistics.splits], axis=0)
    text = f"{len(names)} of {len(statistics.class_names)} classes never occur in train: {_join(names)}."
    if elsewhere.any():
        others = [statistics.class_names[label] for label in np.flatnonzero(elsewhere)]
        text += f" Of these, val or test have {_join(others)}: no network can learn them from this data."
    return Suggestion("Classes without a training sample", text)


def _join(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _short_sides(train: SplitStatistics) -> tuple[float, str]:
    """The median short side, and a sentence on their distribution."""
    short = np.minimum(train.widths, train.heights)
    median, low, high = (float(np.quantile(short, q)) for q in (0.5, 0.05, 0.95))
    text = f"The short side of the images is {median:.0f} pixels"
    if round(low) == round(high):
        return median, f"{text}."
    return median, f"{text} in the median, and {low:.0f} to {high:.0f} for nine of ten."


def _input_size(train: SplitStatistics) -> Suggestion:
    """For networks that classify the whole image, in steps of 32 pixels."""
    median, sizes = _short_sides(train)
    if median > LARGE:
        ratio = (median / LARGE) ** 2
        text = (
            f"{sizes} Start with {LARGE} pixels: full resolution has {ratio:.1f} times as many, and costs as much more."
        )
        return Suggestion("Input size", text)
    size = int(median // 32) * 32 if median >= 32 else round(median)
    multiple = f", the multiple of 32 below {median:.0f}" if size != round(median) else ""
    text = f"{sizes} Start with {size} pixels{multiple}. A smaller size loses detail; a larger one adds none."
    return Suggestion("Input size", text)


def _detector_size(train: SplitStatistics) -> Suggestion:
    """For detectors, which must resolve the small objects."""
    median, sizes = _short_sides(train)
    if not len(train.box_fractions):
        return _input_size(train)
    fraction = max(float(np.quantile(train.box_fractions, 0.1)), 1e-6)
    text = (
        f"{sizes} Nine of ten objects are larger than {100 * fraction:.3g} % of it (square root of the area), "
        f"{fraction * median:.3g} pixels. On a feature map of stride {STRIDE}, {SMALL} pixels are two cells, the "
        "minimum for reliable detection"
    )
    needed = SMALL / fraction
    if needed > median:
        finer = "use a finer map (stride 4), or cut" if fraction * median >= SMALL / 2 else "cut"
        text += (
            f". That takes a short side of {needed:.0f}, {needed / median:.2g} times that of the images. Do not shrink "
            f"them; {finer} the images into tiles and enlarge these."
        )
        return Suggestion("Input size", text, f"short_side: {median:.0f}")
    size = min(-(-needed // 32) * 32, float(int(median)))
    long = size * float(np.median(np.maximum(train.widths, train.heights))) / median
    text += (
        f". A short side of {size:.0f} leaves them {size * fraction:.3g}, with a long side of {long:.0f}. A smaller "
        "one loses them; a larger one shows more detail and takes more time."
    )
    return Suggestion("Input size", text, f"short_side: {size:.0f}")


def anchor_sizes(widths: np.ndarray, heights: np.ndarray, count: int = ANCHORS, seed: int = 0) -> np.ndarray:
    """Return the widths and heights that boxes cluster around, by area: k-means over their logarithms.

    In logarithms, twice as large is as far away as half as large, as for the intersection over union.

    Shape:
        - widths, heights: ``[M]``, pixels.
        - Output: ``[count, 2]``, or fewer if there are fewer distinct boxes.
    """
    from sklearn.cluster import KMeans  # slow to import

    sides = np.column_stack([widths, heights]).astype(np.float64)
    sides = sides[(sides > 0).all(axis=1)]
    if len(sides) > MAX_BOXES:
        sides = sides[np.random.default_rng(seed).permutation(len(sides))[:MAX_BOXES]]
    count = min(count, len(np.unique(np.log(sides).round(6), axis=0)))
    centers = np.exp(KMeans(count, n_init=4, random_state=seed).fit(np.log(sides)).cluster_centers_)
    return centers[np.argsort(centers.prod(axis=1))]


def best_iou(widths: np.ndarray, heights: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each box with its best anchor, aligned at their centers.

    Shape:
        - widths, heights: ``[M]``.
        - anchors: ``[K, 2]``.
        - Output: ``[M]``.
    """
    best = np.zeros(len(widths))
    for width, height in anchors:
        intersection = np.minimum(widths, width) * np.minimum(heights, height)
        best = np.maximum(best, intersection / (widths * heights + width * height - intersection))
    return best


def _anchors(train: SplitStatistics) -> Suggestion | None:
    count = min(ANCHORS, len(train.box_widths) // BOXES_PER_ANCHOR)
    if count < 1:
        return None
    # rounded as they are printed, so that the numbers in the text belong to them
    anchors = np.unique(anchor_sizes(train.box_widths, train.box_heights, count).round().clip(1), axis=0)
    anchors = anchors[np.argsort(anchors.prod(axis=1), kind="stable")]
    iou = best_iou(train.box_widths, train.box_heights, anchors)
    text = (
        f"{pluralize(len(anchors), 'anchor')} by k-means over {pluralize(len(iou), 'box', 'boxes')}, width x height in "
        f"pixels of the original images. A box and its best anchor have an IoU of {iou.mean():.2f} on average; "
        f"{(iou < 0.5).mean():.1%} of the boxes have none above 0.5. Scale the anchors with the images."
    )
    pairs = ", ".join(f"[{width:.0f}, {height:.0f}]" for width, height in anchors)
    return Suggestion("Anchor sizes", text, f"anchors: [{pairs}]")


def _is_imbalanced(counts: np.ndarray) -> bool:
    """Whether the largest of the classes ``[K]`` that occur is much larger than the smallest."""
    present = counts[counts > 0]
    return len(present) > 0 and present.max() >= IMBALANCE * present.min()


def _rare_classes(statistics: Statistics, train: SplitStatistics) -> Suggestion | None:
    fractions = train.images_with / max(train.readable, 1)
    rare = np.flatnonzero((fractions > 0) & (fractions < RARE))
    if not len(rare) or not _is_imbalanced(train.counts):
        return None
    order = rare[np.argsort(fractions[rare], kind="stable")]
    names = [f"{statistics.class_names[label]} ({train.images_with[label]})" for label in order]
    text = (
        f"{pluralize(len(rare), 'class is', 'classes are')} in fewer than {RARE:.0%} of the {train.readable:,} "
        f"training images: {_join(names)}. Sampling their images more often helps them: RepeatFactor "
        f"with threshold {RARE}."
    )
    yaml = f"sampling: {{class_path: striate.datamodules.RepeatFactor, init_args: {{threshold: {RARE}}}}}"
    return Suggestion("Rare classes", text, yaml)


def class_weights(counts: np.ndarray, kind: str) -> np.ndarray:
    """Return weights against imbalance, with mean 1 over the classes that occur; 0 for the others.

    Images: inverse to their number. Pixels: inverse to the square root of their number, since classes that differ by a
    factor of a thousand would otherwise dominate the loss.

    Shape:
        - counts: ``[K]``.
        - Output: ``[K]``.
    """
    present = counts > 0
    weights = np.zeros(len(counts))
    weights[present] = 1 / (counts[present] if kind != "pixels" else np.sqrt(counts[present]))
    return weights / max(weights[present].mean(), 1e-30) if present.any() else weights


def _class_weights(statistics: Statistics, train: SplitStatistics) -> Suggestion | None:
    present = train.counts[train.counts > 0]
    if len(present) < 2 or not _is_imbalanced(train.counts):
        return None
    weights = class_weights(train.counts, statistics.kind)
    low, high = int(np.argmin(np.where(train.counts > 0, train.counts, np.inf))), int(train.counts.argmax())
    names, pixels = statistics.class_names, statistics.kind == "pixels"
    unit, root = ("pixels", "the square root of ") if pixels else ("images", "")
    text = (
        f"{names[high]} has {train.counts[high] / train.counts[low]:.0f} times as many {unit} as {names[low]} "
        f"({train.counts[high]:,} and {train.counts[low]:,}). Weights inverse to {root}their number, with mean 1 over "
        f"the {len(present)} classes that occur"
        + ("." if pixels else "; or draw each class equally often, with sampling: class_balanced.")
    )
    return Suggestion("Class weights", text, "class_weights: [" + ", ".join(f"{w:.3g}" for w in weights) + "]")
