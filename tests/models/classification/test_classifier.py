"""Classifier: heads, weights, and construction from YAML."""

from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from striate.models import Backbone, Classifier, PlainCNN, TorchvisionBackbone, TorchvisionHead, skip_pretrained

from ...helpers.networks import on_meta, published, quick_initialization, random_images, random_model


@pytest.mark.parametrize("maximum", [False, True])
def test_head_of_any_other_backbone_pools_and_projects(maximum: bool) -> None:
    # the plain network has max pooling, any other backbone average pooling
    backbone: Backbone = PlainCNN() if maximum else Backbone([nn.Conv2d(3, 5, 3, stride=2)])
    classifier = Classifier(backbone, num_classes=4, dropout=0.3).eval()
    images = random_images(32)
    linear: Any = list(classifier.head.children())[-1]
    features = classifier.backbone(images)[-1]
    pooled = features.amax(dim=(2, 3)) if maximum else features.mean(dim=(2, 3))
    expected = pooled @ linear.weight.T + linear.bias
    torch.testing.assert_close(classifier(images), expected)
    assert [m.p for m in classifier.modules() if isinstance(m, nn.Dropout)] == [0.3]


def test_custom_head() -> None:
    head = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten(1), nn.Linear(8, 3))
    classifier = Classifier(PlainCNN(widths=(4, 8)), num_classes=3, head=head)
    assert classifier.head is head
    assert classifier(random_images(16)).shape == (2, 3)


def test_other_number_of_classes_replaces_the_last_layer_only() -> None:
    reference = random_model("vgg11")
    with published(reference.state_dict()), quick_initialization():
        classifier = Classifier("vgg11", num_classes=3, weights="DEFAULT")
    state = classifier.head.state_dict()
    assert torch.equal(state["body.0.weight"], reference.classifier[0].weight)
    assert torch.equal(state["body.3.weight"], reference.classifier[3].weight)
    assert state["classifier.weight"].shape == (3, 4096)


def test_replaced_layer_has_torchvisions_initialization() -> None:
    reference = random_model("efficientnet_b0")
    with published(reference.state_dict()):
        classifier = Classifier("efficientnet_b0", num_classes=50, weights="DEFAULT")
    weight = classifier.head.state_dict()["classifier.weight"]  # uniform within 1 / sqrt(50)
    assert 0.98 / 50**0.5 < weight.abs().max() <= 1 / 50**0.5


def test_squeezenets_classifier_is_a_convolution() -> None:
    reference = random_model("squeezenet1_1", num_classes=6)
    with published(reference.state_dict()):
        same, other = (Classifier("squeezenet1_1", k, "DEFAULT").eval() for k in (6, 4))
    images = random_images()
    assert torch.equal(same(images), reference(same.backbone.normalize(images)))
    assert other.head.state_dict()["classifier.weight"].shape == (4, 512, 1, 1)
    assert other(images).shape == (2, 4)


@pytest.mark.parametrize(("weights", "loads"), [("IMAGENET1K_FEATURES", False), ("IMAGENET1K_V1", True)])
def test_weights_without_a_usable_classifier_do_not_load_the_head(weights: str, loads: bool) -> None:
    with on_meta(), skip_pretrained():
        backbone = TorchvisionBackbone("vgg16", weights)
    with on_meta(), published({}), mock.patch.object(TorchvisionHead, "load") as load:
        backbone.make_head(1000)
    assert load.called == loads


@pytest.mark.parametrize("name", ["alexnet", "resnet18", "mobilenet_v2", "googlenet", "squeezenet1_0"])
def test_dropout_is_torchvisions_or_the_argument(name: str) -> None:
    def dropouts(classifier: Classifier) -> list[float]:
        return [m.p for m in classifier.head.modules() if isinstance(m, nn.Dropout)]

    default = {"alexnet": [0.5, 0.5], "resnet18": [], "mobilenet_v2": [0.2], "googlenet": [0.2], "squeezenet1_0": [0.5]}
    with quick_initialization():
        assert dropouts(Classifier(name, 2)) == default[name]
        changed = dropouts(Classifier(name, 2, dropout=0.35))
    assert changed == [0.35] * max(1, len(default[name]))


def test_skipping_weights_downloads_nothing_and_builds_the_same_names() -> None:
    reference = random_model("resnet18")
    with published(reference.state_dict()) as get:
        with skip_pretrained():
            skipped = Classifier("resnet18", 1000, "DEFAULT")
        get.assert_not_called()
        full = Classifier("resnet18", 1000, "DEFAULT")
    assert list(skipped.state_dict()) == list(full.state_dict())
    assert not torch.equal(*(c.head.state_dict()["classifier.weight"] for c in (skipped, full)))
    skipped.load_state_dict(full.state_dict())
    images = random_images()
    assert torch.equal(skipped.eval()(images), full.eval()(images))


