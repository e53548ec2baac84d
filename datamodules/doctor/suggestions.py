"""What the statistics of a training set imply; each suggestion names the number that it follows from."""

from collections.abc import Sequence

import numpy as np

from .formatting import pluralize
from .statistics import SplitStatistics, Statistics, Suggestion

FEW = 10  # boxes, below which nothing is suggested for anchors
MAX_BOXES = 5_000  # to which anchors are fitted
STRIDE = 8  # pixels, of the finest feature map that common detectors use
SMALL = 2 * STRIDE  # pixels: an object of two cells
LARGE = 512  # pixels; for larger images the first layers take most of the time and memory
IMBALANCE = 5.0  # ratio of the largest to the smallest class from which weights are suggested
RARE = 0.01  # fraction of the images that contain a class, below which it is rare


def suggestions(statistics: Statistics) -> list[Suggestion]:
    """Return suggestions from the statistics of the training set; none if it was not read."""
    train = statistics.splits[0] if statistics.splits else None
    if train is None or train.name != "train" or not train.readable:
        return []
    found: list[Suggestion | None]
    if statistics.kind == "boxes" and not statistics.one_each:
        size, short_side = _detector_size(train)
        found = [size, *_pyramid_anchors(train, short_side), _ssd_scales(train), _rare_classes(statistics, train)]
    else:
        found = [_input_size(train), _class_weights(statistics, train)]
    return [suggestion for suggestion in found if suggestion is not None]


