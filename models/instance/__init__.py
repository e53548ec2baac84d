"""Instance segmentation: detectors whose objects have masks."""

from .instance_segmenter import InstanceSegmenter, check_mask_targets

__all__ = ["InstanceSegmenter", "check_mask_targets"]
