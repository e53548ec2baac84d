"""Dilation: torchvision's dilated networks, and the coarse map as a part of the fine one."""

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models._utils import IntermediateLayerGetter

from striate.models import TimmBackbone, TorchvisionBackbone, build_backbone

from ...helpers.networks import FAMILIES, quick_initialization, random_images, random_model

EXACT = {
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "regnet_x_400mf",
}
"""Networks whose dilated map contains the original one."""
GLOBAL = {"regnet_y_400mf", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v3_small"}
"""Networks with squeeze-and-excitation, which average over other cells after dilation."""


def backbone_of(name: str, state: dict[str, Tensor]) -> TorchvisionBackbone:
    with quick_initialization():
        backbone = TorchvisionBackbone(name).eval()
    backbone.load_state_dict({ours: state[theirs] for theirs, ours in backbone.torchvision_names().items()})
    return backbone


@pytest.mark.parametrize("name", sorted(EXACT))
@pytest.mark.parametrize("target", [16, 8])
def test_fine_map_contains_the_coarse_one(name: str, target: int) -> None:
    state = random_model(name).state_dict()
    backbone, fine = backbone_of(name, state), backbone_of(name, state)
    names, strides = list(fine.state_dict()), fine.strides
    fine.dilate(target)
    assert list(fine.state_dict()) == names
    assert fine.strides == tuple(min(stride, target) for stride in strides)
    images = random_images(96, batch=1)
    with torch.no_grad():
        for coarse, dense, stride in zip(backbone(images), fine(images), strides, strict=True):
            assert dense.shape[2] == 96 // min(stride, target)
            step = max(stride // target, 1)
            torch.testing.assert_close(dense[..., ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * coarse.std().item())


def test_every_family_is_dilated_or_rejected_unchanged() -> None:
    for name in sorted({*FAMILIES} - EXACT):
        with quick_initialization():
            backbone = TorchvisionBackbone(name)
        before = repr(backbone)
        if name in GLOBAL:
            backbone.dilate(8)
            assert backbone.strides[-3:] == (8, 8, 8)
            assert [m.shape[-1] for m in backbone.eval()(random_images(64))][-3:] == [8, 8, 8]
        else:
            with pytest.raises(ValueError, match=f"output_stride.*'{name}' cannot be dilated to 8: .*stage"):
                backbone.dilate(8)
            assert repr(backbone) == before


@pytest.mark.parametrize(("target", "replace"), [(16, (False, False, True)), (8, (False, True, True))])
def test_resnets_match_torchvisions_dilated_ones(target: int, replace: tuple[bool, bool, bool]) -> None:
    plain = random_model("resnet50")
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replace).eval()
    theirs.load_state_dict(plain.state_dict())
    getter = IntermediateLayerGetter(theirs, {"layer3": "3", "layer4": "4"})
    ours = backbone_of("resnet50", plain.state_dict())
    ours.dilate(target)
    images = random_images(65)
    with torch.no_grad():
        actual, expected = ours(images), getter(ours.normalize(images))
    for level, key in ((-2, "3"), (-1, "4")):
        torch.testing.assert_close(actual[level], expected[key], rtol=1e-4, atol=1e-4 * expected[key].std().item())


def test_mobilenet_v3_matches_torchvisions_dilated_one() -> None:
    plain = random_model("mobilenet_v3_large")
    theirs = torchvision.models.mobilenet_v3_large(dilated=True).eval()
    theirs.load_state_dict(plain.state_dict())
    ours = backbone_of("mobilenet_v3_large", plain.state_dict())
    ours.dilate(16)
    images = random_images(65)
    with torch.no_grad():
        actual, expected = ours(images)[-1], theirs.features(ours.normalize(images))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_dilation_in_steps_equals_one_step_and_cannot_be_undone() -> None:
    for name in ("resnet18", "mobilenet_v3_small"):
        with quick_initialization():
            twice, once = TorchvisionBackbone(name), TorchvisionBackbone(name)
        for target in (32, 16, 16, 8, 16):
            twice.dilate(target)
        once.dilate(8)
        assert repr(twice) == repr(once)
        assert twice.strides == once.strides == (2, 4, 8, 8, 8)


def test_only_returned_maps_are_dilated() -> None:
    backbone = build_backbone("resnet18", out_indices=(1, 3))
    assert isinstance(backbone, TorchvisionBackbone)
    backbone.dilate(8)
    assert backbone.strides == (4, 8)
    assert [m.shape[-1] for m in backbone(random_images(64))] == [16, 8]


def test_output_stride_that_is_not_a_stride() -> None:
    with pytest.raises(ValueError, match=r"output_stride.*'resnet18'.*\(2, 4, 8, 16, 32\), got 12"):
        TorchvisionBackbone("resnet18").dilate(12)


def test_timms_networks_take_the_output_stride_as_an_option() -> None:
    pytest.importorskip("timm")
    assert TimmBackbone("resnet10t", options={"output_stride": 16}).strides == (2, 4, 8, 16, 16)
