"""FCIS: instances from inside and outside position-sensitive score maps, one network for all regions.

Shape legend: B images, maps of h by w cells; R regions of all images, R_i of image i; M detections in an image; K
classes; N objects of an image; g groups and ``m`` cells per side of a region. Boxes are ``x1, y1, x2, y2`` in pixels.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..backbones import Backbone, TorchvisionBackbone, as_backbone, dilated_backbone
from ..detection.detector import Detections, check_detection_settings
from ..detection.postprocessing import select_detections
from ..detection.resize import ImageBatch, ResizeAndPad, scale_boxes
from ..detection.two_stage.roi_head import RoISample, sample_regions
from ..detection.two_stage.rpn import RPN, RPNOutput, RPNSettings
from ..ops.box_coding import decode_boxes, encode_boxes
from ..ops.boxes import clip_boxes
from ..ops.checks import OrMapping, as_settings, check_fraction, check_min
from ..ops.init import init_gaussian
from ..ops.masks import RunLengths, paste_masks
from .inside_outside import FCISSettings, RegionScores, RegionTargets, fcis_losses
from .instance_segmenter import InstanceSegmenter
from .mask_targets import mask_targets
from .mask_voting import tight_boxes, vote_masks, voting_weights
from .position_sensitive import position_sensitive_pool

_COCO_RPN = {
    "anchor_scales": (4.0, 8.0, 16.0, 32.0),
    "before_nms": (6000, 6000),
    "proposals": (300, 300),
    "min_size": 2.0,
}


class FCISMaps(NamedTuple):
    """Output of the network for a batch.

    Attributes:
        rpn: Output of the region proposal network.
        scores: Maps of g x g groups, each of K + 1 pairs of outside and inside: ``[B, 2 (K + 1) g g, h, w]``.
        boxes: Maps of box offsets, of background and then of objects, g x g groups of four each: ``[B, 8 g g, h, w]``.
    """

    rpn: RPNOutput
    scores: Tensor
    boxes: Tensor


class FCIS(InstanceSegmenter):
    """Fully convolutional instance segmentation (FCIS): classes and masks of regions are read from the same maps.

    All weights are convolutions over the whole image. For each class and for the background, ``groups x groups`` maps
    score whether a cell is inside an object, and as many whether it is outside: one per position in a region. A region
    is pooled to ``pool_size x pool_size`` cells, each from the maps of its position. The class score is the higher of
    the two scores of a cell, averaged over the region; the mask is the softmax of the two. Offsets of boxes are pooled
    and averaged in the same way, one box for all classes.

    Losses: `RPN`'s ``loss_objectness`` and ``loss_rpn_box``; ``loss_class``, ``loss_mask`` and ``loss_box`` of the
    regions (`fcis_losses`). At test, regions are moved by their offsets and pooled again. Old and new regions go
    through non-maximum suppression together, and all regions that overlap a detection vote on its mask (`vote_masks`).
    Its box is the tightest one around its mask.

    Args:
        num_classes: Number of classes K, without background.
        backbone: ``resnet101``: conv1 and res2 are frozen, and all batch normalization. Or any backbone, or the name of
            one (see `build_backbone`). The last map gives the scores. The proposals are made on the map before it, if
            that has the same stride; else on the last map too.
        weights: Weights of a backbone given by name: the name of published weights, or the path of a checkpoint.
        output_stride: Stride of the last map, in pixels. A backbone with a larger one is dilated in place
            (`TorchvisionBackbone.dilate`).
        resize: Resizing of images. None: shorter side 600 pixels, longer side at most 1,000.
        channels: Number of channels of the 1 x 1 convolution before the score maps.
        rpn_channels: Number of channels of the RPN's 3 x 3 convolution.
        groups: Number of groups g per side of a region, each with its own maps.
        pool_size: Number of cells m per side of a pooled region, and of its mask.
        rpn: Anchors, sampling and proposals, as `RPNSettings` or a dictionary of its arguments. None: the authors' for
            COCO.
        roi: Training on regions, as `FCISSettings` or a dictionary of its arguments. None: the authors' for COCO.
        features_lr_factor: Learning rate of the 1 x 1 convolution, relative to the rest. A task applies it.
        refinements: How many times regions are moved and pooled again in prediction.
        vote_iou: Regions with at least this IoU with a detection vote on its mask. 1: only the detection itself and its
            equals.
        min_box_size: Minimum side of a region in prediction, in pixels of the resized image. VOC: 16.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.
        mask_threshold: Minimum fraction of a cell of a training mask that the object covers. In prediction, pixels of a
            region have a higher probability, and pixels of a detection have at least this sum of votes.

    Attributes:
        backbone: The backbone. A task can give it its own learning rate.
        lr_factors: Learning rates of parts of the model, relative to the rest, by their names.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections` with masks

    Raises:
        ValueError: There is no such backbone, it cannot have ``output_stride``, or an argument is out of range.

    Reference:
        Li, Qi, Dai, Ji, Wei, "Fully convolutional instance-aware semantic segmentation", CVPR 2017. Where the paper is
        silent, this follows the authors' code. Deviations: those of `RPN`; torchvision's ResNet and pixels; training
        masks are averages over cells, not bilinear samples; masks are pasted without rounding boxes (`paste_masks`) and
        leave them by a tenth of a cell at most, and a pixel belongs to a region's mask above ``mask_threshold`` (``>``
        0.4), where the authors' code includes equality (``>=``); no region is sampled twice. As there, half of the maps
        of boxes belong to the background and are not used.

    Example:
        >>> import torch
        >>> from striate.models import PlainCNN
        >>> small = {"resize": ResizeAndPad(size_divisible=8), "channels": 16, "rpn_channels": 16, "groups": 3}
        >>> model = FCIS(3, PlainCNN((8, 8, 16)), output_stride=8, **small)
        >>> detections = model([torch.zeros(3, 50, 70, dtype=torch.uint8)])
        >>> detections[0]["masks"].dense().shape[1:]
        torch.Size([50, 70])
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "resnet101",
        weights: str | None = None,
        output_stride: int = 16,
        resize: ResizeAndPad | None = None,
        channels: int = 1024,
        rpn_channels: int = 512,
        groups: int = 7,
        pool_size: int = 21,
        rpn: OrMapping[RPNSettings] | None = None,
        roi: OrMapping[FCISSettings] | None = None,
        features_lr_factor: float = 3.0,
        refinements: int = 1,
        vote_iou: float = 0.5,
        min_box_size: float = 2.0,
        score_threshold: float = 0.001,
        nms_iou: float = 0.3,
        max_detections: int = 100,
        mask_threshold: float = 0.4,
    ) -> None:
        check_min(1, output_stride=output_stride, channels=channels, groups=groups, pool_size=pool_size)
        check_min(0, features_lr_factor=features_lr_factor, refinements=refinements, min_box_size=min_box_size)
        check_detection_settings(score_threshold, nms_iou, max_detections)
        check_fraction(vote_iou=vote_iou, mask_threshold=mask_threshold)
        if groups > pool_size:
            raise ValueError(f"groups: must be <= pool_size, got {groups} > {pool_size}; raise pool_size")
        built = dilated_backbone(_build_backbone(backbone, weights), output_stride)
        if resize is None:
            resize = ResizeAndPad(600, 1000, size_divisible=output_stride, fill=built.normalize.mean.tolist())
        super().__init__(num_classes, resize)
        self.backbone, self.stride, self.groups, self.pool_size = built, output_stride, groups, pool_size
        self.settings = as_settings(FCISSettings, "roi", roi)
        self.lr_factors = {"features": features_lr_factor}
        self.refinements, self.vote_iou, self.min_box_size = refinements, vote_iou, min_box_size
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.mask_threshold = mask_threshold
        self._rpn_map = -2 if built.strides[-2:] == (output_stride,) * 2 else -1
        settings = as_settings(RPNSettings, "rpn", _COCO_RPN if rpn is None else rpn)
        self.rpn = RPN(built.channels[self._rpn_map], rpn_channels, output_stride, settings)
        self.features = nn.Conv2d(built.channels[-1], channels, 1)
        self.scores = nn.Conv2d(channels, 2 * (num_classes + 1) * groups**2, 1)
        self.boxes = nn.Conv2d(channels, 2 * 4 * groups**2, 1)
        for layer in (self.features, self.scores, self.boxes):
            init_gaussian(layer, 0.01)

    def maps(self, pixels: Tensor) -> FCISMaps:
        """Run the network on images ``[B, 3, H, W]``."""
        maps = self.backbone(pixels)
        features = self.features(maps[-1]).relu()  # the RPN reads the map before it, as in the authors' code
        return FCISMaps(self.rpn(maps[self._rpn_map]), self.scores(features), self.boxes(features))

    def pool(self, maps: FCISMaps, regions: Sequence[Tensor]) -> RegionScores:
        """Pool regions from the maps, in float32 or wider.

        Shape:
            - regions: B tensors ``[R_i, 4]``
            - output: `RegionScores` of ``[R, …]``
        """
        objects = maps.boxes[:, maps.boxes.shape[1] // 2 :]  # the first half belongs to the background
        dtype = torch.promote_types(maps.scores.dtype, torch.float32)
        pairs, deltas = (
            position_sensitive_pool(values.to(dtype), regions, self.stride, self.groups, self.pool_size, True)
            for values in (maps.scores, objects)
        )
        return RegionScores(pairs.unflatten(1, (self.num_classes + 1, 2)), deltas.mean((2, 3)))

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute the five losses of a batch; see `Detector.compute_losses`."""
        maps, s = self.maps(batch.pixels), self.settings
        proposals = self.rpn.propose(maps.rpn, batch.sizes, batch.original_sizes, for_training=True)
        sampled = sample_regions(proposals, targets, self.num_classes, s, s.hard_examples, s.fill_background)
        scores = self.pool(maps, [regions.boxes for regions in sampled])
        expected = self._region_targets(sampled, targets, batch.sizes)
        counts = [len(regions.boxes) for regions in sampled]
        return self.rpn.losses(maps.rpn, batch.sizes, targets) | fcis_losses(scores, expected, counts, s)

    @torch.no_grad()
    def _region_targets(
        self, sampled: Sequence[RoISample], targets: Sequence[Mapping[str, Any]], sizes: Sequence[tuple[int, int]]
    ) -> RegionTargets:
        """What the sampled regions of images of these sizes are trained on."""
        offsets, masks = [], []
        for regions, target, size in zip(sampled, targets, sizes, strict=True):
            positive = (regions.objects >= 0).nonzero()[:, 0]
            boxes, objects = regions.boxes[positive], regions.objects[positive]
            offsets.append(encode_boxes(target["boxes"][objects], boxes))
            cells = mask_targets(target["masks"], boxes, objects, self.pool_size, size, aligned=True)
            masks.append(cells >= self.mask_threshold)
        std = offsets[0].new_tensor(self.settings.box_std)
        labels = torch.cat([regions.labels for regions in sampled])
        return RegionTargets(labels, torch.cat(offsets) / std, torch.cat(masks))

    def detect(self, batch: ImageBatch) -> list[Any]:
        """Detect the objects of each image of a batch, with boxes in pixels of the resized images.

        Each dictionary also has all R_i regions of the image, for the masks: ``regions`` ``[R_i, 4]``,
        ``mask_probabilities`` ``[R_i, m, m]`` and their ``votes`` ``[M, R_i]``.
        """
        maps = self.maps(batch.pixels)
        proposals = self.rpn.propose(maps.rpn, batch.sizes, batch.original_sizes)
        passes = []
        for number in range(self.refinements + 1):
            scores = self.pool(maps, proposals)
            probabilities = scores.class_logits().softmax(1)[:, :-1]
            # a region votes with the mask of its own best class, for detections of any class
            masks = scores.mask_probabilities(probabilities.argmax(1))
            counts = [len(boxes) for boxes in proposals]
            passes.append((proposals, probabilities.split(counts), masks.split(counts)))
            if number < self.refinements:
                proposals = self._refine(proposals, scores.deltas.split(counts), batch.sizes)
        # old and new regions together, so that the better of the two is kept
        return [
            self._select(*(torch.cat([one[field][image] for one in passes]) for field in range(3)))
            for image in range(len(batch.sizes))
        ]

    def _refine(
        self, proposals: Sequence[Tensor], deltas: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Tensor]:
        """Move regions ``[R_i, 4]`` of images of these sizes by normalized offsets ``[R_i, 4]``."""
        moved = []
        for boxes, delta, (height, width) in zip(proposals, deltas, sizes, strict=True):
            std = delta.new_tensor(self.settings.box_std)
            moved.append(clip_boxes(decode_boxes(delta * std, boxes), width=width, height=height))
        return moved

    def _select(self, regions: Tensor, scores: Tensor, masks: Tensor) -> dict[str, Any]:
        """Detections of one image from regions ``[R_i, 4]``, scores ``[R_i, K]`` and masks ``[R_i, m, m]``."""
        large = ((regions[:, 2:] - regions[:, :2]) >= max(self.min_box_size, 1e-3)).all(1)
        regions, scores, masks = regions[large], scores[large], masks[large]
        kept = select_detections(regions, scores, self.score_threshold, self.nms_iou, self.max_detections)
        votes = voting_weights(kept["boxes"], kept["labels"], regions, scores, self.vote_iou)
        return {**kept, "regions": regions, "mask_probabilities": masks, "votes": votes}

    def restore(self, detections: Sequence[Any], batch: ImageBatch) -> list[Detections]:
        """Map boxes ``[M, 4]`` back to the original images, and vote on the masks there."""
        scaled: list[Any] = [
            {**one, "regions": scale_boxes(one["regions"], new, old)}
            for one, new, old in zip(detections, batch.sizes, batch.original_sizes, strict=True)
        ]
        restored = super().restore(scaled, batch)
        for one in restored:
            one["boxes"] = tight_boxes(one["boxes"], one["masks"])
        return restored

    def paste(self, detected: Mapping[str, Any], size: tuple[int, int]) -> RunLengths:
        """Vote on the masks of one image; see `InstanceSegmenter.paste`."""
        voting = (detected["votes"] > 0).any(0)  # most regions have no vote, and pasting is the expensive part
        masks = paste_masks(
            detected["mask_probabilities"][voting], detected["regions"][voting], size, self.mask_threshold
        )
        return vote_masks(masks, detected["votes"][:, voting], self.mask_threshold)


def _build_backbone(backbone: Backbone | str, weights: str | None) -> Backbone:
    if backbone == "resnet101":
        return TorchvisionBackbone("resnet101", weights, frozen_stages=2, freeze_norm=True, out_indices=(3, 4))
    return as_backbone(backbone, weights)
