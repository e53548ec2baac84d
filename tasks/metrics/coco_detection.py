"""COCO's metrics of detection, computed by hotcoco.

What is counted is pycocotools' to the last digit, given the same float32 boxes, scores and areas:

- An image's detections are matched class by class, the surest first, each to the free object it overlaps most, at ten
  IoUs from 0.5 to 0.95. Precision is read off at 101 recalls, with what is to the right of a recall taken where it is
  higher, and averaged over recalls, classes that occur, and IoUs.
- A crowd region (``iscrowd``) takes any number of detections, which then count neither for nor against; what counts as
  its overlap is the part of the detection within it.
- By size: small below 32², medium to 96², large, both bounds belonging to either side. An object's size is its
  ``area``, of its mask where the source knows it; a detection's is its box's, and counts only where it matched nothing.
- At most 100 detections of a class in an image count, the surest.

COCO has no difficult objects (`DetectionTarget.difficult`): here they are objects like others.

Reference: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; cocodataset.org, "Detection Evaluation".
"""

import itertools
from typing import Any, NamedTuple

import hotcoco
import numpy as np
import torch
from torch import Tensor

from .detection_columns import DetectionMetric, Floats, Found, Integers, Truth, select
from .detection_overlaps import match_in_turn, overlaps, pairs_of_images

FIGURES = {
    "map": "AP",
    "map50": "AP50",
    "map75": "AP75",
    "map_small": "APs",
    "map_medium": "APm",
    "map_large": "APl",
    "mar1": "AR1",
    "mar10": "AR10",
    "mar100": "AR100",
    "mar_small": "ARs",
    "mar_medium": "ARm",
    "mar_large": "ARl",
}
"""Our name -> hotcoco's."""

IOUS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))
"""IoUs over which average precision is averaged."""

BLOCK = 64  # images that hotcoco gets at once: more take memory, fewer take calls


class _Tables(NamedTuple):
    """What hotcoco accumulated, of all sizes and at most 100 detections; -1 where a class has no object."""

    precision: Floats  # [10 IoUs, 101 recalls, K]
    scores: Floats  # the same, the score from which on that recall is reached
    recall: Floats  # [10, K]
    objects: Integers  # [K], without crowds
    detections: Integers  # [K]


