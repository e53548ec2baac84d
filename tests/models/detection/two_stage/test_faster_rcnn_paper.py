"""Faster R-CNN as published: both networks, loaded weights, mirrored and extreme images, and overfitting."""

import copy
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from striate.datamodules import DigitScenes
from striate.models import (
    Backbone,
    PaddedZFNetBackbone,
    PlainCNN,
    ResizeAndPad,
    SingleMapFasterRCNN,
    ZFNet,
    skip_pretrained,
)
from striate.models.detection import RPNSettings

from ....helpers.detector_inputs import map50
from ....helpers.networks import on_meta, published, quick_initialization

ANCHORS = RPNSettings(anchor_scales=(1.0, 2.0, 4.0))


def slim(num_classes=3, resize=None, rpn=ANCHORS, **options):
    """A backbone of one convolution of stride 16, and a head of 32 units."""
    torch.manual_seed(0)
    backbone = Backbone([nn.Sequential(nn.Conv2d(3, 16, 16, 16), nn.ReLU())])
    resize = resize or ResizeAndPad(size_divisible=16)
    return SingleMapFasterRCNN(
        num_classes,
        backbone,
        resize=resize,
        rpn_channels=16,
        pool_size=3,
        hidden=32,
        rpn=rpn,
        **{"dropout": 0.0} | options,
    )


def images(*sizes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes]


def target(*rows, labels=None):
    boxes = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels or [0] * len(boxes), dtype=torch.int64)}


# -- the paper's networks ---------------------------------------------------------------------------------


def test_the_papers_vgg16():
    with quick_initialization():
        model = SingleMapFasterRCNN(20)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    # VGG-16's 13 convolutions; 512 x 512 x 9, 18 and 36 outputs; fc6 and fc7 of the classifier, 21 scores, 80 offsets
    assert count["backbone"] == 14_714_688
    assert count["rpn"] == 512 * 512 * 9 + 512 + 54 * 513
    assert count["head"] == 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 101 * 4097
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert len(frozen) == 8  # weights and biases of conv1_1, conv1_2, conv2_1, conv2_2
    assert all(name.startswith(("backbone.stages.0.", "backbone.stages.1.")) for name in frozen)
    assert model.backbone.strides == (16,)
    assert (model.head.pool.output_size, model.head.pool.spatial_scale) == (7, 1 / 16)
    assert (model.head.body.drop6.p, model.head.body.drop7.p) == (0.5, 0.5)
    assert model.resize.target_size(375, 500) == (600, 800)
    assert model.resize.target_size(300, 1000) == (300, 1000)
    assert model.resize.fill == pytest.approx((0.485, 0.456, 0.406))


def test_the_papers_zf():
    with quick_initialization():
        model = SingleMapFasterRCNN(20, "zf")
    assert model.backbone.channels == (256,)
    assert model.rpn.conv.out_channels == 256
    assert (model.head.pool.output_size, model.head.body.fc6.in_features) == (6, 9216)
    assert all(p.requires_grad for p in model.parameters())


def receptive_field_center(backbone, row, column):
    """Center of the pixels that a cell of the last map depends on, counted from 0."""
    pixels = torch.full((1, 3, 400, 400), 0.5, requires_grad=True)
    backbone(pixels)[-1][0, :, row, column].sum().backward()
    used = pixels.grad.abs().sum(1)[0]
    return [(axis.nonzero()[0] + axis.nonzero()[-1]).item() / 2 for axis in (used.sum(1), used.sum(0))]


def test_zf_cells_are_centered_where_projection_by_division_assumes():
    padded = PaddedZFNetBackbone(width=0.125).eval()
    for parameter in padded.parameters():
        nn.init.constant_(parameter, 0.01)  # so that no ReLU is 0
    averaged = copy.deepcopy(padded)  # the gradient of a maximum reaches one pixel, that of a mean all of them
    for stage in averaged.stages:
        for name, layer in stage.named_children():
            if isinstance(layer, nn.MaxPool2d):
                setattr(stage, name, nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode))
    assert [receptive_field_center(averaged, row, column) for row, column in ((9, 10), (10, 12))] == [
        [144, 160],
        [160, 192],
    ]
    assert padded(torch.zeros(1, 3, 600, 800))[0].shape == (1, 32, 39, 51)  # pooling rounds up
    assert padded(torch.zeros(1, 3, 1, 1))[0].shape == (1, 32, 1, 1)


