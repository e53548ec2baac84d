"""Images too small for a network: the error names their size and the smallest one that works."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.models import (
    AlexNet,
    AlexNetBackbone,
    Backbone,
    Classifier,
    GoogLeNet,
    LeNet5,
    PlainCNN,
    ZFNet,
    build_backbone,
)
from striate.models.backbones.base import smallest_side

from ..helpers.networks import quick_initialization, random_images

SMALLEST = {"vgg11": 32, "alexnet": 63, "googlenet": 15, "inception_v3": 75, "squeezenet1_1": 17, "swin_t": 4}
"""Smallest sides by hand: AlexNet's maps, for example, have 15, 7 and 3 cells, and its last pooling needs 3."""


def pixels(height: int, width: int) -> Tensor:
    return torch.zeros(2, 3, height, width, dtype=torch.uint8)


@pytest.mark.parametrize("name", SMALLEST)
def test_torchvisions_networks_in_a_classifier(name: str) -> None:
    smallest = SMALLEST[name]
    with quick_initialization():
        backbone = build_backbone(name)
    # the default head, since torchvision's can be large
    classifier = Classifier(backbone, 2, head=Backbone.make_head(backbone, 2)).eval()
    with torch.no_grad():
        assert classifier(pixels(smallest, smallest)).shape == (2, 2)
    for height, width in ((smallest - 1, 100), (100, smallest - 1))[: 1 if name == "inception_v3" else 2]:
        expected = f"images.*{name!r}.*{smallest} x {smallest} pixels, got {height} x {width}"
        with pytest.raises(ValueError, match=expected) as caught, torch.no_grad():
            classifier(pixels(height, width))
        assert isinstance(caught.value.__cause__, RuntimeError)  # the layer's error


def test_search_for_the_smallest_size_does_not_modify_the_network() -> None:
    with quick_initialization():
        backbone = build_backbone("vgg11", frozen_stages=1).train()
    for parameter in backbone.parameters():
        nn.init.zeros_(parameter)
    modes = [m.training for m in backbone.modules()]
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    with pytest.raises(ValueError, match="at least 32 x 32"):
        backbone(pixels(20, 20))
    assert [m.training for m in backbone.modules()] == modes
    assert all(torch.equal(v, before[k]) for k, v in backbone.state_dict().items())


def test_networks_of_striate() -> None:
    assert Classifier(PlainCNN(widths=(4, 8)), 2).eval()(pixels(1, 1)).shape == (2, 2)
    with pytest.raises(ValueError, match="PlainCNN.*1 x 1 pixels, got 0 x 5"):
        PlainCNN(widths=(4, 8))(pixels(0, 5))
    with pytest.raises(ValueError, match="AlexNetBackbone.*63 x 63 pixels, got 62 x 80"):
        AlexNetBackbone(width=0.1)(pixels(62, 80))
    small: dict[str, Any] = {"width": 0.1, "hidden": 8, "num_classes": 2}
    # the error names the size that fc6 needs, not the 63 and 47 pixels that suffice for the trunk
    for network, height, width in ((AlexNet, 62, 224), (AlexNet, 1, 1), (ZFNet, 224, 46)):
        expected = f"6 x 6, got {height} x {width}.*no last feature map; resize to 224 x 224.*{network.__name__}"
        with pytest.raises(ValueError, match=expected):
            network(**small)(pixels(height, width))
    with pytest.raises(ValueError, match="LeNet5.*28 x 28.*got 27 x 32"):
        LeNet5()(pixels(27, 32))


@pytest.mark.parametrize("auxiliary", [True, False])
def test_training_with_auxiliary_classifiers_names_the_smallest_size(auxiliary: bool) -> None:
    with quick_initialization():
        model = GoogLeNet(2, auxiliary=auxiliary).train()
    expected = "'googlenet'.*15 x 15 pixels, got 14 x 40"
    for forward in (model, model.forward_with_auxiliary):
        with pytest.raises(ValueError, match=expected) as caught:
            forward(pixels(14, 40))
        assert "Output size is too small" in str(caught.value)
    assert model.eval().forward_with_auxiliary(pixels(15, 15))[0].shape == (2, 2)


def test_removed_stages_do_not_limit_the_size() -> None:
    backbone = build_backbone("vgg11", out_indices=(0, 2))
    assert [tuple(m.shape[2:]) for m in backbone(pixels(4, 4))] == [(4, 4), (1, 1)]
    with pytest.raises(ValueError, match="'vgg11'.*4 x 4 pixels, got 3 x 4"):
        backbone(pixels(3, 4))


def test_timms_networks() -> None:
    pytest.importorskip("timm")
    backbone = build_backbone("timm/convnext_atto").eval()
    with pytest.raises(ValueError, match="'convnext_atto'.*32 x 32 pixels, got 40 x 31"):
        backbone(pixels(40, 31))
    backbone = build_backbone("timm/test_vit").eval()
    with pytest.raises(ValueError, match=r"16 x 16 pixels, got 10 x 64.*divisible"):
        backbone(pixels(10, 64))
    with pytest.raises(AssertionError, match="divisible by patch size"):
        backbone(pixels(40, 40))  # large enough, so the error is timm's


def test_errors_with_other_causes_are_not_changed() -> None:
    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if not x.is_meta:
                raise RuntimeError("out of luck")
            return x

    with pytest.raises(RuntimeError, match="^out of luck$"):
        Backbone([Broken()])(random_images())
    mixed = PlainCNN(widths=(4, 8))
    mixed.stages[1].double()
    with pytest.raises(RuntimeError, match="type"):
        mixed(random_images())


def test_smallest_side_by_hand() -> None:
    # (side + 2 * 1 - 5) // 3 + 1 cells must be 4 for the second: side + 2 - 5 >= 9
    layers = [nn.Conv2d(3, 4, 5, stride=3, padding=1), nn.MaxPool2d(4)]
    assert smallest_side(layers) == 12
    assert smallest_side(layers, largest=11) is None
    assert smallest_side([nn.Conv2d(1, 2, 7)], in_channels=1) == 7
