"""COCO's detection metrics, computed by hotcoco.

The results are those of pycocotools to the last digit, given the same float32 boxes, scores and areas:

- The detections of an image are matched class by class, by descending score, each to the free object of highest IoU, at
  ten IoUs from 0.5 to 0.95. Precision is read at 101 recalls, each the highest precision at that recall or beyond, and
  averaged over recalls, classes that occur, and IoUs.
- A crowd region (``iscrowd``) takes any number of detections, which then count neither for nor against. Its overlap is
  the share of the detection's area inside it.
- By size: small below 32², medium to 96², large; both bounds belong to either side. The size of an object is its
  ``area``, of its mask where the source knows it. The size of a detection is that of its box, and only matters where it
  matches nothing.
- At most 100 detections of a class in an image count (``max_detections``), those of highest score.
- Of detections of equal score in different images, that of the lower ``image_id`` ranks first.

COCO has no difficult objects (`DetectionTarget.difficult`); here they count like others.

Reference: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; cocodataset.org, "Detection Evaluation".
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import hotcoco
import numpy as np
import torch
from torch import Tensor

from .coco_curves import IOUS, Curves, detection_limits, summarize
from .detection_columns import DetectionColumns, DetectionMetric, Geometry, GroundTruthColumns, box_geometry, select
from .detection_matches import BestThresholds, best_thresholds, match_detections
from .detection_overlaps import Floats, Integers, match_greedily, pairs_of_images
from .tide import tide_errors

BLOCK = 64  # images per call of hotcoco: more take memory, fewer take calls


class _Tables(NamedTuple):
    """Results of one evaluation, per class."""

    curves: Curves
    objects: Integers  # [K], without crowds
    detections: Integers  # [K]


class COCODetection(DetectionMetric):
    """COCO's average precision and average recall of boxes.

    `compute` returns ``map`` (the mean over IoUs from 0.5 to 0.95), ``map50``, ``map75``, ``map_small``,
    ``map_medium``, ``map_large``, the recalls ``mar1``, ``mar10``, ``mar100`` (with at most that many detections of a
    class in an image; the last number is `max_detections`), ``mar_small``, ``mar_medium``, ``mar_large``: float64
    scalars on the CPU. A metric without
    objects (of that size, or at all) is NaN, where pycocotools returns -1, which a mean over runs or a chart would take
    for a value. NaN as the monitored metric is no improvement.

    The metric works without striate's tasks too, and takes torchvision's dictionaries. Under DDP every rank has to call
    `compute`, `tide`, `best_thresholds` and `confusion_matrix`, since they gather. `class_table` and `pr_curves` use
    the result of `compute`, and call it first if necessary.

    Args:
        num_classes: Number of classes K. Labels are 0 … K-1, in detections and targets.
        max_detections: Number of detections of a class in an image that count, those of highest score. COCO's is 100;
            with another, results do not compare with published ones.
        **kwargs: Arguments of torchmetrics' ``Metric``.

    Raises:
        ValueError: `num_classes` or `max_detections` is out of range. Labels outside the classes, NaN scores and
            invalid boxes are rejected in `compute`.

    Example:
        >>> metric = COCODetection(num_classes=2)
        >>> box = torch.tensor([[10.0, 10.0, 60.0, 60.0]])
        >>> detections = {"boxes": box + 2, "scores": torch.tensor([0.9]), "labels": torch.tensor([1])}
        >>> metric.update([detections], [{"boxes": box, "labels": torch.tensor([1])}])
        >>> result = metric.compute()  # IoU 48² / (2 * 50² - 48²) = 0.85: correct at eight of the ten IoUs
        >>> [round(float(result[name]), 2) for name in ("map", "map75", "map_small")]
        [0.8, 1.0, nan]
    """

    def __init__(self, num_classes: int, max_detections: int = 100, **kwargs: Any) -> None:
        super().__init__(num_classes, **kwargs)
        if max_detections < 1:
            raise ValueError(f"max_detections: must be >= 1, got {max_detections}; COCO's is 100")
        self.max_detections = max_detections
        self._tables: _Tables | None = None

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics by name, a scalar each."""
        detections, ground_truth, images = self.columns()
        limits = detection_limits(self.max_detections)
        self._tables = _Tables(
            self.evaluate(detections, ground_truth, images, limits),
            np.bincount(ground_truth.labels[~ground_truth.crowd], minlength=self.num_classes),
            np.bincount(detections.labels, minlength=self.num_classes),
        )
        return {
            name: torch.tensor(value, dtype=torch.float64)
            for name, value in summarize(self._tables.curves, limits).items()
        }

    def evaluate(
        self, detections: DetectionColumns, ground_truth: GroundTruthColumns, images: int, limits: Sequence[int]
    ) -> Curves:
        """Match detections to objects, and return precision and recall.

        Args:
            detections: Detections of all images.
            ground_truth: Objects of all images.
            images: Number of images.
            limits: Numbers of detections of a class in an image that count, ascending.
        """
        evaluation = _stream(detections, ground_truth, images, self.num_classes, limits)
        evaluation.accumulate()
        arrays = evaluation.eval or {}
        return Curves(arrays["precision"][..., -1].copy(), arrays["scores"][..., 0, -1].copy(), arrays["recall"].copy())

    def class_table(self) -> dict[str, Tensor]:
        """Return ``ap``, ``ap50``, ``ap75``, ``ar100`` (NaN without objects), ``objects``, ``detections`` per class.

        The number of ``ar100`` is `max_detections`.

        Shape:
            - output: ``[K]`` each, float64 and int64.
        """
        tables = self._computed_tables()
        precision = _nan_where_undefined(tables.curves.precision[..., 0])
        recall = _nan_where_undefined(tables.curves.recall[:, :, 0, -1])
        return {
            "ap": precision.mean((0, 1)),
            "ap50": precision[IOUS.index(0.5)].mean(0),
            "ap75": precision[IOUS.index(0.75)].mean(0),
            f"ar{self.max_detections}": recall.mean(0),
            "objects": torch.tensor(tables.objects),
            "detections": torch.tensor(tables.detections),
        }

    def pr_curves(self, iou: float = 0.5) -> dict[str, Tensor]:
        """Return the precision of each class over recall, and the score at which each recall is reached.

        Args:
            iou: Minimum IoU of a correct detection: 0.5, 0.55, … 0.95.

        Shape:
            - output: ``recall`` ``[101]``, ``precision`` and ``scores`` ``[K, 101]``, float64. Where a recall is not
              reached, precision and score are 0; a class without objects has NaN.

        Raises:
            ValueError: `iou` is not one of COCO's ten.
        """
        step = iou_step(iou)
        curves = self._computed_tables().curves
        arrays = curves.precision[step, :, :, 0], curves.scores[step]
        precision, scores = (torch.from_numpy(values.T.copy()) for values in arrays)
        undefined = precision == -1
        return {
            "recall": torch.linspace(0, 1, 101, dtype=torch.float64),
            "precision": precision.masked_fill(undefined, torch.nan),
            "scores": scores.masked_fill(undefined, torch.nan),
        }

    def tide(self, iou: float = 0.5, background_iou: float = 0.1, max_detections: int = 100) -> dict[str, Any]:
        """Return how much AP each kind of error costs, by the rules of TIDE's authors (see `metrics.tide`).

        Args:
            iou: Minimum IoU of a correct detection.
            background_iou: IoU up to which a detection is on the background; less than `iou`.
            max_detections: Number of detections of an image that count, of all classes together and of highest score.
                The default is that of TIDE's code and published results. `compute` counts up to `max_detections` of
                each class, so its ``map50`` may be higher than ``ap``.

        Raises:
            ValueError: `iou` is not in (0, 1], `background_iou` not in [0, `iou`), or `max_detections` is below 1.

        Returns:
            ``ap`` at `iou` (NaN without objects); ``delta_ap``, the AP gained without the error, by kind of error:
            ``Cls`` (class), ``Loc`` (location), ``Both``, ``Dupe`` (duplicate), ``Bkg`` (background), ``Miss``; and
            ``FP``, ``FN``, all false positives or all misses; ``counts``, the number of each of the first six.

        Reference:
            Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection Errors", ECCV 2020.
        """
        if not 0 < iou <= 1:
            raise ValueError(f"iou: must be in (0, 1], got {iou}")
        if not 0 <= background_iou < iou:
            raise ValueError(f"background_iou: must be in [0, {iou}), below iou, got {background_iou}")
        if max_detections < 1:
            raise ValueError(f"max_detections: must be >= 1, got {max_detections}; the default of TIDE is 100")
        with self.sync_context():
            detections, ground_truth, _ = self.columns()
            geometry = self.geometry()
        return tide_errors(detections, ground_truth, self.num_classes, iou, background_iou, max_detections, geometry)

    def best_thresholds(self, iou: float = 0.5) -> BestThresholds:
        """Return the score threshold of highest F1 for each class, and for all classes together.

        Thresholds found on a set are too good on the same set: find them in validation, and use them elsewhere.

        Args:
            iou: Minimum IoU of a correct detection.

        Shape:
            - output: ``score``, ``f1``, ``precision``, ``recall``, float64 ``[K + 1]`` each; the last value is that of
              all classes together. NaN where no detection is correct.
        """
        with self.sync_context():
            detections, ground_truth, _ = self.columns()
            matches = match_detections(detections, ground_truth, self.num_classes, iou, geometry=self.geometry())
        return best_thresholds(matches, self.num_classes)

    def confusion_matrix(self, iou: float = 0.5, score: float = 0.5) -> Tensor:
        """Return the confusion matrix of classes, with the background as class K: ground truth by prediction.

        Each detection in turn, by descending score, takes the free object of highest IoU, of any class. As in
        COCO's metrics, detections inside a crowd of their class do not count, unless they took an object.

        Args:
            iou: Minimum IoU of a detection with its object; for crowds, minimum share of the detection inside.
            score: Minimum score of the detections that count.

        Shape:
            - output: int64 ``[K+1, K+1]``; the last column counts missed objects, the last row detections without an
              object.
        """
        with self.sync_context():
            detections, ground_truth, _ = self.columns()
            counts = confusion_counts(detections, ground_truth, self.num_classes, iou, score, self.geometry())
        return torch.from_numpy(counts)

    def geometry(self) -> Geometry:
        """How the rows of `columns` overlap: as boxes here."""
        return box_geometry

    def reset(self) -> None:
        """Remove all images and the results."""
        super().reset()
        self._tables = None

    def _computed_tables(self) -> _Tables:
        """The tables of all ranks' images; `compute` caches them."""
        self.compute()
        assert self._tables is not None
        return self._tables


