"""CondInst's mask heads against plain loops and by hand."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.models.instance.dynamic_heads import (
    Instances,
    at_locations,
    dice_losses,
    double_size,
    dynamic_logits,
    number_of_parameters,
    sample_masks,
    split_parameters,
)


def random_instances(count: int, features: int = 8, seed: int = 0) -> Instances:
    """Instances with random parameters in and around an image of 100 pixels."""
    generator = torch.Generator().manual_seed(seed)
    return Instances(
        torch.randn(count, number_of_parameters(features), generator=generator) * 0.5,
        torch.rand(count, 2, generator=generator) * 100,
        torch.tensor([64.0, 128.0, 256.0])[torch.arange(count) % 3],
    )


def logits_by_loop(features: Tensor, instances: Instances, stride: int) -> Tensor:
    """One instance after another, with maps of relative coordinates and `F.conv2d`."""
    channels, height, width = features.shape
    output = []
    for parameters, location, unit in zip(*instances, strict=True):
        x = (location[0] - stride * (torch.arange(width) + 0.5)) / unit
        y = (location[1] - stride * (torch.arange(height) + 0.5)) / unit
        values = torch.cat([x.expand(1, height, width), y[:, None].expand(1, height, width), features])[None]
        first = 0
        weights = []
        for rows, columns in ((8, channels + 2), (8, 8), (1, 8)):
            weights.append(parameters[first : first + rows * columns].view(rows, columns, 1, 1))
            first += rows * columns
        for layer, weight in enumerate(weights):
            bias = parameters[first : first + len(weight)]
            values = F.conv2d(values, weight, bias)
            if layer < 2:
                values = values.relu()
            first += len(weight)
        assert first == len(parameters)
        output.append(values[0, 0])
    return torch.stack(output)


@pytest.mark.parametrize("features", [8, 3])
def test_all_instances_at_once_equal_a_loop(features: int) -> None:
    maps = torch.randn(features, 7, 12, generator=torch.Generator().manual_seed(1), requires_grad=True)
    instances = random_instances(5, features)
    instances.parameters.requires_grad_()
    weights = torch.randn(5, 7, 12)
    logits, expected = (function(maps, instances, 8) for function in (dynamic_logits, logits_by_loop))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)
    for leaf in (maps, instances.parameters):
        gradients = [
            torch.autograd.grad((values * weights).sum(), leaf, retain_graph=True)[0] for values in (logits, expected)
        ]
        torch.testing.assert_close(*gradients, atol=1e-3, rtol=1e-3)
    assert logits.std() > 0.1


def test_parameters_are_weights_then_biases() -> None:
    assert number_of_parameters(8) == 169 == 80 + 64 + 8 + 8 + 8 + 1
    weights, biases = split_parameters(torch.arange(169.0)[None], 8)
    assert [list(w.shape) for w in weights] == [[1, 8, 10], [1, 8, 8], [1, 1, 8]]
    assert weights[0][0, 1, 0] == 10 and weights[1][0, 0, 0] == 80 and weights[2][0, 0, 0] == 144
    assert biases[0][0, :, 0].tolist() == list(range(152, 160)) and biases[1][0, 0, 0] == 160
    assert biases[2].tolist() == [[[168]]]


def test_relative_coordinates_by_hand() -> None:
    parameters = torch.zeros(2, 169)
    weights, _ = split_parameters(parameters, 8)  # views
    weights[0][0, 0, 0], weights[0][1, 0, 1] = 1, 1  # the first instance reads x, the second y
    weights[1][:, 0, 0], weights[2][:, 0, 0] = 1, 1
    instances = Instances(parameters, torch.tensor([[20.0, 4.0], [4.0, 20.0]]), torch.tensor([64.0, 32.0]))
    logits = dynamic_logits(torch.zeros(8, 3, 4), instances, 8)
    # centers at 4, 12, 20, 28: to the left of the location the coordinate is positive; a ReLU clips it to the right
    torch.testing.assert_close(logits[0], torch.tensor([16.0, 8, 0, 0]).expand(3, 4) / 64)
    torch.testing.assert_close(logits[1], torch.tensor([16.0, 8, 0])[:, None].expand(3, 4) / 32)


def test_logits_are_equivariant_to_flips() -> None:
    maps, instances = torch.randn(8, 6, 10), random_instances(4)
    parameters = instances.parameters.clone()
    split_parameters(parameters, 8)[0][0][:, :, 0].neg_()
    width = 10 * 8
    mirrored = instances.locations * torch.tensor([-1, 1]) + torch.tensor([width, 0])
    flipped = Instances(parameters, mirrored, instances.units)
    expected = dynamic_logits(maps, instances, 8).flip(2)
    torch.testing.assert_close(dynamic_logits(maps.flip(2), flipped, 8), expected, atol=1e-4, rtol=1e-4)


def test_no_instances() -> None:
    assert dynamic_logits(torch.zeros(8, 3, 4), random_instances(0), 8).shape == (0, 3, 4)
    assert double_size(torch.zeros(0, 3, 4)).shape == (0, 6, 8)
    assert dice_losses(torch.zeros(0, 3, 4), torch.zeros(0, 3, 4)).shape == (0,)
    conv = nn.Conv2d(4, 5, 3, padding=1)
    none = torch.zeros(0, dtype=torch.int64)
    outputs = at_locations(conv, [torch.zeros(1, 4, 3, 3)], none, none)
    outputs.sum().backward()
    assert outputs.shape == (0, 5) and conv.weight.grad is not None


def test_convolution_at_some_cells_equals_that_of_the_whole_maps() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 5, 3, padding=1)
    maps = [torch.randn(2, 4, 6, 8), torch.randn(2, 4, 3, 4), torch.randn(2, 4, 1, 1)]
    whole = torch.cat([conv(level).flatten(2) for level in maps], 2)  # [2, 5, A]
    image, location = torch.tensor([1, 0, 1, 0, 1, 0]), torch.tensor([60, 0, 47, 7, 13, 59])  # corners, borders, inside
    torch.testing.assert_close(at_locations(conv, maps, image, location), whole[image, :, location])
    everywhere = torch.arange(61)
    torch.testing.assert_close(at_locations(conv, maps, everywhere * 0, everywhere), whole[0].T)


def test_double_size_by_hand_and_flipped() -> None:
    doubled = double_size(torch.tensor([[[0.0, 8.0, 4.0]]]))
    # the new centers are a quarter of an old cell to the left and to the right of the old ones
    assert doubled[0, 0].tolist() == [0, 2, 6, 7, 5, 4] and torch.equal(doubled[0, 0], doubled[0, 1])
    maps = torch.randn(2, 5, 7)
    torch.testing.assert_close(double_size(maps.flip(1, 2)), double_size(maps).flip(1, 2))


def test_ground_truth_at_the_centers_of_cells() -> None:
    masks = torch.zeros(2, 8, 10, dtype=torch.uint8)
    masks[0, 2:, 6:] = 1
    masks[1, :, :2] = 1
    sampled = sample_masks(masks, (2, 3), 4, (8, 10))
    # centers at x 2, 6 and 10, y 2 and 6; each is the mean of four pixels, at the border x of the last one
    assert sampled[0].tolist() == [[0, 0.25, 0.5], [0, 0.5, 1]]
    assert sampled[1].tolist() == [[0.5, 0, 0], [0.5, 0, 0]]
    assert torch.equal(sample_masks(masks.bool(), (2, 3), 4, (8, 10)), sampled)
    # an image that was resized to double its size
    double = masks.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.equal(sample_masks(double, (2, 3), 4, (8, 10)), sampled)
    assert torch.equal(sample_masks(masks, (2, 3), 8, (16, 20)), sampled)
    even = (torch.rand(3, 8, 12) > 0.5).to(torch.uint8)
    torch.testing.assert_close(
        sample_masks(even.flip(2), (2, 3), 4, (8, 12)), sample_masks(even, (2, 3), 4, (8, 12)).flip(2)
    )
    assert sample_masks(masks[:0], (2, 3), 4, (8, 10)).shape == (0, 2, 3)


def test_dice_by_hand() -> None:
    probabilities = torch.tensor([[[0.5, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.5]]])
    targets = torch.tensor([[[1.0, 1.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
    # 2 * 1.5 / (1.25 + 2), the same mask, and disjoint masks
    torch.testing.assert_close(
        dice_losses(probabilities, targets), torch.tensor([1 - 3 / 3.25, 0.0, 1.0]), atol=1e-5, rtol=0
    )
