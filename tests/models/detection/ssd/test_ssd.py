"""SSD on any backbone, the published networks against torchvision's, and extreme inputs."""

import copy

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssd300_vgg16

from striate.models import SSD, SSD300, SSD512, SSDVGG16, ExtraLayer, PlainCNN, TorchvisionBackbone, skip_pretrained
from striate.models.detection.ssd.ssd import L2Norm

from ....helpers.detector_inputs import map50, overfit


def slim(num_classes=3, image_size=64, **options):
    torch.manual_seed(0)
    return SSD(
        num_classes,
        PlainCNN((16, 32, 32), depth=1, out_indices=(1, 2)),
        image_size,
        extra=[ExtraLayer(32), ExtraLayer(32)],
        **options,
    )


def slim_ssd300(**options):
    torch.manual_seed(0)
    return SSD300(3, SSDVGG16(width=0.125, hidden=32), **options)


def scenes(count, size=64, seed=0, objects=3):
    """Images of noise with rectangles, whose color is their class. The last has none."""
    generator = torch.Generator().manual_seed(seed)
    images, targets = [], []
    for number in range(count):
        image = torch.randint(0, 90, (3, size, size), dtype=torch.uint8, generator=generator)
        boxes, labels = [], []
        for index in range(0 if number == count - 1 else int(torch.randint(1, objects + 1, (), generator=generator))):
            side = size // 2 - 4
            x, y = (2 + (index % 2) * size // 2, 2 + (index // 2) * size // 2)
            w, h = (int(v) for v in torch.randint(side // 2, side, (2,), generator=generator))
            label = int(torch.randint(0, 3, (), generator=generator))
            image[label, y : y + h, x : x + w] = 230
            boxes.append([x, y, x + w, y + h])
            labels.append(label)
        images.append(image)
        targets.append({"boxes": torch.tensor(boxes).float().reshape(-1, 4), "labels": torch.tensor(labels).long()})
    return images, targets


@pytest.mark.parametrize("training", [True, False])
def test_both_modes_give_detections_and_losses(training):
    model = slim().train(training)
    images, targets = scenes(3)
    images[0] = torch.rand(3, 33, 80)
    targets[0] = {"boxes": torch.tensor([[0.0, 0.0, 80.0, 33.0]]), "labels": torch.tensor([2])}
    detections = model(images)
    assert len(detections) == 3
    for image, each in zip(images, detections, strict=True):
        limits = torch.tensor([image.shape[-1], image.shape[-2]] * 2)
        assert ((each["boxes"] >= 0) & (each["boxes"] <= limits)).all()
        assert (each["scores"].diff() <= 0).all()
        assert ((each["labels"] >= 0) & (each["labels"] < 3)).all()
        assert len(each["labels"]) <= 200
    losses = model.losses(images, targets)
    assert set(losses) == {"loss_class", "loss_box"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_images_without_objects_have_no_box_loss_and_finite_gradients():
    model = slim()
    images, _ = scenes(2)
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model.losses(images, [empty, empty])
    assert losses["loss_box"].item() == losses["loss_class"].item() == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_an_image_without_objects_adds_nothing_to_another():
    model = slim().eval()
    images, targets = scenes(2, objects=2)  # the last is empty
    both, one = model.losses(images, targets), model.losses(images[:1], targets[:1])
    assert all(torch.allclose(both[name], one[name], rtol=1e-5) for name in one)


def test_five_thousand_objects():
    model = slim()
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5000, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + 1 + torch.rand(5000, 2, generator=generator) * 12], 1)
    target = {"boxes": boxes, "labels": torch.randint(0, 3, (5000,), generator=generator)}
    losses = model.losses([torch.rand(3, 64, 64)], [target])
    sum(losses.values()).backward()
    assert all(value.isfinite() for value in losses.values())


def test_an_image_of_one_pixel():
    target = {"boxes": torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "labels": torch.tensor([0])}
    image = torch.zeros(3, 1, 1, dtype=torch.uint8)
    model = slim()
    assert model([image])[0]["boxes"].max() <= 1
    assert all(value.isfinite() for value in model.losses([image], [target]).values())


def test_default_boxes_count_the_cells_of_any_backbone():
    model = SSD(
        2,
        TorchvisionBackbone("resnet18", out_indices=(2, 3, 4)),
        100,
        extra=[ExtraLayer(64, kernel=4)],
        batch_norm=True,
    )
    assert model.grids == [(13, 13), (7, 7), (4, 4), (2, 2)]
    assert len(model.anchors) == 13 * 13 * 4 + 7 * 7 * 6 + 4 * 4 * 4 + 2 * 2 * 4
    logits, deltas = model.predict(torch.rand(1, 3, 100, 100))
    assert logits.shape == (1, len(model.anchors), 3)
    assert deltas.shape == (1, len(model.anchors), 4)
    assert [module for module in model.extra.modules() if isinstance(module, nn.BatchNorm2d)]


def test_predictions_are_in_the_order_of_the_default_boxes():
    # one feature of one cell is 1, everything else is 0, and the heads use only their own cell
    model = slim().eval()
    for heads in (model.class_heads, model.box_heads):
        for head in heads:
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
    cells, per_cell = 8, 6
    maps = [torch.zeros(1, c, *grid) for c, grid in zip((32, 32), model.grids[:2], strict=True)]
    maps[1][0, 0, 2, 3] = 1.0
    model.backbone.forward = lambda pixels: maps
    model.class_heads[1].weight.data[5 * 4 + 3, 0, 1, 1] = 1.0  # box 5 of a cell, class 2
    model.box_heads[1].weight.data[5 * 4 + 1, 0, 1, 1] = 1.0  # its dy
    logits, deltas = model.predict(torch.rand(1, 3, 64, 64))
    start = model.grids[0][0] * model.grids[0][1] * 4
    at = start + (2 * cells + 3) * per_cell + 5
    assert logits[0].nonzero().tolist() == [[at, 3]]
    assert deltas[0].nonzero().tolist() == [[at, 1]]
    assert ((model.anchors[at, :2] + model.anchors[at, 2:]) / 2).tolist() == [28, 20]  # cell 3, 2 of stride 8


def test_offsets_move_boxes_as_in_the_paper():
    model = slim(score_threshold=0.5, scales=[25, 50, 60, 70, 80]).eval()
    logits = torch.zeros(1, len(model.anchors), 4)
    logits[..., 0] = 20.0
    deltas = torch.zeros(1, len(model.anchors), 4)
    at = (7 * 16 + 7) * 4  # stride 4: center 30, 30; side 16
    logits[0, at] = torch.tensor([0.0, 0.0, 8.0, 0.0])
    deltas[0, at] = torch.tensor([1.0, -2.0, 5 * 0.6931472, 0.0])  # 0.1 and -0.2 sides, twice as wide
    model.predict = lambda pixels: (logits, deltas)
    detected = model([torch.zeros(3, 64, 64)])[0]
    assert detected["labels"].tolist() == [1]
    assert detected["scores"].item() == pytest.approx(0.998995, abs=1e-5)  # e^8 / (e^8 + 3)
    assert torch.allclose(detected["boxes"], torch.tensor([[31.6 - 16, 26.8 - 8, 31.6 + 16, 26.8 + 8]]), atol=1e-4)


def mirrored_net(model):
    """The network whose output for a mirrored image is the mirrored output of ``model``."""
    other = copy.deepcopy(model)
    for module in other.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = module.weight.data.flip(3)
    for head in other.box_heads:
        for part in (head.weight, head.bias):
            part.data[0::4] *= -1  # dx
    return other


def test_mirrored_images_give_mirrored_detections():
    # 272 pixels: maps of 34, 17, 9, 5, 3 and 1 cells, on which strides and padding are symmetric
    torch.manual_seed(0)
    backbone = SSDVGG16(width=0.125, hidden=32)
    extra = [ExtraLayer(32), ExtraLayer(32), ExtraLayer(32, stride=1, padding=0), ExtraLayer(32, stride=1, padding=0)]
    model = SSD(3, backbone, 272, extra, l2_norm=20.0, score_threshold=0.3, max_detections=40).eval()
    for head in (*model.class_heads, *model.box_heads):
        head.weight.data *= 3
    image = torch.rand(3, 272, 272)
    one, other = model([image])[0], mirrored_net(model)([image.flip(2)])[0]
    assert len(one["scores"]) == 40
    assert torch.allclose(one["scores"], other["scores"], atol=1e-5)
    boxes = other["boxes"]
    back = torch.stack([272 - boxes[:, 2], boxes[:, 1], 272 - boxes[:, 0], boxes[:, 3]], 1)
    assert torch.allclose(one["boxes"], back, atol=1e-2)
    assert torch.equal(one["labels"], other["labels"])
    target = {"boxes": torch.tensor([[20.0, 30.0, 90.0, 200.0]]), "labels": torch.tensor([1])}
    flipped = {"boxes": torch.tensor([[182.0, 30.0, 252.0, 200.0]]), "labels": torch.tensor([1])}
    ours, theirs = model.losses([image], [target]), mirrored_net(model).losses([image.flip(2)], [flipped])
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4) for name in ours)
    assert ours["loss_box"] > 0


