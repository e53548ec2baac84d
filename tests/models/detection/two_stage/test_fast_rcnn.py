"""Tests of Fast R-CNN: sampling, losses, offsets and the compressed model by hand; no proposals; learning."""

import math

import pytest
import torch
from torch import nn

from striate.models import (
    FastRCNN,
    FastRCNNSettings,
    PaddedAlexNetBackbone,
    PlainCNN,
    ResizeAndPad,
)
from striate.models.detection import truncated_svd
from striate.models.detection.two_stage.roi_head import sample_regions

from ....helpers.detector_inputs import map50, overfit, random_images, target
from ....helpers.networks import quick_initialization


def tiny(num_classes=3, **options):
    torch.manual_seed(0)
    options = {"resize": ResizeAndPad(size_divisible=4), "pool_size": 3, "hidden": 32, "dropout": 0.0, **options}
    return FastRCNN(num_classes, PlainCNN((8, 16)), **options)


def with_proposals(boxes, labels, proposals):
    return {**target(boxes, labels), "proposals": torch.tensor(proposals, dtype=torch.float32).reshape(-1, 4)}


def test_defaults_are_the_papers():
    settings = FastRCNNSettings()
    assert (settings.samples, settings.positive_fraction, settings.foreground_iou) == (64, 0.25, 0.5)
    assert settings.background_iou == (0.1, 0.5) and settings.nms_iou == 0.3 and settings.beta == 1
    with quick_initialization():
        model = FastRCNN(20)
    assert model.resize.min_size == (600,) and model.resize.max_size == 1000
    assert model.head.pool.output_size == 7 and model.head.pool.spatial_scale == 1 / 16
    assert model.head.body.fc6.weight.shape == (4096, 25088) and model.proposer.max_proposals == 2000
    trained = {name.split(".")[0] for name, p in model.backbone.named_parameters() if p.requires_grad}
    assert trained
    frozen = [p for p in model.backbone.parameters() if not p.requires_grad]
    assert [tuple(p.shape[:2]) for p in frozen if p.ndim == 4] == [(64, 3), (64, 64), (128, 64), (128, 128)]


def test_sampling_by_hand():
    """Of 8 regions at most 2 objects; background overlaps by 0.1 up to 0.5; what overlaps less is not drawn."""
    wide = [[0, 0, 10, side] for side in (10, 9, 8, 7, 6, 5)]  # IoU 1, .9, .8, .7, .6, .5 with the object
    between = [[0, 0, 10, side] for side in (4, 3, 2, 1)]  # .4, .3, .2, .1
    far = [[0, 0, 10, 0.5], [20, 20, 30, 30]]
    one = with_proposals([[0, 0, 10, 10]], [2], wide + between + far)
    (regions,) = sample_regions([one["proposals"]], [one], 3, FastRCNNSettings(samples=8))
    assert regions.labels.tolist() == [2, 2, 3, 3, 3, 3] and regions.objects.tolist() == [0, 0, -1, -1, -1, -1]
    assert sorted(regions.boxes[2:, 3].tolist()) == [1, 2, 3, 4]
    assert (regions.boxes[:2, 3] >= 5).all()


def test_losses_by_hand():
    """Two regions, an object and background: cross-entropy, and smooth L1 of the normalized offsets of its class."""
    model = tiny()
    head = model.head
    nn.init.zeros_(head.score.weight)
    nn.init.zeros_(head.box.weight)
    with torch.no_grad():
        head.score.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 2.0]))
        head.box.bias.zero_()
        head.box.bias[4] = 0.5  # x of class 1
    mean, std = torch.zeros(3, 4), torch.ones(3, 4)
    mean[1], std[1] = torch.tensor([0.1, 0.0, 0.0, 0.0]), torch.tensor([0.1, 1.0, 1.0, 0.5])
    head.set_box_statistics(mean, std)
    # the proposal's centre is 5, 5; the object's 7, 5; its height is 8
    one = with_proposals([[2, 1, 12, 9]], [1], [[0, 0, 10, 10], [2, 1, 7, 3.5]])
    model.head.settings = FastRCNNSettings(append_ground_truth=False)
    losses = model.losses(random_images((16, 16)), [one])
    log_sum = math.log(math.e + 1 + 1 + math.e**2)
    assert losses["loss_class"].item() == pytest.approx(((log_sum - 0) + (log_sum - 2)) / 2, abs=1e-5)
    # targets: (0.2 - 0.1) / 0.1 = 1 and log(0.8) / 0.5; predicted 0.5 and 0
    height = abs(math.log(0.8) / 0.5)
    assert losses["loss_box"].item() == pytest.approx((0.5 * 0.5**2 + 0.5 * height**2) / 2, abs=1e-5)


def test_offsets_are_measured_per_class_on_the_proposals_of_objects():
    model = tiny()
    initial = model.head.box_mean.clone(), model.head.box_std.clone()
    # class 1: offsets in x of 0.1 and 0.3; the third proposal is background, the fourth belongs to class 2, alone
    targets = [
        with_proposals([[0, 0, 10, 10]], [1], [[-1, 0, 9, 10], [40, 40, 50, 50]]),
        with_proposals([[0, 0, 10, 10], [40, 0, 50, 10]], [1, 2], [[-3, 0, 7, 10], [40, 0, 50, 9]]),
    ]
    assert not model.offsets_measured
    model.measure_offsets(targets)
    assert model.offsets_measured
    # y, width and height of class 1 do not vary, so its standard deviation is 0 there
    torch.testing.assert_close(model.head.box_mean, initial[0])
    targets.append(with_proposals([[0, 0, 10, 10]], [1], [[0, -2, 10, 8], [1, 1, 9, 8]]))
    model.measure_offsets(targets)
    offsets = torch.tensor(
        [
            [0.1, 0, 0, 0],
            [0.3, 0, 0, 0],
            [0, 0.2, 0, 0],
            [0, 0.5 / 7, math.log(10 / 8), math.log(10 / 7)],
        ]
    )
    torch.testing.assert_close(model.head.box_mean[1], offsets.mean(0))
    torch.testing.assert_close(model.head.box_std[1], offsets.std(0, unbiased=False))
    torch.testing.assert_close(model.head.box_mean[[0, 2]], initial[0][[0, 2]])
    torch.testing.assert_close(model.head.box_std[[0, 2]], initial[1][[0, 2]])
    other = tiny()
    other.load_state_dict(model.state_dict())
    assert other.offsets_measured and torch.equal(other.head.box_std, model.head.box_std)


