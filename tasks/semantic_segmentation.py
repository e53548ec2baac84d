"""The task of semantic segmentation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.base import Unpack
from ..datamodules.batches import SemanticSegmentationBatch
from ..models.modes import evaluation_mode
from ..models.ops.checks import check_min
from ..models.ops.windows import window_sides
from ..models.segmentation.inference import argmax_labels, augmented_logits, sliding_logits
from ..models.segmentation.losses import IGNORE_INDEX, PixelCrossEntropy, WeightedLosses
from .base import Task
from .file_coordinates import only_resized
from .interfaces import EvaluationStage, HasAuxiliary
from .metrics import (
    BoundaryIoU,
    SegmentationConfusion,
    class_accuracies,
    class_ious,
    frequency_weighted_iou,
    pixel_accuracy,
)
from .metrics.segmentation import invalid_values_message
from .optimizers import TaskOptions


class SemanticSegmentation(Task):
    """Semantic segmentation: one class per pixel.

    Logged: ``val/miou`` (mean intersection over union), ``val/acc`` (share of the pixels that are correct),
    ``val/acc_class`` (mean of the per-class accuracies), ``val/fwiou`` (frequency-weighted IoU), ``val/boundary_miou``,
    ``val/loss``, and the same under ``test/``. `tasks.metrics.segmentation` and `tasks.metrics.confusion` define how
    ignored pixels and absent classes count.

    In evaluation and prediction the images of a batch may differ in size. They come as lists and are processed one by
    one. ``window``, ``scales`` and ``flip`` apply there, and not in training; metrics always use masks in their own
    size. ``val/loss`` is the mean over images of each image's mean cross-entropy, so that it compares across recipes
    and does not depend on the batch size; an image without counted pixels contributes 0.

    Args:
        model: Returns logits ``[B, K, H, W]`` for images ``[B, 3, H, W]`` of any size.
        num_classes: Number of classes K; None: ``model.num_classes``.
        loss: Training loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]`` with 255 = ignore; one of
            `striate.models`: ``PixelCrossEntropy``, ``DiceLoss``, ``SoftmaxFocalLoss``, ``LovaszSoftmax``,
            ``OhemCrossEntropy``, or their sum ``WeightedLosses``; or torch's
            ``nn.CrossEntropyLoss(ignore_index=255)``. Masks reach it as int64. None: cross-entropy.
        label_smoothing: Label smoothing of the cross-entropy that is used without a `loss`.
        class_weights: Class weights of the cross-entropy that is used without a `loss`.
        auxiliary_weight: Weight of each auxiliary head's loss in training (PSPNet, section 4.2: 0.4), for models with
            ``forward_with_auxiliary``.
        boundary: Distance from a boundary that counts for ``boundary_miou``, as a fraction of the image's diagonal;
            None: no such metric.
        window: Height and width in pixels of the overlapping windows in which larger images are evaluated and
            predicted; one number: square windows. None: whole images.
        overlap: Minimum overlap of neighboring windows, as a fraction of the window.
        scales: Factors of the image's sides for multi-scale evaluation, whose probabilities are averaged.
        flip: Average over mirrored images too.
        **kwargs: ``optimizer``, ``scheduler``, ``backbone_lr_factor`` and ``decay_norm_and_bias`` of `Task`.

    Raises:
        ValueError: K is unknown or differs from the model's, or an argument is out of range or excludes another.
        TypeError: In use, when the model does not return a tensor.
    """

    kind: ClassVar[str] = "semantic_segmentation"
    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[Literal["min", "max"]] = "max"
    variable_size_images: ClassVar[bool] = True
    max_classes: ClassVar[int | None] = IGNORE_INDEX  # masks have 8 bits

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        auxiliary_weight: float = 0.4,
        boundary: float | None = 0.02,
        window: tuple[int, int] | int | None = None,
        overlap: float = 1 / 3,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
        **kwargs: Unpack[TaskOptions],
    ) -> None:
        super().__init__(model, num_classes, **kwargs)
        if class_weights is not None and len(class_weights) != self.num_classes:
            raise ValueError(
                f"class_weights: must have one number per class, {self.num_classes}, got {len(class_weights)}"
            )
        if loss is not None and (label_smoothing or class_weights is not None):
            raise ValueError(
                f"loss: must be null with label_smoothing or class_weights, got {type(loss).__name__}; give them to "
                "the loss itself, such as striate.models.PixelCrossEntropy"
            )
        if loss is not None:
            _check_ignore_index(loss)
        check_min(0, auxiliary_weight=auxiliary_weight)
        if boundary is not None and not boundary > 0:
            raise ValueError(
                f"boundary: must be > 0, a fraction of the diagonal such as 0.02, got {boundary}; null turns it off"
            )
        if not scales or not min(scales) > 0:
            raise ValueError(f"scales: must be factors > 0, such as [0.75, 1.0, 1.25], got {list(scales)}")
        self.loss = loss if loss is not None else PixelCrossEntropy(class_weights, label_smoothing)
        self.auxiliary_weight, self.boundary = auxiliary_weight, boundary
        self.window, self.overlap = window_sides(window, overlap), overlap
        self.scales, self.flip = tuple(scales), flip

    # -- losses ------------------------------------------------------------------------------------

    def losses(self, batch: SemanticSegmentationBatch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return the losses; and in evaluation the class of each pixel, ``[b, h, w]`` uint8 for each `uniform_parts`.

        Raises:
            ValueError: Masks differ in size from their images or have values outside the classes, or the model's
                logits have another size or number of classes.
        """
        check_masks(batch, None if self.targets_checked else self.num_classes)
        if self.training:
            return self._training_losses(batch), []
        losses, predicted = [], []
        for images, masks in uniform_parts(batch):
            logits = self._evaluated(images)
            per_pixel = F.cross_entropy(logits.float(), masks.long(), ignore_index=IGNORE_INDEX, reduction="none")
            counted = (masks != IGNORE_INDEX).sum((1, 2)).clamp(min=1)
            losses.append(per_pixel.sum((1, 2)) / counted)
            predicted.append(argmax_labels(logits))
        return {"loss_pixel": torch.cat(losses).mean()}, predicted

    def _training_losses(self, batch: SemanticSegmentationBatch) -> dict[str, Tensor]:
        images, stored = batch["image"], batch["mask"]
        if not isinstance(images, Tensor) or not isinstance(stored, Tensor):
            raise ValueError(
                "train_transform: must give the images of a batch one size, got several sizes; end it with a step such "
                "as albumentations.RandomCrop with pad_if_needed, or set batch_size: 1"
            )
        auxiliary: list[Tensor] = []
        if isinstance(self.model, HasAuxiliary):
            logits, auxiliary = self.model.forward_with_auxiliary(images)
        else:
            logits = self.model(images)
        self._check_logits(logits, images)
        masks = stored.long()  # [B, H, W], as torch's losses need them
        if isinstance(self.loss, WeightedLosses):
            losses = {f"loss_{name}": term for name, term in self.loss.terms(logits, masks).items()}
        else:
            losses = {"loss_pixel": self.loss(logits, masks)}
        for number, auxiliary_logits in enumerate(auxiliary, 1):
            losses[f"loss_aux{number}"] = self.auxiliary_weight * self.loss(auxiliary_logits, masks)
        return losses

    def _evaluated(self, images: Tensor) -> Tensor:
        """Logits ``[B, K, H, W]`` of images ``[B, 3, H, W]``, over windows, scales and mirrored images."""
        if self.window is None:
            return augmented_logits(self._logits, images, self.scales, self.flip)
        window, overlap = self.window, self.overlap
        return augmented_logits(
            lambda scaled: sliding_logits(self._logits, scaled, window, overlap), images, self.scales, self.flip
        )

    def _logits(self, images: Tensor) -> Tensor:
        """The model's logits ``[B, K, H, W]`` for images ``[B, 3, H, W]``, after a check of type and shape."""
        logits = self.model(images)
        self._check_logits(logits, images)
        return logits

    def _check_logits(self, logits: object, images: Tensor) -> None:
        """Check that logits are ``[B, K, H, W]`` for images ``[B, 3, H, W]``."""
        name = type(self.model).__name__
        expected = (len(images), self.num_classes, *images.shape[-2:])
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"model: must return logits {list(expected)}, got {type(logits).__name__} from {name}; wrap "
                "torchvision models in striate.models.TorchvisionSegmentation"
            )
        if tuple(logits.shape) != expected:
            raise ValueError(
                f"model: must return logits {list(expected)} for images {list(images.shape)}, got "
                f"{list(logits.shape)} from {name}"
            )

    # -- metrics -----------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """Create the confusion matrix of pixels and, with `boundary`, the boundary IoU."""
        metrics: dict[str, Metric | MetricCollection] = {"confusion": SegmentationConfusion(self.num_classes)}
        if self.boundary is not None:
            metrics["boundary"] = BoundaryIoU(self.num_classes, self.boundary)
        return metrics

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: list[Tensor], batch: SemanticSegmentationBatch
    ) -> None:
        """Add a batch to the metrics; outputs are classes ``[b, H, W]`` for each of the `uniform_parts`."""
        for predicted, (_, masks) in zip(outputs, uniform_parts(batch), strict=True):
            for name in metrics.keys() & {"confusion", "boundary"}:
                metrics[name].update(predicted, masks)

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return ``miou``, ``acc``, ``acc_class``, ``fwiou`` and, with `boundary`, ``boundary_miou``; scalars."""
        confusion = metrics["confusion"].compute()
        result = {
            "miou": class_ious(confusion).nanmean(),
            "acc": pixel_accuracy(confusion),
            "acc_class": class_accuracies(confusion).nanmean(),
            "fwiou": frequency_weighted_iou(confusion),
        }
        if "boundary" in metrics:
            result["boundary_miou"] = metrics["boundary"].compute().nanmean()
        return result

    def class_table(self, stage: EvaluationStage) -> dict[str, Tensor]:
        """Return ground-truth pixels, accuracy, IoU and boundary IoU, ``[K]`` each; NaN where undefined."""
        metrics = self.metrics(stage)
        confusion = metrics["confusion"].compute()
        table = {"pixels": confusion.sum(1), "accuracy": class_accuracies(confusion), "iou": class_ious(confusion)}
        if self.boundary is not None:
            table["boundary_iou"] = metrics["boundary"].compute()
        return table

    # -- prediction --------------------------------------------------------------------------------

    def predict_batch(self, images: Tensor | Sequence[Tensor], sizes: Tensor | None = None) -> list[dict[str, Any]]:
        """Return the class of each pixel of each image.

        Args:
            images: One tensor, or a list of images that differ in size.
            sizes: Height and width of each mask in pixels; None: the size of its image. Logits are resized, not
                classes, so that outlines stay smooth.

        Shape:
            - images: ``[B, 3, H, W]``, or B times ``[3, H, W]``.
            - sizes: ``[B, 2]``.
            - Output: B dictionaries: ``mask`` uint8 ``[H, W]``, 0 … K-1.
        """
        predictions: list[dict[str, Any]] = []
        for part in [images] if isinstance(images, Tensor) else [image[None] for image in images]:
            for logits in self._evaluated(part):
                size = None if sizes is None else tuple(sizes[len(predictions)].tolist())
                predictions.append({"mask": argmax_labels(logits[None], size)[0].cpu()})
        return predictions

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """Return one prediction per image, in the size of its file.

        Raises:
            ValueError: The data module's transform crops or moves the image, so that no mask would fit the file.
        """
        self.unreadable.add(batch)
        if not len(batch["image"]):
            return []
        if "path" in batch and not only_resized(batch):
            raise ValueError(
                "val_transform: must only resize the images to predict, since masks have to fit their files, got a "
                "step that may crop, pad or move them; keep steps such as albumentations.Resize, or none "
                "(--data.val_transform null)"
            )
        with evaluation_mode(self), torch.no_grad():
            return self.predict_batch(batch["image"], batch.get("file_size"))


def _check_ignore_index(loss: nn.Module) -> None:
    """Require that torch's own losses, also inside others, skip ignored pixels."""
    for module in loss.modules():
        if isinstance(module, nn.CrossEntropyLoss | nn.NLLLoss) and module.ignore_index != IGNORE_INDEX:
            raise ValueError(
                f"loss: ignore_index of {type(module).__name__} must be {IGNORE_INDEX}, the value of ignored pixels in "
                f"masks, got {module.ignore_index}; pass ignore_index={IGNORE_INDEX}"
            )