def test_l2_norm():
    x = torch.tensor([3.0, 4.0]).reshape(1, 2, 1, 1)
    norm = L2Norm(2, 20.0)
    assert torch.allclose(norm(x).flatten(), torch.tensor([12.0, 16.0]))
    norm.weight.data[1] = 5.0
    assert torch.allclose(norm(x * 7).flatten(), torch.tensor([12.0, 4.0]))
    assert norm(torch.zeros(1, 2, 1, 1)).abs().sum() == 0
    assert slim_ssd300().norm.weight.ndim == 3  # like weights, for solvers that treat biases differently


def test_eight_images_are_overfitted():
    model = slim(batch_norm=True)
    images, targets = scenes(8)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    overfit(model, images, targets, optimizer, steps=150, max_norm=10.0)
    assert map50(model.eval()(images), targets, 3) >= 0.95


def test_weights_of_another_ssd(tmp_path):
    torch.manual_seed(1)
    source = slim_ssd300()
    path = tmp_path / "ssd.pt"
    torch.save({"state_dict": {f"model.{name}": value for name, value in source.state_dict().items()}}, path)
    torch.manual_seed(2)
    same = SSD300(3, SSDVGG16(width=0.125, hidden=32), weights=str(path)).eval()
    image = torch.rand(3, 100, 120)
    assert torch.equal(same([image])[0]["scores"], source.eval()([image])[0]["scores"])
    other = SSD300(5, SSDVGG16(width=0.125, hidden=32), weights=str(path))
    assert torch.equal(other.box_heads[0].weight, source.box_heads[0].weight)
    assert sorted(other.load_report.mismatched) == sorted(
        f"class_heads.{i}.{part}" for i in range(6) for part in ("weight", "bias")
    )
    with pytest.raises(ValueError, match="weights.*does not match this SSD"):
        SSD300(3, SSDVGG16(width=0.125, hidden=64), weights=str(path))
    with pytest.raises(FileNotFoundError, match="nowhere.pt"):
        SSD300(3, SSDVGG16(width=0.125, hidden=32), weights="nowhere.pt")
    with skip_pretrained():
        SSD300(3, SSDVGG16(width=0.125, hidden=32), weights="nowhere.pt")


