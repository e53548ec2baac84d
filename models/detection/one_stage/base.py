"""RetinaNet and FCOS over a feature pyramid on any backbone; see `striate.models.detection.two_stage.faster_rcnn`.

Shape legend: B images, C channels of a level, A anchors, K classes.
"""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torchvision.models import detection as tv
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead

from ...backbones import Backbone
from ...ops.matching import match_anchors
from ..detector import Detections, check_detecting
from ..pretrained import load_detector, prepare_trunk
from ..pyramid import NetworkDetector, Pyramid, Sizes, as_trunk, make_anchors, resizing
from ..resize import ImageBatch

_GROUPS = 32


class _OneStage(NetworkDetector):
    """What RetinaNet and FCOS share: every cell of every level says what is there, and that is all."""

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.network.backbone.body

    def _outputs(self, batch: ImageBatch) -> tuple[dict[str, Tensor], list[Tensor], list[int]]:
        """What the head says of every anchor, ``[B, A, …]``, the anchors of each image, and their number by level."""
        levels = list(self.network.backbone(batch.pixels).values())
        outputs = {name: values.float() for name, values in self.network.head(levels).items()}
        anchors = self.network.anchor_generator(ImageList(batch.pixels, batch.sizes), levels)
        cells = [level.shape[-2] * level.shape[-1] for level in levels]
        each = len(anchors[0]) // sum(cells)
        return outputs, anchors, [each * count for count in cells]

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        outputs, anchors, counts = self._outputs(batch)
        by_level = {name: list(values.split(counts, dim=1)) for name, values in outputs.items()}
        return self.network.postprocess_detections(by_level, [list(a.split(counts)) for a in anchors], batch.sizes)

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See `Detector.compute_losses`."""
        outputs, anchors, counts = self._outputs(batch)
        wanted = [{"boxes": target["boxes"].float(), "labels": target["labels"]} for target in targets]
        return {f"loss_{name}": loss for name, loss in self._losses(wanted, outputs, anchors, counts).items()}

    def _losses(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        raise NotImplementedError


class RetinaNet(_OneStage):
    """RetinaNet: every anchor of a feature pyramid is scored, under the focal loss; over any backbone.

    Losses: ``loss_classification`` and ``loss_bbox_regression``.

    Args:
        num_classes: K, without background, for which there is no output.
        backbone: As in `FasterRCNN`.
        weights: As in `FasterRCNN`.
        detector_weights: As in `FasterRCNN`, of torchvision's ``retinanet_resnet50_fpn``.
        min_size: As in `FasterRCNN`.
        max_size: As in `FasterRCNN`.
        fpn_channels: C, of the pyramid and of the head's convolutions.
        finest_stride: Of the pyramid, pixels.
        p6_from_trunk: Whether the first of the two additional levels comes from the trunk's last map, as in the paper;
            else from the pyramid's, as torchvision's published weights expect.
        head_norm: Normalise groups of channels after each convolution of the head, as torchvision's
            ``retinanet_resnet50_fpn_v2`` does and FCOS: where all begins from random weights, it learns
            a little sooner (measured on digits: AP50 0.14 after 600 steps, without it 0.11).
        anchor_sizes: Of each level, the last two of which are the additional ones. None: 4 times the level's stride,
            that by the cube root of 2, and that by the cube root of 4.
        ratios: Height over width of the anchors.
        score_threshold: The least score of a detection.
        nms_iou: The IoU above which the less sure of two detections of a class is dropped.
        max_detections: The most of an image.

    Attributes:
        network: torchvision's RetinaNet without its own resizing.
        backbone: The trunk.

    Shape:
        - images: as `FasterRCNN`
        - output: B `Detections`

    Raises:
        ValueError: As in `FasterRCNN`.
        FileNotFoundError: As in `FasterRCNN`.

    Reference:
        Lin et al., "Focal loss for dense object detection", ICCV 2017. As in torchvision, each image's loss is divided
        by its own number of matched anchors before the mean is taken, boxes are trained by L1, and 300 detections are
        kept where the paper keeps 100.

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
        weights: str | None = None,
        detector_weights: str | None = None,
        min_size: int | Sequence[int] | None = 800,
        max_size: int | None = 1333,
        fpn_channels: int = 256,
        finest_stride: int = 8,
        p6_from_trunk: bool = False,
        head_norm: bool = False,
        anchor_sizes: Sizes | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 300,
    ) -> None:
        check_detecting(score_threshold, nms_iou, max_detections)
        if head_norm:
            _check_groups(fpn_channels, "RetinaNet with head_norm")
        trunk = as_trunk(backbone, weights)
        super().__init__(num_classes, resizing(trunk, min_size, max_size))
        prepare_trunk(trunk, "retinanet_resnet50_fpn", detector_weights)
        pyramid = Pyramid(trunk, fpn_channels, finest_stride, "p6p7", p6_from_trunk)
        sizes = anchor_sizes or [[int(4 * stride * 2 ** (n / 3)) for n in range(3)] for stride in pyramid.strides]
        anchors = make_anchors(sizes, ratios, pyramid.strides)
        norm = partial(nn.GroupNorm, _GROUPS) if head_norm else None
        head = RetinaNetHead(fpn_channels, anchors.num_anchors_per_location()[0], num_classes, norm)
        self.network = tv.RetinaNet(
            pyramid,
            num_classes,
            anchor_generator=anchors,
            head=head,
            score_thresh=score_threshold,
            nms_thresh=nms_iou,
            detections_per_img=max_detections,
        )
        del self.network.transform
        load_detector(self, "retinanet_resnet50_fpn", detector_weights)

    def _losses(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        # as RetinaNet.compute_loss, which would make a matrix of all objects and anchors first
        matches = [
            match_anchors(target["boxes"], own, 0.5, 0.4, allow_low_quality=True)
            for target, own in zip(targets, anchors, strict=True)
        ]
        return self.network.head.compute_loss(targets, outputs, anchors, matches)


class FCOS(_OneStage):
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
        check_detecting(score_threshold, nms_iou, max_detections)
        _check_groups(fpn_channels, "FCOS")
        trunk = as_trunk(backbone, weights)
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


def _check_groups(channels: int, who: str) -> None:
    """See that there are groups to normalise: of two values or more, since a level may have a single cell."""
    if channels < 2 * _GROUPS or channels % _GROUPS:
        raise ValueError(
            f"fpn_channels: {channels}; {who} normalises {_GROUPS} groups of them, so give a multiple of {_GROUPS}, "
            f"from {2 * _GROUPS} on"
        )
