"""The seam of all detectors: images in, boxes in their pixels out; and losses from images and targets.

Shape legend: B images, image i of ``H_i`` by ``W_i`` pixels; N objects of an image, M detections in it, K classes.
Boxes are ``x1, y1, x2, y2`` in pixels and lie between pixels: one that covers the whole image is ``0, 0, W, H``.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NotRequired, TypedDict

import torch
from torch import Tensor, nn

from ..ops.checks import check_fraction, check_min
from .resize import ImageBatch, ResizeAndPad

Images = Tensor | Sequence[Tensor]
"""B images: ``uint8`` in [0, 255] or floating point in [0, 1]; ``[B, 3, H, W]``, or B times ``[3, H_i, W_i]``."""

_OVERSHOOT = 0.25
"""By which floating point pixels may leave [0, 1]: more than a sharpening interpolation adds."""

SLACK = 0.01
"""Pixels by which a true box may leave its image: what rounding adds when boxes are scaled."""


class Detections(TypedDict):
    """What is seen in one image, the surest first."""

    boxes: Tensor  # float32 [M, 4], x1 y1 x2 y2 in pixels of the image that was given, within it
    scores: Tensor  # float32 [M], 0..1, falling
    labels: Tensor  # int64 [M], 0..K-1
    masks: NotRequired[Tensor]  # instance segmentation: float32 [M, H, W], 0..1


class Detector(nn.Module):
    """Base of the detectors: it checks what comes in, resizes on the device, and maps boxes back.

    A subclass supplies `detect` and `compute_losses`, which see one padded batch and boxes in its pixels. `forward`
    gives detections in training and in evaluation mode alike, and `losses` losses; the mode only decides what batch
    normalisation and dropout do.

    Args:
        num_classes: K, without background: that is a detector's private affair.
        resize: what the images go through.

    Raises:
        ValueError: ``num_classes`` is below 1.

    Attributes:
        load_report: what a checkpoint of a whole detector gave; None where none was loaded.
    """

    load_report: Any = None

    def __init__(self, num_classes: int, resize: ResizeAndPad) -> None:
        super().__init__()
        check_min(1, num_classes=num_classes)
        self.num_classes = num_classes
        self.resize = resize

    def forward(self, images: Images) -> list[Detections]:
        """The objects of each image, without gradient.

        Shape:
            - images: `Images`
            - output: B `Detections`
        """
        batch = self.resize(check_images(images))
        with torch.no_grad():
            return self.resize.restore(self.detect(batch), batch)

    def losses(self, images: Images, targets: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The named losses, whose sum is to be minimised; finite, and with a gradient, for images without objects too.

        Args:
            images: `Images`.
            targets: of each image ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``, 0 … K-1; N may be 0. All of them are
                trained on: what is not to be (crowds) is left out before. ``image_id``, where there is one, is named in
                messages.

        Raises:
            ValueError: boxes or labels that cannot be; names the image (`check_targets`).
        """
        images = check_images(images)
        check_targets(images, targets, self.num_classes)
        batch = self.resize(images)
        return self.compute_losses(batch, self.resize.targets(targets, batch))

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """The objects of each image of a batch, in pixels of the resized images."""
        raise NotImplementedError(self._undefined("detect(batch)"))

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The losses of a batch, whose targets have boxes in pixels of the resized images; names begin ``loss_``."""
        raise NotImplementedError(self._undefined("compute_losses(batch, targets)"))

    def _undefined(self, method: str) -> str:
        return f"{type(self).__name__} does not define {method}; a Detector supplies detect and compute_losses"


def check_detecting(score_threshold: float, nms_iou: float, max_detections: int) -> None:
    """Refuse settings with which a detector would find nothing, or anything.

    Raises:
        ValueError: a threshold that is not from 0 to 1, or fewer detections than 1; names it and its value.
    """
    check_fraction(score_threshold=score_threshold, nms_iou=nms_iou)
    check_min(1, max_detections=max_detections)


def check_images(images: Images) -> list[Tensor]:
    """The images one by one.

    Raises:
        TypeError: images that are neither ``uint8`` nor floating point.
        ValueError: images that are not ``[3, H, W]`` with a pixel at least, or floating point outside [0, 1] (looked
            for on a CPU only: a GPU would have to be waited for); names the first.
    """
    listed = list(images)
    for place, image in enumerate(listed):
        if not isinstance(image, Tensor) or (image.dtype != torch.uint8 and not image.is_floating_point()):
            what = str(image.dtype) if isinstance(image, Tensor) else type(image).__name__
            raise TypeError(f"image {place}: give a tensor, uint8 in [0, 255] or floating point in [0, 1], not {what}")
        if image.ndim != 3 or image.shape[0] != 3 or 0 in image.shape:
            raise ValueError(f"image {place}: {list(image.shape)} is no image [3, H, W]")
        if image.is_floating_point() and image.device.type == "cpu":
            least, largest = (float(value) for value in image.detach().aminmax())
            if not (least >= -_OVERSHOOT and largest <= 1 + _OVERSHOOT):
                raise ValueError(
                    f"image {place}: its values are from {least:.4g} to {largest:.4g}; floating point pixels lie in "
                    "[0, 1], and the model normalises them; those from 0 to 255 are given as uint8"
                )
    return listed


def check_targets(images: Sequence[Tensor], targets: Sequence[Mapping[str, Any]], num_classes: int) -> None:
    """Refuse targets that would train on nonsense. On a GPU this waits for it once.

    Args:
        images: B times ``[3, H_i, W_i]``.
        targets: ``boxes`` floating point ``[N, 4]`` and ``labels`` int64 ``[N]``, 0 … K-1, of each image; perhaps
            ``image_id``.
        num_classes: K.

    Raises:
        TypeError: boxes that are no floating point tensor, or labels that are no int64 tensor.
        ValueError: as many targets as images are wanted; boxes with NaN or infinity, without area, or outside their
            image by more than 0.01 pixels; labels outside the classes. Names the image, the first such box and why.
    """
    if len(images) != len(targets):
        raise ValueError(f"{len(targets)} targets for {len(images)} images; each image needs one")
    for place, target in enumerate(targets):
        if lacking := [field for field in ("boxes", "labels") if field not in target]:
            named = _image_name(place, target)
            raise ValueError(f"{named}: no {' and no '.join(lacking)}; it has {', '.join(target)}")
        boxes, labels = target["boxes"], target["labels"]
        if not (isinstance(boxes, Tensor) and isinstance(labels, Tensor)):
            raise TypeError(
                f"{_image_name(place, target)}: boxes and labels are tensors, got {type(boxes).__name__} and "
                f"{type(labels).__name__}"
            )
        if not boxes.is_floating_point() or labels.dtype != torch.int64:
            raise TypeError(
                f"{_image_name(place, target)}: boxes are floating point and labels int64, got {boxes.dtype} and "
                f"{labels.dtype}"
            )
        if boxes.ndim != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
            raise ValueError(
                f"{_image_name(place, target)}: boxes {list(boxes.shape)} and labels {list(labels.shape)} are not "
                "[N, 4] and [N]"
            )
    if not targets:
        return
    counts = [len(target["labels"]) for target in targets]
    boxes = torch.cat([target["boxes"].float() for target in targets])
    labels = torch.cat([target["labels"] for target in targets])
    sides = torch.tensor([(*image.shape[:0:-1],) * 2 for image in images])  # W, H, W, H
    limits = sides.repeat_interleave(torch.tensor(counts), 0).to(boxes)
    faults = _faults(boxes, labels, limits, num_classes)
    if bool(torch.stack(list(faults.values())).any()):
        _raise_first(faults, boxes, labels, images, targets, num_classes)


def _faults(boxes: Tensor, labels: Tensor, limits: Tensor, num_classes: int) -> dict[str, Tensor]:
    """For each kind of fault which boxes have it, ``[N]`` each; in the order in which they are to be told."""
    return {
        "has a coordinate that is no finite number": ~boxes.isfinite().all(1),
        "has no area": (boxes[:, 2:] <= boxes[:, :2]).any(1),
        "leaves the image": ((boxes < -SLACK) | (boxes > limits + SLACK)).any(1),
        "label": (labels < 0) | (labels >= num_classes),
    }


def _raise_first(
    faults: Mapping[str, Tensor],
    boxes: Tensor,
    labels: Tensor,
    images: Sequence[Tensor],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
) -> None:
    first = int(torch.stack(list(faults.values())).any(0).nonzero()[0])
    why = next(reason for reason, found in faults.items() if bool(found[first]))
    place, at = 0, first
    while at >= len(targets[place]["labels"]):
        at -= len(targets[place]["labels"])
        place += 1
    name, (height, width) = _image_name(place, targets[place]), images[place].shape[-2:]
    if why == "label":
        raise ValueError(f"{name}: label {int(labels[first])} of object {at} is not in 0 … {num_classes - 1}")
    raise ValueError(
        f"{name} ({width} x {height} pixels): box {[round(value, 4) for value in boxes[first].tolist()]} of object "
        f"{at} {why}; boxes are x1, y1, x2, y2 in pixels, 0 <= x1 < x2 <= {width}, 0 <= y1 < y2 <= {height}"
    )


def _image_name(place: int, target: Mapping[str, Any]) -> str:
    named = target.get("image_id")
    if isinstance(named, Tensor) and named.numel() == 1:
        named = named.item()
    return f"image {place} of the batch" + ("" if named is None else f", image_id {named}")
