"""What the detectors over a feature pyramid share: the pyramid, torchvision's parts made fit for it, their weights.

Shape legend: B images, C channels, levels finer to coarser, K classes.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops.feature_pyramid_network import (
    ExtraFPNBlock,
    FeaturePyramidNetwork,
    LastLevelMaxPool,
    LastLevelP6P7,
)

from ..backbones import Backbone
from ..ops.matching import BACKGROUND, IGNORED, match_anchors
from .detector import Detector
from .resize import ResizeAndPad

Sizes = Sequence[Sequence[float]]

_SIZE_DIVISIBLE = 32
_SWITCHED = (
    GeneralizedRCNN,
    RetinaNet,
    FCOS,
    SSD,
    RegionProposalNetwork,
    RoIHeads,
    GeneralizedRCNNTransform,
)
"""torchvision's modules whose ``training`` decides whether they give losses or detections."""


class NetworkDetector(Detector):
    """A detector whose work a network of torchvision's does.

    Attributes:
        network: torchvision's Faster R-CNN, RetinaNet, FCOS or SSD.
    """

    network: Any

    @property
    def _settings(self) -> Any:
        return getattr(self.network, "roi_heads", self.network)

    @property
    def score_threshold(self) -> float:
        """The least score of a detection, exclusive; may be set."""
        return self._settings.score_thresh

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self._settings.score_thresh = value

    @property
    def nms_iou(self) -> float:
        """The IoU above which the less sure of two detections of a class is dropped; may be set."""
        return self._settings.nms_thresh

    @nms_iou.setter
    def nms_iou(self, value: float) -> None:
        self._settings.nms_thresh = value

    @property
    def max_detections(self) -> int:
        """The most detections of an image; may be set."""
        return self._settings.detections_per_img

    @max_detections.setter
    def max_detections(self, value: int) -> None:
        self._settings.detections_per_img = value


@contextmanager
def torchvision_mode(network: nn.Module, training: bool) -> Iterator[None]:
    """Within it torchvision's parts give losses (``training``), or else detections.

    Only the modules whose mode decides that are switched: batch normalisation and dropout stay as they are.
    """
    modules = [module for module in network.modules() if isinstance(module, _SWITCHED)]
    before = [module.training for module in modules]
    for module in modules:
        module.training = training
    try:
        yield
    finally:
        for module, mode in zip(modules, before, strict=True):
            module.training = mode


class Pyramid(nn.Module):
    """A trunk with a feature pyramid on it; its tensors are named as torchvision's are.

    Args:
        body: The trunk. Its maps of ``finest_stride`` and coarser are used, of several of one stride the last.
        channels: C, of every level.
        finest_stride: Of the finest level, pixels.
        extra: ``pool``: one level more, every other cell of the coarsest (Faster R-CNN). ``p6p7``: two more, by
            convolutions with stride (RetinaNet, FCOS).
        extra_from_trunk: ``p6p7`` start from the trunk's last map, not the pyramid's.

    Attributes:
        strides: Of the levels, the extra ones among them, pixels.

    Shape:
        - images: ``[B, 3, H, W]``; output: a level each, by name, ``[B, C, H / strides[i], W / strides[i]]``

    Raises:
        ValueError: The trunk lacks a map of ``finest_stride``, or from one map to the next the stride is not doubled.

    Reference:
        Lin et al., "Feature pyramid networks for object detection", CVPR 2017, section 3.
    """

    def __init__(
        self,
        body: Backbone,
        channels: int = 256,
        finest_stride: int = 4,
        extra: str = "pool",
        extra_from_trunk: bool = False,
    ) -> None:
        super().__init__()
        if channels < 1:
            raise ValueError(f"fpn_channels: {channels}; give the channels of the pyramid's levels, 1 or more")
        self.body = body
        self._used = _levels(body, finest_stride)
        strides = [body.strides[index] for index in self._used]
        widths = [body.channels[index] for index in self._used]
        blocks: ExtraFPNBlock = LastLevelMaxPool()
        if extra == "p6p7":
            blocks = LastLevelP6P7(widths[-1] if extra_from_trunk else channels, channels)
            blocks.use_P5 = not extra_from_trunk  # else decided by whether the two happen to be as wide
            strides += [2 * strides[-1], 4 * strides[-1]]
        else:
            strides += [2 * strides[-1]]
        self.fpn = FeaturePyramidNetwork(widths, channels, blocks)
        self.strides = tuple(strides)
        self.out_channels = channels

    def forward(self, images: Tensor) -> OrderedDict[str, Tensor]:
        """The levels, by torchvision's names: "0", "1", …, and "pool", or "p6" and "p7"."""
        maps = self.body(images)
        return self.fpn(OrderedDict((str(level), maps[index]) for level, index in enumerate(self._used)))


