"""The interface of detectors that classify proposed boxes: R-CNN, SPP-net and Fast R-CNN.

Proposals come from outside the network: from a file that the data module reads (``proposals``), or from the detector's
`Proposer`. Shape legend: B images; P proposals of an image; M detections. Boxes are ``x1, y1, x2, y2`` in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ...modes import evaluation_mode
from ...ops.checks import OrMapping, as_settings
from ...proposals import Proposer
from ..detector import BOX_TOLERANCE, Detections, Detector, Images, check_images, check_targets, target_name
from ..resize import ImageBatch, ResizeAndPad, scale_boxes

HOW_TO_STORE = (
    "set the data module's argument proposals to a file that `striate data proposals --config FILE --out FILE.npz` "
    "writes"
)


class ProposalDetector(Detector):
    """Base class of the detectors that classify boxes which they do not propose themselves.

    A subclass implements `detect_proposals` and `compute_losses`. In training, every target has ``proposals``. In
    evaluation they are an argument of `forward`; without it they are computed by `proposer`, which takes seconds per
    photograph with Selective Search. So stored proposals are required for training, and recommended for evaluation.

    Args:
        num_classes: Number of classes K, without background.
        resize: How images are brought to one size. Proposals are scaled with their image.
        proposer: How proposals are computed where none are passed, as `Proposer` or a dictionary of its arguments.
            None: Selective Search's fast mode. Of stored proposals, no more than its ``max_proposals`` are used either.
    """

    def __init__(self, num_classes: int, resize: ResizeAndPad, proposer: OrMapping[Proposer] | None = None) -> None:
        super().__init__(num_classes, resize)
        self.proposer = as_settings(Proposer, "proposer", proposer)

    def forward(self, images: Images, proposals: Sequence[Tensor] | None = None) -> list[Detections]:
        """Detect the objects of each image, in evaluation mode and without gradient; modes are restored afterwards.

        Args:
            images: The images; see `Images`.
            proposals: Proposed boxes of each image, in its pixels, best first. None: `proposer` computes them.

        Shape:
            - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``
            - proposals: B tensors ``[P_i, 4]``; P may be 0
            - output: B `Detections`

        Raises:
            ValueError: Proposals are not ``[P, 4]`` for each image, or lie outside it.
        """
        with evaluation_mode(self), torch.no_grad():
            listed = check_images(images, self._pixel_range, training=False)
            if proposals is None:
                proposals = self.propose(listed)
            else:
                check_proposals(proposals, listed, [f"images[{index}]" for index in range(len(listed))])
            batch = self.resize(listed)
            return self.restore(self.detect_proposals(batch, self._resized(proposals, batch)), batch)

    def propose(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Compute the proposals ``[P_i, 4]`` of images ``[3, H_i, W_i]`` with `proposer`, on the CPU."""
        return [self.proposer(image).to(image.device) for image in images]

    def losses(
        self, images: Images, targets: Sequence[Mapping[str, Any]], targets_checked: bool = False
    ) -> dict[str, Tensor]:
        """Compute the named losses; see `Detector.losses`. Each target has ``proposals`` too; there may be none.

        Shape:
            - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``
            - targets: with ``proposals`` ``[P_i, 4]`` each
            - output: scalars

        Raises:
            TypeError: Boxes or labels have a wrong type.
            ValueError: Boxes, labels or proposals are invalid, or there are no ``proposals``; names the image.
        """
        listed = check_images(images, self._pixel_range, self.training)
        check_targets(listed, targets, None if targets_checked else self.num_classes)
        names = [target_name(index, target) for index, target in enumerate(targets)]
        for name, target in zip(names, targets, strict=True):
            if "proposals" not in target:
                raise ValueError(
                    f"{name}: must have proposals, which {type(self).__name__} is trained on, but they are missing; "
                    f"{HOW_TO_STORE}"
                )
        if not targets_checked:
            check_proposals([target["proposals"] for target in targets], listed, names)
        batch = self.resize(listed)
        resized = self.resize.targets(targets, batch)
        proposals = self._resized([target["proposals"] for target in targets], batch)
        merged = [{**target, "proposals": boxes} for target, boxes in zip(resized, proposals, strict=True)]
        return self.compute_losses(batch, merged)

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Not defined for these detectors, which need proposals; see `detect_proposals`."""
        raise NotImplementedError(f"{type(self).__name__} needs proposals; call detect_proposals(batch, proposals)")

    def detect_proposals(self, batch: ImageBatch, proposals: list[Tensor]) -> list[Detections]:
        """Detect the objects of each image of a batch among its proposals ``[P_i, 4]``, in pixels of resized images."""
        raise NotImplementedError(self._undefined("detect_proposals(batch, proposals)"))

    def _resized(self, proposals: Sequence[Tensor], batch: ImageBatch) -> list[Tensor]:
        """The first proposals ``[P_i, 4]`` of each image, in pixels of the resized images and on their device."""
        return [
            scale_boxes(boxes[: self.proposer.max_proposals].to(batch.pixels.device, torch.float32), old, new)
            for boxes, old, new in zip(proposals, batch.original_sizes, batch.sizes, strict=True)
        ]


def check_proposals(proposals: Sequence[Tensor], images: Sequence[Tensor], names: Sequence[str]) -> None:
    """Require proposals of each image, inside it and with an area. Waits for a GPU once, if there are any.

    Args:
        proposals: Boxes of each image.
        images: The images.
        names: Name of each image in messages.

    Shape:
        - proposals: B tensors ``[P_i, 4]``; images: B tensors ``[3, H_i, W_i]``

    Raises:
        TypeError: Proposals are not a floating point tensor.
        ValueError: Their number is another than that of images, they are not ``[P, 4]``, or a box has a NaN or infinite
            coordinate, has no area, or leaves its image by more than 0.01 pixels.
    """
    if len(proposals) != len(images):
        raise ValueError(f"proposals: must be one tensor per image, got {len(proposals)} for {len(images)} images")
    for name, boxes in zip(names, proposals, strict=True):
        if not isinstance(boxes, Tensor) or not boxes.is_floating_point():
            kind = boxes.dtype if isinstance(boxes, Tensor) else type(boxes).__name__
            raise TypeError(f"{name}: proposals must be a floating point tensor [P, 4], got {kind}")
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"{name}: proposals must be [P, 4], got {list(boxes.shape)}")
    for name, boxes, image in zip(names, proposals, images, strict=True):
        height, width = image.shape[-2:]
        limits = boxes.new_tensor([width, height, width, height]) + BOX_TOLERANCE
        # comparisons with NaN are false, so it is rejected
        valid = (boxes >= -BOX_TOLERANCE).all(1) & (boxes <= limits).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        if not bool(valid.all()):
            first = int((~valid).nonzero()[0])
            raise ValueError(
                f"{name}: proposal {first} is not a box inside the image ({width} x {height} pixels), got "
                f"{[round(value, 4) for value in boxes[first].tolist()]}; proposals are x1, y1, x2, y2 in pixels"
            )
