"""The task of instance segmentation, `InstanceSegmentation`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.base import Unpack
from ..models.detection import Detections
from ..models.ops.masks import RunLengths
from .detection import Detection, DetectionOptions
from .interfaces import EvaluationStage
from .metrics import COCOInstances
from .metrics.coco_instances import mask_runs

BOUNDARY = 0.02
"""Width of a boundary in boundary AP, as a fraction of the image's diagonal."""


class InstanceSegmentation(Detection):
    """Instance segmentation: any number of objects per image, each with a class, a score, a box and a mask.

    Logged: what `Detection` logs, where ``val/map`` and similar metrics are for boxes; ``val/mask_map`` (COCO's AP of
    masks), ``val/mask_map50``, ``val/mask_map75`` and the other metrics of `metrics.COCOInstances`, with ``mask_`` in
    front; with `boundary` ``val/boundary_map``, …; with `map_r` ``val/mask_map_r50``, ``val/mask_map_r70``,
    ``val/mask_map_r50_mnc`` and ``val/mask_map_r70_mnc``; and the same under ``test/``. Boxes and masks are compared in
    pixels of the images from the data module. Score thresholds, and the curves, errors and confusion matrix of
    `striate.callbacks.DetectionReport`, are of masks.

    Args:
        model: A `striate.models.InstanceSegmenter`, such as `MaskRCNN`, or any module with ``losses(images, targets) ->
            dict`` and a ``forward`` that returns `Detections` with ``masks`` for each image, a `RunLengths`.
        num_classes: Number of classes K, without background; None: ``model.num_classes``.
        boundary: Log boundary AP too: the AP of the smaller of a pair's mask IoU and boundary IoU.
        map_r: Log AP^r of Pascal VOC too, at IoU 0.5 and 0.7, by two protocols: VOC-SDS' own, and that of MNC's and
            FCIS' code (`metrics.COCOInstances.map_r`).
        **kwargs: ``train_on_difficult``, ``voc`` (AP of boxes), ``score_threshold``, ``nms_iou`` (of boxes),
            ``max_detections`` (of boxes and masks), ``window`` (objects are joined by their masks) and ``overlap`` of
            `Detection`; ``optimizer``, ``scheduler``, ``backbone_lr_factor`` and ``decay_norm_and_bias`` of `Task`.

    Raises:
        TypeError: The model is not a detector, or returns no masks.
        ValueError: K is unknown or differs from the model's, or an argument is out of range.
    """

    kind: ClassVar[str] = "instance_segmentation"
    monitor: ClassVar[str] = "val/mask_map"
    fields: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels", "masks")

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        boundary: bool = False,
        map_r: bool = False,
        **kwargs: Unpack[DetectionOptions],
    ) -> None:
        super().__init__(model, num_classes, **kwargs)
        self.boundary, self.map_r = boundary, map_r

    def _model_detections(
        self, images: Tensor | Sequence[Tensor], proposals: Sequence[Tensor] | None = None
    ) -> list[Detections]:
        """The model's detections for images ``[B, 3, H, W]`` or B times ``[3, H_i, W_i]``, after a check of types."""
        detections = super()._model_detections(images, proposals)
        for one in detections[:1]:
            if not isinstance(one["masks"], RunLengths):
                raise TypeError(
                    f"model: must return masks as striate.models.RunLengths, got {type(one['masks']).__name__} from "
                    f"{type(self.model).__name__}; encode masks [M, H, W] with RunLengths.from_dense(masks)"
                )
        return detections

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the metrics of `Detection` and those of masks."""
        metrics = {**super().make_metrics(), "masks": COCOInstances(self.num_classes, self.max_detections)}
        if self.boundary:
            metrics["boundary"] = COCOInstances(self.num_classes, self.max_detections, BOUNDARY)
        return metrics

    def update_metrics(self, metrics: Mapping[str, Any], outputs: list[Detections], batch: Any) -> None:
        """Add the detections of a batch to the metrics."""
        super().update_metrics(metrics, outputs, batch)
        # encoded once for both metrics
        targets = [{**one, "masks": mask_runs(f"targets[{n}]", one)} for n, one in enumerate(batch["target"])]
        for name in metrics.keys() & {"masks", "boundary"}:
            metrics[name].update(outputs, targets)

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the metrics of `Detection`, and those of masks by names that begin with ``mask_``; scalars."""
        result = super().compute_metrics(metrics)
        for name, prefix in (("masks", "mask_"), ("boundary", "boundary_")):
            if name in metrics:
                result |= {f"{prefix}{key}": value for key, value in metrics[name].compute().items()}
        if self.map_r:
            for iou in (0.5, 0.7):
                result[f"mask_map_r{100 * iou:.0f}"] = metrics["masks"].map_r(iou)
                result[f"mask_map_r{100 * iou:.0f}_mnc"] = metrics["masks"].map_r(iou, "mnc")
        return result

    def class_table(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return the table of `Detection`, and before it the APs and recall of masks: ``mask_ap``, …; ``[K]`` each."""
        masks = self.metrics(stage)["masks"].class_table()
        columns = {f"mask_{name}": values for name, values in masks.items() if name.startswith("a")}
        return {**columns, **super().class_table(stage)}

    def detection_metric(self, stage: EvaluationStage) -> COCOInstances:
        """Return the metric of masks of a stage, for its curves, kinds of error and confusion matrix."""
        return self.metrics(stage)["masks"]
