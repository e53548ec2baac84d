"""ZFNet: the map sizes of the paper's figure, a second implementation, and the renormalization of filters."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import ZFNet, ZFNetBackbone, local_response_norm
from striate.models.classification.zfnet import renormalize

from ...helpers.networks import assert_learns, count_parameters, find_layer, seeded_images, trace_map_sides

SMALL: dict[str, Any] = {"num_classes": 5, "image_size": 64, "width": 0.125, "hidden": 24, "second_stride": 1}


@pytest.fixture(scope="module")
def paper() -> ZFNet:
    torch.manual_seed(0)
    return ZFNet().eval()


def test_parameters_by_layer(paper):
    inputs = {"conv1": 7 * 7 * 3, "conv2": 5 * 5 * 96, "conv3": 3 * 3 * 256, "conv4": 3 * 3 * 384, "conv5": 3 * 3 * 384}
    inputs |= {"fc6": 6 * 6 * 256, "fc7": 4096, "fc8": 4096}
    outputs = (96, 256, 384, 384, 256, 4096, 4096, 1000)
    expected = {name: (count + 1) * units for (name, count), units in zip(inputs.items(), outputs, strict=True)}
    assert {name: count_parameters(find_layer(paper, name)) for name in expected} == expected
    assert count_parameters(paper) == sum(expected.values()) == 62_357_608


def test_map_sizes_of_figure_3(paper):
    sides = "conv1 110 pool1 55 conv2 26 pool2 13 conv3 13 conv4 13 conv5 13 pool5 6"
    assert " ".join(f"{name} {side}" for name, side in trace_map_sides(paper.backbone, seeded_images(1, 224))) == sides
    maps = paper.backbone(seeded_images(1, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(96, 110, 110), (256, 26, 26), (256, 13, 13), (256, 6, 6)]
    assert paper.backbone.channels == (96, 256, 256, 256)
    assert paper.backbone.strides == (2, 8, 16, 32)


def test_strides_match_the_growth_of_maps():
    trunk = ZFNetBackbone(width=0.1)
    small, large = (trunk(torch.zeros(1, 3, s, s)) for s in (256, 512))
    assert tuple(256 // (b.shape[-1] - a.shape[-1]) for a, b in zip(small, large, strict=True)) == trunk.strides
    assert ZFNetBackbone(width=0.1, second_stride=1).strides == (2, 4, 8, 16)


def test_layers_of_the_paper(paper):
    names = [n.rpartition(".")[2] for n, m in paper.backbone.stages.named_modules() if not list(m.children())]
    assert " ".join(names) == (
        "conv1 relu1 pool1 norm1 conv2 relu2 pool2 norm2 conv3 relu3 conv4 relu4 conv5 relu5 pool5"
    )
    assert all(m.groups == 1 for m in paper.modules() if isinstance(m, nn.Conv2d))
    assert (paper.head.drop6.p, paper.head.drop7.p) == (0.5, 0.5)


def test_initial_weights(paper):
    for module in paper.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            assert float(module.weight.std().detach()) == pytest.approx(0.01, rel=0.03)
            assert not module.get_parameter("bias").any()


def test_forward_against_plain_functions():
    net = ZFNet(num_classes=4, width=0.125, hidden=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), init="he").eval()
    batch = seeded_images(2, 224)
    c1, c2, c3, c4, c5 = (find_layer(net, f"conv{i}") for i in range(1, 6))
    x = (batch / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    # Pooling that rounds up has windows beyond the border, here padded with a value below all others.
    x = F.relu(F.conv2d(x, c1.weight, c1.bias, 2, padding=1))
    x = local_response_norm(F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1.0), 3, 2))
    x = F.relu(F.conv2d(x, c2.weight, c2.bias, 2))
    x = local_response_norm(F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-1.0), 3, 2))
    for conv in (c3, c4, c5):
        x = F.relu(F.conv2d(x, conv.weight, conv.bias, padding=1))
    x = F.max_pool2d(x, 3, 2)
    fc7 = net.head.fc7(net.head.fc6(x.flatten(1)).clamp(min=0)).clamp(min=0)
    torch.testing.assert_close(net.features(batch), fc7, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(net(batch), fc7 @ net.head.fc8.weight.T + net.head.fc8.bias, rtol=1e-4, atol=1e-4)


def test_renormalization_by_hand():
    weight = torch.tensor([[3.0, 4.0], [0.03, 0.04], [0.0, 0.0], [-0.2, 0.2]]).view(4, 2, 1, 1)
    # Root mean squares: sqrt(12.5), 0.035, 0, 0.2.
    scale = 0.1 / 12.5**0.5
    expected = torch.tensor([[3.0 * scale, 4.0 * scale], [0.03, 0.04], [0.0, 0.0], [-0.1, 0.1]]).view(4, 2, 1, 1)
    torch.testing.assert_close(renormalize(weight), expected)
    torch.testing.assert_close(renormalize(renormalize(weight)), expected)
    assert renormalize(weight, 5.0).equal(weight)
    with pytest.raises(ValueError, match="radius.*got 0"):
        renormalize(weight, 0)


def test_network_renormalizes_convolutions_only():
    net = ZFNet(**SMALL)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(100)  # from 0.01 to 1
    before = {n: p.clone() for n, p in net.named_parameters()}
    net.renormalize_filters()
    for name, parameter in net.named_parameters():
        if "conv" in name and name.endswith("weight"):
            rms = parameter.detach().square().flatten(1).mean(1).sqrt()
            torch.testing.assert_close(rms, torch.full_like(rms, 0.1))
        else:
            assert torch.equal(parameter, before[name])
    assert find_layer(net, "conv1").weight.requires_grad


def test_learns_and_trains_every_parameter():
    net = ZFNet(**SMALL, init="he", dropout=0.0, mean=(0.5,) * 3, std=(0.25,) * 3)
    assert_learns(net, seeded_images(5), lr=0.005, steps=25, ratio=0.5)


def test_invalid_sizes_and_init():
    with pytest.raises(ValueError, match="image_size.*got 20"):
        ZFNet(image_size=20)
    net = ZFNet(**SMALL)
    with pytest.raises(ValueError, match=r"got 128 x 64.*resize to 64 x 64.*ZFNet"):
        net(torch.zeros(1, 3, 128, 64))
    with pytest.raises(ValueError, match="init.*got 'normal'"):
        ZFNet(init="normal")  # type: ignore[arg-type]
