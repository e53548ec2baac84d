"""COCO's matching and average precision from the overlaps of pairs, and the metrics of a table of precisions.

hotcoco computes boxes. Masks are matched here: their overlaps are known when a batch has been compared, and a few
numbers per pair are all that is kept of them.

Shape legend: M detections and N objects in all images together, P pairs of a detection and an object of its image and
class, K classes, T = 10 IoUs, A = 4 ranges of area.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .detection_columns import DetectionColumns, Flags, GroundTruthColumns
from .detection_overlaps import Floats, Integers

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoUs over which average precision is averaged."""

AREAS = {"": (0.0, 1e10), "_small": (0.0, 32.0**2), "_medium": (32.0**2, 96.0**2), "_large": (96.0**2, 1e10)}
"""End of a metric's name -> the areas of its objects in pixels; both bounds belong to it."""

_RECALLS = np.linspace(0, 1, 101)


class Curves(NamedTuple):
    """Precision and recall of each class; -1 where a class has no object of that size."""

    precision: Floats  # [T, 101 recalls, K, A], with the highest number of detections
    scores: Floats  # [T, 101, K], objects of any size; the score at which that recall is reached
    recall: Floats  # [T, K, A, numbers of detections]


class Candidates(NamedTuple):
    """Pairs of a detection and an object of its image and class, with an IoU of at least 0.5.

    Detections are numbered by image and class, and there by descending score. Pairs are sorted by the rank of their
    detection there, then by detection, then by object.
    """

    detection: Integers  # [P], number of the detection
    object: Integers  # [P], number of the object
    iou: Floats  # [P]; in a crowd the share of the detection inside
    cuts: Integers  # first pair of each rank


def detection_limits(max_detections: int) -> list[int]:
    """The numbers of detections with which recall is computed: COCO's 1 and 10, and the highest number.

    >>> detection_limits(100), detection_limits(5)
    ([1, 10, 100], [1, 5])
    """
    return [*(limit for limit in (1, 10) if limit < max_detections), max_detections]


def summarize(curves: Curves, limits: Sequence[int]) -> dict[str, float]:
    """Average over classes, IoUs and recalls; NaN without objects.

    Returns:
        ``map``, ``map50``, ``map75``, ``map_small``, ``map_medium``, ``map_large``; ``mar1``, ``mar10``, ``mar100`` (or
        other `limits`), ``mar_small``, ``mar_medium``, ``mar_large``.
    """
    sizes = list(AREAS)
    results = {"map": _mean(curves.precision[..., 0])}
    results |= {f"map{100 * iou:.0f}": _mean(curves.precision[IOUS.index(iou), ..., 0]) for iou in (0.5, 0.75)}
    results |= {f"map{size}": _mean(curves.precision[..., area]) for area, size in enumerate(sizes) if area}
    results |= {f"mar{limit}": _mean(curves.recall[:, :, 0, index]) for index, limit in enumerate(limits)}
    return results | {f"mar{size}": _mean(curves.recall[:, :, area, -1]) for area, size in enumerate(sizes) if area}


def _mean(values: Floats) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if len(defined) else float("nan")


def evaluate_pairs(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    detection_area: Floats,
    pairs: tuple[Integers, Integers, Floats],
    num_classes: int,
    limits: Sequence[int],
) -> Curves:
    """Compute COCO's precision and recall from the overlaps of pairs, as pycocotools does.

    Args:
        detections: Detections of all images.
        ground_truth: Objects of all images.
        detection_area: Area of each detection, in pixels.
        pairs: For pairs of a detection and an object of its image, their indices and their IoU; where the object is a
            crowd, the share of the detection inside. Other pairs do not overlap. By detection, then by object.
        num_classes: Number of classes K.
        limits: Numbers of detections of a class in an image that count, ascending.

    Shape:
        - detection_area: ``[M]``
        - pairs: ``[P]`` each
    """
    group = detections.image * num_classes + detections.labels
    order = np.lexsort((-detections.scores, group))  # stable
    rank = np.empty(len(order), np.int64)  # of each detection in its image and class
    rank[order] = np.arange(len(order)) - np.searchsorted(group[order], group[order])
    candidates = _candidates(detections, ground_truth, rank, pairs, limits[-1])
    shape = (len(IOUS), len(_RECALLS), num_classes, len(AREAS))
    curves = Curves(np.full(shape, -1.0), np.full(shape[:3], -1.0), np.full((shape[0], *shape[2:], len(limits)), -1.0))
    # by class and score, then in the order of images
    by_score = np.lexsort((rank, detections.image, -detections.scores, detections.labels))
    by_score = by_score[rank[by_score] < limits[-1]]
    cuts = np.searchsorted(detections.labels[by_score], np.arange(num_classes + 1))
    for area, (low, high) in enumerate(AREAS.values()):
        outside = (ground_truth.area < low) | (ground_truth.area > high)
        ignored_object = ground_truth.crowd | outside
        correct, ignored = _match(candidates, ground_truth.crowd, ignored_object, len(rank))
        ignored |= ((detection_area < low) | (detection_area > high))[:, None] & ~correct
        objects = np.bincount(ground_truth.labels[~ignored_object], minlength=num_classes)
        for label in np.flatnonzero(objects).tolist():
            ranked = by_score[cuts[label] : cuts[label + 1]]
            counted = correct[ranked] & ~ignored[ranked], ~correct[ranked] & ~ignored[ranked]
            precision, scores = _curve(*counted, detections.scores[ranked], int(objects[label]))
            curves.precision[:, :, label, area] = precision
            if not area:
                curves.scores[:, :, label] = scores
            for index, limit in enumerate(limits):
                hits = counted[0][rank[ranked] < limit].sum(0)
                curves.recall[:, label, area, index] = hits / objects[label]
    return curves


