"""Pascal VOC's average precision of detection, by both of its rules.

Detections count as in the VOC devkit (``VOCevaldet``):

- The detections of a class in all images are ranked by descending score.
- Each is assigned to the object of its class and image with the highest IoU (the first on ties), whether or not that
  object is taken already. This is where VOC differs from COCO, which would go on to the next best free object.
- It is correct if that IoU is at least 0.5 and no detection of higher score has taken the object; if one has, it is a
  false positive.
- Assigned with at least 0.5 to a difficult object, it does not count. Difficult objects are no misses. COCO's crowd
  regions (``iscrowd``) are treated as difficult.
- A class without objects (difficult ones apart) has no AP and is left out of the mean.

The threshold is "at least", as in the devkit (``ovmax >= minoverlap``); the Python evaluation of py-faster-rcnn, and
those derived from it, have "more than". They differ where an IoU is exactly 0.5.

Up to VOC 2009, average precision is the mean of precision at the 11 recalls 0, 0.1, … 1, where each is the highest
precision at that recall or beyond; from VOC 2010 on, it is the area under the curve of the same highest precisions, at
all recalls. Recalls are compared here as fractions of whole numbers, so that 3 of 10 objects reach 0.3, which in
floating point they may not.

The devkit's boxes name the first and last pixels inside, from 1 on, so that their sides are one pixel longer than the
difference. Ours lie between pixels: ``xmin - 1, ymin - 1, xmax, ymax``, as our readers return them, have the same
overlaps without the added pixel. Evaluate boxes in the devkit's own numbers with ``inclusive=True``.

Reference: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; its devkits of
2007 and 2012.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .detection_columns import (
    DetectionColumns,
    DetectionMetric,
    Flags,
    Geometry,
    GroundTruthColumns,
    box_geometry,
    select,
)
from .detection_overlaps import PairOverlap, best_overlaps, overlaps


class _ClassMatches(NamedTuple):
    """The detections of one class that count, by descending score."""

    correct: Flags  # [M]
    objects: int  # without difficult ones


class VOCDetection(DetectionMetric):
    """Mean average precision of the Pascal VOC challenges.

    `compute` returns ``voc_map``, a float64 scalar on the CPU; NaN where no class has an object.

    The metric works without striate's tasks too, and takes torchvision's dictionaries. Under DDP every rank has to call
    `compute`, since it gathers. `class_table` uses its result, and calls it first if necessary.

    Args:
        num_classes: Number of classes K. Labels are 0 … K-1, in detections and targets.
        year: Year of the rule: 11 recalls up to 2009, all recalls from 2010 on. Papers on VOC 2007 mean 11.
        iou: Minimum IoU of a correct detection.
        inclusive: Boxes name their first and last pixels, as VOC's files do (see the module).
        **kwargs: Arguments of torchmetrics' ``Metric``.

    Raises:
        ValueError: `num_classes`, `year` or `iou` is out of range.

    Example:
        >>> metric = VOCDetection(num_classes=1, year=2007)
        >>> target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), "labels": torch.tensor([0, 0])}
        >>> detections = {"boxes": torch.tensor([[0.0, 0, 10, 9]]), "scores": torch.tensor([0.9])}
        >>> metric.update([detections | {"labels": torch.tensor([0])}], [target])
        >>> round(float(metric.compute()["voc_map"]), 4)  # precision 1 up to recall 0.5: at 6 of the 11
        0.5455
    """

    def __init__(
        self, num_classes: int, year: int = 2007, iou: float = 0.5, inclusive: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if not 2005 <= year <= 2012:
            raise ValueError(f"year: must be in [2005, 2012], the years of the challenges, got {year}")
        if not 0 < iou <= 1:
            raise ValueError(f"iou: must be in (0, 1], got {iou}")
        self.year, self.iou, self.inclusive = year, iou, inclusive
        self._table: dict[str, Tensor] | None = None

    def compute(self) -> dict[str, Tensor]:
        """Return the mean average precision ``voc_map``, a scalar."""
        detections, ground_truth, _ = self.columns()
        counts = np.bincount(detections.labels, minlength=self.num_classes)
        geometry = inclusive_geometry if self.inclusive else box_geometry
        matches = match_classes(detections, ground_truth, self.num_classes, self.iou, geometry)
        precisions = [average_precision(correct, objects, self.year) for correct, objects in matches]
        self._table = {
            "ap": torch.tensor(precisions, dtype=torch.float64),
            "objects": torch.tensor([objects for _, objects in matches]),
            "detections": torch.from_numpy(counts),
        }
        return {"voc_map": self._table["ap"].nanmean()}

    def class_table(self) -> dict[str, Tensor]:
        """Return ``ap`` of each class, NaN without objects; ``objects``, without difficult ones; ``detections``.

        Shape:
            - output: ``[K]`` each, float64 and int64.
        """
        self.compute()
        assert self._table is not None
        return dict(self._table)

    def reset(self) -> None:
        """Remove all images and the table of classes."""
        super().reset()
        self._table = None


def inclusive_geometry(
    detections: DetectionColumns, objects: GroundTruthColumns, of_detection: bool = False
) -> PairOverlap:
    """IoU of boxes that name their first and last pixels; see `Geometry`."""
    return lambda box, candidate: overlaps(detections.boxes[box], objects.boxes[candidate], 1.0, of_detection)


def match_classes(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    num_classes: int,
    iou: float,
    geometry: Geometry = box_geometry,
) -> list[_ClassMatches]:
    """Decide for each class which of its detections are correct.

    Args:
        detections: Detections of all images.
        ground_truth: Objects of all images.
        num_classes: Number of classes K.
        iou: Minimum IoU of a correct detection.
        geometry: How detections and objects overlap.
    """
    ignored = ground_truth.difficult | ground_truth.crowd
    order = np.argsort(-detections.scores, kind="stable")
    order = order[np.argsort(detections.labels[order], kind="stable")]
    cuts = np.searchsorted(detections.labels[order], np.arange(num_classes + 1))
    matches = []
    for label in range(num_classes):
        ranked = order[cuts[label] : cuts[label + 1]]
        objects = np.flatnonzero(ground_truth.labels == label)  # images ascend in it, as in all of them
        chosen = select(detections, ranked), select(ground_truth, objects)
        best, overlap = best_overlaps(geometry(*chosen), chosen[0].image, chosen[1].image)
        hits = np.flatnonzero(overlap >= iou)
        # the first detection of an object, by score, takes it
        correct = np.zeros(len(ranked), bool)
        correct[hits[np.unique(best[hits], return_index=True)[1]]] = True
        hits_ignored = np.zeros(len(ranked), bool)
        hits_ignored[hits] = ignored[objects][best[hits]]
        matches.append(_ClassMatches(correct[~hits_ignored], int((~ignored[objects]).sum())))
    return matches


def average_precision(correct: Flags | NDArray[Any], objects: int, year: Literal[2007, 2010] | int = 2007) -> float:
    """Average precision of one class; NaN without objects.

    Args:
        correct: Whether each detection is correct, by descending score, ``[M]``.
        objects: Number of objects.
        year: Up to 2009 the mean over 11 recalls; from 2010 on the area over all recalls.

    Example:
        >>> average_precision(np.array([True, False, True]), 2, year=2010)  # 1 up to recall 0.5, then 2/3
        0.8333333333333333
        >>> average_precision(np.array([True, False, True]), 2, year=2007)  # 1 six times, 2/3 five times
        0.8484848484848484
    """
    if not objects:
        return float("nan")
    true_positives = np.cumsum(correct)
    precision = true_positives / np.arange(1, len(true_positives) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]  # highest precision from this rank on
    if year < 2010:
        # the first rank at which 10 * true_positives / objects reaches 0 … 10, in whole numbers
        ranks = np.searchsorted(10 * true_positives, np.arange(11) * objects)
        return float(np.append(best_beyond, 0.0)[ranks].sum() / 11)
    # recall rises by one object at each correct detection
    return float(best_beyond[np.asarray(correct, bool)].sum() / objects)
