"""CondInst on FCOS over a feature pyramid on any backbone: masks by small networks, whose weights are predicted.

Shape legend: B images, A locations of all levels together, C channels, N objects of an image, n instances with masks to
compute, ``h x w`` cells of a map. Coordinates lie between pixels: the center of cell (0, 0) of a map of stride s is
(s / 2, s / 2).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones import Backbone
from ..detection.one_stage.fcos import FCOS
from ..detection.resize import ImageBatch
from ..ops.checks import check_fraction, check_min
from ..ops.init import init_gaussian, init_he
from ..ops.masks import RunLengths, resize_maps
from .dynamic_heads import (
    Instances,
    at_locations,
    dice_losses,
    double_size,
    dynamic_logits,
    number_of_parameters,
    sample_masks,
)
from .instance_segmenter import InstanceSegmenter

_CELLS_AT_ONCE = 2**20
"""Cells of logits, of several instances together, that are computed at once in prediction, which bounds memory."""


class MaskBranch(nn.Module):
    """The features that all instances' networks read: pyramid levels, added at the finest one's stride.

    Each level passes a 3 x 3 convolution and is resized bilinearly; the sum passes further convolutions.

    Args:
        channels: Number of channels of the levels.
        hidden: Number of channels of the 3 x 3 convolutions, each followed by batch normalization and a ReLU.
        depth: Number of 3 x 3 convolutions after the sum.
        features: Number of channels C of the output.
        levels: Number of levels.
    """

    def __init__(self, channels: int, hidden: int, depth: int, features: int, levels: int) -> None:
        super().__init__()
        self.refine = nn.ModuleList(_conv_norm_relu(channels, hidden) for _ in range(levels))
        self.tower = nn.Sequential(
            *(_conv_norm_relu(hidden, hidden) for _ in range(depth)), nn.Conv2d(hidden, features, 1)
        )
        init_he(self)

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """The features ``[B, C, h, w]`` of levels from fine to coarse, each half as large as the one before."""
        total = self.refine[0](levels[0])
        height, width = total.shape[-2:]
        for index in range(1, len(levels)):
            level = F.interpolate(self.refine[index](levels[index]), scale_factor=2.0**index, mode="bilinear")
            total = total + level[:, :, :height, :width]
        return self.tower(total)


def _conv_norm_relu(channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU())


class CondInst(InstanceSegmenter, FCOS):
    """CondInst: `FCOS`, and for each object the parameters of a small network that computes its mask.

    A controller, a 3 x 3 convolution on FCOS' tower of boxes, predicts 169 parameters per location: those of three
    1 x 1 convolutions (8 + 2 → 8 → 8 → 1 channels), which read the features of the mask branch and the position of each
    cell relative to the location, in units of the largest distance that FCOS predicts on the location's level. There
    are no regions, no pooling and no anchor boxes. Logits are computed at the finest stride and doubled in size.

    The losses are `FCOS`' three and ``loss_mask``: the dice loss, averaged over the locations that are trained on an
    object, at most ``max_mask_samples`` of a batch, drawn at random.

    Args:
        num_classes: Number of classes K, without background.
        backbone: A backbone, or the name of one, as in `FasterRCNN`.
        detector_weights: Weights of the whole network, as in `FasterRCNN`. From the checkpoint of an `FCOS`,
            torchvision's or ours, everything but the controller and the mask branch is loaded.
        mask_channels: Number of channels of the mask branch's 3 x 3 convolutions.
        mask_layers: Number of its 3 x 3 convolutions after the levels are added.
        mask_features: Number of features that it gives the instances' networks.
        mask_threshold: Pixels with a higher probability belong to the object.
        max_mask_samples: Maximum number of locations whose masks are trained on in a batch.
        score_threshold: Detections have a higher score than this. The reference has 0.05 for the square of it.
        center_locations: As in `FCOS`.
        level_scales: As in `FCOS`.
        kwargs: Other arguments of `FCOS` and `PyramidDetector`.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections` with masks

    Raises:
        ValueError: As in `FCOS`, or a number is out of range.

    Reference:
        Tian et al., "Conditional convolutions for instance segmentation", ECCV 2020, section 3. Deviations: maps are
        resized so that the centers of cells stay in place (``align_corners=False``), and the ground truth is sampled
        there, as the mean of the four pixels around; the authors' code shifts maps by a quarter of a cell when it
        doubles them. Cells outside the image, in the batch's padding, are left out. Others are those of `FCOS`.

    Example:
        >>> import torch
        >>> model = CondInst(3, "resnet18", min_size=None, max_size=None, fpn_channels=64, mask_channels=32)
        >>> detections = model.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)])
        >>> detections[0]["masks"].dense().shape[1:]
        torch.Size([50, 70])
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        *,
        detector_weights: str | None = None,
        mask_channels: int = 128,
        mask_layers: int = 4,
        mask_features: int = 8,
        mask_threshold: float = 0.5,
        max_mask_samples: int = 500,
        score_threshold: float = 0.2236,
        center_locations: bool = True,
        level_scales: bool = True,
        **kwargs: Any,
    ) -> None:
        check_min(1, mask_channels=mask_channels, mask_features=mask_features, max_mask_samples=max_mask_samples)
        check_min(0, mask_layers=mask_layers)
        check_fraction(mask_threshold=mask_threshold)
        super().__init__(
            num_classes,
            backbone,
            score_threshold=score_threshold,
            center_locations=center_locations,
            level_scales=level_scales,
            **kwargs,
        )
        self.mask_threshold, self.max_mask_samples = mask_threshold, max_mask_samples
        pyramid = self.network.backbone
        own = len(pyramid.strides) - 2  # without the two additional levels
        self.mask_stride = pyramid.strides[0]
        self.mask_branch = MaskBranch(pyramid.out_channels, mask_channels, mask_layers, mask_features, own)
        self.controller = nn.Conv2d(pyramid.out_channels, number_of_parameters(mask_features), 3, padding=1)
        init_gaussian(self.controller)
        self.load_detector_weights(detector_weights)

    def _run(self, batch: ImageBatch) -> tuple[Any, list[Tensor], Tensor]:
        """The head's output, the tower of boxes ``[B, C, h, w]`` per level, and the features ``[B, C, h, w]``."""
        levels = self.network.backbone(batch.pixels)
        class_towers, box_towers = self.network.head.towers(levels)
        output = self._with_anchors(self.network.head.predict(class_towers, box_towers), levels, batch)
        return output, box_towers, self.mask_branch(levels[: len(self.mask_branch.refine)]).float()

    def _instances(self, towers: Sequence[Tensor], locations: Tensor, image: Tensor, index: Tensor) -> Instances:
        """The networks of instances: maps ``[B, C, h, w]``, locations ``[A, 4]``, image and location ``[n]``."""
        squares = locations[index]
        return Instances(
            at_locations(self.controller, towers, image, index),
            (squares[:, :2] + squares[:, 2:]) / 2,
            8 * (squares[:, 2] - squares[:, 0]),  # FCOS' largest distance on the level
        )

    def _cells(self, size: tuple[int, int], stride: float) -> tuple[int, int]:
        """Number of rows and columns of cells that cover an image."""
        return int(-(-size[0] // stride)), int(-(-size[1] // stride))

    def _logits(self, features: Tensor, instances: Instances, size: tuple[int, int]) -> Tensor:
        """Logits ``[n, h, w]`` at half the stride of the features ``[C, h, w]`` of an image, which they cover."""
        height, width = self._cells(size, self.mask_stride / 2)
        return double_size(dynamic_logits(features, instances, self.mask_stride))[:, :height, :width]

    def _image_features(self, features: Tensor, index: int, size: tuple[int, int]) -> Tensor:
        """The features ``[C, h, w]`` of one image, without those of padding, from ``[B, C, h, w]``."""
        height, width = self._cells(size, self.mask_stride)
        return features[index, :, :height, :width]

    def detect(self, batch: ImageBatch) -> list[Any]:
        """Detect the objects of each image, with the inputs of `paste`; see `InstanceSegmenter`."""
        output, towers, features = self._run(batch)
        results: list[Any] = []
        for index, size in enumerate(batch.sizes):
            detections, location = self.select(output, index, size)
            image = torch.full_like(location, index)
            results.append(
                {
                    **detections,
                    "instances": self._instances(towers, output.anchors[index], image, location),
                    "features": self._image_features(features, index, size),
                    "resized": size,
                }
            )
        return results

    def paste(self, detected: Mapping[str, Any], size: tuple[int, int]) -> RunLengths:
        """Compute the masks of one image, a few objects at a time, and resize them; see `InstanceSegmenter.paste`.

        Probabilities are interpolated bilinearly between the centers of cells; beyond the outermost centers they stay
        the same.
        """
        resized, features, instances = detected["resized"], detected["features"], detected["instances"]
        stride = self.mask_stride / 2
        cell = (stride * size[0] / resized[0], stride * size[1] / resized[1])  # in pixels of the original image
        at_once = max(1, _CELLS_AT_ONCE // (4 * features.shape[-2] * features.shape[-1]))
        parts = [RunLengths.from_dense(torch.zeros(0, *size, dtype=torch.bool, device=features.device))]
        for start in range(0, len(instances.parameters), at_once):
            logits = self._logits(features, instances.part(slice(start, start + at_once)), resized)
            parts.append(resize_maps(logits.sigmoid(), cell, size, self.mask_threshold))
        return RunLengths.cat(parts)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute FCOS' losses and that of the masks; see `Detector.compute_losses`."""
        targets = [{**target, "boxes": target["boxes"].float()} for target in targets]
        output, towers, features = self._run(batch)
        matches = self.match(targets, output)
        losses = self.network.head.compute_loss(targets, output.values, output.anchors, matches)
        match = torch.stack(matches)  # [B, A]
        image, location = (match >= 0).nonzero(as_tuple=True)
        if len(image) > self.max_mask_samples:
            chosen = torch.randperm(len(image), device=image.device)[: self.max_mask_samples].sort().values
            image, location = image[chosen], location[chosen]
        instances = self._instances(towers, output.anchors[0], image, location)  # every image has the same locations
        parts, first = [], 0
        for index, count in enumerate(image.bincount(minlength=len(targets)).tolist()):
            part, size = slice(first, first + count), batch.sizes[index]
            logits = self._logits(self._image_features(features, index, size), instances.part(part), size)
            objects, inverse = match[index, location[part]].unique(return_inverse=True)
            masks = sample_masks(targets[index]["masks"][objects], logits.shape[1:], self.mask_stride / 2, size)
            parts.append(dice_losses(logits.sigmoid(), masks[inverse]))
            first += count
        loss_mask = torch.cat(parts).sum() / max(len(image), 1)
        return {**{f"loss_{name}": loss for name, loss in losses.items()}, "loss_mask": loss_mask}
