"""TimmBackbone: timm's maps, selected maps, freezing, and weights from files."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from striate.models import Classifier, TimmBackbone, build_backbone, skip_pretrained

from ...helpers.networks import random_images

timm = pytest.importorskip("timm")

SMALL = ["resnet10t", "convnext_atto", "test_efficientnet", "mobilenetv3_small_050"]
SWIN = "swin_tiny_patch4_window7_224"


def normalize(images: Tensor, config: dict) -> Tensor:
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    return (images / 255 - mean) / std


@pytest.mark.parametrize("name", SMALL)
def test_maps_match_timm(name: str) -> None:
    backbone = build_backbone(f"timm/{name}").eval()
    assert isinstance(backbone, TimmBackbone)
    reference = timm.create_model(name, features_only=True).eval()
    reference.load_state_dict({k.removeprefix("stages.0."): v for k, v in backbone.state_dict().items()})
    images = random_images()
    with torch.no_grad():
        maps, expected = backbone(images), reference(normalize(images, reference.pretrained_cfg))
    assert [m.shape[1] for m in maps] == list(backbone.channels)
    assert [64 / m.shape[2] for m in maps] == list(backbone.strides)
    for actual, reference_map in zip(maps, expected, strict=True):
        torch.testing.assert_close(actual, reference_map, rtol=1e-4, atol=1e-4 * reference_map.std().item())
    backbone.train()(images)[-1].sum().backward()
    assert all(p.grad is not None for p in backbone.parameters())


def test_channels_last_maps_of_timm_become_channels_first() -> None:
    backbone = TimmBackbone(SWIN).eval()
    images = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)  # not the default size
    with torch.no_grad():
        maps = backbone(images)
        inside = backbone.stages[0](backbone.normalize(images))
    assert (backbone.channels, backbone.strides) == ((96, 192, 384, 768), (4, 8, 16, 32))
    for m, x, c, s in zip(maps, inside, backbone.channels, backbone.strides, strict=True):
        assert m.shape == (1, c, 64 // s, 96 // s)
        assert x.shape == (1, 64 // s, 96 // s, c)
        assert torch.equal(m[0, :, 1, 2], x[0, 1, 2])


def test_out_indices_select_maps_and_remove_later_layers() -> None:
    torch.manual_seed(2)
    full = TimmBackbone("resnet10t").eval()
    torch.manual_seed(2)
    part = TimmBackbone("resnet10t", out_indices=(1, 3)).eval()
    assert (part.channels, part.strides) == ((64, 256), (4, 16))
    assert not any("layer4" in key for key in part.state_dict())
    images = random_images()
    with torch.no_grad():
        for actual, reference_map in zip(part(images), full(images)[1::2], strict=True):
            assert torch.equal(actual, reference_map)
    with pytest.raises(ValueError, match=r"out_indices.*5 stages.*got \(5,\)"):
        TimmBackbone("resnet10t", out_indices=(5,))


@pytest.mark.parametrize("name", ["resnet10t", "test_efficientnet"])
def test_frozen_stages_cover_the_layers_of_the_first_maps(name: str) -> None:
    backbone = TimmBackbone(name, frozen_stages=2).train()
    state = {k: v.clone() for k, v in backbone.state_dict().items()}
    maps = backbone(random_images())
    assert [m.requires_grad for m in maps] == [False, False, True, True, True]
    sum(m.sum() for m in maps[2:]).backward()
    assert all((p.grad is not None) == p.requires_grad for p in backbone.parameters())
    changed = {k.rpartition(".")[0] for k, v in backbone.state_dict().items() if not torch.equal(v, state[k])}
    norms = {k: m for k, m in backbone.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert changed == {k for k, m in norms.items() if m.weight.requires_grad}
    assert changed == {k for k, m in norms.items() if m.training}
    assert 0 < len(changed) < len(norms)
    with pytest.raises(ValueError, match="frozen_stages.*0 to 5.*got 6"):
        TimmBackbone(name, frozen_stages=6)


def test_frozen_norm() -> None:
    backbone = TimmBackbone("test_resnet", freeze_norm=True).train()
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)


@pytest.mark.parametrize("name", ["resnet10t", "convnext_atto", "test_efficientnet", "test_vit"])
@pytest.mark.parametrize("out_indices", [None, (0, 1)])
def test_files_with_the_names_of_timm_and_of_striate(
    name: str, out_indices: tuple[int, ...] | None, tmp_path: Path
) -> None:
    torch.manual_seed(4)
    network = timm.create_model(name, num_classes=7)
    torch.save({"state_dict": network.state_dict()}, tmp_path / "theirs.pth")
    first = TimmBackbone(name, str(tmp_path / "theirs.pth"), out_indices=out_indices).eval()
    ours, theirs = first.state_dict(), network.state_dict()
    for key, value in ours.items():
        inner = key.removeprefix("stages.0.")
        origin = next(k for k in theirs if inner in (k, k.replace(".", "_", 1), f"model.{k}"))
        assert torch.equal(value, theirs[origin])
    torch.save({"state_dict": {f"model.backbone.{k}": v for k, v in ours.items()}}, tmp_path / "ours.ckpt")
    second = TimmBackbone(name, str(tmp_path / "ours.ckpt"), out_indices=out_indices)
    assert all(torch.equal(v, ours[k]) for k, v in second.state_dict().items())


def test_file_of_another_network_is_rejected(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth does not match TimmBackbone[\s\S]*another shape"):
        TimmBackbone("resnet10t", str(tmp_path / "w.pth"))


def test_published_weights_are_requested_from_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    create = timm.create_model

    def record(name: str, pretrained: bool = False, **kwargs: object) -> nn.Module:
        calls.append((name, pretrained))
        return create(name, pretrained=False, **kwargs)

    monkeypatch.setattr(timm, "create_model", record)
    for weights in (None, False, True, "DEFAULT", "c3_in1k"):
        TimmBackbone("resnet10t", weights)
    with skip_pretrained():
        TimmBackbone("resnet10t", True)
        TimmBackbone("resnet10t", "/nowhere/w.pth")
    TimmBackbone("resnet10t.c3_in1k", True)
    plain, tagged = "resnet10t", "resnet10t.c3_in1k"
    requests = [call for i, call in enumerate(calls) if call not in calls[:i] or call != calls[i - 1]]
    assert requests == [(plain, False), (plain, True), (tagged, True), (plain, False), (tagged, True)]


def test_mean_and_std_belong_to_the_weights() -> None:
    assert TimmBackbone("test_resnet").normalize._constants == ((0.5,) * 3, (0.5,) * 3)
    assert TimmBackbone("resnet10t").normalize._constants[0] == (0.485, 0.456, 0.406)
    assert TimmBackbone("resnet10t", mean=(0, 0, 0)).normalize._constants[0] == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("convnext_ato", None, "name.*got 'convnext_ato'; did you mean 'convnext_atto'"),
        ("resnet10t.c4", None, "name.*'resnet10t', got 'c4'; use 'c3_in1k'"),
        ("resnet10t", "c4", "weights.*'resnet10t', got 'c4'; use 'c3_in1k'"),
    ],
)
def test_unknown_names_are_rejected_with_suggestions(name: str, weights: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_backbone(f"timm/{name}", weights)


def test_error_without_timm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ImportError, match=r"pip install 'striate\[timm\]'"):
        build_backbone("timm/resnet10t")


def test_classifier_with_timm() -> None:
    classifier = Classifier("timm/test_resnet", num_classes=3).eval()
    images = random_images()
    linear: Any = list(classifier.head.children())[-1]
    expected = classifier.backbone(images)[-1].mean((2, 3)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(classifier(images), expected)


def test_failed_download_says_what_to_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(error: Exception) -> None:
        raise OSError("cannot load the weights") from error

    offline = type("LocalEntryNotFoundError", (Exception,), {"__module__": "huggingface_hub.errors"})("offline")
    monkeypatch.setattr("timm.create_model", lambda *args, **kwargs: fail(offline))
    with pytest.raises(
        ConnectionError, match=r"^weights: timm's 'resnet10t.*' could not be downloaded.*huggingface/hub"
    ):
        TimmBackbone("resnet10t", weights="DEFAULT")
    # an error that has nothing to do with the network is reported as it is
    monkeypatch.setattr("timm.create_model", lambda *args, **kwargs: fail(RuntimeError("broken")))
    with pytest.raises(OSError, match="^cannot load the weights$"):
        TimmBackbone("resnet10t", weights="DEFAULT")
