"""Grids and bilinear transposed convolutions, against interpolation and by hand."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models.segmentation.fcn_upsampling import (
    BilinearUpsample,
    Grid,
    align,
    bilinear_kernel,
    crop,
    half_pixel_grid,
    offset,
    stage_grids,
)


def test_kernels_by_hand():
    assert bilinear_kernel(1).tolist() == [[1.0]]
    assert bilinear_kernel(3)[1].tolist() == [0.5, 1.0, 0.5]
    even = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(bilinear_kernel(4), torch.outer(even, even))
    with pytest.raises(ValueError, match="size.*got 0"):
        bilinear_kernel(0)


@pytest.mark.parametrize("factor", [2, 3, 4, 8, 16, 32])
def test_upsampling_equals_interpolation(factor):
    """With `grow` everywhere, otherwise except at the border."""
    maps = torch.randn(2, 3, 5, 4)
    expected = F.interpolate(maps, scale_factor=factor, mode="bilinear", align_corners=False)
    coarse, fine = half_pixel_grid(factor * 2), half_pixel_grid(2)
    for grow in (False, True):
        up = BilinearUpsample(3, coarse, factor, fine.start, grow=grow)
        out = crop(up(maps), offset(up.grid, fine), 5 * factor, 4 * factor)
        inner = slice(None) if grow else slice(factor, -factor)
        torch.testing.assert_close(out[..., inner, inner], expected[..., inner, inner])
        edge = 1.0 if grow else 0.5 + 0.5 / factor  # the position of the corner pixel in its cell; beyond are zeros
        torch.testing.assert_close(out[..., 0, 0], maps[..., 0, 0] * edge**2)


def test_odd_kernel_keeps_the_input_cells():
    maps = torch.randn(1, 2, 4, 4)
    up = BilinearUpsample(2, Grid(32, 13.0), 32, 0.0)
    assert up.size == 63 and up.grid == Grid(1, -18.0)
    torch.testing.assert_close(up(maps)[..., 31::32, 31::32], maps)
    torch.testing.assert_close(
        up(maps)[..., 31, 31:64], torch.lerp(maps[..., 0, :1], maps[..., 0, 1:2], torch.arange(33) / 32)
    )


def test_each_class_has_a_separate_filter():
    up = BilinearUpsample(3, Grid(4, 1.5), 2, 0.5, learned=True)
    assert [tuple(p.shape) for p in up.parameters()] == [(3, 1, 4, 4)]
    maps = torch.randn(1, 3, 4, 4)
    before = up(maps)
    with torch.no_grad():
        up.weight[1] *= 2
    torch.testing.assert_close(up(maps), before * torch.tensor([1.0, 2.0, 1.0])[:, None, None])


def test_fixed_filters_are_neither_trained_nor_saved():
    up = BilinearUpsample(3, Grid(4, 1.5), 2, 0.5)
    assert not list(up.parameters()) and not up.state_dict()


def center_by_gradient(layers, cell):
    """Return the mean position, along each axis, of the pixels that a cell on the diagonal depends on."""
    image = torch.zeros(1, 1, 400, 400, requires_grad=True)
    out = layers(image)
    out[0, 0, cell, cell].backward()
    assert image.grad is not None
    return image.grad[0, 0].nonzero().double().mean(dim=0).tolist()


def test_grids_match_receptive_fields():
    def average(kernel, stride, padding):
        layer = nn.Conv2d(1, 1, kernel, stride, padding, bias=False)
        nn.init.ones_(layer.weight)
        return layer

    layers = nn.Sequential(average(11, 4, 20), average(3, 2, 1), average(2, 2, 0), average(5, 1, 0))
    for last in range(1, 5):
        (grid,) = stage_grids([layers[:last]])
        assert center_by_gradient(layers[:last], 5) == [grid.start + 5 * grid.stride] * 2
    pooled = nn.Sequential(layers[0], nn.MaxPool2d(3, 2, ceil_mode=True))
    assert stage_grids([layers[0], pooled[1]]) == [Grid(4, -15.0), Grid(8, -11.0)]


def test_crop_repeats_the_border_beyond_it():
    maps = torch.arange(6.0).view(1, 1, 2, 3)
    assert crop(maps, 1, 1, 2)[0, 0].tolist() == [[4.0, 5.0]]
    assert crop(maps, -1, 4, 5)[0, 0].tolist() == [
        [0.0, 0.0, 1.0, 2.0, 2.0],
        [0.0, 0.0, 1.0, 2.0, 2.0],
        [3.0, 3.0, 4.0, 5.0, 5.0],
        [3.0, 3.0, 4.0, 5.0, 5.0],
    ]


def test_align_crops_the_map_that_starts_earlier():
    a, b = torch.arange(5.0).expand(1, 1, 5, 5), torch.arange(4.0).expand(1, 1, 4, 4)
    for left, right in ((-4.0, 12.0), (12.0, -4.0)):
        first, second = align(a, Grid(8, left), b, Grid(8, right))
        shift = (first - second).unique()
        assert shift.tolist() == [2.0 if left < right else -2.0]
        assert first.shape[-1] == (3 if left < right else 2)
