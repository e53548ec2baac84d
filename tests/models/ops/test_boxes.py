"""Functions and losses of boxes: by hand, against torchvision, and their derivatives."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck
from torchvision import ops
from torchvision.ops import box_iou, complete_box_iou_loss, generalized_box_iou, generalized_box_iou_loss

from striate.models import (
    BoxLoss,
    box_iou_matrix,
    box_loss,
    clip_boxes,
    complete_iou_matrix,
    distance_iou_matrix,
    generalized_iou_matrix,
    normalize_boxes,
    ordered_corners,
    paired_iou,
)

KINDS = ("l2", "smooth_l1", "giou", "ciou")


def some_boxes(count, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator, dtype=dtype)
    return torch.cat([corners, corners + 0.05 + torch.rand(count, 2, generator=generator, dtype=dtype)], dim=1)


def test_paired_iou_by_hand():
    target = torch.tensor([0.0, 0.0, 4.0, 2.0])
    others = torch.tensor([
        [0.0, 0.0, 4.0, 2.0],  # the same
        [2.0, 0.0, 6.0, 2.0],  # half of each: 4 / 12
        [2.0, 1.0, 6.0, 3.0],  # a quarter of each: 2 / 14
        [4.0, 0.0, 8.0, 2.0],  # touching
        [4.0, 2.0, 0.0, 0.0],  # the wrong way round
        [1.0, 1.0, 1.0, 1.0],  # a point
    ])  # fmt: skip
    torch.testing.assert_close(paired_iou(others, target), torch.tensor([1, 1 / 3, 1 / 7, 0, 0, 0]))
    assert paired_iou(torch.zeros(1, 4), torch.zeros(1, 4)).item() == 0


@given(st.integers(0, 1000))
def test_paired_iou_is_torchvisions_diagonal_symmetric_and_blind_to_scale(seed):
    first, second = some_boxes(5, seed), some_boxes(5, seed + 1)
    iou = paired_iou(first, second)
    torch.testing.assert_close(iou, box_iou(first, second).diagonal())
    torch.testing.assert_close(iou, paired_iou(second, first))
    torch.testing.assert_close(iou, paired_iou(normalize_boxes(first, 30, 7), normalize_boxes(second, 30, 7)))


MATRICES = {
    box_iou_matrix: ops.box_iou,
    generalized_iou_matrix: ops.generalized_box_iou,
    distance_iou_matrix: ops.distance_box_iou,
    complete_iou_matrix: ops.complete_box_iou,
}


def test_matrices_by_hand():
    one = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
    others = torch.tensor([
        [0.0, 0.0, 4.0, 2.0],  # the same
        [2.0, 0.0, 6.0, 2.0],  # IoU 4 / 12; the box around both is their union; centers 2 apart, diagonal² 36 + 4
        [6.0, 0.0, 8.0, 2.0],  # beside: around both 8 x 2, of which 4 are neither's; centers 5 apart, diagonal² 68
    ])  # fmt: skip
    ratio = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2  # CIoU's v; its weight is v / (1 - IoU + v)
    torch.testing.assert_close(box_iou_matrix(one, others), torch.tensor([[1, 1 / 3, 0]]))
    torch.testing.assert_close(generalized_iou_matrix(one, others), torch.tensor([[1, 1 / 3, -4 / 16]]))
    torch.testing.assert_close(distance_iou_matrix(one, others), torch.tensor([[1, 1 / 3 - 4 / 40, -25 / 68]]))
    last = -25 / 68 - ratio * ratio / (1 + ratio)
    torch.testing.assert_close(complete_iou_matrix(one, others), torch.tensor([[1, 1 / 3 - 4 / 40, last]]))


@pytest.mark.parametrize("matrix", MATRICES)
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 1000))
def test_matrices_are_torchvisions_symmetric_and_blind_to_place_and_mirrors(matrix, seed):
    first, second = some_boxes(4, seed), some_boxes(6, seed + 1)
    iou = matrix(first, second)
    assert torch.equal(iou, MATRICES[matrix](first, second))
    torch.testing.assert_close(iou, matrix(second, first).T)
    torch.testing.assert_close(iou, matrix(first * 7 + 3, second * 7 + 3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        iou, matrix(*(-boxes[:, [2, 1, 0, 3]] * torch.tensor([1, -1, 1, -1]) for boxes in (first, second)))
    )
    torch.testing.assert_close(matrix(first, first).diagonal(), torch.ones(4, dtype=torch.float64))
    if matrix is box_iou_matrix:
        torch.testing.assert_close(iou, paired_iou(first[:, None], second))
    else:
        assert (iou <= box_iou(first, second) + 1e-12).all()


@pytest.mark.parametrize("matrix", MATRICES)
def test_matrices_of_nothing_and_of_points(matrix):
    assert matrix(torch.zeros(0, 4), torch.zeros(3, 4)).shape == (0, 3)
    assert matrix(torch.zeros(3, 4), torch.zeros(0, 4)).shape == (3, 0)
    points = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 2.0, 2.0]])
    assert matrix(points, points).isfinite().all() and matrix(points, points)[0, 0] == 0
    with pytest.raises(ValueError, match=r"others.*got \[4\]"):
        matrix(torch.zeros(3, 4), torch.zeros(4))
    with pytest.raises(ValueError, match=r"boxes.*got \[3, 5\]"):
        matrix(torch.zeros(3, 5), torch.zeros(3, 4))


@pytest.mark.parametrize("matrix", MATRICES)
def test_matrices_have_a_gradient(matrix):
    moved = torch.tensor([[1.0, 0.0, 5.0, 2.0]], requires_grad=True)
    matrix(moved, torch.tensor([[0.0, 0.0, 4.0, 2.0]])).sum().backward()
    assert moved.grad.isfinite().all() and moved.grad[0, 0] < 0  # to the left is better


def test_corners_are_ordered_and_clipped():
    given_corners = torch.tensor([[0.7, 0.1, 0.2, 1.4]])
    assert ordered_corners(given_corners)[0].tolist() == pytest.approx([0.2, 0.1, 0.7, 1.4])
    assert clip_boxes(torch.tensor([[-3.0, 2.0, 50.0, 90.0]]), 40, 80)[0].tolist() == [0, 2, 40, 80]
    assert normalize_boxes(torch.tensor([[10.0, 10.0, 20.0, 30.0]]), 40, 80)[0].tolist() == [0.25, 0.125, 0.5, 0.375]


def test_l2_and_smooth_l1_by_hand():
    predicted = torch.tensor([[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0]])
    target = torch.tensor([[0.1, 0.0, 0.6, 0.9], [0.0, 0.0, 1.0, 0.5]])
    assert box_loss(predicted, target).item() == pytest.approx((0.2**2 + 0.1**2 + 0.5**2) / 2)
    by_hand = ((0.2 - 0.05) + 0.1**2 / (2 * 0.1) + (0.5 - 0.05)) / 2
    assert box_loss(predicted, target, "smooth_l1", beta=0.1).item() == pytest.approx(by_hand)


def test_giou_by_hand():
    target = torch.tensor([[0.0, 0.0, 0.2, 0.2]])
    beside = torch.tensor([[0.3, 0.0, 0.5, 0.2]])  # the box around both: 0.5 x 0.2, of which 0.02 are neither's
    assert box_loss(beside, target, "giou").item() == pytest.approx(1 + 0.02 / 0.1, abs=1e-5)
    assert box_loss(target, target, "giou").item() == pytest.approx(0, abs=1e-5)


def test_ciou_by_hand():
    target = torch.tensor([[0.0, 0.0, 0.2, 0.2]], dtype=torch.float64)
    wide = torch.tensor([[0.0, 0.0, 0.4, 0.2]], dtype=torch.float64)  # IoU 1/2; centers 0.1 apart, diagonal² 0.2
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    by_hand = 0.5 + 0.01 / 0.2 + v * v / (1 - 0.5 + v)
    assert box_loss(wide, target, "ciou").item() == pytest.approx(by_hand, abs=1e-5)


def test_iou_losses_are_torchvisions():
    predicted, target = some_boxes(20, 1), some_boxes(20, 2)
    torch.testing.assert_close(
        box_loss(predicted, target, "giou"), generalized_box_iou_loss(predicted, target, reduction="mean")
    )
    torch.testing.assert_close(
        box_loss(predicted, target, "giou"), 1 - generalized_box_iou(predicted, target).diagonal().mean()
    )
    torch.testing.assert_close(
        box_loss(predicted, target, "ciou"), complete_box_iou_loss(predicted, target, reduction="mean")
    )


@pytest.mark.parametrize("kind", KINDS)
def test_derivatives(kind):
    predicted, target = some_boxes(6, 3).requires_grad_(), some_boxes(6, 4)
    # CIoU's weight of the ratio's term is a constant to the gradient, as its paper has it
    if kind == "ciou":
        predicted = (target * 1.5).requires_grad_()  # the same ratio: that weight has no effect
        predicted.data += torch.tensor([0.1, 0.0, 0.1, 0.0])
    assert gradcheck(lambda boxes: box_loss(boxes, target, kind), (predicted,), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_no_boxes_cost_exactly_nothing_and_leave_the_graph_alive(kind):
    weight = torch.ones(4, requires_grad=True)
    loss = BoxLoss(kind)(torch.zeros(0, 4) * weight, torch.zeros(0, 4))
    assert loss.item() == 0
    loss.backward()
    assert weight.grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_without_sides_has_a_finite_loss_and_derivative(kind):
    point = torch.tensor([[0.5, 0.5, 0.5, 0.5]], requires_grad=True)
    loss = box_loss(point, torch.tensor([[0.1, 0.1, 0.9, 0.9]]), kind)
    loss.backward()
    assert loss.isfinite() and point.grad.isfinite().all() and loss > 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_is_widened(kind):
    predicted, target = some_boxes(8, 5), some_boxes(8, 6)
    half = box_loss(predicted.bfloat16(), target.bfloat16(), kind)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, box_loss(predicted, target, kind).float(), rtol=0.03, atol=0.01)


@pytest.mark.parametrize("kind", KINDS)
def test_following_the_gradient_leads_to_the_true_box(kind):
    boxes, target = torch.tensor([[0.1, 0.1, 0.3, 0.4]]).requires_grad_(), torch.tensor([[0.5, 0.4, 0.9, 0.8]])
    optimizer = torch.optim.Adam([boxes], lr=0.01)
    for _ in range(300):
        optimizer.zero_grad()
        box_loss(boxes, target, kind).backward()
        optimizer.step()
    assert paired_iou(boxes.detach(), target).item() > 0.9


def test_bad_losses():
    with pytest.raises(ValueError, match="kind.*got 'gious'; did you mean 'giou'"):
        BoxLoss("gious")
    with pytest.raises(ValueError, match="beta.*got 0"):
        BoxLoss("smooth_l1", beta=0)
    with pytest.raises(ValueError, match=r"predicted.*got \[2, 4\] and \[1, 4\]"):
        box_loss(torch.zeros(2, 4), torch.zeros(1, 4))
