"""SSD: classes and offsets of default boxes, straight from feature maps of several strides.

Shape legend: B images, A default boxes, K classes, L feature maps.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbones.base import Backbone, _on_meta
from ...backbones.layers import named_layers
from ...ops.box_coding import decode_boxes
from ...ops.boxes import at_least_float32, clip_boxes
from ...ops.checks import check_min
from ...ops.matching import bipartite_then_threshold
from ...ops.nms import select_detections
from ...weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from ..detector import Detections, Detector, check_detection_settings
from ..resize import ImageBatch, ResizeAndPad
from .backbone import init_uniform
from .default_boxes import Clip, default_boxes, ssd_aspects, ssd_scales, whole_pixels
from .loss import BOX_WEIGHTS, multibox_losses


@dataclass(frozen=True)
class ExtraLayer:
    """One more feature map: a 1 x 1 convolution to fewer channels, then one that makes the map smaller.

    Attributes:
        channels: Of the map.
        squeeze: Channels between the two convolutions; None: half as many.
        kernel: Side of the second convolution's kernel, in cells.
        stride: Of the second convolution, in cells.
        padding: Of the second convolution, in cells.
    """

    channels: int
    squeeze: int | None = None
    kernel: int = 3
    stride: int = 2
    padding: int = 1


class L2Norm(nn.Module):
    """Scales each cell's features to length 1, and then each channel by a learned factor.

    Args:
        channels: C.
        scale: What the factors begin with.

    Shape:
        - input, output: ``[B, C, H, W]``

    Reference:
        Liu, Rabinovich, Berg, "ParseNet: looking wider to see better", 2015.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        # Three dimensions: the authors' solver treats it as a weight, not as a bias, and so does `CaffeSGD`.
        self.weight = nn.Parameter(torch.full((channels, 1, 1), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """The map, normalised."""
        return (F.normalize(at_least_float32(x), dim=1) * self.weight).to(x.dtype)


class SSD(Detector):
    """SSD over any backbone; `SSD300` and `SSD512` are the paper's.

    Every image is resized to a square, whatever its shape. Each map of the backbone, and of the layers after it, has
    two 3 x 3 convolutions: one for the classes, one for the offsets of its default boxes.

    Args:
        num_classes: K, without background.
        backbone: All of the maps that it returns are used.
        image_size: Side of the square, pixels.
        extra: Further maps, each from the one before, the first from the backbone's last.
        scales: Sides of the default boxes, in percent of the image's, one more than there are maps; rounded down to
            whole pixels. ``None``: `ssd_scales`, 10, 20, … 90.
        aspects: Ratios of their sides besides 1, for each map. ``None``: `ssd_aspects`.
        steps: Pixels from cell to cell, for each map. ``None``: the image's side by the map's.
        clip: What of default boxes that leave the image is cut off (`default_boxes`).
        l2_norm: The first map's cells are normalised to this length at first (`L2Norm`). ``None``: not at all.
        batch_norm: Whether the extra layers have batch normalisation.
        match_iou: IoU from which on a default box has an object; the best one of each object has it in any case.
        negatives: How many default boxes without object are trained on for each with one.
        score_threshold: Detections score more.
        nms_iou: Of two detections of one class that overlap more, the less sure one goes.
        candidates: How many of each class, the surest, take part in that.
        max_detections: How many an image has at most.
        clip_first: Whether boxes are cut off at the image's edge before suppression and not after.
        weights: Path of an SSD's checkpoint to go on from (`load`). A classifier's weights belong to the backbone.

    Attributes:
        anchors: The default boxes, ``[A, 4]``, ``x1, y1, x2, y2`` in pixels of the square.
        grids: Rows and columns of each map.
        load_report: What `load` took over; None where it was not called.

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: Numbers that make no network, or do not fit its maps; ``weights`` of another network.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, and the authors' Caffe code, whose values count
        where the paper's text differs. Where this departs from it:

        - Decoded sides are at most 62.5 times the default box's, so that they stay finite.
        - Under DDP each process divides by the number of its own matched boxes, as each of the authors' GPUs does.
    """

    anchors: Tensor
    load_report: LoadReport | None = None

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        image_size: int = 300,
        extra: Sequence[ExtraLayer] = (),
        scales: Sequence[float] | None = None,
        aspects: Sequence[Sequence[float]] | None = None,
        steps: Sequence[float] | None = None,
        clip: Clip | None = None,
        l2_norm: float | None = None,
        batch_norm: bool = False,
        match_iou: float = 0.5,
        negatives: float = 3.0,
        score_threshold: float = 0.01,
        nms_iou: float = 0.45,
        candidates: int = 400,
        max_detections: int = 200,
        clip_first: bool = False,
        weights: str | None = None,
    ) -> None:
        check_detection_settings(score_threshold, nms_iou, max_detections)
        check_min(1, candidates=candidates)
        super().__init__(num_classes, ResizeAndPad(fixed_size=(image_size, image_size)))
        self.backbone = backbone
        channels = [*backbone.channels, *(layer.channels for layer in extra)]
        self.norm = nn.Identity() if l2_norm is None else L2Norm(channels[0], l2_norm)
        before = channels[len(backbone.channels) - 1 : -1]
        self.extra = nn.ModuleList(_extra(width, layer, batch_norm) for width, layer in zip(before, extra, strict=True))
        aspects = ssd_aspects(len(channels)) if aspects is None else aspects
        sides = whole_pixels(ssd_scales(len(channels)) if scales is None else scales, image_size)
        self.grids = self._grids(image_size)
        boxes = default_boxes(self.grids, image_size, sides, aspects, steps, clip)
        self.register_buffer("anchors", boxes, persistent=False)
        per_cell = [2 + 2 * len(ratios) for ratios in aspects]
        self.class_heads, self.box_heads = (
            nn.ModuleList(nn.Conv2d(width, n * out, 3, padding=1) for width, n in zip(channels, per_cell, strict=True))
            for out in (num_classes + 1, 4)
        )
        for module in (self.extra, self.class_heads, self.box_heads):
            init_uniform(module)
        self.image_size, self.match_iou, self.negatives = image_size, match_iou, negatives
        self.score_threshold, self.nms_iou, self.candidates = score_threshold, nms_iou, candidates
        self.max_detections, self.clip_first = max_detections, clip_first
        if weights is not None and not pretrained_is_skipped():
            self.load(weights)

    def _grids(self, image_size: int) -> list[tuple[int, int]]:
        """Rows and columns of each map; computed on shapes alone."""
        maps: list[Tensor] = list(_on_meta(self.backbone, torch.empty(1, 3, image_size, image_size, device="meta")))
        for number, layer in enumerate(self.extra):
            try:
                maps.append(_on_meta(layer, maps[-1]))
            except RuntimeError as error:
                raise ValueError(
                    f"extra[{number}]: the map before it, of {list(maps[-1].shape[-2:])} cells for image_size="
                    f"{image_size}, is too small for its kernel; leave that layer out, or take larger images"
                ) from error
        return [(x.shape[-2], x.shape[-1]) for x in maps]

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and offsets of all default boxes.

        Shape:
            - pixels: ``[B, 3, image_size, image_size]``
            - output: ``[B, A, K + 1]``, the background first, and ``[B, A, 4]``
        """
        maps = list(self.backbone(pixels))
        for layer in self.extra:
            maps.append(layer(maps[-1]))
        maps[0] = self.norm(maps[0])
        logits, deltas = (
            # [B, n * out, H, W] -> [B, H * W * n, out]
            torch.cat([h(x).permute(0, 2, 3, 1).reshape(len(x), -1, out) for h, x in zip(heads, maps, strict=True)], 1)
            for heads, out in ((self.class_heads, self.num_classes + 1), (self.box_heads, 4))
        )
        return logits, deltas

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """The objects of each image of a batch, in pixels of the resized images."""
        logits, deltas = self.predict(batch.pixels)
        scores = at_least_float32(logits).softmax(-1)[..., 1:]
        boxes = decode_boxes(deltas, self.anchors, BOX_WEIGHTS)
        if self.clip_first:
            boxes = clip_boxes(boxes, self.image_size, self.image_size)
        return [
            select_detections(
                *found, self.score_threshold, self.nms_iou, self.max_detections, candidates=self.candidates
            )
            for found in zip(boxes, scores, strict=True)
        ]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """``loss_class`` and ``loss_box``; see `multibox_losses`."""
        boxes, labels = [target["boxes"] for target in targets], [target["labels"] for target in targets]
        matches = torch.stack([bipartite_then_threshold(each, self.anchors, self.match_iou) for each in boxes])
        logits, deltas = self.predict(batch.pixels)
        return multibox_losses(logits, deltas, matches, boxes, labels, self.anchors, self.negatives)

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Goes on from another SSD of the same shape, perhaps for other classes: then these heads stay as they are.

        Args:
            source: A checkpoint's path, or names -> tensors.
            origin: What messages call a ``source`` that is not a path.

        Returns:
            What was loaded and what was not; kept as `load_report`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file holds no SSD with this backbone and these maps.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        fitting, report = match_weights(self, self._renamed(source))
        lacking = [n for n in (*report.missing, *report.mismatched) if not n.startswith("class_heads.")]
        if lacking:
            raise ValueError(
                f"{origin} is no checkpoint of an SSD like this one: {len(lacking)} tensors are missing or of another "
                f"shape (such as {lacking[0]}). A classifier's weights are given to the backbone:\n{report.describe()}"
            )
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, origin=origin)
        return self.load_report

    def _renamed(self, state: State) -> State:
        """A state dict under our names, where a subclass knows others."""
        return state


def _extra(before: int, layer: ExtraLayer, batch_norm: bool) -> nn.Sequential:
    squeeze = layer.channels // 2 if layer.squeeze is None else layer.squeeze
    norms = [nn.BatchNorm2d(width) if batch_norm else nn.Identity() for width in (squeeze, layer.channels)]
    return named_layers(
        squeeze=nn.Conv2d(before, squeeze, 1, bias=not batch_norm),
        norm1=norms[0],
        relu1=nn.ReLU(inplace=True),
        conv=nn.Conv2d(squeeze, layer.channels, layer.kernel, layer.stride, layer.padding, bias=not batch_norm),
        norm2=norms[1],
        relu2=nn.ReLU(inplace=True),
    )
