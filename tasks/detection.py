"""The task of object detection, `Detection`."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.utilities.rank_zero import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.base import Unpack, VisionDataModule
from ..datamodules.batches import DetectionBatch
from ..models.detection import Detections, Detector, ProposalDetector, SVMDetector, classwise_nms, sliding_detections
from ..models.modes import evaluation_mode
from ..models.ops.checks import check_min
from ..models.ops.windows import window_sides
from .base import Task
from .file_coordinates import boxes_in_file, masks_in_file
from .ignored_targets import drop_ignored_targets as drop_ignored_targets
from .interfaces import ComputesLosses, EvaluationStage, HasCategoryIds, KnowsDifficult, MeasuresOffsets
from .metrics import COCODetection, VOCDetection
from .optimizers import TaskOptions
from .prediction import Images, name_labels
from .training_proposals import training_proposals


class DetectionOptions(TaskOptions, total=False):
    """Arguments that `Detection` shares with `InstanceSegmentation`; `Detection` documents them and their defaults."""

    train_on_difficult: bool
    voc: Literal[2007, 2010, 2012] | None
    score_threshold: float
    nms_iou: float | None
    max_detections: int
    window: tuple[int, int] | int | None
    overlap: float


class Detection(Task):
    """Object detection: any number of boxes per image, each with a class and a score.

    Logged: ``train/loss`` and each of the model's losses, ``train/loss_…``; ``val/map`` (COCO's AP, over IoU 0.50 to
    0.95), ``val/map50``, ``val/map75``, ``val/map_small`` and the other metrics of `metrics.COCODetection`; with `voc`
    ``val/voc_map``; and the same under ``test/``. There is no ``val/loss``: it would take a second forward pass, and
    says little about the detections. Boxes are compared in pixels of the images from the data module.

    Crowds (``iscrowd``) are never trained on, and are no misses in ``val/map``. Difficult objects (``difficult``) count
    like any other in ``val/map``, since COCO has no such flag; ``val/voc_map`` ignores them.

    Args:
        model: A `striate.models.Detector`, or any module with ``losses(images, targets) -> dict`` and a ``forward``
            that returns `Detections` for each image, in training and in evaluation mode.
        num_classes: Number of classes K, without background; None: ``model.num_classes``.
        train_on_difficult: Train on objects that VOC marks as difficult.
        voc: Log Pascal VOC's AP at IoU 0.50 too: 2007, the mean over 11 recalls; 2010 or 2012, the area under the
            curve.
        score_threshold: Minimum score of predicted objects. With a threshold above 0, plots and tables have all
            predicted objects; with 0 those with a score of at least 0.5. Metrics use all detections of the model,
            including those of low score.
        nms_iou: IoU above which `predict` suppresses the lower-scoring of two objects of the same class; None: no
            suppression beyond the model's own.
        max_detections: Number of detections of a class in an image that count in ``val/map``, those of highest score.
            COCO's is 100; raise it, and the model's, for images with more objects. With `window`, no more are
            predicted either; the model's limit is that of a window.
        window: Height and width in pixels of the overlapping windows in which larger images are evaluated and
            predicted; one number: square windows. Objects are joined across windows
            (`striate.models.sliding_detections`). None: whole images.
        overlap: Minimum overlap of neighboring windows, as a fraction of the window.
        **kwargs: ``optimizer``, ``scheduler``, ``backbone_lr_factor`` and ``decay_norm_and_bias`` of `Task`.

    Attributes:
        category_ids: The source's category ids, such as COCO's 1 … 90, where the data module has them.

    Raises:
        TypeError: The model is not a detector.
        ValueError: K is unknown or differs from the model's, or an argument is out of range.
    """

    kind: ClassVar[str] = "detection"
    monitor: ClassVar[str] = "val/map"
    mode: ClassVar[Literal["min", "max"]] = "max"
    variable_size_images: ClassVar[bool] = True
    evaluation_loss: ClassVar[bool] = False
    min_classes: ClassVar[int] = 1
    prediction_inputs: ClassVar[tuple[str, ...]] = ("proposals",)
    fields: ClassVar[tuple[str, ...]] = ("boxes", "scores", "labels")

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        train_on_difficult: bool = True,
        voc: Literal[2007, 2010, 2012] | None = None,
        score_threshold: float = 0.0,
        nms_iou: float | None = None,
        max_detections: int = 100,
        window: tuple[int, int] | int | None = None,
        overlap: float = 1 / 3,
        **kwargs: Unpack[TaskOptions],
    ) -> None:
        _check_detector(model)
        super().__init__(model, num_classes, **kwargs)
        if voc not in (None, 2007, 2010, 2012):
            raise ValueError(
                f"voc: must be 2007 (11 recalls), 2010 or 2012 (all recalls), or null (no VOC metric), got {voc}"
            )
        check_min(1, max_detections=max_detections)
        for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}: must be in [0, 1], got {value}")
        self.category_ids: list[int] = []
        self.train_on_difficult, self.voc = train_on_difficult, voc
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.window, self.overlap = window_sides(window, overlap), overlap
        if window is not None and overlap == 0:
            raise ValueError("overlap: must be > 0 with window, since objects are joined by their overlap, got 0")

    def setup(self, stage: str) -> None:
        """Set up the task, and store the category ids of the data source, which prediction files use.

        Raises:
            ValueError: All training objects are difficult, and training ignores these.
        """
        super().setup(stage)
        data = self.datamodule
        is_limited = stage == "fit" and not self.train_on_difficult
        reason = data.absence_without_difficult() if is_limited and isinstance(data, KnowsDifficult) else None
        if reason is not None:
            raise ValueError(f"train_on_difficult: must be true, since otherwise nothing is trained on ({reason})")
        if stage != "predict":
            self.category_ids = list(data.category_ids or []) if isinstance(data, HasCategoryIds) else []

    def on_train_end(self) -> None:
        """Warn if a model that is trained in stages has only the first one; callbacks have run before this."""
        if isinstance(self.model, SVMDetector) and not self.model.stages_finished:
            rank_zero_warn(
                f"{type(self.model).__name__} detects by its softmax, since SVMs and boxes are not trained; add "
                "striate.callbacks.RegionStages to the trainer's callbacks"
            )

    def on_fit_start(self) -> None:
        """Measure the offsets of the training set's proposals, for a model that needs them and has not yet.

        Each rank reads all training samples once, with the augmentation of the first epoch, and gets the same result.
        """
        super().on_fit_start()
        model, data = self.model, self.datamodule
        if isinstance(model, MeasuresOffsets) and not model.offsets_measured and isinstance(data, VisionDataModule):
            model.measure_offsets(training_proposals(data, self.train_on_difficult))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the source's category ids beside the class names."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["category_ids"] = self.category_ids

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the class names and the source's category ids."""
        super().on_load_checkpoint(checkpoint)
        self.category_ids = list(checkpoint.get("category_ids", []))

    # -- losses ------------------------------------------------------------------------------------

    def prepare_training_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Drop the targets that training ignores, on the CPU: on a GPU, `losses` would wait for it.

        Shape:
            - batch: ``target`` of each image, with fields of ``[N, ...]``; other fields are returned unchanged.
        """
        if "target" not in batch:
            return batch
        return {**batch, "target": drop_ignored_targets(batch["target"], self.train_on_difficult)}

    def losses(self, batch: DetectionBatch) -> tuple[dict[str, Tensor], None]:
        """Return the model's losses of a batch, without the targets that training ignores; no outputs.

        Raises:
            ValueError: A target is invalid; the model names the image.
        """
        targets = drop_ignored_targets(batch["target"], self.train_on_difficult)
        if "proposals" in batch and isinstance(self.model, ProposalDetector):
            targets = [{**one, "proposals": boxes} for one, boxes in zip(targets, batch["proposals"], strict=True)]
        # detectors of another base class have their own checks
        options = {"targets_checked": self.targets_checked} if isinstance(self.model, Detector) else {}
        return self.model.losses(batch["image"], targets, **options), None  # type: ignore[operator]

    def evaluate(self, batch: DetectionBatch) -> tuple[dict[str, Tensor], list[Detections]]:
        """Return no losses, and the detections of each image."""
        return {}, self._detections(batch["image"], batch.get("proposals"))

    def _detections(
        self, images: Tensor | Sequence[Tensor], proposals: Sequence[Tensor] | None = None
    ) -> list[Detections]:
        """Detections for images ``[B, 3, H, W]`` or B times ``[3, H_i, W_i]``, in windows of large ones.

        ``proposals`` are those of the images, B times ``[P_i, 4]``; a model that has its own ignores them.
        """
        if not isinstance(self.model, ProposalDetector):
            proposals = None
        if self.window is None:
            return self._model_detections(images, proposals)
        if proposals is not None:
            raise ValueError(
                f"window: must be null with stored proposals, which are of whole images, got {self.window}; set it to "
                "null, or the data module's proposals, so that those of each window are computed"
            )
        return sliding_detections(self._model_detections, images, self.window, self.overlap, self.max_detections)

    def _model_detections(
        self, images: Tensor | Sequence[Tensor], proposals: Sequence[Tensor] | None = None
    ) -> list[Detections]:
        """The model's detections for images ``[B, 3, H, W]`` or B times ``[3, H_i, W_i]``, after a check of types."""
        detections = self.model(images) if proposals is None else self.model(images, proposals)
        fields = f"{', '.join(self.fields[:-1])} and {self.fields[-1]}"
        expected = f"model: must return {fields} of each of {len(images)} images"
        name = type(self.model).__name__
        if not isinstance(detections, list) or len(detections) != len(images):
            actual = f"a list of {len(detections)}" if isinstance(detections, list) else type(detections).__name__
            raise TypeError(f"{expected}, got {actual} from {name}")
        for first in detections[:1]:
            if not isinstance(first, Mapping) or not set(self.fields) <= first.keys():
                actual = f"the keys {', '.join(first)}" if isinstance(first, Mapping) else type(first).__name__
                raise TypeError(f"{expected}, got {actual} for an image from {name}")
        return detections

    # -- metrics -----------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create COCO's metric and, with `voc`, VOC's."""
        metrics: dict[str, Metric | MetricCollection] = {"coco": COCODetection(self.num_classes, self.max_detections)}
        if self.voc is not None:
            metrics["voc"] = VOCDetection(self.num_classes, self.voc)
        return metrics

    def update_metrics(self, metrics: Mapping[str, Any], outputs: list[Detections], batch: DetectionBatch) -> None:
        """Add the detections of a batch to the metrics."""
        for name in metrics.keys() & {"coco", "voc"}:
            metrics[name].update(outputs, batch["target"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the metrics of `COCODetection` and, with `voc`, ``voc_map``; scalars."""
        result = {name: value for name, value in metrics["coco"].compute().items() if value.ndim == 0}
        if "voc" in metrics:
            result["voc_map"] = metrics["voc"].compute()["voc_map"]
        return result

    def class_table(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return the table of `COCODetection` and, with `voc`, ``voc_ap``: ``[K]`` each, NaN where undefined."""
        metrics = self.metrics(stage)
        table = dict(metrics["coco"].class_table())
        if "voc" in metrics:
            table["voc_ap"] = metrics["voc"].class_table()["ap"]
        return table

    def pr_curves(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return the curves at IoU 0.5: ``recall`` ``[101]``, ``precision`` and ``scores`` ``[K, 101]``."""
        return self.detection_metric(stage).pr_curves()

    def best_thresholds(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return ``threshold`` (score of highest F1 at IoU 0.5), ``f1``, ``precision`` and ``recall``.

        Shape:
            - output: ``[K + 1]`` each: per class, then for all classes together; NaN where no detection is correct.
        """
        best = self.detection_metric(stage).best_thresholds()
        columns = {"threshold": best.score, "f1": best.f1, "precision": best.precision, "recall": best.recall}
        return {name: torch.from_numpy(values) for name, values in columns.items()}

    def detection_metric(self, stage: EvaluationStage) -> COCODetection:
        """Return the metric of a stage, for its curves, kinds of error and confusion matrix."""
        return self.metrics(stage)["coco"]

    # -- prediction --------------------------------------------------------------------------------

    def predict(self, images: Images, proposals: Sequence[Tensor] | None = None) -> list[dict[str, Any]]:
        """Predict images of any kind and size; see `Task.predict`.

        Args:
            images: As for `Task.predict`. With `proposals`, a transformed batch.
            proposals: Stored proposals of a batch. None: a model that needs some computes them.

        Shape:
            - images: as for `Task.predict`, or ``[B, 3, H, W]``
            - proposals: B times ``[P_i, 4]``
        """
        if proposals is None:
            return super().predict(images)
        with evaluation_mode(self), torch.no_grad():
            predictions = self.predict_batch(images, proposals)  # type: ignore[arg-type]
        return [prediction | name_labels(prediction, self.class_names) for prediction in predictions]

    def predict_batch(
        self, images: Tensor | Sequence[Tensor], proposals: Sequence[Tensor] | None = None
    ) -> list[dict[str, Any]]:
        """Return the objects of each image, by descending score.

        Args:
            images: The images.
            proposals: Stored proposals of each image, for a `striate.models.ProposalDetector`; None: it computes them.

        Shape:
            - images: ``[B, 3, H, W]``, or B times ``[3, H_i, W_i]``.
            - proposals: B times ``[P_i, 4]``.
            - Output: B dictionaries on the CPU: ``boxes`` float32 ``[M, 4]``, x1, y1, x2, y2 in pixels of the input
              image; ``scores`` float32 ``[M]``; ``labels`` int64 ``[M]``.
        """
        predictions: list[dict[str, Any]] = []
        for detections in self._detections(images, proposals):
            fields: dict[str, Any] = {key: value.cpu() for key, value in detections.items()}  # type: ignore[attr-defined]
            keep = (fields["scores"] >= self.score_threshold).nonzero()[:, 0]
            if self.nms_iou is not None:
                boxes, scores, labels = (fields[key][keep] for key in ("boxes", "scores", "labels"))
                keep = keep[classwise_nms(boxes, scores, labels, self.nms_iou)]
            predictions.append({key: value[keep] for key, value in fields.items()})
        return predictions

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Return one prediction per image, with boxes in pixels of the image file.

        Objects entirely outside the file's image, in padding that the transform has added, are dropped.
        """
        predictions = super().predict_step(batch, batch_idx, dataloader_idx)
        if "corners" in batch:
            corners = batch["corners"].cpu()
            for index, (height, width) in enumerate(batch["file_size"].tolist()):
                prediction = predictions[index]
                prediction["boxes"] = boxes_in_file(prediction["boxes"], corners[index], width, height)
                if "masks" in prediction:
                    prediction["masks"] = masks_in_file(prediction["masks"], corners[index], width, height)
                inside = (prediction["boxes"][:, 2:] > prediction["boxes"][:, :2]).all(1)
                predictions[index] = {key: value[inside] for key, value in prediction.items()}
        return predictions


def _check_detector(model: nn.Module) -> None:
    """Check that the model has a method for its losses, which the detectors of torchvision do not have.

    Raises:
        TypeError: There is no such method.
    """
    if isinstance(model, ComputesLosses):
        return
    expected = "model: must be a detector with a method losses(images, targets)"
    name = type(model).__name__
    if type(model).__module__.startswith("torchvision.models.detection"):
        raise TypeError(f"{expected}, got torchvision's {name}; wrap it in a striate.models.TorchvisionDetector")
    raise TypeError(
        f"{expected}, got {name}; use one of striate.models, such as FasterRCNN, or subclass striate.models.Detector"
    )
