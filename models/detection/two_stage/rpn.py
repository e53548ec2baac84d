"""The region proposal network of Faster R-CNN: a small network on one feature map that proposes object boxes.

Shape legend: B images, a map of C channels and h x w cells, A anchors per cell, Q = h * w * A anchors in total; N
objects of an image, P proposals. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from ...ops.anchors import cell_anchors, grid_anchors, inside
from ...ops.box_coding import decode_boxes, encode_boxes
from ...ops.boxes import clip_boxes
from ...ops.checks import OrMapping, as_settings, check_above, check_fraction, check_length, check_min, indexed
from ...ops.init import init_gaussian
from ...ops.matching import check_thresholds, match_anchors, sample_balanced


@dataclass(frozen=True)
class RPNSettings:
    """Settings of anchors, training and proposals. The defaults are py-faster-rcnn's.

    Attributes:
        anchor_base: Side of the square that anchors are derived from, in pixels.
        anchor_scales: Factors of its sides.
        anchor_ratios: Aspect ratios, height over width.
        foreground_iou: Minimum IoU with an object at which an anchor is positive.
        background_iou: IoU with every object below which an anchor is negative.
        samples: Number of anchors per image that are trained on.
        positive_fraction: Maximum fraction of positives among them; negatives fill up.
        beta: Offset at which the smooth L1 loss of boxes changes from quadratic to linear: 1 / sigma^2, with sigma 3.
        before_nms: Number of boxes, highest scores first, that enter non-maximum suppression; in training and in
            evaluation.
        proposals: Number of proposals per image after it; in training and in evaluation.
        nms_iou: Of two boxes with a higher IoU, the one with the lower score is suppressed.
        min_size: Minimum side of a proposal, in pixels of the original image.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: A number is out of range, a list has a wrong length, or ``background_iou`` exceeds
            ``foreground_iou``.
    """

    anchor_base: int = 16
    anchor_scales: tuple[float, ...] = (8.0, 16.0, 32.0)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    foreground_iou: float = 0.7
    background_iou: float = 0.3
    samples: int = 256
    positive_fraction: float = 0.5
    beta: float = 1 / 9
    before_nms: tuple[int, int] = (12000, 6000)
    proposals: tuple[int, int] = (2000, 300)
    nms_iou: float = 0.7
    min_size: float = 16.0

    def __post_init__(self) -> None:
        check_min(1, anchor_base=self.anchor_base, samples=self.samples)
        check_min(0, beta=self.beta, min_size=self.min_size)
        for name in ("before_nms", "proposals"):
            check_length(2, **{name: getattr(self, name)})
            check_min(1, **indexed(name, getattr(self, name)))
        for name in ("anchor_scales", "anchor_ratios"):
            if not (values := getattr(self, name)):
                raise ValueError(f"{name}: must have at least one number, got {list(values)}")
            check_above(0, **indexed(name, values))
        check_fraction(
            foreground_iou=self.foreground_iou,
            background_iou=self.background_iou,
            positive_fraction=self.positive_fraction,
            nms_iou=self.nms_iou,
        )
        check_thresholds(self.foreground_iou, self.background_iou)


class RPNOutput(NamedTuple):
    """Output of the network for every anchor.

    Attributes:
        logits: Logits of background and object, ``[B, Q, 2]``.
        deltas: Offsets from the anchor to the object's box (`encode_boxes`), ``[B, Q, 4]``.
        anchors: The anchors, ``[Q, 4]``.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class RPN(nn.Module):
    """Region proposal network on one feature map.

    A 3 x 3 convolution with ReLU is followed by 1 x 1 convolutions for two scores and four offsets per anchor. Weights
    are drawn from N(0, 0.01^2), biases are 0.

    Args:
        in_channels: Number of channels C of the map.
        channels: Number of channels of the 3 x 3 convolution: 512 with VGG-16, 256 with ZF.
        stride: Stride of the map, in pixels.
        settings: Anchors, training and proposals, or a dictionary of them. None: the reference's.

    Reference:
        Ren et al., "Faster R-CNN", NIPS 2015, section 3.1, with the settings of the authors' Python code. Deviations
        from that code: objects of any size are trained on, and one that no anchor overlaps is not matched (there, it
        makes every anchor positive); a batch may have several images, whose samples are averaged together; offsets of
        sides are clipped at log(1000 / 16) before the exponential.
    """

    cell: Tensor

    def __init__(
        self, in_channels: int, channels: int, stride: int, settings: OrMapping[RPNSettings] | None = None
    ) -> None:
        super().__init__()
        check_min(1, channels=channels, stride=stride)
        self.settings, self.stride = as_settings(RPNSettings, "settings", settings), stride
        s = self.settings
        self.register_buffer("cell", cell_anchors(s.anchor_base, s.anchor_scales, s.anchor_ratios), persistent=False)
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, 2 * len(self.cell), 1)
        self.box = nn.Conv2d(channels, 4 * len(self.cell), 1)
        init_gaussian(self, 0.01)

    def forward(self, maps: Tensor) -> RPNOutput:
        """Compute scores and offsets of every anchor, in float32 or wider.

        Shape:
            - maps: ``[B, C, h, w]``
            - output: `RPNOutput` of ``[B, Q, …]``
        """
        hidden = self.conv(maps).relu()
        logits, deltas = (
            values.permute(0, 2, 3, 1).reshape(len(maps), -1, size)  # [B, A * size, h, w] to [B, Q, size]
            for values, size in ((self.score(hidden), 2), (self.box(hidden), 4))
        )
        dtype = torch.promote_types(logits.dtype, torch.float32)
        cell = self.cell.to(dtype)  # whole and half numbers, exact in every dtype
        return RPNOutput(logits.to(dtype), deltas.to(dtype), grid_anchors(cell, self.stride, *maps.shape[-2:]))

    @torch.no_grad()
    def propose(
        self,
        output: RPNOutput,
        sizes: Sequence[tuple[int, int]],
        original_sizes: Sequence[tuple[int, int]],
        for_training: bool = False,
    ) -> list[Tensor]:
        """Propose boxes, highest objectness first. They are constants, through which no gradient flows.

        Args:
            output: Output of `forward`.
            sizes: Height and width of each image within the batch, in pixels. Boxes are clipped to them.
            original_sizes: Height and width of each original image, in pixels, for ``min_size``.
            for_training: Which of the two numbers of ``before_nms`` and ``proposals`` is used.

        Shape:
            - output: B tensors ``[P_i, 4]``
        """
        s, mode = self.settings, 0 if for_training else 1
        scores = output.logits[..., 1] - output.logits[..., 0]  # increases with the probability, without saturation
        anchor_centers = (output.anchors[:, :2] + output.anchors[:, 2:]) / 2
        proposals = []
        for score, deltas, size, original in zip(scores, output.deltas, sizes, original_sizes, strict=True):
            boxes = clip_boxes(decode_boxes(deltas, output.anchors), width=size[1], height=size[0])
            min_sides = boxes.new_tensor([s.min_size * size[1] / original[1], s.min_size * size[0] / original[0]])
            large = ((boxes[:, 2:] - boxes[:, :2]) >= min_sides).all(1)
            # cells that the image would have without larger ones in the batch
            end = boxes.new_tensor([-(-side // self.stride) * self.stride for side in (size[1], size[0])])
            kept = (large & (anchor_centers < end).all(1)).nonzero()[:, 0]
            kept = kept[score[kept].topk(min(s.before_nms[mode], len(kept))).indices]
            kept = kept[nms(boxes[kept], score[kept], s.nms_iou)[: s.proposals[mode]]]
            proposals.append(boxes[kept])
        return proposals

    def losses(
        self, output: RPNOutput, sizes: Sequence[tuple[int, int]], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """Compute ``loss_objectness``, a cross-entropy, and ``loss_rpn_box``, the smooth L1 of the positives' offsets.

        Both are sums over the sampled anchors divided by their number. Anchors that cross the image's border are not
        sampled.

        Args:
            output: Output of `forward`.
            sizes: Height and width of each image within the batch, in pixels.
            targets: For each image ``boxes`` ``[N, 4]``.
        """
        s = self.settings
        # indices into the anchors of the whole batch, [B * Q]
        sampled, labels, positives, offsets = [], [], [], []
        count = len(output.anchors)
        for image, (size, target) in enumerate(zip(sizes, targets, strict=True)):
            whole = inside(output.anchors, size).nonzero()[:, 0]
            anchors, boxes = output.anchors[whole], target["boxes"].to(output.anchors)
            matches = match_anchors(boxes, anchors, s.foreground_iou, s.background_iou, allow_low_quality=True)
            positive, negative = sample_balanced(matches, s.samples, s.positive_fraction)
            sampled.append(image * count + whole[torch.cat([positive, negative])])
            labels.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]))
            positives.append(image * count + whole[positive])
            offsets.append(encode_boxes(boxes[matches[positive]], anchors[positive]))
        divisor = max(sum(len(label) for label in labels), 1)
        logits = output.logits.flatten(0, 1)[torch.cat(sampled)]
        deltas = output.deltas.flatten(0, 1)[torch.cat(positives)]
        return {
            "loss_objectness": F.cross_entropy(logits, torch.cat(labels), reduction="sum") / divisor,
            "loss_rpn_box": F.smooth_l1_loss(deltas, torch.cat(offsets), reduction="sum", beta=s.beta) / divisor,
        }
