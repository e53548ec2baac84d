"""Faster R-CNN over a feature pyramid on any backbone.

Parts, names and defaults are torchvision's. With its ResNet-50 and the weights of its detectors, boxes, scores and
losses equal torchvision's. Differences: the backbone normalizes pixels, `ResizeAndPad` resizes images, boxes are
computed in float32 under autocast too, and levels and anchors follow from the backbone's strides.

Shape legend: B images, C channels of a level, A anchors, K classes, N objects, R regions.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from ...backbones import Backbone
from ...ops.checks import check_length, check_min, indexed
from ...ops.matching import BACKGROUND, IGNORED, match_anchors
from ..detector import Detections
from ..network_detector import torchvision_mode
from ..pyramid import FeaturePyramid, Sizes, make_anchors
from ..pyramid_detector import PyramidDetector
from ..resize import ImageBatch

_REGIONS_AT_ONCE = 256
"""Number of regions per image whose features are pooled at once without gradient, which bounds memory."""


class FasterRCNN(PyramidDetector):
    """Faster R-CNN on a feature pyramid, over any backbone.

    A small network on every level proposes boxes. Each region is pooled from the level that suits its size (RoIAlign,
    7 x 7 cells), and two fully connected layers classify it and refine its box. Losses: ``loss_objectness`` and
    ``loss_rpn_box_reg`` of the proposals, ``loss_classifier`` and ``loss_box_reg`` of the regions.

    Args:
        num_classes: Number of classes K, without background.
        backbone: A backbone, or the name of one (see `build_backbone`).
        anchor_sizes: For each level, the square roots of the anchors' areas, in pixels. The last level is pooled from
            the pyramid's coarsest, with twice its stride. None: eight times the level's stride.
        ratios: Aspect ratios of the anchors, height over width.
        hidden: Number of units of each of the two fully connected layers; of the only one with ``conv_heads``.
        proposals: Number of boxes per level that enter non-maximum suppression, and of proposals per image that remain;
            in training and in evaluation.
        rpn_samples: Number of anchors per image that are trained on, at most half of them foreground.
        roi_samples: Number of regions per image that are trained on, at most a quarter of them foreground.
        canonical_scale: Side of a region that is pooled from the level of stride 16, in pixels.
        conv_heads: Use the stronger heads of torchvision's ``_v2`` networks: two convolutions in the proposal network,
            four and one fully connected layer for a region, and batch normalization there and in the pyramid.
        kwargs: Other arguments of `PyramidDetector`: ``weights`` of the backbone, ``detector_weights``, ``min_size``,
            ``max_size``, ``fpn_channels``, ``finest_stride``, ``score_threshold``, ``nms_iou`` and ``max_detections``.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: A number is out of range; others as in `PyramidDetector`.

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks for object detection", CVPR
        2017, section 4. Deviations, as in torchvision: RoIAlign with 2 x 2 samples per cell instead of pooling; smooth
        L1 with a beta of 1/9 in both stages; anchors that cross the border are trained on; 512 regions per image;
        regions with an IoU below 0.5, from 0 on, are background. The paper's own detector, on one map of VGG, is
        `SingleMapFasterRCNN`.

    Example:
        >>> import torch
        >>> detector = FasterRCNN(3, "resnet18", min_size=None, max_size=None, fpn_channels=32, hidden=64)
        >>> detections = detector.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)])
        >>> sorted(detections[0])
        ['boxes', 'labels', 'scores']
    """

    _name = "fasterrcnn_resnet50_fpn"  # torchvision's, of the network without its stronger heads

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        *,
        anchor_sizes: Sizes | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        hidden: int = 1024,
        proposals: tuple[int, int] = (2000, 1000),
        rpn_samples: int = 256,
        roi_samples: int = 512,
        canonical_scale: int = 224,
        conv_heads: bool = False,
        **kwargs: Any,
    ) -> None:
        check_min(1, hidden=hidden, rpn_samples=rpn_samples, roi_samples=roi_samples, canonical_scale=canonical_scale)
        check_length(2, proposals=proposals)
        check_min(1, **indexed("proposals", proposals))

        def make_network(pyramid: FeaturePyramid) -> tv.FasterRCNN:
            channels, strides = pyramid.out_channels, pyramid.strides
            anchors = make_anchors(anchor_sizes or [[8 * stride] for stride in strides], ratios, strides)
            box_head = (
                FastRCNNConvFCHead((channels, 7, 7), [channels] * 4, [hidden], nn.BatchNorm2d)
                if conv_heads
                else TwoMLPHead(channels * 7 * 7, hidden)
            )
            network = tv.FasterRCNN(
                pyramid,
                rpn_anchor_generator=anchors,
                rpn_head=FloatRPNHead(channels, anchors.num_anchors_per_location()[0], 1 + conv_heads),
                rpn_pre_nms_top_n_train=proposals[0],
                rpn_pre_nms_top_n_test=proposals[1],
                rpn_post_nms_top_n_train=proposals[0],
                rpn_post_nms_top_n_test=proposals[1],
                rpn_batch_size_per_image=rpn_samples,
                box_roi_pool=roi_align_levels(strides[:-1], 7, canonical_scale),
                box_head=box_head,
                box_predictor=FloatPredictor(hidden, num_classes + 1),
                box_batch_size_per_image=roi_samples,
            )
            network.rpn.box_similarity = BoxesAndAnchors
            network.rpn.proposal_matcher = BlockwiseMatcher(0.7, 0.3)
            return network

        builder = self._name + "_v2" * conv_heads
        super().__init__(
            make_network,
            builder,
            num_classes,
            backbone,
            extra="pool",
            p6_from_trunk=False,
            fpn_norm=conv_heads,
            **kwargs,
        )

    def propose(
        self, batch: ImageBatch, targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[dict[str, Tensor], list[Tensor], dict[str, Tensor]]:
        """Run the first stage.

        Args:
            batch: Padded images.
            targets: Targets with torchvision's labels, for the losses and the number of proposals of training.

        Returns:
            The pyramid's levels by name, the proposals of each image ``[P, 4]``, and the losses.
        """
        with torchvision_mode(self.network, training=targets is not None):
            levels = self.network.backbone.named_levels(batch.pixels)
            proposals, losses = self.network.rpn(ImageList(batch.pixels, batch.sizes), levels, targets)
        return levels, proposals, losses

    def refine(
        self,
        levels: dict[str, Tensor],
        proposals: list[Tensor],
        batch: ImageBatch,
        targets: list[dict[str, Tensor]] | None = None,
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        """Run the second stage on proposals ``[P, 4]`` of each image.

        Args:
            levels: The pyramid's levels by name.
            proposals: Boxes of each image, in pixels of the resized images.
            batch: Padded images.
            targets: Targets with torchvision's labels, for the losses.

        Returns:
            Detections with torchvision's labels without targets, and losses with targets.
        """
        heads = self.network.roi_heads
        if targets is None and not torch.is_grad_enabled():
            logits, deltas = self._refine_in_parts(levels, proposals, batch.sizes)
            found = heads.postprocess_detections(logits, deltas, proposals, batch.sizes)
            return [dict(zip(("boxes", "scores", "labels"), one, strict=True)) for one in zip(*found, strict=True)], {}
        with torchvision_mode(self.network, training=targets is not None):
            return heads(levels, proposals, batch.sizes, targets)

    def _refine_in_parts(
        self, levels: dict[str, Tensor], proposals: list[Tensor], sizes: list[tuple[int, int]]
    ) -> tuple[Tensor, Tensor]:
        """Class logits ``[R, K + 1]`` and deltas ``[R, 4 (K + 1)]`` of all proposals, ``[P, 4]`` of each image.

        Pooled features of all of them would be the peak of the memory: 100 MB for an image.
        """
        heads, counts = self.network.roi_heads, [len(boxes) for boxes in proposals]
        first = [end - count for end, count in zip(itertools.accumulate(counts), counts, strict=True)]
        at_once, parts = _REGIONS_AT_ONCE * len(proposals), []
        for start in range(0, max(sum(counts), 1), at_once):
            limits = [(max(start - before, 0), max(start + at_once - before, 0)) for before in first]
            chosen = [boxes[low:high] for boxes, (low, high) in zip(proposals, limits, strict=True)]
            parts.append(heads.box_predictor(heads.box_head(heads.box_roi_pool(levels, chosen, sizes))))
        logits, deltas = (torch.cat(each) for each in zip(*parts, strict=True))
        return logits, deltas

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        levels, proposals, _ = self.propose(batch)
        detections, _ = self.refine(levels, proposals, batch)
        return [Detections(boxes=one["boxes"], scores=one["scores"], labels=one["labels"] - 1) for one in detections]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the losses of both stages; see `Detector.compute_losses`."""
        shifted = torchvision_targets(targets)
        levels, proposals, losses = self.propose(batch, shifted)
        return {**losses, **self.refine(levels, proposals, batch, shifted)[1]}


