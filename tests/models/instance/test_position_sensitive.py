"""Position-sensitive pooling against a plain loop over regions, bins and cells."""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torchvision.ops import ps_roi_pool

from striate.models.instance import position_sensitive_pool


def pool_by_loops(maps: Tensor, boxes: list[Tensor], stride: int, groups: int, size: int) -> Tensor:
    """The definition in fractions, cell by cell: ``[R, C, s, s]``."""
    channels, height, width = maps.shape[1] // groups**2, *maps.shape[-2:]
    output = []
    for image, regions in zip(maps, boxes, strict=True):
        for box in regions.tolist():
            x1, y1, x2, y2 = (Fraction(math.floor(side + 0.5), stride) for side in box)
            bin_width, bin_height = max(x2 - x1, Fraction(1, 10)) / size, max(y2 - y1, Fraction(1, 10)) / size
            pooled = maps.new_zeros(channels, size, size)
            for i in range(size):
                for j in range(size):
                    top, bottom = math.floor(y1 + i * bin_height), math.ceil(y1 + (i + 1) * bin_height)
                    left, right = math.floor(x1 + j * bin_width), math.ceil(x1 + (j + 1) * bin_width)
                    cells = image[
                        :, max(top, 0) : max(min(bottom, height), 0), max(left, 0) : max(min(right, width), 0)
                    ]
                    if cells.numel():
                        group = (i * groups // size) * groups + j * groups // size
                        pooled[:, i, j] = cells[group :: groups**2].mean((1, 2))
            output.append(pooled)
    return torch.stack(output) if output else maps.new_zeros(0, channels, size, size)


def random_regions(count: int, side: float, seed: int) -> Tensor:
    """Boxes ``[count, 4]`` float64 in and partly outside an image of ``side`` pixels, some of them tiny."""
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=generator, dtype=torch.float64) * 1.3 * side - 0.15 * side
    boxes = torch.cat([corners.amin(1), corners.amax(1)], 1)
    boxes[::5, 2:] = boxes[::5, :2] + 0.3
    return boxes


@pytest.mark.parametrize(("groups", "size"), [(7, 21), (3, 3), (2, 5), (1, 4)])
def test_equals_loops_in_values_and_gradients(groups: int, size: int) -> None:
    generator = torch.Generator().manual_seed(groups)
    maps = torch.randn(2, 3 * groups**2, 9, 11, generator=generator, dtype=torch.float64, requires_grad=True)
    boxes = [random_regions(12, 160, 1), random_regions(7, 160, 2)]
    weights = torch.randn(19, 3, size, size, generator=generator, dtype=torch.float64)
    pooled, expected = (
        function(maps, boxes, 16, groups, size) for function in (position_sensitive_pool, pool_by_loops)
    )
    torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad((values * weights).sum(), maps)[0] for values in (pooled, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)
    assert gradients[0].abs().max() > 0
    for channels, groups_first in ((maps, False), (maps.unflatten(1, (3, -1)).transpose(1, 2).flatten(1, 2), True)):
        last = channels.contiguous(memory_format=torch.channels_last)
        for values in (channels, last):
            pooled = position_sensitive_pool(values, boxes, 16, groups, size, groups_first)
            torch.testing.assert_close(pooled, expected, rtol=1e-12, atol=1e-12)
            gradient = torch.autograd.grad((pooled * weights).sum(), maps, retain_graph=True)[0]
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-12, atol=1e-12)


def test_gradcheck() -> None:
    maps = torch.randn(1, 8, 4, 5, dtype=torch.float64, requires_grad=True)
    boxes = [random_regions(4, 70, 3)]
    assert torch.autograd.gradcheck(lambda values: position_sensitive_pool(values, boxes, 16, 2, 4), maps)


def test_one_bin_per_group_is_torchvisions() -> None:
    maps = torch.randn(1, 5 * 9, 12, 12)
    boxes = torch.tensor([[16.0, 32.0, 112.0, 176.0], [0.0, 0.0, 96.0, 48.0]])  # torchvision rounds to whole cells
    expected = ps_roi_pool(maps, [boxes], 3, 1 / 16)
    torch.testing.assert_close(position_sensitive_pool(maps, [boxes], 16, 3, 3), expected)


def test_each_group_reads_its_own_maps() -> None:
    maps = torch.arange(4.0)[None, :, None, None].expand(1, 4, 8, 8)
    pooled = position_sensitive_pool(maps, [torch.tensor([[0.0, 0.0, 64.0, 64.0]])], 8, groups=2, size=4)
    assert pooled[0, 0].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_no_regions_and_wrong_arguments() -> None:
    maps = torch.randn(2, 4, 3, 3, requires_grad=True)
    pooled = position_sensitive_pool(maps, [torch.zeros(0, 4)] * 2, 1, 2, 2)
    assert pooled.shape == (0, 1, 2, 2)
    pooled.sum().backward()
    with pytest.raises(ValueError, match="maps: channels.*groups² = 9, got 4"):
        position_sensitive_pool(maps, [torch.zeros(0, 4)] * 2, 1, 3, 3)
    with pytest.raises(ValueError, match="boxes: must be one tensor per image, 2, got 1"):
        position_sensitive_pool(maps, [torch.zeros(0, 4)], 1, 2, 2)
