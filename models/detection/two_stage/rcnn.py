"""R-CNN: each proposal is warped to an image of its own, which a classification network turns into features."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...backbones import Backbone, TorchvisionBackbone, as_backbone
from ...backbones.base import trace_shapes
from ...classification.alexnet import AlexNetBackbone
from ...ops.checks import check_min
from ..resize import ImageBatch, ResizeAndPad
from .fully_connected import describe_region_weights, load_fully_connected
from .region_warping import context_windows, warp_regions
from .roi_head import RoIFullyConnected
from .svm_detector import RegionFeatures, SVMDetector

_SIDES = {"alexnet": 227, "vgg16": 224}
"""Name of a backbone -> side of its images, in pixels."""


class RCNN(SVMDetector):
    """R-CNN as published: regions with CNN features, one linear SVM per class, and box regression.

    Each proposal with some context is warped to the size of the classification network, whatever its aspect ratio. The
    network, up to fc7, is fine-tuned by a softmax over the classes and background. `SVMDetector` describes the stages
    after that.

    Args:
        num_classes: Number of classes K, without background.
        backbone: ``alexnet`` or ``vgg16``, up to pool5; or any backbone, whose last map fc6 takes.
        weights: Weights of a backbone given by name: the path of a checkpoint or, for VGG-16, torchvision's name of
            published weights. fc6 and fc7 are loaded too if they fit, also for a backbone that was built with weights.
        size: Side of a warped region, in pixels. None: 227, or 224 for ``vgg16``.
        context: Pixels of the surroundings on each side of a warped region.
        hidden: Number of units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        regions_at_once: Number of regions that pass the network together in evaluation; limits memory.
        **options: ``sampling``, ``svms``, ``boxes``, ``use_svms``, ``use_box_regression``, ``score_threshold``,
            ``svm_threshold``, ``nms_iou``, ``max_detections`` and ``proposer`` of `SVMDetector`.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such backbone, ``weights`` are given for one that is already built, or a number is out
            of range.

    Reference:
        Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic
        segmentation", CVPR 2014, and the authors' code. Scores are the sigmoid of the SVMs'. For other deviations see
        docs/regions.md and `warp_regions`.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "alexnet",
        weights: str | None = None,
        size: int | None = None,
        context: int = 16,
        hidden: int = 4096,
        dropout: float = 0.5,
        regions_at_once: int = 256,
        **options: Any,
    ) -> None:
        check_min(1, size=size, regions_at_once=regions_at_once)
        size = size or (_SIDES.get(backbone, 227) if isinstance(backbone, str) else 227)
        context_windows(torch.zeros(0, 4), size, context)  # checks them
        built = _build_backbone(backbone, weights)
        channels, cells = built.channels[-1], trace_shapes(built.stages, size)[-1][-1]
        super().__init__(
            num_classes,
            ResizeAndPad(fill=built.normalize.mean.flatten().tolist()),
            features=hidden,
            pooled=channels * cells**2,
            **options,
        )
        self.size, self.context, self.regions_at_once = size, context, regions_at_once
        self.backbone = built
        self.body = RoIFullyConnected(channels, cells, hidden, dropout)
        self._body_report = load_fully_connected(self.body, built)
        self.score = nn.Linear(hidden, num_classes + 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)

    def region_features(self, batch: ImageBatch, boxes: Sequence[Tensor]) -> RegionFeatures:
        """Warp regions ``[P_i, 4]`` of each image and pass them through the network; see `SVMDetector`."""
        crops = []
        for pixels, (height, width), regions in zip(batch.pixels, batch.sizes, boxes, strict=True):
            crops += [(pixels[:, :height, :width], part) for part in regions.split(self._chunk(len(regions)))]
        if torch.is_grad_enabled():  # batch normalization needs all regions of a batch
            chunks = [self._network(torch.cat([self._warp(*crop) for crop in crops]))]
        else:
            chunks = [self._network(self._warp(*crop)) for crop in crops]
        return RegionFeatures(*map(torch.cat, zip(*chunks, strict=True)))

    def describe_weights(self) -> str | None:
        """What was loaded into the backbone, fc6 and fc7, as lines of text. None: nothing was loaded."""
        return describe_region_weights(self.backbone, self._body_report, "class scores: new; SVMs and boxes: later")

    def _chunk(self, count: int) -> int:
        """Number of regions that pass the network together."""
        return max(count, 1) if torch.is_grad_enabled() else self.regions_at_once

    def _warp(self, image: Tensor, regions: Tensor) -> Tensor:
        """Warp regions ``[R, 4]`` of an image ``[3, H, W]``: ``[R, 3, size, size]`` in [0, 1]."""
        scaled = image.float() / 255 if image.dtype == torch.uint8 else image.float()
        return warp_regions(
            scaled, regions.float(), self.size, self.context, self.backbone.normalize.mean.flatten().tolist()
        )

    def _network(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """Pooled features ``[R, D']`` and features ``[R, D]`` of crops ``[R, 3, size, size]``."""
        if not len(crops):
            return crops.new_zeros(0, self.box_weight.shape[1]), crops.new_zeros(0, self.svm_weight.shape[1])
        pooled = self.backbone(crops)[-1].flatten(1)
        return pooled, self.body(pooled)


def _build_backbone(backbone: Backbone | str, weights: str | None) -> Backbone:
    if backbone == "alexnet":
        init: Any = "he" if weights is None else None
        return AlexNetBackbone(first_padding=0, out_indices=(3,), weights=weights, init=init)
    if backbone == "vgg16":
        return TorchvisionBackbone("vgg16", weights, out_indices=(5,))
    return as_backbone(backbone, weights)
