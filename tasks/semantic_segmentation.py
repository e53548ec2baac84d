"""Semantic segmentation."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection

from ..datamodules.batches import SemanticSegmentationBatch
from ..models.segmentation.inference import argmax_labels, augmented_logits, sliding_logits
from ..models.segmentation.losses import IGNORE_INDEX, PixelCrossEntropy, WeightedLosses
from .base import Task
from .classification import HasAuxiliary, class_accuracies
from .metrics import BoundaryIoU, SegmentationConfusion, class_ious, frequency_weighted_iou, pixel_accuracy
from .metrics.segmentation import outside_message
from .schedules import Schedule


class SemanticSegmentation(Task):
    """One class a pixel.

    Logged: ``val/miou`` (mean intersection over union), ``val/acc`` (part of the pixels that are right),
    ``val/acc_class`` (mean over classes of each class's own accuracy), ``val/fwiou`` (frequency-weighted IoU),
    ``val/boundary_miou``, ``val/loss``, and the same under ``test/``. `tasks.metrics.segmentation` says how ignored
    pixels and absent classes are counted.

    Images of a batch may differ in size in evaluation and prediction: they come as lists, and are seen one by one.
    ``window``, ``scales`` and ``flip`` act there, and not in training; figures are always of masks in their own size.
    ``val/loss`` is the mean over images of each image's mean cross-entropy, so that recipes compare and batches do not
    matter; an image without counted pixels counts 0.

    Args:
        model: gives logits ``[B, K, H, W]`` for images ``[B, 3, H, W]`` of any size.
        num_classes: K; None: ``model.num_classes``.
        optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias: see `Task`.
        loss: training loss of logits ``[B, K, H, W]`` and masks ``[B, H, W]`` with 255 = ignore; one of
            `striate.models`: ``PixelCrossEntropy``, ``DiceLoss``, ``SoftmaxFocalLoss``, ``LovaszSoftmax``,
            ``OhemCrossEntropy``, or their sum ``WeightedLosses``. None: cross-entropy.
        label_smoothing, class_weights: of the cross-entropy that is used where there is no `loss`.
        auxiliary_weight: of each auxiliary head's loss in training (PSPNet, section 4.2: 0.4), for models with
            ``forward_with_auxiliary``, which gives logits and a list of auxiliary logits, at the images' size.
        boundary: distance from a boundary that counts as boundary for ``boundary_miou``, as a part of the image's
            diagonal; None: that metric is left out.
        window: height and width in pixels of the windows by which larger images are seen; one number: square.
            None: whole images.
        overlap: part of a window that the next one covers again at least.
        scales: the image is also seen in these sizes (factors of its sides), and the probabilities averaged.
        flip: and mirrored.

    Raises:
        ValueError: when K is not known, or an argument is out of its range or excludes another.
        TypeError: in use, when the model gives something else than a tensor.
    """

    monitor: ClassVar[str] = "val/miou"
    mode: ClassVar[Literal["min", "max"]] = "max"
    batch_task: ClassVar[str] = "semantic_segmentation"
    variable_size_images: ClassVar[bool] = True

    def __init__(
        self,
        model: nn.Module,
        num_classes: int | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: Schedule | LRSchedulerCallable | None = None,
        backbone_lr_factor: float = 1.0,
        decay_norm_and_bias: bool = False,
        loss: nn.Module | None = None,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        auxiliary_weight: float = 0.4,
        boundary: float | None = 0.02,
        window: tuple[int, int] | int | None = None,
        overlap: float = 1 / 3,
        scales: Sequence[float] = (1.0,),
        flip: bool = False,
    ) -> None:
        super().__init__(model, optimizer, scheduler, backbone_lr_factor, decay_norm_and_bias)
        self._num_classes = num_classes if num_classes is not None else getattr(model, "num_classes", None)
        if self._num_classes is None:
            raise ValueError(
                f"num_classes: {type(model).__name__} does not say how many classes it tells apart; "
                "set model.init_args.num_classes"
            )
        if not 2 <= self._num_classes <= IGNORE_INDEX:
            raise ValueError(
                f"num_classes: {self._num_classes}; masks of 8 bits tell 2 to {IGNORE_INDEX} classes apart"
            )
        if class_weights is not None and len(class_weights) != self._num_classes:
            raise ValueError(f"class_weights: {len(class_weights)} numbers for {self._num_classes} classes")
        if loss is not None and (label_smoothing or class_weights is not None):
            raise ValueError(
                "loss: label_smoothing and class_weights belong to the cross-entropy that is used without it; give "
                "them to the loss itself, such as striate.models.PixelCrossEntropy"
            )
        if boundary is not None and not boundary > 0:
            raise ValueError(
                f"boundary: {boundary} is not a part of the diagonal above 0, such as 0.02; null leaves it out"
            )
        self.loss = loss if loss is not None else PixelCrossEntropy(class_weights, label_smoothing)
        self.auxiliary_weight, self.boundary = auxiliary_weight, boundary
        self.window = _checked_window(window, overlap)
        self.overlap, self.scales, self.flip = overlap, _checked_scales(scales), flip

    @property
    def num_classes(self) -> int:
        """K."""
        return self._num_classes  # type: ignore[return-value]

    # -- losses ------------------------------------------------------------------------------------

    def losses(self, batch: SemanticSegmentationBatch) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The losses; and in evaluation the class of each pixel, ``[B, H, W]`` uint8 for each part of the batch.

        Raises:
            ValueError: for masks of another size than their images, or with values outside the classes, and for a
                model whose logits have another size or number of classes.
        """
        data = getattr(getattr(self, "_trainer", None), "datamodule", None)
        check_masks(batch, None if getattr(data, "checks_targets", False) else self.num_classes)
        if self.training:
            return self._training_losses(batch), []
        losses, said = [], []
        for images, masks in parts(batch):
            logits = self._evaluated(images)
            each = F.cross_entropy(logits.float(), masks.long(), ignore_index=IGNORE_INDEX, reduction="none").sum(
                (1, 2)
            )
            losses.append(each / (masks != IGNORE_INDEX).sum((1, 2)).clamp(min=1))
            said.append(argmax_labels(logits))
        return {"loss_pixel": torch.cat(losses).mean()}, said

    def _training_losses(self, batch: SemanticSegmentationBatch) -> dict[str, Tensor]:
        images, masks = batch["image"], batch["mask"]
        if not isinstance(images, Tensor) or not isinstance(masks, Tensor):
            raise ValueError(
                "the images of a training batch differ in size: end data.init_args.train_transform with a step that "
                "fixes it, such as albumentations.RandomCrop with pad_if_needed, or set data.init_args.batch_size: 1"
            )
        auxiliary: list[Tensor] = []
        if isinstance(self.model, HasAuxiliary):
            logits, auxiliary = self.model.forward_with_auxiliary(images)
        else:
            logits = self.model(images)
        self._check_logits(logits, images)
        if isinstance(self.loss, WeightedLosses):
            losses = {f"loss_{name}": term for name, term in self.loss.terms(logits, masks).items()}
        else:
            losses = {"loss_pixel": self.loss(logits, masks)}
        for number, head in enumerate(auxiliary, 1):
            losses[f"loss_aux{number}"] = self.auxiliary_weight * self.loss(head, masks)
        return losses

    def _evaluated(self, images: Tensor) -> Tensor:
        """Logits ``[B, K, H, W]`` by windows, scales and mirror images, as asked for."""
        return augmented_logits(self._windowed, images, self.scales, self.flip)

    def _windowed(self, images: Tensor) -> Tensor:
        if self.window is None:
            return self._logits(images)
        return sliding_logits(self._logits, images, self.window, self.overlap)

    def _logits(self, images: Tensor) -> Tensor:
        logits = self.model(images)
        self._check_logits(logits, images)
        return logits

    def _check_logits(self, logits: object, images: Tensor) -> None:
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"{type(self.model).__name__} gave {type(logits).__name__}, but a segmentation model gives logits "
                f"[B, {self.num_classes}, H, W]; for torchvision's take striate.models.TorchvisionSegmentation"
            )
        expected = (len(images), self.num_classes, *images.shape[-2:])
        if tuple(logits.shape) != expected:
            raise ValueError(
                f"{type(self.model).__name__} gave logits {list(logits.shape)} for images {list(images.shape)}; a "
                f"segmentation model of {self.num_classes} classes gives {list(expected)}"
            )

    # -- metrics -----------------------------------------------------------------------------------

    def make_metrics(self) -> dict[str, Metric | MetricCollection]:
        """The confusion matrix, of pixels and of boundaries."""
        made: dict[str, Metric | MetricCollection] = {"confusion": SegmentationConfusion(self.num_classes)}
        if self.boundary is not None:
            made["boundary"] = BoundaryIoU(self.num_classes, self.boundary)
        return made

    def update_metrics(
        self, metrics: Mapping[str, Any], outputs: list[Tensor], batch: SemanticSegmentationBatch
    ) -> None:
        """Count a batch, of which `outputs` has the class of each pixel, part by part."""
        for said, (_, masks) in zip(outputs, parts(batch), strict=True):
            for name in metrics.keys() & {"confusion", "boundary"}:
                metrics[name].update(said, masks)

    def compute_metrics(self, metrics: Mapping[str, Any]) -> dict[str, Tensor]:
        """``miou``, ``acc``, ``acc_class``, ``fwiou``, and ``boundary_miou`` if it is asked for."""
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

    def confusion_matrix(self, stage: Literal["val", "test"]) -> Tensor:
        """Pixels ``[K, K]`` of the stage's last epoch on this rank or, after its end, over all: truth by prediction."""
        return self.metrics(stage)["confusion"].compute()

    def class_table(self, stage: Literal["val", "test"]) -> dict[str, Tensor]:
        """True pixels, accuracy, IoU and boundary IoU of each class, ``[K]`` each; NaN where undefined."""
        confusion = self.confusion_matrix(stage)
        table = {
            "pixels": confusion.sum(1),
            "accuracy": class_accuracies(confusion),
            "iou": class_ious(confusion),
        }
        if self.boundary is not None:
            table["boundary_iou"] = self.metrics(stage)["boundary"].compute()
        return table

    # -- prediction --------------------------------------------------------------------------------

    def predict(self, images: Tensor | Sequence[Tensor], sizes: Tensor | None = None) -> list[dict[str, Any]]:
        """The class of each pixel of each image.

        Args:
            sizes: height and width that each mask is to have, ``[B, 2]``; None: its image's. Logits are scaled, and
                not classes, so that outlines stay smooth.

        Shape:
            - images: ``[B, 3, H, W]``, or B times ``[3, H, W]``.
            - Output: B dictionaries: ``mask`` uint8 ``[H, W]``, 0 … K-1.
        """
        predictions: list[dict[str, Any]] = []
        for part in [images] if isinstance(images, Tensor) else [image[None] for image in images]:
            for logits in self._evaluated(part):
                size = None if sizes is None else tuple(sizes[len(predictions)].tolist())
                predictions.append({"mask": argmax_labels(logits[None], size)[0].cpu()})
        return predictions

    def predict_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> list[dict[str, Any]]:
        """One prediction an image, in the size that the image has in its file.

        Raises:
            ValueError: when the transform of the data has cut or moved the image, so that no mask would fit the file.
        """
        self._note_unreadable(batch)
        if not len(batch["image"]):
            return []
        if "path" in batch and not shows_whole_images(batch):
            raise ValueError(
                "a mask is to fit its image file, but data.init_args.val_transform has a step that may cut, pad or "
                "move the image; for prediction keep none but steps such as albumentations.Resize "
                "(--data.val_transform null: whole images)"
            )
        return self.predict(batch["image"], batch.get("file_size"))