def _levels(body: Backbone, finest: int) -> list[int]:
    """Which maps of a trunk the pyramid takes."""
    last = {stride: index for index, stride in enumerate(body.strides)}
    strides = sorted(stride for stride in last if stride >= finest)
    name = getattr(body, "name", type(body).__name__)
    if not strides or strides[0] != finest:
        raise ValueError(
            f"finest_stride={finest}: {name} gives maps of the strides {body.strides}; choose one of them, or other "
            "out_indices of the backbone"
        )
    if strides != [finest * 2**level for level in range(len(strides))]:
        raise ValueError(
            f"a pyramid halves its maps from level to level, but from {finest} on {name} gives the strides "
            f"{tuple(strides)}: choose other out_indices of the backbone, or another finest_stride"
        )
    return [last[stride] for stride in strides]


class Anchors(AnchorGenerator):
    """torchvision's anchors, in float32 always: bfloat16 tells pixels apart only up to 256."""

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """The anchors of each image, ``[A, 4]`` in pixels of the batch; of the maps only the sizes count."""
        return super().forward(image_list, [level[:1, :1].float() for level in feature_maps])


def make_anchors(sizes: Sequence[Sequence[float]], ratios: Sequence[float], strides: Sequence[int]) -> Anchors:
    """Anchors of each level.

    Args:
        sizes: Of each level, the square roots of the anchors' areas, pixels.
        ratios: Height over width, the same on every level.
        strides: Of the levels.

    Raises:
        ValueError: There is not a list of sizes for each level, as long as the others; or one is not above 0.
    """
    if len(sizes) != len(strides) or len({len(level) for level in sizes}) != 1 or not sizes[0]:
        raise ValueError(
            f"anchor_sizes: {[list(level) for level in sizes]}; give one list for each of the {len(strides)} levels, "
            f"whose strides are {tuple(strides)}, all of the same length, 1 or more"
        )
    if not ratios or min(ratios) <= 0 or min(min(level) for level in sizes) <= 0:
        raise ValueError(f"anchor_sizes and ratios are above 0, got {[list(s) for s in sizes]} and {list(ratios)}")
    return Anchors(tuple(map(tuple, sizes)), (tuple(ratios),) * len(sizes))


class BoxesAndAnchors(NamedTuple):
    """Ground-truth boxes and anchors to be matched, in place of the matrix of their IoUs."""

    boxes: Tensor  # [N, 4]
    anchors: Tensor  # [A, 4]


class BlockwiseMatcher:
    """Matches anchors as torchvision's ``Matcher`` does, by `match_anchors` and with the same result values.

    It computes IoUs block by block. The matrix of 5,000 objects and the anchors of an image of 800 pixels would take
    3 GB, and 30 GB to compute. An object that no anchor overlaps gets none. torchvision gives each object all anchors
    that share its highest IoU; for an object between the anchors (small objects, anchors far apart) this IoU is 0, so
    that nearly all anchors would become foreground.

    Args:
        high_threshold: IoU from which on an anchor is foreground.
        low_threshold: IoU below which an anchor is background. Anchors between the two are ignored.
    """

    # read by torchvision's region proposal network
    BELOW_LOW_THRESHOLD = BACKGROUND
    BETWEEN_THRESHOLDS = IGNORED

    def __init__(self, high_threshold: float, low_threshold: float) -> None:
        self.high_threshold, self.low_threshold = high_threshold, low_threshold

    def __call__(self, pairs: BoxesAndAnchors) -> Tensor:
        """The index of each anchor's object, -1 for background, -2 for ignored: int64 ``[A]``."""
        return match_anchors(*pairs, self.high_threshold, self.low_threshold, allow_low_quality=True)


class FloatRPNHead(RPNHead):
    """torchvision's, its outputs in float32: under autocast boxes are not to be decoded in bfloat16."""

    def forward(self, x: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Objectness and deltas of each level."""
        logits, deltas = super().forward(x)
        return [level.float() for level in logits], [level.float() for level in deltas]


class FloatPredictor(FastRCNNPredictor):
    """torchvision's, its outputs in float32."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits and deltas of each region."""
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


def padding_of(backbone: Backbone) -> tuple[float, ...]:
    """The colour that the backbone's normalising turns to 0."""
    return tuple(torch.as_tensor(backbone.normalize.mean).tolist())


def resizing(trunk: Backbone, min_size: int | Sequence[int] | None, max_size: int | None) -> ResizeAndPad:
    """What images go through before a pyramid on that trunk."""
    return ResizeAndPad(min_size, max_size, size_divisible=_SIZE_DIVISIBLE, fill=padding_of(trunk))
