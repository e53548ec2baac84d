"""COCO's metrics of masks, and AP^r of VOC's instance segmentation, from one comparison of the masks of each image.

The results are those of pycocotools to the last digit, given the same masks: see `coco_detection`, where the rules are
the same. Sizes differ: that of a detection is the number of its pixels, and so is that of an object whose source states
no ``area``.

An update compares the masks of its images and keeps only the areas, and the number of common pixels of each pair that
overlaps; the masks are released. hotcoco's streaming evaluation would keep matches instead. The pairs take about as
much memory, and every other result follows from them too: ties by image id, kinds of error, score thresholds, the
confusion matrix, AP^r.

Reference: Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; Hariharan et al., "Simultaneous Detection
and Segmentation", ECCV 2014; Cheng et al., "Boundary IoU", CVPR 2021, and the authors' code (boundary-iou-api,
``COCOeval.computeBoundaryIoU``), which takes the smaller of both IoUs, and for crowds the overlap of masks alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from ...models.ops.mask_overlaps import mask_boundaries, mask_intersections
from ...models.ops.masks import RunLengths
from .coco_curves import Curves, evaluate_pairs
from .coco_detection import COCODetection
from .detection_columns import STATES, DetectionColumns, Geometry, GroundTruthColumns, select
from .detection_overlaps import Floats, Integers, PairOverlap, best_overlaps, match_greedily
from .voc_detection import average_precision, match_classes

_PIXELS = (2, torch.int64)  # pixels of a mask, and of its boundary


class COCOInstances(COCODetection):
    """COCO's average precision and average recall of masks.

    `compute`, `class_table`, `pr_curves`, `tide`, `best_thresholds` and `confusion_matrix` return what they return for
    boxes (`COCODetection`), with the IoU of masks in place of that of boxes.

    Args:
        num_classes: Number of classes K. Labels are 0 … K-1, in detections and targets.
        max_detections: Number of detections of a class in an image that count, those of highest score.
        boundary: Boundary AP: a pair's overlap is the smaller of the IoU of the masks and the IoU of their boundaries,
            of this width as a fraction of the image's diagonal, 0.02 in the paper. A crowd's boundary does not count:
            its overlap is the share of the detection inside, as always. None: the IoU of the masks.
        **kwargs: Arguments of torchmetrics' ``Metric``.

    Raises:
        ValueError: An argument is out of range.

    Example:
        >>> square = torch.ones(1, 20, 20, dtype=torch.uint8)
        >>> target = {"boxes": torch.tensor([[0.0, 0, 20, 20]]), "labels": torch.tensor([0]), "masks": square}
        >>> triangle = RunLengths.from_dense(square.tril())
        >>> metric = COCOInstances(num_classes=1)
        >>> metric.update([{**target, "scores": torch.tensor([0.9]), "masks": triangle}], [target])
        >>> result = metric.compute()  # IoU 210 / 400: correct at one of the ten IoUs, though the boxes are equal
        >>> [round(float(result[name]), 2) for name in ("map", "map50", "map75")]
        [0.1, 1.0, 0.0]
    """

    states: ClassVar[dict[str, tuple[int, torch.dtype]]] = {
        **STATES,
        "detection_pixels": _PIXELS,
        "object_pixels": _PIXELS,
        "pair_counts": (1, torch.int64),  # pairs of each image
        # for each pair the detection and the object in their image, common pixels, and those of the boundaries
        "pairs": (4, torch.int32),
    }
    detection_pixels: list[Tensor]
    object_pixels: list[Tensor]
    pair_counts: list[Tensor]
    pairs: list[Tensor]

    def __init__(
        self, num_classes: int, max_detections: int = 100, boundary: float | None = None, **kwargs: Any
    ) -> None:
        super().__init__(num_classes, max_detections, **kwargs)
        if boundary is not None and not 0 < boundary < 1:
            raise ValueError(f"boundary: must be in (0, 1), a fraction of the diagonal such as 0.02, got {boundary}")
        self.boundary = boundary

    def update(self, detections: Sequence[Mapping[str, Any]], targets: Sequence[Mapping[str, Any]]) -> None:
        """Add a batch of images.

        Args:
            detections: As for boxes (`DetectionMetric.update`), and ``masks``: a `RunLengths`, or 0 and 1 as
                ``[M, H, W]``.
            targets: As for boxes, and ``masks`` in the same pixels.

        Raises:
            ValueError: As for boxes, or masks are missing, or of another number or size.
            TypeError: As for boxes, or masks are neither run lengths nor a tensor.
        """
        masks = [
            (mask_runs(f"detections[{index}]", one), mask_runs(f"targets[{index}]", target))
            for index, (one, target) in enumerate(zip(detections, targets, strict=False))
        ]
        for index, (predicted, expected) in enumerate(masks):
            if predicted.size != expected.size:
                raise ValueError(
                    f"detections[{index}]: masks must have the size of the target's, {list(expected.size)} (height, "
                    f"width), got {list(predicted.size)}"
                )
        super().update(detections, [_with_area(target, masks[n][1]) for n, target in enumerate(targets)])
        if not masks:
            return
        compared = [self._compare(*both) for both in masks]
        rows = [torch.cat(parts).to(self.device) for parts in zip(*compared, strict=True)]
        counts = torch.tensor([[len(pairs)] for *_, pairs in compared], device=self.device)
        names = ("detection_pixels", "object_pixels", "pairs", "pair_counts")
        for name, row in zip(names, (*rows, counts), strict=True):
            getattr(self, name).append(row)

    def _compare(self, predicted: RunLengths, expected: RunLengths) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels of predicted masks ``[M, 2]`` and of the targets' ``[N, 2]``, and the pairs ``[P, 4]`` of an image."""
        first, second, common = mask_intersections(predicted, expected)
        areas, common_boundary = [predicted.area(), expected.area()], torch.zeros_like(common)
        boundary_areas = [torch.zeros_like(area) for area in areas]
        if self.boundary is not None:
            borders = [mask_boundaries(masks, self.boundary) for masks in (predicted, expected)]
            boundary_areas = [masks.area() for masks in borders]
            table = torch.zeros(len(predicted), len(expected), dtype=torch.int64)
            row, column, pixels = mask_intersections(*borders)
            table[row, column] = pixels
            common_boundary = table[first, second]
        pixels_of = [torch.stack(both, 1) for both in zip(areas, boundary_areas, strict=True)]
        return *pixels_of, torch.stack([first, second, common, common_boundary], 1).int()  # type: ignore[return-value]

    def evaluate(
        self, detections: DetectionColumns, ground_truth: GroundTruthColumns, images: int, limits: Sequence[int]
    ) -> Curves:
        """Match masks to objects, and return precision and recall; see `COCODetection.evaluate`."""
        rows, objects, iou, share = self._overlaps()
        # from the order of the updates to that of the images
        position, object_position = np.argsort(detections.row), np.argsort(ground_truth.row)
        rows, objects = position[rows], object_position[objects]
        pairs = rows, objects, np.where(ground_truth.crowd[objects], share, iou)
        area = self.rows_of("detection_pixels")[detections.row, 0].astype(np.float64)
        return evaluate_pairs(detections, ground_truth, area, pairs, self.num_classes, limits)

    def map_r(self, iou: float = 0.5, protocol: Literal["sds", "mnc"] = "sds") -> Tensor:
        """Return the mean of AP^r over the classes that have objects, a float64 scalar on the CPU.

        Both protocols rank the detections of a class by score. Crowds and difficult objects do not count.

        - ``sds``, of VOC-SDS' authors: each detection takes the free object of highest IoU, and is correct if that IoU
          is above `iou`. AP is the area under precision, made monotone, over all recalls.
        - ``mnc``, of the code of MNC and FCIS, and of their published figures: each detection points to the object of
          highest IoU, free or not, and is correct if that IoU is at least `iou` and the object is free. AP is the mean
          over 11 recalls.

        Args:
            iou: IoU of a correct detection, 0.5 and 0.7 in papers.
            protocol: ``sds`` or ``mnc``.

        Raises:
            ValueError: An argument is out of range.
        """
        if protocol not in ("sds", "mnc"):
            raise ValueError(f"protocol: must be 'sds' or 'mnc', got {protocol!r}")
        if not 0 <= iou <= 1:
            raise ValueError(f"iou: must be in [0, 1], got {iou}")
        with self.sync_context():
            detections, ground_truth, _ = self.columns()
            geometry = self.geometry()
        if protocol == "mnc":
            matches = match_classes(detections, ground_truth, self.num_classes, iou, geometry)
            precisions = [average_precision(correct, objects, 2007) for correct, objects in matches]
        else:
            precisions = _sds_precisions(detections, ground_truth, self.num_classes, iou, geometry)
        return torch.tensor(precisions, dtype=torch.float64).nanmean()

    def geometry(self) -> Geometry:
        """How the rows of `columns` overlap: as masks."""
        rows, numbers, iou, share = self._overlaps()
        count = max(len(self.rows_of("objects")), 1)
        keys = rows * count + numbers
        order = np.argsort(keys)
        keys, values = np.append(keys[order], -1), np.append(iou[order], 0.0)
        shares = np.append(share[order], 0.0)

        def overlap_of(
            detections: DetectionColumns, objects: GroundTruthColumns, of_detection: bool = False
        ) -> PairOverlap:
            def look_up(row: Integers, candidate: Integers) -> Floats:
                wanted = detections.row[row] * count + objects.row[candidate]
                index = np.searchsorted(keys[:-1], wanted)
                return np.where(keys[index] == wanted, (shares if of_detection else values)[index], 0.0)

            return look_up

        return overlap_of

    def _overlaps(self) -> tuple[Integers, Integers, Floats, Floats]:
        """The pairs that overlap: positions of detection and object in the updates, IoU, share of the detection inside.

        Shape:
            - output: ``[P]`` each, in the order of the updates
        """
        counts, pairs = self.rows_of("counts"), self.rows_of("pairs").astype(np.int64)
        image = np.repeat(np.arange(len(counts)), self.rows_of("pair_counts")[:, 0])
        before = np.cumsum(counts[:, :2], axis=0) - counts[:, :2]  # rows of earlier images
        rows, objects = pairs[:, 0] + before[image, 0], pairs[:, 1] + before[image, 1]
        areas, object_areas = self.rows_of("detection_pixels")[rows], self.rows_of("object_pixels")[objects]
        common = pairs[:, 2:].astype(np.float64)  # [P, 2]: masks, boundaries
        parts = 1 if self.boundary is None else 2
        iou = (common / np.maximum(areas + object_areas - common, 1))[:, :parts].min(1)
        share = common[:, 0] / np.maximum(areas[:, 0], 1)  # of crowds, whose boundaries do not count
        return rows, objects, iou, share


