"""Windows of several sizes and aspect ratios at regular positions: proposals that do not look at the image."""

import math

import torch
from torch import Tensor

from ..ops.checks import check_above, check_min

ASPECTS = (0.5, 1.0, 2.0)


def sliding_windows(
    height: int, width: int, min_side: float = 20, max_boxes: int | None = None, step: float = 0.25, seed: int = 0
) -> Tensor:
    """Return windows of an image, in a random order, so that the first of them are spread over all sizes.

    The square root of their area grows from ``min_side`` to the shorter side of the image by factors of the square root
    of 2. Their width over height is 0.5, 1 or 2. Windows that are larger than the image, or narrower or lower than
    ``min_side``, are left out.

    Args:
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.
        min_side: Minimum width and height of a window, in pixels.
        max_boxes: Maximum number of windows. None: all.
        step: Distance between neighboring windows, as a fraction of their width and height. The last ones end at the
            border.
        seed: Seed of the order.

    Shape:
        - output: float32 ``[P, 4]``, x1, y1, x2, y2 in whole pixels

    Raises:
        ValueError: A number is out of range.
    """
    check_min(1, height=height, width=width, min_side=min_side, max_boxes=max_boxes)
    check_above(0, step=step)
    count = max(math.floor(2 * math.log2(min(height, width) / min_side) + 1e-9), -1) + 1
    found = []
    for side in [min_side * 2 ** (index / 2) for index in range(count)]:
        for aspect in ASPECTS:
            w, h = round(side * math.sqrt(aspect)), round(side / math.sqrt(aspect))
            if min_side <= w <= width and min_side <= h <= height:
                left, top = _positions(width - w, step * w), _positions(height - h, step * h)
                corners = torch.cartesian_prod(left, top)
                found.append(torch.cat([corners, corners + torch.tensor([w, h])], 1))
    boxes = torch.cat(found).float() if found else torch.zeros(0, 4)
    order = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(seed))
    return boxes[order[:max_boxes]]


def _positions(room: int, step: float) -> Tensor:
    """Whole positions from 0 to `room`, at most `step` apart: int64 ``[N]``."""
    return torch.linspace(0, room, math.ceil(room / step) + 1).round().long()