def iou_step(iou: float) -> int:
    """Index of an IoU among COCO's ten.

    Raises:
        ValueError: It is not one of them.
    """
    steps = [step for step, value in enumerate(IOUS) if abs(value - iou) < 1e-6]
    if not steps:
        raise ValueError(f"iou: must be one of COCO's, {', '.join(str(value) for value in IOUS)}, got {iou}")
    return steps[0]


def confusion_counts(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    num_classes: int,
    iou: float,
    score: float,
    geometry: Geometry = box_geometry,
) -> Integers:
    """The matrix of `COCODetection.confusion_matrix`: int64 ``[K+1, K+1]``, ground truth by prediction."""
    counted = np.flatnonzero(detections.scores >= score)
    ranked = select(detections, counted[np.argsort(-detections.scores[counted], kind="stable")])
    objects, crowds = select(ground_truth, ~ground_truth.crowd), select(ground_truth, ground_truth.crowd)
    matched, taken = match_greedily(geometry(ranked, objects), ranked.image, objects.image, iou)
    unmatched = np.ones(len(ranked.image), bool)
    unmatched[matched] = False
    share = geometry(ranked, crowds, of_detection=True)
    for detection, crowd in pairs_of_images(ranked.image, crowds.image):
        same = ranked.labels[detection] == crowds.labels[crowd]
        unmatched[detection[(share(detection, crowd) >= iou) & same]] = False
    missed = np.ones(len(objects.image), bool)
    missed[taken] = False
    rows = np.concatenate((objects.labels[taken], objects.labels[missed], np.full(unmatched.sum(), num_classes)))
    columns = np.concatenate((ranked.labels[matched], np.full(missed.sum(), num_classes), ranked.labels[unmatched]))
    side = num_classes + 1
    return np.bincount(rows * side + columns, minlength=side * side).reshape(side, side)


