"""Backbone: stages, selected maps, measured strides, freezing, building by name."""

import copy
import re
import weakref
from functools import partial

import pytest
import torch
from torch import nn

from striate.models import Backbone, PlainCNN, available_backbones, build_backbone
from striate.models.backbones import as_backbone
from striate.models.backbones.base import measure, trace_shapes

from ...helpers.networks import random_images

images = partial(random_images, 32)


class Identity(Backbone):
    """A backbone whose maps are the normalized images, and their mean over 2 x 2 and over 4 x 4 pixels."""

    def __init__(self, **kwargs) -> None:
        super().__init__([nn.Identity(), nn.AvgPool2d(2), nn.AvgPool2d(2)], mean=(0, 0, 0), std=(1, 1, 1), **kwargs)


def test_maps_of_normalized_pixels_in_order_of_stride() -> None:
    backbone = Identity()
    assert (backbone.channels, backbone.strides) == ((3, 3, 3), (1, 2, 4))
    x = random_images(8)
    one, two, four = backbone(x)
    torch.testing.assert_close(one, x / 255)
    torch.testing.assert_close(two[0, 1, 2, 3], x[0, 1, 4:6, 6:8].float().mean() / 255)
    torch.testing.assert_close(four[1, 2, 0, 1], x[1, 2, 0:4, 4:8].float().mean() / 255)


def test_out_indices_select_maps_and_remove_later_stages() -> None:
    backbone = Identity(out_indices=(1,))
    assert (backbone.channels, backbone.strides, backbone.out_indices) == ((3,), (2,), (1,))
    assert len(backbone.stages) == 2
    x = random_images(8)
    (selected,) = backbone(x)
    assert torch.equal(selected, Identity()(x)[1])
    x = random_images(16)
    for selected, full in zip(Identity(out_indices=(0, 2))(x), Identity()(x)[::2], strict=True):
        assert torch.equal(selected, full)


@pytest.mark.parametrize("bad", [(), (0, 3), (1, 0), (1, 1), (-1,)])
def test_invalid_out_indices(bad: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"out_indices.*3 stages.*got {re.escape(str(bad))}"):
        Identity(out_indices=bad)


def test_strides_are_measured_through_unpadded_layers() -> None:
    layers = [nn.Conv2d(3, 5, 7, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(5, 6, 3)]
    assert measure(layers) == ((5, 5, 6), (2, 4, 4))


def test_measuring_does_not_modify_modules() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    layers = nn.ModuleList([inner])
    inner[2].eval()
    before, random_state = copy.deepcopy(layers.state_dict()), torch.get_rng_state()
    assert trace_shapes(layers, 32) == [(1, 4, 30, 30)]
    assert [m.training for m in inner] == [True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in layers.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(4), nn.Flatten()])
def test_output_that_is_not_a_feature_map(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"stages.*module 1 \({type(layer).__name__}\) is not a feature map"):
        Backbone([nn.Conv2d(3, 4, 3), layer])


def test_plain_network_declares_its_channels_and_strides() -> None:
    backbone = PlainCNN(widths=(4, 8, 16), depth=1)
    assert measure(backbone.stages) == (backbone.channels, backbone.strides) == ((4, 8, 16), (2, 4, 8))
    maps = backbone(images())
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]
    assert sum(isinstance(m, nn.Conv2d) for m in backbone.modules()) == 3
    assert sum(isinstance(m, nn.Conv2d) for m in PlainCNN(widths=(4, 8), depth=3).modules()) == 6


def test_plain_network_with_gray_images() -> None:
    backbone = PlainCNN(widths=(4,), in_channels=1)
    white = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.normalize(white), torch.ones(1, 1, 8, 8))
    assert backbone(white)[0].shape == (1, 4, 4, 4)


def test_plain_network_without_stages() -> None:
    with pytest.raises(ValueError, match=r"widths.*got \(\)"):
        PlainCNN(widths=())


def test_later_stages_do_not_change_maps() -> None:
    backbone = PlainCNN(widths=(4, 8)).eval()
    x = images()
    first, _ = backbone(x)
    assert torch.equal(first, backbone.stages[0](backbone.normalize(x)))


def statistics(backbone: Backbone) -> list[list[torch.Tensor]]:
    """Return the running means of the batch normalizations of each stage."""
    return [
        [v.clone() for k, v in stage.state_dict().items() if k.endswith("running_mean")] for stage in backbone.stages
    ]


def equal(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


def test_frozen_stages_are_constant_in_training_mode() -> None:
    backbone = PlainCNN(widths=(4, 8, 16), frozen_stages=2)
    before = statistics(backbone)
    backbone.train()
    assert [stage.training for stage in backbone.stages] == [False, False, True]
    sum(m.sum() for m in backbone(images())).backward()
    after = statistics(backbone)
    assert all(equal(before[0], after[0]) + equal(before[1], after[1]))
    assert not any(equal(before[2], after[2]))
    for index, stage in enumerate(backbone.stages):
        assert all(p.requires_grad == (index == 2) == (p.grad is not None) for p in stage.parameters())
    backbone.eval()
    assert not any(m.training for m in backbone.modules())


def test_freeze_norm_keeps_statistics_scale_and_shift_only() -> None:
    backbone = PlainCNN(widths=(4, 8), freeze_norm=True).train()
    before = statistics(backbone)
    sum(m.sum() for m in backbone(images())).backward()
    assert all(all(equal(a, b)) for a, b in zip(before, statistics(backbone), strict=True))
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not module.training
            assert not any(p.requires_grad for p in module.parameters())
        elif isinstance(module, nn.Conv2d):
            assert module.weight.grad is not None


def test_frozen_norm_stays_frozen_as_sync_batch_norm() -> None:
    backbone = nn.SyncBatchNorm.convert_sync_batchnorm(PlainCNN(widths=(4,), freeze_norm=True)).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.SyncBatchNorm)]
    assert norms
    assert not any(m.training for m in norms)


