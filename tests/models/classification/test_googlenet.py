"""GoogLeNet against torchvision's, with and without auxiliary classifiers."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor

from striate.models import GoogLeNet, skip_pretrained

from ...helpers.networks import on_meta, published, quick_initialization, random_images, randomize


def reference(num_classes: int = 1000, transform_input: bool = False) -> Any:
    """Return torchvision's network with auxiliary classifiers, random parameters, and no dropout."""
    with quick_initialization():
        model = torchvision.models.GoogLeNet(
            num_classes,
            aux_logits=True,
            transform_input=transform_input,
            init_weights=True,
            dropout=0.0,
            dropout_aux=0.0,
        )
    return randomize(model)


def load_published(state: dict[str, Tensor], num_classes: int = 1000) -> GoogLeNet:
    with published(state), quick_initialization():
        return GoogLeNet(num_classes, "IMAGENET1K_V1", dropout=0.0, auxiliary_dropout=0.0)


def normalize(images: Tensor) -> Tensor:
    preset = torchvision.models.GoogLeNet_Weights.IMAGENET1K_V1.transforms()
    return (images / 255 - torch.tensor(preset.mean)[:, None, None]) / torch.tensor(preset.std)[:, None, None]


def test_logits_and_auxiliary_logits_are_torchvisions() -> None:
    theirs = reference(transform_input=True)  # as torchvision sets it for its published weights
    ours = load_published(theirs.state_dict())
    images = random_images(64, batch=3)
    with torch.no_grad():
        expected = theirs.train()(normalize(images))
        logits, (first, second) = ours.train().forward_with_auxiliary(images)
        torch.testing.assert_close(logits, expected.logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(first, expected.aux_logits1, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(second, expected.aux_logits2, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(first, second, atol=0.1)
        # after a pass in training mode the running statistics agree, so evaluation mode agrees too
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(normalize(images)), rtol=1e-4, atol=1e-4)
        assert torch.equal(ours(images), ours.forward_with_auxiliary(images)[0])


def test_auxiliary_losses_train_only_the_layers_before_them() -> None:
    with quick_initialization():
        model = GoogLeNet(num_classes=3, auxiliary_dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.1, 0.1)
    _, (first, _) = model.train().forward_with_auxiliary(random_images(64))
    assert first.shape == (2, 3)
    first.square().sum().backward()
    reached = {name.split(".")[3] for name, p in model.backbone.named_parameters("b") if p.grad is not None}
    assert {"conv1", "inception3b", "inception4a"} <= reached
    assert not {"inception4b", "inception4d", "inception5b"} & reached


def test_checkpoints_of_striate_and_for_other_classes(tmp_path: Path) -> None:
    theirs = reference(num_classes=5)
    torch.save({"model": theirs.state_dict()}, tmp_path / "theirs.pth")
    with quick_initialization():
        first = GoogLeNet(5, str(tmp_path / "theirs.pth"))
    assert torch.equal(first.auxiliary[1].fc2.weight, theirs.aux2.fc2.weight)
    torch.save({"state_dict": {f"model.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "ours.ckpt")
    with quick_initialization():
        second = GoogLeNet(5, str(tmp_path / "ours.ckpt"))
    for key, value in first.state_dict().items():
        assert torch.equal(second.state_dict()[key], value), key
    with quick_initialization():
        third = GoogLeNet(7, str(tmp_path / "theirs.pth"))
    assert torch.equal(third.auxiliary[0].fc1.weight, theirs.aux1.fc1.weight)
    assert third.auxiliary[0].fc2.out_features == third.head.classifier.out_features == 7


def test_without_auxiliary_classifiers() -> None:
    with on_meta(), skip_pretrained():
        plain = GoogLeNet(auxiliary=False, weights="DEFAULT")
        full = GoogLeNet(weights="DEFAULT")
    assert sum(p.numel() for p in plain.parameters()) == 6_624_904  # torchvision's own count, which excludes them
    assert sum(p.numel() for p in full.parameters()) == 13_004_888
    assert plain.forward_with_auxiliary(torch.empty(1, 3, 64, 64, device="meta"))[1] == []
    assert full.backbone.normalize._constants == ((0.5,) * 3, (0.5,) * 3)
    assert (full.head.body.dropout.p, full.auxiliary[0].dropout.p) == (0.4, 0.7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 0}, "num_classes.*1, got 0"),
        ({"dropout": 1.0}, "dropout.*got 1.0"),
        ({"auxiliary_dropout": -0.1}, "auxiliary_dropout.*got -0.1"),
        ({"weights": "IMAGENET1K_V2"}, "weights.*'googlenet', got 'IMAGENET1K_V2'; .*K_V1'"),
    ],
)
def test_invalid_arguments_are_rejected(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GoogLeNet(**arguments)
