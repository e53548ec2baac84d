"""Strides that become dilation: torchvision's own dilated networks, and the coarse map found again in the fine one."""

import re

import pytest
import torch
import torchvision
from torch import Tensor
from torchvision.models._utils import IntermediateLayerGetter

from striate.models import TimmBackbone, TorchvisionBackbone, build_backbone

from ...helpers.networks import FAMILIES, quick_initialisation, random_images, random_model

EXACT = {
    "resnet18",
    "resnet50",
    "resnext50_32x4d",
    "mobilenet_v2",
    "mnasnet0_5",
    "shufflenet_v2_x0_5",
    "regnet_x_400mf",
}
"""Networks whose map, dilated, holds the map that they had."""
GLOBAL = {"regnet_y_400mf", "efficientnet_b0", "efficientnet_v2_s", "mobilenet_v3_small"}
"""Networks with squeeze-and-excitation, whose mean is over other cells then."""


def backbone_of(name: str, state: dict[str, Tensor]) -> TorchvisionBackbone:
    with quick_initialisation():
        backbone = TorchvisionBackbone(name).eval()
    backbone.load_state_dict({ours: state[theirs] for theirs, ours in backbone.torchvision_names().items()})
    return backbone


@pytest.mark.parametrize("name", sorted(EXACT))
@pytest.mark.parametrize("wanted", [16, 8])
def test_coarse_map_lies_in_the_fine_one(name: str, wanted: int) -> None:
    state = random_model(name).state_dict()
    backbone, fine = backbone_of(name, state), backbone_of(name, state)
    names, strides = list(fine.state_dict()), fine.strides
    fine.dilate(wanted)
    assert list(fine.state_dict()) == names
    assert fine.strides == tuple(min(stride, wanted) for stride in strides)
    images = random_images(96, batch=1)
    with torch.no_grad():
        for coarse, dense, stride in zip(backbone(images), fine(images), strides, strict=True):
            assert dense.shape[2] == 96 // min(stride, wanted)
            step = max(stride // wanted, 1)
            torch.testing.assert_close(dense[..., ::step, ::step], coarse, rtol=1e-4, atol=1e-4 * coarse.std().item())


def test_every_family_is_dilated_or_refused_untouched() -> None:
    for name in sorted({*FAMILIES} - EXACT):
        with quick_initialisation():
            backbone = TorchvisionBackbone(name)
        before = repr(backbone)
        if name in GLOBAL:
            backbone.dilate(8)
            assert backbone.strides[-3:] == (8, 8, 8)
            assert [m.shape[-1] for m in backbone.eval()(random_images(64))][-3:] == [8, 8, 8]
        else:
            with pytest.raises(ValueError, match=f"^'{name}' cannot be dilated to a stride of 8: .*its stage"):
                backbone.dilate(8)
            assert repr(backbone) == before


@pytest.mark.parametrize(("wanted", "replace"), [(16, (False, False, True)), (8, (False, True, True))])
def test_resnets_are_torchvisions_dilated_ones(wanted: int, replace: tuple[bool, bool, bool]) -> None:
    plain = random_model("resnet50")
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=replace).eval()
    theirs.load_state_dict(plain.state_dict())
    getter = IntermediateLayerGetter(theirs, {"layer3": "3", "layer4": "4"})
    ours = backbone_of("resnet50", plain.state_dict())
    ours.dilate(wanted)
    images = random_images(65)
    with torch.no_grad():
        got, want = ours(images), getter(ours.normalize(images))
    for level, key in ((-2, "3"), (-1, "4")):
        torch.testing.assert_close(got[level], want[key], rtol=1e-4, atol=1e-4 * want[key].std().item())


def test_mobilenet_v3_is_torchvisions_dilated_one() -> None:
    plain = random_model("mobilenet_v3_large")
    theirs = torchvision.models.mobilenet_v3_large(dilated=True).eval()
    theirs.load_state_dict(plain.state_dict())
    ours = backbone_of("mobilenet_v3_large", plain.state_dict())
    ours.dilate(16)
    images = random_images(65)
    with torch.no_grad():
        got, want = ours(images)[-1], theirs.features(ours.normalize(images))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4 * want.std().item())


def test_step_by_step_is_at_once_and_there_is_no_way_back() -> None:
    for name in ("resnet18", "mobilenet_v3_small"):
        with quick_initialisation():
            twice, once = TorchvisionBackbone(name), TorchvisionBackbone(name)
        for wanted in (32, 16, 16, 8, 16):
            twice.dilate(wanted)
        once.dilate(8)
        assert repr(twice) == repr(once)
        assert twice.strides == once.strides == (2, 4, 8, 8, 8)


def test_only_maps_in_use_are_dilated() -> None:
    backbone = build_backbone("resnet18", out_indices=(1, 3))
    assert isinstance(backbone, TorchvisionBackbone)
    backbone.dilate(8)
    assert backbone.strides == (4, 8)
    assert [m.shape[-1] for m in backbone(random_images(64))] == [16, 8]


def test_strides_that_there_are_not() -> None:
    message = "output_stride=12: 'resnet18' has the strides (2, 4, 8, 16, 32); choose one"
    with pytest.raises(ValueError, match=re.escape(message)):
        TorchvisionBackbone("resnet18").dilate(12)


def test_timms_networks_are_asked_for_it_when_built() -> None:
    pytest.importorskip("timm")
    assert TimmBackbone("resnet10t", options={"output_stride": 16}).strides == (2, 4, 8, 16, 16)
