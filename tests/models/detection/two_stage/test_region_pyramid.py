"""Tests of SPP-net's pyramid against AdaptiveMaxPool2d, of the projection rule by hand, and of the choice of scales."""

import pytest
import torch
from torch import nn

from striate.models.detection.two_stage.region_pyramid import LEVELS, nearest_scales, project_windows, pyramid_pool


def pooled_alone(maps, window, image, levels):
    """The pyramid of one window by AdaptiveMaxPool2d on its crop."""
    left, top, right, bottom = window
    crop = maps[image, :, top : bottom + 1, left : right + 1]
    return torch.cat([nn.AdaptiveMaxPool2d(level)(crop).flatten(1) for level in levels], 1)


@pytest.mark.parametrize("levels", [LEVELS, (4, 3, 2, 1), (1, 5), (7,)])
def test_pyramid_equals_adaptive_max_pool_for_every_size_of_window(levels):
    maps = torch.randn(2, 2, 76, 76, generator=torch.Generator().manual_seed(0))
    sides = torch.arange(1, 74)
    windows = torch.stack([sides * 0 + 2, sides % 3, sides + 1, sides % 3 + sides.flip(0) - 1], 1)  # every width
    images = sides % 2
    pooled = pyramid_pool(maps, windows, images, levels)
    assert pooled.shape == (73, 2, sum(level**2 for level in levels))
    expected = [pooled_alone(maps, w, int(i), levels) for w, i in zip(windows.tolist(), images, strict=True)]
    assert torch.equal(pooled, torch.stack(expected))


def test_fifty_bins():
    pooled = pyramid_pool(torch.randn(1, 3, 4, 5), torch.tensor([[0, 0, 4, 3]]), torch.zeros(1, dtype=torch.int64))
    assert pooled.shape == (1, 3, 50)


def test_negative_maps_have_no_zeros():
    """A bin without cells would give 0."""
    pooled = pyramid_pool(-torch.ones(1, 1, 3, 3), torch.tensor([[1, 1, 1, 1]]), torch.zeros(1, dtype=torch.int64))
    assert bool((pooled == -1).all())


def test_projection_by_hand():
    boxes = torch.tensor(
        [
            [0.0, 0.0, 160.0, 160.0],  # centers 16 … 144 are strictly inside: 1 … 9
            [1.0, 15.0, 33.0, 49.0],  # 16, 32; 16, 32, 48
            [16.0, 16.0, 32.0, 48.0],  # none in x, as 16 and 32 are on the sides; 32 alone in y
            [17.0, 1.0, 20.0, 9.0],  # between two centers: the nearest is 1 in x, 0 in y
            [150.0, 150.0, 159.0, 159.0],  # beyond the last center
        ]
    )
    windows = project_windows(boxes, 16, 10, 10)
    expected = [[1, 1, 9, 9], [1, 1, 2, 3], [2, 2, 2, 2], [1, 0, 1, 0], [9, 9, 9, 9]]
    # 24 / 16 = 1.5 is rounded to the even number
    assert windows.tolist() == expected


def test_projection_is_the_cells_with_centers_strictly_inside():
    generator = torch.Generator().manual_seed(0)
    corners = (torch.rand(500, 2, 2, generator=generator) * 320).sort(1).values
    boxes = corners.flatten(1).round()
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2] >= 17).all(1)]  # at least one center
    windows = project_windows(boxes, 16, 21, 21)
    centers = torch.arange(21) * 16
    for axis in (0, 1):
        inside = (centers > boxes[:, axis, None]) & (centers < boxes[:, axis + 2, None])  # [R, 21]
        cells = torch.arange(21)
        between = (cells >= windows[:, axis, None]) & (cells <= windows[:, axis + 2, None])
        assert torch.equal(inside, between)


def test_the_scale_that_brings_a_region_nearest_to_224_pixels():
    scales = (480, 576, 688, 864, 1200)
    boxes = torch.tensor(
        [
            [0.0, 0.0, 224.0, 224.0],  # at 480 of 480 it is 224 already
            [0.0, 0.0, 89.6, 89.6],  # 1200 / 480 = 2.5: 224
            [0.0, 0.0, 156.0, 156.0],  # 688: 223.6
            [0.0, 0.0, 78.0, 312.0],  # the same area
            [0.0, 0.0, 480.0, 480.0],
            [0.0, 0.0, 5.0, 5.0],
        ]
    )
    assert nearest_scales(boxes, 480, 640, scales).tolist() == [0, 4, 2, 2, 0, 4]
    assert nearest_scales(boxes[:1], 240, 640, scales).tolist() == [0]  # twice as large


@pytest.mark.parametrize(("levels", "message"), [((), "levels: .*got none"), ((3, 0), r"levels\[1\]: must be >= 1")])
def test_wrong_levels(levels, message):
    with pytest.raises(ValueError, match=message):
        pyramid_pool(torch.zeros(1, 1, 3, 3), torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0).long(), levels)


def test_no_scales():
    with pytest.raises(ValueError, match="scales: must have at least one side"):
        nearest_scales(torch.zeros(1, 4), 10, 10, ())
