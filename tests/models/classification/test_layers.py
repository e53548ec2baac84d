"""Response normalization against the paper's formula in loops; map sizes against torch; the head by hand."""

import pytest
import torch
from torch import nn

from striate.models import FullyConnectedHead, LocalResponseNorm, local_response_norm
from striate.models.backbones.layers import named_layers
from striate.models.classification.layers import map_sizes


def by_loops(maps: torch.Tensor, n: int, alpha: float, beta: float, k: float) -> torch.Tensor:
    """Compute the formula of section 3.3, one activation at a time."""
    out = torch.empty_like(maps)
    images, total, height, width = maps.shape
    for image in range(images):
        for i in range(total):
            for y in range(height):
                for x in range(width):
                    s = 0.0
                    for j in range(max(0, i - n // 2), min(total - 1, i + n // 2) + 1):
                        s += float(maps[image, j, y, x]) ** 2
                    out[image, i, y, x] = float(maps[image, i, y, x]) / (k + alpha * s) ** beta
    return out


@pytest.mark.parametrize(("n", "alpha", "beta", "k"), [(5, 1e-4, 0.75, 2.0), (3, 0.3, 0.5, 1.0), (1, 0.1, 0.75, 1.0)])
def test_response_norm_against_loops(n, alpha, beta, k):
    maps = torch.randn(2, 7, 2, 3, dtype=torch.float64).float() * 60
    torch.testing.assert_close(local_response_norm(maps, n, alpha, beta, k), by_loops(maps, n, alpha, beta, k))


def test_response_norm_defaults_are_the_papers():
    maps = torch.randn(1, 9, 2, 2) * 60
    torch.testing.assert_close(LocalResponseNorm()(maps), by_loops(maps, 5, 1e-4, 0.75, 2.0))


def test_response_norm_against_torch_with_five_times_the_alpha():
    maps = (torch.randn(2, 12, 5, 4) * 60).requires_grad_()
    ours, theirs = LocalResponseNorm()(maps), nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(maps)
    torch.testing.assert_close(ours, theirs)
    weights = torch.randn_like(ours)
    torch.testing.assert_close(*(torch.autograd.grad((y * weights).sum(), maps)[0] for y in (ours, theirs)))


def test_response_norm_survives_half_precision():
    maps = torch.full((1, 5, 1, 1), 300.0)  # 5 * 300 ** 2 overflows float16
    half = local_response_norm(maps.half())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), local_response_norm(maps), rtol=1e-3, atol=0)


def test_response_norm_rejects_an_even_window():
    with pytest.raises(ValueError, match="size.*got 4"):
        LocalResponseNorm(size=4)
    with pytest.raises(ValueError, match="size.*got 0"):
        local_response_norm(torch.zeros(1, 1, 1, 1), size=0)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (2, 2, 0), (2, 3, 1)])
def test_map_sizes_against_torch(kernel, stride, padding, ceil_mode):
    stages = [
        named_layers(conv1=nn.Conv2d(1, 1, 3, stride=2, padding=1), relu1=nn.ReLU()),
        named_layers(
            pool1=nn.MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode), conv2=nn.Conv2d(1, 1, 3, dilation=2)
        ),
    ]
    compared = 0
    for side in range(1, 60):
        try:
            first = stages[0](torch.zeros(1, 1, side, side))
            expected = [first.shape[-1], stages[1](first).shape[-1]]
        except RuntimeError:
            with pytest.raises(ValueError, match=f"image_size.*got {side}"):
                map_sizes(stages, side)
        else:
            assert map_sizes(stages, side) == expected
            compared += 1
    assert compared > 30


def test_error_names_the_smallest_size():
    with pytest.raises(ValueError, match="image_size.*got 2; use at least 4"):
        map_sizes([nn.MaxPool2d(2), nn.MaxPool2d(2)], 2)


def test_head_by_hand():
    head = FullyConnectedHead(2, 3, num_classes=4, hidden=5).eval()
    maps = torch.randn(6, 2, 3, 3)
    fc6 = (maps.reshape(6, 18) @ head.fc6.weight.T + head.fc6.bias).clamp(min=0)
    fc7 = (fc6 @ head.fc7.weight.T + head.fc7.bias).clamp(min=0)
    torch.testing.assert_close(head.features(maps), fc7)
    torch.testing.assert_close(head(maps), fc7 @ head.fc8.weight.T + head.fc8.bias)


def test_head_drops_outputs_of_fc6_and_fc7_while_training():
    head = FullyConnectedHead(1, 1, num_classes=1, hidden=2000)
    for layer in (head.fc6, head.fc7):
        nn.init.zeros_(layer.weight)
        nn.init.ones_(layer.bias)
    features = head.features(torch.zeros(1, 1, 1, 1))
    assert set(features.unique().tolist()) == {0.0, 2.0}
    assert 0.4 < float((features == 0).float().mean()) < 0.6
    fc7_inputs = []
    head.fc7.register_forward_pre_hook(lambda _, inputs: fc7_inputs.append(inputs[0]))
    head(torch.zeros(1, 1, 1, 1))
    assert set(fc7_inputs[0].unique().tolist()) == {0.0, 2.0}
    head.eval()
    assert head.features(torch.zeros(1, 1, 1, 1)).unique().tolist() == [1.0]
