"""Faster R-CNN, RetinaNet and FCOS over a feature pyramid on any backbone.

The parts are torchvision's, and so are names and defaults: over its ResNet-50, with the weights of its detectors, these
give the same boxes, scores and losses. What is ours: pixels are normalised by the backbone and resized by the seam,
boxes are computed in float32 under autocast too, and levels and anchors follow from the backbone's strides.

Shape legend: B images, C channels of a level, A anchors, K classes.
"""

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torchvision.models import detection as tv
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from ..backbones import Backbone
from .detector import Detections
from .published import load_detector, prepare_trunk
from .pyramid import (
    FloatPredictor,
    FloatRPNHead,
    NetworkDetector,
    Pyramid,
    TouchingMatcher,
    acting,
    as_trunk,
    make_anchors,
    padding_of,
)
from .resize import ImageBatch, ResizeAndPad

Sizes = Sequence[Sequence[float]]

_SIZE_DIVISIBLE = 32


class FasterRCNN(NetworkDetector):
    """Faster R-CNN on a feature pyramid, over any backbone.

    A small network on every level proposes boxes; each is cut out of the level that suits its size (RoIAlign, 7 x 7
    cells), and two fully connected layers say what it is and correct it. Losses: ``loss_objectness`` and
    ``loss_rpn_box_reg`` of the proposals, ``loss_classifier`` and ``loss_box_reg`` of the regions.

    Args:
        num_classes: K, without background.
        backbone: A backbone, or the name of one (see `build_backbone`). Its maps from ``finest_stride`` on are used, so
            ``out_indices`` decides how coarse the pyramid gets.
        weights: For a backbone given by name: the name of published weights, or the path of a checkpoint.
        detector_weights: Of the whole detector: torchvision's name for published weights (``COCO_V1``, over
            ``resnet50``), or the path of a checkpoint, of torchvision's or ours. Published weights fill the scores of
            COCO's 80 classes, in the order of their ids, or 90, a class an id; for other classes, the layers that score
            them keep their initialisation.
        min_size: Pixels of the shorter side; several: one is drawn for each image in training; None: as the image is.
        max_size: Pixels that the longer side may have at most; None: any.
        fpn_channels: C.
        finest_stride: Of the pyramid, pixels.
        anchor_sizes: Of each level, the last of which is the pyramid's coarsest at twice the stride: square roots of
            the anchors' areas, pixels. None: eight times the level's stride.
        ratios: Height over width of the anchors.
        hidden: Units of each of the two fully connected layers.
        proposals: The best of each level that go into non-maximum suppression, and of each image that come out of it:
            in training, and when detecting.
        rpn_samples: Anchors of an image that a training step looks at, at most half of them on objects.
        roi_samples: Regions of an image that a training step looks at, at most a quarter of them on objects.
        canonical_scale: Side of an object, pixels, that is cut out of the level of stride 16.
        score_threshold: The least score of a detection.
        nms_iou: The IoU above which the less sure of two detections of a class is dropped.
        max_detections: The most of an image.

    Attributes:
        network: torchvision's Faster R-CNN without its own resizing.
        backbone: The trunk; a task may give it a learning rate of its own.

    Shape:
        - images: B times ``[3, H_i, W_i]``, ``uint8`` in [0, 255] or floating point in [0, 1]
        - output: B `Detections`

    Raises:
        ValueError: The backbone's strides make no pyramid, or weights do not fit.
        FileNotFoundError: The path of a file that does not exist.

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks for object detection", CVPR
        2017, section 4. Where this leaves the papers, as torchvision does: RoIAlign with 2 x 2 samples a cell in place
        of pooling; smooth L1 with a beta of 1/9 in both stages; anchors that cross the border are trained on; 512
        regions an image; only regions that overlap an object by less than 0.5 count as background, from 0 on. The
        paper's own detector, on one map of VGG's, is another class.

    Example:
        >>> detector = FasterRCNN(3, "resnet18", min_size=None, max_size=None, fpn_channels=32, hidden=64)
        >>> found = detector.eval()([torch.zeros(3, 50, 70, dtype=torch.uint8)])
        >>> sorted(found[0])
        ['boxes', 'labels', 'scores']
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
        finest_stride: int = 4,
        anchor_sizes: Sizes | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        hidden: int = 1024,
        proposals: tuple[int, int] = (2000, 1000),
        rpn_samples: int = 256,
        roi_samples: int = 512,
        canonical_scale: int = 224,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        trunk = as_trunk(backbone, weights)
        super().__init__(num_classes, _resize(trunk, min_size, max_size))
        prepare_trunk(trunk, "fasterrcnn_resnet50_fpn", detector_weights)
        pyramid = Pyramid(trunk, fpn_channels, finest_stride)
        sizes = anchor_sizes or [[8 * stride] for stride in pyramid.strides]
        anchors = make_anchors(sizes, ratios, pyramid.strides)
        pool = _roi_pool(pyramid.strides[:-1], canonical_scale)
        self.network = tv.FasterRCNN(
            pyramid,
            rpn_anchor_generator=anchors,
            rpn_head=FloatRPNHead(fpn_channels, anchors.num_anchors_per_location()[0]),
            rpn_pre_nms_top_n_train=proposals[0],
            rpn_pre_nms_top_n_test=proposals[1],
            rpn_post_nms_top_n_train=proposals[0],
            rpn_post_nms_top_n_test=proposals[1],
            rpn_batch_size_per_image=rpn_samples,
            box_roi_pool=pool,
            box_head=TwoMLPHead(fpn_channels * 7 * 7, hidden),
            box_predictor=FloatPredictor(hidden, num_classes + 1),
            box_batch_size_per_image=roi_samples,
            box_score_thresh=score_threshold,
            box_nms_thresh=nms_iou,
            box_detections_per_img=max_detections,
        )
        del self.network.transform  # the seam's in its place
        self.network.rpn.proposal_matcher = TouchingMatcher(0.7, 0.3, allow_low_quality_matches=True)
        load_detector(self, "fasterrcnn_resnet50_fpn", detector_weights)

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.network.backbone.body

    def _run(self, batch: ImageBatch, targets: list[dict[str, Tensor]] | None) -> tuple[Any, dict[str, Tensor]]:
        with acting(self.network, training=targets is not None):
            images = ImageList(batch.pixels, batch.sizes)
            levels = self.network.backbone(batch.pixels)
            proposals, first = self.network.rpn(images, levels, targets)
            found, second = self.network.roi_heads(levels, proposals, batch.sizes, targets)
        return found, {**first, **second}

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        found, _ = self._run(batch, None)
        return [{"boxes": one["boxes"], "scores": one["scores"], "labels": one["labels"] - 1} for one in found]

    def compute_losses(self, batch: ImageBatch, targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """See `Detector.compute_losses`."""
        shifted = [{"boxes": target["boxes"].float(), "labels": target["labels"] + 1} for target in targets]
        return self._run(batch, shifted)[1]


def _roi_pool(strides: Sequence[int], canonical_scale: int) -> MultiScaleRoIAlign:
    """torchvision's, its levels told: it would guess them from the first batch that it sees, and keep the guess."""
    pool = MultiScaleRoIAlign([str(level) for level in range(len(strides))], 7, 2, canonical_scale=canonical_scale)
    pool.scales = [1 / stride for stride in strides]
    first, last = strides[0].bit_length() - 1, strides[-1].bit_length() - 1
    pool.map_levels = initLevelMapper(first, last, canonical_scale=canonical_scale, canonical_level=4)
    return pool


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
        anchor_sizes: Sizes | None = None,
        ratios: Sequence[float] = (0.5, 1.0, 2.0),
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 300,
    ) -> None:
        trunk = as_trunk(backbone, weights)
        super().__init__(num_classes, _resize(trunk, min_size, max_size))
        prepare_trunk(trunk, "retinanet_resnet50_fpn", detector_weights)
        pyramid = Pyramid(trunk, fpn_channels, finest_stride, "p6p7", p6_from_trunk)
        sizes = anchor_sizes or [[int(4 * stride * 2 ** (n / 3)) for n in range(3)] for stride in pyramid.strides]
        self.network = tv.RetinaNet(
            pyramid,
            num_classes,
            anchor_generator=make_anchors(sizes, ratios, pyramid.strides),
            proposal_matcher=TouchingMatcher(0.5, 0.4, allow_low_quality_matches=True),
            score_thresh=score_threshold,
            nms_thresh=nms_iou,
            detections_per_img=max_detections,
        )
        del self.network.transform
        load_detector(self, "retinanet_resnet50_fpn", detector_weights)

    def _losses(
        self, targets: list[dict[str, Tensor]], outputs: dict[str, Tensor], anchors: list[Tensor], counts: list[int]
    ) -> dict[str, Tensor]:
        return self.network.compute_loss(targets, outputs, anchors)


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
        if fpn_channels < 64 or fpn_channels % 32:
            raise ValueError(
                f"fpn_channels: {fpn_channels}; FCOS normalises 32 groups of them, so give a multiple of 32, from 64 on"
            )
        trunk = as_trunk(backbone, weights)
        super().__init__(num_classes, _resize(trunk, min_size, max_size))
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


def _resize(trunk: Backbone, min_size: int | Sequence[int] | None, max_size: int | None) -> ResizeAndPad:
    return ResizeAndPad(min_size, max_size, size_divisible=_SIZE_DIVISIBLE, fill=padding_of(trunk))
