"""Instance segmentation: detectors whose objects have masks."""

from .condinst import CondInst
from .fcis import FCIS
from .inside_outside import FCISSettings, fcis_losses
from .instance_segmenter import InstanceSegmenter, check_mask_targets
from .mask_rcnn import MaskRCNN
from .mask_rcnn_c4 import MaskRCNNC4
from .mask_targets import mask_loss, mask_targets
from .mask_voting import vote_masks, voting_weights
from .position_sensitive import position_sensitive_pool

__all__ = [
    "FCIS",
    "CondInst",
    "FCISSettings",
    "InstanceSegmenter",
    "MaskRCNN",
    "MaskRCNNC4",
    "check_mask_targets",
    "fcis_losses",
    "mask_loss",
    "mask_targets",
    "position_sensitive_pool",
    "vote_masks",
    "voting_weights",
]