def _join(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _short_sides(train: SplitStatistics) -> tuple[float, str]:
    """The median short side, and a sentence on their distribution."""
    short = np.minimum(train.widths, train.heights)
    median, low, high = (float(np.quantile(short, q)) for q in (0.5, 0.05, 0.95))
    text = f"The short side of the images is {median:.0f} pixels"
    if round(low) == round(high):
        return median, f"{text}."
    return median, f"{text} (median), and {low:.0f} to {high:.0f} for nine of ten."


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


def _detector_size(train: SplitStatistics) -> tuple[Suggestion, float]:
    """For detectors, which must resolve the small objects: the suggestion, and the short side in it."""
    median, sizes = _short_sides(train)
    if not len(train.box_fractions):
        return _input_size(train), median
    fraction = max(float(np.quantile(train.box_fractions, 0.1)), 1e-6)
    text = (
        f"{sizes} Nine of ten objects are larger than {100 * fraction:.3g} % of it (square root of the area), "
        f"{fraction * median:.3g} pixels. On a feature map of stride {STRIDE}, {SMALL} pixels are two cells, the "
        "minimum for reliable detection"
    )
    needed = SMALL / fraction
    if needed > median:
        finer = "Use a finer map (stride 4), or cut" if fraction * median >= SMALL / 2 else "Cut"
        text += (
            f". That takes a short side of {needed:.0f}, {needed / median:.2g} times that of the images. Do not shrink "
            f"them: min_size is their own side. {finer} the images into tiles and enlarge these."
        )
        return Suggestion("Input size", text, _resizing(train, round(median))), round(median)
    size = min(-(-needed // 32) * 32, float(int(median)))
    long = size * float(np.median(np.maximum(train.widths, train.heights))) / median
    text += (
        f". A short side of {size:.0f} leaves them {size * fraction:.3g}, with a long side of {long:.0f}. A smaller "
        "one loses them; a larger one shows more detail and takes more time."
    )
    return Suggestion("Input size", text, _resizing(train, round(size))), size


def _resizing(train: SplitStatistics, short_side: int) -> str:
    """The keys of `FasterRCNN`, `RetinaNet` and `FCOS`; the limit of the long side leaves 19 of 20 images alone."""
    aspects = np.maximum(train.widths, train.heights) / np.minimum(train.widths, train.heights)
    long_side = int(np.ceil(short_side * float(np.quantile(aspects, 0.95))))
    return f"min_size: {short_side}\nmax_size: {max(long_side, short_side)}"


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


def fit_anchors(
    widths: np.ndarray, heights: np.ndarray, strides: Sequence[int], per_level: int
) -> tuple[list[list[int]], list[float], np.ndarray]:
    """Choose sizes and aspect ratios of a pyramid's anchors, by the mean IoU of the boxes with their best anchor.

    Sizes double from level to level, like the strides. What is searched is the smallest size, from the finest stride
    on, and the ratios: the median of the boxes, and as much above as below.

    Args:
        widths, heights: Boxes, in pixels of the network's input.
        strides: Strides of the levels, in pixels.
        per_level: Number of sizes per level, which divide its octave evenly.

    Returns:
        The sizes of each level; the ratios, height over width; and the IoU of each box with its best anchor.

    Shape:
        - widths, heights: ``[M]``.
        - Output: two lists, and ``[M]``.
    """
    sides, middle = np.sqrt(widths * heights), float(np.exp(np.median(np.log(heights / widths))))
    low, high = (max(float(np.quantile(sides, q)), strides[0]) for q in (0.01, 0.5))
    best: tuple[list[list[int]], list[float], np.ndarray] | None = None
    for base in np.unique(np.geomspace(low, high, 16).round()):
        levels = [[round(base * s / strides[0] * 2 ** (n / per_level)) for n in range(per_level)] for s in strides]
        for spread in (1.3, 1.6, 2.0, 3.0):
            ratios = [float(f"{ratio:.2g}") for ratio in (middle / spread, middle, middle * spread)]
            anchors = [(size / r**0.5, size * r**0.5) for level in levels for size in level for r in ratios]
            iou = best_iou(widths, heights, np.array(anchors))
            if best is None or iou.mean() > best[2].mean():
                best = levels, ratios, iou
    assert best is not None
    return best


PYRAMIDS = {"FasterRCNN": ((4, 8, 16, 32, 64), 1), "RetinaNet": ((8, 16, 32, 64, 128), 3)}
"""Detectors with anchors on five levels: strides, and the number of sizes per level."""


def _pyramid_anchors(train: SplitStatistics, short_side: float) -> list[Suggestion]:
    widths, heights, scales = _some_boxes(train)
    if len(widths) < FEW:
        return []
    scales = short_side / scales.min(axis=1)
    found = []
    for name, (strides, per_level) in PYRAMIDS.items():
        levels, ratios, iou = fit_anchors(widths * scales, heights * scales, strides, per_level)
        text = (
            f"For {name} at a short side of {short_side:.0f}, with levels of strides {', '.join(map(str, strides))}. "
            f"{_overlap(iou)} With pretrained detector weights, keep the number of sizes and ratios."
        )
        found.append(Suggestion(f"Anchors of {name}", text, f"anchor_sizes: {levels}\nratios: {ratios}"))
    return found


SSD_MAPS = 6
"""Number of maps for which scales are suggested, as in SSD300."""


def _ssd_scales(train: SplitStatistics) -> Suggestion | None:
    widths, heights, images = _some_boxes(train)
    if len(widths) < FEW:
        return None
    # SSD stretches each image to a square; sides are in percent of it
    sides = 100 * np.sqrt(widths * heights / images.prod(axis=1))
    low, high = (float(np.quantile(sides, q)) for q in (0.02, 0.98))
    scales: list[int] = []
    for scale in np.geomspace(low, max(high, 1.2 * low), SSD_MAPS + 1):
        scales.append(max(round(scale), scales[-1] + 1 if scales else 1))
    text = (
        f"For SSD with {SSD_MAPS} maps: the sides of the default boxes, in percent of the square input. The boxes of "
        f"24 of 25 objects are {low:.3g} to {high:.3g} % of it (square root of the area). For another number of maps, "
        "give one more than there are maps."
    )
    return Suggestion("Default boxes of SSD", text, f"scales: {scales}")


def _some_boxes(train: SplitStatistics) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """At most `MAX_BOXES` boxes: their widths and heights, ``[M]`` each, and the sizes of their images, ``[M, 2]``."""
    chosen = np.random.default_rng(0).permutation(len(train.box_widths))[:MAX_BOXES]
    sizes = train.box_images[chosen].astype(np.float64)
    return train.box_widths[chosen].astype(np.float64), train.box_heights[chosen].astype(np.float64), sizes


def _overlap(iou: np.ndarray) -> str:
    """A sentence on the IoU ``[M]`` of boxes with their best anchor."""
    return (
        f"Over {pluralize(len(iou), 'box', 'boxes')}, a box and its best anchor have an IoU of {iou.mean():.2f} on "
        f"average; {(iou < 0.5).mean():.1%} of the boxes have none above 0.5."
    )


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