def _candidates(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    rank: Integers,
    pairs: tuple[Integers, Integers, Floats],
    limit: int,
) -> Candidates:
    """Select and sort the pairs that can be matches; `rank` ``[M]`` of each detection in its image and class."""
    detection, number, iou = pairs
    kept = (detections.labels[detection] == ground_truth.labels[number]) & (iou >= IOUS[0]) & (rank[detection] < limit)
    detection, number, iou = (column[kept] for column in pairs)
    order = np.lexsort((number, detection, rank[detection]))
    ranks = rank[detection[order]]
    return Candidates(detection[order], number[order], iou[order], np.flatnonzero(np.diff(ranks, prepend=-1)))


def _match(candidates: Candidates, crowd: Flags, ignored_object: Flags, count: int) -> tuple[Flags, Flags]:
    """Match detections to objects at all IoUs, the first of each image and class at once, then the second, and so on.

    A detection takes the free object of highest IoU, the last on ties; only where there is none, an ignored one.

    Args:
        candidates: The pairs that can be matches.
        crowd: Whether each object is a crowd, which any number of detections may take.
        ignored_object: Whether each object is ignored.
        count: Number of detections M.

    Returns:
        Whether each detection takes an object, and whether that object is ignored: ``[M, T]`` each.
    """
    shape = (count, len(IOUS))
    matched, ignored = np.zeros(shape, bool), np.zeros(shape, bool)
    free = np.ones((len(crowd), len(IOUS)), bool)
    for start, stop in itertools.pairwise([*candidates.cuts, len(candidates.iou)]):
        detection, number, iou = (column[start:stop] for column in candidates[:3])
        begins = np.flatnonzero(np.diff(detection, prepend=-1))
        segment = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(detection))))
        usable = (iou[:, None] >= IOUS) & free[number]
        counted = usable & ~ignored_object[number][:, None]
        usable &= counted | ~np.logical_or.reduceat(counted, begins)[segment]
        value = np.where(usable, iou[:, None], -1)
        best = usable & (value == np.maximum.reduceat(value, begins)[segment])
        last = np.maximum.reduceat(np.where(best, np.arange(len(iou))[:, None], -1), begins)
        row, threshold = np.nonzero(last >= 0)
        pair = last[row, threshold]
        matched[detection[pair], threshold] = True
        ignored[detection[pair], threshold] = ignored_object[number[pair]]
        free[number[pair], threshold] = crowd[number[pair]]
    return matched, ignored


def _curve(correct: Flags, wrong: Flags, scores: Floats, objects: int) -> tuple[Floats, Floats]:
    """Precision and score at 101 recalls, ``[T, 101]``, of the detections of a class, ``[M, T]`` and ``[M]``."""
    precision, reached = np.zeros((2, len(IOUS), len(_RECALLS)))
    hits = correct.cumsum(0, dtype=np.float64)
    values = hits / (hits + wrong.cumsum(0, dtype=np.float64) + np.spacing(1))
    values = np.maximum.accumulate(values[::-1])[::-1]  # highest precision from this rank on
    for step, recall in enumerate((hits / objects).T):
        index = np.searchsorted(recall, _RECALLS)
        index = index[: np.searchsorted(index, len(recall))]
        precision[step, : len(index)], reached[step, : len(index)] = values[index, step], scores[index]
    return precision, reached
