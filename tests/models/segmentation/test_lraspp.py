"""LR-ASPP against torchvision's, and `TorchvisionSegmentation` against torchvision's networks."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F

from striate.models import LRASPP, Classifier, PlainCNN, TorchvisionSegmentation, build_backbone, skip_pretrained

from ...helpers.networks import published, quick_initialization, random_images, random_model, randomize

NAMES = torchvision.models.list_models(module=torchvision.models.segmentation)
HEAD = {"cbr": "project", "scale": "gate", "low_classifier": "score_fine", "high_classifier": "score"}


def theirs(name: str, num_classes: int = 5, aux_loss: bool | None = None) -> Any:
    with quick_initialization():
        model = torchvision.models.get_model(
            name, weights=None, weights_backbone=None, num_classes=num_classes, aux_loss=aux_loss
        )
    for parameter in model.parameters():
        if parameter.ndim > 1:
            bound = (3 / parameter[0].numel()) ** 0.5
            torch.nn.init.uniform_(parameter, -bound, bound)
    return randomize(model)


def head_state(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of torchvision's head to ours."""
    renamed = {}
    for key, value in state.items():
        part, _, rest = key.removeprefix("classifier.").partition(".")
        renamed[f"{HEAD[part]}.{rest}"] = value
    return renamed


