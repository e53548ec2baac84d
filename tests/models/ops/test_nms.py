"""Non-maximum suppression, hard and soft, against plain loops and torchvision."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import batched_nms, box_iou

from striate.models.detection import class_agnostic_nms, classwise_nms, soft_nms
from striate.models.ops import nms

from ...helpers.nms_reference import BOXES, SCORES, loop_nms, pixel_boxes


def random_scores(count, seed, levels=1000):
    return torch.randint(0, levels, (count,), generator=torch.Generator().manual_seed(seed)) / levels


def random_labels(count, seed, classes):
    return torch.randint(0, classes, (count,), generator=torch.Generator().manual_seed(seed))


def test_by_hand(monkeypatch):
    same, different = torch.zeros(4, dtype=torch.int64), torch.tensor([0, 1, 0, 1])
    assert classwise_nms(BOXES, SCORES, same, 0.5).tolist() == [1, 0, 3]  # an IoU of 0.5 is not above 0.5
    assert classwise_nms(BOXES, SCORES, same, 0.49).tolist() == [1, 3]
    assert classwise_nms(BOXES, SCORES, same, 0.7).tolist() == [1, 2, 3]  # the third suppresses the first
    assert classwise_nms(BOXES, SCORES, different, 0.5).tolist() == [1, 2, 3]
    assert classwise_nms(BOXES, SCORES, different, 0.8).tolist() == [1, 2, 0, 3]
    assert class_agnostic_nms(BOXES, SCORES, 0.5).tolist() == [1, 0, 3]
    # 8 / 10 is not above 0.8, though as float32 it is
    assert class_agnostic_nms(BOXES[[0, 2]], SCORES[[0, 2]], 0.8).tolist() == [1, 0]
    for limit in (2000, 1):
        monkeypatch.setattr(nms, "_MAX_BOXES_AT_ONCE", limit)
        assert classwise_nms(BOXES[[0, 2]], SCORES[[0, 2]], same[:2], 0.8).tolist() == [1, 0]


@settings(deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(0, 40),
    st.sampled_from([1, 3, 50]),
    st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.8, 1.0]),
    st.sampled_from([10, 2000]),
)
def test_against_plain_loops_with_ties(seed, count, classes, iou, limit):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nms, "_MAX_BOXES_AT_ONCE", limit)  # one pass per label, or one over all
        against_plain_loops(seed, count, classes, iou)


def against_plain_loops(seed, count, classes, iou):
    boxes, scores, labels = (
        pixel_boxes(count, seed),
        random_scores(count, seed, 10),
        random_labels(count, seed, classes),
    )
    expected = loop_nms(boxes, scores, labels, iou)
    assert classwise_nms(boxes, scores, labels, iou).tolist() == expected
    assert class_agnostic_nms(boxes, scores, iou).tolist() == loop_nms(boxes, scores, torch.zeros(count), iou)


@pytest.mark.parametrize(("count", "classes"), [(100, 20), (900, 5), (6000, 20), (3000, 1)])
def test_torchvisions_batched_nms(count, classes):
    boxes, labels = pixel_boxes(count, 0, span=count // 5), random_labels(count, 1, classes)
    scores = torch.randperm(count, generator=torch.Generator().manual_seed(2)) / count
    kept = classwise_nms(boxes, scores, labels, 0.5)
    assert torch.equal(kept, batched_nms(boxes, scores, labels, 0.5))
    assert (scores[kept].diff() < 0).all() and len(kept) < count


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_invariant_under_shifts_mirroring_and_reordering(seed):
    boxes, labels = pixel_boxes(30, seed), random_labels(30, seed, 3)
    scores = torch.randperm(30, generator=torch.Generator().manual_seed(seed)) / 30
    kept = classwise_nms(boxes, scores, labels, 0.4)
    mirrored = torch.stack([-boxes[:, 2], boxes[:, 1], -boxes[:, 0], boxes[:, 3]], dim=1)
    assert torch.equal(classwise_nms(mirrored, scores, labels, 0.4), kept)  # negative coordinates
    assert torch.equal(classwise_nms(boxes - 300, scores, labels, 0.4), kept)
    assert torch.equal(classwise_nms(boxes, scores, labels * 1000 - 7, 0.4), kept)
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed + 1))
    assert torch.equal(order[classwise_nms(boxes[order], scores[order], labels[order], 0.4)], kept)
    # idempotent
    assert classwise_nms(boxes[kept], scores[kept], labels[kept], 0.4).tolist() == list(range(len(kept)))


def test_labels_do_not_cost_precision():
    """With labels as offsets in float32, torchvision's way below 1,000 boxes, this IoU of 0.5 would be another."""
    boxes = torch.tensor([[0.1, 0.1, 2.1, 1.1], [0.1, 0.1, 1.1, 1.1], [900.0, 900.0, 1333.0, 1333.0]])
    scores, labels = torch.tensor([0.9, 0.8, 0.7]), torch.tensor([90_000, 90_000, 0])
    for iou in (0.49, 0.51):
        assert classwise_nms(boxes, scores, labels, iou).tolist() == loop_nms(boxes, scores, labels, iou)


