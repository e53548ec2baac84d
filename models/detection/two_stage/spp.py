"""SPP-net's detector: one feature map per image and scale, from which every proposal is pooled by a spatial pyramid."""

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...backbones import Backbone, as_backbone
from ...ops.checks import OrMapping, as_settings, check_min
from ..resize import ImageBatch, ResizeAndPad, scale_boxes
from .fully_connected import describe_region_weights, load_fully_connected
from .padded_backbones import PaddedZFNetBackbone
from .region_boxes import BoxRegressionSettings
from .region_pyramid import LEVELS, SCALES, nearest_scales, project_windows, pyramid_pool
from .region_svms import SVMSettings
from .roi_head import RoIFullyConnected, SamplingSettings
from .svm_detector import RegionFeatures, SVMDetector

SPP_SAMPLING = SamplingSettings(background_iou=(0.1, 0.5))
"""SPP-net's sampling: 128 regions, a quarter of them positive, background that overlaps an object."""

SPP_SVMS = SVMSettings(inclusive=True, negative_overlap=0.7)
"""SPP-net's SVMs: negatives with an IoU of at most 0.3, without near duplicates."""

SPP_BOXES = BoxRegressionSettings(min_iou=0.5, inclusive=True)
"""SPP-net's box regression: proposals with an IoU of at least 0.5."""


