"""Localizer: outputs by hand, loading of weights, and errors."""

import pytest
import torch
import torch.nn.functional as F

from striate.models import (
    AlexNet,
    AlexNetBackbone,
    Classifier,
    Localizer,
    MapBoxHead,
    PlainCNN,
    SmallImageResNet,
    TorchvisionBackbone,
    VectorBoxHead,
    ZFNetBackbone,
    ordered_corners,
    skip_pretrained,
)
from striate.models.backbones import Backbone
from striate.tests.helpers.networks import random_images

SMALL_ALEXNET = {"width": 0.125, "first_kernel": 5, "first_stride": 2}


def small_alexnet(**options):
    return AlexNetBackbone(**SMALL_ALEXNET, mean=[0.5] * 3, std=[0.25] * 3, **options)


def test_vector_box_head_is_a_linear_layer_with_ordered_corners():
    head = VectorBoxHead(4, boxes=2)  # features are divided by the square root of 4
    with torch.no_grad():
        head.box.weight.zero_()
        head.box.weight[0, 0], head.box.weight[6, 1] = 1.0, -2.0  # x1 of the first box, x2 of the second
    boxes = head(2 * torch.tensor([[0.1, 0.2, 9.0, 9.0], [0.9, 0.0, 9.0, 9.0]]))
    expected = [
        [[0.35, 0.25, 0.75, 0.75], [0.25, 0.25, 0.35, 0.75]],
        [[0.75, 0.25, 1.15, 0.75], [0.25, 0.25, 0.75, 0.75]],
    ]
    torch.testing.assert_close(boxes, torch.tensor(expected))


def test_map_box_head_cell_by_cell():
    head = MapBoxHead(3, boxes=2, width=5)
    maps = torch.randn(2, 3, 2, 4)
    with torch.no_grad():
        head.cell.weight.normal_()
    outputs = F.conv2d(F.relu(F.conv2d(maps, head.hidden.weight, head.hidden.bias, padding=1)), head.cell.weight,
                    head.cell.bias)  # fmt: skip
    for image in range(2):
        total = sum(outputs[image, 0, row, column].exp() for row in range(2) for column in range(4))
        for box in range(2):
            mean = torch.zeros(4)
            for row in range(2):
                for column in range(4):
                    center = torch.tensor([(column + 0.5) / 4, (row + 0.5) / 2] * 2)
                    sides = center + outputs[image, 1 + 4 * box : 5 + 4 * box, row, column]
                    mean += outputs[image, 0, row, column].exp() / total * sides
            x1, y1, x2, y2 = mean.tolist()
            expected = torch.tensor([min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)])
            torch.testing.assert_close(head(maps)[image, box], expected)


