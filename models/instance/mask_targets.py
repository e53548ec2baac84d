"""Training targets of the mask branch of a two-stage segmenter.

Shape legend: N objects of an image of H by W pixels, P regions; ``m`` cells per side of a small mask.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

_OBJECTS = 8
"""Number of masks that are resized at once, which bounds memory."""


def mask_loss(logits: Tensor, targets: Sequence[Tensor]) -> Tensor:
    """The mean binary cross-entropy over the cells of all regions with an object; 0 without regions.

    Shape:
        - logits: ``[P, m, m]`` of all images
        - targets: for each image ``[P_i, m, m]``, in [0, 1]
        - output: a scalar
    """
    total = F.binary_cross_entropy_with_logits(logits, torch.cat(list(targets)), reduction="sum")
    return total / max(logits.numel(), 1)


def mask_targets(
    masks: Tensor, boxes: Tensor, objects: Tensor, size: int, image_size: tuple[int, int], aligned: bool = False
) -> Tensor:
    """Crop the masks of objects to regions, and resize them.

    Masks are resized with the image (nearest pixel), then averaged in each cell of the region by RoIAlign, without
    rounding. Values are fractions of a cell, as in torchvision; the paper does not say whether they are binarized.

    Args:
        masks: Masks in pixels of the original image, 0 or 1.
        boxes: The regions, in pixels of the resized image.
        objects: Index of the object that each region belongs to, int64.
        size: Number of cells m per side of the result.
        image_size: Height and width of the resized image, in pixels.
        aligned: Whether the values of pixels are at their centers, as in Detectron2. Otherwise they are at whole
            numbers, half a pixel to the upper left, as in torchvision.

    Shape:
        - masks: ``[N, H, W]``, bool or uint8
        - boxes: ``[P, 4]``
        - objects: ``[P]``
        - output: ``[P, m, m]``, in [0, 1]

    Reference:
        He et al., "Mask R-CNN", ICCV 2017, section 3.1: the intersection of a region with its ground-truth mask.
    """
    targets = boxes.new_zeros(len(boxes), size, size)
    for chosen in objects.unique().split(_OBJECTS):  # ascending
        resized = F.interpolate(masks[chosen][:, None].to(torch.uint8), size=image_size)
        regions = torch.isin(objects, chosen).nonzero()[:, 0]
        index = torch.searchsorted(chosen, objects[regions])
        rois = torch.cat([index[:, None].to(boxes), boxes[regions]], dim=1)
        targets[regions] = roi_align(resized.to(boxes.dtype), rois, size, aligned=aligned)[:, 0]
    return targets
