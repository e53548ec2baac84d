"""The second stage of Fast and Faster R-CNN: classification and refinement of proposed boxes.

Shape legend: B images; R regions of all images, concatenated; N objects and P proposals of an image; S sampled regions
of an image; K classes; D features of a region. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.

Proposals may come from any source, such as the region proposal network or Selective Search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...modes import evaluation_mode
from ...ops.box_coding import decode_boxes, encode_boxes
from ...ops.boxes import clip_boxes
from ...ops.checks import (
    OrMapping,
    as_settings,
    check_above,
    check_dropout,
    check_fraction,
    check_length,
    check_min,
    indexed,
)
from ...ops.init import init_he
from ...ops.matching import BACKGROUND, check_thresholds, match_anchors, sample_balanced
from ..detector import Detections, check_detection_settings
from ..postprocessing import select_detections


@dataclass(frozen=True)
class SamplingSettings:
    """Which regions a second stage is trained on.

    Attributes:
        samples: Number of regions per image that are trained on. Fast R-CNN: 64 in each of 2 images.
        positive_fraction: Maximum fraction of objects among them; background fills up.
        foreground_iou: Minimum IoU with an object at which a proposal is trained to predict it.
        background_iou: Range of the highest IoU, its end excluded, in which a proposal is background. Fast R-CNN: 0.1,
            0.5.
        append_ground_truth: Whether ground-truth boxes are added to the proposals in training.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range, a list has a wrong length, or the end of ``background_iou`` exceeds
            ``foreground_iou``.
    """

    samples: int = 128
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou: tuple[float, float] = (0.0, 0.5)
    append_ground_truth: bool = True

    def __post_init__(self) -> None:
        check_min(1, samples=self.samples)
        check_fraction(positive_fraction=self.positive_fraction, foreground_iou=self.foreground_iou)
        check_length(2, background_iou=self.background_iou)
        check_fraction(**indexed("background_iou", self.background_iou))
        if self.background_iou[0] >= self.background_iou[1]:
            raise ValueError(f"background_iou: must be an ascending range, got {list(self.background_iou)}")
        check_thresholds(self.foreground_iou, self.background_iou[1], self.background_iou[0])


@dataclass(frozen=True)
class RoISettings(SamplingSettings):
    """Settings of training and detection. The defaults are py-faster-rcnn's, trained end to end.

    Attributes:
        box_mean: Mean that is subtracted from the target offsets.
        box_std: Standard deviation that divides the target offsets.
        beta: Offset at which the smooth L1 loss of boxes changes from quadratic to linear: 1 / sigma^2, with sigma 1.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range, a list has a wrong length, or the end of ``background_iou`` exceeds
            ``foreground_iou``.
    """

    box_mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    box_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    beta: float = 1.0
    score_threshold: float = 0.05
    nms_iou: float = 0.3
    max_detections: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_min(0, beta=self.beta)
        check_detection_settings(self.score_threshold, self.nms_iou, self.max_detections)
        check_length(4, box_mean=self.box_mean, box_std=self.box_std)
        check_above(0, **indexed("box_std", self.box_std))


class RoISample(NamedTuple):
    """The regions of one image that are trained on, objects first.

    Attributes:
        boxes: The regions, ``[S, 4]``.
        labels: int64 ``[S]``, 0 … K-1, and K for background.
        objects: Index of the object that a region is matched to, -1 for background; int64 ``[S]``.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor


class RoIOutput(NamedTuple):
    """Output of the head for every region.

    Attributes:
        logits: Class logits, background last, ``[R, K + 1]``.
        deltas: For each class the normalized offsets from the region, ``[R, K, 4]``.
    """

    logits: Tensor
    deltas: Tensor


