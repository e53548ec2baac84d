"""U-Net: parameter counts, an independent implementation, any size and any backbone."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from striate.models import PlainCNN, SmallImageResNet, TorchvisionBackbone, UNet, build_backbone, skip_pretrained

from ...helpers.networks import assert_channels_last_matches, quick_initialization, random_images, randomize


@torch.no_grad()
def resnet34_count() -> int:
    """Count the parameters of ResNet-34's trunk: 3, 4, 6 and 3 blocks of two 3x3 convolutions."""
    total, ins = 7 * 7 * 3 * 64 + 2 * 64, 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        total += 9 * ins * width + (2 * blocks - 1) * 9 * width * width + 2 * blocks * 2 * width
        total += (ins * width + 2 * width) if ins != width else 0  # the shortcut's 1x1 convolution
        ins = width
    return total


def test_parameter_count_with_resnet34() -> None:
    with torch.device("meta"):
        model = UNet("resnet34", num_classes=21)
    total, coarse = resnet34_count(), 512
    for skip, width in zip((256, 128, 64, 64, 0), (256, 128, 64, 32, 16), strict=True):
        total += 9 * (coarse + skip) * width + 9 * width * width + 4 * width
        coarse = width
    total += 9 * 16 * 21 + 21
    assert sum(p.numel() for p in model.parameters()) == total == 24_439_269


def by_hand(state: dict[str, Tensor], maps: list[Tensor], size: tuple[int, int]) -> Tensor:
    """Compute the decoder with the model's weights."""

    def layer(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.1.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.conv2d(x, state[f"{name}.0.weight"], padding=1)
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt() * weight[:, None, None]
        return (x + bias[:, None, None]).clamp(min=0)

    x = maps[-1]
    for index, skip in enumerate([*maps[-2::-1], None]):
        height, width = skip.shape[-2:] if skip is not None else size
        rows = torch.arange(height) * x.shape[2] // height
        columns = torch.arange(width) * x.shape[3] // width
        x = x[:, :, rows][..., columns]
        x = x if skip is None else torch.cat([x, skip], dim=1)
        x = layer(layer(x, f"blocks.{index}.conv1"), f"blocks.{index}.conv2")
    return F.conv2d(x, state["head.weight"], state["head.bias"], padding=1)


@pytest.mark.parametrize("size", [(64, 96), (61, 83), (5, 1)])
def test_outputs_match_an_independent_implementation(size: tuple[int, int]) -> None:
    model = randomize(UNet("resnet18", num_classes=5, widths=(32, 24, 16, 12, 8)))
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        actual = model(images)
        expected = by_hand(model.state_dict(), model.backbone(images), size)
    assert actual.shape == (2, 5, *size)
    assert expected.std() > 1e-2
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4 * expected.std().item())


def test_outputs_match_segmentation_models_pytorch() -> None:
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = randomize(smp.Unet("resnet34", encoder_weights=None, classes=21))
    with quick_initialization():
        model = UNet("resnet34", num_classes=21).eval()
    names = model.backbone.torchvision_names()
    model.load_state_dict(
        {
            f"backbone.{names[key[8:]]}"
            if key.startswith("encoder.")
            else key.replace("decoder.", "").replace("segmentation_head.0", "head"): value
            for key, value in theirs.state_dict().items()
        }
    )
    images = random_images(96)
    with torch.no_grad():
        torch.testing.assert_close(model(images), theirs(model.backbone.normalize(images)))