def mask_runs(name: str, fields: Mapping[str, Any]) -> RunLengths:
    """Return the masks of an image as run lengths on the CPU.

    Args:
        name: Name of the image in messages.
        fields: ``masks``, a `RunLengths` or a tensor of 0 and 1, and ``labels``.

    Shape:
        - fields: ``masks`` ``[N, H, W]``, ``labels`` ``[N]``

    Raises:
        ValueError: There are no masks, or their number differs from that of labels.
        TypeError: Masks are neither run lengths nor a tensor.
    """
    if "masks" not in fields:
        raise ValueError(f"{name}: must have masks, got {', '.join(fields) or 'nothing'}")
    masks = fields["masks"]
    if isinstance(masks, Tensor):
        if masks.ndim != 3 or masks.is_floating_point():
            raise ValueError(
                f"{name}: masks must be [N, H, W] of 0 and 1, bool or uint8, got {list(masks.shape)} of {masks.dtype}"
            )
        masks = RunLengths.from_dense(masks.detach().cpu())
    if not isinstance(masks, RunLengths):
        raise TypeError(f"{name}: masks must be a RunLengths or a tensor, got {type(masks).__name__}")
    if "labels" in fields and len(masks) != len(fields["labels"]):
        raise ValueError(f"{name}: masks must be one per object, {len(fields['labels'])}, got {len(masks)}")
    return masks.cpu()


