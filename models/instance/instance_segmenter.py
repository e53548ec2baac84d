"""The interface of all instance segmenters: that of detectors, with a mask for each object.

Shape legend: B images, image i of ``H_i`` by ``W_i`` pixels; N objects of an image, M detections in it; ``m`` cells per
side of a small mask.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..detection.detector import Detections, Detector, Images, target_name
from ..detection.resize import ImageBatch
from ..ops.masks import RunLengths, paste_masks


class InstanceSegmenter(Detector):
    """Base class of the instance segmenters: a `Detector` whose detections have masks.

    `detect` returns the detections with small masks, ``mask_probabilities`` ``[M, m, m]`` in their boxes. `forward`
    pastes them into the image, object by object, so that ``masks`` of its detections is a `RunLengths` of M masks in
    pixels of the input image; ``masks.dense()`` is bool ``[M, H, W]``. A mask may be empty. A subclass with other small
    masks overrides `paste`.

    Attributes:
        mask_threshold: Pixels with a higher probability belong to the object. Can be set.
    """

    mask_threshold: float = 0.5

    def restore(self, detections: Sequence[Detections], batch: ImageBatch) -> list[Detections]:
        """Map boxes ``[M, 4]`` back to the original images, and paste the masks there."""
        restored = super().restore(detections, batch)
        return [self._with_masks(one, size) for one, size in zip(restored, batch.original_sizes, strict=True)]

    def _with_masks(self, detected: Mapping[str, Any], size: tuple[int, int]) -> Detections:
        return Detections(
            boxes=detected["boxes"],
            scores=detected["scores"],
            labels=detected["labels"],
            masks=self.paste(detected, size),
        )

    def paste(self, detected: Mapping[str, Any], size: tuple[int, int]) -> RunLengths:
        """Return the masks of one image.

        Args:
            detected: Detections with boxes ``[M, 4]`` in pixels of the original image, and the fields of `detect`.
            size: Height and width of the original image, in pixels.
        """
        return paste_masks(detected["mask_probabilities"], detected["boxes"], size, self.mask_threshold)

    def losses(
        self, images: Images, targets: Sequence[Mapping[str, Any]], targets_checked: bool = False
    ) -> dict[str, Tensor]:
        """Compute the named losses; see `Detector.losses`. Targets have masks too, in pixels of their image.

        Args:
            images: The images.
            targets: For each image ``boxes`` ``[N, 4]``, ``labels`` ``[N]`` and ``masks`` ``[N, H_i, W_i]``, bool or
                uint8, 0 or 1; N may be 0.
            targets_checked: Whether the values of boxes, labels and masks have been checked already.

        Raises:
            TypeError: A field has a wrong type.
            ValueError: A field is missing or invalid; names the image.
        """
        check_mask_targets(images, targets, values=not targets_checked)
        return super().losses(images, targets, targets_checked)


def check_mask_targets(images: Images, targets: Sequence[Mapping[str, Any]], values: bool = True) -> None:
    """Require a mask of each object, in the size of its image.

    Args:
        images: The images, ``[B, 3, H, W]`` or B tensors ``[3, H_i, W_i]``.
        targets: For each image ``labels`` ``[N]`` and ``masks`` ``[N, H_i, W_i]``; optionally ``image_id``.
        values: Whether to check that no mask is empty and that values are 0 or 1, which waits for a GPU once.

    Raises:
        TypeError: Masks are neither bool nor uint8.
        ValueError: Masks are missing or empty, of another size or number, or have other values.
    """
    for index, (image, target) in enumerate(zip(images, targets, strict=False)):
        name = target_name(index, target)
        if "masks" not in target:
            raise ValueError(f"{name}: must have masks for instance segmentation, got {', '.join(target)}")
        masks, expected = target["masks"], (len(target["labels"]), *image.shape[-2:])
        if not isinstance(masks, Tensor) or masks.dtype not in (torch.bool, torch.uint8):
            kind = masks.dtype if isinstance(masks, Tensor) else type(masks).__name__
            raise TypeError(f"{name}: masks must be a bool or uint8 tensor, got {kind}")
        if masks.shape != expected:
            raise ValueError(
                f"{name}: masks must be [N, H, W] = {list(expected)}, one per object in the size of the image, got "
                f"{list(masks.shape)}"
            )
        if values and masks.numel():
            highest = masks.flatten(1).amax(1)
            if not bool((highest == 1).all()):
                number = int((highest != 1).nonzero()[0])
                problem = f"must be 0 or 1, got {int(highest[number])}" if highest[number] else "must not be empty"
                raise ValueError(f"{name}: mask {number} {problem}; drop objects without pixels, and scale 255 to 1")