class RoIFullyConnected(nn.Module):
    """The fully connected layers of a classifier on a pooled region: fc6, ReLU, dropout, fc7, ReLU, dropout.

    Args:
        in_channels: Number of channels of the pooled map.
        size: Height and width of the pooled map, in cells.
        hidden: Number of units D of each layer.
        dropout: Probability of dropping a unit of each layer.

    Shape:
        - input: ``[R, in_channels, size, size]``
        - output: ``[R, D]``
    """

    def __init__(self, in_channels: int, size: int, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        check_min(1, hidden=hidden, pool_size=size)
        check_dropout(dropout=dropout)
        self.fc6 = nn.Linear(in_channels * size**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.drop6, self.drop7 = nn.Dropout(dropout), nn.Dropout(dropout)
        init_he(self)

    def forward(self, pooled: Tensor) -> Tensor:
        """The features of pooled regions."""
        return self.drop7(self.fc7(self.drop6(self.fc6(pooled.flatten(1)).relu())).relu())


@torch.no_grad()
def sample_regions(
    proposals: Sequence[Tensor],
    targets: Sequence[Mapping[str, Any]],
    num_classes: int,
    settings: SamplingSettings,
    all_regions: bool = False,
    fill_background: bool = False,
) -> list[RoISample]:
    """Draw the regions of each image that a second stage is trained on.

    Args:
        proposals: Proposed boxes of each image, in pixels.
        targets: The objects of each image.
        num_classes: Number of classes K.
        settings: Matching and sampling.
        all_regions: Take all objects and all background, for a later selection of hard examples.
        fill_background: If an image has too few regions, add those that overlap objects less than the range of
            ``background_iou``, as background.

    Shape:
        - proposals: B tensors ``[P_i, 4]``
        - targets: B dictionaries with ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``
    """
    s, sampled = settings, []
    for boxes, target in zip(proposals, targets, strict=True):
        objects, labels = target["boxes"].to(boxes), target["labels"]
        regions = torch.cat([boxes, objects]) if s.append_ground_truth else boxes
        low, high = s.background_iou
        matches = match_anchors(objects, regions, s.foreground_iou, high, min_background_iou=low)
        if all_regions:
            positive, negative = (matches >= 0).nonzero()[:, 0], (matches == BACKGROUND).nonzero()[:, 0]
        else:
            positive, negative = sample_balanced(matches, s.samples, s.positive_fraction)
        if fill_background and low > 0:
            rest = match_anchors(objects, regions, low, low)  # those below the range are background here
            missing = max(s.samples - len(positive) - len(negative), 0)
            negative = torch.cat([negative, sample_balanced(rest, missing, 0.0)[1]])
        background = torch.full_like(negative, num_classes)
        sampled.append(
            RoISample(
                regions[torch.cat([positive, negative])],
                torch.cat([labels[matches[positive]], background]),
                torch.cat([matches[positive], torch.full_like(negative, BACKGROUND)]),
            )
        )
    return sampled


class RoIHead(nn.Module):
    """Class scores and one box per class for regions of a feature map.

    Weights of scores are drawn from N(0, 0.01^2), those of boxes from N(0, 0.001^2); biases are 0.

    Args:
        pool: Module from maps ``[B, C, h, w]`` and B tensors of boxes ``[P_i, 4]`` to pooled regions ``[R, C, p, p]``,
            such as ``torchvision.ops.RoIPool(7, 1 / 16)``.
        body: Module from pooled regions to feature vectors ``[R, D]``.
        features: Number of features D.
        num_classes: Number of classes K, without background.
        settings: Training and detection, or a dictionary of them. None: Faster R-CNN's.

    Attributes:
        box_mean: Mean of the offsets of each class, ``[K, 4]``; stored in checkpoints. It is initialized from the
            settings, the same for all classes. Fast R-CNN measures it on its training set; see `set_box_statistics`.
        box_std: Standard deviation of the offsets of each class, ``[K, 4]``; stored and initialized in the same way.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, sections 2.1 to 2.3; Ren et al., "Faster R-CNN", NIPS 2015, with the settings
        of the authors' Python code. The background has no box here; there it has one that is never used.
    """

    box_mean: Tensor
    box_std: Tensor

    def __init__(
        self,
        pool: nn.Module,
        body: nn.Module,
        features: int,
        num_classes: int,
        settings: OrMapping[RoISettings] | None = None,
    ) -> None:
        super().__init__()
        check_min(1, features=features, num_classes=num_classes)
        self.settings, self.num_classes = as_settings(RoISettings, "settings", settings), num_classes
        self.pool, self.body = pool, body
        self.score = nn.Linear(features, num_classes + 1)
        self.box = nn.Linear(features, 4 * num_classes)
        for layer, std in ((self.score, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        for name in ("box_mean", "box_std"):
            self.register_buffer(name, torch.tensor(getattr(self.settings, name)).repeat(num_classes, 1))

    def set_box_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and standard deviation of the offsets of each class, ``[K, 4]`` each.

        Raises:
            ValueError: They are not ``[K, 4]``, or ``std`` is not above 0.
        """
        for name, values in (("mean", mean), ("std", std)):
            if values.shape != (self.num_classes, 4):
                raise ValueError(f"{name}: must be [{self.num_classes}, 4], got {list(values.shape)}")
        if not bool((std > 0).all()):
            raise ValueError(f"std: must be above 0, got a minimum of {std.min().item():g}")
        self.box_mean.copy_(mean)
        self.box_std.copy_(std)

    def forward(self, maps: Tensor, proposals: Sequence[Tensor]) -> RoIOutput:
        """Classify each region and predict its offsets, in float32 or wider.

        Shape:
            - maps: ``[B, C, h, w]``
            - proposals: B tensors ``[P_i, 4]``
            - output: `RoIOutput` of ``[R, …]``
        """
        return self.predict(self.body(self.pool_regions(maps, proposals)))

    def pool_regions(self, maps: Tensor, proposals: Sequence[Tensor]) -> Tensor:
        """Pool regions ``[P_i, 4]`` of each image from maps ``[B, C, h, w]``: ``[R, C, p, p]``."""
        dtype = torch.promote_types(maps.dtype, torch.float32)  # bfloat16 is too coarse for the borders of cells
        return self.pool(maps.to(dtype), [boxes.to(dtype) for boxes in proposals]).to(maps.dtype)

    def predict(self, features: Tensor) -> RoIOutput:
        """Class logits and offsets of regions from their features ``[R, D]``, in float32 or wider."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        logits, deltas = self.score(features).to(dtype), self.box(features).to(dtype)
        return RoIOutput(logits, deltas.unflatten(1, (self.num_classes, 4)))

    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]) -> list[RoISample]:
        """Draw the regions of each image that are trained on.

        Shape:
            - proposals: B tensors ``[P_i, 4]``
            - targets: B dictionaries with ``boxes`` ``[N, 4]`` and ``labels`` ``[N]``
        """
        return sample_regions(proposals, targets, self.num_classes, self.settings)

    def losses(
        self, maps: Tensor, proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """Compute ``loss_class`` and ``loss_box`` of the regions drawn by `sample`.

        Shape:
            - maps: ``[B, C, h, w]``; proposals: B tensors ``[P_i, 4]``; output: scalars
        """
        sampled = self.sample(proposals, targets)
        return self.sampled_losses(self(maps, [regions.boxes for regions in sampled]), sampled, targets)

    def sampled_losses(
        self, output: RoIOutput, sampled: Sequence[RoISample], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """Compute ``loss_class``, the mean cross-entropy, and ``loss_box``, the smooth L1 of offsets.

        The latter is taken for the regions with an object, from the offsets of its class. It is summed and divided by
        the number of all regions.
        """
        labels = torch.cat([regions.labels for regions in sampled])
        positive = (labels < self.num_classes).nonzero()[:, 0]
        classes = labels[positive]
        boxes = [target["boxes"][r.objects[r.objects >= 0]] for r, target in zip(sampled, targets, strict=True)]
        offsets = encode_boxes(torch.cat(boxes), torch.cat([r.boxes for r in sampled])[positive])
        offsets = (offsets - self.box_mean[classes]) / self.box_std[classes]
        count = max(len(labels), 1)
        return {
            "loss_class": F.cross_entropy(output.logits, labels, reduction="sum") / count,
            "loss_box": F.smooth_l1_loss(
                output.deltas[positive, classes], offsets.to(output.deltas), reduction="sum", beta=self.settings.beta
            )
            / count,
        }

    @torch.no_grad()
    def detect(self, maps: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """Detect the objects of each image, clipped to its height and width in ``sizes``, in evaluation mode.

        Shape:
            - maps: ``[B, C, h, w]``; proposals: B tensors ``[P_i, 4]``; output: B `Detections`
        """
        with evaluation_mode(self):
            return self.select(self(maps, proposals), proposals, sizes)

    @torch.no_grad()
    def select(
        self, output: RoIOutput, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]
    ) -> list[Detections]:
        """Select the detections of each image from the head's output for its proposals ``[P_i, 4]``."""
        counts = [len(boxes) for boxes in proposals]
        parts = zip(proposals, output.logits.split(counts), output.deltas.split(counts), sizes, strict=True)
        return [self._select(*part) for part in parts]

    def _select(self, proposals: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]) -> Detections:
        """Detections of one image from proposals ``[P, 4]``, logits ``[P, K + 1]`` and deltas ``[P, K, 4]``."""
        s = self.settings
        boxes = decode_boxes(deltas * self.box_std + self.box_mean, proposals[:, None])  # [P, K, 4]
        boxes = clip_boxes(boxes, width=size[1], height=size[0])
        scores = logits.softmax(dim=1)[:, :-1]
        return select_detections(boxes, scores, s.score_threshold, s.nms_iou, s.max_detections)