def _with_area(target: Mapping[str, Any], masks: RunLengths) -> dict[str, Any]:
    """The target with the area of its masks where it states none, as ``area`` ``[N]``."""
    area = target.get("area")
    if area is None:
        return {**target, "area": masks.area().float()}
    if not isinstance(area, Tensor) or area.shape != (len(masks),) or not area.isnan().any():
        return dict(target)  # the base class says what is wrong
    return {**target, "area": torch.where(area.isnan(), masks.area().to(area), area)}


def _sds_precisions(
    detections: DetectionColumns, ground_truth: GroundTruthColumns, num_classes: int, iou: float, geometry: Geometry
) -> list[float]:
    """AP^r of each class by VOC-SDS' own rule; NaN without objects."""
    ignored = ground_truth.crowd | ground_truth.difficult
    precisions = []
    for label in range(num_classes):
        ranked = select(detections, np.flatnonzero(detections.labels == label))
        ranked = select(ranked, np.argsort(-ranked.scores, kind="stable"))
        objects, others = (
            select(ground_truth, np.flatnonzero((ground_truth.labels == label) & flags))
            for flags in (~ignored, ignored)
        )
        strictly = float(np.nextafter(iou, 2))  # above, not at
        taking, _ = match_greedily(geometry(ranked, objects), ranked.image, objects.image, strictly)
        correct = np.zeros(len(ranked.row), bool)
        correct[taking] = True
        in_ignored = best_overlaps(geometry(ranked, others), ranked.image, others.image)[1] > iou
        precisions.append(average_precision(correct[correct | ~in_ignored], len(objects.row), 2012))
    return precisions
