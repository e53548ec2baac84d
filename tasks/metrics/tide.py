"""TIDE: how much average precision each kind of error of a detector costs.

The rules are those of its authors' code, ``tidecv`` 1.0.1:

- At most 100 detections of an image count, of all classes together, those of highest score (``max_detections``). COCO's
  own metrics count up to 100 of each class.
- Each detection in turn takes the free object of its class with the highest IoU. One that takes none and lies in a
  crowd region of its class, with a share above ``iou``, does not count in AP. It still counts among the errors.
- The kind of error of a detection without an object is the first that applies: ``Loc``, IoU from ``background_iou`` to
  ``iou`` with an object of its class; ``Cls``, IoU of at least ``iou`` with one of another class; ``Dupe``, IoU above
  ``iou`` with an object that is taken; ``Bkg``, IoU of at most ``background_iou`` with every object; ``Both``.
- An object that nothing takes is missed, ``Miss``, unless a ``Loc`` or ``Cls`` error points to it.
- The cost of an error is the AP gained where it is fixed, each kind on its own. ``Loc`` and ``Cls``: of the errors that
  point to the same free object, that of highest score takes it, in the class of the object; the others are removed.
  ``Dupe``, ``Bkg``, ``Both``: removed. ``Miss``: the objects are removed. ``FP``: all detections without an object are
  removed. ``FN``: all objects without a detection are removed.

Deviations, which only matter in special cases: classes without objects have no AP and are left out of the mean, as in
COCO's metrics, where that code counts them as 0; fixing an error does not change the order of detections of equal
score; a detection without an object of its class is no ``Loc`` error for a ``background_iou`` of 0.

Reference: Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
"""

from typing import Any, NamedTuple

import numpy as np

from .detection_columns import DetectionColumns, Flags, Geometry, GroundTruthColumns, box_geometry, select
from .detection_matches import Matches, by_class, groups_of, match_detections
from .detection_overlaps import Integers, best_overlaps

KINDS = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")


class _Errors(NamedTuple):
    """The errors of M detections on N objects."""

    kind: Any  # [M] text, empty for a detection with an object
    target: Integers  # [M], object that a Loc or Cls error points to, else -1
    fixes: Flags  # [M], whether it takes that object once it is fixed
    missed: Flags  # [N]


def tide_errors(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    num_classes: int,
    iou: float = 0.5,
    background_iou: float = 0.1,
    max_detections: int = 100,
    geometry: Geometry = box_geometry,
) -> dict[str, Any]:
    """Return ``ap``, ``delta_ap`` and ``counts``; see `COCODetection.tide`.

    Args:
        detections: Detections of all images.
        ground_truth: Objects of all images.
        num_classes: Number of classes K.
        iou: Minimum IoU of a correct detection.
        background_iou: IoU up to which a detection is on the background.
        max_detections: Number of detections of an image, of all classes together, that count.
        geometry: How detections and objects overlap.
    """
    matches = match_detections(detections, ground_truth, num_classes, iou, max_detections, geometry)
    errors = _classify(matches, num_classes, iou, background_iou, geometry)
    labels, objects = matches.detections.labels, matches.objects.labels
    correct = matches.object_of >= 0
    counted = ~matches.in_crowd
    occurs = np.bincount(objects, minlength=num_classes) > 0

    def mean_ap(kept: Flags, correct: Flags, labels: Integers, objects: Integers) -> float:
        counts = np.bincount(objects, minlength=num_classes)
        ranked = by_class(labels, matches.detections.scores, np.flatnonzero(kept), num_classes)
        aps = [
            interpolated_precision(correct[rows], int(counts[label]))
            for label, rows in enumerate(ranked)
            if occurs[label] and (len(rows) or counts[label])
        ]
        return float(np.mean(aps)) if aps else 1.0  # nothing is wrong, and nothing missed

    ap = mean_ap(counted, correct, labels, objects)
    fixed = {
        kind: mean_ap(counted & (errors.kind != kind), correct, labels, objects) for kind in ("Both", "Dupe", "Bkg")
    }
    for kind in ("Cls", "Loc"):
        fixes = errors.fixes & (errors.kind == kind)
        kept = (counted & (errors.kind != kind)) | fixes
        moved = np.where(fixes, objects[errors.target] if len(objects) else labels, labels)
        fixed[kind] = mean_ap(kept, correct | fixes, moved, objects)
    taken = np.zeros(len(objects), bool)
    taken[matches.object_of[correct]] = True
    fixed["Miss"] = mean_ap(counted, correct, labels, objects[~errors.missed])
    fixed["FP"] = mean_ap(correct, correct, labels, objects)
    fixed["FN"] = mean_ap(counted, correct, labels, objects[taken])
    counts = {kind: int((errors.kind == kind).sum()) for kind in KINDS} | {"Miss": int(errors.missed.sum())}
    gains = {kind: fixed[kind] - ap for kind in (*KINDS, "FP", "FN")}
    return {"ap": ap if occurs.any() else float("nan"), "delta_ap": gains, "counts": counts}


def _classify(matches: Matches, num_classes: int, iou: float, background_iou: float, geometry: Geometry) -> _Errors:
    """Find the kind of each error, and the objects that are missed."""
    ranked, objects = matches.detections, matches.objects
    group, object_group = groups_of(ranked, num_classes), groups_of(objects, num_classes)
    by_group = np.argsort(object_group, kind="stable")
    index, same = best_overlaps(geometry(ranked, select(objects, by_group)), group, object_group[by_group])
    same_object = by_group[index] if len(by_group) else index
    other_object, other = best_overlaps(
        geometry(ranked, objects), ranked.image, objects.image, unlike=(ranked.labels, objects.labels)
    )
    wrong = matches.object_of < 0
    conditions = {
        "": ~wrong,
        "Loc": (same >= background_iou) & (same <= iou),
        "Cls": other >= iou,
        "Dupe": same > iou,  # all objects that near are taken, or the detection would have one
        "Bkg": other <= background_iou,
    }
    kind = np.select(list(conditions.values()), list(conditions), "Both")
    target = np.select([kind == "Loc", kind == "Cls"], [same_object, other_object], -1)
    free = np.ones(len(objects.labels), bool)
    free[matches.object_of[~wrong]] = False
    pointing = np.flatnonzero(target >= 0)
    pointing = pointing[free[target[pointing]]]
    # in an image the detections are by descending score: the first that points to an object is the best
    pointed, first = np.unique(target[pointing], return_index=True)
    fixes = np.zeros(len(kind), bool)
    fixes[pointing[first]] = True
    free[pointed] = False
    return _Errors(kind, target, fixes, free)


def interpolated_precision(correct: Flags, objects: int) -> float:
    """Average precision over the 101 recalls 0, 0.01, … 1, each the highest precision at that recall or beyond.

    Args:
        correct: Whether each detection of a class takes an object, by descending score, ``[M]``.
        objects: Number of objects; 0 gives 0.
    """
    if not objects:
        return 0.0
    true_positives = np.cumsum(correct)
    precision = true_positives / np.arange(1, len(true_positives) + 1)
    best_beyond = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    # the first rank at which recall reaches 0, 0.01, … 1, in whole numbers
    return float(best_beyond[np.searchsorted(100 * true_positives, np.arange(101) * objects)].mean())
