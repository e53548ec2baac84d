"""The second stage of Fast and Faster R-CNN: what is in each proposed box, and where exactly.

Shape legend: B images; R regions of all of them, one after the other; N objects and P proposals of an image; K classes;
D numbers of a region's feature vector. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.

It takes proposals from anywhere: the region proposal network, or Selective Search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...ops.box_coding import decode_boxes, encode_boxes
from ...ops.boxes import clip_boxes
from ...ops.checks import check_min
from ...ops.init import init_he
from ...ops.matching import match_anchors, sample_balanced
from ..detector import Detections, check_detection_settings
from ..postprocessing import select_detections


@dataclass(frozen=True)
class RoISettings:
    """What a head is trained on, and what it reports; the defaults are py-faster-rcnn's, trained end to end.

    Attributes:
        samples: Regions trained on, an image. Fast R-CNN: 64 of each of 2 images.
        positive_fraction: Of them objects at most; background fills up.
        foreground_iou: A proposal that overlaps an object this much or more is trained to be it.
        background_iou: One whose best overlap is in this range, the end excluded, is background. Fast R-CNN: 0.1, 0.5.
        append_truth: Whether the true boxes are proposals too in training.
        box_mean: Subtracted from the offsets that are to be learnt.
        box_std: Divides them.
        beta: Where the smooth L1 loss of the boxes turns from a square to a straight line: 1 / sigma^2, with sigma 1.
        score_threshold: What is not surer is not reported.
        nms_iou: A box is dropped that overlaps a surer one of its class more.
        max_detections: The most that is reported of an image.
    """

    samples: int = 128
    positive_fraction: float = 0.25
    foreground_iou: float = 0.5
    background_iou: tuple[float, float] = (0.0, 0.5)
    append_truth: bool = True
    box_mean: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    box_std: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    beta: float = 1.0
    score_threshold: float = 0.05
    nms_iou: float = 0.3
    max_detections: int = 100


class RoISample(NamedTuple):
    """The regions of one image that are trained on, objects first.

    Attributes:
        boxes: ``[S, 4]``.
        labels: int64 ``[S]``, 0 … K-1, and K for background.
        objects: int64 ``[S]``, the number of the object that a region is to be, -1 for background.
    """

    boxes: Tensor
    labels: Tensor
    objects: Tensor


class RoIOutput(NamedTuple):
    """What the head says of every region.

    Attributes:
        logits: ``[R, K + 1]``, background last.
        deltas: ``[R, K, 4]``, for each class the offsets from the region, less their mean, by their deviation.
    """

    logits: Tensor
    deltas: Tensor


class RoIFullyConnected(nn.Module):
    """The fully connected layers of a classifier on a pooled region: fc6, ReLU, dropout, fc7, ReLU, dropout.

    Args:
        in_channels: Channels of the pooled map.
        size: Its height and width, in cells.
        hidden: D, units of either layer.
        dropout: Probability of dropping a unit of either layer.

    Shape:
        - input: ``[R, in_channels, size, size]``
        - output: ``[R, D]``
    """

    def __init__(self, in_channels: int, size: int, hidden: int = 4096, dropout: float = 0.5) -> None:
        super().__init__()
        check_min(1, hidden=hidden, pool_size=size)
        self.fc6 = nn.Linear(in_channels * size**2, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.drop6, self.drop7 = nn.Dropout(dropout), nn.Dropout(dropout)
        init_he(self)

    def forward(self, pooled: Tensor) -> Tensor:
        """The features of pooled regions."""
        return self.drop7(self.fc7(self.drop6(self.fc6(pooled.flatten(1)).relu())).relu())


class RoIHead(nn.Module):
    """Class scores and a box for each class, of regions of a feature map.

    The scores' weights are drawn from N(0, 0.01^2), the boxes' from N(0, 0.001^2); biases are 0.

    Args:
        pool: From a map ``[B, C, h, w]`` and B times boxes ``[P_i, 4]`` to regions ``[R, C, p, p]``, such as
            ``torchvision.ops.RoIPool(7, 1 / 16)``.
        body: From those to feature vectors ``[R, D]``.
        features: D.
        num_classes: K.
        settings: None: Faster R-CNN's.

    Attributes:
        box_mean: ``[K, 4]``, of the offsets of each class; kept in checkpoints. From the settings, alike for all
            classes; Fast R-CNN measures them on its training set and sets them by `set_box_statistics`.
        box_std: ``[K, 4]``, likewise.

    Reference:
        Girshick, "Fast R-CNN", ICCV 2015, sections 2.1 to 2.3; Ren et al., "Faster R-CNN", NIPS 2015, with the settings
        of the authors' Python code. The background has no box here (there it has one that is never used).
    """

    box_mean: Tensor
    box_std: Tensor

    def __init__(
        self, pool: nn.Module, body: nn.Module, features: int, num_classes: int, settings: RoISettings | None = None
    ) -> None:
        super().__init__()
        self.settings, self.num_classes = settings or RoISettings(), num_classes
        check_detection_settings(self.settings.score_threshold, self.settings.nms_iou, self.settings.max_detections)
        if min(self.settings.box_std) <= 0:
            raise ValueError(f"box_std: {list(self.settings.box_std)}; deviations are above 0")
        self.pool, self.body = pool, body
        self.score = nn.Linear(features, num_classes + 1)
        self.box = nn.Linear(features, 4 * num_classes)
        for layer, std in ((self.score, 0.01), (self.box, 0.001)):
            nn.init.normal_(layer.weight, std=std)
            nn.init.zeros_(layer.bias)
        for name in ("box_mean", "box_std"):
            self.register_buffer(name, torch.tensor(getattr(self.settings, name)).repeat(num_classes, 1))

    def set_box_statistics(self, mean: Tensor, std: Tensor) -> None:
        """Set the mean and the standard deviation of each class's offsets, ``[K, 4]`` each.

        Raises:
            ValueError: They are not ``[K, 4]``, or a deviation is not above 0.
        """
        for name, given in (("mean", mean), ("std", std)):
            if given.shape != (self.num_classes, 4):
                raise ValueError(f"{name} must be [{self.num_classes}, 4], got {list(given.shape)}")
        if not bool((std > 0).all()):
            raise ValueError(f"std: {std.min().item():g} is among them; deviations are above 0")
        self.box_mean.copy_(mean)
        self.box_std.copy_(std)

    def forward(self, maps: Tensor, proposals: Sequence[Tensor]) -> RoIOutput:
        """What is in each region, in float32 at least.

        Shape:
            - maps: ``[B, C, h, w]``
            - proposals: B times ``[P_i, 4]``
        """
        dtype = torch.promote_types(maps.dtype, torch.float32)  # bfloat16 cannot tell the borders of cells apart
        pooled = self.pool(maps.to(dtype), [boxes.to(dtype) for boxes in proposals])
        features = self.body(pooled.to(maps.dtype))
        logits, deltas = self.score(features), self.box(features)
        return RoIOutput(logits.to(dtype), deltas.to(dtype).unflatten(1, (self.num_classes, 4)))

    @torch.no_grad()
    def sample(self, proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]) -> list[RoISample]:
        """Draw the regions of each image that are trained on; of a target, its boxes and labels count."""
        s, sampled = self.settings, []
        for boxes, target in zip(proposals, targets, strict=True):
            truth, labels = target["boxes"].to(boxes), target["labels"]
            regions = torch.cat([boxes, truth]) if s.append_truth else boxes
            least, most = s.background_iou
            matches = match_anchors(truth, regions, s.foreground_iou, most, min_background_iou=least)
            positive, negative = sample_balanced(matches, s.samples, s.positive_fraction)
            none = torch.full_like(negative, self.num_classes)
            sampled.append(
                RoISample(
                    regions[torch.cat([positive, negative])],
                    torch.cat([labels[matches[positive]], none]),
                    matches[torch.cat([positive, negative])],
                )
            )
        return sampled

    def losses(
        self, maps: Tensor, proposals: Sequence[Tensor], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_class`` and ``loss_box`` of the regions drawn by `sample`."""
        sampled = self.sample(proposals, targets)
        return self.sampled_losses(self(maps, [regions.boxes for regions in sampled]), sampled, targets)

    def sampled_losses(
        self, output: RoIOutput, sampled: Sequence[RoISample], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_class``, the mean cross-entropy, and ``loss_box``: the smooth L1 of the offsets that each object's
        region has for that object's class, summed, by the number of all regions.
        """
        labels = torch.cat([regions.labels for regions in sampled])
        held = (labels < self.num_classes).nonzero()[:, 0]
        named = labels[held]
        truth = [target["boxes"][r.objects[r.objects >= 0]] for r, target in zip(sampled, targets, strict=True)]
        offsets = encode_boxes(torch.cat(truth), torch.cat([r.boxes for r in sampled])[held])
        wanted = (offsets - self.box_mean[named]) / self.box_std[named]
        count = max(len(labels), 1)
        return {
            "loss_class": F.cross_entropy(output.logits, labels, reduction="sum") / count,
            "loss_box": F.smooth_l1_loss(
                output.deltas[held, named], wanted.to(output.deltas), reduction="sum", beta=self.settings.beta
            )
            / count,
        }

    @torch.no_grad()
    def detect(self, maps: Tensor, proposals: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Detections]:
        """The detections of each image, within its height and width of ``sizes``."""
        output = self(maps, proposals)
        counts = [len(boxes) for boxes in proposals]
        parts = zip(proposals, output.logits.split(counts), output.deltas.split(counts), sizes, strict=True)
        return [self._select(*part) for part in parts]

    def _select(self, proposals: Tensor, logits: Tensor, deltas: Tensor, size: tuple[int, int]) -> Detections:
        s = self.settings
        boxes = decode_boxes(deltas * self.box_std + self.box_mean, proposals[:, None])  # [P, K, 4]
        boxes = clip_boxes(boxes, width=size[1], height=size[0])
        scores = logits.softmax(dim=1)[:, :-1]
        return select_detections(boxes, scores, s.score_threshold, s.nms_iou, s.max_detections)