@pytest.mark.parametrize("size", [(64, 96), (53, 71), (1, 1)])
def test_outputs_match_torchvision(size: tuple[int, int]) -> None:
    reference = theirs("lraspp_mobilenet_v3_large")
    with quick_initialization():
        model = LRASPP(num_classes=5).eval()
    state = reference.state_dict()
    names = model.backbone.torchvision_names()  # torchvision's extractor has the trunk's names without "features."
    trunk = {names[f"features.{k[9:]}"]: v for k, v in state.items() if k.startswith("backbone.")}
    model.backbone.load_state_dict(trunk)
    head = head_state({k: v for k, v in state.items() if k.startswith("classifier.")})
    assert not model.load_state_dict(head, strict=False).unexpected_keys
    images = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        expected = reference(model.backbone.normalize(images))["out"]
        assert expected.std() > 1e-2
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_parameter_count_matches_torchvision() -> None:
    meta = torchvision.models.get_model_weights("lraspp_mobilenet_v3_large").DEFAULT.meta
    with torch.device("meta"):
        model = LRASPP(num_classes=21)
    assert sum(p.numel() for p in model.parameters()) == meta["num_params"] == 3_221_538


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "resnet18", "plain"])
def test_other_backbones(name: str) -> None:
    backbone = PlainCNN(widths=(4, 8, 8, 16)) if name == "plain" else build_backbone(name)
    model = randomize(LRASPP(num_classes=3, backbone=backbone, channels=8))
    assert model.backbone.strides[-1] == 16
    images = torch.randint(0, 256, (2, 3, 45, 70), dtype=torch.uint8)
    with torch.no_grad():
        fine, last = model._maps(images)
        actual, maps = model(images), model.backbone(images)
        assert (fine.shape[-1], last.shape[-1]) == (9, 5)
        assert torch.equal(last, maps[-1])
        assert torch.equal(fine, maps[2]) == (name != "mobilenet_v3_small")
        conv, norm, _ = model.project
        mixed = F.batch_norm(F.conv2d(last, conv.weight), norm.running_mean, norm.running_var, norm.weight, norm.bias)
        gate = torch.sigmoid(F.conv2d(last.mean(dim=(2, 3), keepdim=True), model.gate[1].weight))
        up = F.interpolate(mixed.relu() * gate, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        expected = F.conv2d(up, model.score.weight, model.score.bias)
        expected = expected + F.conv2d(fine, model.score_fine.weight, model.score_fine.bias)
        expected = F.interpolate(expected, size=(45, 70), mode="bilinear", align_corners=False)
    assert actual.shape == (2, 3, 45, 70)
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    model = LRASPP(num_classes=3, backbone="mobilenet_v3_small")
    model(random_images(64)).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_invalid_arguments() -> None:
    with pytest.raises(ValueError, match="num_classes: must be >= 1, got 0"):
        LRASPP(num_classes=0)
    with pytest.raises(ValueError, match="backbone.*stride 8.*got PlainCNN"):
        LRASPP(num_classes=2, backbone=PlainCNN())
    with quick_initialization():
        deep, taller = PlainCNN(widths=(4, 4, 4, 4)), build_backbone("vgg11")
    with pytest.raises(ValueError, match="output_stride.*'vgg11' cannot be dilated to 16"):
        LRASPP(num_classes=2, backbone=taller)
    deep.stages[3][0].padding = (0, 0)
    with pytest.raises(ValueError, match="PlainCNN.*got 8 x 8"):
        LRASPP(num_classes=2, backbone=deep).eval()(random_images(8))


# TorchvisionSegmentation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if "101" not in n])
def test_networks_match_torchvision(name: str, tmp_path: Path) -> None:
    has_auxiliary = not name.startswith("lraspp")
    reference = theirs(name, aux_loss=has_auxiliary)
    torch.save({"model": reference.state_dict()}, tmp_path / "net.pth")
    with quick_initialization():
        model = TorchvisionSegmentation(name, num_classes=5, weights=str(tmp_path / "net.pth")).eval()
    images = torch.randint(0, 256, (1, 3, 41, 58), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        expected = reference((images / 255 - mean[:, None, None]) / std[:, None, None])
        logits, others = model.forward_with_auxiliary(images)
        assert torch.equal(model(images), logits)
    assert logits.shape == (1, 5, 41, 58)
    torch.testing.assert_close(logits, expected["out"], rtol=1e-3, atol=1e-3 * expected["out"].std().item())
    assert len(others) == int(has_auxiliary)
    if has_auxiliary:
        torch.testing.assert_close(others[0], expected["aux"], rtol=1e-3, atol=1e-3 * expected["aux"].std().item())
    assert model.backbone is model.network.backbone


def test_published_weights_for_the_same_and_for_other_classes() -> None:
    name = "lraspp_mobilenet_v3_large"
    state = theirs(name, 21).state_dict()
    with published(state) as get:
        same = TorchvisionSegmentation(name, 21, weights="COCO_WITH_VOC_LABELS_V1")
        other = TorchvisionSegmentation(name, 4, weights="LRASPP_MobileNet_V3_Large_Weights.DEFAULT")
        with skip_pretrained():
            TorchvisionSegmentation(name, 21, weights="DEFAULT")
    assert get.call_count == 2
    assert all(torch.equal(value, state[key]) for key, value in same.network.state_dict().items())
    for key, value in other.network.state_dict().items():
        assert torch.equal(value, state[key]) == ("_classifier." not in key), key
    assert other.network.classifier.low_classifier.out_channels == 4


def test_auxiliary_head_is_omitted_or_initialized() -> None:
    name = "deeplabv3_mobilenet_v3_large"
    state = theirs(name, aux_loss=True).state_dict()
    with quick_initialization(), published(state):
        without = TorchvisionSegmentation(name, 5, weights="DEFAULT", auxiliary=False).eval()
    assert without.forward_with_auxiliary(random_images(33))[1] == []
    bare = {key: value for key, value in state.items() if not key.startswith("aux_classifier.")}
    with published(bare):
        initialized = TorchvisionSegmentation(name, 5, weights="DEFAULT")
    assert initialized.network.aux_classifier[0].weight.std() > 0


@pytest.mark.parametrize("name", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_backbone_from_a_classifier_of_striate_and_of_torchvision(name: str, tmp_path: Path) -> None:
    trunk = name.partition("_")[2]
    reference = random_model(trunk)
    torch.save(reference.state_dict(), tmp_path / "theirs.pth")
    with quick_initialization():
        classifier = Classifier(trunk, 1000, weights=str(tmp_path / "theirs.pth"))
        torch.save(
            {"state_dict": {f"model.{k}": v for k, v in classifier.state_dict().items()}}, tmp_path / "ours.ckpt"
        )
        for file in ("theirs.pth", "ours.ckpt"):
            model = TorchvisionSegmentation(name, 3, backbone_weights=str(tmp_path / file))
            for key, value in model.backbone.state_dict().items():
                assert torch.equal(value, reference.state_dict()["features." * (trunk[0] == "m") + key])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "fcn_resnet5"}, "name.*got 'fcn_resnet5'; did you mean 'fcn_resnet50'"),
        ({"weights": "COCO"}, "weights.*'lraspp_mobilenet_v3_large', got 'COCO'"),
        ({"weights": "DEFAULT", "backbone_weights": "DEFAULT"}, "backbone_weights.*no effect.*got 'DEFAULT'"),
        ({"auxiliary": True}, "auxiliary: 'lraspp_mobilenet_v3_large' has no"),
        ({"num_classes": 0}, "num_classes.*1, got 0"),
    ],
)
def test_invalid_arguments_of_torchvisions_networks(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TorchvisionSegmentation(**{"name": "lraspp_mobilenet_v3_large", "num_classes": 3, **arguments})


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(PlainCNN().state_dict(), tmp_path / "plain.pth")
    with (
        quick_initialization(),
        pytest.raises(ValueError, match=r"plain.pth does not match torchvision's 'fcn_resnet50'"),
    ):
        TorchvisionSegmentation("fcn_resnet50", 3, weights=str(tmp_path / "plain.pth"))
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        TorchvisionSegmentation("lraspp_mobilenet_v3_large", 3, weights=str(tmp_path / "none.pth"))
