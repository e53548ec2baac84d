"""SSD's loss: by hand, against torchvision's, and without objects."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.ssd import SSD as TorchvisionSSD

from striate.models import hard_negative_mining, multibox_losses
from striate.models.detection import bipartite_then_threshold

ANCHORS = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [0, 20, 10, 30], [20, 20, 30, 30], [40, 40, 50, 50]])


def test_by_hand():
    # One object 12 wide and 10 high, its center one to the right of the first box's: offsets 10 * 0.1 = 1, 0,
    # 5 * ln(1.2) = 0.911608, 0. Predicted are 3, 0.5, 0.911608, 0: smooth L1 is 2 - 0.5 + 0.5 * 0.25 = 1.625.
    deltas = torch.zeros(1, 5, 4)
    deltas[0, 0] = torch.tensor([3.0, 0.5, 5 * math.log(1.2), 0.0])
    deltas[0, 1:] = 100.0  # unmatched boxes have no loss of offsets
    logits = torch.zeros(1, 5, 3)
    logits[0, 0] = torch.tensor([0.0, 0.0, 2.0])  # of class 1, at index 2: ln(2 + e^2) - 2 = 0.239551
    logits[0, 1, 1] = 3.0  # ln(2 + e^3) = 3.094923: the hardest
    logits[0, 2, 0] = 9.0  # ln(e^9 + 2) - 9 = 0.000247: the easiest, and left out
    logits[0, 3, 2] = 1.0  # ln(2 + e) = 1.551445
    # the last: ln 3 = 1.098612
    matches = torch.tensor([[0, -1, -1, -1, -1]])
    losses = multibox_losses(logits, deltas, matches, [torch.tensor([[0.0, 0, 12, 10]])], [torch.tensor([1])], ANCHORS)
    assert losses["loss_box"].item() == pytest.approx(1.625, abs=1e-5)
    assert losses["loss_class"].item() == pytest.approx(0.239551 + 3.094923 + 1.551445 + 1.098612, abs=1e-5)


def test_both_are_divided_by_the_matched_boxes_of_the_batch():
    # Two boxes matched in one image, one in the other, five boxes each; all scores alike: ln 4 each. The first image
    # has 3 negatives (6 are asked for), the second 3.
    matches = torch.tensor([[0, 1, -1, -1, -1], [-1, -1, -1, 0, -1]])
    boxes = [ANCHORS[:2], ANCHORS[3:4]]
    labels = [torch.tensor([0, 2]), torch.tensor([1])]
    deltas = torch.full((2, 5, 4), 1.0)  # off by 1 in each of 4: smooth L1 of 0.5
    losses = multibox_losses(torch.zeros(2, 5, 4), deltas, matches, boxes, labels, ANCHORS)
    assert losses["loss_box"].item() == pytest.approx(3 * 4 * 0.5 / 3)
    assert losses["loss_class"].item() == pytest.approx((3 + 6) * math.log(4) / 3)


def test_objects_of_another_image_are_not_taken():
    matches = torch.tensor([[-1] * 5, [0] + [-1] * 4, [1] + [-1] * 4])
    boxes = [torch.zeros(0, 4), ANCHORS[:1], torch.cat([ANCHORS[4:], ANCHORS[:1]])]
    labels = [torch.zeros(0, dtype=torch.int64), torch.tensor([2]), torch.tensor([0, 1])]
    logits = torch.zeros(3, 5, 4)
    logits[1, 0, 3] = logits[2, 0, 2] = 50.0  # classes 2 and 1
    logits[:, 1:, 0] = 50.0
    losses = multibox_losses(logits, torch.zeros(3, 5, 4), matches, boxes, labels, ANCHORS)
    assert losses["loss_class"] < 1e-6
    assert losses["loss_box"] == 0


def random_scene(generator, images, anchors, classes, objects=4):
    boxes, labels = [], []
    for _ in range(images):
        n = int(torch.randint(0, objects + 1, (), generator=generator))
        corner = torch.rand(n, 2, generator=generator) * 40
        boxes.append(torch.cat([corner, corner + 4 + torch.rand(n, 2, generator=generator) * 20], 1))
        labels.append(torch.randint(0, classes, (n,), generator=generator))
    corner = torch.rand(anchors, 2, generator=generator) * 40
    grid = torch.cat([corner, corner + 4 + torch.rand(anchors, 2, generator=generator) * 20], 1)
    return boxes, labels, grid


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), anchors=st.integers(5, 60), classes=st.integers(1, 5))
def test_losses_are_torchvisions(seed, anchors, classes):
    generator = torch.Generator().manual_seed(seed)
    boxes, labels, grid = random_scene(generator, 3, anchors, classes)
    logits = torch.randn(3, anchors, classes + 1, generator=generator)
    deltas = torch.randn(3, anchors, 4, generator=generator)
    matches = torch.stack([bipartite_then_threshold(each, grid) for each in boxes])
    reference = TorchvisionSSD.__new__(TorchvisionSSD)  # its loss needs no network
    torch.nn.Module.__init__(reference)
    reference.box_coder, reference.neg_to_pos_ratio = BoxCoder((10.0, 10.0, 5.0, 5.0)), 3.0
    theirs = reference.compute_loss(
        [{"boxes": b, "labels": each + 1} for b, each in zip(boxes, labels, strict=True)],
        {"bbox_regression": deltas, "cls_logits": logits},
        [grid] * 3,
        list(matches),
    )
    ours = multibox_losses(logits, deltas, matches, boxes, labels, grid)
    assert torch.allclose(ours["loss_box"], theirs["bbox_regression"], rtol=1e-5)
    # torchvision counts matched boxes twice where there are too few others to make up three times their number
    enough = all(3 * int((m >= 0).sum()) <= int((m < 0).sum()) for m in matches)
    if enough:
        assert torch.allclose(ours["loss_class"], theirs["classification"], rtol=1e-5)
    else:
        assert ours["loss_class"] <= theirs["classification"] + 1e-5


@settings(max_examples=50, deadline=None)
@given(
    losses=st.lists(st.lists(st.floats(0, 20, width=32), min_size=8, max_size=8), min_size=1, max_size=3),
    positives=st.lists(st.booleans(), min_size=8, max_size=8),
    ratio=st.sampled_from([0, 0.5, 1, 3]),
)
def test_negatives_are_the_hardest_of_each_image(losses, positives, ratio):
    values = torch.tensor(losses)
    positive = torch.tensor([positives]).repeat(len(losses), 1)
    chosen = hard_negative_mining(values, positive, ratio)
    assert not (chosen & positive).any()
    for row, picked in zip(values, chosen, strict=True):
        others = row[~positive[0]].sort(descending=True).values
        count = min(math.floor(ratio * sum(positives)), 8 - sum(positives))
        assert row[picked].sort(descending=True).values.tolist() == others[:count].tolist()


@pytest.mark.parametrize("images", [1, 2])
def test_without_objects_both_are_exactly_zero_and_gradients_finite(images):
    logits = torch.randn(images, 5, 3, requires_grad=True)
    deltas = torch.randn(images, 5, 4, requires_grad=True)
    none = [torch.zeros(0, 4)] * images, [torch.zeros(0, dtype=torch.int64)] * images
    losses = multibox_losses(logits, deltas, torch.full((images, 5), -1), *none, ANCHORS)
    assert losses["loss_box"].item() == 0
    assert losses["loss_class"].item() == 0
    sum(losses.values()).backward()
    assert torch.equal(deltas.grad, torch.zeros_like(deltas))
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_losses_of_half_precision_are_computed_in_single():
    matches = torch.tensor([[0, -1, -1, -1, -1]])
    logits = torch.randn(1, 5, 3).bfloat16()
    losses = multibox_losses(
        logits, torch.zeros(1, 5, 4).bfloat16(), matches, [ANCHORS[:1]], [torch.tensor([1])], ANCHORS
    )
    assert losses["loss_class"].dtype == losses["loss_box"].dtype == torch.float32


def test_a_ratio_below_zero_is_rejected():
    with pytest.raises(ValueError, match="ratio.*got -1"):
        hard_negative_mining(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool), -1)
