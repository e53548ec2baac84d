"""YOLO and Fast YOLO: layers and sizes of the paper, detections, losses, and overfitting."""

from typing import Any

import pytest
import torch
from torch import nn

from striate.datamodules import DigitScenes
from striate.models import Classifier, PlainCNN, YOLOv1, YOLOv1Backbone, skip_pretrained
from striate.models.backbones.base import measure, trace_shapes
from striate.models.detection import YOLOHead

from ....helpers.detector_inputs import map50, target

YOLO = [(7, 3, 64), (3, 64, 192), (1, 192, 128), (3, 128, 256), (1, 256, 256), (3, 256, 512)]
YOLO += [(1, 512, 256), (3, 256, 512)] * 4 + [(1, 512, 512), (3, 512, 1024)] + [(1, 1024, 512), (3, 512, 1024)] * 2
YOLO += [(3, 1024, 1024)] * 4
FAST = [(3, 3, 16), (3, 16, 32), (3, 32, 64), (3, 64, 128), (3, 128, 256), (3, 256, 512)]
FAST += [(3, 512, 1024), (3, 1024, 1024), (3, 1024, 1024)]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def by_hand(convolutions: list[tuple[int, int, int]]) -> int:
    return sum(k * k * a * b + b for k, a, b in convolutions)


def images(number: int = 2, size: int = 32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (number, 3, size, size), dtype=torch.uint8, generator=generator)


def slim(num_classes: int = 3, **changes: Any) -> YOLOv1:
    settings = {"image_size": 32, "grid_size": 4, "convs": (8,), "hidden": (), "batch_norm": True} | changes
    return YOLOv1(num_classes, settings.pop("backbone", None) or PlainCNN((4, 8, 8)), **settings)


@pytest.fixture(scope="module")
def paper() -> YOLOv1:
    with torch.device("meta"):
        return YOLOv1()


@pytest.fixture(scope="module")
def fast() -> YOLOv1:
    with torch.device("meta"):
        return YOLOv1(backbone=YOLOv1Backbone("fast"), convs=(1024, 1024), bottleneck=256)


def test_layers_and_parameters_of_the_paper(paper):
    found = [m for m in paper.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.in_channels, m.out_channels) for m in found] == YOLO
    assert [i for i, m in enumerate(found) if m.stride == (2, 2)] == [0, 21]  # the second of the four new ones
    assert len([m for m in paper.backbone.modules() if isinstance(m, nn.Conv2d)]) == 20
    assert [(m.in_features, m.out_features) for m in paper.modules() if isinstance(m, nn.Linear)] == [
        (7 * 7 * 1024, 4096),
        (4096, 7 * 7 * 30),
    ]
    fully = 7 * 7 * 1024 * 4096 + 4096 + 4096 * 1470 + 1470
    assert count(paper) == by_hand(YOLO) + fully == 271_703_550
    assert count(paper.backbone) == by_hand(YOLO[:20])
    assert {m.p for m in paper.modules() if isinstance(m, nn.Dropout)} == {0.5}
    leaks = [m.negative_slope for m in paper.modules() if isinstance(m, nn.LeakyReLU)]
    assert leaks == [0.1] * (24 + 1)  # the last layer is linear
    assert not [m for m in paper.modules() if isinstance(m, nn.BatchNorm2d)]


def test_layers_and_parameters_of_fast_yolo(fast):
    found = [m for m in fast.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.kernel_size[0], m.in_channels, m.out_channels) for m in found] == FAST
    assert {m.stride for m in found} == {(1, 1)}
    fully = (49 * 1024 * 256 + 256) + (256 * 4096 + 4096) + (4096 * 1470 + 1470)
    assert count(fast) == by_hand(FAST) + fully
    # the classifier of its pretraining is 28 MB as its authors count, with 1,000 outputs (pjreddie.com/darknet)
    assert (count(fast.backbone) + 1024 * 1000 + 1000) * 4 / 2**20 == pytest.approx(28, abs=0.5)
    assert len([m for m in fast.modules() if isinstance(m, nn.LeakyReLU)]) == 9 + 1  # none behind the bottleneck


def test_map_sizes(paper, fast):
    sides = [shape[-1] for shape in trace_shapes(paper.backbone.stages, 448)]
    assert sides == [224, 112, 56, 28, 14]
    assert [shape[-1] for shape in trace_shapes(paper.backbone.stages, 224)] == [112, 56, 28, 14, 7]
    assert trace_shapes([*paper.backbone.stages, paper.head.convs], 448)[-1] == (1, 1024, 7, 7)
    assert [shape[-1] for shape in trace_shapes(fast.backbone.stages, 448)] == [448, 224, 112, 56, 28, 14, 7]
    for model in (paper, fast):
        assert measure(model.backbone.stages) == (model.backbone.channels, model.backbone.strides)
    assert paper.backbone.strides == (2, 4, 8, 16, 32)
    assert fast.backbone.strides == (1, 2, 4, 8, 16, 32, 64)