def test_weights_of_a_zf_classifier_are_loaded_with_fc6_and_fc7(tmp_path):
    theirs = ZFNet(num_classes=5, width=0.125, hidden=24, init="he")
    torch.save({"state_dict": {f"model.{k}": v for k, v in theirs.state_dict().items()}}, tmp_path / "zf.ckpt")
    path = str(tmp_path / "zf.ckpt")
    backbone = PaddedZFNetBackbone(path, width=0.125)
    model = SingleMapFasterRCNN(2, backbone, pool_size=6, hidden=24)
    assert torch.equal(model.backbone.stages[2].conv5.weight, theirs.backbone.stages[2].conv5.weight)
    assert torch.equal(model.head.body.fc6.weight, theirs.head.fc6.weight)
    assert torch.equal(model.head.body.fc7.bias, theirs.head.fc7.bias)
    assert "fc6 and fc7: loaded" in model.describe_weights()
    assert "fc6 and fc7: new" in SingleMapFasterRCNN(2, backbone, pool_size=6, hidden=16).describe_weights()
    # a detector's checkpoint can be loaded as well
    torch.save({"state_dict": {f"model.{k}": v for k, v in model.state_dict().items()}}, tmp_path / "det.ckpt")
    again = SingleMapFasterRCNN(7, PaddedZFNetBackbone(str(tmp_path / "det.ckpt"), width=0.125), pool_size=6, hidden=24)
    assert torch.equal(again.head.body.fc6.weight, theirs.head.fc6.weight)
    with skip_pretrained():
        assert (
            SingleMapFasterRCNN(2, PaddedZFNetBackbone("not/there.ckpt", width=0.125), hidden=8).describe_weights()
            is None
        )


def test_weights_of_torchvisions_vgg16_are_loaded_with_fc6_and_fc7():
    with quick_initialization(), on_meta():
        shapes = {k: v.shape for k, v in torchvision.models.vgg16().state_dict().items()}
    # each tensor is filled with its index
    state = {k: torch.tensor(float(i)).expand(shape) for i, (k, shape) in enumerate(shapes.items())}
    with published(state), quick_initialization():
        model = SingleMapFasterRCNN(2, "vgg16", "IMAGENET1K_V1")
    order = list(shapes)

    def first(parameter):
        return parameter.flatten()[0].item()

    assert first(model.backbone.stages[4][-2].weight) == order.index("features.28.weight")  # conv5_3, before its ReLU
    assert first(model.head.body.fc6.weight) == order.index("classifier.0.weight")
    assert first(model.head.body.fc7.bias) == order.index("classifier.3.bias")
    assert "fc6 and fc7: loaded" in model.describe_weights()


def test_other_names_of_backbones_are_rejected():
    with pytest.raises(ValueError, match="backbone.*got 'vgg_16'; did you mean 'vgg16'"):
        SingleMapFasterRCNN(2, "vgg_16")
    with pytest.raises(ValueError, match="weights: has no effect.*got 'x.ckpt'.*PlainCNN"):
        SingleMapFasterRCNN(2, PlainCNN((8,)), weights="x.ckpt")


# -- images ----------------------------------------------------------------------------------------


