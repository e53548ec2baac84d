"""TorchvisionBackbone: torchvision's logits, channels and strides of every network, and weights."""

import re
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import Tensor

from striate.models import (
    Backbone,
    Classifier,
    TorchvisionBackbone,
    available_backbones,
    build_backbone,
    skip_pretrained,
)
from striate.models.backbones.timm import _leaves
from striate.models.backbones.torchvision import torchvision_backbones

from ...helpers.networks import (
    FAMILIES,
    OVER_200M,
    TRANSFORMS_INPUT,
    UNPADDED,
    assert_channels_last_matches,
    bare_model,
    on_meta,
    published,
    quick_initialization,
    random_images,
    random_model,
    side_for,
)

TORCHVISION = [name for name in available_backbones() if name in torchvision_backbones()]


def check_maps(backbone: Backbone, maps: list[Tensor], name: str, height: int, width: int) -> None:
    assert [m.shape[1] for m in maps] == list(backbone.channels)
    for m, stride in zip(maps, backbone.strides, strict=True):
        for cells, side in ((m.shape[2], height), (m.shape[3], width)):
            assert side / stride - 4 <= cells <= side / stride if name in UNPADDED else cells == side / stride


def normalize(images: Tensor, weights: torchvision.models.WeightsEnum) -> Tensor:
    preset = weights.transforms()
    mean, std = (torch.tensor(v)[:, None, None] for v in (preset.mean, preset.std))
    return (images / 255 - mean) / std


def check_against_torchvision(name: str) -> None:
    """Check that logits equal torchvision's bit by bit for equal pixels, and that all parameters train."""
    reference = random_model(name)
    weights = torchvision.models.get_model_weights(name).DEFAULT
    with published(reference.state_dict()), quick_initialization():
        classifier = Classifier(name, num_classes=1000, weights="DEFAULT").eval()
    images = random_images(side_for(name))
    with torch.no_grad():
        backbone = classifier.backbone
        logits, maps = classifier(images), backbone(images)
        exact = reference(backbone.normalize(images))
        reference.transform_input = name in TRANSFORMS_INPUT
        independent = reference(normalize(images, weights))
        x, copies = backbone.normalize(images), []
        for stage in backbone.stages:
            x = stage(x.clone())
            copies.append(x.permute(0, 3, 1, 2) if name.startswith("swin") else x)
    assert torch.equal(logits, exact)
    scale = independent.std().item()
    assert scale > 1e-3
    torch.testing.assert_close(logits, independent, rtol=0, atol=1e-4 * scale)
    check_maps(backbone, maps, name, *images.shape[2:])
    for m, copied in zip(maps, copies, strict=True):
        assert torch.equal(m, copied)  # no stage overwrites its input
    if sum(p.numel() for p in classifier.head.parameters()) > 1e8:
        classifier.head.requires_grad_(False)  # the gradient of VGG's first hidden layer is half a gigabyte
    classifier.train()(images).square().mean().backward()
    without = [key for key, p in classifier.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert all(p.grad.isfinite().all() for p in classifier.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_match_torchvision(name: str) -> None:
    check_against_torchvision(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*TORCHVISION} - {*FAMILIES} - OVER_200M))
def test_logits_of_all_other_networks_match_torchvision(name: str) -> None:
    check_against_torchvision(name)


def test_every_family_is_tested() -> None:
    def family(name: str) -> str:
        return torchvision.models.get_model_builder(name).__module__ + ("_bn" if name.endswith("_bn") else "")

    assert {family(name) for name in FAMILIES} == {family(name) for name in TORCHVISION}
    weights = {name: torchvision.models.get_model_weights(name) for name in TORCHVISION}
    sizes = {name: next(iter(enum)).meta["num_params"] for name, enum in weights.items()}
    assert {name for name, size in sizes.items() if size > 200e6} == OVER_200M