def _stream(
    detections: DetectionColumns,
    ground_truth: GroundTruthColumns,
    images: int,
    num_classes: int,
    limits: Sequence[int],
) -> hotcoco.COCOeval:
    """Evaluate all images block by block: hotcoco keeps the matches, and not the boxes."""
    params = hotcoco.Params("bbox")
    params.max_dets = list(limits)
    stream = hotcoco.StreamingEval(_categories(num_classes), "bbox", params=params)
    edges = np.arange(0, images + BLOCK, BLOCK)
    starts = zip(np.searchsorted(detections.image, edges), np.searchsorted(ground_truth.image, edges), strict=True)
    for number, (start, stop) in enumerate(itertools.pairwise(starts)):
        first = number * BLOCK
        block = [{"id": image} for image in range(first, min(first + BLOCK, images))]
        annotations = _annotations(select(ground_truth, slice(start[1], stop[1])))
        stream.update(block, annotations, _rows(select(detections, slice(start[0], stop[0]))))
    return stream.finalize()


def _annotations(ground_truth: GroundTruthColumns) -> list[dict[str, Any]]:
    columns = (
        ground_truth.image,
        ground_truth.labels,
        _corner_and_sides(ground_truth.boxes),
        ground_truth.area,
        ground_truth.crowd,
    )
    return [
        # ids start at 1, since pycocotools takes 0 for no match
        {"id": number, "image_id": image, "category_id": label, "bbox": box, "area": area, "iscrowd": int(crowd)}
        for number, (image, label, box, area, crowd) in enumerate(
            zip(*(column.tolist() for column in columns), strict=True), 1
        )
    ]


def _rows(detections: DetectionColumns) -> Floats:
    """Detections in hotcoco's format: image, x, y, width, height, score, class; ``[M, 7]``."""
    return np.column_stack(
        (detections.image, _corner_and_sides(detections.boxes), detections.scores, detections.labels)
    )


def _corner_and_sides(boxes: Floats) -> Floats:
    return np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), axis=1)


def _categories(num_classes: int) -> list[dict[str, Any]]:
    return [{"id": label, "name": str(label)} for label in range(num_classes)]


def _nan_where_undefined(values: Tensor | Floats) -> Tensor:
    """Replace -1, which stands for undefined, by NaN, in an array ``[K, …]`` or scalar."""
    tensor = torch.as_tensor(values)
    return tensor.masked_fill(tensor == -1, torch.nan)
