"""R-CNN's warping: each region with some of its surroundings becomes an image of one size.

Shape legend: R regions of an image of H by W pixels, C channels; S the side of a warped region. Boxes are ``x1, y1, x2,
y2`` in pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ...ops.boxes import check_boxes
from ...ops.checks import check_min


def context_windows(boxes: Tensor, size: int, context: int) -> Tensor:
    """Windows that leave ``context`` pixels around each box once they are warped to ``size`` pixels.

    A box is scaled about its center by ``size / (size - 2 * context)``, in x and in y, and rounded to pixels. A window
    may leave the image, and has at least one pixel.

    Args:
        boxes: Regions.
        size: Side of a warped region, in pixels.
        context: Pixels of a warped region on each side of the box.

    Shape:
        - boxes: ``[R, 4]``
        - output: ``[R, 4]``, integers

    Raises:
        ValueError: Boxes are not ``[R, 4]``, or no pixel is left for the box.
    """
    check_boxes(boxes, "boxes")
    check_min(0, context=context)
    if size <= 2 * context:
        raise ValueError(f"size: must be > 2 * context, got {size} with a context of {context}; raise size")
    half = (boxes[:, 2:] - boxes[:, :2]) / 2
    center, scaled = boxes[:, :2] + half, half * (size / (size - 2 * context))
    low, high = (center - scaled).round(), (center + scaled).round()
    return torch.cat([low, torch.maximum(high, low + 1)], dim=1)


def warp_regions(
    image: Tensor, boxes: Tensor, size: int = 227, context: int = 16, fill: Sequence[float] = (0.0, 0.0, 0.0)
) -> Tensor:
    """Warp regions of an image to squares, regardless of their aspect ratio.

    The window of each region (`context_windows`) is resized by bilinear interpolation without antialiasing. What of it
    lies outside the image has the color ``fill``, and no pixel outside the window has any influence.

    Args:
        image: The image, floating point.
        boxes: Regions.
        size: Side S of a warped region, in pixels. R-CNN's AlexNet: 227, VGG-16: 224.
        context: Pixels around the box within a warped region.
        fill: Value of each channel outside the image: the network's mean, which is 0 after its subtraction.

    Shape:
        - image: ``[C, H, W]``
        - boxes: ``[R, 4]``
        - output: ``[R, C, S, S]``

    Raises:
        ValueError: A window lies outside the image, boxes are not ``[R, 4]``, or no pixel is left for the box.

    Reference:
        Girshick et al., "Rich feature hierarchies for accurate object detection", CVPR 2014, appendix A, figure 7 D.
        The authors' code rounds the size of the resized part at a border to pixels; here positions are exact.

    Example:
        >>> image = torch.arange(4.0).expand(1, 4, 4)
        >>> warp_regions(image, torch.tensor([[0.0, 0.0, 2.0, 4.0]]), size=4, context=1, fill=[9.0])[0, 0, 1]
        tensor([9., 0., 1., 2.])
    """
    windows = context_windows(boxes.to(image.dtype), size, context)
    height, width = image.shape[-2:]
    x, x_inside = _samples(windows[:, 0], windows[:, 2], size, width)
    y, y_inside = _samples(windows[:, 1], windows[:, 3], size, height)
    if not bool(x_inside.any(1).all() & y_inside.any(1).all()):
        raise ValueError(f"boxes: must be inside the image of {width} x {height} pixels, got a box outside it")
    x, y = (2 * x + 1) / width - 1, (2 * y + 1) / height - 1  # grid_sample's coordinates
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    # one long image of all regions: [1, C, R * S, S]
    warped = F.grid_sample(image[None], grid.reshape(1, -1, size, 2), padding_mode="border", align_corners=False)
    warped = warped[0].unflatten(1, (len(boxes), size)).transpose(0, 1)  # [R, C, S, S]
    inside = (y_inside[:, :, None] & x_inside[:, None, :])[:, None]  # [R, 1, S, S]
    return torch.where(inside, warped, image.new_tensor(tuple(fill))[:, None, None])


def _samples(low: Tensor, high: Tensor, size: int, limit: int) -> tuple[Tensor, Tensor]:
    """Positions of samples along one side of windows from ``low`` to ``high``, ``[R]`` each, in indices of pixels.

    Returns:
        Positions, clamped to the window's pixels in the image, and whether they are inside the image; ``[R, S]`` each.
    """
    steps = (torch.arange(size, dtype=low.dtype, device=low.device) + 0.5) / size
    position = low[:, None] + steps * (high - low)[:, None]  # between pixels: pixel i extends from i to i + 1
    inside = (position >= 0) & (position <= limit)
    first, last = low.clamp(min=0)[:, None], high.clamp(max=limit)[:, None] - 1
    return torch.minimum(torch.maximum(position - 0.5, first), last), inside