def test_skipping_weights_needs_no_file() -> None:
    with skip_pretrained():
        Classifier("resnet18", 3, "/nowhere/w.pth")
        Classifier("plain", 3, "/nowhere/w.pth")
    with pytest.raises(FileNotFoundError, match=r"/nowhere/w\.pth"):
        Classifier("plain", 3, "/nowhere/w.pth")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_classes": 0}, "num_classes.*1, got 0"),
        ({"num_classes": 2, "weights": "DEFAULT"}, "weights: has no effect.*got 'DEFAULT'.*PlainCNN"),
        ({"num_classes": 2, "dropout": 1.0}, r"dropout.*got 1\.0"),
        ({"num_classes": 2, "dropout": 0.1, "head": nn.Flatten()}, r"dropout.*no effect.*got 0\.1"),
    ],
)
def test_invalid_or_ineffective_arguments_are_rejected(kwargs: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Classifier(PlainCNN(), **kwargs)


def build(text: str) -> Classifier:
    parser = ArgumentParser()
    parser.add_subclass_arguments(Classifier, "model")
    config = parser.parse_object({"model": yaml.safe_load(text)})
    again = parser.parse_string(parser.dump(config))  # as saved in a checkpoint
    assert again == config
    return parser.instantiate(again).model


def test_from_yaml_by_name() -> None:
    model = build(
        "{class_path: striate.models.Classifier, init_args: {backbone: resnet18, num_classes: 5, dropout: 0.1}}"
    )
    assert isinstance(model.backbone, TorchvisionBackbone)
    assert len(model.head.state_dict()["classifier.bias"]) == 5


@pytest.mark.parametrize("builder", ["TorchvisionBackbone", "build_backbone"])
def test_from_yaml_by_class_and_by_function(builder: str) -> None:
    model = build(
        f"""
        class_path: striate.models.Classifier
        init_args:
          num_classes: 5
          backbone:
            class_path: striate.models.{builder}
            init_args: {{name: resnet18, frozen_stages: 2, freeze_norm: true, out_indices: [2, 4]}}
        """
    )
    backbone = model.backbone
    assert isinstance(backbone, Backbone)
    assert (backbone.out_indices, backbone.frozen_stages, backbone.freeze_norm) == ((2, 4), 2, True)
    assert model(random_images()).shape == (2, 5)


def test_from_yaml_with_timm_and_plain() -> None:
    pytest.importorskip("timm")
    model = build(
        """
        class_path: striate.models.Classifier
        init_args:
          num_classes: 5
          backbone: {class_path: striate.models.TimmBackbone, init_args: {name: test_resnet, weights: false}}
        """
    )
    assert model(random_images()).shape == (2, 5)
    model = build(
        """
        class_path: striate.models.Classifier
        init_args: {num_classes: 5, backbone: {class_path: striate.models.PlainCNN, init_args: {widths: [4, 8]}}}
        """
    )
    assert model.backbone.channels == (4, 8)


def test_overfits_one_batch() -> None:
    model = Classifier(PlainCNN(widths=(8, 16)), num_classes=3)
    images, labels = random_images(16, batch=6), torch.tensor([0, 1, 2, 0, 1, 2])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(model(images), labels)

    first = loss().item()
    for _ in range(40):
        optimizer.zero_grad()
        current = loss()
        current.backward()
        optimizer.step()
    assert current.item() < 0.05 < 0.5 < first


def test_checkpoint_of_a_task_gives_the_same_logits(tmp_path: Path) -> None:
    trained = Classifier("resnet18", 4).eval()
    torch.save({"state_dict": {f"model.{k}": v for k, v in trained.state_dict().items()}}, tmp_path / "last.ckpt")
    again = Classifier("resnet18", 4, weights=str(tmp_path / "last.ckpt")).eval()
    images = random_images()
    assert torch.equal(again(images), trained(images))
    finer = Classifier("resnet18", 9, weights=str(tmp_path / "last.ckpt")).eval()
    assert torch.equal(finer.backbone(images)[-1], trained.backbone(images)[-1])
    assert finer(images).shape == (2, 9)


@pytest.mark.parametrize(("name", "inputs"), [("vgg16", 25088), ("vgg11_bn", 25088), ("alexnet", 9216)])
def test_fc6_and_fc7_of_the_classic_networks(name: str, inputs: int) -> None:
    with on_meta():
        classifier = Classifier(name, num_classes=20)
    head: Any = classifier.head
    assert head.fc6.weight.shape == (4096, inputs)
    assert head.fc7.weight.shape == (4096, 4096)
    assert head.classifier.weight.shape == (20, 4096)


def test_features_are_fc7_after_its_relu(tmp_path: Path) -> None:
    reference = random_model("alexnet")
    torch.save(reference.state_dict(), tmp_path / "alexnet.pth")
    with quick_initialization():
        classifier = Classifier("alexnet", num_classes=4, weights=str(tmp_path / "alexnet.pth")).eval()
    head: Any = classifier.head
    assert torch.equal(head.fc6.weight, reference.classifier[1].weight)
    assert torch.equal(head.fc7.bias, reference.classifier[4].bias)
    images = random_images(64)
    with torch.no_grad():
        features = classifier.features(images)
        maps = reference.avgpool(reference.features(classifier.backbone.normalize(images)))
        fc6 = torch.relu(torch.nn.functional.linear(maps.flatten(1), head.fc6.weight, head.fc6.bias))
        expected = torch.relu(torch.nn.functional.linear(fc6, head.fc7.weight, head.fc7.bias))
        torch.testing.assert_close(features, expected)
        torch.testing.assert_close(head.classifier(features), classifier(images))
    assert features.shape == (2, 4096)


def test_features_of_any_head() -> None:
    plain = Classifier(PlainCNN(widths=(4, 8)), num_classes=3).eval()
    images = random_images(32)
    torch.testing.assert_close(plain.head[-1](plain.features(images)), plain(images))
    with on_meta():
        assert not hasattr(Classifier("resnet18", 10).head, "fc6")
    without = Classifier(PlainCNN(widths=(4, 8)), num_classes=8, head=torch.nn.Flatten())
    with pytest.raises(TypeError, match="head.*`features`.*got Flatten"):
        without.features(images)