class SPPNet(SVMDetector):
    """SPP-net's detector as published: convolutions once per image, a spatial pyramid per region, SVMs.

    Images are resized to several scales. Each region is pooled from the map of the scale at which its area is nearest
    to that of a classifier's image. The pyramid gives fc6 the same number of inputs for every region. Only fc6, fc7
    and the scores are fine-tuned. `SVMDetector` describes the stages after that.

    Args:
        num_classes: Number of classes K, without background.
        backbone: ``zf``: `PaddedZFNetBackbone`. Or any backbone, of whose last map cell i must be centered at about
            pixel ``stride * i``.
        weights: Weights of a backbone given by name, the path of a checkpoint. fc6 and fc7 are loaded too if they fit,
            also for a backbone that was built with weights.
        train_backbone: Whether the convolutions are trained too, unlike in the paper. Frozen, they need weights.
        levels: Bins per side of each level of the pyramid.
        scales: Shorter sides of the resized images, in pixels. None: images keep their size.
        side: Side of the classifier's images, in pixels, to whose area that of a region is brought.
        hidden: Number of units of fc6 and of fc7.
        dropout: Probability of dropping a unit of fc6 and of fc7.
        sampling: Which regions are trained on; see `SVMDetector`. None: `SPP_SAMPLING`.
        svms: Training of the SVMs; see `SVMDetector`. None: `SPP_SVMS`.
        boxes: Training of the box regression; see `SVMDetector`. None: `SPP_BOXES`.
        **options: ``use_svms``, ``use_box_regression``, ``score_threshold``, ``svm_threshold``, ``nms_iou``,
            ``max_detections`` and ``proposer`` of `SVMDetector`.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: There is no such backbone, ``weights`` are given for one that is already built, or a number is out
            of range.

    Reference:
        He, Zhang, Ren, Sun, "Spatial pyramid pooling in deep convolutional networks for visual recognition", ECCV 2014,
        section 4 and appendix A. Scores are the sigmoid of the SVMs'. For other deviations see docs/regions.md.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str = "zf",
        weights: str | None = None,
        train_backbone: bool = False,
        levels: Sequence[int] = LEVELS,
        scales: Sequence[int] | None = SCALES,
        side: int = 224,
        hidden: int = 4096,
        dropout: float = 0.5,
        sampling: OrMapping[SamplingSettings] | None = None,
        svms: OrMapping[SVMSettings] | None = None,
        boxes: OrMapping[BoxRegressionSettings] | None = None,
        **options: Any,
    ) -> None:
        check_min(1, side=side)
        if not levels or (scales is not None and not scales):
            name, value = ("levels", levels) if not levels else ("scales", scales)
            raise ValueError(f"{name}: must have at least one number, got {value}")
        check_min(1, **{f"levels[{index}]": level for index, level in enumerate(levels)})
        built = PaddedZFNetBackbone(weights) if backbone == "zf" else as_backbone(backbone, weights)
        fill = built.normalize.mean.flatten().tolist()
        inputs = built.channels[-1] * sum(level**2 for level in levels)
        super().__init__(
            num_classes,
            ResizeAndPad(fill=fill),
            features=hidden,
            pooled=inputs,
            sampling=SPP_SAMPLING if sampling is None else as_settings(SamplingSettings, "sampling", sampling),
            svms=SPP_SVMS if svms is None else as_settings(SVMSettings, "svms", svms),
            boxes=SPP_BOXES if boxes is None else as_settings(BoxRegressionSettings, "boxes", boxes),
            **options,
        )
        self.levels, self.scales, self.side = tuple(levels), None if scales is None else tuple(scales), side
        stride = built.strides[-1]
        self.resizes = nn.ModuleList(
            ResizeAndPad(scale, size_divisible=stride, fill=fill) for scale in self.scales or (None,)
        )
        self.backbone, self.train_backbone = built, train_backbone
        self.body = RoIFullyConnected(inputs, 1, hidden, dropout)
        self._body_report = load_fully_connected(self.body, built)
        self.score = nn.Linear(hidden, num_classes + 1)
        nn.init.normal_(self.score.weight, std=0.01)
        nn.init.zeros_(self.score.bias)
        if not train_backbone:
            built.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a backbone that is not trained stays in evaluation mode."""
        super().train(mode)
        if not self.train_backbone:
            self.backbone.eval()
        return self

    def region_features(self, batch: ImageBatch, boxes: Sequence[Tensor]) -> RegionFeatures:
        """Pool regions ``[P_i, 4]`` of each image from its maps, and pass them through fc6 and fc7."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.train_backbone):
            pooled = self.pool_regions(batch, boxes)
        return RegionFeatures(pooled, self.body(pooled))

    def pool_regions(self, batch: ImageBatch, boxes: Sequence[Tensor]) -> Tensor:
        """Pool regions of each image from the map of the scale that suits each.

        Shape:
            - boxes: B tensors ``[P_i, 4]``
            - output: ``[R, C * M]`` for C channels and the M bins of all levels
        """
        images = [p[:, :height, :width] for p, (height, width) in zip(batch.pixels, batch.sizes, strict=True)]
        counts = [len(regions) for regions in boxes]
        owners = torch.arange(len(images), device=batch.pixels.device).repeat_interleave(
            torch.tensor(counts, device=batch.pixels.device)
        )
        scales = torch.cat([self._choose_scales(*part) for part in zip(boxes, batch.sizes, strict=True)])
        pooled: Tensor | None = None
        for index, resize in enumerate(self.resizes):
            rows = (scales == index).nonzero()[:, 0]
            if not len(rows):
                continue
            used = owners[rows].unique()  # images with a region at this scale, ascending
            resized = resize([images[image] for image in used.tolist()])
            maps = self.backbone(resized.pixels)[-1]
            windows = []
            for position, image in enumerate(used.tolist()):
                own = boxes[image][scales[owners == image] == index]
                windows.append(self._project(own, images[image].shape[-2:], resized.sizes[position], maps))
            numbers = torch.searchsorted(used, owners[rows])
            part = pyramid_pool(maps, torch.cat(windows), numbers, self.levels).flatten(1)
            if pooled is None:
                pooled = part.new_zeros(len(owners), part.shape[1])
            pooled = pooled.index_copy(0, rows, part)
        return self.score.weight.new_zeros(0, self.box_weight.shape[1]) if pooled is None else pooled

    def _choose_scales(self, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Index of the scale of each region ``[P, 4]`` of an image of this height and width: int64 ``[P]``."""
        if self.scales is None:
            return torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device)
        return nearest_scales(boxes, *size, self.scales, self.side)

    def _project(self, boxes: Tensor, old: Sequence[int], new: tuple[int, int], maps: Tensor) -> Tensor:
        """Windows ``[P, 4]`` of boxes ``[P, 4]`` on maps ``[B, C, h, w]`` of an image resized from old to new size."""
        stride = self.backbone.strides[-1]
        rows, columns = (min(-(-side // stride), cells) for side, cells in zip(new, maps.shape[-2:], strict=True))
        return project_windows(scale_boxes(boxes, (old[0], old[1]), new), stride, rows, columns)

    def describe_weights(self) -> str | None:
        """What was loaded into the backbone, fc6 and fc7, as lines of text. None: nothing was loaded."""
        return describe_region_weights(self.backbone, self._body_report, "class scores: new; SVMs and boxes: later")
