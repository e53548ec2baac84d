"""The seam itself: stages in sequence, levels chosen, strides measured, parts frozen."""

import copy
import re

import pytest
import torch
from torch import nn

from striate.models import Backbone, PlainCNN, available_backbones, build_backbone
from striate.models.backbones.base import measure, trace_shapes


def images(side: int = 32, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)


class Identity(Backbone):
    """Its maps are the normalised images, and their mean over 2 by 2 and over 4 by 4 pixels."""

    def __init__(self, **kwargs) -> None:
        super().__init__([nn.Identity(), nn.AvgPool2d(2), nn.AvgPool2d(2)], mean=(0, 0, 0), std=(1, 1, 1), **kwargs)


def test_maps_are_of_normalised_pixels_finer_to_coarser() -> None:
    backbone = Identity()
    assert (backbone.channels, backbone.strides) == ((3, 3, 3), (1, 2, 4))
    x = images(8)
    one, two, four = backbone(x)
    torch.testing.assert_close(one, x / 255)
    torch.testing.assert_close(two[0, 1, 2, 3], x[0, 1, 4:6, 6:8].float().mean() / 255)
    torch.testing.assert_close(four[1, 2, 0, 1], x[1, 2, 0:4, 4:8].float().mean() / 255)


def test_chosen_levels_only_and_nothing_after_them() -> None:
    backbone = Identity(out_indices=(1,))
    assert (backbone.channels, backbone.strides, backbone.out_indices) == ((3,), (2,), (1,))
    assert len(backbone.stages) == 2
    x = images(8)
    (only,) = backbone(x)
    assert torch.equal(only, Identity()(x)[1])
    x = images(16)
    for chosen, full in zip(Identity(out_indices=(0, 2))(x), Identity()(x)[::2], strict=True):
        assert torch.equal(chosen, full)


@pytest.mark.parametrize("bad", [(), (0, 3), (1, 0), (1, 1), (-1,)])
def test_levels_that_there_are_not(bad: tuple[int, ...]) -> None:
    message = f"out_indices must be increasing numbers from 0 to 2 (there are 3 stages), got {bad}"
    with pytest.raises(ValueError, match=re.escape(message)):
        Identity(out_indices=bad)