def test_boxes_with_negative_coordinates_stay_within_their_label():
    boxes = torch.tensor([[-9.0, 0.0, 1.0, 10.0], [-20.0, -11.0, -10.0, -1.0]])
    scores, labels = torch.tensor([0.9, 0.8]), torch.tensor([0, 1])
    # torchvision shifts label 1 by the largest coordinate + 1, here 11: onto the box of label 0
    assert batched_nms(boxes, scores, labels, 0.5).tolist() == [0]
    assert classwise_nms(boxes, scores, labels, 0.5).tolist() == [0, 1]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(dtype):
    boxes, scores, labels = pixel_boxes(60, 3), random_scores(60, 4, 100).to(dtype), random_labels(60, 5, 4)
    kept = classwise_nms(boxes.to(dtype), scores, labels, 0.5)
    assert torch.equal(kept, classwise_nms(boxes, scores.float(), labels, 0.5))
    assert torch.equal(class_agnostic_nms(boxes.to(dtype), scores, 0.5), class_agnostic_nms(boxes, scores, 0.5))


def test_no_boxes():
    none, no_labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    for kept in (classwise_nms(none, none[:, 0], no_labels, 0.5), class_agnostic_nms(none, none[:, 0], 0.5)):
        assert kept.shape == (0,) and kept.dtype == torch.int64
    numbers, scores = soft_nms(none, none[:, 0], no_labels)
    assert numbers.shape == scores.shape == (0,) and numbers.dtype == torch.int64


def loop_soft_nms(boxes, scores, labels, weight, score_threshold):
    """Bodla's figure 2, with ``weight`` of an IoU for its f."""
    overlap, left = box_iou(boxes.double(), boxes.double()), dict(enumerate(scores.tolist()))
    taken = []
    while left:
        best = max(left, key=lambda number: left[number])
        score = left.pop(best)
        if score <= score_threshold:
            break
        taken.append((best, score))
        for number in left:
            if labels[number] == labels[best]:
                left[number] *= weight(overlap[best, number].item())
    return taken


@pytest.mark.parametrize("decay", ["linear", "gaussian"])
@settings(deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 25), classes=st.sampled_from([1, 3]))
def test_soft_nms_against_plain_loops(decay, seed, count, classes):
    boxes, labels = pixel_boxes(count, seed), random_labels(count, seed, classes)
    scores = (1 + torch.randperm(count, generator=torch.Generator().manual_seed(seed))) / count
    weights = {"linear": lambda o: 1 - o if o >= 0.2003 else 1, "gaussian": lambda o: math.exp(-o * o / 0.4)}
    expected = loop_soft_nms(boxes, scores, labels, weights[decay], 0.0503)
    numbers, final = soft_nms(boxes, scores, labels, decay, iou=0.2003, sigma=0.4, score_threshold=0.0503)
    torch.testing.assert_close(final, torch.tensor([score for _, score in expected]), rtol=1e-4, atol=1e-5)
    if (final.diff() < -1e-4).all():  # the order of equal scores is not defined
        assert numbers.tolist() == [number for number, _ in expected]


def test_soft_nms_by_hand():
    # the second first; then 0.7 * (1 - 0.625) = 0.2625, 0.6 * (1 - 0.5) = 0.3 and 0.5; the first lowers the third again
    numbers, scores = soft_nms(BOXES, SCORES, decay="linear", iou=0.5)
    assert numbers.tolist() == [1, 3, 0, 2]
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5, 0.3, 0.2625 * 0.2]))
    # IoUs below `iou` lower nothing: at 0.5 both 0.625 and 0.5 do, at 0.6 only the first
    numbers, scores = soft_nms(BOXES, SCORES, decay="linear", iou=0.6)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.6, 0.5, 0.2625 * 0.2]))
    numbers, scores = soft_nms(BOXES, SCORES, decay="gaussian", sigma=0.5)
    first, third = 0.6 * math.exp(-0.25 / 0.5), 0.7 * math.exp(-0.390625 / 0.5) * math.exp(-0.64 / 0.5)
    torch.testing.assert_close(scores, torch.tensor([0.9, 0.5, first, third]))
    # different labels do not affect each other
    numbers, scores = soft_nms(BOXES, SCORES, torch.arange(4))
    assert numbers.tolist() == [1, 2, 0, 3] and scores.tolist() == SCORES[numbers].tolist()
    numbers, scores = soft_nms(BOXES, SCORES, max_detections=2)
    assert numbers.tolist() == [1, 3]
    numbers, scores = soft_nms(BOXES, SCORES, score_threshold=0.5)  # 0.5 itself is not above
    assert numbers.tolist() == [1]


def test_soft_nms_does_not_change_its_input():
    scores = SCORES.clone().requires_grad_()
    _, final = soft_nms(BOXES, scores)
    assert scores.tolist() == SCORES.tolist() and not final.requires_grad


def test_bad_input():
    labels = torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"boxes.*got \[4, 1, 4\]"):
        classwise_nms(BOXES[:, None], SCORES, labels, 0.5)
    with pytest.raises(ValueError, match=r"scores.*\[4\].*got \[3\]"):
        class_agnostic_nms(BOXES, SCORES[:3], 0.5)
    with pytest.raises(ValueError, match=r"labels.*\[4\].*got \[2\]"):
        soft_nms(BOXES, SCORES, labels[:2])
    with pytest.raises(ValueError, match="iou.*got 50"):
        classwise_nms(BOXES, SCORES, labels, 50)
    with pytest.raises(ValueError, match="decay.*got 'guassian'.*did you mean 'gaussian'"):
        soft_nms(BOXES, SCORES, decay="guassian")
