"""Detections matched to objects of their class at one IoU, and score thresholds from these matches.

Shape legend: M detections and N objects in all images together, K classes.
"""

from typing import NamedTuple

import numpy as np

from .detection_columns import DetectionColumns, Flags, Geometry, GroundTruthColumns, box_geometry, select
from .detection_overlaps import Floats, Integers, match_greedily, pairs_of_images


class Matches(NamedTuple):
    """Detections and objects at one IoU."""

    detections: DetectionColumns  # by image, and in an image by descending score
    objects: GroundTruthColumns  # by image, without crowds
    object_of: Integers  # [M], index of the object that each detection takes, or -1
    in_crowd: Flags  # [M], takes no object, and lies in a crowd of its class


class BestThresholds(NamedTuple):
    """For each class and for all classes together, the score at which F1 is highest."""

    score: Floats  # [K + 1], NaN where no detection matches an object; the last one: all classes together
    f1: Floats  # [K + 1], with the detections of at least that score
    precision: Floats  # [K + 1]
    recall: Floats  # [K + 1]


def groups_of(columns: DetectionColumns | GroundTruthColumns, num_classes: int) -> Integers:
    """One number per pair of image and class: that of each row, ``[n]``."""
    return columns.image * num_classes + columns.labels


def match_detections(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    num_classes: int,
    iou: float,
    max_detections: int | None = None,
    geometry: Geometry = box_geometry,
) -> Matches:
    """Match detections to objects of their image and class.

    Each detection in turn, by descending score, takes the free object with the highest IoU. One that takes none is in a
    crowd if the share of its area inside a crowd of its class is above `iou`.

    Args:
        detections: Detections of all images.
        ground_truth: Objects of all images.
        num_classes: Number of classes K.
        iou: Minimum IoU of a detection with its object.
        max_detections: Number of detections of an image, of all classes together and of highest score, that count;
            None: all.
        geometry: How detections and objects overlap.
    """
    order = np.lexsort((-detections.scores, detections.image))  # stable
    if max_detections is not None:
        image = detections.image[order]
        order = order[np.arange(len(order)) - np.searchsorted(image, image) < max_detections]
    ranked = select(detections, order)
    objects, crowds = select(ground_truth, ~ground_truth.crowd), select(ground_truth, ground_truth.crowd)
    group = groups_of(ranked, num_classes)
    object_group, crowd_group = groups_of(objects, num_classes), groups_of(crowds, num_classes)
    by_group = np.argsort(object_group, kind="stable")
    overlap = geometry(ranked, select(objects, by_group))
    taking, taken = match_greedily(overlap, group, object_group[by_group], iou)
    object_of = np.full(len(order), -1)
    object_of[taking] = by_group[taken]
    in_crowd = np.zeros(len(order), bool)
    crowds_by_group = np.argsort(crowd_group, kind="stable")
    share = geometry(ranked, select(crowds, crowds_by_group), of_detection=True)
    for detection, crowd in pairs_of_images(group, crowd_group[crowds_by_group]):
        in_crowd[detection[share(detection, crowd) > iou]] = True
    return Matches(ranked, objects, object_of, in_crowd & (object_of < 0))


def by_class(labels: Integers, scores: Floats, rows: Integers, num_classes: int) -> list[Integers]:
    """Group some detections by class, by descending score within a class; in order on ties.

    Args:
        labels: Class of each detection, ``[M]``.
        scores: Score of each detection, ``[M]``.
        rows: Indices of the detections to group.
        num_classes: Number of classes K.

    Returns:
        K arrays of indices.
    """
    rows = rows[np.lexsort((-scores[rows], labels[rows]))]  # stable
    return np.split(rows, np.searchsorted(labels[rows], np.arange(1, num_classes)))


def best_thresholds(matches: Matches, num_classes: int) -> BestThresholds:
    """Find the score threshold of highest F1 for each class, and one for all classes together.

    F1 is the harmonic mean of precision and recall. Detections in a crowd do not count. Of several thresholds with the
    highest F1, the highest is returned.
    """
    counted = np.flatnonzero(~matches.in_crowd)
    labels, scores = matches.detections.labels, matches.detections.scores
    together = counted[np.argsort(-scores[counted], kind="stable")]
    objects = [*np.bincount(matches.objects.labels, minlength=num_classes).tolist(), len(matches.objects.labels)]
    groups = [*by_class(labels, scores, counted, num_classes), together]
    best = [
        _best_threshold(scores[rows], matches.object_of[rows] >= 0, count)
        for rows, count in zip(groups, objects, strict=True)
    ]
    return BestThresholds(*np.array(best, np.float64).T)


def _best_threshold(scores: Floats, correct: Flags, objects: int) -> tuple[float, float, float, float]:
    """Score, F1, precision and recall of a class, from its detections by descending score (``[M]`` each)."""
    if not correct.any():
        return (float("nan"),) * 4
    # a threshold keeps all detections of equal score: only the last of each counts
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    true_positives, kept = np.cumsum(correct)[last], last + 1
    f1 = 2 * true_positives / (kept + objects)
    best = int(f1.argmax())
    precision, recall = true_positives[best] / kept[best], true_positives[best] / objects
    return float(scores[last[best]]), float(f1[best]), float(precision), float(recall)