@pytest.mark.parametrize("name", TORCHVISION)
def test_every_network_declares_its_channels_and_strides(name: str) -> None:
    with on_meta():
        backbone = build_backbone(name).eval()
        maps = backbone(torch.empty(1, 3, 128, 192, dtype=torch.uint8))
    check_maps(backbone, maps, name, 128, 192)
    assert list(backbone.strides) == sorted(set(backbone.strides))
    assert backbone.strides[-1] == (16 if name.startswith("squeezenet") else 32)
    assert _leaves(maps[-1]) == {id(p) for p in backbone.parameters()}


@pytest.mark.parametrize(
    ("name", "channels", "strides"),
    [
        ("resnet18", (64, 64, 128, 256, 512), (2, 4, 8, 16, 32)),
        ("resnet50", (64, 256, 512, 1024, 2048), (2, 4, 8, 16, 32)),
        ("vgg16", (64, 128, 256, 512, 512, 512), (1, 2, 4, 8, 16, 32)),
        ("alexnet", (64, 192, 256, 256), (4, 8, 16, 32)),
        ("googlenet", (64, 192, 480, 832, 1024), (2, 4, 8, 16, 32)),
        ("densenet121", (64, 256, 512, 1024, 1024), (2, 4, 8, 16, 32)),
        ("swin_t", (96, 192, 384, 768), (4, 8, 16, 32)),
        ("convnext_tiny", (96, 192, 384, 768), (4, 8, 16, 32)),
    ],
)
def test_channels_and_strides_of_the_papers(name: str, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
    with on_meta():
        backbone = build_backbone(name)
    assert (backbone.channels, backbone.strides) == (channels, strides)


def test_vggs_maps_precede_each_pooling() -> None:
    with on_meta():
        backbone = build_backbone("vgg16")
    assert [list(dict(stage.named_children())) for stage in backbone.stages[-2:]] == [
        ["23", "24", "25", "26", "27", "28", "29"],
        ["30"],
    ]


def test_measuring_consumes_no_random_numbers() -> None:
    torch.manual_seed(3)
    backbone = TorchvisionBackbone("shufflenet_v2_x0_5")
    torch.manual_seed(3)
    reference = bare_model("shufflenet_v2_x0_5")
    assert torch.equal(backbone.state_dict()["stages.0.conv1.0.weight"], reference.conv1[0].weight)
    assert torch.equal(backbone.state_dict()["stages.4.conv5.0.weight"], reference.conv5[0].weight)


def test_out_indices_select_maps_and_remove_later_stages() -> None:
    reference = random_model("resnet18")
    with published(reference.state_dict()):
        backbone = TorchvisionBackbone("resnet18", "IMAGENET1K_V1", out_indices=(1, 2)).eval()
    assert len(backbone.stages) == 3
    images = random_images()
    x = reference.maxpool(reference.relu(reference.bn1(reference.conv1(backbone.normalize(images)))))
    expected = [reference.layer1(x), reference.layer2(reference.layer1(x))]
    for actual, reference_map in zip(backbone(images), expected, strict=True):
        assert torch.equal(actual, reference_map)
    with pytest.raises(ValueError, match=r"out_indices.*stage 4.*'resnet18', got \(1, 2\)"):
        backbone.make_head(10)


def test_channels_last_gives_the_same_logits() -> None:
    torch.manual_seed(0)
    images = random_images()
    for name in ("resnet18", "convnext_tiny", "swin_t"):
        assert_channels_last_matches(Classifier(name, num_classes=7), images, atol=1e-5)


def test_frozen_stages_of_a_resnet_are_its_stem_and_first_layer() -> None:
    backbone = TorchvisionBackbone("resnet18", frozen_stages=2, out_indices=(3,)).train()
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    backbone(random_images())[0].sum().backward()
    changed = {k.split(".")[2] for k, v in backbone.state_dict().items() if not torch.equal(v, state[k])}
    assert changed == {"layer2", "layer3"}
    assert {k.split(".")[2] for k, p in backbone.named_parameters() if p.grad is not None} == {"layer2", "layer3"}


# Weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2"])
def test_published_weights_by_any_of_their_names(weights: str) -> None:
    reference = random_model("resnet50")
    with published(reference.state_dict()) as get, quick_initialization():
        backbone = TorchvisionBackbone("resnet50", weights)
    get.assert_called_once_with(progress=True, check_hash=True)
    assert torch.equal(backbone.state_dict()["stages.4.layer4.2.conv3.weight"], reference.layer4[2].conv3.weight)
    assert torch.equal(backbone.state_dict()["stages.0.bn1.running_var"], reference.bn1.running_var)


def test_failed_download_suggests_a_file() -> None:
    failed = mock.patch.object(torchvision.models.WeightsEnum, "get_state_dict", side_effect=URLError("no route"))
    with failed, quick_initialization(), pytest.raises(ConnectionError) as caught:
        TorchvisionBackbone("resnet18", "IMAGENET1K_V1")
    message = str(caught.value)
    assert message.startswith("weights: ResNet18_Weights.IMAGENET1K_V1 could not be downloaded (no route)")
    cache = f"{torch.hub.get_dir()}/checkpoints"
    assert "copy resnet18-f37072fd.pth from https://" in message and f" into {cache}, " in message and "null" in message


def test_selected_weights_are_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    urls = []

    def download(url: str, **kwargs: object) -> dict[str, Tensor]:
        urls.append(url)
        return bare_model("resnet50").state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", download)
    with quick_initialization():
        TorchvisionBackbone("resnet50", "IMAGENET1K_V1")
        TorchvisionBackbone("resnet50", "DEFAULT")
    enum = torchvision.models.ResNet50_Weights
    assert urls == [enum.IMAGENET1K_V1.url, enum.IMAGENET1K_V2.url]


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet18", "IMAGENET1K_V3", "weights.*'resnet18', got 'IMAGENET1K_V3'; .*K_V1'"),
        ("resnet18", "ResNet50_Weights.IMAGENET1K_V1", "weights.*'resnet18', got 'ResNet50_Weights"),
        ("resnet18", "imagenet", "weights.*got 'imagenet'; .*'IMAGENET1K_V1', 'DEFAULT'"),
        ("resnet5", None, "name.*got 'resnet5'; did you mean 'resnet50'"),
        ("vit_b_16", None, "name.*'vit_b_16'.*single resolution"),
        ("maxvit_t", None, "name.*'maxvit_t'.*fixed grid"),
    ],
)
def test_unknown_names_are_rejected_with_suggestions(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchvisionBackbone(name, weights)
    with pytest.raises(ValueError, match=message), skip_pretrained():
        build_backbone(name, weights) if name != "resnet5" else TorchvisionBackbone(name, weights)


def constants(backbone: Backbone) -> list[list[float]]:
    return [[round(v, 5) for v in c] for c in backbone.normalize._constants]


IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
HALF = ([0.5] * 3, [0.5] * 3)


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("resnet18", None, IMAGENET),
        ("resnet18", "DEFAULT", IMAGENET),
        ("vgg16", "IMAGENET1K_V1", IMAGENET),
        ("vgg16", "IMAGENET1K_FEATURES", ([0.48235, 0.45882, 0.40784], [round(1 / 255, 5)] * 3)),
        ("efficientnet_v2_l", "DEFAULT", HALF),
        ("googlenet", "DEFAULT", HALF),
        ("googlenet", None, IMAGENET),
        ("googlenet", "/nowhere/mine.pth", IMAGENET),
        ("googlenet", "/nowhere/googlenet-1378be20.pth", HALF),
        ("vgg16", "/nowhere/vgg16_features-amdegroot-88682ab5.pth", ([0.48235, 0.45882, 0.40784], [0.00392] * 3)),
    ],
)
def test_skipping_weights_keeps_their_mean_and_std(name: str, weights: str | None, expected: tuple) -> None:
    with published({}) as get, on_meta(), skip_pretrained():
        backbone = TorchvisionBackbone(name, weights)
        head: Any = backbone.make_head(10)
    get.assert_not_called()
    assert constants(backbone) == [*expected]
    assert head.classifier.out_features == 10


