"""The region proposal network of Faster R-CNN: a small network over one feature map that says where objects may be.

Shape legend: B images, a map of C channels and h x w cells, A anchors a cell, Q = h * w * A anchors in all; N objects
of an image, P proposals. Boxes are ``x1, y1, x2, y2`` in pixels of the resized images.
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
from ...ops.init import init_gaussian
from ...ops.matching import match_anchors, sample_balanced


@dataclass(frozen=True)
class RPNSettings:
    """What the proposals are made of and trained on; the defaults are py-faster-rcnn's.

    Attributes:
        anchor_base: Side of the square that anchors are made of, in pixels.
        anchor_scales: Factors of it.
        anchor_ratios: Height over width.
        foreground_iou: An anchor that overlaps an object this much or more is a positive.
        background_iou: One that overlaps every object less is a negative.
        samples: Anchors trained on, an image.
        positive_fraction: Of them positives at most; negatives fill up.
        beta: Where the smooth L1 loss of the boxes turns from a square to a straight line: 1 / sigma^2, with sigma 3.
        before_nms: The best boxes that go into non-maximum suppression, in training and in testing.
        proposals: How many of what it leaves are proposed, in training and in testing.
        nms_iou: A box that overlaps a better one more is suppressed.
        min_size: Side below which a box is not proposed, in pixels of the image as it was given.
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


class RPNOutput(NamedTuple):
    """What the network says of every anchor.

    Attributes:
        logits: ``[B, Q, 2]``, of background and object.
        deltas: ``[B, Q, 4]``, from the anchor to the object's box (`encode_boxes`).
        anchors: ``[Q, 4]``.
    """

    logits: Tensor
    deltas: Tensor
    anchors: Tensor


class RPN(nn.Module):
    """Region proposal network over one feature map.

    A 3 x 3 convolution and a ReLU, then by 1 x 1 convolutions two scores an anchor and four offsets. Weights are drawn
    from N(0, 0.01^2), biases are 0.

    Args:
        in_channels: C.
        channels: Of the 3 x 3 convolution: 512 on VGG-16, 256 on ZF.
        stride: Pixels of the image per cell of the map.
        settings: None: the reference's.

    Reference:
        Ren et al., "Faster R-CNN", NIPS 2015, section 3.1, with the settings of the authors' Python code. Where this
        leaves that code: a box of any size is a true one, also without an anchor that touches it (there, an object that
        no anchor touches would make every anchor positive); a batch may have several images, whose samples are averaged
        together; offsets of sides are clipped at log(1000 / 16) before the exponential.
    """

    cell: Tensor

    def __init__(self, in_channels: int, channels: int, stride: int, settings: RPNSettings | None = None) -> None:
        super().__init__()
        self.settings, self.stride = settings or RPNSettings(), stride
        s = self.settings
        self.register_buffer("cell", cell_anchors(s.anchor_base, s.anchor_scales, s.anchor_ratios), persistent=False)
        self.conv = nn.Conv2d(in_channels, channels, 3, padding=1)
        self.score = nn.Conv2d(channels, 2 * len(self.cell), 1)
        self.box = nn.Conv2d(channels, 4 * len(self.cell), 1)
        init_gaussian(self, 0.01)

    def forward(self, maps: Tensor) -> RPNOutput:
        """Scores and offsets of every anchor, in float32 at least.

        Shape:
            - maps: ``[B, C, h, w]``
        """
        hidden = self.conv(maps).relu()
        logits, deltas = (
            said.permute(0, 2, 3, 1).reshape(len(maps), -1, numbers)  # [B, h, w, A * numbers] to [B, Q, numbers]
            for said, numbers in ((self.score(hidden), 2), (self.box(hidden), 4))
        )
        dtype = torch.promote_types(logits.dtype, torch.float32)
        cell = self.cell.to(dtype)  # whole and half numbers, which every type holds
        return RPNOutput(logits.to(dtype), deltas.to(dtype), grid_anchors(cell, self.stride, *maps.shape[-2:]))

    @torch.no_grad()
    def propose(
        self,
        output: RPNOutput,
        sizes: Sequence[tuple[int, int]],
        original_sizes: Sequence[tuple[int, int]],
        for_training: bool = False,
    ) -> list[Tensor]:
        """The boxes in which objects may be, the likeliest first; constants, through which no gradient flows.

        Args:
            sizes: Height and width of each image in the batch, to which boxes are clipped.
            original_sizes: The same of each image as it was given, for ``min_size``.
            for_training: Which of the two numbers of ``before_nms`` and ``proposals`` holds.

        Shape:
            - output: B times ``[P_i, 4]``
        """
        s, which = self.settings, 0 if for_training else 1
        scores = output.logits[..., 1] - output.logits[..., 0]  # rises with the probability, and does not saturate
        proposals = []
        for score, deltas, size, given in zip(scores, output.deltas, sizes, original_sizes, strict=True):
            boxes = clip_boxes(decode_boxes(deltas, output.anchors), width=size[1], height=size[0])
            least = boxes.new_tensor([s.min_size * size[1] / given[1], s.min_size * size[0] / given[0]])
            large = ((boxes[:, 2:] - boxes[:, :2]) >= least).all(1)
            kept = (large & self._within(output.anchors, size)).nonzero()[:, 0]
            best = score[kept].topk(min(s.before_nms[which], len(kept))).indices
            kept = kept[best]
            kept = kept[nms(boxes[kept], score[kept], s.nms_iou)[: s.proposals[which]]]
            proposals.append(boxes[kept])
        return proposals

    def _within(self, anchors: Tensor, size: tuple[int, int]) -> Tensor:
        """Which anchors belong to the cells that the image would have without other, larger ones beside it."""
        end = anchors.new_tensor([-(-side // self.stride) * self.stride for side in (size[1], size[0])])
        return (anchors[:, :2] + anchors[:, 2:] < 2 * end).all(1)  # twice their centre

    def losses(
        self, output: RPNOutput, sizes: Sequence[tuple[int, int]], targets: Sequence[Mapping[str, Any]]
    ) -> dict[str, Tensor]:
        """``loss_objectness``, the cross-entropy, and ``loss_rpn_box``, the smooth L1 of the positives' offsets.

        Both are sums over the sampled anchors divided by their number. Anchors that cross the image's border are not
        sampled.
        """
        s = self.settings
        chosen, labels, wanted, moved = [], [], [], []
        usual = len(output.anchors)
        for place, (size, target) in enumerate(zip(sizes, targets, strict=True)):
            whole = inside(output.anchors, size).nonzero()[:, 0]
            anchors, boxes = output.anchors[whole], target["boxes"].to(output.anchors)
            matches = match_anchors(boxes, anchors, s.foreground_iou, s.background_iou, allow_low_quality=True)
            positive, negative = sample_balanced(matches, s.samples, s.positive_fraction)
            chosen.append(place * usual + whole[torch.cat([positive, negative])])
            labels.append(torch.cat([torch.ones_like(positive), torch.zeros_like(negative)]))
            wanted.append(encode_boxes(boxes[matches[positive]], anchors[positive]))
            moved.append(place * usual + whole[positive])
        count = max(sum(len(label) for label in labels), 1)
        logits, deltas = output.logits.flatten(0, 1)[torch.cat(chosen)], output.deltas.flatten(0, 1)[torch.cat(moved)]
        return {
            "loss_objectness": F.cross_entropy(logits, torch.cat(labels), reduction="sum") / count,
            "loss_rpn_box": F.smooth_l1_loss(deltas, torch.cat(wanted), reduction="sum", beta=s.beta) / count,
        }