def test_pixels_are_scaled_to_minus_one_to_one():
    normalize = YOLOv1Backbone("fast", width=0.5).normalize
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    assert normalize(ends)[:, 0, 0, 0].tolist() == pytest.approx([-1, 1])


def test_output_has_the_grids_shape_and_is_linear():
    torch.manual_seed(0)
    model = slim(backbone=YOLOv1Backbone("fast", 0.5), image_size=64, grid_size=3, convs=(), hidden=(16,)).eval()
    pixels = images(2, 64)
    assert model.grid(pixels).shape == (2, 3, 3, 13)
    # value n of cell (r, c) is output r * 3 * 13 + c * 13 + n
    last = model.head.fc(model.backbone(pixels)[-1].flatten(1))
    assert isinstance(model.head.out, nn.Linear)
    row = (1 * 3 + 2) * 13 + 5
    expected = last @ model.head.out.weight[row] + model.head.out.bias[row]
    assert torch.allclose(model.grid(pixels)[:, 1, 2, 5], expected, atol=1e-5)
    with torch.no_grad():
        model.head.out.bias.fill_(-3.0)
    assert (model.grid(pixels) < -2).all()


def test_the_convolutional_head_uses_one_cell():
    model = slim(convs=()).eval()
    pixels = images(1)
    assert model.grid(pixels).shape == (1, 4, 4, 13)
    assert isinstance(model.head.out, nn.Conv2d)
    maps = model.backbone(pixels)[-1]
    expected = maps[0, :, 1, 3] @ model.head.out.weight[7, :, 0, 0] + model.head.out.bias[7]
    assert torch.allclose(model.grid(pixels)[0, 1, 3, 7], expected, atol=1e-5)


def test_initial_boxes_are_at_the_centers_of_their_cells():
    model = slim().eval()
    boxes = model.grid(images(1))[..., :8]
    assert (boxes - 0.5).abs().max() < 0.2


def test_the_last_map_is_halved_if_that_makes_the_grid():
    assert slim(grid_size=2, convs=(8, 8)).grid(images(2)).shape[:3] == (2, 2, 2)
    halves = [m.stride[0] for m in YOLOHead(4, 6, 3, 5, (8, 8, 8)).convs.modules() if isinstance(m, nn.Conv2d)]
    assert halves == [1, 2, 1]
    with pytest.raises(ValueError, match="grid_size.*last map, 4,.*got 3"):
        slim(grid_size=3)
    assert slim(grid_size=3, hidden=(8,)).grid(images(2)).shape[1:3] == (3, 3)


class FixedGrid(YOLOv1):
    """Returns given outputs for any image."""

    def grid(self, pixels):
        return self.outputs


def fixed_grid(outputs: torch.Tensor, **changes: Any) -> FixedGrid:
    model = FixedGrid(2, PlainCNN((4, 8, 8)), image_size=32, grid_size=2, convs=(8,), hidden=(8,), **changes)
    model.outputs = outputs
    return model


def grid_of(cells: dict[tuple[int, int], tuple[list[list[float]], list[float], list[float]]]) -> torch.Tensor:
    outputs = torch.zeros(1, 2, 2, 12)
    for (row, column), (boxes, confidence, classes) in cells.items():
        outputs[0, row, column] = torch.tensor([*boxes[0], *boxes[1], *confidence, *classes])
    return outputs


def test_boxes_and_scores_of_a_cell_in_pixels_of_the_image():
    # center at (1.5, 0.25) cells of 2; a quarter of the width, 0.09 of the height
    box = [0.5, 0.25, 0.5, -0.3]
    outputs = grid_of({(0, 1): ([box, [0.5] * 4], [0.8, 0.0], [0.5, 0.9])})
    (detected,) = fixed_grid(outputs)([torch.zeros(3, 50, 200)])  # 200 wide, 50 high
    center, sides = torch.tensor([0.75 * 200, 0.125 * 50]), torch.tensor([0.25 * 200, 0.09 * 50])
    expected = torch.cat([center - sides / 2, center + sides / 2])[None]
    assert torch.allclose(detected["boxes"], expected.expand(2, 4), atol=1e-4)
    assert detected["scores"].tolist() == pytest.approx([0.72, 0.4])
    assert detected["labels"].tolist() == [1, 0]


