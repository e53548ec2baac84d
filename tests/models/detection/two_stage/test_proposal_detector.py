"""Tests of the interface of detectors on proposals: given ones, computed ones, none, and wrong ones."""

import dataclasses

import pytest
import torch

from striate.models import Proposer

from ....helpers.detector_inputs import random_images, target
from ....helpers.proposals import Echo

BOXES = torch.tensor([[0.0, 0.0, 8.0, 4.0], [2.0, 1.0, 6.0, 3.0], [0.0, 0.0, 2.0, 2.0]])


def with_proposals(boxes=BOXES, **fields):
    return {**target([[1.0, 1.0, 3.0, 3.0]]), "proposals": boxes, **fields}


def test_given_proposals_are_scaled_with_their_image_and_detections_back():
    detector = Echo(min_size=8)  # images of 4 x 8 are doubled
    (first, second) = detector(random_images((4, 8), (4, 4)), [BOXES, BOXES[:0]])
    torch.testing.assert_close(detector.resized[0], BOXES * 2)
    torch.testing.assert_close(first["boxes"], BOXES)
    assert len(second["boxes"]) == 0


def test_targets_have_the_resized_proposals_beside_resized_boxes():
    detector = Echo(min_size=8).train()
    losses = detector.losses(random_images((4, 8), (4, 4)), [with_proposals(), with_proposals(BOXES[:0])])
    assert losses["loss_shift"].requires_grad
    first, second = detector.trained_on
    torch.testing.assert_close(first["proposals"], BOXES * 2)
    torch.testing.assert_close(first["boxes"], torch.tensor([[2.0, 2.0, 6.0, 6.0]]))
    assert second["proposals"].shape == (0, 4)


def test_only_the_best_proposals_are_used():
    detector = Echo(proposer={"max_proposals": 2})
    (found,) = detector(random_images((4, 8)), [BOXES])
    torch.testing.assert_close(found["boxes"], BOXES[:2])
    detector.losses(random_images((4, 8)), [with_proposals()])
    torch.testing.assert_close(detector.trained_on[0]["proposals"], BOXES[:2])


def test_without_proposals_the_detector_computes_them_of_the_original_image(monkeypatch):
    calls = []

    def search(image, mode, **options):
        calls.append((image.shape, image.dtype, mode, options))
        return BOXES, torch.ones(3)

    monkeypatch.setattr("striate.models.proposals.proposer.selective_search", search)
    detector = Echo(min_size=8, proposer=Proposer(mode="single", min_side=2, max_proposals=5, seed=3))
    (found,) = detector(random_images((4, 8)))
    torch.testing.assert_close(found["boxes"], BOXES)
    assert calls == [((3, 4, 8), torch.uint8, "single", {"min_side": 2, "max_boxes": 5, "seed": 3})]


def test_training_without_proposals_names_the_argument_and_the_command():
    with pytest.raises(
        ValueError,
        match=r"targets\[1\] \(image_id 7\): must have proposals.*Echo.*data module's "
        r"argument proposals.*striate data proposals --config",
    ):
        lacking = {**target(), "image_id": torch.tensor(7)}
        Echo().losses(random_images((4, 8), (4, 8)), [with_proposals(), lacking])


@pytest.mark.parametrize(
    ("boxes", "error", "message"),
    [
        (torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 8.5, 2.0]]), ValueError, r"proposal 1 .*inside.*8 x 4.*8\.5"),
        (torch.tensor([[1.0, 1.0, 1.0, 3.0]]), ValueError, "proposal 0 "),
        (torch.tensor([[0.0, 0.0, float("nan"), 3.0]]), ValueError, "proposal 0 .*nan"),
        (torch.zeros(3, 5), ValueError, r"must be \[P, 4\], got \[3, 5\]"),
        (torch.zeros(1, 4, dtype=torch.int64), TypeError, "floating point tensor .*int64"),
    ],
)
def test_wrong_proposals_name_the_image(boxes, error, message):
    images = random_images((4, 8), (4, 8))
    with pytest.raises(error, match=rf"images\[1\]: .*{message}"):
        Echo()(images, [BOXES, boxes])
    wrong = with_proposals(boxes, image_id=torch.tensor(9))
    with pytest.raises(error, match=rf"targets\[1\] \(image_id 9\): .*{message}"):
        Echo().losses(images, [with_proposals(), wrong])


def test_proposals_for_another_number_of_images():
    with pytest.raises(ValueError, match="proposals: must be one tensor per image, got 1 for 2 images"):
        Echo()(random_images((4, 8), (4, 8)), [BOXES])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "rpn"}, "proposer.method: must be one of 'selective_search'"),
        ({"mode": "fats"}, "proposer.mode: .*did you mean 'fast'"),
        ({"max_proposals": 0}, "proposer.max_proposals: must be >= 1, got 0"),
        ({"min_side": 0}, "proposer.min_side: must be >= 1"),
    ],
)
def test_wrong_settings_of_the_proposer(arguments, message):
    with pytest.raises(ValueError, match=message):
        Echo(proposer=arguments)


def test_settings_are_plain_values():
    assert dataclasses.asdict(Proposer())["max_proposals"] == 2000
