"""Faster R-CNN over a feature pyramid on any backbone.

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
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import MultiScaleRoIAlign
from torchvision.ops.poolers import initLevelMapper

from ...backbones import Backbone, as_backbone
from ..checkpoint_mapping import load_detector, prepare_trunk
from ..detector import Detections, check_detection_settings
from ..pyramid import (
    BlockwiseMatcher,
    BoxesAndAnchors,
    FloatPredictor,
    FloatRPNHead,
    NetworkDetector,
    Pyramid,
    Sizes,
    make_anchors,
    resizing,
    torchvision_mode,
)
from ..resize import ImageBatch


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
        ValueError: The backbone's strides make no pyramid, weights do not fit, or a number is out of its range.
        FileNotFoundError: The path of a file that does not exist.

    Reference:
        Ren et al., "Faster R-CNN", NeurIPS 2015; Lin et al., "Feature pyramid networks for object detection", CVPR
        2017, section 4. Where this leaves the papers, as torchvision does: RoIAlign with 2 x 2 samples a cell in place
        of pooling; smooth L1 with a beta of 1/9 in both stages; anchors that cross the border are trained on; 512
        regions an image; only regions that overlap an object by less than 0.5 count as background, from 0 on. The
        paper's own detector, on one map of VGG's, is another class.

    Example:
        >>> import torch
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
        check_detection_settings(score_threshold, nms_iou, max_detections)
        trunk = as_backbone(backbone, weights)
        super().__init__(num_classes, resizing(trunk, min_size, max_size))
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
        self.network.rpn.box_similarity = BoxesAndAnchors
        self.network.rpn.proposal_matcher = BlockwiseMatcher(0.7, 0.3)
        load_detector(self, "fasterrcnn_resnet50_fpn", detector_weights)

    @property
    def backbone(self) -> Backbone:
        """The trunk."""
        return self.network.backbone.body

    def _run(self, batch: ImageBatch, targets: list[dict[str, Tensor]] | None) -> tuple[Any, dict[str, Tensor]]:
        with torchvision_mode(self.network, training=targets is not None):
            images = ImageList(batch.pixels, batch.sizes)
            levels = self.network.backbone(batch.pixels)
            proposals, first = self.network.rpn(images, levels, targets)
            found, second = self.network.roi_heads(levels, proposals, batch.sizes, targets)
        return found, {**first, **second}

    def detect(self, batch: ImageBatch) -> list[Detections]:
        """See `Detector.detect`."""
        found, _ = self._run(batch, None)
        return [Detections(boxes=one["boxes"], scores=one["scores"], labels=one["labels"] - 1) for one in found]

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
