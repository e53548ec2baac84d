"""The interface of all detectors: images to boxes in their pixels, and images with targets to losses.

Shape legend: B images, image i of ``H_i`` by ``W_i`` pixels; N objects of an image, M detections in it, K classes.
Boxes are ``x1, y1, x2, y2`` in pixels. Coordinates lie between pixels: a box around the whole image is ``0, 0, W, H``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from ..modes import evaluation_mode
from ..ops.checks import check_fraction, check_min
from ..ops.masks import RunLengths
from ..ops.pixels import PixelRange, check_pixel_type, layout_hint
from ..weights import LoadReport
from .resize import ImageBatch, ResizeAndPad

Images = Tensor | Sequence[Tensor]
"""B images, ``uint8`` in [0, 255] or floating point in [0, 1]: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``."""

BOX_TOLERANCE = 0.01
"""Pixels by which a ground-truth box may leave its image, as rounding makes it do when boxes are scaled."""


class Detections(TypedDict):
    """Objects detected in one image, highest score first."""

    boxes: Tensor  # float32 [M, 4], x1, y1, x2, y2 in pixels of the input image, inside it
    scores: Tensor  # float32 [M], 0..1, descending
    labels: Tensor  # int64 [M], 0..K-1
    masks: NotRequired[RunLengths]  # instance segmentation: M masks in pixels of the input image


class Detector(nn.Module):
    """Base class of the detectors. It checks the input, resizes images on the device, and maps boxes back.

    A subclass implements `detect` and `compute_losses`, which take one padded batch and boxes in its pixels. `forward`
    returns detections and `losses` returns losses, in any mode. `forward` always evaluates: batch normalization uses
    its running statistics, and dropout and random sizes are off. In `losses` they follow the mode.

    Args:
        num_classes: Number of classes K, without background.
        resize: How images are brought to one size.

    Attributes:
        load_report: What was loaded from a checkpoint of a whole detector. None if none was loaded.

    Raises:
        ValueError: ``num_classes`` is below 1.
    """

    load_report: LoadReport | None = None

    def __init__(self, num_classes: int, resize: ResizeAndPad) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.resize = resize
        self._pixel_range = PixelRange()

    def forward(self, images: Images) -> list[Detections]:
        """Detect the objects of each image, in evaluation mode and without gradient; modes are restored afterwards.

        Shape:
            - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``; see `Images`
            - output: B `Detections`
        """
        with evaluation_mode(self), torch.no_grad():
            batch = self.resize(check_images(images, self._pixel_range, training=False))
            return self.restore(self.detect(batch), batch)

    def losses(
        self, images: Images, targets: Sequence[Mapping[str, Any]], targets_checked: bool = False
    ) -> dict[str, Tensor]:
        """Compute the named losses, whose sum is to be minimized. Images without objects give finite losses too.

        Args:
            images: The images; see `Images`.
            targets: For each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, 0 … K-1; N may be 0. All of them are
                trained on: drop crowds first. Messages name ``image_id`` if it is present.
            targets_checked: Whether the values of boxes and labels have been checked already, such as by the data
                loader's workers. Checking them again would make every training step wait for the GPU.

        Shape:
            - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``
            - output: scalars

        Raises:
            TypeError: Boxes or labels have a wrong type.
            ValueError: Boxes or labels are invalid; names the image (`check_targets`).
        """
        images = check_images(images, self._pixel_range, self.training)
        check_targets(images, targets, None if targets_checked else self.num_classes)
        batch = self.resize(images)
        return self.compute_losses(batch, self.resize.targets(targets, batch))

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image of a batch, with boxes in pixels of the resized images."""
        raise NotImplementedError(self._undefined("detect(batch)"))

    def restore(self, detections: Sequence[Detections], batch: ImageBatch) -> list[Detections]:
        """Map boxes ``[M, 4]`` of the resized images back to the original images."""
        return self.resize.restore(detections, batch)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of a batch, whose targets have boxes in pixels of the resized images.

        Shape:
            - targets: B dictionaries with ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``
            - output: scalars, by names that begin with ``loss_``
        """
        raise NotImplementedError(self._undefined("compute_losses(batch, targets)"))

    def _undefined(self, method: str) -> str:
        return f"{type(self).__name__} does not define {method}; implement detect and compute_losses in a Detector"


def check_detection_settings(score_threshold: float, nms_iou: float, max_detections: int | None) -> None:
    """Require settings with which a detector can detect something.

    Raises:
        ValueError: A threshold is outside [0, 1], or ``max_detections`` is below 1.
    """
    check_fraction(score_threshold=score_threshold, nms_iou=nms_iou)
    check_min(1, max_detections=max_detections)


def check_images(images: Images, pixel_range: PixelRange | None = None, training: bool = False) -> list[Tensor]:
    """Check images and return them one by one.

    Args:
        images: The images.
        pixel_range: The model's check of the range; None: a new one.
        training: Whether the model is in training mode, where a GPU is not waited for in each step (`PixelRange`).

    Shape:
        - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``
        - output: B tensors ``[3, H_i, W_i]``

    Raises:
        TypeError: An image is neither ``uint8`` nor floating point.
        ValueError: An image is not ``[3, H, W]``, has no pixel, or is floating point outside [0, 1].
    """
    listed = list(images)
    names = [f"images[{index}]" for index in range(len(listed))]
    for name, image in zip(names, listed, strict=True):
        check_pixel_type(image, name)
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            hint = layout_hint(image.shape)
            raise ValueError(f"{name}: must be [3, H, W] with at least one pixel, got {list(image.shape)}{hint}")
    (PixelRange() if pixel_range is None else pixel_range).check(listed, training, names)
    return listed


def check_targets(images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], num_classes: int | None) -> None:
    """Require targets that can be trained on.

    Args:
        images: The images, B tensors ``[3, H_i, W_i]``.
        targets: For each image ``boxes`` floating point ``[N, 4]`` and ``labels`` int64 ``[N]``, 0 … K-1; optionally
            ``image_id``.
        num_classes: Number of classes K. None skips the checks of values, which wait for a GPU once.

    Raises:
        TypeError: Boxes are not a floating point tensor, or labels not an int64 tensor.
        ValueError: The number of targets differs from that of images. A box has NaN or infinite coordinates, has no
            area, or leaves its image by more than 0.01 pixels. A label is not in 0 … K-1. The message names the image
            and the first such object.
    """
    if len(images) != len(targets):
        raise ValueError(f"targets: must be one per image, got {len(targets)} for {len(images)} images")
    for index, target in enumerate(targets):
        if missing := [field for field in ("boxes", "labels") if field not in target]:
            raise ValueError(
                f"{target_name(index, target)}: must have boxes and labels, but {' and '.join(missing)} is missing, "
                f"got {', '.join(target)}"
            )
        boxes, labels = target["boxes"], target["labels"]
        kinds = [value.dtype if isinstance(value, Tensor) else type(value).__name__ for value in (boxes, labels)]
        if not isinstance(boxes, Tensor) or not boxes.is_floating_point() or kinds[1] != torch.int64:
            raise TypeError(
                f"{target_name(index, target)}: boxes must be a floating point tensor and labels an int64 tensor, "
                f"got {kinds[0]} and {kinds[1]}"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise ValueError(
                f"{target_name(index, target)}: boxes must be [N, 4] and labels [N], got {list(boxes.shape)} and "
                f"{list(labels.shape)}"
            )
    if num_classes is None or not targets:
        return
    counts = [len(target["labels"]) for target in targets]
    boxes = torch.cat([target["boxes"].float() for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    sides = torch.tensor([(*image.shape[:0:-1],) * 2 for image in images])  # [B, 4]: W, H, W, H
    limits = sides.repeat_interleave(torch.tensor(counts), 0).to(boxes)
    errors = _value_errors(boxes, labels, limits, num_classes)
    if bool(torch.stack(list(errors.values())).any()):
        _raise_first(errors, boxes, labels, images, targets, num_classes)


def _value_errors(boxes: Tensor, labels: Tensor, limits: Tensor, num_classes: int) -> dict[str, Tensor]:
    """For each kind of error, in the order of report, which objects have it: bool ``[N]``.

    ``boxes`` and ``limits`` are ``[N, 4]``, ``labels`` is ``[N]``.
    """
    return {
        "has a NaN or infinite coordinate": ~boxes.isfinite().all(1),
        "has no area": (boxes[:, 2:] <= boxes[:, :2]).any(1),
        "leaves the image": ((boxes < -BOX_TOLERANCE) | (boxes > limits + BOX_TOLERANCE)).any(1),
        "label": (labels < 0) | (labels >= num_classes),
    }


def _raise_first(
    errors: Mapping[str, Tensor],
    boxes: Tensor,
    labels: Tensor,
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
) -> None:
    """Report the first object with an error; ``errors`` hold ``[N]`` each, ``boxes`` are ``[N, 4]``."""
    first = int(torch.stack(list(errors.values())).any(0).nonzero()[0])
    error = next(name for name, present in errors.items() if bool(present[first]))
    index, number = 0, first  # of the image, and of the object in it
    while number >= len(targets[index]["labels"]):
        number -= len(targets[index]["labels"])
        index += 1
    name, (height, width) = target_name(index, targets[index]), images[index].shape[-2:]
    if error == "label":
        raise ValueError(f"{name}: label {number} must be in 0 … {num_classes - 1}, got {int(labels[first])}")
    raise ValueError(
        f"{name}: box {number} {error} ({width} x {height} pixels), got "
        f"{[round(value, 4) for value in boxes[first].tolist()]}; boxes are x1, y1, x2, y2 in pixels, "
        f"0 <= x1 < x2 <= {width}, 0 <= y1 < y2 <= {height}"
    )


def target_name(index: int, target: Mapping[str, Any]) -> str:
    """How messages name the target of an image: its index, and its ``image_id`` if it has one."""
    image_id = target.get("image_id")
    if isinstance(image_id, Tensor) and image_id.numel() == 1:
        image_id = image_id.item()
    return f"targets[{index}]" + ("" if image_id is None else f" (image_id {image_id})")
