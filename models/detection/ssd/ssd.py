"""SSD: classes and offsets of default boxes, predicted directly from feature maps of several strides.

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
from ...ops.checks import OrMapping, as_settings, check_above, check_min
from ...ops.matching import bipartite_then_threshold
from ...weights import LoadReport, State, load_state_dict_file, match_weights, pretrained_is_skipped
from ..detector import Detections, Detector, check_detection_settings
from ..postprocessing import select_detections
from ..resize import ImageBatch, ResizeAndPad
from .backbone import init_uniform
from .default_boxes import Clip, default_boxes, ssd_aspects, ssd_scales, whole_pixels
from .loss import BOX_WEIGHTS, multibox_losses


@dataclass(frozen=True)
class ExtraLayer:
    """One more feature map: a 1 x 1 convolution to fewer channels, then one that shrinks the map.

    Attributes:
        channels: Number of channels of the map.
        squeeze: Number of channels between the two convolutions. None: half of ``channels``.
        kernel: Side of the second convolution's kernel, in cells.
        stride: Stride of the second convolution, in cells.
        padding: Padding of the second convolution, in cells.
    """

    channels: int
    squeeze: int | None = None
    kernel: int = 3
    stride: int = 2
    padding: int = 1

    def __post_init__(self) -> None:
        check_min(1, channels=self.channels, squeeze=self.squeeze, kernel=self.kernel, stride=self.stride)
        check_min(0, padding=self.padding)


class L2Norm(nn.Module):
    """Scale the features of each cell to length 1, and then each channel by a learned factor.

    Args:
        channels: Number of channels C.
        scale: Initial value of the factors.

    Shape:
        - input, output: ``[B, C, H, W]``

    Reference:
        Liu, Rabinovich, Berg, "ParseNet: looking wider to see better", 2015.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        # three dimensions: the authors' solver treats it as a weight and not as a bias, as `CaffeSGD` does
        self.weight = nn.Parameter(torch.full((channels, 1, 1), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """The normalized map ``[B, C, H, W]``."""
        return (F.normalize(at_least_float32(x), dim=1) * self.weight).to(x.dtype)


class SSD(Detector):
    """SSD on any backbone; `SSD300` and `SSD512` are the published networks.

    Every image is resized to a square, for any aspect ratio. Each map of the backbone and of the extra layers has
    two 3 x 3 convolutions: one for the classes and one for the offsets of its default boxes.

    Args:
        num_classes: Number of classes K, without background.
        backbone: The backbone. All maps that it returns are used.
        image_size: Side of the square, in pixels.
        extra: Further maps, each an `ExtraLayer` or a dictionary of its arguments. Each is computed from the one
            before, the first from the backbone's last.
        scales: Sides of the default boxes, in percent of the image's, one more than the number of maps. They are
            rounded down to whole pixels. None: `ssd_scales`, 10, 20, … 90.
        aspects: Aspect ratios of the default boxes of each map, without 1. None: `ssd_aspects`.
        steps: Distance of neighboring cells, in pixels, for each map. None: the image's side divided by the map's.
        clip: Which default boxes are clipped at the image's edge; see `default_boxes`.
        l2_norm: Initial length to which the features of the first map are normalized (`L2Norm`). None: no
            normalization.
        batch_norm: Whether the extra layers have batch normalization.
        match_iou: Minimum IoU at which a default box is matched to an object. Each object's best box is matched in any
            case.
        negatives: Number of unmatched default boxes trained on per matched one.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        candidates: Number of detections per class, highest scores first, that enter non-maximum suppression.
        max_detections: Maximum number of detections per image.
        clip_first: Whether boxes are clipped to the image before non-maximum suppression, not after it.
        weights: Path of an SSD checkpoint to start from (`load`). A classifier's weights are given to the backbone.

    Attributes:
        anchors: The default boxes, ``[A, 4]``, ``x1, y1, x2, y2`` in pixels of the square.
        grids: Rows and columns of each map.
        load_report: What `load` loaded. None if it was not called.

    Shape:
        - images: ``[B, 3, H, W]``, or B tensors ``[3, H_i, W_i]``, ``uint8`` or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        FileNotFoundError: ``weights`` is the path of a file that does not exist.
        ValueError: A number is out of range or does not fit the maps, or ``weights`` belong to another network.

    Reference:
        Liu et al., "SSD: single shot multibox detector", ECCV 2016, and the authors' Caffe code, whose values are used
        where the paper's text differs. Deviations:

        - Decoded sides are at most 62.5 times the default box's, so that they stay finite.
        - Under DDP each process divides by the number of its own matched boxes, as each of the authors' GPUs does.
    """

    anchors: Tensor

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone,
        image_size: int = 300,
        extra: Sequence[OrMapping[ExtraLayer]] = (),
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
        check_min(1, candidates=candidates, image_size=image_size)
        check_min(0, negatives=negatives)
        check_above(0, l2_norm=l2_norm)
        if not 0 < match_iou <= 1:
            raise ValueError(f"match_iou: must be in (0, 1], got {match_iou}")
        super().__init__(num_classes, ResizeAndPad(fixed_size=(image_size, image_size)))
        self.backbone = backbone
        layers = [as_settings(ExtraLayer, f"extra[{number}]", layer) for number, layer in enumerate(extra)]
        channels = [*backbone.channels, *(layer.channels for layer in layers)]
        self.norm = nn.Identity() if l2_norm is None else L2Norm(channels[0], l2_norm)
        in_channels = channels[len(backbone.channels) - 1 : -1]
        self.extra = nn.ModuleList(
            _extra_layer(width, layer, batch_norm) for width, layer in zip(in_channels, layers, strict=True)
        )
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
        """Rows and columns of each map, computed on the meta device, without data."""
        maps: list[Tensor] = list(_on_meta(self.backbone, torch.empty(1, 3, image_size, image_size, device="meta")))
        for number, layer in enumerate(self.extra):
            try:
                maps.append(_on_meta(layer, maps[-1]))
            except RuntimeError as error:
                raise ValueError(
                    f"extra[{number}]: its kernel must fit the map before it, got {list(maps[-1].shape[-2:])} cells "
                    f"for image_size={image_size}; remove this layer or raise image_size"
                ) from error
        return [(x.shape[-2], x.shape[-1]) for x in maps]

    def predict(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Compute class logits and offsets of all default boxes.

        Shape:
            - pixels: ``[B, 3, image_size, image_size]``
            - output: logits ``[B, A, K + 1]``, the background first, and offsets ``[B, A, 4]``
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
        """Detect the objects of each image; see `Detector.detect`."""
        logits, deltas = self.predict(batch.pixels)
        scores = at_least_float32(logits).softmax(-1)[..., 1:]
        boxes = decode_boxes(deltas, self.anchors, BOX_WEIGHTS)
        if self.clip_first:
            boxes = clip_boxes(boxes, self.image_size, self.image_size)
        return [
            select_detections(
                *predicted, self.score_threshold, self.nms_iou, self.max_detections, candidates=self.candidates
            )
            for predicted in zip(boxes, scores, strict=True)
        ]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """Compute ``loss_class`` and ``loss_box``, scalars; see `multibox_losses`."""
        boxes, labels = [target["boxes"] for target in targets], [target["labels"] for target in targets]
        matches = torch.stack([bipartite_then_threshold(each, self.anchors, self.match_iou) for each in boxes])
        logits, deltas = self.predict(batch.pixels)
        return multibox_losses(logits, deltas, matches, boxes, labels, self.anchors, self.negatives)

    def load(self, source: str | Path | State, origin: str = "the state dict") -> LoadReport:
        """Load the weights of another SSD of the same shape.

        If it has other classes, the layers that predict classes keep their weights.

        Args:
            source: Path of a checkpoint, or names -> tensors.
            origin: Name for a ``source`` that is not a path, for messages.

        Returns:
            What was loaded and what was not; also stored as `load_report`.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file does not hold an SSD with this backbone and these maps.
        """
        if isinstance(source, (str, Path)):
            origin, source = str(source), load_state_dict_file(source)
        fitting, report = match_weights(self, self._renamed(source))
        unfit = [n for n in (*report.missing, *report.mismatched) if not n.startswith("class_heads.")]
        if unfit:
            raise ValueError(
                f"weights: {origin} does not match this SSD, got {len(unfit)} tensors missing or with another shape "
                f"(such as {unfit[0]}); pass a classifier's weights to the backbone:\n{report.describe()}"
            )
        self.load_state_dict(fitting, strict=False)
        self.load_report = replace(report, origin=origin)
        return self.load_report

    def _renamed(self, state: State) -> State:
        """The state dict under our names; for subclasses that read other names."""
        return state


def _extra_layer(in_channels: int, layer: ExtraLayer, batch_norm: bool) -> nn.Sequential:
    squeeze = layer.channels // 2 if layer.squeeze is None else layer.squeeze
    norms = [nn.BatchNorm2d(width) if batch_norm else nn.Identity() for width in (squeeze, layer.channels)]
    return named_layers(
        squeeze=nn.Conv2d(in_channels, squeeze, 1, bias=not batch_norm),
        norm1=norms[0],
        relu1=nn.ReLU(inplace=True),
        conv=nn.Conv2d(squeeze, layer.channels, layer.kernel, layer.stride, layer.padding, bias=not batch_norm),
        norm2=norms[1],
        relu2=nn.ReLU(inplace=True),
    )
