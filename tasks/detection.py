"""Object detection."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.batches import DetectionBatch
from ..models.detection import Detections, Detector, classwise_nms
from .base import Task
from .localization import boxes_in_file
from .metrics import COCODetection, VOCDetection
from .schedules import Schedule


class Detection(Task):
    """What is in an image, and where: any number of boxes, each with a class and a score.

    Logged: ``train/loss`` and each of the model's losses, ``train/loss_…``; ``val/map`` (COCO's AP, over IoU 0.50 to
    0.95), ``val/map50``, ``val/map75``, ``val/map_small`` and what else `metrics.COCODetection` computes, with `voc`
    ``val/voc_map``, and the same under ``test/``. No ``val/loss``: it would take a second pass, and says little of what
    is detected. Boxes are compared in pixels of the images as the data module gives them.

    Crowds (``iscrowd``) are never trained on, and no miss in ``val/map``. Difficult objects (``difficult``) are as any
    other in ``val/map``, which knows no such thing, and do not count in ``val/voc_map``.

    Args:
        model: a `striate.models.Detector`, or any module with ``losses(images, targets) -> dict`` whose ``forward``
            gives `Detections` of each image, in training and evaluation mode alike.
        num_classes: K, without background; None: ``model.num_classes``.
        optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias: see `Task`.
        train_on_difficult: whether objects that VOC marks as difficult are trained on.
        voc: log Pascal VOC's AP at IoU 0.50 as well: 2007, the mean over 11 recalls; 2010 or 2012, the area under the
            curve.
        score_threshold: in `predict`, objects of a lower score are left out, and its pictures show all others; with 0
            they show those from 50 % on. The figures need the unsure ones too, and always see all that the model gives.
        nms_iou: in `predict`, of two objects of one class that overlap by more than this the less sure one is left out;
            None: the model's own suppression is enough.

    Attributes:
        category_ids: the source's numbers of the classes, such as COCO's 1 … 90, where its data module has them.

    Raises:
        TypeError: the model is no detector.
        ValueError: K is not known or not the model's, or a number is out of its range.
    """

    monitor: ClassVar[str] = "val/map"
    mode: ClassVar[Literal["min", "max"]] = "max"
    batch_task: ClassVar[str] = "detection"
    variable_size_images: ClassVar[bool] = True
    evaluation_loss: ClassVar[bool] = False
    fewest_classes: ClassVar[int] = 1

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
        train_on_difficult: bool = True,
        voc: Literal[2007, 2010, 2012] | None = None,
        score_threshold: float = 0.0,
        nms_iou: float | None = None,
    ) -> None:
        super().__init__(model, optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias)
        _check_detector(model)
        own = getattr(model, "num_classes", None)
        known = own if num_classes is None else num_classes
        if known is None:
            raise ValueError(
                f"num_classes: {type(model).__name__} does not say how many classes it tells apart; "
                "set model.init_args.num_classes"
            )
        if own is not None and own != known:
            raise ValueError(f"num_classes: {known}, but the model {type(model).__name__} tells {own} classes apart")
        if voc not in (None, 2007, 2010, 2012):
            raise ValueError(
                f"voc: {voc} is not 2007 (11 recalls), 2010 or 2012 (all recalls), or null (no VOC figure)"
            )
        for name, value in (("score_threshold", score_threshold), ("nms_iou", nms_iou)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name}: {value} is not from 0 to 1")
        self._num_classes: int = known
        self.category_ids: list[int] = []
        self._targets_checked = False
        self.train_on_difficult, self.voc = train_on_difficult, voc
        self.score_threshold, self.nms_iou = score_threshold, nms_iou

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes

    def setup(self, stage: str) -> None:
        """As in `Task`; and take the numbers that the source has for the classes, for `predict` to write."""
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        self._targets_checked = getattr(data, "checks_targets", False)
        if stage != "predict":
            self.category_ids = list(getattr(data, "category_ids", None) or [])

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the source's numbers of the classes beside their names."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["category_ids"] = self.category_ids

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take them back."""
        super().on_load_checkpoint(checkpoint)
        self.category_ids = list(checkpoint.get("category_ids", []))

    # -- losses ------------------------------------------------------------------------------------

    def prepare_training_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Drop the objects that are not trained on. The data module calls this on the CPU, where it waits for no GPU.

        Shape:
            - batch: ``target`` of each image, with fields of ``[N, ...]``; other fields are returned as they are.
        """
        if "target" not in batch:
            return batch
        return {**batch, "target": trained_targets(batch["target"], self.train_on_difficult)}

    def losses(self, batch: DetectionBatch) -> tuple[dict[str, Tensor], None]:
        """The model's losses of a batch, without crowds; no outputs.

        Raises:
            ValueError: a target that cannot be; the model names the image.
        """
        targets = trained_targets(batch["target"], self.train_on_difficult)
        # a detector of another kind has its own checks
        checked = {"targets_checked": self._targets_checked} if isinstance(self.model, Detector) else {}
        return self.model.losses(batch["image"], targets, **checked), None  # type: ignore[operator]

    def evaluate(self, batch: DetectionBatch) -> tuple[dict[str, Tensor], list[Detections]]:
        """No losses, and the detections of each image."""
        return {}, self._detections(batch["image"])

    def _detections(self, images: Tensor | Sequence[Tensor]) -> list[Detections]:
        """What the model gives, if it is what it should be."""
        found = self.model(images)
        if not isinstance(found, list) or len(found) != len(images):
            what = f"a list of {len(found)}" if isinstance(found, list) else type(found).__name__
            raise TypeError(
                f"{type(self.model).__name__} gave {what} for {len(images)} images, but detection takes a list with "
                "boxes, scores and labels of each image"
            )
        for one in found[:1]:
            if not isinstance(one, Mapping) or not {"boxes", "scores", "labels"} <= one.keys():
                what = f"the keys {', '.join(one)}" if isinstance(one, Mapping) else type(one).__name__
                raise TypeError(f"{type(self.model).__name__} gave {what} for an image, not boxes, scores and labels")
        return found

    # -- metrics -----------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """COCO's figures, and VOC's where asked for."""
        made: dict[str, Metric | MetricCollection] = {"coco": COCODetection(self.num_classes)}
        if self.voc is not None:
            made["voc"] = VOCDetection(self.num_classes, self.voc)
        return made

    def update_metrics(self, metrics: Mapping[str, Any], outputs: list[Detections], batch: DetectionBatch) -> None:
        """Count a batch."""
        for name in metrics.keys() & {"coco", "voc"}:
            metrics[name].update(outputs, batch["target"])

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """The figures of `COCODetection`, and ``voc_map`` where asked for."""
        figures = {name: value for name, value in metrics["coco"].compute().items() if value.ndim == 0}
        if "voc" in metrics:
            figures["voc_map"] = metrics["voc"].compute()["voc_map"]
        return figures

    def class_table(self, stage: Literal["val", "test"]) -> dict[str, Tensor]:
        """Objects, AP and AP50 of each class, and VOC's AP where asked for, ``[K]`` each; NaN where undefined."""
        metrics = self.metrics(stage)
        table = dict(metrics["coco"].class_table())
        if "voc" in metrics:
            table["voc_ap"] = metrics["voc"].class_table()["ap"]
        return table

    def detection_metric(self, stage: Literal["val", "test"]) -> Metric:
        """The stage's `COCODetection`, for what it can say beyond figures: curves, kinds of error, confusion."""
        return self.metrics(stage)["coco"]

    # -- prediction --------------------------------------------------------------------------------

    def predict(self, images: Tensor | Sequence[Tensor]) -> list[dict[str, Any]]:
        """The objects of each image, the surest first.

        Shape:
            - images: ``[B, 3, H, W]``, or B times ``[3, H_i, W_i]``.
            - Output: B dictionaries on the CPU: ``boxes`` float32 ``[M, 4]``, x1, y1, x2, y2 in pixels of the image
              given; ``scores`` float32 ``[M]``; ``labels`` int64 ``[M]``.
        """
        predictions: list[dict[str, Any]] = []
        for found in self._detections(images):
            kept: dict[str, Any] = {key: value.cpu() for key, value in found.items()}  # type: ignore[attr-defined]
            chosen = (kept["scores"] >= self.score_threshold).nonzero()[:, 0]
            if self.nms_iou is not None:
                boxes, scores, labels = (kept[key][chosen] for key in ("boxes", "scores", "labels"))
                chosen = chosen[classwise_nms(boxes, scores, labels, self.nms_iou)]
            predictions.append({key: value[chosen] for key, value in kept.items()})
        return predictions

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One prediction an image, its boxes in pixels of the file that the image was read from.

        What was seen wholly outside the file's image, in what the transform had padded, is left out.
        """
        predictions = super().predict_step(batch, batch_idx, dataloader_idx)
        if "corners" in batch:
            corners = batch["corners"].cpu()
            for place, (height, width) in enumerate(batch["file_size"].tolist()):
                found = predictions[place]
                found["boxes"] = boxes_in_file(found["boxes"], corners[place], width, height)
                inside = (found["boxes"][:, 2:] > found["boxes"][:, :2]).all(1)
                predictions[place] = {key: value[inside] for key, value in found.items()}
        return predictions


def _check_detector(model: nn.Module) -> None:
    """Raises:
    TypeError: the model does not give its losses by a method, as torchvision's own detectors do not.
    """
    if callable(getattr(model, "losses", None)):
        return
    said = f"{type(model).__name__} has no method losses(images, targets)"
    if type(model).__module__.startswith("torchvision.models.detection"):
        raise TypeError(
            f"model: {said}: it is torchvision's own detector, which gives losses or boxes as its mode is; put it "
            "into a striate.models.TorchvisionDetector"
        )
    raise TypeError(
        f"model: {said}, so it is no detector; take one of striate.models, such as FasterRCNN, or derive your own from "
        "striate.models.Detector"
    )


def trained_targets(targets: Sequence[Mapping[str, Any]], difficult: bool = True) -> list[dict[str, Any]]:
    """Targets without crowds, and without difficult objects unless these are trained on.

    Targets that have been through it are given back as they are: the flags are gone with the objects.

    Args:
        targets: of each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, perhaps ``iscrowd`` and ``difficult``
            ``[N]``, perhaps other fields of N.
        difficult: whether difficult objects are kept.
    """
    flags = ("iscrowd",) if difficult else ("iscrowd", "difficult")
    given = [torch.stack([target[flag] for flag in flags if flag in target] or [_none(target)]) for target in targets]
    plain = [{k: value for k, value in target.items() if k not in ("iscrowd", "difficult")} for target in targets]
    if not any(flag in target for target in targets for flag in flags):
        return plain  # nothing to wait for
    if not bool((left_out := torch.cat([each.any(0) for each in given])).any()):  # waits for a GPU once
        return plain
    kept, result, start = (~left_out).tolist(), [], 0
    for target in plain:
        count = len(target["labels"])
        places = [place for place, keep in enumerate(kept[start : start + count]) if keep]
        start += count
        result.append(target if len(places) == count else _chosen(target, places))
    return result


def _none(target: Mapping[str, Any]) -> Tensor:
    return torch.zeros_like(target["labels"], dtype=torch.bool)


def _chosen(target: Mapping[str, Any], places: Sequence[int]) -> dict[str, Any]:
    """The objects at `places`, with all of their fields."""
    count = len(target["labels"])
    return {
        key: value[torch.tensor(places, dtype=torch.int64, device=value.device)]
        if isinstance(value, Tensor) and value.ndim and len(value) == count
        else value
        for key, value in target.items()
    }