def test_low_scores_and_duplicates_are_dropped():
    one, two, far = [0.5, 0.5, 0.7, 0.7], [0.5, 0.5, 0.68, 0.7], [0.5, 0.5, 0.3, 0.3]
    outputs = grid_of({(0, 0): ([one, two], [0.6, 0.9], [1.0, 0.0]), (1, 1): ([far, far], [0.3, 0.01], [0.5, 0.0])})
    assert fixed_grid(outputs)(images(1))[0]["scores"].tolist() == pytest.approx([0.9, 0.15])
    assert fixed_grid(outputs, score_threshold=0.2)(images(1))[0]["scores"].tolist() == pytest.approx([0.9])
    assert fixed_grid(outputs, nms_iou=0.99)(images(1))[0]["scores"].tolist() == pytest.approx([0.9, 0.6, 0.15])
    assert fixed_grid(outputs, nms_iou=0.99, max_detections=2)(images(1))[0]["scores"].tolist() == pytest.approx(
        [0.9, 0.6]
    )


def test_boxes_are_clipped_after_suppression_as_in_darknet():
    # of image 32, twice as wide as it is: x from -16 to 16 and from -2 to 30; clipped they would have an IoU of 16 / 30
    one, two = [0.0, 0.5, 1.0, 0.5], [0.875, 0.5, 1.0, 0.5]
    outputs = grid_of({(0, 0): ([one, two], [0.9, 0.6], [1.0, 0.0])})
    (detected,) = fixed_grid(outputs, nms_iou=0.5)(images(1))
    assert detected["scores"].tolist() == pytest.approx([0.9, 0.6])  # IoU 18 / 46 before clipping
    assert detected["boxes"][:, 0].tolist() == [0, 0] and detected["boxes"][:, 2].tolist() == pytest.approx([16, 30])
    # a box outside the image suppresses too, and is dropped only then
    outputs = grid_of({(0, 0): ([[-1.2, 0.5, 1.0, 0.5], [-0.9, 0.5, 1.0, 0.5]], [0.9, 0.6], [1.0, 0.0])})
    assert len(fixed_grid(outputs, nms_iou=0.5)(images(1))[0]["scores"]) == 0
    assert len(fixed_grid(outputs, nms_iou=0.9)(images(1))[0]["scores"]) == 1


def test_there_is_no_limit_of_detections_by_default():
    outputs = torch.zeros(1, 7, 7, 10 + 20)
    outputs[..., :8] = torch.tensor([0.5, 0.5, 0.1, 0.1, 0.5, 0.5, 0.3, 0.3])
    outputs[..., 8:10] = 0.5
    outputs[..., 10:] = torch.linspace(0.1, 0.9, 20)
    model = FixedGrid(20, PlainCNN((4, 8, 8)), image_size=32, grid_size=7, convs=(8,), hidden=(8,))
    model.outputs = outputs
    assert len(model(images(1))[0]["scores"]) == 7 * 7 * 2 * 20
    model.max_detections = 300
    assert len(model(images(1))[0]["scores"]) == 300


def test_two_negative_factors_are_no_detection_and_scores_are_at_most_1():
    box = [0.5, 0.5, 0.5, 0.5]
    outputs = grid_of({(0, 0): ([box, box], [-0.9, 1.4], [-0.9, 1.2])})
    (detected,) = fixed_grid(outputs)(images(1))
    assert detected["scores"].tolist() == [1.0] and detected["labels"].tolist() == [1]


def test_a_box_outside_the_image_is_no_detection():
    outputs = grid_of({(0, 0): ([[-5.0, 0.5, 0.5, 0.5], [0.5, 0.5, 0.0, 0.5]], [0.9, 0.9], [1.0, 0.0])})
    (detected,) = fixed_grid(outputs)(images(1))
    assert len(detected["scores"]) == 0


def test_detections_and_losses_in_either_mode():
    model = slim()
    targets = [target([[2.0, 3.0, 20.0, 30.0]], [1]), target([], [])]
    for mode in (True, False):
        model.train(mode)
        assert [set(detected) for detected in model(images())] == [{"boxes", "scores", "labels"}] * 2
        losses = model.losses(images(), targets)
        assert list(losses) == ["loss_box", "loss_object", "loss_no_object", "loss_class"]
        assert all(loss.ndim == 0 and loss.requires_grad and loss.item() > 0 for loss in losses.values())