def test_settings_of_matching_mining_and_detection_have_an_effect():
    images, targets = scenes(3)
    default = slim().losses(images, targets)
    for changes, name in (({"match_iou": 0.95}, "loss_box"), ({"negatives": 0.0}, "loss_class")):
        changed = slim(**changes).losses(images, targets)
        assert abs(changed[name] - default[name]) > 1e-3 * default[name]
    every = {"score_threshold": 0.0, "nms_iou": 1.0, "max_detections": 1000}
    assert len(slim(candidates=4, **every).eval()(images)[0]["scores"]) == 3 * 4  # per class
    for wrong in ({"score_threshold": 5}, {"nms_iou": -0.1}, {"max_detections": 0}, {"candidates": 0}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"^{name}: .*got {wrong[name]}"):
            slim(**wrong)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"extra\[1\].*got \[1, 1\] cells for image_size=16"):
        SSD(
            2,
            PlainCNN((8, 8, 8), depth=1),
            16,
            extra=[ExtraLayer(8), ExtraLayer(8, padding=0)],
            scales=range(10, 70, 10),
        )
    for wrong in ({"scales": [10, 20]}, {"steps": [3, 5]}, {"aspects": [[2.0], [2.0]]}):
        count = 5 if "scales" in wrong else 4
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: .*{count} for 4 feature maps, got 2"):
            slim(**wrong)
    with pytest.raises(ValueError, match="boxes.*'coco', got 'kitti'"):
        SSD300(3, SSDVGG16(width=0.125, hidden=32), boxes="kitti")
    with pytest.raises(ValueError, match="boxes.*'coco', got 'kitti'"):
        SSD512(3, SSDVGG16(width=0.125, hidden=32), boxes="kitti")


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(3)
    model = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=4)
    for head in (model.head.classification_head, model.head.regression_head):
        for layer in head.module_list:
            layer.weight.data *= 0.15  # otherwise scores are close to 1 and their order depends on rounding
    return model


