"""DeepLabV3+: torchvision's pyramid, an independent implementation of the decoder, counts, strides and errors."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.segmentation.deeplabv3 import ASPP

from striate.models import Backbone, DeepLabV3Plus, PlainCNN, TimmBackbone, TorchvisionBackbone, build_backbone
from striate.models.segmentation import AtrousPyramid
from striate.models.segmentation.layers import conv_norm_relu

from ...helpers.networks import quick_initialization, random_images, randomize


def small(**arguments: Any) -> DeepLabV3Plus:
    defaults: dict[str, Any] = {"backbone": "resnet18", "num_classes": 5, "channels": 16, "fine_channels": 8}
    return DeepLabV3Plus(**{**defaults, **arguments})


def test_pyramid_matches_torchvision() -> None:
    rates = (2, 4, 6)
    ours = randomize(AtrousPyramid(24, rates, channels=16))
    theirs = ASPP(24, rates, out_channels=16).eval()
    state = ours.state_dict()
    assert len(state) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state.values(), strict=True)))
    maps = torch.randn(2, 24, 13, 9)
    with torch.no_grad():
        torch.testing.assert_close(ours(maps), theirs(maps))


def test_parameter_count_with_resnet50() -> None:
    with torch.device("meta"):
        model = DeepLabV3Plus("resnet50", num_classes=21)
    trunk = 25_557_032 - (2048 * 1000 + 1000)  # torchvision's ResNet-50 without its classifier
    pyramid = 2 * 2048 * 256 + 3 * 9 * 2048 * 256 + 5 * 256 * 256 + 6 * 2 * 256
    reduce = 256 * 48 + 2 * 48
    decoder = 9 * (256 + 48) * 256 + 9 * 256 * 256 + 2 * 2 * 256
    assert sum(p.numel() for p in model.parameters()) == trunk + pyramid + reduce + decoder + 256 * 21 + 21


def layer(state: dict[str, Tensor], name: str, x: Tensor, **options: Any) -> Tensor:
    x = F.conv2d(x, state[f"{name}.0.weight"], **options)
    names = ("running_mean", "running_var", "weight", "bias")
    return F.batch_norm(x, *(state[f"{name}.1.{key}"] for key in names)).relu()


def by_hand(state: dict[str, Tensor], maps: list[Tensor], fine: int, size: tuple[int, int]) -> Tensor:
    """Compute sections 3.1 of both papers with the model's weights: rates 6, 12, 18, and a decoder on map ``fine``."""
    coarse = maps[-1]
    branches = [layer(state, "pyramid.branches.0", coarse)]
    for branch, rate in ((1, 6), (2, 12), (3, 18)):
        branches.append(layer(state, f"pyramid.branches.{branch}", coarse, padding=rate, dilation=rate))
    pooled = {key.replace("4.1.", "4.0.").replace("4.2.", "4.1."): state[key] for key in state if "branches.4" in key}
    mean = layer(pooled, "pyramid.branches.4", coarse.mean(dim=(2, 3), keepdim=True))
    branches.append(mean * torch.ones_like(coarse[:, :1]))
    joined = layer(state, "pyramid.project", torch.cat(branches, dim=1))
    reduced = layer(state, "reduce", maps[fine])
    up = F.interpolate(joined, size=reduced.shape[-2:], mode="bilinear", align_corners=False)
    x = layer(state, "decoder.0", torch.cat([up, reduced], dim=1), padding=1)
    x = layer(state, "decoder.1", x, padding=1)
    logits = F.conv2d(x, state["head.weight"], state["head.bias"])
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("size", [(64, 96), (61, 83)])
def test_outputs_match_an_independent_implementation(size: tuple[int, int]) -> None:
    model = randomize(small())
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        actual = model(images)
        maps = model.backbone(images)
        expected = by_hand(model.state_dict(), maps, 1, size)
    assert (maps[1].shape[1], maps[-1].shape[-1]) == (64, 6)  # layer 1 of stride 4; the last map of stride 16
    assert actual.shape == (2, 5, *size)
    assert expected.std() > 1e-2
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


@pytest.mark.parametrize(("stride", "rates", "cells"), [(16, (6, 12, 18), 6), (8, (12, 24, 36), 12)])
def test_output_stride(stride: Any, rates: tuple[int, ...], cells: int) -> None:
    model = small(output_stride=stride).eval()
    assert model.rates == rates
    assert model.backbone.strides[-1] == stride
    assert [branch[0].dilation for branch in list(model.pyramid.branches)[1:4]] == [(r, r) for r in rates]
    assert model.backbone(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))[-1].shape[-1] == cells
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 96, 70, dtype=torch.uint8)).shape == (1, 5, 96, 70)


def test_weights_do_not_depend_on_the_output_stride() -> None:
    coarse, fine = randomize(small()), small(output_stride=8).eval()
    fine.load_state_dict(coarse.state_dict())
    images = random_images(64)
    with torch.no_grad():
        assert torch.equal(coarse.reduce(coarse.backbone(images)[1]), fine.reduce(fine.backbone(images)[1]))
        # a branch with the same receptive fields on the same features, twice as densely
        dense = fine.pyramid.branches[1](fine.backbone(images)[-1])
        sparse = coarse.pyramid.branches[1](coarse.backbone(images)[-1])
    torch.testing.assert_close(dense[..., ::2, ::2], sparse, rtol=1e-4, atol=1e-4)


