"""SSD's VGG-16: its shapes, and how it reads a classifier's fc6 and fc7."""

import pytest
import torch
import torchvision
from torch import nn

from striate.models import SSDVGG16, VGG16FullyConvolutional, skip_pretrained
from striate.models.detection.ssd.backbone import init_uniform, subsample


@pytest.mark.parametrize(("side", "maps"), [(300, [38, 19]), (512, [64, 32])])
def test_maps_of_the_paper(side, maps):
    backbone = SSDVGG16(width=0.125, hidden=24)
    features = backbone(torch.zeros(1, 3, side, side, dtype=torch.uint8))
    assert [list(x.shape[1:]) for x in features] == [[64, maps[0], maps[0]], [24, maps[1], maps[1]]]
    assert (backbone.channels, backbone.strides) == ((64, 24), (8, 16))


def test_layers_of_the_paper():
    with skip_pretrained():
        backbone = SSDVGG16("IMAGENET1K_V1", out_indices=None)
    assert backbone.channels == (64, 128, 256, 512, 1024)
    assert backbone.strides == (1, 2, 4, 8, 16)
    fc6, fc7 = backbone.stages[4].fc6, backbone.stages[4].fc7
    assert (fc6.weight.shape, fc6.dilation, fc6.padding) == ((1024, 512, 3, 3), (6, 6), (6, 6))
    assert fc7.weight.shape == (1024, 1024, 1, 1)
    pools = {name: m for name, m in backbone.named_modules() if isinstance(m, nn.MaxPool2d)}
    assert [p.ceil_mode for p in pools.values()] == [False, False, True, False, False]
    assert (pools["stages.4.pool5"].kernel_size, pools["stages.4.pool5"].stride) == (3, 1)
    assert sum(p.numel() for p in backbone.parameters()) == 14_714_688 + (512 * 9 + 1) * 1024 + 1025 * 1024
    assert not [m for m in backbone.modules() if isinstance(m, nn.Dropout)]


class Tiny(nn.Module):
    """VGG-16 in torchvision's names and order, with an eighth of the channels."""

    def __init__(self):
        super().__init__()
        layers, before = [], 3
        for block in ((8, 8), (16, 16), (32,) * 3, (64,) * 3, (64,) * 3):
            for width in block:
                layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU()]
                before = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(64 * 49, 64),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64, 64),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(64, 10),
        )


@pytest.fixture
def classifier(tmp_path):
    torch.manual_seed(0)
    model = Tiny()
    path = tmp_path / "vgg.pt"
    torch.save(model.state_dict(), path)
    return model, str(path)


def test_the_trunk_is_the_classifiers(classifier):
    model, path = classifier
    backbone = SSDVGG16(path, width=0.125, hidden=16)
    assert backbone.load_report.missing == ()
    image = torch.rand(1, 3, 64, 64)  # 64, 32, 16, 8 cells: nothing is rounded
    with torch.no_grad():
        expected = model.features[:23](backbone.normalize(image))  # up to conv4_3
        assert torch.allclose(backbone(image)[0], expected, atol=1e-5)


def test_fc6_and_fc7_are_every_fourth_of_the_classifiers(classifier):
    model, path = classifier
    backbone = SSDVGG16(path, width=0.125, hidden=16)
    fc6, fc7 = backbone.stages[4].fc6, backbone.stages[4].fc7
    full = model.classifier[0].weight.reshape(64, 64, 7, 7)
    for output in (0, 1, 15):
        for row, column in ((0, 0), (1, 2), (2, 2)):
            assert torch.equal(fc6.weight[output, :, row, column], full[4 * output, :, 3 * row, 3 * column])
    assert torch.equal(fc6.bias, model.classifier[0].bias[::4])
    assert torch.equal(fc7.weight[3, 5].squeeze(), model.classifier[3].weight[12, 20])
    assert torch.equal(fc7.bias, model.classifier[3].bias[::4])


def test_weights_without_fc6_and_fc7_leave_these_to_chance(classifier, tmp_path):
    model, _ = classifier
    state = model.state_dict()
    for kind in ("nan", "none"):
        broken = {k: torch.full_like(v, torch.nan) if "classifier" in k else v for k, v in state.items()}
        path = tmp_path / f"{kind}.pt"
        torch.save(broken if kind == "nan" else {k: v for k, v in state.items() if "features" in k}, path)
        backbone = SSDVGG16(str(path), width=0.125, hidden=16)
        assert {name.split(".")[2] for name in backbone.load_report.missing} == {"fc6", "fc7"}
        assert all(p.isfinite().all() for p in backbone.parameters())
        assert torch.equal(backbone.stages[0].conv1_2.weight, state["features.2.weight"])
        bound = (3 / (64 * 9)) ** 0.5
        assert 0.95 * bound < backbone.stages[4].fc6.weight.abs().max() <= bound


