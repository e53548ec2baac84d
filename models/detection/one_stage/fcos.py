"""FCOS over a feature pyramid on any backbone."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models import detection as tv
from torchvision.models.detection.fcos import FCOSHead

from ...backbones import Backbone, as_backbone
from ...ops.checks import check_min
from ..detector import check_detection_settings
from ..detector_weights import load_detector, prepare_backbone
from ..pyramid import detector_pyramid, make_anchors, pyramid_resize
from .base import HeadOutput, OneStageDetector, check_group_norm


class FCOS(OneStageDetector):
    """FCOS, without anchor boxes: every cell inside an object predicts the distances to its sides and its centerness.

    Losses: ``loss_classification`` (focal), ``loss_bbox_regression`` (GIoU) and ``loss_bbox_ctrness``.

    Args:
        num_classes: Number of classes K. The background has no output.
        backbone: The backbone, as in `FasterRCNN`.
        weights: Weights of the backbone, as in `FasterRCNN`.
        detector_weights: Weights of the whole detector, as in `FasterRCNN`; torchvision's are of ``fcos_resnet50_fpn``.
        min_size: Length of the shorter side, in pixels, as in `FasterRCNN`.
        max_size: Maximum length of the longer side, in pixels, as in `FasterRCNN`.
        fpn_channels: Number of channels of the pyramid and of the head's convolutions: a multiple of 32, and 64 or
            more, since the head normalizes 32 groups of them.
        finest_stride: Stride of the finest pyramid level, in pixels.
        p6_from_trunk: Whether the first of the two additional levels is computed from the backbone's last map; see
            `RetinaNet`.
        head_depth: Number of convolutions in each branch of the head.
        radius: Maximum distance from an object's center at which cells are trained to predict it, in strides of their
            level.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.

    Attributes:
        network: torchvision's FCOS without its resizing.
        backbone: The backbone, without the pyramid.

    Shape:
        - images: B tensors ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: As in `FasterRCNN`, ``fpn_channels`` do not make 32 groups of 2 or more, ``head_depth`` is below 1,
            or ``radius`` is not above 0.
        FileNotFoundError: A path of weights does not exist.

    Reference:
        Tian et al., "FCOS: a simple and strong anchor-free object detector", TPAMI 2022. As in torchvision, a
        cell is located at its upper left corner, not its center; distances are divided by the level's stride, without
        a learned scale per level; the loss of boxes is not weighted by centerness.

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
        weights: str | None = None,
        detector_weights: str | None = None,
        min_size: int | Sequence[int] | None = 800,
        max_size: int | None = 1333,
        fpn_channels: int = 256,
        finest_stride: int = 8,
        p6_from_trunk: bool = False,
        head_depth: int = 4,
        radius: float = 1.5,
        score_threshold: float = 0.2,
        nms_iou: float = 0.6,
        max_detections: int = 100,
    ) -> None:
        check_detection_settings(score_threshold, nms_iou, max_detections)
        check_group_norm(fpn_channels, "FCOS")
        check_min(1, head_depth=head_depth)
        if not radius > 0:
            raise ValueError(f"radius: must be > 0, got {radius}")
        body = as_backbone(backbone, weights)
        super().__init__(num_classes, pyramid_resize(body, min_size, max_size))
        prepare_backbone(body, "fcos_resnet50_fpn", detector_weights)
        pyramid = detector_pyramid(body, fpn_channels, finest_stride, "p6p7", p6_from_trunk)
        self.network = tv.FCOS(
            pyramid,
            num_classes,
            anchor_generator=make_anchors([[stride] for stride in pyramid.strides], (1.0,), pyramid.strides),
            head=FCOSHead(fpn_channels, 1, num_classes, head_depth),
            center_sampling_radius=radius,
            score_thresh=score_threshold,
            nms_thresh=nms_iou,
            detections_per_img=max_detections,
        )
        del self.network.transform
        load_detector(self, "fcos_resnet50_fpn", detector_weights)

    def anchor_losses(self, targets: list[dict[str, Tensor]], output: HeadOutput) -> dict[str, Tensor]:
        """The focal, GIoU and centerness losses, with boxes ``[N, 4]``; see `OneStageDetector.anchor_losses`."""
        return self.network.compute_loss(targets, *output)
