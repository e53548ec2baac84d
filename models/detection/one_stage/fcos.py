"""FCOS over a feature pyramid on any backbone."""

from collections.abc import Sequence

from torch import Tensor
from torchvision.models import detection as tv
from torchvision.models.detection.fcos import FCOSHead

from ...backbones import Backbone, as_backbone
from ..checkpoint_mapping import load_detector, prepare_trunk
from ..detector import check_detection_settings
from ..pyramid import Pyramid, make_anchors, resizing
from .base import OneStageDetector, check_group_norm


class FCOS(OneStageDetector):
    """FCOS: no anchors; every cell within an object says how far its sides are, and how central it is.

    Losses: ``loss_classification`` (focal), ``loss_bbox_regression`` (GIoU) and ``loss_bbox_ctrness``.

    Args:
        num_classes: K, without background, for which there is no output.
        backbone: As in `FasterRCNN`.
        weights: As in `FasterRCNN`.
        detector_weights: As in `FasterRCNN`, of torchvision's ``fcos_resnet50_fpn``.
        min_size: As in `FasterRCNN`.
        max_size: As in `FasterRCNN`.
        fpn_channels: C, of the pyramid and of the head's convolutions; a multiple of 32, 64 or more, since 32
            groups of them are normalised.
        finest_stride: Of the pyramid, pixels.
        p6_from_trunk: As in `RetinaNet`.
        head_depth: Convolutions of each branch of the head.
        radius: How far from an object's centre cells are trained to see it, in strides of their level.
        score_threshold: The least score of a detection.
        nms_iou: The IoU above which the less sure of two detections of a class is dropped.
        max_detections: The most of an image.

    Attributes:
        network: torchvision's FCOS without its own resizing.
        backbone: The trunk.

    Shape:
        - images: as `FasterRCNN`
        - output: B `Detections`

    Raises:
        ValueError: As in `FasterRCNN`, or ``fpn_channels`` make no 32 groups of 2 or more.
        FileNotFoundError: As in `FasterRCNN`.

    Reference:
        Tian et al., "FCOS: a simple and strong anchor-free object detector", TPAMI 2022. As in torchvision: a cell
        stands for its upper left corner, not its middle; distances are divided by the level's stride, with no
        learned scale of each level; the loss of boxes is not weighted by centrality.

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
        trunk = as_backbone(backbone, weights)
        super().__init__(num_classes, resizing(trunk, min_size, max_size))
        prepare_trunk(trunk, "fcos_resnet50_fpn", detector_weights)
        pyramid = Pyramid(trunk, fpn_channels, finest_stride, "p6p7", p6_from_trunk)
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

    def _losses(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        return self.network.compute_loss(targets, outputs, anchors, counts)