def shows_whole_images(batch: Any) -> bool:
    """Whether each image of a `PredictBatch` is all of its file's image and nothing else, only larger or smaller."""
    # sides are rounded to whole pixels, where corners are not; a cut or a border is one at least
    slack = torch.tensor([[1e-3, 1e-3], [0.6, 1e-3], [1e-3, 0.6]])
    return (
        "corners" in batch
        and all(
            bool(((corners.cpu() - torch.tensor([[0, 0], [width, 0], [0, height]])).abs() <= slack).all())  # not of NaN
            for corners, (height, width) in zip(
                batch["corners"], (image.shape[-2:] for image in batch["image"]), strict=True
            )
        )
    )


def parts(batch: Mapping[str, Any] | SemanticSegmentationBatch) -> Iterator[tuple[Tensor, Tensor]]:
    """The images and masks of a batch by parts of one size: the whole batch, or image by image where sizes may differ.

    Shape:
        - Output: pairs ``[b, 3, h, w]``, ``[b, h, w]``.
    """
    images, masks = batch["image"], batch["mask"]
    if isinstance(images, Tensor) and isinstance(masks, Tensor):
        yield images, masks
    else:
        for image, mask in zip(images, masks, strict=True):
            yield image[None], mask[None]


def check_masks(batch: Mapping[str, Any] | SemanticSegmentationBatch, num_classes: int | None) -> None:
    """Refuse masks that do not belong to their images or to the classes.

    Args:
        num_classes: K. None: values are not looked at; on a GPU looking means waiting for it.

    Raises:
        ValueError: for masks of another size, or with values outside ``0 … K-1`` and 255; those are counted.
        TypeError: for masks that are not uint8.
    """
    for images, masks in parts(batch):
        if images.shape[-2:] != masks.shape[-2:]:
            raise ValueError(
                f"masks of {list(masks.shape[-2:])} for images of {list(images.shape[-2:])} (height, width): each "
                "image needs a mask of its own size"
            )
        if masks.dtype != torch.uint8:
            raise TypeError(f"masks are uint8, one class a pixel and {IGNORE_INDEX} = ignore, and not {masks.dtype}")
        # in 8 bits 255 + 1 is 0
        if num_classes is not None and masks.numel() and int((masks + 1).max()) > num_classes:
            counts = torch.bincount(masks.reshape(-1), minlength=IGNORE_INDEX + 1)
            raise ValueError(outside_message(counts, num_classes))


def _checked_window(window: tuple[int, int] | int | None, overlap: float) -> tuple[int, int] | None:
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap: {overlap} is not a part of a window, from 0 to below 1")
    sides = (window, window) if isinstance(window, int) else window
    if sides is not None and min(sides) < 1:
        raise ValueError(f"window: {window}; give its height and width in pixels, 1 or more")
    return sides


def _checked_scales(scales: Sequence[float]) -> tuple[float, ...]:
    if not scales or not min(scales) > 0:
        raise ValueError(f"scales: {list(scales)}; give factors above 0, such as [0.75, 1.0, 1.25]")
    return tuple(scales)