def test_a_fine_backbone_is_not_dilated() -> None:
    plain = PlainCNN(widths=(4, 8, 16))
    model = DeepLabV3Plus(plain, 3, output_stride=8, channels=8).eval()
    assert model.backbone is plain
    assert model(random_images(33)).shape == (2, 3, 33, 33)
    with pytest.raises(ValueError, match="output_stride.*PlainCNN, 8, got 16"):
        DeepLabV3Plus(PlainCNN(widths=(4, 8, 16)), 3)


def test_timms_resnets() -> None:
    pytest.importorskip("timm")
    backbone = TimmBackbone("resnet10t", options={"output_stride": 16})
    assert DeepLabV3Plus(backbone, 3, channels=8).eval()(random_images(50)).shape == (2, 3, 50, 50)
    with pytest.raises(ValueError, match="backbone: resnet10t.* 32 .*{output_stride: 16}"):
        DeepLabV3Plus(TimmBackbone("resnet10t"), 3)


def test_separable_convolutions() -> None:
    block = randomize(conv_norm_relu(6, 4, dilation=2, separable=True))
    x = torch.randn(1, 6, 7, 7)
    state = {
        f"layer{index // 3}.{index % 3}.{key}": v for index in range(6) for key, v in block[index].state_dict().items()
    }
    expected = layer(state, "layer0", x, padding=2, dilation=2, groups=6)
    torch.testing.assert_close(block(x), layer(state, "layer1", expected))
    count = [sum(p.numel() for p in small(separable=s).decoder.parameters()) for s in (False, True)]
    assert count[0] == 9 * 24 * 16 + 9 * 16 * 16 + 4 * 16
    assert count[1] == (9 * 24 + 2 * 24 + 24 * 16 + 32) + (9 * 16 + 2 * 16 + 16 * 16 + 32)
    assert small(separable=True).eval()(random_images(40)).shape == (2, 5, 40, 40)


def test_auxiliary_head() -> None:
    model = small(auxiliary=True).eval()
    images = random_images(64)
    logits, (auxiliary,) = model.forward_with_auxiliary(images)
    assert torch.equal(logits, model(images))
    assert auxiliary.shape == logits.shape == (2, 5, 64, 64)
    assert isinstance(model.auxiliary, nn.Sequential)
    expected = model.auxiliary(model.backbone(images)[-2])
    assert expected.shape == (2, 5, 4, 4)  # layer 3, of stride 16
    torch.testing.assert_close(
        auxiliary, F.interpolate(expected, size=(64, 64), mode="bilinear", align_corners=False), rtol=1e-4, atol=1e-5
    )
    assert small().forward_with_auxiliary(images)[1] == []


def test_every_parameter_gets_a_gradient() -> None:
    model = small(auxiliary=True)
    logits, others = model.forward_with_auxiliary(random_images(64))
    sum(scores.square().mean() for scores in (logits, *others)).backward()  # type: ignore[union-attr]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    trained = [key for key, p in model.named_parameters() if p.grad.abs().sum() > 0]  # type: ignore[union-attr]
    assert len(trained) > 0.95 * len(list(model.parameters()))


def test_a_batch_of_one_in_training() -> None:
    model = small()
    with pytest.raises(ValueError, match="batch_size.*got 1"):
        model(random_images(64, batch=1))
    assert model.eval()(random_images(64, batch=1)).shape == (1, 5, 64, 64)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes: must be >= 1, got 0"),
        ({"output_stride": 32}, "output_stride.*got 32"),
        ({"rates": (6, 0)}, r"rates.*got \[6, 0\]"),
        ({"dropout": 1.0}, r"dropout.*got 1\.0"),
        ({"backbone": "vgg11"}, "output_stride.*'vgg11'.*16: stage 5 has a pooling layer"),
        ({"backbone": PlainCNN(), "weights": "DEFAULT"}, "weights.*no effect on a backbone"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    with quick_initialization(), pytest.raises(ValueError, match=message):
        small(**arguments)


def test_unsuitable_backbones() -> None:
    with quick_initialization():
        coarse = TorchvisionBackbone("resnet18", out_indices=(2, 3, 4))
    with pytest.raises(ValueError, match=r"backbone.*stride 4.*got resnet18.*\(8, 16, 32\)"):
        small(backbone=coarse)
    layers = [nn.Conv2d(a, 4, 3, stride=2, padding=1) for a in (3, 4, 4, 4, 4)]
    with pytest.raises(ValueError, match="backbone: Backbone.*32.*cannot be dilated"):
        small(backbone=Backbone(layers))


def test_images_too_small() -> None:
    layers = [nn.Conv2d(a, 4, 4, stride=2, padding=1) for a in (3, 4, 4, 4)]
    model = small(backbone=Backbone(layers)).eval()
    with pytest.raises(ValueError, match="Backbone.*16 x 16 pixels, got 15 x 40"):
        model(torch.zeros(1, 3, 15, 40, dtype=torch.uint8))
    assert small(backbone=build_backbone("resnet18")).eval()(random_images(1)).shape == (2, 5, 1, 1)
