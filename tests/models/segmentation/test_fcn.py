"""FCN against the paper's numbers, an independent implementation, and the classifiers of its trunks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from striate.models import (
    FCN,
    AlexNet,
    AlexNetFullyConvolutional,
    Classifier,
    FCN8s,
    FCN16s,
    FCN32s,
    FCNAlexNet,
    PlainCNN,
    VGG16FullyConvolutional,
    skip_pretrained,
)

from ...helpers.networks import quick_initialization, random_model

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
STAGED: tuple[Any, ...] = (FCN32s, FCN16s, FCN8s)


def narrow(**arguments: Any) -> VGG16FullyConvolutional:
    return VGG16FullyConvolutional(**{"width": 1 / 8, "hidden": 24} | arguments)


@torch.no_grad()
def randomize(model: nn.Module) -> Any:
    """Draw random score layers, and biases that affect the output."""
    for name, parameter in model.named_parameters():
        if "scores" in name or name.endswith("bias"):
            parameter.normal_(0, 0.3)
    return model.eval()


# -- parameter counts and map sizes ----------------------------------------------------------------


def test_parameters_counted_by_hand():
    ins, trunk = 3, 0
    for width in (width for block in BLOCKS for width in block):
        trunk, ins = trunk + (9 * ins + 1) * width, width
    trunk += (512 * 7 * 7 + 1) * 4096 + (4096 + 1) * 4096
    assert trunk == 134_260_544
    scores = [21 * (channels + 1) for channels in (4096, 512, 256)]
    with torch.device("meta"):
        counts = [sum(p.numel() for p in make().parameters()) for make in STAGED]
        alexnet = sum(p.numel() for p in FCNAlexNet().parameters())
    assert counts == [trunk + sum(scores[:n]) for n in (1, 2, 3)] == [134_346_581, 134_357_354, 134_362_751]
    # AlexNet's 60,965,224 without its classifier, and score_fr
    assert alexnet == 60_965_224 - 1000 * 4097 + 21 * 4097


# rows x columns of 375 x 500 pixels. conv1_1: + 2 * 100 - 2; poolings halve and round up: 573 -> 287, 36 -> 18;
# fc6: - 6; upsampling by f with a kernel of 2f: (n + 1) * f
SIZES = {
    "backbone.stages.0.conv1_1": (64, 573, 698),
    "backbone.stages.0.pool1": (64, 287, 349),
    "backbone.stages.1.conv2_2": (128, 287, 349),
    "backbone.stages.1.pool2": (128, 144, 175),
    "backbone.stages.2.conv3_3": (256, 144, 175),
    "backbone.stages.2.pool3": (256, 72, 88),
    "backbone.stages.3.conv4_3": (512, 72, 88),
    "backbone.stages.3.pool4": (512, 36, 44),
    "backbone.stages.4.conv5_3": (512, 36, 44),
    "backbone.stages.4.pool5": (512, 18, 22),
    "backbone.stages.4.fc6": (4096, 12, 16),
    "backbone.stages.4.fc7": (4096, 12, 16),
    "scores.32": (21, 12, 16),
    "ups.32": (21, 26, 34),
    "scores.16": (21, 36, 44),
    "ups.16": (21, 54, 70),
    "scores.8": (21, 72, 88),
    "ups.8": (21, 440, 568),
    "": (21, 375, 500),
}


def trace_sizes(model: nn.Module, image: Tensor) -> dict[str, tuple[int, ...]]:
    sizes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _m, _i, out, name=name: sizes.update({name: tuple(out.shape[1:])} if isinstance(out, Tensor) else {})
        )
    model(image)
    return sizes


def test_every_map_of_fcn8s_at_full_width():
    with torch.device("meta"):
        model = FCN8s()
        sizes = trace_sizes(model, torch.empty(1, 3, 375, 500))
    assert {name: sizes[name] for name in SIZES} == SIZES


@pytest.mark.parametrize(("make", "last", "size"), [(FCN32s, "32", (416, 544)), (FCN16s, "16", (432, 560))])
def test_last_maps_of_the_coarser_nets(make, last, size):
    with torch.device("meta"):
        assert trace_sizes(make(), torch.empty(1, 3, 375, 500))[f"ups.{last}"] == (21, *size)


def test_maps_of_fcn_alexnet():
    with torch.device("meta"):
        sizes = trace_sizes(FCNAlexNet(), torch.empty(1, 3, 375, 500))
    # conv1: (375 + 200 - 11) / 4 + 1; poolings of 3 with stride 2 round up; fc6: - 5; upsampling: 11 * 32 + 63
    names = ("0.conv1", "0.pool1", "1.pool2", "2.pool5", "2.fc6")
    assert [sizes[f"backbone.stages.{name}"][1:] for name in names] == [
        (142, 173),
        (71, 86),
        (35, 43),
        (17, 21),
        (12, 16),
    ]
    assert sizes["ups.32"] == (21, 415, 543)


# -- an independent implementation -----------------------------------------------------------------


def triangle(size: int, classes: int) -> Tensor:
    """Return a transposed convolution's weights [K, K, k, k], which are zero between different classes."""
    factor = (size + 1) // 2
    center = factor - 1 if size % 2 else factor - 0.5
    line = torch.tensor([1 - abs(i - center) / factor for i in range(size)])
    weight = torch.zeros(classes, classes, size, size)
    for k in range(classes):
        weight[k, k] = line[:, None] * line
    return weight


