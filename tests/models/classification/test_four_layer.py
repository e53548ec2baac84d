"""FourLayerCNN: layers by hand, parameter counts, initialization; and the pair of two of them."""

import pytest
import torch
from torch.nn import functional as F

from striate.models import ActivationPair, FourLayerCNN

from ...helpers.networks import random_images


@pytest.mark.parametrize(("activation", "function"), [("relu", torch.relu), ("tanh", torch.tanh)])
def test_layers_by_hand(activation, function) -> None:
    model = FourLayerCNN(activation=activation)
    images = random_images(32)
    w = dict(model.named_parameters())
    x = (images / 255 - 0.5) / 0.25
    x = F.max_pool2d(function(F.conv2d(x, w["trunk.conv1.weight"], w["trunk.conv1.bias"], padding=2)), 3, 2)
    x = F.avg_pool2d(function(F.conv2d(x, w["trunk.conv2.weight"], w["trunk.conv2.bias"], padding=2)), 3, 2)
    x = F.avg_pool2d(function(F.conv2d(x, w["trunk.conv3.weight"], w["trunk.conv3.bias"], padding=2)), 3, 2)
    assert x.shape == (2, 64, 3, 3)
    expected = x.flatten(1) @ w["fc4.weight"].T + w["fc4.bias"]
    torch.testing.assert_close(model(images), expected)


def test_four_layers_of_weights() -> None:
    model = FourLayerCNN()
    weights = [p for p in model.parameters() if p.ndim > 1]
    assert [tuple(p.shape) for p in weights] == [(32, 3, 5, 5), (32, 32, 5, 5), (64, 32, 5, 5), (10, 576)]
    # 32*(75+1) + 32*(800+1) + 64*(800+1) + 10*(576+1)
    assert sum(p.numel() for p in model.parameters()) == 2432 + 25632 + 51264 + 5770


def test_initial_weights_depend_on_the_activation() -> None:
    for activation, gain in (("relu", 2.0), ("tanh", 1.0)):
        model = FourLayerCNN(activation=activation)
        assert float(model.trunk.conv3.weight.detach().std()) == pytest.approx((gain / 800) ** 0.5, rel=0.02)
        assert float(model.fc4.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
        assert not model.trunk.conv1.bias.detach().any()


def test_pair_has_two_independent_networks() -> None:
    pair = ActivationPair(num_classes=4, widths=(8, 8, 8))
    images = random_images(32)
    logits = pair(images)
    assert list(logits) == ["relu", "tanh"]
    torch.testing.assert_close(logits["tanh"], pair.runners["tanh"](images))
    assert not torch.allclose(logits["relu"], logits["tanh"])
    logits["relu"].sum().backward()
    assert all(p.grad is not None for p in pair.runners["relu"].parameters())
    assert all(p.grad is None for p in pair.runners["tanh"].parameters())


def test_invalid_arguments_and_images_are_rejected() -> None:
    with pytest.raises(ValueError, match="activation.*'relu', 'tanh', got 'gelu'"):
        FourLayerCNN(activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"widths.*got \[8, 8\]"):
        FourLayerCNN(widths=(8, 8))
    with pytest.raises(ValueError, match="images.*fc4.*32 x 32 pixels, got 32 x 48"):
        FourLayerCNN()(torch.zeros(1, 3, 32, 48))
    with pytest.raises(ValueError, match="image_size.*got 10; use at least 15"):
        FourLayerCNN(image_size=10)