@pytest.fixture(scope="module")
def ours(theirs):
    model = SSD300.from_torchvision(None, num_classes=3)
    report = model.load({f"model.{name}": value for name, value in theirs.state_dict().items()}, "torchvision's")
    assert report.complete
    return model


def test_detections_equal_torchvisions(theirs, ours):
    torch.manual_seed(0)
    images = [torch.rand(3, 300, 300), torch.rand(3, 180, 240), torch.rand(3, 351, 77)]
    with torch.no_grad():
        expected = theirs.eval()(images)
    for detected, reference in zip(ours.eval()(images), expected, strict=True):
        assert len(reference["scores"]) == 200
        assert torch.allclose(detected["scores"], reference["scores"], rtol=1e-5, atol=0)
        # the same boxes of the same classes; nearly equal scores may be in another order
        same = (detected["boxes"][:, None] - reference["boxes"]).abs().amax(2) < 300 * 1e-5
        same &= (detected["labels"][:, None] + 1 == reference["labels"]) & (
            (detected["scores"][:, None] - reference["scores"]).abs() < 1e-5
        )
        assert torch.equal(same.sum(0), torch.ones(200, dtype=torch.int64))
        assert torch.equal(same.sum(1), torch.ones(200, dtype=torch.int64))


def test_losses_equal_torchvisions(theirs, ours):
    torch.manual_seed(0)
    images = [torch.rand(3, 300, 300), torch.rand(3, 180, 240), torch.rand(3, 351, 77)]
    boxes = [[[10.0, 20, 150, 170], [200, 100, 290, 290]], [[30.0, 40, 130, 90]], []]
    targets = [{"boxes": torch.tensor(each).reshape(-1, 4), "labels": torch.arange(len(each))} for each in boxes]
    shifted = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
    with torch.no_grad():
        expected = theirs.train()(images, shifted)
        losses = ours.train().losses(images, targets)
    assert losses["loss_box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)
    assert losses["loss_class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)


def test_unknown_torchvision_weights_are_rejected():
    with pytest.raises(ValueError, match="did you mean 'COCO_V1'"):
        SSD300.from_torchvision("COCO_V2")
    with skip_pretrained():
        assert SSD300.from_torchvision("COCO_V1").num_classes == 90