def torchvision_targets(targets: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
    """Targets with torchvision's labels, whose 0 is the background, and boxes ``[N, 4]`` in float32."""
    return [{**target, "boxes": target["boxes"].float(), "labels": target["labels"] + 1} for target in targets]


class BoxesAndAnchors(NamedTuple):
    """Ground-truth boxes and anchors to be matched, in place of the matrix of their IoUs."""

    boxes: Tensor  # [N, 4]
    anchors: Tensor  # [A, 4]


class BlockwiseMatcher:
    """Matches anchors as torchvision's ``Matcher`` does, with `match_anchors` and the same result values.

    It computes IoUs block by block. The matrix of 5,000 objects and the anchors of an image of 800 pixels would take
    3 GB, and 30 GB to compute. An object that no anchor overlaps gets none. torchvision gives each object all anchors
    that share its highest IoU; for an object between the anchors (small objects, anchors far apart) this IoU is 0, so
    that nearly all anchors would become foreground.

    Args:
        high_threshold: Minimum IoU of a foreground anchor.
        low_threshold: IoU below which an anchor is background. Anchors between the two are ignored.
    """

    # torchvision's region proposal network reads these
    BELOW_LOW_THRESHOLD = BACKGROUND
    BETWEEN_THRESHOLDS = IGNORED

    def __init__(self, high_threshold: float, low_threshold: float) -> None:
        self.high_threshold, self.low_threshold = high_threshold, low_threshold

    def __call__(self, pairs: BoxesAndAnchors) -> Tensor:
        """The index of each anchor's object, -1 for background, -2 for ignored: int64 ``[A]``."""
        return match_anchors(*pairs, self.high_threshold, self.low_threshold, allow_low_quality=True)


class FloatRPNHead(RPNHead):
    """torchvision's head with outputs in float32, so that boxes are not decoded in bfloat16 under autocast."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness ``[B, A', h, w]`` and deltas ``[B, 4 A', h, w]`` of each level, with A' anchors per cell."""
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class FloatPredictor(FastRCNNPredictor):
    """torchvision's class and box layers with outputs in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits ``[R, K + 1]`` and deltas ``[R, 4 (K + 1)]`` of the regions' features ``[R, D]``."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


def roi_align_levels(strides: Sequence[int], size: int, canonical_scale: int) -> MultiScaleRoIAlign:
    """torchvision's RoIAlign with known levels. It would infer them from the first batch and keep the result.

    Args:
        strides: Strides of the levels to pool from, in pixels.
        size: Number of cells per side of a pooled region.
        canonical_scale: Side of a region that is pooled from the level of stride 16, in pixels.
    """
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], size, 2, canonical_scale=canonical_scale)
    pool.scales = [1 / stride for stride in strides]
    first, last = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
    pool.map_levels = initLevelMapper(first, last, canonical_scale=canonical_scale, canonical_level=4)
    return pool
