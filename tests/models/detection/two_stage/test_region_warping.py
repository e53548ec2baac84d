"""Tests of R-CNN's warping against a hand-made case at the border and a slow version by cropping and resizing."""

import pytest
import torch
from torch.nn import functional as F

from striate.models.detection.two_stage.region_warping import context_windows, warp_regions

FILL = (0.1, 0.2, 0.3)


def crop_and_resize(image, box, size, context, fill):
    """One region as R-CNN's code makes it: scale, round, clip, resize the clipped part, and put it onto the mean."""
    x1, y1, x2, y2 = box
    scale = size / (size - 2 * context)
    cx, cy, half_w, half_h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2 * scale, (y2 - y1) / 2 * scale
    left, top, right, bottom = (round(v) for v in (cx - half_w, cy - half_h, cx + half_w, cy + half_h))
    height, width = image.shape[1:]
    clipped = image[:, max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    x_scale, y_scale = size / (right - left), size / (bottom - top)
    new = round(clipped.shape[1] * y_scale), round(clipped.shape[2] * x_scale)
    part = F.interpolate(clipped[None], size=new, mode="bilinear", align_corners=False, antialias=False)[0]
    result = torch.tensor(fill)[:, None, None].expand(3, size, size).clone()
    y, x = round(max(-top, 0) * y_scale), round(max(-left, 0) * x_scale)
    result[:, y : y + new[0], x : x + new[1]] = part
    return result


def test_context_is_that_of_the_paper_and_may_leave_the_image():
    boxes = torch.tensor([[0.0, 0.0, 195.0, 390.0], [10.0, 10.0, 10.2, 10.2]])
    # 227 / (227 - 32) = 227 / 195: 16 and 32 pixels on each side
    assert context_windows(boxes, 227, 16).tolist() == [[-16, -32, 211, 422], [10, 10, 11, 11]]


def test_a_box_at_the_corner_by_hand():
    image = torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0], [9.0, 10.0, 11.0, 12.0]]).expand(1, 3, 4)
    # the window is -1, -1, 3, 3: one warped pixel per pixel, the first row and column of which are outside
    warped = warp_regions(image, torch.tensor([[0.0, 0.0, 2.0, 2.0]]), size=4, context=1, fill=[0.5])
    expected = [[0.5, 0.5, 0.5, 0.5], [0.5, 1.0, 2.0, 3.0], [0.5, 5.0, 6.0, 7.0], [0.5, 9.0, 10.0, 11.0]]
    torch.testing.assert_close(warped[0, 0], torch.tensor(expected))


@pytest.mark.parametrize(
    ("box", "size", "context"),
    [
        ((4.0, 2.0, 12.0, 6.0), 16, 4),  # inside, enlarged in x once, in y twice: anisotropic
        ((0.0, 0.0, 8.0, 8.0), 32, 8),  # across the upper left corner
        ((12.0, 4.0, 20.0, 12.0), 32, 8),  # across the lower right one
        ((0.0, 0.0, 20.0, 12.0), 10, 0),  # the whole image, smaller: without antialiasing
        ((3.0, 3.0, 5.0, 11.0), 8, 0),
    ],
)
def test_equals_cropping_resizing_and_padding(box, size, context):
    image = torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(0))
    others = torch.tensor([[1.0, 1.0, 3.0, 9.0], list(box)])
    warped = warp_regions(image, others, size, context, FILL)
    assert warped.shape == (2, 3, size, size)
    torch.testing.assert_close(warped[1], crop_and_resize(image, box, size, context, FILL))


def test_no_pixel_outside_the_window_has_an_influence():
    image = torch.zeros(3, 8, 8)
    image[:, 2:4, 2:6] = 1.0
    assert bool((warp_regions(image, torch.tensor([[2.0, 2.0, 6.0, 4.0]]), 16, 0) == 1).all())


def test_no_regions():
    assert warp_regions(torch.rand(3, 8, 8), torch.zeros(0, 4), 16, 2).shape == (0, 3, 16, 16)


@pytest.mark.parametrize(
    ("boxes", "size", "message"),
    [
        (torch.zeros(1, 5), 16, r"boxes: must be \[N, 4\].*\[1, 5\]"),
        (torch.tensor([[0.0, 0.0, 2.0, 2.0]]), 4, "size: must be > 2 [*] context, got 4 with a context of 2"),
        (torch.tensor([[20.0, 20.0, 22.0, 22.0]]), 8, "boxes: must be inside the image of 8 x 8 pixels"),
    ],
)
def test_wrong_arguments(boxes, size, message):
    with pytest.raises(ValueError, match=message):
        warp_regions(torch.rand(3, 8, 8), boxes, size, 2)
