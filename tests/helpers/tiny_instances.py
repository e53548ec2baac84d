"""An instance segmenter with fixed predictions, for tests, and batches with masks."""

import torch

from striate.models.instance import InstanceSegmenter

from .detector_inputs import detection_batch, detection_target
from .tiny_detector import Known


class KnownMasks(InstanceSegmenter, Known):
    """Predicts the same objects for each image, as `Known` does; each mask fills its box."""

    def detect(self, batch):
        detections = super().detect(batch)
        return [one | {"mask_probabilities": torch.ones(len(one["boxes"]), 64, 64)} for one in detections]


def filled(boxes, size):
    """Masks that fill boxes of whole pixels ``[N, 4]``: uint8 ``[N, H, W]``."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def instance_batch(sizes, objects, **fields):
    """A batch of noise with the given boxes and labels of each image, filled by their masks."""
    targets = [
        detection_target(boxes, labels, **fields) | {"masks": filled(boxes, size)}
        for size, (boxes, labels) in zip(sizes, objects, strict=True)
    ]
    return detection_batch(sizes, targets)
