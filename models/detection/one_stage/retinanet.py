"""RetinaNet over a feature pyramid on any backbone."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.retinanet import RetinaNetHead

from ...backbones import Backbone
from ...ops.matching import match_anchors
from ..pyramid import FeaturePyramid, Sizes, make_anchors
from .base import NORM_GROUPS, HeadOutput, OneStageDetector, check_group_norm


class RetinaNet(OneStageDetector):
    """RetinaNet: class scores for every anchor of a feature pyramid, trained by the focal loss, over any backbone.

    Losses: ``loss_classification`` and ``loss_bbox_regression``.

    Args:
        num_classes: Number of classes K. The background has no output.
        backbone: The backbone, as in `FasterRCNN`.
        finest_stride: Stride of the finest pyramid level, in pixels.
        head_norm: Whether group normalization follows each convolution of the head, as in torchvision's
            ``retinanet_resnet50_fpn_v2`` and in FCOS. From random weights it learns a little faster (on digits: AP50
            0.14 after 600 steps, without it 0.11).
        anchor_sizes: For each level, the square roots of the anchors' areas, in pixels. The last two levels are the
            additional ones. None: 4 times the level's stride, times 1 and the cube roots of 2 and of 4.
        ratios: Aspect ratios of the anchors, height over width.
        max_detections: Maximum number of detections per image.
        kwargs: Other arguments of `PyramidDetector`: ``weights``, ``detector_weights`` (of
            torchvision's ``retinanet_resnet50_fpn``), ``min_size``, ``p6_from_trunk``, ….

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: ``head_norm`` with ``fpn_channels`` that do not make 32 groups of 2 or more; others as in
            `PyramidDetector`.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017. As in torchvision, the loss of each image is
        divided by its own number of matched anchors before averaging, boxes are trained by L1, and 300 detections are
        kept, not 100 as in the paper.

    Example:
        >>> import torch
        >>> detector = RetinaNet(3, "resnet18", min_size=None, max_size=None, fpn_channels=32)
        >>> len(detector.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)]))
        1
    """

    def __init__(
        self,
        num_classes: int,
        backbone: Backbone | str,
        *,
        finest_stride: int = 8,
        head_norm: bool = False,
        anchor_sizes: Sizes | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        max_detections: int = 300,
        **kwargs: Any,
    ) -> None:
        def make_network(pyramid: FeaturePyramid) -> tv.RetinaNet:
            channels, strides = pyramid.out_channels, pyramid.strides
            if head_norm:
                check_group_norm(channels, "RetinaNet with head_norm")
            sizes = anchor_sizes or [[int(4 * stride * 2 ** (n / 3)) for n in range(3)] for stride in strides]
            anchors = make_anchors(sizes, ratios, strides)
            norm = partial(nn.GroupNorm, NORM_GROUPS) if head_norm else None
            head = RetinaNetHead(channels, anchors.num_anchors_per_location()[0], num_classes, norm)
            return tv.RetinaNet(pyramid, num_classes, anchor_generator=anchors, head=head)

        super().__init__(
            make_network,
            "retinanet_resnet50_fpn",
            num_classes,
            backbone,
            finest_stride=finest_stride,
            extra="p6p7",
            fpn_norm=False,
            max_detections=max_detections,
            **kwargs,
        )

    def anchor_losses(self, targets: list[dict[str, Tensor]], output: HeadOutput) -> dict[str, Tensor]:
        """The focal loss, and the L1 loss of boxes ``[N, 4]``; see `OneStageDetector.anchor_losses`."""
        # as RetinaNet.compute_loss, which would first compute a matrix of all objects and anchors
        matches = [
            match_anchors(target["boxes"], anchors, 0.5, 0.4, allow_low_quality=True)
            for target, anchors in zip(targets, output.anchors, strict=True)
        ]
        return self.network.head.compute_loss(targets, output.values, output.anchors, matches)