class COCODetection(DetectionMetric):
    """Average precision and recall of boxes, as COCO has them.

    `compute` gives ``map`` (the mean over IoUs from 0.5 to 0.95), ``map50``, ``map75``, ``map_small``, ``map_medium``,
    ``map_large``, the recalls ``mar1``, ``mar10``, ``mar100`` (at most so many detections of a class in an image),
    ``mar_small``, ``mar_medium``, ``mar_large``: float64 scalars on the CPU. A figure of what does not occur (no object
    of that size; or none at all) is NaN, where pycocotools says -1, which a mean over runs or a chart would take for a
    figure. As a monitored metric NaN is no improvement.

    It stands alone, without striate's tasks too, and takes torchvision's dictionaries. Under DDP every rank has to call
    `compute`, `tide` and `confusion_matrix`, since they gather; `class_table` and `pr_curves` read what `compute` has
    found, and call it where that has not been done.

    Args:
        num_classes: K. Labels are 0 … K-1, in detections and targets.
        kwargs: torchmetrics' own.

    Raises:
        ValueError: ``num_classes`` cannot be. Labels outside the classes, NaN scores and impossible boxes are refused
            when computing.

    Example:
        >>> metric = COCODetection(num_classes=2)
        >>> box = torch.tensor([[10.0, 10.0, 60.0, 60.0]])
        >>> seen = {"boxes": box + 2, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
        >>> metric.update([seen], [{"boxes": box, "labels": torch.tensor([1])}])
        >>> figures = metric.compute()  # IoU 48² / (2 * 50² - 48²) = 0.85: right at eight of the ten IoUs
        >>> [round(float(figures[name]), 2) for name in ("map", "map75", "map_small")]
        [0.8, 1.0, nan]
    """

    def __init__(self, num_classes: int, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        self._tables: _Tables | None = None

    def compute(self) -> dict[str, Tensor]:
        """The figures, by name."""
        found, truth, images = self.columns()
        evaluated = _stream(found, truth, images, self.num_classes)
        evaluated.accumulate()
        evaluated.summary_lines()
        figures = evaluated.get_results()
        everything = evaluated.eval or {}
        self._tables = _Tables(
            everything["precision"][:, :, :, 0, -1].copy(),
            everything["scores"][:, :, :, 0, -1].copy(),
            everything["recall"][:, :, 0, -1].copy(),
            np.bincount(truth.labels[~truth.crowd], minlength=self.num_classes),
            np.bincount(found.labels, minlength=self.num_classes),
        )
        return {ours: _defined(torch.tensor(figures[theirs], dtype=torch.float64)) for ours, theirs in FIGURES.items()}

    def class_table(self) -> dict[str, Tensor]:
        """Each class: ``ap``, ``ap50``, ``ap75``, ``ar100`` (NaN without objects), ``objects``, ``detections``.

        Shape:
            - output: ``[K]`` each, float64 and int64.
        """
        tables = self._computed_tables()
        precision, recall = _defined(tables.precision), _defined(tables.recall)
        return {
            "ap": precision.mean((0, 1)),
            "ap50": precision[IOUS.index(0.5)].mean(0),
            "ap75": precision[IOUS.index(0.75)].mean(0),
            "ar100": recall.mean(0),
            "objects": torch.tensor(tables.objects),
            "detections": torch.tensor(tables.detections),
        }

    def pr_curves(self, iou: float = 0.5) -> dict[str, Tensor]:
        """Precision of each class over recall, and the score from which on each recall is reached.

        Args:
            iou: from which overlap a detection is right: 0.5, 0.55, … 0.95.

        Shape:
            - output: ``recall`` ``[101]``, ``precision`` and ``scores`` ``[K, 101]``, float64. Where a recall is not
              reached precision and score are 0; a class without objects has NaN.

        Raises:
            ValueError: `iou` is none of COCO's ten.
        """
        step = iou_step(iou)
        tables = self._computed_tables()
        precision, scores = (torch.from_numpy(values[step].T.copy()) for values in (tables.precision, tables.scores))
        nothing = precision == -1
        curves = {
            "precision": precision.masked_fill(nothing, torch.nan),
            "scores": scores.masked_fill(nothing, torch.nan),
        }
        return {"recall": torch.linspace(0, 1, 101, dtype=torch.float64), **curves}

    def tide(self, iou: float = 0.5, background_iou: float = 0.1) -> dict[str, Any]:
        """How much AP each kind of error costs.

        Args:
            iou: from which overlap a detection is right: 0.5, 0.55, … 0.95.
            background_iou: below which overlap it is on the background; less than `iou`.

        Raises:
            ValueError: `iou` is none of COCO's ten, or `background_iou` is not from 0 to that.

        Returns:
            ``ap``, at `iou` (NaN where there is no object); ``delta_ap``, by which it would rise without the error, by
            the error's name: ``Cls`` (class), ``Loc`` (place), ``Both``, ``Dupe`` (an object found again), ``Bkg``
            (background), ``Miss``; and ``FP``, ``FN``, all false positives or all misses; ``counts``, how many there
            are of the first six.

        Reference:
            Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
        """
        iou_step(iou)  # of another hotcoco would know no matches
        if not 0 <= background_iou < iou:
            raise ValueError(f"background_iou: {background_iou} is not from 0 to below the iou of {iou}")
        with self.sync_context():
            found, truth, images = self.columns()
        errors = _evaluate_at_once(found, truth, images, self.num_classes).tide_errors(iou, background_iou)
        base = errors["ap_base"] if (~truth.crowd).any() else float("nan")
        return {"ap": base, "delta_ap": dict(errors["delta_ap"]), "counts": dict(errors["counts"])}

    def confusion_matrix(self, iou: float = 0.5, score: float = 0.5) -> Tensor:
        """Which class is taken for which, the background, K, among them: truth by prediction.

        Each detection in turn, the surest first, takes the free object that it overlaps most, whatever the class. As in
        COCO's figures, detections of a crowd's class within it count neither way, unless they took an object.

        Args:
            iou: from which overlap a detection is of an object; or, of a crowd, from which part of it within.
            score: from which score on a detection counts.

        Shape:
            - output: int64 ``[K+1, K+1]``; the last column has the objects that are missed, the last row detections
              of nothing.
        """
        with self.sync_context():
            found, truth, _ = self.columns()
        return torch.from_numpy(confuse(found, truth, self.num_classes, iou, score))

    def reset(self) -> None:
        """Forget all images."""
        super().reset()
        self._tables = None

    def _computed_tables(self) -> _Tables:
        """What `compute` has found of all images, computing it where that has not been done."""
        self.compute()
        assert self._tables is not None
        return self._tables


def iou_step(iou: float) -> int:
    """Which of COCO's ten IoUs this is, from 0.

    Raises:
        ValueError: none of them.
    """
    near = [step for step, value in enumerate(IOUS) if abs(value - iou) < 1e-6]
    if not near:
        raise ValueError(f"iou: {iou} is none of COCO's: {', '.join(str(value) for value in IOUS)}")
    return near[0]


def confuse(found: Found, truth: Truth, num_classes: int, iou: float, score: float) -> Integers:
    """The matrix of `COCODetection.confusion_matrix`: int64 ``[K+1, K+1]``, truth by prediction."""
    kept = np.flatnonzero(found.scores >= score)
    seen = select(found, kept[np.argsort(-found.scores[kept], kind="stable")])
    objects, crowds = select(truth, ~truth.crowd), select(truth, truth.crowd)
    mine, taken = match_in_turn(seen.boxes, seen.image, objects.boxes, objects.image, iou)
    alone = np.ones(len(seen.image), bool)
    alone[mine] = False
    for box, crowd in pairs_of_images(seen.image, crowds.image):
        within = overlaps(seen.boxes[box], crowds.boxes[crowd], of_box=True) >= iou
        alone[box[within & (seen.labels[box] == crowds.labels[crowd])]] = False
    missed = np.ones(len(objects.image), bool)
    missed[taken] = False
    rows = np.concatenate((objects.labels[taken], objects.labels[missed], np.full(alone.sum(), num_classes)))
    columns = np.concatenate((seen.labels[mine], np.full(missed.sum(), num_classes), seen.labels[alone]))
    side = num_classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)