def test_mean_and_std_as_arguments() -> None:
    backbone = TorchvisionBackbone("resnet18", mean=(0.1, 0.2, 0.3))
    assert constants(backbone) == [[0.1, 0.2, 0.3], IMAGENET[1]]


@pytest.mark.parametrize(
    "name", ["resnet18", "densenet121", "mobilenet_v3_small", "swin_t", "mnasnet0_5", "squeezenet1_1"]
)
def test_files_with_the_names_of_torchvision_and_of_striate(name: str, tmp_path: Path) -> None:
    reference = random_model(name, num_classes=5)
    images = random_images()
    torch.save(reference.state_dict(), tmp_path / "theirs.pth")
    with quick_initialization():
        first = Classifier(name, num_classes=5, weights=str(tmp_path / "theirs.pth")).eval()
    with torch.no_grad():
        expected = reference(first.backbone.normalize(images))
        assert torch.equal(first(images), expected)
        ours = {
            "state_dict": {f"model.{k}": v for k, v in first.state_dict().items()} | {"metric.total": torch.ones(1)}
        }
        torch.save(ours, tmp_path / "ours.ckpt")
        with quick_initialization():
            second = Classifier(name, num_classes=5, weights=str(tmp_path / "ours.ckpt")).eval()
        assert torch.equal(second(images), expected)
        # A file of the backbone alone does not contain a head, which is then new.
        torch.save(first.backbone.state_dict(), tmp_path / "trunk.pt")
        third = Classifier(name, num_classes=5, weights=str(tmp_path / "trunk.pt")).eval()
        assert torch.equal(third.backbone(images)[-1], first.backbone(images)[-1])
        shared = [k for k, v in third.head.state_dict().items() if torch.equal(v, first.head.state_dict()[k])]
        assert not [k for k in shared if k.endswith("weight")]
        norms = [v for k, v in third.head.state_dict().items() if "norm" in k and k.endswith("weight")]
        assert len(norms) == (name == "swin_t")
        assert all((v == 1).all() for v in norms)