def test_a_box_moves_with_its_object():
    head = MapBoxHead(4, width=6)
    with torch.no_grad():  # empty cells have a low confidence
        head.cell.weight[0] = 30.0
        head.cell.bias[0] = -30.0
    maps = torch.zeros(1, 4, 9, 9)
    maps[0, :, 3, 3] = 3.0
    moved = maps.roll((2, 1), (2, 3))  # two cells down, one to the right
    shift = torch.tensor([1.0, 2.0, 1.0, 2.0]) / 9
    torch.testing.assert_close(head(moved)[0, 0], head(maps)[0, 0] + shift, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("box, shape", [("agnostic", (2, 4)), ("per_class", (2, 7, 4))])
@pytest.mark.parametrize("features", ["pooled", "spatial"])
@pytest.mark.parametrize("name", ["plain", "resnet18", "squeezenet1_1", "mobilenet_v3_small", "swin_t"])
def test_shapes_with_any_backbone(name, features, box, shape):
    model = Localizer(name, 7, box, features, box_width=8).eval()
    with torch.no_grad():
        logits, boxes = model(random_images(64))
    assert logits.shape == (2, 7) and boxes.shape == shape and boxes.dtype == torch.float32
    assert (boxes[..., :2] <= boxes[..., 2:]).all()
    assert (boxes - torch.tensor([0.25, 0.25, 0.75, 0.75])).abs().max() < 0.5  # the initial box is in the center


def test_fc_features_are_the_input_of_both_heads():
    model = Localizer(small_alexnet(init="he"), 5, features="fc", image_size=48, hidden=16).eval()
    images = random_images(48)
    maps = model.backbone(images)[-1].flatten(1)
    fc7 = model.head.fc7(model.head.fc6(maps).relu()).relu()
    logits, boxes = model(images)
    torch.testing.assert_close(logits, model.head.fc8(fc7))
    torch.testing.assert_close(boxes, ordered_corners(F.linear(fc7 / 4, *model.box_head.box.parameters())))
    with pytest.raises(ValueError, match="image_size.*2 x 2 cells, got 5 x 5"):
        model(random_images(96))


def test_fc_features_of_vgg_are_torchvisions_layers():
    with torch.device("meta"):
        model = Localizer("vgg16", 200, "per_class", "fc")
        logits, boxes = model.to("meta")(torch.empty(2, 3, 224, 224, device="meta"))
    assert logits.shape == (2, 200) and boxes.shape == (2, 200, 4)
    assert model.head.fc6.weight.shape == (4096, 25088) and model.box_head.box.weight.shape == (800, 4096)
    # 200 class scores and 4 coordinates for each of 200 classes are 1,000 outputs, as in VGG-16
    assert sum(parameter.numel() for parameter in model.parameters()) == 138_357_544


def test_autocast_leaves_the_boxes_in_float32():
    model = Localizer("plain", 3, features="spatial", box_width=8).eval()
    images = random_images(32)
    expected = model(images)
    with torch.autocast("cpu", torch.bfloat16):
        logits, boxes = model(images)
    assert logits.dtype == torch.bfloat16 and boxes.dtype == torch.float32
    torch.testing.assert_close(boxes, expected.boxes, rtol=0, atol=0.02)


def save_checkpoint(model, path):
    """Save a model like a training run, and return the path."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": state | {"metric.count": torch.zeros(3)}, "epoch": 1}, path)
    return str(path)


def draw_parameters(model):
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter)
    return model


def equal_states(ours, theirs):
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


def test_trunk_and_head_are_loaded_from_a_torchvision_classifier(tmp_path):
    trained = draw_parameters(Classifier(TorchvisionBackbone("squeezenet1_1"), 3))
    path = save_checkpoint(trained, tmp_path / "best.ckpt")
    model = Localizer("squeezenet1_1", 3, features="spatial", weights=path)
    assert equal_states(model.backbone.state_dict(), trained.backbone.state_dict())
    lines = model.describe_weights().splitlines()
    assert lines[0] == f"from {path}:" and lines[1] == "  trunk: all 50 tensors, prefix 'model.backbone.'"
    assert lines[2].startswith("  class head: new, ") and lines[3:] == ["  box head: new"]


def test_fully_connected_layers_are_loaded(tmp_path):
    settings = {**SMALL_ALEXNET, "image_size": 48, "hidden": 16, "mean": [0.5] * 3, "std": [0.25] * 3}
    trained = draw_parameters(AlexNet(num_classes=4, **settings))
    path = save_checkpoint(trained, tmp_path / "best.ckpt")
    model = Localizer(small_alexnet(weights=path), 4, features="fc", image_size=48, hidden=16).eval()
    assert equal_states(model.head.state_dict(), trained.head.state_dict())
    images = random_images(48)
    torch.testing.assert_close(model(images).logits, trained.eval()(images))

    other = Localizer(small_alexnet(weights=path), 6, features="fc", image_size=48, hidden=16)
    assert torch.equal(other.head.fc7.weight, trained.head.fc7.weight)
    report = other.describe_weights()
    assert "class head: fc6.weight, fc6.bias, fc7.weight, fc7.bias, prefix 'model.head.'" in report
    assert "class head, new: fc8.weight ([4, 16] in the file, [6, 16] in the model), fc8.bias ([4] in" in report
    assert Localizer("plain", 2).describe_weights() is None


@pytest.mark.parametrize(
    "make",
    [
        lambda weights: PlainCNN((8, 16), weights=weights),
        lambda weights: SmallImageResNet("resnet18", weights=weights),
        lambda weights: AlexNetBackbone(0.125, weights=weights),
        lambda weights: ZFNetBackbone(0.125, weights=weights),
        lambda weights: TorchvisionBackbone("resnet18", weights=weights),
        lambda weights: TorchvisionBackbone("resnet18", weights=weights, out_indices=(0, 1, 2, 3)),
    ],
)
def test_trunks_are_loaded_or_rejected(make, tmp_path):
    source = TorchvisionBackbone("resnet18") if isinstance(make(None), TorchvisionBackbone) else make(None)
    path = save_checkpoint(draw_parameters(Classifier(source, 3)), tmp_path / "best.ckpt")
    backbone = make(path)
    assert isinstance(backbone, Backbone) and len(backbone.load_report.loaded) == len(backbone.state_dict()) > 5
    assert equal_states(backbone.state_dict(), source.state_dict())
    with skip_pretrained():
        assert make(str(tmp_path / "nowhere.ckpt")).load_report is None
    other = save_checkpoint(Classifier("mobilenet_v3_small", 3), tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=rf"other.ckpt does not match {type(backbone).__name__} \(.* tensors match"):
        make(other)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"box": "perclass"}, "box.*got 'perclass'.*did you mean 'per_class'"),
        ({"features": "fc7"}, "features.*got 'fc7'.*did you mean 'fc'"),
        ({"features": "fc"}, "features.*got PlainCNN; set image_size"),
        ({"image_size": 64}, "image_size.*no effect with features='pooled'.*got 64"),
        ({"num_classes": 0}, "num_classes: must be >= 1, got 0"),
        ({"dropout": 1.0}, "dropout.*got 1.0"),
        ({"backbone": PlainCNN(), "weights": "x.pt"}, "weights: has no effect.*got 'x.pt'"),
    ],
)
def test_invalid_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Localizer(**({"backbone": "plain", "num_classes": 3} | arguments))