def _evaluate_at_once(found: Found, truth: Truth, images: int, num_classes: int) -> hotcoco.COCOeval:
    """An evaluation that has the boxes still, which streaming lets go; of all sizes together, so without areas."""
    objects = hotcoco.COCO.from_arrays(
        [{"id": image} for image in range(images)],
        _categories(num_classes),
        truth.image,
        truth.labels,
        _corner_and_sides(truth.boxes),
        iscrowd=truth.crowd,
    )
    evaluated = hotcoco.COCOeval(objects, objects.load_res(_rows(found)), "bbox")
    evaluated.evaluate()
    return evaluated


def _stream(found: Found, truth: Truth, images: int, num_classes: int) -> hotcoco.COCOeval:
    """Match all images, some at a time: hotcoco keeps what came of it, and not the boxes."""
    stream = hotcoco.StreamingEval(_categories(num_classes), "bbox")
    edges = np.arange(0, images + BLOCK, BLOCK)
    places = list(zip(np.searchsorted(found.image, edges), np.searchsorted(truth.image, edges), strict=True))
    for number, (start, stop) in enumerate(itertools.pairwise(places)):
        first = number * BLOCK
        listed = [{"id": image} for image in range(first, min(first + BLOCK, images))]
        objects = select(truth, slice(start[1], stop[1]))
        stream.update(listed, _annotations(objects), _rows(select(found, slice(start[0], stop[0]))))
    return stream.finalize()


def _annotations(truth: Truth) -> list[dict[str, Any]]:
    columns = (truth.image, truth.labels, _corner_and_sides(truth.boxes), truth.area, truth.crowd)
    return [
        # from 1 on: pycocotools takes number 0 for no match
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for number, (image, label, box, area, crowd) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]


def _rows(found: Found) -> Floats:
    """Detections as hotcoco takes them: image, x, y, width, height, score, class; ``[M, 7]``."""
    return np.column_stack((found.image, _corner_and_sides(found.boxes), found.scores, found.labels))


def _corner_and_sides(boxes: Floats) -> Floats:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _categories(num_classes: int) -> list[dict[str, Any]]:
    return [{"id": label, "name": str(label)} for label in range(num_classes)]


def _defined(values: Tensor | Floats) -> Tensor:
    """The same with NaN for the -1 that stands for a figure of nothing."""
    tensor = torch.as_tensor(values)
    return tensor.masked_fill(tensor == -1, torch.nan)
