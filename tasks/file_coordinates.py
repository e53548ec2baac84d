"""The way back from a transformed image to the pixels of its file, for predictions."""

from typing import Any

import torch
from torch import Tensor

from ..models.ops.boxes import clip_boxes
from ..models.ops.masks import RunLengths


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
    origin, scale = _origin_and_scale(corners, width, height)
    return clip_boxes(((boxes.double() - origin.repeat(2)) / scale.repeat(2)).float(), width, height)


def masks_in_file(masks: RunLengths, corners: Tensor, width: int, height: int) -> RunLengths:
    """Map masks from a transformed image back to the original image.

    A pixel of the original image gets the value of the pixel of the transformed image in which its center lies, or 0
    outside.

    Args:
        masks: Masks of the transformed image.
        corners: As in `boxes_in_file`.
        width: Width of the original image in pixels.
        height: Height of the original image in pixels.

    Shape:
        - corners: ``[3, 2]``

    Raises:
        ValueError: As in `boxes_in_file`.
    """
    origin, scale = _origin_and_scale(corners, width, height)
    centers = (torch.arange(side, dtype=torch.float64) + 0.5 for side in (width, height))
    columns, rows = (
        (start + factor * center).floor().long()
        for start, factor, center in zip(origin.tolist(), scale.tolist(), centers, strict=True)
    )
    if masks.size == (height, width) and all(torch.equal(line, torch.arange(len(line))) for line in (columns, rows)):
        return masks
    windows = []
    for pixels, x, y in masks.windows():  # transposed, [w, h]
        (first_x, last_x), (first_y, last_y) = (
            torch.searchsorted(line, torch.tensor([low, low + length])).tolist()
            for line, low, length in ((columns, x, pixels.shape[0]), (rows, y, pixels.shape[1]))
        )
        window = pixels[columns[first_x:last_x] - x][:, rows[first_y:last_y] - y]
        windows.append((window, first_x, first_y))
    return RunLengths.from_windows(windows, (height, width))


def _origin_and_scale(corners: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Position of the corner (0, 0), and scale along x and y: float64 ``[2]`` each, from corners ``[3, 2]``."""
    origin, right, below = corners.double()
    aligned = torch.allclose(torch.stack([right[1], below[0]]), torch.stack([origin[1], origin[0]]), atol=1e-3)
    if not (bool(corners.isfinite().all() and right[0] > origin[0] and below[1] > origin[1]) and aligned):
        raise ValueError(
            "val_transform: must only resize, crop and pad, with steps that transform keypoints too, got the corners "
            f"(0, 0), (W, 0), (0, H) at {corners.tolist()}, from which there is no way back to the pixels of the file"
        )
    return origin, torch.stack([(right[0] - origin[0]) / width, (below[1] - origin[1]) / height])