def test_targets_follow_the_resized_image():
    # the same scene, twice as wide and half as high, has the same loss
    model = slim().eval()
    pixels = torch.full((3, 32, 32), 90, dtype=torch.uint8)
    stretched = torch.full((3, 16, 64), 90, dtype=torch.uint8)
    one = model.losses([pixels], [target([[4.0, 8.0, 12.0, 24.0]], [2])])
    two = model.losses([stretched], [target([[8.0, 4.0, 24.0, 12.0]], [2])])
    for name in one:
        assert one[name].item() == pytest.approx(two[name].item(), rel=1e-4)
    assert one["loss_box"].item() != pytest.approx(
        model.losses([stretched], [target([[4.0, 8.0, 12.0, 16.0]], [2])])["loss_box"].item(), rel=1e-3
    )


def test_losses_are_the_terms_of_equation_3():
    model = slim(coord_weight=3.0, no_object_weight=0.25).eval()
    targets = [target([[2.0, 3.0, 20.0, 30.0]], [1])]
    batch = model.resize(list(images(1)))
    terms = model.terms(batch, targets)
    losses = model.losses(images(1), targets)
    assert losses["loss_box"].item() == pytest.approx((terms.center + terms.size).item())
    raw = model.grid(images(1))[0]
    others = torch.ones(4, 4, 2, dtype=torch.bool)
    x, y, w, h = 11 / 8, 16.5 / 8, (18 / 32) ** 0.5, (27 / 32) ** 0.5
    cell = raw[2, 1]
    near = min((0, 1), key=lambda j: abs(losses["loss_object"].item() - _object_loss(cell, j)))
    others[2, 1, near] = False
    assert losses["loss_no_object"].item() == pytest.approx(
        0.25 * raw[..., 8:10][others].square().sum().item(), rel=1e-4
    )
    box = cell[4 * near : 4 * near + 4] - torch.tensor([x - 1, y - 2, w, h])
    assert losses["loss_box"].item() == pytest.approx(3 * box.square().sum().item(), rel=1e-4)
    one_hot = torch.tensor([0.0, 1.0, 0.0])
    assert losses["loss_class"].item() == pytest.approx((cell[10:] - one_hot).square().sum().item(), rel=1e-4)


def test_two_objects_in_a_cell_the_first_in_evaluation_either_in_training():
    model = slim()
    first, second = [2.0, 2.0, 6.0, 6.0], [1.0, 1.0, 7.0, 7.0]  # both in the first cell of 8 pixels
    both, alone = target([first, second], [0, 2]), target([first], [0])

    def losses(one: dict[str, torch.Tensor]) -> list[float]:
        return [round(loss.item(), 6) for loss in model.losses(images(1), [one]).values()]

    model.eval()
    assert {tuple(losses(both)) for _ in range(20)} == {tuple(losses(alone))}
    model.train()
    assert len({tuple(losses(both)) for _ in range(20)}) == 2


def _object_loss(cell: torch.Tensor, predictor: int) -> float:
    """Loss of the confidence if this predictor is responsible for the box 2, 3, 20, 30 of 32 pixels in cell (2, 1)."""
    x, y, w, h = cell[4 * predictor : 4 * predictor + 4].tolist()
    a = [(x + 1) * 8 - w * w * 16, (y + 2) * 8 - h * h * 16, (x + 1) * 8 + w * w * 16, (y + 2) * 8 + h * h * 16]
    intersection = max(0, min(a[2], 20) - max(a[0], 2)) * max(0, min(a[3], 30) - max(a[1], 3))
    iou = intersection / ((a[2] - a[0]) * (a[3] - a[1]) + 18 * 27 - intersection)
    return (cell[8 + predictor].item() - iou) ** 2


def test_images_without_objects():
    model = slim()
    losses = model.losses(images(), [target([], []), target([], [])])
    assert [losses[name].item() for name in ("loss_box", "loss_object", "loss_class")] == [0, 0, 0]
    assert losses["loss_no_object"].item() > 0
    sum(losses.values()).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    assert any(parameter.grad.any() for parameter in model.backbone.parameters())


def test_five_thousand_objects_and_tiny_images():
    model = slim()
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(5000, 2, 2, generator=generator).sort(1).values * 24
    many = {"boxes": torch.cat([corners[:, 0], corners[:, 1] + 1], 1), "labels": torch.arange(5000) % 3}
    losses = model.losses([images(1)[0], torch.zeros(3, 2, 3)], [many, target([[0.0, 0.0, 3.0, 2.0]], [0])])
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    boxes = model([torch.zeros(3, 1, 2)])[0]["boxes"]
    assert (boxes[:, 2] <= 2).all() and (boxes[:, 3] <= 1).all()


