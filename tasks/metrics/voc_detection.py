"""Pascal VOC's average precision of detection, by both of its rules.

How detections are judged, as in the VOC devkit (``VOCevaldet``):

- The detections of a class in all images are ranked by score, the surest first.
- Each is assigned to the object of its class and image that it overlaps most (the first of them, at a draw), be that
  object taken or not: this is where VOC differs from COCO, which would pass on to the next best free one.
- It is right if that overlap is at least 0.5 and no surer detection has taken the object; if one has, it is wrong.
- Assigned by at least 0.5 to a difficult object it is neither; difficult objects are no misses. COCO's crowd regions
  (``iscrowd``) are treated as difficult.
- A class without objects (difficult ones aside) has no AP and is left out of the mean.

The threshold is "at least", as the devkit has it (``ovmax >= minoverlap``); the Python evaluation that came with
py-faster-rcnn, and those made from it, say "more than". They differ where an overlap is 0.5 exactly.

Average precision is, up to VOC 2009, the mean of precision at the 11 recalls 0, 0.1, … 1, each the highest at that
recall or beyond; from VOC 2010 on the area under the curve of the same highest precisions, at all recalls. Recalls are
compared here as fractions of whole numbers, so that 3 of 10 objects reach 0.3, which in floating point may not.

The devkit's boxes are the first and last pixels within, from 1 on, and their sides have one pixel more than the
difference says. Ours lie between pixels: ``xmin - 1, ymin - 1, xmax, ymax``, as our readers make them, have the same
overlaps without that. Boxes in the devkit's own numbers are to be evaluated with ``inclusive=True``.

Reference: Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; its devkits of
2007 and 2012.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .detection_columns import DetectionMetric, Flags, Found, Truth
from .detection_overlaps import most_overlapped


class _Judged(NamedTuple):
    """One class's detections, the surest first, without those that count neither way."""

    right: Flags  # [M]
    objects: int  # without difficult ones


class VOCDetection(DetectionMetric):
    """Mean average precision as the Pascal VOC challenges had it.

    `compute` gives ``voc_map``, a float64 scalar on the CPU; NaN where no class has an object.

    It stands alone, without striate's tasks too, and takes torchvision's dictionaries. Under DDP every rank has to call
    `compute`, since it gathers; `class_table` reads what it has found, and calls it where that has not been done.

    Args:
        num_classes: K. Labels are 0 … K-1, in detections and targets.
        year: whose rule: 11 recalls up to 2009, all of them from 2010 on. Papers on VOC 2007 mean 11.
        iou: from which overlap a detection is right.
        inclusive: boxes name their first and last pixels, as VOC's files do (see the module).
        kwargs: torchmetrics' own.

    Raises:
        ValueError: ``num_classes``, ``year`` or ``iou`` that cannot be.

    Example:
        >>> metric = VOCDetection(num_classes=1, year=2007)
        >>> target = {"boxes": torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10]]), "labels": torch.tensor([0, 0])}
        >>> seen = {"boxes": torch.tensor([[0.0, 0, 10, 9]]), "scores": torch.tensor([0.9])}
        >>> metric.update([seen | {"labels": torch.tensor([0])}], [target])
        >>> round(float(metric.compute()["voc_map"]), 4)  # precision 1 up to recall 0.5: at 6 of the 11
        0.5455
    """

    def __init__(
        self, num_classes: int, year: int = 2007, iou: float = 0.5, inclusive: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, **kwargs)
        if not 2005 <= year <= 2012:
            raise ValueError(f"year: {year}; VOC's challenges were from 2005 to 2012: say 2007 for AP at 11 recalls")
        if not 0 < iou <= 1:
            raise ValueError(f"iou: {iou} is no overlap; it must be above 0 and at most 1")
        self.year, self.iou, self.inclusive = year, iou, inclusive
        self._table: dict[str, Tensor] | None = None

    def compute(self) -> dict[str, Tensor]:
        """The figure, by name."""
        found, truth, _ = self.columns()
        detections = np.bincount(found.labels, minlength=self.num_classes)
        judged = judge(found, truth, self.num_classes, self.iou, 1.0 if self.inclusive else 0.0)
        precisions = [average_precision(right, objects, self.year) for right, objects in judged]
        self._table = {
            "ap": torch.tensor(precisions, dtype=torch.float64),
            "objects": torch.tensor([objects for _, objects in judged]),
            "detections": torch.from_numpy(detections),
        }
        return {"voc_map": self._table["ap"].nanmean()}

    def class_table(self) -> dict[str, Tensor]:
        """Figures of each class: ``ap``, NaN without objects; ``objects``, without difficult ones; ``detections``.

        Shape:
            - output: ``[K]`` each, float64 and int64.
        """
        self.compute()
        assert self._table is not None
        return dict(self._table)

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._table = None


def judge(found: Found, truth: Truth, num_classes: int, iou: float, pixel: float = 0.0) -> list[_Judged]:
    """Which detections are right, class by class.

    Args:
        found: detections of all images.
        truth: objects of all images.
        num_classes: K.
        iou: from which overlap on.
        pixel: what a box's sides have more than the difference of its edges.
    """
    spared = truth.difficult | truth.crowd
    order = np.argsort(-found.scores, kind="stable")
    of_class = np.argsort(found.labels[order], kind="stable")
    order = order[of_class]
    cuts = np.searchsorted(found.labels[order], np.arange(num_classes + 1))
    judged = []
    for label in range(num_classes):
        ranked = order[cuts[label] : cuts[label + 1]]
        mine = np.flatnonzero(truth.labels == label)  # images rise in it, as in all of them
        best, overlap = most_overlapped(
            found.boxes[ranked], found.image[ranked], truth.boxes[mine], truth.image[mine], pixel
        )
        hit = overlap >= iou
        first = np.zeros(len(ranked), bool)
        places = np.flatnonzero(hit)
        first[places[np.unique(best[places], return_index=True)[1]]] = True
        spared_hit = np.zeros(len(ranked), bool)
        spared_hit[places] = spared[mine][best[places]]
        judged.append(_Judged(first[~spared_hit], int((~spared[mine]).sum())))
    return judged


def average_precision(right: Flags | NDArray[Any], objects: int, year: Literal[2007, 2010] | int = 2007) -> float:
    """Average precision of one class; NaN without objects.

    Args:
        right: which detections are right, the surest first, ``[M]``.
        objects: how many there are to find.
        year: up to 2009 the mean over 11 recalls; from 2010 on the area over all.

    Example:
        >>> average_precision(np.array([True, False, True]), 2, year=2010)  # 1 up to recall 0.5, then 2/3
        0.8333333333333333
        >>> average_precision(np.array([True, False, True]), 2, year=2007)  # 1 six times, 2/3 five times
        0.8484848484848484
    """
    if not objects:
        return float("nan")
    found = np.cumsum(right)
    precision = found / np.arange(1, len(found) + 1)
    best_beyond = np.maximum.accumulate(precision[::-1])[::-1]  # highest precision from this rank on
    if year < 2010:
        # the first rank at which 10 * found / objects reaches 0 … 10, in whole numbers
        ranks = np.searchsorted(10 * found, np.arange(11) * objects)
        return float(np.append(best_beyond, 0.0)[ranks].sum() / 11)
    # recall rises by one object at each right detection
    return float(best_beyond[np.asarray(right, bool)].sum() / objects)