def test_file_of_a_wrapped_torchvision_model(tmp_path: Path) -> None:
    reference = random_model("resnet18", num_classes=3)
    torch.save({"model": {f"module.{k}": v for k, v in reference.state_dict().items()}, "epoch": 1}, tmp_path / "w.pth")
    classifier = Classifier("resnet18", 3, str(tmp_path / "w.pth")).eval()
    images = random_images()
    assert torch.equal(classifier(images), reference(classifier.backbone.normalize(images)))


def test_file_of_another_network_is_rejected(tmp_path: Path) -> None:
    torch.save(random_model("resnet18").state_dict(), tmp_path / "r18.pth")
    with pytest.raises(ValueError) as caught:
        TorchvisionBackbone("resnet34", str(tmp_path / "r18.pth"))
    message = str(caught.value)
    assert "r18.pth does not match TorchvisionBackbone" in message
    assert "missing (in the model, not in the file): stages.1.layer1.2.conv1.weight" in message
    torch.save(random_model("resnet34").state_dict(), tmp_path / "r34.pth")
    with pytest.raises(ValueError, match=r"unexpected .*: layer1\.2\.conv1\.weight"):
        TorchvisionBackbone("resnet18", str(tmp_path / "r34.pth"))
    with pytest.raises(FileNotFoundError, match=r"gone\.pth"):
        TorchvisionBackbone("resnet18", str(tmp_path / "gone.pth"))


def test_published_densenets_have_dots_in_their_names() -> None:
    reference = random_model("densenet121")
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", k): v for k, v in reference.state_dict().items()
    }
    assert any(".norm.1." in k for k in old)
    with published(old):
        classifier = Classifier("densenet121", 1000, "DEFAULT").eval()
    images = random_images()
    assert torch.equal(classifier(images), reference(classifier.backbone.normalize(images)))


@pytest.mark.parametrize("name", sorted(TRANSFORMS_INPUT))
def test_auxiliary_classifiers_in_published_weights_are_ignored(name: str) -> None:
    reference = random_model(name)
    auxiliary = {f"{part}.fc.weight": torch.ones(1) for part in ("aux1", "aux2", "AuxLogits")}
    with published(reference.state_dict() | auxiliary), quick_initialization():
        classifier = Classifier(name, 1000, "DEFAULT")
    assert torch.equal(classifier.head.state_dict()["classifier.weight"], reference.fc.weight)