@pytest.mark.parametrize(
    ("name", "strides", "widths"),
    [
        ("plain", [4, 2, 1], [64, 32, 16]),
        ("vgg11", [16, 8, 4, 2, 1], [256, 128, 64, 32, 16]),
        ("mobilenet_v3_small", [16, 8, 4, 2, 1], [256, 128, 64, 32, 16]),
        ("convnext_tiny", [16, 8, 4, 2, 1], [256, 128, 64, 32, 16]),
        ("swin_t", [16, 8, 4, 2, 1], [256, 128, 64, 32, 16]),
        ("small", [4, 2, 1], [64, 32, 16]),
        ("timm/test_vit", [16, 16, 8, 4, 2, 1], [256, 256, 128, 64, 32, 16]),
    ],
)
def test_any_backbone_at_any_size(name: str, strides: list[int], widths: list[int]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    backbone = SmallImageResNet("resnet18") if name == "small" else build_backbone(name)
    model = UNet(backbone, num_classes=3).eval()
    assert [block.conv2[0].out_channels for block in model.blocks] == widths
    assert model.strides == strides
    for height, width in ((64, 64),) if name.startswith("timm/") else ((64, 64), (37, 50)):
        with torch.no_grad():
            assert model(torch.zeros(1, 3, height, width, dtype=torch.uint8)).shape == (1, 3, height, width)


def test_vgg_has_a_skip_at_full_resolution() -> None:
    # VGG's first stage keeps the image's size, so the last block has a skip connection
    with torch.device("meta"):
        model = UNet("vgg11", num_classes=3)
    assert model.backbone.strides[0] == 1
    assert model.blocks[-1].conv1[0].in_channels == 32 + 64


def test_bilinear_upsampling() -> None:
    torch.manual_seed(0)
    nearest = UNet(PlainCNN(widths=(4, 8)), 2).eval()
    bilinear = UNet(PlainCNN(widths=(4, 8)), 2, upsampling="bilinear").eval()
    bilinear.load_state_dict(nearest.state_dict())
    images = random_images(16)
    fine, coarse = bilinear.backbone(images)
    up = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    block = bilinear.blocks[0]
    expected = block.conv2(block.conv1(torch.cat([up, fine], dim=1)))
    torch.testing.assert_close(block(coarse, (8, 8), fine), expected)
    assert not torch.allclose(nearest(images), bilinear(images))


def test_every_parameter_gets_a_gradient_and_channels_last_is_equal() -> None:
    model = UNet("resnet18", num_classes=4)
    images = random_images(64)
    model(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert_channels_last_matches(model, images)


def test_overfits_one_batch() -> None:
    images = random_images(32)
    target = (images[:, 0] > 127).long() + (images[:, 1] > 200).long()
    model = UNet(PlainCNN(widths=(16, 32)), num_classes=3, widths=(32, 32))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), target).backward()
        optimizer.step()
    # targets depend on single pixels, and the finest skip has half the resolution
    assert (model.eval()(images).argmax(dim=1) == target).float().mean() > 0.8


def test_weights_are_loaded_into_the_backbone(tmp_path: Any) -> None:
    source = TorchvisionBackbone("resnet18")
    torch.save(source.state_dict(), tmp_path / "trunk.pth")
    model = UNet("resnet18", 2, weights=str(tmp_path / "trunk.pth"))
    assert all(torch.equal(v, model.backbone.state_dict()[k]) for k, v in source.state_dict().items())
    with skip_pretrained():
        UNet("resnet18", 2, weights="/nowhere/there.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes.*1, got 0"),
        ({"widths": (64, 32)}, r"widths.*3 positive.*strides 4, 2, 1, got \[64, 32\]"),
        ({"widths": (64, 0, 32)}, r"widths.*positive.*got \[64, 0, 32\]"),
        ({"upsampling": "cubic"}, "upsampling.*got 'cubic'"),
        ({"backbone": PlainCNN(), "weights": "DEFAULT"}, "weights.*no effect on a backbone"),
        ({"backbone": "resnet19"}, "did you mean 'resnet18'"),
    ],
)
def test_invalid_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{"backbone": "plain", "num_classes": 3, **arguments})


def test_images_too_small() -> None:
    with quick_initialization():
        model = UNet("vgg11", 2)
    with pytest.raises(ValueError, match="'vgg11'.*32 x 32 pixels, got 31 x 40"):
        model(torch.zeros(1, 3, 31, 40, dtype=torch.uint8))
