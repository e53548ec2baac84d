"""Selection of an image's detections, by hand and against plain loops."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.models.detection import select_detections

from ...helpers.nms_reference import BOXES, SCORES, loop_nms, pixel_boxes


def test_by_hand():
    scores = torch.tensor([[0.6, 0.1], [0.9, 0.7], [0.7, 0.0], [0.05, 0.5]])
    detected = select_detections(BOXES, scores, 0.1, 0.5, 100)
    assert detected["labels"].tolist() == [0, 1, 0, 1]  # 0.1 itself is not above
    torch.testing.assert_close(detected["scores"], torch.tensor([0.9, 0.7, 0.6, 0.5]))
    assert detected["boxes"].tolist() == BOXES[[1, 1, 0, 3]].tolist()
    detected = select_detections(BOXES, scores, 0.1, 0.5, 2)
    torch.testing.assert_close(detected["scores"], torch.tensor([0.9, 0.7]))
    detected = select_detections(BOXES, scores, 0.1, 0.5, 100, class_agnostic=True)
    assert detected["labels"].tolist() == [0, 0, 1]
    torch.testing.assert_close(detected["scores"], torch.tensor([0.9, 0.6, 0.5]))


def test_candidates():
    scores = torch.tensor([[0.6, 0.1], [0.9, 0.7], [0.7, 0.0], [0.05, 0.5]])
    # the two highest scores of each class enter NMS; a third one of class 0 does not replace a suppressed one
    detected = select_detections(BOXES, scores, 0.0, 0.5, 100, candidates=2)
    torch.testing.assert_close(detected["scores"], torch.tensor([0.9, 0.7, 0.5]))
    assert detected["labels"].tolist() == [0, 1, 1]
    detected = select_detections(BOXES, scores, 0.0, 0.5, 100, candidates=3, class_agnostic=True)
    torch.testing.assert_close(detected["scores"], torch.tensor([0.9]))  # of 0.9, 0.7, 0.7
    assert len(select_detections(BOXES, scores, 0.0, 1.0, 100, candidates=400)["scores"]) == 7


def test_boxes_of_each_class():
    boxes = torch.stack([BOXES, BOXES + 100], dim=1)  # [4, 2, 4]
    scores = torch.tensor([[0.6, 0.1], [0.9, 0.7], [0.7, 0.0], [0.05, 0.5]])
    detected, shared = (select_detections(each, scores, 0.1, 0.5, 100) for each in (boxes, BOXES))
    assert torch.equal(detected["boxes"], shared["boxes"] + 100 * shared["labels"][:, None])
    assert torch.equal(detected["scores"], shared["scores"]) and torch.equal(detected["labels"], shared["labels"])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([None, 5]), st.booleans())
def test_against_plain_loops(seed, candidates, agnostic):
    generator = torch.Generator().manual_seed(seed)
    boxes, scores = pixel_boxes(36, seed).reshape(12, 3, 4), torch.randperm(36, generator=generator).reshape(12, 3) / 36
    pairs = [(anchor, label) for anchor in range(12) for label in range(3) if scores[anchor, label] > 0.2]
    pairs.sort(key=lambda pair: -scores[pair].item())
    if candidates is not None:
        groups = [pairs] if agnostic else [[pair for pair in pairs if pair[1] == label] for label in range(3)]
        pairs = [pair for group in groups for pair in group[:candidates]]
    flat = torch.stack([boxes[pair] for pair in pairs])
    values = torch.stack([scores[pair] for pair in pairs])
    labels = torch.tensor([label for _, label in pairs])
    kept = loop_nms(flat, values, torch.zeros_like(labels) if agnostic else labels, 0.3)[:7]
    detected = select_detections(boxes, scores, 0.2, 0.3, 7, candidates, agnostic)
    assert detected["labels"].tolist() == labels[kept].tolist()
    assert torch.equal(detected["boxes"], flat[kept]) and torch.equal(detected["scores"], values[kept])


def test_nan_scores_are_not_detected():
    scores = torch.tensor([[math.nan], [0.9], [0.2], [0.5]])
    assert select_detections(BOXES, scores, 0.3, 0.5, 10)["scores"].tolist() == pytest.approx([0.9, 0.5])
    assert len(select_detections(BOXES, scores, 0.0, 1.0, 10, candidates=2)["scores"]) == 2


def test_detections_have_no_graph():
    boxes, scores = BOXES.clone().requires_grad_(), SCORES[:, None].clone().requires_grad_()
    detected = select_detections(boxes, scores, 0.1, 0.5, 10)
    assert not detected["boxes"].requires_grad and not detected["scores"].requires_grad


def test_no_boxes_and_no_scores_above_the_threshold():
    none = torch.zeros(0, 4)
    for boxes, scores in (
        (none, torch.zeros(0, 3)),
        (torch.zeros(0, 3, 4), torch.zeros(0, 3)),
        (BOXES, torch.zeros(4, 3)),
    ):
        detected = select_detections(boxes, scores, 0.05, 0.5, 100)
        assert (
            detected["boxes"].shape == (0, 4) and detected["scores"].shape == (0,) and detected["labels"].shape == (0,)
        )
        assert detected["labels"].dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_give_float32(dtype):
    detected = select_detections(pixel_boxes(60, 3).to(dtype), torch.rand(60, 1).to(dtype), 0.1, 0.5, 10)
    assert detected["boxes"].dtype == detected["scores"].dtype == torch.float32


def test_bad_input():
    with pytest.raises(ValueError, match=r"boxes.*got \[4, 4\] and scores \[3, 2\]"):
        select_detections(BOXES, torch.zeros(3, 2), 0.1, 0.5, 10)
