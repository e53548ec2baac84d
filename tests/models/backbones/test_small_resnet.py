"""ResNets for small images: torchvision's blocks after a different first layer."""

import pytest
import torch

from striate.models import SmallImageResNet

from ...helpers.networks import on_meta, random_images


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_channels_and_strides_match_the_maps(name: str) -> None:
    with on_meta():
        backbone = SmallImageResNet(name)
        maps = backbone(torch.empty(2, 3, 32, 48, dtype=torch.uint8))
    expected = [(2, c, 32 // s, 48 // s) for c, s in zip(backbone.channels, backbone.strides, strict=True)]
    assert [tuple(m.shape) for m in maps] == expected
    assert backbone.strides == (1, 2, 4, 8)


def test_parameter_count_of_resnet18() -> None:
    with on_meta():
        count = sum(p.numel() for p in SmallImageResNet("resnet18").parameters())
    assert (
        count == 11_689_512 - 513_000 - 64 * 3 * 7 * 7 + 64 * 3 * 3 * 3
    )  # torchvision's, without fc and with another conv1


def test_blocks_run_in_torchvisions_order() -> None:
    backbone = SmallImageResNet("resnet18").eval()
    images = random_images(32)
    first = backbone.stages[0]
    x = first.layer1(torch.relu(first.bn1(first.conv1(backbone.normalize(images)))))
    for stage in list(backbone.stages)[1:]:
        x = stage(x)
    torch.testing.assert_close(backbone(images)[-1], x)


def test_unknown_names_are_rejected() -> None:
    with pytest.raises(ValueError, match="name.*got 'resnet19'; did you mean 'resnet1"):
        SmallImageResNet("resnet19")