def uniform_parts(batch: Mapping[str, Any] | SemanticSegmentationBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images and masks in parts of one size: the whole batch, or one image at a time where sizes may differ.

    Shape:
        - Output: pairs ``[b, 3, h, w]``, ``[b, h, w]``; b is B or 1.
    """
    images, masks = batch["image"], batch["mask"]
    if isinstance(images, Tensor) and isinstance(masks, Tensor):
        yield images, masks
    else:
        for image, mask in zip(images, masks, strict=True):
            yield image[None], mask[None]


def check_masks(batch: Mapping[str, Any] | SemanticSegmentationBatch, num_classes: int | None) -> None:
    """Check that masks fit their images and the classes.

    Args:
        batch: Images and masks.
        num_classes: Number of classes K. None: values are not checked, since on a GPU that means waiting for it.

    Raises:
        ValueError: A mask differs in size from its image, or has values outside ``0 … K-1`` and 255; the message counts
            them.
        TypeError: A mask is not uint8.
    """
    for images, masks in uniform_parts(batch):
        if images.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"mask: must have the size of its image, {list(images.shape[-2:])} (height, width), got "
                f"{list(masks.shape[-2:])}"
            )
        if masks.dtype != torch.uint8:
            raise TypeError(f"mask: must be uint8, one class per pixel and {IGNORE_INDEX} = ignore, got {masks.dtype}")
        # in 8 bits 255 + 1 wraps to 0, so that ignored pixels pass
        if num_classes is not None and masks.numel() and int((masks + 1).max()) > num_classes:
            counts = torch.bincount(masks.reshape(-1), minlength=IGNORE_INDEX + 1)
            raise ValueError(invalid_values_message(counts, num_classes))
