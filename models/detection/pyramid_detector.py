"""Base class of the detectors on a feature pyramid: FasterRCNN, RetinaNet and FCOS."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..backbones import Backbone, as_backbone
from .detector import check_detection_settings
from .detector_weights import load_detector, prepare_backbone
from .network_detector import NetworkDetector
from .pyramid import Extra, FeaturePyramid, detector_pyramid
from .resize import ResizeAndPad

_SIZE_DIVISIBLE = 32


class PyramidDetector(NetworkDetector):
    """A detector whose torchvision network stands on a feature pyramid, over any backbone.

    A subclass passes the first two arguments and those that it fixes, and hands the others on.

    Args:
        make_network: Builds torchvision's network on the pyramid.
        builder: torchvision's name of the network, for published weights.
        num_classes: Number of classes K, without background.
        backbone: A backbone, or the name of one (see `build_backbone`). Its maps of stride ``finest_stride`` and
            coarser are used, so its ``out_indices`` determine how coarse the pyramid gets.
        weights: Weights of a backbone given by name: the name of published weights, or the path of a checkpoint.
        detector_weights: Weights of the whole detector: torchvision's name for published weights (``COCO_V1``, with
            ``resnet50``), or the path of a checkpoint, torchvision's or ours. From published weights the scores of
            COCO's 80 classes, in the order of their ids, or of all 90 ids are loaded. With another number of classes,
            the layers that predict classes keep their initialization.
        min_size: Length of the shorter side, in pixels. Several: one is drawn per image in training. None: images are
            not resized.
        max_size: Maximum length of the longer side, in pixels. None: unlimited.
        fpn_channels: Number of channels C of the pyramid, and of the head's convolutions if it has any.
        finest_stride: Stride of the finest pyramid level, in pixels.
        extra: Levels beyond the backbone's, as in `FeaturePyramid`.
        p6_from_trunk: Whether the first of the two additional levels of ``p6p7`` is computed from the backbone's last
            map, as in RetinaNet's paper, rather than from the pyramid's, as torchvision's published weights expect.
        fpn_norm: Whether batch normalization follows each convolution of the pyramid.
        score_threshold: Detections have a higher score than this.
        nms_iou: Of two detections of one class with a higher IoU, the one with the lower score is dropped.
        max_detections: Maximum number of detections per image.

    Attributes:
        network: torchvision's network without its resizing.

    Raises:
        ValueError: The backbone's strides do not make a pyramid, weights do not fit, or a number is out of range.
        FileNotFoundError: A path of weights does not exist.
    """

    def __init__(
        self,
        make_network: Callable[[FeaturePyramid], nn.Module],
        builder: str,
        num_classes: int,
        backbone: Backbone | str,
        weights: str | None = None,
        detector_weights: str | None = None,
        min_size: int | Sequence[int] | None = 800,
        max_size: int | None = 1333,
        fpn_channels: int = 256,
        finest_stride: int = 4,
        extra: Extra | None = None,
        p6_from_trunk: bool = False,
        fpn_norm: bool = False,
        score_threshold: float = 0.05,
        nms_iou: float = 0.5,
        max_detections: int = 100,
    ) -> None:
        check_detection_settings(score_threshold, nms_iou, max_detections)
        body = as_backbone(backbone, weights)
        # padding that normalization turns into 0
        fill = torch.as_tensor(body.normalize.mean).tolist()
        super().__init__(num_classes, ResizeAndPad(min_size, max_size, size_divisible=_SIZE_DIVISIBLE, fill=fill))
        self._builder = builder
        prepare_backbone(body, builder, detector_weights)  # refuses another backbone before anything is built on it
        self.network = make_network(detector_pyramid(body, fpn_channels, finest_stride, extra, p6_from_trunk, fpn_norm))
        del self.network.transform  # `ResizeAndPad` replaces it
        self.score_threshold, self.nms_iou, self.max_detections = score_threshold, nms_iou, max_detections
        self.load_detector_weights(detector_weights)

    @property
    def backbone(self) -> Backbone:
        """The backbone, without the pyramid. A task can give it its own learning rate."""
        return self.network.backbone.body

    def load_detector_weights(self, weights: str | None) -> None:
        """Load the weights of the whole detector; see the argument ``detector_weights``.

        A subclass that adds layers after construction calls it once they are there.
        """
        prepare_backbone(self.backbone, self._builder, weights)
        load_detector(self, self._builder, weights)
