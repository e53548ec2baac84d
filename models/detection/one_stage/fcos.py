"""FCOS over a feature pyramid on any backbone.

Shape legend: B images, A locations of all levels together, C channels, K classes, M detections in an image.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import detection as tv
from torchvision.models.detection import fcos

from ...backbones import Backbone
from ...ops.boxes import clip_boxes
from ...ops.checks import check_min
from ...ops.nms import classwise_nms
from ..detector import Detections
from ..pyramid import FeaturePyramid, make_anchors
from ..resize import ImageBatch
from .base import HeadOutput, OneStageDetector, check_group_norm
from .locations import CellCenters, match_locations


class FCOSHead(fcos.FCOSHead):
    """torchvision's head of FCOS, with the maps between its towers and its last convolutions accessible.

    Args:
        channels: Number of channels C of the levels.
        num_classes: Number of classes K.
        depth: Number of convolutions in each tower.
        scaled_levels: Number of levels whose distances are multiplied by a learned number. 0: none are.
    """

    def __init__(self, channels: int, num_classes: int, depth: int, scaled_levels: int = 0) -> None:
        super().__init__(channels, 1, num_classes, depth)
        self.level_scales = nn.Parameter(torch.ones(scaled_levels)) if scaled_levels else None

    def forward(self, levels: list[Tensor]) -> dict[str, Tensor]:
        """The outputs of `predict`, ``[B, A, …]`` each, from the pyramid's levels ``[B, C, h, w]``."""
        return self.predict(*self.towers(levels))

    def towers(self, levels: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """The last maps before scores, and those before distances and centerness; all ``[B, C, h, w]``."""
        return (
            [self.classification_head.conv(level) for level in levels],
            [self.regression_head.conv(level) for level in levels],
        )

    def predict(self, class_towers: Sequence[Tensor], box_towers: Sequence[Tensor]) -> dict[str, Tensor]:
        """Scores, distances and centerness of each location.

        Shape:
            - class_towers, box_towers: ``[B, C, h, w]`` each
            - output: ``cls_logits`` ``[B, A, K]``; ``bbox_regression`` ``[B, A, 4]``, in strides; ``bbox_ctrness``
              ``[B, A, 1]``, logits
        """
        distances = [self.regression_head.bbox_reg(tower) for tower in box_towers]
        if self.level_scales is not None:
            distances = [scale * value for scale, value in zip(self.level_scales, distances, strict=True)]
        return {
            "cls_logits": _by_location([self.classification_head.cls_logits(tower) for tower in class_towers]),
            "bbox_regression": _by_location([F.relu(value) for value in distances]),
            "bbox_ctrness": _by_location([self.regression_head.bbox_ctrness(tower) for tower in box_towers]),
        }


def _by_location(maps: Sequence[Tensor]) -> Tensor:
    """Maps ``[B, C, h, w]`` as one list of their cells, row by row: ``[B, A, C]``."""
    return torch.cat([level.flatten(2).permute(0, 2, 1) for level in maps], dim=1)


class FCOS(OneStageDetector):
    """FCOS, without anchor boxes: every cell inside an object predicts the distances to its sides and its centerness.

    Losses: ``loss_classification`` (focal), ``loss_bbox_regression`` (GIoU) and ``loss_bbox_ctrness``.

    Args:
        num_classes: Number of classes K. The background has no output.
        backbone: The backbone, as in `FasterRCNN`.
        finest_stride: Stride of the finest pyramid level, in pixels.
        head_depth: Number of convolutions in each branch of the head.
        radius: Maximum distance from an object's center at which cells are trained to predict it, in strides of their
            level.
        score_threshold: Detections have a higher score than this. A score is the square root of the class probability
            times the centerness.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        center_locations: Whether a cell predicts from its center, as in the paper, rather than from its upper left
            corner, as torchvision's weights expect.
        level_scales: Whether the distances of each level are multiplied by a learned number, as in the paper, which
            torchvision's network does not have. With torchvision's weights the numbers start at 1.
        kwargs: Other arguments of `PyramidDetector`: ``weights``, ``detector_weights`` (of
            torchvision's ``fcos_resnet50_fpn``), ``min_size``, …. ``fpn_channels`` must be a multiple of 32, and 64 or
            more, since the head normalizes 32 groups of them.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: ``fpn_channels`` do not make 32 groups of 2 or more, ``head_depth`` is below 1, or ``radius`` is not
            above 0; others as in `PyramidDetector`.

    Reference:
        Tian et al., "FCOS: a simple and strong anchor-free object detector", TPAMI 2022. The default is torchvision's
        network, whose weights it loads; ``center_locations`` and ``level_scales`` make it the paper's, as `CondInst`
        uses it. Both have group normalization in the towers, centerness on the tower of boxes, and distances by a ReLU
        in units of the stride. The authors' code also weights the loss of boxes by centerness, which this one does not.

    Example:
        >>> import torch
        >>> detector = FCOS(3, "resnet18", min_size=None, max_size=None, fpn_channels=64)
        >>> len(detector.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)]))
        1
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        *,
        finest_stride: int = 8,
        head_depth: int = 4,
        radius: float = 1.5,
        score_threshold: float = 0.2,
        nms_iou: float = 0.6,
        center_locations: bool = False,
        level_scales: bool = False,
        **kwargs: Any,
    ) -> None:
        check_min(1, head_depth=head_depth)
        if not radius > 0:
            raise ValueError(f"radius: must be > 0, got {radius}")

        def make_network(pyramid: FeaturePyramid) -> tv.FCOS:
            channels, strides = pyramid.out_channels, pyramid.strides
            check_group_norm(channels, type(self).__name__)
            corners = None if center_locations else make_anchors([[stride] for stride in strides], (1.0,), strides)
            return tv.FCOS(
                pyramid,
                num_classes,
                anchor_generator=corners or CellCenters(strides),
                head=FCOSHead(channels, num_classes, head_depth, len(strides) if level_scales else 0),
                center_sampling_radius=radius,
            )

        super().__init__(
            make_network,
            "fcos_resnet50_fpn",
            num_classes,
            backbone,
            finest_stride=finest_stride,
            extra="p6p7",
            fpn_norm=False,
            score_threshold=score_threshold,
            nms_iou=nms_iou,
            **kwargs,
        )

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """Detect the objects of each image; see `Detector.detect`."""
        output = self._run_head(batch)
        return [self.select(output, index, size)[0] for index, size in enumerate(batch.sizes)]

    def select(self, output: HeadOutput, index: int, size: tuple[int, int]) -> tuple[Detections, Tensor]:
        """Select the detections of one image from the head's output.

        Args:
            output: The head's output for a batch, with ``[B, A, …]`` values.
            index: Index of the image in the batch.
            size: Height and width of the image within the batch, in pixels.

        Returns:
            The detections, and the index of the location of each, int64 ``[M]``.
        """
        network, classes = self.network, output.values["cls_logits"].shape[2]
        logits, distances, centerness = (
            output.values[name][index] for name in ("cls_logits", "bbox_regression", "bbox_ctrness")
        )
        scores = (logits.sigmoid() * centerness.sigmoid()).sqrt().flatten()  # [A * K]
        candidates, first = [], 0
        for level in scores.split([classes * count for count in output.counts]):
            above = (level > network.score_thresh).nonzero()[:, 0]
            highest = level[above].topk(min(network.topk_candidates, len(above))).indices
            candidates.append(first + above[highest])
            first += len(level)
        candidate = torch.cat(candidates)
        location, label = candidate // classes, candidate % classes
        boxes = network.box_coder.decode(distances[location], output.anchors[index][location])
        boxes = clip_boxes(boxes, width=size[1], height=size[0])
        kept = classwise_nms(boxes, scores[candidate], label, network.nms_thresh)[: network.detections_per_img]
        detections = Detections(boxes=boxes[kept], scores=scores[candidate][kept], labels=label[kept])
        return detections, location[kept]

    def match(self, targets: list[dict[str, Tensor]], output: HeadOutput) -> list[Tensor]:
        """Match the locations ``[A]`` of each image to its objects; see `match_locations`."""
        radius = self.network.center_sampling_radius
        return [
            match_locations(target["boxes"], locations, output.counts, radius)
            for target, locations in zip(targets, output.anchors, strict=True)
        ]

    def anchor_losses(self, targets: list[dict[str, Tensor]], output: HeadOutput) -> dict[str, Tensor]:
        """The focal, GIoU and centerness losses, with boxes ``[N, 4]``; see `OneStageDetector.anchor_losses`."""
        return self.network.head.compute_loss(targets, output.values, output.anchors, self.match(targets, output))