def test_strides_are_measured_through_unpadded_layers() -> None:
    layers = [nn.Conv2d(3, 5, 7, stride=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(5, 6, 3)]
    assert measure(layers) == ((5, 5, 6), (2, 4, 4))


def test_measuring_leaves_modules_as_they_are() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    layers = nn.ModuleList([inner])
    inner[2].eval()
    before, random_state = copy.deepcopy(layers.state_dict()), torch.get_rng_state()
    assert trace_shapes(layers, 32) == [(1, 4, 30, 30)]
    assert [m.training for m in inner] == [True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in layers.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("layer", [nn.AdaptiveAvgPool2d(4), nn.Flatten()])
def test_output_that_is_no_feature_map(layer: nn.Module) -> None:
    with pytest.raises(ValueError, match=rf"output of module 1 \({type(layer).__name__}\) is no feature map"):
        Backbone([nn.Conv2d(3, 4, 3), layer])


def test_plain_network_declares_what_it_gives() -> None:
    backbone = PlainCNN(widths=(4, 8, 16), depth=1)
    assert measure(backbone.stages) == (backbone.channels, backbone.strides) == ((4, 8, 16), (2, 4, 8))
    maps = backbone(images(32))
    assert [tuple(m.shape) for m in maps] == [(2, 4, 16, 16), (2, 8, 8, 8), (2, 16, 4, 4)]
    assert sum(isinstance(m, nn.Conv2d) for m in backbone.modules()) == 3
    assert sum(isinstance(m, nn.Conv2d) for m in PlainCNN(widths=(4, 8), depth=3).modules()) == 6


def test_plain_network_of_grey_images() -> None:
    backbone = PlainCNN(widths=(4,), in_channels=1)
    white = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    torch.testing.assert_close(backbone.normalize(white), torch.ones(1, 1, 8, 8))
    assert backbone(white)[0].shape == (1, 4, 4, 4)


def test_plain_network_of_nothing() -> None:
    with pytest.raises(ValueError, match="widths needs a number above 0"):
        PlainCNN(widths=())


def test_maps_are_not_changed_by_later_stages() -> None:
    backbone = PlainCNN(widths=(4, 8)).eval()
    first, _ = backbone(images())
    torch.manual_seed(0)
    x = images()
    first, _ = backbone(x)
    assert torch.equal(first, backbone.stages[0](backbone.normalize(x)))


def statistics(backbone: Backbone) -> list[list[torch.Tensor]]:
    """Running means of the batch normalisations of each stage."""
    return [
        [v.clone() for k, v in stage.state_dict().items() if k.endswith("running_mean")] for stage in backbone.stages
    ]


def same(a: list[torch.Tensor], b: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(x, y) for x, y in zip(a, b, strict=True)]


def test_frozen_stages_are_constant_whatever_train_says() -> None:
    backbone = PlainCNN(widths=(4, 8, 16), frozen_stages=2)
    before = statistics(backbone)
    backbone.train()
    assert [stage.training for stage in backbone.stages] == [False, False, True]
    sum(m.sum() for m in backbone(images())).backward()
    after = statistics(backbone)
    assert all(same(before[0], after[0]) + same(before[1], after[1]))
    assert not any(same(before[2], after[2]))
    for index, stage in enumerate(backbone.stages):
        assert all(p.requires_grad == (index == 2) == (p.grad is not None) for p in stage.parameters())
    backbone.eval()
    assert not any(m.training for m in backbone.modules())


def test_frozen_norm_keeps_statistics_and_affine_but_trains_convolutions() -> None:
    backbone = PlainCNN(widths=(4, 8), freeze_norm=True).train()
    before = statistics(backbone)
    sum(m.sum() for m in backbone(images())).backward()
    assert all(all(same(a, b)) for a, b in zip(before, statistics(backbone), strict=True))
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
def test_stages_to_freeze_that_there_are_not(bad: int) -> None:
    with pytest.raises(ValueError, match=f"frozen_stages must be 0 to 3, the number of stages in use, got {bad}"):
        PlainCNN(frozen_stages=bad)
    with pytest.raises(ValueError, match="frozen_stages must be 0 to 2, the number of stages in use, got 3"):
        PlainCNN(frozen_stages=3, out_indices=(1,))


def test_everything_may_be_frozen() -> None:
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


def test_build_backbone_hands_its_arguments_on() -> None:
    backbone = build_backbone("plain", frozen_stages=1, freeze_norm=True, out_indices=(0, 2))
    assert isinstance(backbone, PlainCNN)
    assert (backbone.frozen_stages, backbone.freeze_norm, backbone.out_indices) == (1, True, (0, 2))
    backbone = build_backbone("resnet18", None, 1, True, (1, 3))
    assert (backbone.frozen_stages, backbone.freeze_norm, backbone.strides) == (1, True, (4, 16))


def test_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ValueError, match="there is no backbone 'resnet5'; did you mean 'resnet50'"):
        build_backbone("resnet5")
    with pytest.raises(
        ValueError, match=r"no backbone 'zzz'; choose from alexnet, .*timm's networks are named 'timm/<name>'"
    ):
        build_backbone("zzz")


def test_names_are_sorted_and_whole() -> None:
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
    for got, want in zip(PlainCNN(widths=(4, 8), weights=path).eval()(x), expected, strict=True):
        assert torch.equal(got, want)
    (first,) = PlainCNN(widths=(4, 8), weights=path, out_indices=(0,)).eval()(x)
    assert torch.equal(first, expected[0])
    with pytest.raises(ValueError, match=r"does not fit PlainCNN[\s\S]*\[4, 3, 3, 3\] in the file, \[5, 3, 3, 3\]"):
        PlainCNN(widths=(5, 8), weights=path)