def test_names_of_our_checkpoints(classifier, tmp_path):
    _, path = classifier
    first = SSDVGG16(path, width=0.125, hidden=16)
    torch.save({"state_dict": {f"model.backbone.{k}": v for k, v in first.state_dict().items()}}, tmp_path / "own.ckpt")
    again = SSDVGG16(str(tmp_path / "own.ckpt"), width=0.125, hidden=16)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_an_fcns_and_our_classifiers_checkpoints(classifier, tmp_path):
    model, path = classifier
    expected = SSDVGG16(path, width=0.125, hidden=16)
    fcn = VGG16FullyConvolutional(path, width=0.125, hidden=64)
    torch.save({f"model.backbone.{k}": v for k, v in fcn.state_dict().items()}, tmp_path / "fcn.pt")
    names, block = {}, 0
    for index, layer in enumerate(model.features):
        names[f"features.{index}"] = f"model.backbone.stages.{block}.{index}"
        block += isinstance(layer, nn.MaxPool2d)
    names |= {f"classifier.{n}": f"model.head.body.{n}" for n in (0, 3)} | {"classifier.6": "model.head.classifier"}
    state = {f"{names[k.rpartition('.')[0]]}.{k.rpartition('.')[2]}": v for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "classifier.pt")
    for file in ("fcn.pt", "classifier.pt"):
        loaded = SSDVGG16(str(tmp_path / file), width=0.125, hidden=16)
        assert loaded.load_report.missing == ()
        assert all(torch.equal(a, b) for a, b in zip(expected.parameters(), loaded.parameters(), strict=True))


def test_layer_numbers_of_ssd_pytorch(classifier, tmp_path):
    _, path = classifier
    first = SSDVGG16(path, width=0.125, hidden=16)
    indices = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33]  # of the convolutions among all layers
    layers = [m for m in first.modules() if isinstance(m, nn.Conv2d)]
    state = {f"{n}.{k}": v for n, m in zip(indices, layers, strict=True) for k, v in m.state_dict().items()}
    torch.save(state, tmp_path / "vgg16_reducedfc.pth")
    again = SSDVGG16(str(tmp_path / "vgg16_reducedfc.pth"), width=0.125, hidden=16)
    assert again.load_report.missing == ()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_other_weights_are_rejected(tmp_path, classifier):
    _, path = classifier
    with pytest.raises(ValueError, match="weights.*does not match this VGG-16"):
        SSDVGG16(path, width=0.25, hidden=16)
    torch.save(nn.Linear(2, 2).state_dict(), tmp_path / "other.pt")
    with pytest.raises(ValueError, match="weights.*0 of 30"):
        SSDVGG16(str(tmp_path / "other.pt"), width=0.125, hidden=16)
    with pytest.raises(ValueError, match="did you mean 'IMAGENET1K_V1'"):
        SSDVGG16("IMAGENET1K_V3")
    with skip_pretrained():
        SSDVGG16("nowhere.pt", width=0.125, hidden=16)


def test_mean_and_deviation_belong_to_the_weights():
    with skip_pretrained():
        caffe = SSDVGG16("IMAGENET1K_FEATURES", width=0.125, hidden=16)
    preset = torchvision.models.VGG16_Weights.IMAGENET1K_FEATURES.transforms()
    assert torch.allclose(caffe.normalize.mean, torch.tensor(preset.mean))
    assert torch.allclose(caffe.normalize.std, torch.tensor([1 / 255] * 3))


def test_subsample():
    grid = torch.arange(49).reshape(7, 7)
    assert subsample(grid, (3, 3)).tolist() == [[0, 3, 6], [21, 24, 27], [42, 45, 48]]
    assert subsample(torch.arange(8), [2]).tolist() == [0, 4]
    with pytest.raises(ValueError, match=r"shape.*\[7\], got \[5\]"):
        subsample(torch.arange(7), [5])
    with pytest.raises(ValueError, match=r"shape.*got \[3\]"):
        subsample(grid, [3])


def test_init_uniform_has_a_variance_of_one_over_fan_in():
    torch.manual_seed(0)
    layer = nn.Conv2d(64, 128, 3)
    init_uniform(layer)
    assert layer.weight.var().item() == pytest.approx(1 / (64 * 9), rel=0.02)
    assert layer.bias.abs().sum() == 0
