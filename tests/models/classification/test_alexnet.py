"""AlexNet against the paper's counts and sizes and against a second computation in plain functions."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import ZFNet
from striate.models.classification.alexnet import MEAN_PIXEL, AlexNet, AlexNetBackbone

SMALL: dict[str, Any] = {
    "num_classes": 5,
    "image_size": 64,
    "width": 0.125,
    "hidden": 24,
    "first_kernel": 5,
    "first_stride": 2,
}


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def paper() -> AlexNet:
    torch.manual_seed(0)
    return AlexNet().eval()


def layer(net: nn.Module, name: str) -> Any:
    return next(m for n, m in net.named_modules() if n.rpartition(".")[2] == name)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


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
    assert {name: count(layer(paper, name)) for name in expected} == expected
    assert count(paper) == 60_965_224


@pytest.mark.parametrize("size", [224, 227])
def test_map_sizes(size):
    # Every size of the paper, whatever the width.
    net = AlexNet(image_size=size, width=0.1, hidden=8, num_classes=2).eval()
    sizes: list[tuple[str, int]] = []
    for name, module in net.backbone.named_modules():
        if isinstance(module, (nn.Conv2d, nn.MaxPool2d)):
            module.register_forward_hook(
                lambda _m, _i, out, name=name: sizes.append((name.rpartition(".")[2], out.shape[-1]))
            )
    maps = net.backbone(images(1, size))
    assert sizes == [
        ("conv1", 55),
        ("pool1", 27),
        ("conv2", 27),
        ("pool2", 13),
        ("conv3", 13),
        ("conv4", 13),
        ("conv5", 13),
        ("pool5", 6),
    ]
    assert [m.shape[-1] for m in maps] == [55, 27, 13, 6]
    assert tuple(m.shape[1] for m in maps) == net.backbone.channels
    assert net.head.fc6.in_features == 36 * net.backbone.channels[-1]


def test_backbone_channels_and_strides(paper):
    assert paper.backbone.channels == (96, 256, 256, 256)
    assert paper.backbone.strides == (4, 8, 16, 32)
    assert [m.shape[1:] for m in paper.backbone(images(1, 224))] == [
        (96, 55, 55),
        (256, 27, 27),
        (256, 13, 13),
        (256, 6, 6),
    ]


def test_constants_of_the_paper(paper):
    for name in ("norm1", "norm2"):
        norm = layer(paper, name)
        assert (norm.size, norm.k, norm.alpha, norm.beta) == (5, 2.0, 1e-4, 0.75)
    assert [layer(paper, f"conv{i}").groups for i in range(1, 6)] == [1, 2, 1, 2, 2]
    for name in ("pool1", "pool2", "pool5"):
        assert (layer(paper, name).kernel_size, layer(paper, name).stride) == (3, 2)
    assert (paper.head.drop6.p, paper.head.drop7.p) == (0.5, 0.5)


def test_order_is_relu_norm_pool(paper):
    names = [n.rpartition(".")[2] for n, m in paper.backbone.stages.named_modules() if not list(m.children())]
    assert " ".join(names) == (
        "conv1 relu1 norm1 pool1 conv2 relu2 norm2 pool2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    )


def test_initial_weights(paper):
    for i in range(1, 6):
        conv = layer(paper, f"conv{i}")
        assert float(conv.weight.std().detach()) == pytest.approx(0.01, rel=0.03)
        assert float(conv.weight.mean().detach()) == pytest.approx(0, abs=3e-4)
        assert conv.bias.unique().tolist() == [1.0 if i in (2, 4, 5) else 0.0]
    for name, bias in (("fc6", 1.0), ("fc7", 1.0), ("fc8", 0.0)):
        linear = layer(paper, name)
        assert float(linear.weight.std().detach()) == pytest.approx(0.01, rel=0.01)
        assert linear.bias.unique().tolist() == [bias]


def test_he_initialisation():
    net = AlexNet(image_size=64, width=0.5, hidden=64, init="he", num_classes=10)
    conv3 = layer(net, "conv3")
    assert float(conv3.weight.std().detach()) == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.03)
    assert all(not m.get_parameter("bias").any() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


def response_norm(maps: torch.Tensor) -> torch.Tensor:
    total = sum(
        F.pad(maps**2, (0, 0, 0, 0, max(-d, 0), max(d, 0)))[:, max(d, 0) : max(d, 0) + maps.shape[1]]
        for d in range(-2, 3)
    )
    return maps / (2 + 1e-4 * total) ** 0.75


def halves(maps: torch.Tensor, conv: nn.Conv2d, padding: int) -> torch.Tensor:
    """A convolution in two groups, each GPU of the paper by itself."""
    bias = conv.get_parameter("bias")
    half_in, half_out = maps.shape[1] // 2, conv.weight.shape[0] // 2
    first = F.conv2d(maps[:, :half_in], conv.weight[:half_out], bias[:half_out], padding=padding)
    second = F.conv2d(maps[:, half_in:], conv.weight[half_out:], bias[half_out:], padding=padding)
    return torch.cat([first, second], 1)


@pytest.mark.parametrize("arguments", [{}, SMALL | {"num_classes": 7}])
def test_forward_against_plain_functions(paper, arguments):
    net = AlexNet(**arguments).eval() if arguments else paper
    size, stride = arguments.get("image_size", 224), arguments.get("first_stride", 4)
    batch = images(2, size)
    get = {f"conv{i}": layer(net, f"conv{i}") for i in range(1, 6)}
    x = batch.float() - torch.tensor([122.679, 116.669, 104.007])[:, None, None]
    # Two zeros before and one after make 227 of 224; torch leaves the second one after unused.
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


def test_a_net_for_224_takes_227_and_shares_weights_with_one_for_227():
    small: dict[str, Any] = {"width": 0.1, "hidden": 8, "num_classes": 3}
    text, effective = AlexNet(**small).eval(), AlexNet(image_size=227, **small).eval()
    effective.load_state_dict(text.state_dict())
    assert text(images(1, 227)).shape == (1, 3)
    with pytest.raises(ValueError, match=r"224 x 224 pixels.*5 x 5.*6 x 6: resize to 227 x 227"):
        effective(images(1, 224))
    # What the net for 227 makes of an image with the mean pixel around it is what the net for 224 makes of the image.
    inner = images(1, 224) / 255
    mean = torch.tensor(MEAN_PIXEL)[:, None, None]
    framed = mean.expand(1, 3, 227, 227).clone()
    framed[..., 2:226, 2:226] = inner
    torch.testing.assert_close(effective(framed), text(inner), rtol=1e-4, atol=1e-4)


def test_learns_and_every_parameter_takes_part():
    net = AlexNet(**SMALL, init="he", dropout=0.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    batch, labels = images(5), torch.arange(5)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.005, momentum=0.9)
    losses: list[float] = []
    for _ in range(25):
        loss = F.cross_entropy(net(batch), labels)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[1] < losses[0]
    assert losses[-1] < 0.5 * losses[0]


def test_gradient_reaches_every_parameter_from_the_papers_start():
    net = AlexNet(**SMALL)
    F.cross_entropy(net(images(5)), torch.arange(5)).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


def test_backbone_alone_takes_any_size_and_gives_chosen_maps():
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
        layer(with_norm, name).alpha, layer(with_norm, name).k = 0.0, 1.0
    torch.testing.assert_close(without(images()), with_norm(images()))


def test_one_group_joins_the_halves():
    assert layer(AlexNet(**SMALL, groups=1), "conv2").weight.shape == (32, 16, 5, 5)
    assert layer(AlexNet(**SMALL), "conv2").weight.shape == (32, 8, 5, 5)


def test_bad_input():
    with pytest.raises(ValueError, match="image side of 40 pixels is too small: this network needs 63"):
        AlexNet(image_size=40)
    net = AlexNet(**SMALL)
    with pytest.raises(ValueError, match=r"96 x 64 pixels.*5 x 3.*3 x 3: resize to 64 x 64.*AlexNet"):
        net(torch.zeros(1, 3, 96, 64))
    with pytest.raises(ValueError, match=r"64 x 16 pixels, which gives no last feature map.*resize to 64 x 64"):
        net(torch.zeros(1, 3, 64, 16))
    with pytest.raises(ValueError, match="init='xavier'"):
        AlexNet(init="xavier")  # type: ignore[arg-type]


@pytest.mark.parametrize("network", [AlexNet, ZFNet])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes: must be >= 1, got 0"),
        ({"hidden": 0}, "hidden: must be >= 1, got 0"),
        ({"first_stride": 0}, "first_stride: must be >= 1, got 0"),
        ({"first_kernel": -1}, "first_kernel: must be >= 1, got -1"),
        ({"width": 0}, "width=0: of a layer's 96 channels none are left.* more than 0.042"),
        ({"width": -1.0}, r"width=-1\.0: of a layer's"),
        ({"width": 0.041}, r"width=0\.041: of a layer's"),
    ],
)
def test_numbers_that_make_no_network(network, arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        network(**{"image_size": 224} | arguments)


def test_the_narrowest():
    with torch.device("meta"):
        assert AlexNetBackbone(width=0.042).channels == (8, 8, 8, 8)
        assert AlexNetBackbone(width=0.5, groups=8).channels[0] == 48


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 3}, "groups=3 do not divide the channels of conv1 to conv5, 96, 256, 384, 384, 256"),
        ({"groups": 0}, "groups: must be >= 1, got 0"),
        ({"first_padding": -1}, "first_padding: must be >= 0, got -1"),
    ],
)
def test_numbers_that_make_no_alexnet(arguments, message):
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        AlexNet(**arguments)