@pytest.mark.parametrize("bad", [-1, 4])
def test_invalid_frozen_stages(bad: int) -> None:
    with pytest.raises(ValueError, match=f"frozen_stages.*0 to 3.*got {bad}"):
        PlainCNN(frozen_stages=bad)
    with pytest.raises(ValueError, match="frozen_stages.*0 to 2.*got 3"):
        PlainCNN(frozen_stages=3, out_indices=(1,))


def test_all_stages_can_be_frozen() -> None:
    backbone = PlainCNN(frozen_stages=3).train()
    assert not any(p.requires_grad for p in backbone.parameters())
    assert not any(m.requires_grad for m in backbone(images()))


def test_channels_last_images_give_the_same_maps() -> None:
    backbone = PlainCNN(widths=(8, 16)).eval()
    x = images()
    last = copy.deepcopy(backbone).to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    for a, b in zip(backbone(x), last, strict=True):
        assert b.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_build_backbone_forwards_its_arguments() -> None:
    backbone = build_backbone("plain", frozen_stages=1, freeze_norm=True, out_indices=(0, 2))
    assert isinstance(backbone, PlainCNN)
    assert (backbone.frozen_stages, backbone.freeze_norm, backbone.out_indices) == (1, True, (0, 2))
    backbone = build_backbone("resnet18", None, 1, True, (1, 3))
    assert (backbone.frozen_stages, backbone.freeze_norm, backbone.strides) == (1, True, (4, 16))


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="name.*got 'resnet5'; did you mean 'resnet50'"):
        build_backbone("resnet5")
    with pytest.raises(ValueError, match=r"name.*got 'zzz'; choose from 'alexnet', .*'timm/<name>'"):
        build_backbone("zzz")


def test_names_are_sorted_and_complete() -> None:
    names = available_backbones()
    assert names == sorted(names)
    assert {"plain", "alexnet", "vgg16", "resnet50", "swin_v2_t", "inception_v3"} <= set(names)
    assert not any(name.startswith(("vit", "maxvit")) for name in names)


def test_weights_of_the_plain_network_from_a_file(tmp_path) -> None:
    torch.manual_seed(1)
    trained = PlainCNN(widths=(4, 8))
    torch.save({"state_dict": {f"model.backbone.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "w.ckpt")
    path = str(tmp_path / "w.ckpt")
    x = images()
    expected = trained.eval()(x)
    for actual, reference_map in zip(PlainCNN(widths=(4, 8), weights=path).eval()(x), expected, strict=True):
        assert torch.equal(actual, reference_map)
    (first,) = PlainCNN(widths=(4, 8), weights=path, out_indices=(0,)).eval()(x)
    assert torch.equal(first, expected[0])
    with pytest.raises(ValueError, match=r"match PlainCNN[\s\S]*\[4, 3, 3, 3\] in .*\[5, 3, 3, 3\]"):
        PlainCNN(widths=(5, 8), weights=path)


def test_an_unknown_backbone_is_reported_under_the_callers_argument():
    with pytest.raises(ValueError, match="backbone: unknown backbone, got 'resnet8'"):
        as_backbone("resnet8")
    with pytest.raises(ValueError, match="name: unknown backbone, got 'resnet8'"):
        build_backbone("resnet8")


class Probe(nn.Module):
    """Records whether a map of an earlier stage still exists."""

    def __init__(self, watched: list) -> None:
        super().__init__()
        self.watched, self.alive = watched, []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.alive.append(self.watched[-1]() is not None)
        return x


def test_without_gradient_a_map_is_released_within_the_next_stage() -> None:
    watched: list = []
    probe = Probe(watched)
    backbone = Backbone([nn.AvgPool2d(2), nn.Sequential(nn.AvgPool2d(2), probe)], (3, 3), (2, 4))
    backbone.stages[0].register_forward_hook(lambda _module, _args, out: watched.append(weakref.ref(out)))
    image = random_images(8)
    with torch.no_grad():
        (released,) = backbone(image, [1])
        both = backbone(image)
    assert probe.alive == [False, True]  # not needed, and returned
    torch.testing.assert_close(released, backbone(image)[1], rtol=0, atol=0)
    torch.testing.assert_close(released, both[1], rtol=0, atol=0)
    # hooks of a stage are called with its input and output
    seen: list = []
    backbone.stages[1].register_forward_hook(lambda _module, args, out: seen.append((args[0].shape, out.shape)))
    with torch.no_grad():
        backbone(image, [1])
    assert seen == [(both[0].shape, both[1].shape)]
