"""The parts of Faster R-CNN: anchors, proposals, both samplers, and each of the four losses by hand."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus
from torchvision.ops import RoIPool, box_iou

from striate.models.detection import (
    RPN,
    RoIFullyConnected,
    RoIHead,
    RoIOutput,
    RoISample,
    RoISettings,
    RPNOutput,
    RPNSettings,
    cell_anchors,
    grid_anchors,
)
from striate.models.ops.anchors import inside

# py-faster-rcnn's own table (lib/rpn/generate_anchors.py, in its comment), whose x2 and y2 are the last pixel inside
REFERENCE = [
    [-84, -40, 99, 55],
    [-176, -88, 191, 103],
    [-360, -184, 375, 199],
    [-56, -56, 71, 71],
    [-120, -120, 135, 135],
    [-248, -248, 263, 263],
    [-36, -80, 51, 95],
    [-80, -168, 95, 183],
    [-168, -344, 183, 359],
]
ONE = RPNSettings(anchor_scales=(1.0,), anchor_ratios=(1.0,))  # the cells themselves are the anchors


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def target(rows=(), labels=None):
    return {"boxes": boxes(*rows), "labels": torch.tensor(labels or [0] * len(rows), dtype=torch.int64)}


# -- anchors -----------------------------------------------------------------------------------------


def test_nine_anchors_of_the_reference():
    assert torch.equal(cell_anchors(), torch.tensor(REFERENCE, dtype=torch.float32) + torch.tensor([0, 0, 1, 1]))


def test_anchors_are_ordered_by_row_and_one_stride_apart():
    anchors = grid_anchors(boxes([0, 0, 8, 8], [1, 2, 3, 4]), 16, rows=2, columns=3)
    assert anchors.shape == (12, 4)
    assert anchors[1].tolist() == [1, 2, 3, 4]
    assert anchors[2].tolist() == [16, 0, 24, 8]  # to the right
    assert anchors[6].tolist() == [0, 16, 8, 24]  # then down


def test_anchors_of_a_mirrored_image_are_the_mirrored_anchors():
    anchors = grid_anchors(cell_anchors(), 16, rows=2, columns=5)
    mirrored = torch.stack([80 - anchors[:, 2], anchors[:, 1], 80 - anchors[:, 0], anchors[:, 3]], dim=1)
    assert torch.equal(mirrored.reshape(2, 5, 9, 4).flip(1), anchors.reshape(2, 5, 9, 4))


def test_an_anchor_may_touch_the_border_and_not_cross_it():
    given = boxes([0, 0, 10, 6], [0, 0, 10, 6.1], [-0.1, 0, 5, 5], [0, -1, 5, 5], [5, 5, 10.5, 6])
    assert inside(given, (6, 10)).tolist() == [True, False, False, False, False]


def test_anchors_of_no_pixel_are_rejected():
    with pytest.raises(ValueError, match="anchor_base.*got 1, which gives 0 x 0"):
        cell_anchors(1, ratios=(9.0,))
    with pytest.raises(ValueError, match=r"anchor_scales.*above 0, got \[\]"):
        cell_anchors(scales=())


@pytest.mark.parametrize(
    ("settings", "arguments"),
    [
        (RPNSettings, ("anchor_base", "foreground_iou", "background_iou", "samples", "positive_fraction", "beta")),
        (RPNSettings, ("nms_iou", "min_size")),
        (RoISettings, ("samples", "positive_fraction", "foreground_iou", "beta", "nms_iou", "max_detections")),
    ],
)
def test_settings_out_of_range(settings, arguments):
    for name in arguments:
        with pytest.raises(ValueError, match=f"^{name}: must be .*got -5"):
            settings(**{name: -5})
    pair = "background_iou" if settings is RoISettings else "proposals"
    with pytest.raises(ValueError, match=rf"^{pair}\[1\]: must be .*got -5"):
        settings(**{pair: (1, -5)})


# -- the region proposal network ----------------------------------------------------------------------


def rpn_output(logits, deltas=None, rows=2, columns=2, settings=ONE):
    """Output for one image, from logits of "object" (those of the background are 0) and offsets."""
    anchors = grid_anchors(
        cell_anchors(settings.anchor_base, settings.anchor_scales, settings.anchor_ratios), 16, rows, columns
    )
    odds = torch.as_tensor(logits, dtype=torch.float32)
    moved = torch.zeros(len(anchors), 4) if deltas is None else torch.as_tensor(deltas, dtype=torch.float32)
    return RPNOutput(torch.stack([torch.zeros_like(odds), odds], 1)[None], moved[None], anchors)


def rpn(**changes):
    return RPN(1, 1, 16, RPNSettings(**{"anchor_scales": (1.0,), "anchor_ratios": (1.0,), **changes}))


def test_scores_belong_to_the_anchors_of_their_cell():
    network = RPN(1, 4, 16)
    with torch.no_grad():
        network.conv.weight[:, :, [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
        network.conv.weight.abs_()
    maps = torch.zeros(2, 1, 3, 4)
    maps[1, 0, 1, 2] = 1
    output = network(maps)
    assert output.logits.shape == (2, 108, 2)
    assert output.deltas.shape == (2, 108, 4)
    for values in (output.logits, output.deltas):
        assert not values[0].any()
        anchors = output.anchors[values[1].any(1)]
        assert len(anchors) == 9
        assert torch.equal((anchors[:, :2] + anchors[:, 2:]) / 2, torch.tensor([[40.0, 24.0]]).expand(9, 2))


def test_initial_weights_are_small_and_biases_zero():
    network = RPN(64, 32, 16)
    assert network.conv.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert network.score.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert network.box.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not any(layer.bias.any() for layer in (network.conv, network.score, network.box))
    assert (network.score.out_channels, network.box.out_channels) == (18, 36)


def test_the_losses_of_four_anchors_by_hand():
    # the object overlaps anchor 0 by 12 / 20 and anchor 1 by 4 / 28: 0 is its best, all others are background
    output = rpn_output([math.log(3), 0, 0, 0], [[0.30, 0.2, -0.1, 0], [9, 9, 9, 9], [9, 9, 9, 9], [9, 9, 9, 9]])
    losses = rpn().losses(output, [(32, 32)], [target([[4, 0, 20, 16]])])
    assert losses["loss_objectness"].item() == pytest.approx((math.log(4 / 3) + 3 * math.log(2)) / 4)
    # target (0.25, 0, 0, 0): off by 0.05, 0.2, 0.1; 9 / 2 d^2 below 1 / 9, above it d - 1 / 18
    assert losses["loss_rpn_box"].item() == pytest.approx((4.5 * 0.0025 + 0.2 - 1 / 18 + 4.5 * 0.01) / 4)


def test_anchors_across_the_border_and_between_the_thresholds_are_not_trained_on():
    # overlaps 256 / 448 with anchor 0, its best, and 192 / 512 with anchor 2 below it; 1 and 3 are background
    tall = target([[0, 0, 16, 28]])
    losses = rpn().losses(rpn_output([0, 1, 50, 2]), [(32, 32)], [tall])
    expected = [math.log(2), softplus(torch.tensor(1.0)).item(), softplus(torch.tensor(2.0)).item()]
    assert losses["loss_objectness"].item() == pytest.approx(sum(expected) / 3)
    narrow = rpn().losses(rpn_output([0, 1, 50, 2]), [(32, 31)], [tall])  # 1 and 3 end at 32
    assert narrow["loss_objectness"].item() == pytest.approx(math.log(2))


def test_an_anchor_that_is_the_best_of_two_objects_is_matched_to_the_higher_iou():
    near = target([[0, 0, 16, 16], [0, 0, 16, 12]])
    output = rpn_output([0, 0, 0, 0], [[0.1, 0, 0, 0], *[[0, 0, 0, 0]] * 3])
    loss = rpn().losses(output, [(32, 32)], [near])["loss_rpn_box"]
    assert loss.item() == pytest.approx(4.5 * 0.01 / 4)


@pytest.mark.parametrize(("objects", "positives"), [(300, 128), (10, 10)])
def test_256_anchors_are_sampled_at_most_half_of_them_positive(objects, positives):
    output = rpn_output([2.0] * 1600, rows=40, columns=40)
    chosen = output.anchors[torch.randperm(1600)[:objects]]
    loss = rpn().losses(output, [(640, 640)], [{"boxes": chosen, "labels": torch.zeros(objects, dtype=torch.int64)}])
    right, wrong = softplus(torch.tensor([-2.0, 2.0])).tolist()
    expected = (positives * right + (256 - positives) * wrong) / 256
    assert loss["loss_objectness"].item() == pytest.approx(expected, rel=1e-5)
    assert loss["loss_rpn_box"] == 0  # every box is its anchor


def test_a_batch_is_averaged_over_all_its_anchors():
    one, other = rpn_output([0, 0, 0, 0], [[7.0] * 4] * 4), rpn_output([1, 2, 3, 4], [[0.1, 0, 0, 0], *[[9.0] * 4] * 3])
    both = RPNOutput(torch.cat([one.logits, other.logits]), torch.cat([one.deltas, other.deltas]), one.anchors)
    targets = [target(), target([[0, 0, 16, 16]])]
    alone = [rpn().losses(o, [(32, 32)], [t])["loss_objectness"] for o, t in zip((one, other), targets, strict=True)]
    together = rpn().losses(both, [(32, 32)] * 2, targets)
    assert together["loss_objectness"].item() == pytest.approx(sum(alone).item() / 2)
    assert together["loss_rpn_box"].item() == pytest.approx(4.5 * 0.01 / 8)
    narrow = rpn().losses(both, [(32, 16), (32, 32)], targets)["loss_objectness"]  # two of the first's are left
    assert narrow.item() == pytest.approx((2 * math.log(2) + 4 * alone[1].item()) / 6)


def test_without_anchors_losses_are_zero_with_a_gradient():
    output = rpn_output([1, 2, 3, 4])
    logits = output.logits.requires_grad_()
    losses = rpn().losses(output._replace(logits=logits), [(10, 10)], [target([[1, 1, 3, 3]])])
    assert losses["loss_objectness"] == 0
    losses["loss_objectness"].backward()
    assert not logits.grad.any()


def test_proposals_are_moved_clipped_sorted_and_suppressed():
    # anchor 0 moves 8 pixels right onto half of 1; 3 grows by e^0.5 about its center and is clipped
    output = rpn_output([3, 1, 2, 4], [[0.5, 0, 0, 0], [0] * 4, [0] * 4, [0, 0, 0.5, 0.5]])
    found = rpn().propose(output, [(32, 32)], [(32, 32)])[0]
    low = 24 - 8 * math.exp(0.5)
    assert torch.allclose(found, boxes([low, low, 32, 32], [8, 0, 24, 16], [0, 16, 16, 32], [16, 0, 32, 16]))
    tight = rpn(nms_iou=0.3).propose(output, [(32, 32)], [(32, 32)])[0]
    assert torch.allclose(tight, found[:3])  # 1 overlaps the moved 0 by a third
    logits, deltas = output.logits.clone().requires_grad_(), output.deltas.clone().requires_grad_()
    again = rpn().propose(output._replace(logits=logits, deltas=deltas), [(32, 32)], [(32, 32)])[0]
    assert torch.equal(again, found) and not again.requires_grad


def test_proposals_are_sorted_by_the_difference_of_logits():
    output = rpn_output([4, 1, 3, 2])
    output.logits[0, :, 0] = torch.tensor([5.0, 0.0, 1.0, -4.0])  # -1, 1, 2, 6
    found = rpn().propose(output, [(32, 32)], [(32, 32)])[0]
    assert torch.equal(found, output.anchors[[3, 2, 1, 0]])


def test_anchors_of_half_precision_maps_are_exact():
    network = RPN(1, 1, 16).bfloat16()
    anchors = network(torch.zeros(1, 1, 2, 60, dtype=torch.bfloat16)).anchors
    assert torch.equal(anchors, grid_anchors(cell_anchors(), 16, 2, 60))  # up to pixel 1,216


def test_min_size_is_in_pixels_of_the_original_image():
    output = rpn_output([4, 3, 2, 1], [[0, 0, math.log(0.9), 0], *[[0] * 4] * 3])
    assert len(rpn().propose(output, [(32, 32)], [(32, 32)])[0]) == 3  # 14.4 pixels are too few
    assert len(rpn().propose(output, [(32, 32)], [(32, 29)])[0]) == 0  # 16 there are 17.7 here
    assert len(rpn().propose(output, [(32, 32)], [(64, 64)])[0]) == 4  # 8 here
    assert len(rpn().propose(output, [(24, 32)], [(24, 32)])[0]) == 1  # the lower two are cut to 8 pixels
    # each side by its own scale: 14.4 pixels across were 28.8 in an image twice as wide, and 14.4 in one twice as high
    assert len(rpn().propose(output, [(32, 32)], [(32, 64)])[0]) == 4
    assert len(rpn().propose(output, [(32, 32)], [(64, 32)])[0]) == 3


def test_numbers_of_proposals_differ_in_training():
    output = rpn_output(torch.arange(100), rows=10, columns=10)
    network = rpn(before_nms=(50, 30), proposals=(20, 7))
    sizes = [(160, 160)]
    assert len(network.propose(output, sizes, sizes)[0]) == 7
    found = network.propose(output, sizes, sizes, for_training=True)[0]
    assert torch.equal(found, output.anchors.flip(0)[:20])
    assert len(rpn(before_nms=(5, 3)).propose(output, sizes, sizes)[0]) == 3


def test_defaults_are_the_references():
    s, r = RPNSettings(), RoISettings()
    assert (s.foreground_iou, s.background_iou, s.samples, s.positive_fraction) == (0.7, 0.3, 256, 0.5)
    assert (s.before_nms, s.proposals, s.nms_iou, s.min_size, s.beta) == ((12000, 6000), (2000, 300), 0.7, 16, 1 / 9)
    assert (r.samples, r.positive_fraction, r.foreground_iou, r.background_iou) == (128, 0.25, 0.5, (0.0, 0.5))
    assert (r.box_mean, r.box_std, r.beta) == ((0.0,) * 4, (0.1, 0.1, 0.2, 0.2), 1.0)
    assert (r.score_threshold, r.nms_iou, r.max_detections) == (0.05, 0.3, 100)


# -- the head -----------------------------------------------------------------------------------------


def head(num_classes=2, features=4, pool=1, **changes):
    return RoIHead(RoIPool(pool, 1 / 16), nn.Flatten(), features, num_classes, RoISettings(**changes))


def test_regions_are_pooled_from_their_cells():
    maps = torch.arange(24.0).reshape(1, 1, 4, 6)
    plain = head(features=1)
    with torch.no_grad():
        plain.score.weight.fill_(1)
    logits = plain(maps, [boxes([32, 16, 38, 22], [7, 7, 24, 24], [0, 0, 96, 64])]).logits
    # cell (1, 2); cells 0 to 2 of both axes (7 / 16 and 24 / 16 are rounded); everything
    assert logits[:, 0].tolist() == [8, 14, 23]


def test_overlaps_determine_the_labels_of_regions():
    proposals = [boxes([0, 0, 10, 5], [0, 0, 10, 4.9], [0, 0, 10, 0.9], [50, 50, 60, 60])]
    targets = [target([[0, 0, 10, 10], [80, 80, 90, 90]], [1, 0])]
    sample = head().sample(proposals, targets)[0]
    # ground-truth boxes are among the regions
    assert torch.equal(sample.boxes, torch.cat([proposals[0][:1], targets[0]["boxes"], proposals[0][1:]]))
    assert sample.labels.tolist() == [1, 1, 0, 2, 2, 2]
    assert sample.objects.tolist() == [0, 0, 1, -1, -1, -1]
    fast = head(background_iou=(0.1, 0.5), append_ground_truth=False).sample(proposals, targets)[0]  # Fast R-CNN's
    assert torch.equal(fast.boxes, proposals[0][:2])
    assert fast.labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("objects", "others", "drawn"), [(200, 300, (32, 96)), (4, 300, (5, 123)), (200, 20, (32, 20))]
)
def test_128_regions_are_sampled_at_most_a_quarter_of_them_objects(objects, others, drawn):
    proposals = torch.cat([boxes([0, 0, 10, 9]).expand(objects, 4), boxes([30, 30, 40, 40]).expand(others, 4)])
    sample = head().sample([proposals], [target([[0, 0, 10, 10]], [1])])[0]
    assert sample.labels.bincount(minlength=3).tolist() == [0, *drawn]
    assert (box_iou(sample.boxes, boxes([0, 0, 10, 10]))[:, 0] >= 0.5).sum() == drawn[0]


def test_the_losses_of_three_regions_by_hand():
    regions = boxes([0, 0, 10, 10], [20, 0, 30, 10], [40, 40, 50, 50])
    sampled = [RoISample(regions, torch.tensor([1, 0, 2]), torch.tensor([1, 0, -1]))]
    targets = [target([[15, 0, 35, 10], [1, 0, 11, 10]], [0, 1])]
    logits = torch.tensor([[0, math.log(2), 0], [0, 0, 0], [0, 0, math.log(6)]])
    deltas = torch.full((3, 2, 4), 77.0)
    deltas[0, 1] = torch.tensor([0.5, 2.0, 0.0, 0.0])  # target 0.1 / 0.1, 0, 0, 0
    deltas[1, 0] = torch.tensor([0.0, 0.0, math.log(2) / 0.2 - 3, -0.2])  # target 0, 0, log 2 / 0.2, 0
    losses = head().sampled_losses(RoIOutput(logits, deltas), sampled, targets)
    assert losses["loss_class"].item() == pytest.approx((math.log(2) + math.log(3) + math.log(8 / 6)) / 3)
    # d^2 / 2 below 1, above it d - 1 / 2; divided by the number of all regions
    assert losses["loss_box"].item() == pytest.approx((0.125 + 1.5 + 2.5 + 0.02) / 3)


def test_box_statistics_of_classes_normalize_offsets():
    fast, std = head(), torch.tensor([[0.1, 0.1, 0.2, 0.2], [0.5, 0.1, 0.2, 0.2]])
    fast.set_box_statistics(torch.tensor([[0.0] * 4, [0.05, 0, 0, 0]]), std)
    sampled = [RoISample(boxes([0, 0, 10, 10]), torch.tensor([1]), torch.tensor([0]))]
    output = RoIOutput(torch.zeros(1, 3), torch.zeros(1, 2, 4))
    loss = fast.sampled_losses(output, sampled, [target([[3, 0, 13, 10]], [1])])["loss_box"]
    assert loss.item() == pytest.approx(((0.3 - 0.05) / 0.5) ** 2 / 2)
    with torch.no_grad():
        fast.box.bias.copy_(torch.tensor([0.0] * 4 + [0.5, 0, 0, 0]))
        fast.score.bias.copy_(torch.tensor([0.0, 9, 0]))
        detected = fast.detect(torch.zeros(1, 4, 4, 4), [boxes([0, 0, 10, 10])], [(64, 64)])[0]
    assert torch.allclose(detected["boxes"], boxes([3, 0, 13, 10]))  # 0.5 * 0.5 + 0.05 of 10 pixels
    assert "box_std" in fast.state_dict()
    with pytest.raises(ValueError, match="std.*above 0.*got .*0"):
        fast.set_box_statistics(torch.zeros(2, 4), torch.zeros(2, 4))
    with pytest.raises(ValueError, match=r"mean.*\[2, 4\], got \[4\]"):
        fast.set_box_statistics(torch.zeros(4), std)


def test_detections_of_two_regions_by_hand():
    plain = head(features=1, score_threshold=0.3)
    with torch.no_grad():
        plain.score.bias.copy_(torch.tensor([2.0, 1.0, 1.0]).log())  # 0.5, 0.25, background
        plain.box.bias.copy_(torch.tensor([1.0, 0, 0, 0, 77, 77, 77, 77]))
    proposals = [boxes([10, 10, 30, 30], [11, 10, 31, 30], [50, 40, 62, 48]), boxes()]
    detected, none = plain.detect(torch.zeros(2, 1, 4, 4), proposals, [(48, 63), (48, 63)])
    assert torch.allclose(detected["boxes"], boxes([12, 10, 32, 30], [51.2, 40, 63, 48]))  # moved by a tenth, clipped
    assert detected["scores"].tolist() == pytest.approx([0.5, 0.5])
    assert detected["labels"].tolist() == [0, 0]
    assert [len(none[key]) for key in ("boxes", "scores", "labels")] == [0, 0, 0]
    low = plain.detect(torch.zeros(1, 1, 4, 4), [boxes([50, 36, 70, 56])], [(48, 63)])[0]
    assert torch.allclose(low["boxes"], boxes([52, 36, 63, 48]))  # clipped to the right and below
    few = head(features=1, max_detections=2, nms_iou=1.0)
    assert len(few.detect(torch.zeros(1, 1, 4, 4), proposals[:1], [(48, 63)])[0]["boxes"]) == 2


def test_without_regions_losses_are_zero_with_a_gradient():
    plain = head(append_ground_truth=False)
    losses = plain.losses(torch.ones(1, 4, 2, 2), [boxes()], [target([[0, 0, 9, 9]])])
    assert losses == {"loss_class": 0, "loss_box": 0}
    sum(losses.values()).backward()
    assert not plain.score.weight.grad.any()
    assert not plain.box.weight.grad.any()


def test_the_fully_connected_layers_drop_units_after_each_relu():
    body = RoIFullyConnected(2, 3, hidden=5, dropout=0.4)
    pooled = torch.randn(7, 2, 3, 3)
    body.eval()
    hidden = (pooled.flatten(1) @ body.fc6.weight.T + body.fc6.bias).clamp(min=0)
    assert torch.allclose(body(pooled), (hidden @ body.fc7.weight.T + body.fc7.bias).clamp(min=0), atol=1e-6)
    body.train()
    assert (body.drop6.p, body.drop7.p) == (0.4, 0.4)
    wide = RoIFullyConnected(1, 1, hidden=4000, dropout=0.5)
    nn.init.ones_(wide.fc7.bias), nn.init.zeros_(wide.fc7.weight)
    assert (wide(torch.zeros(1, 1, 1, 1)) == 0).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_initial_weights_of_the_head():
    plain = head(num_classes=20, features=512)
    assert plain.score.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert plain.box.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert (plain.score.out_features, plain.box.out_features) == (21, 80)
    with pytest.raises(ValueError, match="box_std.*got"):
        head(box_std=(0.1, 0.1, 0.0, 0.2))