def test_no_proposals_in_training_and_detection():
    model = tiny().train()
    images = random_images((16, 20), (12, 12))
    losses = model.losses(images, [with_proposals([], [], []), with_proposals([], [], [])])
    assert losses["loss_class"] == 0 and losses["loss_box"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    truth = with_proposals([[1, 1, 9, 9]], [0], [])
    assert model.losses(images, [truth, with_proposals([], [], [])])["loss_class"] > 0  # on the ground truth
    assert [len(one["boxes"]) for one in model(images, [torch.zeros(0, 4), torch.zeros(0, 4)])] == [0, 0]


@pytest.mark.parametrize("empty", [0, 1])
def test_an_image_without_proposals_does_not_change_the_other(empty):
    model = tiny(roi={"score_threshold": 0.0})
    image = random_images((16, 20))[0]
    proposals = torch.tensor([[0.0, 0.0, 12.0, 9.0], [4.0, 2.0, 20.0, 16.0]])
    (alone,) = model([image], [proposals])
    both = [proposals, proposals[:0]][:: 1 if empty else -1]
    found = model([image, image], both)
    torch.testing.assert_close(found[1 - empty], alone)
    assert len(found[empty]["boxes"]) == 0 and len(alone["boxes"])


def test_full_rank_equals_the_original():
    model = tiny(roi={"score_threshold": 0.0}).eval()
    compressed = model.compressed(fc6=32, fc7=32)
    image = random_images((24, 32))
    proposals = [torch.tensor([[0.0, 0.0, 12.0, 9.0], [4.0, 2.0, 30.0, 20.0]])]
    maps = model.backbone(model.resize(image).pixels)[-1]
    for one, other in zip(model.head(maps, proposals), compressed.head(maps, proposals), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)
    torch.testing.assert_close(compressed(image, proposals), model(image, proposals), atol=1e-4, rtol=0)
    assert isinstance(model.head.body.fc6, nn.Linear)  # the original is as before


def test_a_truncated_layer_is_the_best_of_its_rank():
    torch.manual_seed(0)
    layer = nn.Linear(12, 9)
    first, second = truncated_svd(layer, 4)
    assert first.bias is None and first.weight.shape == (4, 12) and second.weight.shape == (9, 4)
    error = torch.linalg.matrix_norm(second.weight @ first.weight - layer.weight)
    dropped = torch.linalg.svdvals(layer.weight)[4:]
    torch.testing.assert_close(error, dropped.square().sum().sqrt(), atol=1e-5, rtol=0)
    torch.testing.assert_close(second.bias, layer.bias)


def test_wrong_ranks():
    model = tiny()
    with pytest.raises(ValueError, match="fc7: rank must be in 1 … 32, got 256"):
        model.compressed(fc6=8)
    with pytest.raises(TypeError, match="fc6: must be a linear layer, got Sequential; compress the original"):
        model.compressed(8, 8).compressed(4, 4)


def test_padded_alexnet_is_centered_on_multiples_of_16():
    """Each layer is padded by half its kernel: a bright pixel at 16 i changes cell i most, on either side alike."""
    backbone = PaddedAlexNetBackbone(width=0.1)
    assert backbone.strides == (16,)
    sides = [backbone(torch.zeros(1, 3, side, side))[-1].shape[-1] for side in (33, 65, 129)]
    assert sides == [3, 5, 9]
    shapes = {name: tensor.shape for name, tensor in backbone.state_dict().items()}
    from striate.models import AlexNetBackbone

    assert shapes == {name: t.shape for name, t in AlexNetBackbone(0.1, out_indices=(2,)).state_dict().items()}


def test_it_learns_from_proposals():
    model = tiny(2, hidden=64, roi={"samples": 32, "background_iou": (0.0, 0.5)})
    images = [torch.full((3, 32, 32), 30, dtype=torch.uint8) for _ in range(2)]
    truths = [([[4, 4, 16, 16]], [0]), ([[14, 10, 28, 24]], [1])]
    targets = []
    generator = torch.Generator().manual_seed(0)
    for image, (boxes, labels) in zip(images, truths, strict=True):
        x1, y1, x2, y2 = boxes[0]
        image[labels[0], y1:y2, x1:x2] = 220
        near = torch.tensor(boxes[0]) + torch.randint(-2, 3, (16, 4), generator=generator)
        corners = torch.randint(0, 20, (32, 2), generator=generator)
        proposals = torch.cat([near, torch.cat([corners, corners + 10], 1)]).clamp(0, 32).float()
        targets.append({**target(boxes, labels), "proposals": proposals})
    model.measure_offsets(targets)
    overfit(model, images, targets, torch.optim.AdamW(model.parameters(), 2e-3), steps=60)
    assert map50(model(images, [one["proposals"] for one in targets]), targets, 2) == pytest.approx(1.0)