def test_the_loss_is_computed_in_full_precision():
    model = slim().eval()
    targets = [target([[2.0, 3.0, 20.0, 30.0]], [1])]
    plain = model.losses(images(1), targets)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model.losses(images(1), targets)
    for name, loss in mixed.items():
        assert loss.dtype == torch.float32
        assert loss.item() == pytest.approx(plain[name].item(), rel=0.05, abs=0.01)


def test_the_backbone_of_a_pretrained_classifier_is_loaded(tmp_path):
    torch.manual_seed(0)
    classifier = Classifier(YOLOv1Backbone("fast", 0.5), 5)
    assert classifier(images(2, 64)).shape == (2, 5)
    torch.save({"state_dict": {f"model.{k}": v for k, v in classifier.state_dict().items()}}, tmp_path / "w.ckpt")
    path = str(tmp_path / "w.ckpt")
    backbone = YOLOv1Backbone("fast", 0.5, weights=path)
    model = YOLOv1(3, backbone, image_size=128, grid_size=2, convs=(8,), hidden=(8,))
    for ours, theirs in zip(model.backbone.parameters(), classifier.backbone.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    with skip_pretrained():
        fresh = YOLOv1Backbone("fast", 0.5, weights="nowhere.ckpt")
    assert fresh.load_report is None
    with pytest.raises(FileNotFoundError, match="nowhere"):
        YOLOv1(3, weights="nowhere.ckpt")


def test_any_backbone():
    model = YOLOv1(3, "resnet18", image_size=64, grid_size=2, convs=(16,), hidden=())
    assert model.grid(images(1, 64)).shape == (1, 2, 2, 13)
    assert model.backbone.frozen_stages == 0
    frozen = YOLOv1Backbone("fast", 0.5, frozen_stages=2)
    assert [p.requires_grad for p in frozen.parameters()] == [False] * 4 + [True] * 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid_size": 0}, "grid_size.*got 0"),
        ({"boxes_per_cell": 0}, "boxes_per_cell.*got 0"),
        ({"image_size": 0}, "image_size.*got 0"),
        ({"num_classes": 0}, "num_classes.*got 0"),
        ({"convs": (8, 0)}, r"convs\[1\].*got 0"),
        ({"hidden": (0,)}, r"hidden\[0\].*got 0"),
        ({"bottleneck": 4}, "bottleneck: has no effect.*got 4"),
        ({"bottleneck": 0, "hidden": (4,)}, "bottleneck.*got 0"),
        ({"dropout": 1.0}, "dropout.*got 1.0"),
        ({"coord_weight": -5}, "^coord_weight: must be .*got -5"),
        ({"no_object_weight": -5}, "^no_object_weight: must be .*got -5"),
        ({"weights": "x.ckpt"}, "weights: has no effect.*got 'x.ckpt'"),
    ],
)
def test_arguments_out_of_range(changes, message):
    with pytest.raises(ValueError, match=message):
        slim(**changes)


def test_bad_backbones():
    with pytest.raises(ValueError, match="variant.*got 'fst'; did you mean 'fast'"):
        YOLOv1Backbone("fst")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="width.*16 channels.*got 0.1"):
        YOLOv1Backbone("fast", 0.1)
    with_norm = YOLOv1Backbone("fast", 0.5, batch_norm=True, freeze_norm=True)
    assert len([m for m in with_norm.modules() if isinstance(m, nn.BatchNorm2d)]) == 7
    assert all(m.bias is None for m in with_norm.modules() if isinstance(m, nn.Conv2d))


def test_eight_images_are_overfitted():
    torch.manual_seed(0)
    data = DigitScenes("detection", 48, train_size=8, val_size=1, test_size=1, scale=(0.3, 0.5), max_digits=2)
    samples = [data.make_source("train")[i] for i in range(8)]
    pixels = [torch.from_numpy(s["image"]).permute(2, 0, 1) for s in samples]
    targets = [{k: torch.as_tensor(s[k]) for k in ("boxes", "labels")} for s in samples]
    model = YOLOv1(10, PlainCNN((16, 32, 64)), image_size=48, grid_size=6, convs=(64,), hidden=(), batch_norm=True)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    model.train()
    for _ in range(120):
        optimizer.zero_grad()
        sum(model.losses(pixels, targets).values()).backward()
        optimizer.step()
    model.eval()
    assert map50(model(pixels), targets, 10) >= 0.95
