"""The way back from a transformed image to the pixels of its file, for predictions."""

from typing import Any

import torch
from torch import Tensor

from ..models.ops.boxes import clip_boxes


def only_resized(batch: Any) -> bool:
    """Whether each image of a `PredictBatch` shows its whole file and nothing else, at any size."""
    # sides are rounded to whole pixels, corners are not; a crop or a border is at least one pixel wide
    tolerance = torch.tensor([[1e-3, 1e-3], [0.6, 1e-3], [1e-3, 0.6]])
    sizes = (image.shape[-2:] for image in batch["image"])
    return "corners" in batch and all(
        bool(((corners.cpu() - torch.tensor([[0, 0], [width, 0], [0, height]])).abs() <= tolerance).all())  # not NaN
        for corners, (height, width) in zip(batch["corners"], sizes, strict=True)
    )


def boxes_in_file(boxes: Tensor, corners: Tensor, width: int, height: int) -> Tensor:
    """Map boxes from a transformed image back to the original image, and clip them to it.

    Args:
        boxes: In pixels of the transformed image.
        corners: Where the transform has put the original corners (0, 0), (width, 0) and (0, height), by resizing,
            cropping and padding in any order.
        width: Width of the original image in pixels.
        height: Height of the original image in pixels.

    Shape:
        - boxes: ``[..., 4]``
        - corners: ``[3, 2]``
        - output: ``[..., 4]``

    Raises:
        ValueError: The transform rotates or shears, so that a box in it is none in the original, or it does not report
            where corners go.
    """
    origin, right, below = corners.double()
    aligned = torch.allclose(torch.stack([right[1], below[0]]), torch.stack([origin[1], origin[0]]), atol=1e-3)
    if not (bool(corners.isfinite().all() and right[0] > origin[0] and below[1] > origin[1]) and aligned):
        raise ValueError(
            "val_transform: must only resize, crop and pad, with steps that transform keypoints too, got the corners "
            f"(0, 0), (W, 0), (0, H) at {corners.tolist()}, from which there is no way back to the pixels of the file"
        )
    scale = torch.stack([(right[0] - origin[0]) / width, (below[1] - origin[1]) / height]).repeat(2)
    return clip_boxes(((boxes.double() - origin.repeat(2)) / scale).float(), width, height)