def trunk_by_hand(w: dict[str, Tensor], image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, std = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    x = F.pad((image / 255 - mean) / std, (99,) * 4)  # the convolution adds one more
    pools = []
    for block, widths in enumerate(BLOCKS):
        for n in range(len(widths)):
            name = f"backbone.stages.{block}.conv{block + 1}_{n + 1}"
            x = F.relu(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1))
        x = F.max_pool2d(x, 2, ceil_mode=True)
        pools.append(x)
    for name in ("fc6", "fc7"):
        x = F.relu(F.conv2d(x, w[f"backbone.stages.4.{name}.weight"], w[f"backbone.stages.4.{name}.bias"]))
    return pools[2], pools[3], x


def fcn_by_hand(w: dict[str, Tensor], image: Tensor, finest: int, scales: tuple[float, float] = (1, 1)) -> Tensor:
    pool3, pool4, fc7 = trunk_by_hand(w, image)
    k = w["scores.32.bias"].numel()
    x = F.conv2d(fc7, w["scores.32.weight"], w["scores.32.bias"])
    if finest < 32:
        x = F.conv_transpose2d(x, triangle(4, k), stride=2)
        skip = F.conv2d(pool4 * scales[0], w["scores.16.weight"], w["scores.16.bias"])
        x = x + skip[..., 5 : 5 + x.shape[2], 5 : 5 + x.shape[3]]
    if finest < 16:
        x = F.conv_transpose2d(x, triangle(4, k), stride=2)
        skip = F.conv2d(pool3 * scales[1], w["scores.8.weight"], w["scores.8.bias"])
        x = x + skip[..., 9 : 9 + x.shape[2], 9 : 9 + x.shape[3]]
    x = F.conv_transpose2d(x, triangle(2 * finest, k), stride=finest)
    first = {32: 19, 16: 27, 8: 31}[finest]
    return x[..., first : first + image.shape[2], first : first + image.shape[3]]


@pytest.mark.parametrize(("make", "finest"), [(FCN32s, 32), (FCN16s, 16), (FCN8s, 8)])
@pytest.mark.parametrize("size", [(41, 75), (3, 64)])
def test_fcn_matches_the_independent_implementation(make, finest, size):
    model = randomize(make(num_classes=4, backbone=narrow()))
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    with torch.no_grad():
        expected = fcn_by_hand(model.state_dict(), image, finest)
        out = model(image)
    assert out.shape == (2, 4, *size) and out.std() > 0.01
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)


