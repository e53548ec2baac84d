"""Mask R-CNN on one feature map, without a pyramid: the paper's C4 variant.

Shape legend: B images, K classes, R regions of all images; ``m`` = 14 cells per side of a mask.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import RoIAlign

from ..backbones import Backbone, as_backbone, backbone_name
from ..detection.resize import ImageBatch, ResizeAndPad
from ..detection.two_stage.roi_head import RoIHead, RoISettings
from ..detection.two_stage.rpn import RPN, RPNSettings
from ..modes import evaluation_mode
from ..ops.checks import OrMapping, as_settings, check_fraction, check_min
from .instance_segmenter import InstanceSegmenter
from .mask_targets import mask_loss, mask_targets

_RPN = RPNSettings(anchor_scales=(2.0, 4.0, 8.0, 16.0, 32.0), beta=0.0, proposals=(2000, 1000), min_size=0.0)
_ROI = RoISettings(samples=64, nms_iou=0.5)


class MaskRCNNC4(InstanceSegmenter):
    """Mask R-CNN whose last backbone stage is the head: a ResNet's fourth stage gives the map, its fifth the regions.

    An `RPN` proposes regions on the map before the last stage. RoIAlign pools each of them without rounding, and the
    last stage computes its features. Their mean gives class and box; a transposed convolution and a 1 x 1 convolution
    give one mask per class. Losses: ``loss_objectness``, ``loss_rpn_box``, ``loss_class``, ``loss_box`` and
    ``loss_mask``, the binary cross-entropy of the ground-truth class's mask, averaged over the cells of all regions
    that have an object.

    Args:
        num_classes: Number of classes K, without background.
        backbone: A backbone, or the name of one (see `build_backbone`), with two stages or more.
        weights: Weights of a backbone given by name, as in `FasterRCNN`.
        min_size: Length of the shorter side, in pixels. Several: one is drawn per image in training. None: images are
            not resized.
        max_size: Maximum length of the longer side, in pixels. None: unlimited.
        rpn_channels: Number of channels of the RPN's 3 x 3 convolution.
        pool_size: Number of cells per side of a pooled region, before the last stage.
        mask_channels: Number of channels of the transposed convolution.
        mask_threshold: Pixels with a higher probability belong to the object.
        rpn: Anchors, sampling and proposals, as `RPNSettings` or a dictionary of its arguments. None: the paper's.
        roi: Sampling and detection, as `RoISettings` or a dictionary of its arguments. None: the paper's.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections` with masks

    Raises:
        ValueError: The backbone does not return its last two stages, or a number is out of range.

    Reference:
        He et al., "Mask R-CNN", ICCV 2017, sections 3 and 3.1 and figure 4, left: 15 anchors per cell, 64 regions per
        image. As in the authors' later code (Detectron), regions are pooled to 14 x 14 cells and the fifth stage keeps
        its stride of 2, so that features have 7 x 7 cells; the paper's figure shows 7 x 7 and a stride of 1. RoIAlign
        averages 2 x 2 samples per cell, with the values of pixels at their centers (Detectron2's ``aligned=True``). The
        loss of the RPN's boxes is L1, as in Detectron2.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        weights: str | None = None,
        min_size: int | Sequence[int] | None = 800,
        max_size: int | None = 1333,
        rpn_channels: int = 1024,
        pool_size: int = 14,
        mask_channels: int = 256,
        mask_threshold: float = 0.5,
        rpn: OrMapping[RPNSettings] | None = None,
        roi: OrMapping[RoISettings] | None = None,
    ) -> None:
        check_min(1, rpn_channels=rpn_channels, pool_size=pool_size, mask_channels=mask_channels)
        check_fraction(mask_threshold=mask_threshold)
        body = as_backbone(backbone, weights)
        _check_last_stages(body)
        (channels, features), stride = body.channels[-2:], body.strides[-2]
        super().__init__(
            num_classes, ResizeAndPad(min_size, max_size, size_divisible=stride, fill=body.normalize.mean.tolist())
        )
        self.mask_threshold = mask_threshold
        self.backbone = body
        self.rpn = RPN(channels, rpn_channels, stride, as_settings(RPNSettings, "rpn", _RPN if rpn is None else rpn))
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))
        settings = as_settings(RoISettings, "roi", _ROI if roi is None else roi)
        self.head = RoIHead(RoIAlign(pool_size, 1 / stride, 2, aligned=True), mean, features, num_classes, settings)
        self.mask = MaskRCNNPredictor(features, mask_channels, num_classes)

    def _maps(self, batch: ImageBatch) -> Tensor:
        """The map before the last stage: ``[B, C, h, w]``."""

        def all_but_last(x: Tensor) -> Tensor:  # [B, 3, H, W] to [B, C, h, w]
            for stage in self.backbone.stages[:-1]:
                x = stage(x)
            return x

        return self.backbone.run(all_but_last, batch.pixels)

    def _features(self, maps: Tensor, boxes: Sequence[Tensor]) -> Tensor:
        """The last stage's features ``[R, D, s, s]`` of regions ``[R_i, 4]`` of each image."""
        return self.backbone.stages[-1](self.head.pool_regions(maps, boxes))

    def _mask_logits(self, features: Tensor, labels: Tensor) -> Tensor:
        """Logits of one class's mask per region: float32 ``[R, m, m]``, from ``[R, D, s, s]`` and labels ``[R]``."""
        return self.mask(features)[torch.arange(len(labels), device=labels.device), labels].float()

    def detect(self, batch: ImageBatch) -> list[Any]:
        """Detect the objects of each image, with ``mask_probabilities`` ``[M, m, m]``; see `InstanceSegmenter`."""
        with evaluation_mode(self):
            maps = self._maps(batch)
            proposals = self.rpn.propose(self.rpn(maps), batch.sizes, batch.original_sizes)
            output = self.head.predict(self.head.body(self._features(maps, proposals)))
            detections = self.head.select(output, proposals, batch.sizes)
            boxes = [one["boxes"] for one in detections]
            logits = self._mask_logits(self._features(maps, boxes), torch.cat([one["labels"] for one in detections]))
        masks = logits.sigmoid().split([len(one) for one in boxes])
        return [{**one, "mask_probabilities": mask} for one, mask in zip(detections, masks, strict=True)]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the five losses of a batch; see `Detector.compute_losses`."""
        maps = self._maps(batch)
        output = self.rpn(maps)
        proposals = self.rpn.propose(output, batch.sizes, batch.original_sizes, for_training=True)
        sampled = self.head.sample(proposals, targets)
        features = self._features(maps, [regions.boxes for regions in sampled])
        losses = self.rpn.losses(output, batch.sizes, targets)
        losses |= self.head.sampled_losses(self.head.predict(self.head.body(features)), sampled, targets)
        labels = torch.cat([regions.labels for regions in sampled])
        positive = (labels < self.num_classes).nonzero()[:, 0]
        logits = self._mask_logits(features[positive], labels[positive])
        expected = [
            mask_targets(
                target["masks"],
                regions.boxes[regions.objects >= 0],
                regions.objects[regions.objects >= 0],
                logits.shape[-1],
                size,
                aligned=True,
            )
            for target, regions, size in zip(targets, sampled, batch.sizes, strict=True)
        ]
        return losses | {"loss_mask": mask_loss(logits, expected)}


def _check_last_stages(backbone: Backbone) -> None:
    """Require a backbone that returns its last two stages, one after the other, as ``[B, C, H, W]``.

    Raises:
        ValueError: It does not.
    """
    indices = backbone.out_indices
    if len(indices) < 2 or indices[-1] != indices[-2] + 1 or backbone.nhwc:
        raise ValueError(
            f"backbone: must return the maps of its last two stages, channels first, got {backbone_name(backbone)} "
            f"with out_indices {indices}; leave out_indices unset, or choose another backbone, such as resnet50"
        )
