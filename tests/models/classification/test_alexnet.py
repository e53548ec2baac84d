"""AlexNet: the paper's parameter counts and map sizes, and a second implementation in plain functions."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import AlexNet, AlexNetBackbone, ZFNet
from striate.models.classification.layers import MEAN_PIXEL

from ...helpers.networks import assert_learns, count_parameters, find_layer, seeded_images, trace_map_sides

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "image_size": 64,
    "width": 0.125,
    "hidden": 24,
    "first_kernel": 5,
    "first_stride": 2,
}


@pytest.fixture(scope="module")
def paper() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet().eval()


def test_parameters_by_layer(paper):
    expected = {
        "conv1": 11 * 11 * 3 * 96 + 96,
        "conv2": 5 * 5 * 48 * 256 + 256,
        "conv3": 3 * 3 * 256 * 384 + 384,
        "conv4": 3 * 3 * 192 * 384 + 384,
        "conv5": 3 * 3 * 192 * 256 + 256,
        "fc6": 6 * 6 * 256 * 4096 + 4096,
        "fc7": 4096 * 4096 + 4096,
        "fc8": 4096 * 1000 + 1000,
    }
    assert {name: count_parameters(find_layer(paper, name)) for name in expected} == expected
    assert count_parameters(paper) == 60_965_224


@pytest.mark.parametrize("size", [224, 227])
def test_map_sizes_of_the_paper(size):
    net = AlexNet(image_size=size, width=0.1, hidden=8, num_classes=2).eval()
    sides = "conv1 55 pool1 27 conv2 27 pool2 13 conv3 13 conv4 13 conv5 13 pool5 6"
    assert " ".join(f"{name} {side}" for name, side in trace_map_sides(net.backbone, seeded_images(1, size))) == sides
    maps = net.backbone(seeded_images(1, size))
    assert [m.shape[-1] for m in maps] == [55, 27, 13, 6]
    assert tuple(m.shape[1] for m in maps) == net.backbone.channels
    assert net.head.fc6.in_features == 36 * net.backbone.channels[-1]


def test_backbone_channels_and_strides(paper):
    assert paper.backbone.channels == (96, 256, 256, 256)
    assert paper.backbone.strides == (4, 8, 16, 32)
    assert [m.shape[1:] for m in paper.backbone(seeded_images(1, 224))] == [
        (96, 55, 55),
        (256, 27, 27),
        (256, 13, 13),
        (256, 6, 6),
    ]


def test_constants_of_the_paper(paper):
    for name in ("norm1", "norm2"):
        norm = find_layer(paper, name)
        assert (norm.size, norm.k, norm.alpha, norm.beta) == (5, 2.0, 1e-4, 0.75)
    assert [find_layer(paper, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    for name in ("pool1", "pool2", "pool5"):
        assert (find_layer(paper, name).kernel_size, find_layer(paper, name).stride) == (3, 2)
    assert (paper.head.drop6.p, paper.head.drop7.p) == (0.5, 0.5)


def test_order_is_relu_norm_pool(paper):
    names = [n.rpartition(".")[2] for n, m in paper.backbone.stages.named_modules() if not list(m.children())]
    assert " ".join(names) == (
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    )


def test_initial_weights(paper):
    for i in range(1, 6):
        conv = find_layer(paper, f"conv{i}")
        assert float(conv.weight.std().detach()) == pytest.approx(0.01, rel=0.03)
        assert float(conv.weight.mean().detach()) == pytest.approx(0, abs=3e-4)
        assert conv.bias.unique().tolist() == [1.0 if i in (2, 4, 5) else 0.0]
    for name, bias in (("fc6", 1.0), ("fc7", 1.0), ("fc8", 0.0)):
        linear = find_layer(paper, name)
        assert float(linear.weight.std().detach()) == pytest.approx(0.01, rel=0.01)
        assert linear.bias.unique().tolist() == [bias]


def test_he_initialization():
    net = AlexNet(image_size=64, width=0.5, hidden=64, init="he", num_classes=10)
    conv3 = find_layer(net, "conv3")
    assert float(conv3.weight.std().detach()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.03)
    assert all(not m.get_parameter("bias").any() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def response_norm(maps: torch.Tensor) -> torch.Tensor:
    total = sum(
        F.pad(maps**2, (0, 0, 0, 0, max(-d, 0), max(d, 0)))[:, max(d, 0) : max(d, 0) + maps.shape[1]]
        for d in range(-2, 3)
    )
    return maps / (2 + 1e-4 * total) ** 0.75


def halves(maps: torch.Tensor, conv: nn.Conv2d, padding: int) -> torch.Tensor:
    """A convolution in two groups, one per GPU of the paper."""
    bias = conv.get_parameter("bias")
    half_in, half_out = maps.shape[1] // 2, conv.weight.shape[0] // 2
    first = F.conv2d(maps[:, :half_in], conv.weight[:half_out], bias[:half_out], padding=padding)
    second = F.conv2d(maps[:, half_in:], conv.weight[half_out:], bias[half_out:], padding=padding)
    return torch.cat([first, second], 1)


@pytest.mark.parametrize("arguments", [{}, SMALL | {"num_classes": 7}])
def test_forward_against_plain_functions(paper, arguments):
    net = AlexNet(**arguments).eval() if arguments else paper
    size, stride = arguments.get("image_size", 224), arguments.get("first_stride", 4)
    batch = seeded_images(2, size)
    get = {f"conv{i}": find_layer(net, f"conv{i}") for i in range(1, 6)}
    x = batch.float() - torch.tensor([122.679, 116.669, 104.007])[:, None, None]
    # Two zeros before and one after pad 224 to 227; torch does not use the second zero after the image.
    x = F.conv2d(
        F.pad(x, (2, 1, 2, 1) if size == 224 else (2, 2, 2, 2)), get["conv1"].weight, get["conv1"].bias, stride
    )
    x = F.max_pool2d(response_norm(F.relu(x)), 3, 2)
    x = F.max_pool2d(response_norm(F.relu(halves(x, get["conv2"], 2))), 3, 2)
    x = F.relu(F.conv2d(x, get["conv3"].weight, get["conv3"].bias, padding=1))
    x = F.relu(halves(x, get["conv4"], 1))
    x = F.max_pool2d(F.relu(halves(x, get["conv5"], 1)), 3, 2).flatten(1)
    fc7 = F.relu(
        F.linear(F.relu(F.linear(x, net.head.fc6.weight, net.head.fc6.bias)), net.head.fc7.weight, net.head.fc7.bias)
    )
    logits = F.linear(fc7, net.head.fc8.weight, net.head.fc8.bias)
    torch.testing.assert_close(net(batch), logits, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(net.features(batch), fc7, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(net(batch / 255), net(batch), rtol=1e-3, atol=1e-3)


def test_weights_for_224_pixels_fit_227_pixels():
    small: dict[str, Any] = {"width": 0.1, "hidden": 8, "num_classes": 3}
    text, effective = AlexNet(**small).eval(), AlexNet(image_size=227, **small).eval()
    effective.load_state_dict(text.state_dict())
    assert text(seeded_images(1, 227)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"6 x 6, got 224 x 224.*5 x 5; resize to 227 x 227"):
        effective(seeded_images(1, 224))
    # An image framed with the mean pixel gives the net for 227 the output of the net for 224.
    inner = seeded_images(1, 224) / 255
    mean = torch.tensor(MEAN_PIXEL)[:, None, None]
    framed = mean.expand(1, 3, 227, 227).clone()
    framed[..., 2:226, 2:226] = inner
    torch.testing.assert_close(effective(framed), text(inner), rtol=1e-4, atol=1e-4)


def test_learns_and_trains_every_parameter():
    net = AlexNet(**SMALL, init="he", dropout=0.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert_learns(net, seeded_images(5), lr=0.005, steps=25, ratio=0.5)


def test_gradient_reaches_every_parameter_with_the_papers_initialization():
    net = AlexNet(**SMALL)
    F.cross_entropy(net(seeded_images(5)), torch.arange(5)).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


def test_backbone_takes_any_size_and_returns_selected_maps():
    trunk = AlexNetBackbone(width=0.125, out_indices=(2, 3))
    assert trunk.channels == (32, 32)
    assert trunk.strides == (16, 32)
    assert [tuple(m.shape[2:]) for m in trunk(torch.zeros(1, 3, 320, 200))] == [(19, 11), (9, 5)]


def test_frozen_stages_do_not_train():
    net = AlexNet(**SMALL, frozen_stages=2)
    frozen = {n for n, p in net.named_parameters() if not p.requires_grad}
    assert {n.rpartition(".")[0].rpartition(".")[2] for n in frozen} == {"conv1", "conv2"}


def test_without_response_norm():
    with_norm, without = AlexNet(**SMALL).eval(), AlexNet(**SMALL, response_norm=False).eval()
    without.load_state_dict(with_norm.state_dict())
    for name in ("norm1", "norm2"):
        find_layer(with_norm, name).alpha, find_layer(with_norm, name).k = 0.0, 1.0
    torch.testing.assert_close(without(seeded_images()), with_norm(seeded_images()))


def test_one_group_joins_the_halves():
    assert find_layer(AlexNet(**SMALL, groups=1), "conv2").weight.shape == (32, 16, 5, 5)
    assert find_layer(AlexNet(**SMALL), "conv2").weight.shape == (32, 8, 5, 5)


def test_invalid_sizes_and_init():
    with pytest.raises(ValueError, match="image_size.*got 40; use at least 63"):
        AlexNet(image_size=40)
    net = AlexNet(**SMALL)
    with pytest.raises(ValueError, match=r"3 x 3, got 96 x 64.*5 x 3; resize to 64 x 64.*AlexNet"):
        net(torch.zeros(1, 3, 96, 64))
    with pytest.raises(ValueError, match=r"got 64 x 16 .*no last feature map.* 64 x 64"):
        net(torch.zeros(1, 3, 64, 16))
    with pytest.raises(ValueError, match="init.*got 'xavier'"):
        AlexNet(init="xavier")  # type: ignore[arg-type]


@pytest.mark.parametrize("network", [AlexNet, ZFNet])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes.*1, got 0"),
        ({"hidden": 0}, "hidden.*1, got 0"),
        ({"dropout": 3}, "^dropout: must be .*got 3"),
        ({"first_stride": 0}, "first_stride.*1, got 0"),
        ({"first_kernel": -1}, "first_kernel.*1, got -1"),
        ({"width": 0}, "width.*96 channels.*got 0; use more than 0.042"),
        ({"width": -1.0}, r"width.*got -1\.0"),
        ({"width": 0.041}, r"width.*got 0\.041"),
    ],
)
def test_arguments_out_of_range(network, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        network(**{"image_size": 224} | arguments)


def test_smallest_widths():
    with torch.device("meta"):
        assert AlexNetBackbone(width=0.042).channels == (8, 8, 8, 8)
        assert AlexNetBackbone(width=0.5, groups=8).channels[0] == 48


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups.*96, 256, 384, 384, 256, got 3"),
        ({"groups": 0}, "groups.*1, got 0"),
        ({"first_padding": -1}, "first_padding.*0, got -1"),
    ],
)
def test_groups_and_padding_out_of_range(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        AlexNet(**arguments)