def test_skip_scales_apply_to_features_and_not_to_biases():
    model = randomize(FCN8s(num_classes=4, backbone=narrow(), skip_scales=(0.01, 0.0001)))
    image = torch.randint(0, 256, (1, 3, 37, 50), dtype=torch.uint8)
    with torch.no_grad():
        expected = fcn_by_hand(model.state_dict(), image, 8, scales=(0.01, 0.0001))
        unscaled = fcn_by_hand(model.state_dict(), image, 8)
        out = model(image)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    assert (out - unscaled).abs().max() > 0.05


def test_fcn_alexnet_matches_the_independent_implementation():
    model = randomize(
        FCNAlexNet(num_classes=3, backbone=AlexNetFullyConvolutional("torchvision", width=1 / 4, hidden=24))
    )
    image = torch.randint(0, 256, (1, 3, 50, 61), dtype=torch.uint8)
    w = model.state_dict()

    def conv(x, name, **arguments):
        return F.relu(F.conv2d(x, w[f"backbone.stages.{name}.weight"], w[f"backbone.stages.{name}.bias"], **arguments))

    with torch.no_grad():
        x = conv(model.backbone.normalize(image), "0.conv1", stride=4, padding=100)
        x = conv(F.max_pool2d(x, 3, 2, ceil_mode=True), "1.conv2", padding=2)
        x = conv(F.max_pool2d(x, 3, 2, ceil_mode=True), "2.conv3", padding=1)
        x = conv(conv(x, "2.conv4", padding=1), "2.conv5", padding=1)
        x = conv(conv(F.max_pool2d(x, 3, 2, ceil_mode=True), "2.fc6"), "2.fc7")
        x = F.conv2d(x, w["scores.32.weight"], w["scores.32.bias"])
        x = F.conv_transpose2d(x, triangle(63, 3), stride=32)
        torch.testing.assert_close(model(image), x[..., 18:68, 18:79], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("make", STAGED)
def test_shifting_the_image_by_32_pixels_shifts_the_scores_by_a_cell(make):
    model = randomize(make(num_classes=3, backbone=narrow()))
    # the receptive field of fc7 is 404 pixels around 12.5 + 32 i, without padding from cell 6 on
    canvas = torch.randint(0, 256, (1, 3, 480 + 32, 480 + 32), dtype=torch.uint8)
    with torch.no_grad():
        here = model.score_maps(canvas[..., :480, :480])[0]
        there = model.score_maps(canvas[..., 32:, 32:])[0]
    inner, shifted = there[..., 6:8, 6:8], here[..., 7:9, 7:9]
    assert shifted.std() > 0.001 and (shifted - here[..., 6:8, 6:8]).abs().max() > 1e-3
    torch.testing.assert_close(inner, shifted, rtol=1e-4, atol=1e-5)


def test_dropout_drops_single_activations_of_fc6_and_fc7():
    backbone = narrow(hidden=200)
    fc7 = backbone.train()(torch.randint(0, 256, (1, 3, 100, 100), dtype=torch.uint8))[-1]
    backbone.eval()
    assert [m.p for m in backbone.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    zeros = (fc7 == 0).float().mean(dim=(2, 3))
    assert ((zeros > 0) & (zeros < 1)).float().mean() > 0.5  # with Dropout2d they would be 0 or 1


def test_a_new_fcn_predicts_zeros_and_trains_all_scores():
    model: Any = FCN8s(num_classes=3, backbone=narrow(dropout=0.0))
    image = torch.randint(0, 256, (1, 3, 40, 40), dtype=torch.uint8)
    out = model(image)
    assert not out.any()
    F.cross_entropy(out, torch.randint(0, 3, (1, 40, 40))).backward()
    # the gradient reaches all three score layers
    for stride in ("32", "16", "8"):
        assert model.scores[stride].weight.grad.abs().max() > 0
    assert not [name for name, p in model.named_parameters() if p.grad is None]


# -- weights ---------------------------------------------------------------------------------------


def test_convolutional_vgg16_matches_the_classifier():
    """At full width; with VGG's padding, a 224-pixel image has one cell."""
    with quick_initialization():
        ours: Any = Classifier("vgg16", num_classes=7).eval()
        ours.load_state_dict(_vgg_state(7), assign=True)
        model: Any = FCN32s(num_classes=7, backbone=VGG16FullyConvolutional(padding=1)).eval()
    model.backbone.load({f"model.{name}": value for name, value in ours.state_dict().items()})
    with torch.no_grad():
        model.scores["32"].weight.copy_(ours.head.classifier.weight[..., None, None])
        model.scores["32"].bias.copy_(ours.head.classifier.bias)
        image = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
        expected, (scores,) = ours(image), model.score_maps(image)
    assert scores.shape == (1, 7, 1, 1) and expected.std() > 0.001
    torch.testing.assert_close(scores[..., 0, 0], expected, rtol=1e-4, atol=1e-5)


def _vgg_state(classes: int) -> dict[str, Tensor]:
    """Return random weights with the names of ``Classifier("vgg16")``."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in Classifier("vgg16", classes).state_dict().items()}
    return {
        name: torch.empty(shape).uniform_(-1, 1).mul_((6 / max(shape[1:].numel(), 1)) ** 0.5 if len(shape) > 1 else 0.1)
        for name, shape in shapes.items()
    }


def narrow_vgg_file(prefix: str = "") -> dict[str, Tensor]:
    """Return a state dict with torchvision's names, at an eighth of VGG-16's width."""
    state, ins, index = {}, 3, 0
    for block in BLOCKS:
        for width in (full // 8 for full in block):
            state[f"features.{index}.weight"] = torch.randn(width, ins, 3, 3) * (2 / 9 / ins) ** 0.5
            state[f"features.{index}.bias"] = torch.randn(width) / 10
            ins, index = width, index + 2
        index += 1
    for name, (out, inputs) in {"0": (24, 64 * 49), "3": (24, 24), "6": (10, 24)}.items():
        state[f"classifier.{name}.weight"] = torch.randn(out, inputs) * (2 / inputs) ** 0.5
        state[f"classifier.{name}.bias"] = torch.randn(out) / 10
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod."])
def test_files_with_torchvisions_names(prefix, tmp_path):
    state = narrow_vgg_file(prefix)
    torch.save(state, tmp_path / "vgg16.pth")
    backbone = narrow(weights=str(tmp_path / "vgg16.pth"))
    assert backbone.load_report is not None and len(backbone.load_report.loaded) == 30 and backbone.load_report.complete
    last = backbone.state_dict()["stages.4.conv5_3.weight"]
    assert torch.equal(last, state[f"{prefix}features.28.weight"])
    fc6 = backbone.state_dict()["stages.4.fc6.weight"]
    # maps are flattened in the order channel, row, column
    assert fc6[3, 5, 2, 6] == state[f"{prefix}classifier.0.weight"][3, 5 * 49 + 2 * 7 + 6]


@pytest.mark.parametrize("layout", ["paper", "torchvision"])
def test_convolutional_alexnet_matches_the_classifier(layout):
    if layout == "paper":
        ours: Any = AlexNet(num_classes=7, width=1 / 4, hidden=24, init="he").eval()
        backbone = AlexNetFullyConvolutional("paper", width=1 / 4, hidden=24, padding=2)
        state, last = ours.state_dict(), ours.head.fc8
    else:
        ours = random_model("alexnet", 7)
        with quick_initialization():
            backbone = AlexNetFullyConvolutional("torchvision", padding=2)
        state, last = ours.state_dict(), ours.classifier[-1]
    model: Any = FCNAlexNet(num_classes=7, backbone=backbone).eval()
    model.backbone.load(state)
    image = torch.rand(2, 3, 224, 224)
    with torch.no_grad():
        model.scores["32"].weight.copy_(last.weight[..., None, None])
        model.scores["32"].bias.copy_(last.bias)
        expected = ours(image if layout == "paper" else model.backbone.normalize(image))
        (scores,) = model.score_maps(image)
    assert scores.shape == (2, 7, 1, 1)
    torch.testing.assert_close(scores[..., 0, 0], expected, rtol=1e-4, atol=1e-3 * float(expected.abs().max()))


def test_each_fcn_initializes_from_the_coarser_one(tmp_path):
    """FCN-16s with FCN-32s' checkpoint has the scores of FCN-32s; FCN-8s with FCN-16s' those of FCN-16s."""
    image = torch.randint(0, 256, (1, 3, 60, 90), dtype=torch.uint8)
    path = tmp_path / "fcn32s.ckpt"
    first = randomize(FCN32s(num_classes=4, backbone=narrow()))
    torch.save({"state_dict": {f"model.{k}": v for k, v in first.state_dict().items()}}, path)
    second = FCN16s(num_classes=4, backbone=narrow(), weights=str(path)).eval()
    assert (
        second.load_report is not None and second.load_report.prefix == "model." and not second.load_report.unexpected
    )
    assert second.load_report.missing == ("scores.16.weight", "scores.16.bias") and len(second.load_report.loaded) == 32
    summary = second.load_report.summary()
    assert summary.startswith(f"from {path}: 32 tensors, prefix 'model.'\n") and "scores.16.weight" in summary
    with torch.no_grad():
        # upsampling by 2 and then 16 differs from 32, but both interpolate the same scores
        a, b = first(image), second(image)
        assert torch.equal(first.score_maps(image)[0], second.score_maps(image)[0])
    assert (a - b).abs().mean() < 0.2 * a.std() and a.std() > 0.01
    randomize(second)
    third = FCN8s(num_classes=4, backbone=narrow())
    report = third.load(second.state_dict())
    assert report.missing == ("scores.8.weight", "scores.8.bias")
    for ours, theirs in zip(third.eval().score_maps(image), second.score_maps(image), strict=False):
        assert torch.equal(ours, theirs)
    assert not third.score_maps(image)[2].any()


def test_learned_upsampling_with_the_same_shape_is_loaded():
    first: Any = FCN16s(num_classes=4, backbone=narrow(), upsampling="learned")
    assert [name for name, _ in first.named_parameters() if name.startswith("ups")] == ["ups.32.weight"]
    with torch.no_grad():
        first.ups["32"].weight.mul_(2)
    second: Any = FCN8s(num_classes=4, backbone=narrow(), upsampling="learned")
    report = second.load(first.state_dict())
    assert torch.equal(second.ups["32"].weight, first.ups["32"].weight)
    assert report.missing == ("scores.8.weight", "scores.8.bias", "ups.16.weight")


def test_other_classes_load_the_trunk_and_report_the_scores():
    source = randomize(FCN32s(num_classes=4, backbone=narrow()))
    model: Any = FCN32s(num_classes=6, backbone=narrow())
    report = model.load(source.state_dict())
    assert set(report.mismatched) == {"scores.32.weight", "scores.32.bias"}
    assert not model.scores["32"].weight.any()
    assert "[4, 24, 1, 1] in the file" in report.summary()
    ours, theirs = model.backbone.state_dict(), source.backbone.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_backbone_loads_the_trunk_of_an_fcn():
    source = narrow()
    fcn = FCN8s(num_classes=3, backbone=source)
    backbone = narrow()
    report = backbone.load({f"model.{k}": v for k, v in fcn.state_dict().items()})
    assert report.prefix == "model.backbone." and report.complete
    assert torch.equal(backbone.state_dict()["stages.4.fc6.weight"], source.state_dict()["stages.4.fc6.weight"])


def test_a_checkpoint_without_the_trunk_is_rejected(tmp_path):
    path = tmp_path / "resnet.ckpt"
    torch.save({f"model.{k}": v for k, v in Classifier("plain", 3).state_dict().items()}, path)
    with pytest.raises(ValueError, match=r"resnet\.ckpt does not match VGG16FullyConv.*0 of 30 tensors"):
        narrow(weights=str(path))
    with pytest.raises(ValueError, match=r"resnet\.ckpt does not match .*VGG16FullyConv.*30 tensors"):
        FCN16s(num_classes=3, backbone=narrow(), weights=str(path))
    headless = {k: v for k, v in narrow_vgg_file().items() if not k.startswith("classifier.0")}
    with pytest.raises(ValueError, match=r"28 of 30 tensors[\s\S]*missing.*stages\.4\.fc6\.weight"):
        narrow().load(headless, origin="headless.pth")
    with pytest.raises(ValueError, match=r"no score layers.*backbone\.weights"):
        FCN32s(num_classes=3, backbone=narrow()).load({f"backbone.{k}": v for k, v in narrow().state_dict().items()})
    with pytest.raises(FileNotFoundError, match=r"gone\.ckpt"):
        FCN8s(num_classes=3, backbone=narrow(), weights=str(tmp_path / "gone.ckpt"))


def test_weights_with_another_shape_or_nan_are_rejected():
    state = narrow_vgg_file()
    other = state | {"classifier.0.weight": torch.zeros(24, 64 * 36)}
    with pytest.raises(ValueError, match=r"fc6\.weight: \[24, 2304\] in .*\[24, 64, 7, 7\] in"):
        narrow().load(other)
    with pytest.raises(ValueError, match=r"NaN or infinite.*stages\.4\.fc6\.weight.*IMAGENET1K_V1"):
        narrow().load(state | {"classifier.0.weight": state["classifier.0.weight"] * float("nan")})


def test_skip_pretrained_loads_nothing():
    with skip_pretrained(), torch.device("meta"):
        FCN16s(backbone=VGG16FullyConvolutional(weights="IMAGENET1K_V1"), weights="not/there.ckpt")


# -- any backbone ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (50, 71), (33, 47)])
def test_any_backbone_at_any_size(size):
    for backbone, skips in (("resnet18", (16, 8)), ("alexnet", (8, 4)), ("plain", ())):
        side = [max(s, 65) for s in size] if backbone == "alexnet" else size
        model = randomize(FCN(backbone, num_classes=3, skips=skips, hidden=16, dropout=0.1))
        assert model(torch.randint(0, 256, (2, 3, *side), dtype=torch.uint8)).shape == (2, 3, *side)


def test_scores_of_other_backbones_are_resized():
    """If the maps divide the image evenly, the result is a sum of resized score maps."""
    model = randomize(FCN(PlainCNN((8, 8, 8)), num_classes=3, skips=(2,)))
    image = torch.randint(0, 256, (1, 3, 32, 48), dtype=torch.uint8)
    with torch.no_grad():
        coarse, fine = model.score_maps(image)
        expected = F.interpolate(coarse, scale_factor=4, mode="bilinear") + fine
        torch.testing.assert_close(model(image), F.interpolate(expected, scale_factor=2, mode="bilinear"))


def test_invalid_arguments():
    with pytest.raises(ValueError, match=r"skips: 3 is not.*got \(16, 3\)"):
        FCN("resnet18", 3, skips=(16, 3))
    with pytest.raises(ValueError, match=r"skips: 16 is not.*got \(8, 16\)"):
        FCN("resnet18", 3, skips=(8, 16))
    with pytest.raises(ValueError, match=r"skip_scales.*skips=\(4, 2\), got \(0\.01,\)"):
        FCN("plain", 3, skips=(4, 2), skip_scales=(0.01,))
    with pytest.raises(ValueError, match="upsampling.*got 'nearest'"):
        FCN("plain", 3, upsampling="nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_classes: must be >= 1, got 0"):
        FCN("plain", 0)
    for number in (3, -1):
        for make in (
            lambda dropout: FCN("plain", 3, dropout=dropout),
            lambda dropout: AlexNetFullyConvolutional(dropout=dropout),
        ):
            with pytest.raises(ValueError, match=f"^dropout: must be .*got {number}"):
                make(number)
    with pytest.raises(ValueError, match="layout.*got 'caffe'"):
        AlexNetFullyConvolutional("caffe")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="set layout: torchvision"):
        AlexNetFullyConvolutional(weights="IMAGENET1K_V1")
