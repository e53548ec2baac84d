"""Instance segmentation: detectors whose objects have masks."""

from .instance_segmenter import InstanceSegmenter, check_mask_targets
from .mask_rcnn import MaskRCNN
from .mask_targets import mask_targets
from .position_sensitive import position_sensitive_pool

__all__ = ["InstanceSegmenter", "MaskRCNN", "check_mask_targets", "mask_targets", "position_sensitive_pool"]