def mirrored(model):
    """The model whose output for a mirrored image is the mirrored output of the given one."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for convolution in (other.backbone.stages[0][0], other.rpn.conv):
            convolution.weight.copy_(convolution.weight.flip(-1))
        for kind in (other.rpn.box.weight, other.rpn.box.bias):
            kind[0::4] *= -1  # dx
    return other


def test_mirrored_images_give_mirrored_proposals_and_the_same_losses():
    model = slim(rpn=RPNSettings(anchor_scales=(1.0, 2.0, 4.0), samples=100_000)).eval()
    with torch.no_grad():
        for layer in (model.rpn.score, model.rpn.box):
            layer.weight.mul_(30)
    given = torch.stack(images((96, 128)))
    objects = target([10, 20, 60, 70], [64, 8, 127, 90])
    reflected = target([68, 20, 118, 70], [1, 8, 64, 90])
    twin = mirrored(model)
    one = model.rpn(model.backbone(given)[-1])
    other = twin.rpn(twin.backbone(given.flip(-1))[-1])
    size = [(96, 128)]
    proposals, mirrored_proposals = model.rpn.propose(one, size, size)[0], twin.rpn.propose(other, size, size)[0]
    assert len(proposals) > 20
    assert torch.allclose(
        proposals,
        torch.stack(
            [
                128 - mirrored_proposals[:, 2],
                mirrored_proposals[:, 1],
                128 - mirrored_proposals[:, 0],
                mirrored_proposals[:, 3],
            ],
            1,
        ),
        atol=1e-3,
    )
    losses, same = model.rpn.losses(one, size, [objects]), twin.rpn.losses(other, size, [reflected])
    assert losses["loss_rpn_box"] > 0
    for name, value in losses.items():
        assert torch.allclose(value, same[name], rtol=1e-4)


def test_padding_has_no_effect():
    model = slim().eval()
    nn.init.zeros_(model.backbone.stages[0][0].bias)  # what is padded is 0 in the map, as beyond its border
    small, large = images((64, 64), (112, 160))
    alone = model([small])[0]
    beside = model([small, large])[0]
    assert len(alone["boxes"]) > 0
    assert torch.allclose(alone["boxes"], beside["boxes"], atol=1e-3)
    assert beside["boxes"].max() <= 64


def test_resizing_equals_an_image_of_that_size():
    """At twice the size, boxes are returned at half of it, and 8 pixels of the original are 16 of the resized image."""
    twice = slim(resize=ResizeAndPad(min_size=96, size_divisible=16), rpn=replace(ANCHORS, min_size=8)).eval()
    plain = slim(rpn=replace(ANCHORS, min_size=16)).eval()
    for model in (twice, plain):
        nn.init.normal_(model.rpn.box.weight, std=0.5)  # proposals of many sizes
    plain.load_state_dict(twice.state_dict())
    (given,) = images((48, 80))
    large = torch.nn.functional.interpolate(given[None] / 255, scale_factor=2, mode="bilinear")[0]
    regions = []
    for model in (twice, plain):
        model.head.pool.register_forward_pre_hook(lambda pool, given: regions.append(given[1][0]))
    detected, expected = twice([given])[0], plain([large])[0]
    assert len(detected["boxes"]) > 3
    torch.testing.assert_close(detected["boxes"] * 2, expected["boxes"], atol=1e-3, rtol=0)
    torch.testing.assert_close(regions[0], regions[1], atol=1e-3, rtol=0)
    sides = regions[0][:, 2:] - regions[0][:, :2]
    assert sides.min() >= 16 and (regions[0][:, 2] > 80).any() and (regions[0][:, 3] > 48).any()
    losses = []
    for model, image, box in ((twice, given, [10, 4, 70, 40]), (plain, large, [20, 8, 140, 80])):
        torch.manual_seed(3)
        losses.append(model.losses([image], [target(box)]))
    for name, loss in losses[0].items():
        assert loss > 0
        torch.testing.assert_close(loss, losses[1][name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(regions[2], regions[3], atol=1e-3, rtol=0)


def test_maps_have_whole_cells_by_default():
    model = SingleMapFasterRCNN(2, PlainCNN((4, 4, 8)), rpn_channels=4, pool_size=2, hidden=8)
    assert model.resize.size_divisible == 8 and (model.resize.min_size, model.resize.max_size) == ((600,), 1000)


def test_losses_and_detections_are_the_same_in_both_modes():
    model = slim()
    pixels, targets = images((80, 96), (64, 64)), [target([5, 5, 40, 40], labels=[2]), target()]
    values = []
    for mode in (True, False):
        torch.manual_seed(1)
        values.append((model.train(mode).losses(pixels, targets), model(pixels)))
    assert values[0][0] == values[1][0]
    assert list(values[0][0]) == ["loss_objectness", "loss_rpn_box", "loss_class", "loss_box"]
    assert torch.equal(values[0][1][0]["boxes"], values[1][1][0]["boxes"])


def test_numbers_of_proposals_in_training_and_evaluation():
    model = slim(rpn=RPNSettings(anchor_scales=(1.0, 2.0, 4.0), proposals=(7, 2)))
    regions = []
    model.head.pool.register_forward_pre_hook(lambda pool, given: regions.append(len(given[1][0])))
    for mode in (True, False):
        model.train(mode)(images((96, 96)))
        model.losses(images((96, 96)), [target()])
    assert regions == [2, 7, 2, 7]


def gradients(model, losses):
    model.zero_grad()
    sum(losses.values()).backward()
    return [p.grad for p in model.parameters() if p.requires_grad]


def test_an_image_without_objects_has_no_box_loss_and_finite_gradients():
    model = slim()
    losses = model.losses(images((64, 80)), [target()])
    assert losses["loss_rpn_box"] == losses["loss_box"] == 0
    assert losses["loss_objectness"] > 0
    assert losses["loss_class"] > 0
    assert all(loss.requires_grad for loss in losses.values())
    computed = gradients(model, losses)
    assert all(g is not None and g.isfinite().all() for g in computed)
    assert not model.rpn.box.weight.grad.any()
    assert not model.head.box.weight.grad.any()
    assert model.head.score.weight.grad.any()


def test_an_image_smaller_than_the_stride():
    model = slim()
    losses = model.losses(images((5, 9), (1, 1)), [target([1, 1, 4, 4]), target()])
    assert all(g.isfinite().all() for g in gradients(model, losses))
    assert losses["loss_objectness"] == 0  # no anchor lies inside
    assert losses["loss_box"].isfinite()
    found = model(images((5, 9), (1, 1)))
    assert [d["boxes"].shape[1] for d in found] == [4, 4]


def test_five_thousand_objects_in_an_image():
    model = slim()
    corners = torch.rand(5000, 2, generator=torch.Generator().manual_seed(0)) * 200
    crowd = {"boxes": torch.cat([corners, corners + 20], 1), "labels": torch.arange(5000) % 3}
    losses = model.losses(images((224, 224)), [crowd])
    assert all(g.isfinite().all() for g in gradients(model, losses))
    assert losses["loss_box"] > 0


def test_boxes_are_exact_under_autocast():
    model = slim().eval()
    given = images((96, 128))
    with torch.autocast("cpu", torch.bfloat16):
        found = model(given)[0]
        losses = model.losses(given, [target([5, 5, 40, 40])])
    assert found["boxes"].dtype == found["scores"].dtype == torch.float32
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())


# -- learning --------------------------------------------------------------------------------------


def scenes():
    source = DigitScenes("detection", image_size=64, train_size=8, num_workers=0, scale=(0.3, 0.5)).make_source("train")
    samples = [source[index] for index in range(8)]
    pixels = [torch.from_numpy(sample["image"].copy()).permute(2, 0, 1) for sample in samples]
    return pixels, [
        {"boxes": torch.as_tensor(s["boxes"]).float(), "labels": torch.as_tensor(s["labels"]).long()} for s in samples
    ]


@pytest.mark.slow
def test_eight_scenes_are_overfitted():
    torch.manual_seed(0)
    pixels, targets = scenes()
    model = SingleMapFasterRCNN(
        10,
        PlainCNN((16, 32, 64), depth=1),
        resize=ResizeAndPad(size_divisible=8),
        rpn_channels=64,
        pool_size=4,
        hidden=128,
        dropout=0.0,
        rpn=RPNSettings(anchor_base=8, anchor_scales=(2.0, 3.0, 4.0), min_size=4, samples=64, proposals=(200, 100)),
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=300)
    for _ in range(300):
        optimizer.zero_grad()
        sum(model.losses(pixels, targets).values()).backward()
        optimizer.step()
        schedule.step()
    assert map50(model.eval()(pixels), targets, 10) >= 0.95
