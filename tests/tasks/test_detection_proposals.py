"""Tests of the task of detection with a batch's proposals: they reach a model that takes them, in every stage."""

import pytest
import torch

from striate.tasks import Detection
from striate.tasks.interfaces import Predictor

from ..helpers.detector_inputs import detection_batch, detection_target
from ..helpers.proposals import Echo
from ..helpers.tiny_detector import Known

PROPOSALS = [torch.tensor([[0.0, 0.0, 8.0, 4.0], [2.0, 1.0, 6.0, 3.0]]), torch.zeros(0, 4)]


def batch():
    # two objects and two proposals: those of a crowd must not take a proposal with them
    targets = [detection_target([[1, 1, 3, 3], [0, 0, 4, 4]], [0, 1], iscrowd=[True, False]), detection_target([], [])]
    return {**detection_batch([(4, 8), (4, 4)], targets), "proposals": PROPOSALS}


def test_training():
    model = Echo()
    Detection(model, 3).losses(batch())
    first, second = model.trained_on
    assert first["boxes"].tolist() == [[0, 0, 4, 4]]
    assert first["proposals"].tolist() == PROPOSALS[0].tolist() and second["proposals"].shape == (0, 4)


def test_training_without_proposals_is_an_error():
    lacking = batch()
    del lacking["proposals"]
    with pytest.raises(ValueError, match="must have proposals.*striate data proposals"):
        Detection(Echo(), 3).losses(lacking)


def test_evaluation_and_prediction():
    task = Detection(Echo(), 3)
    _, outputs = task.evaluate(batch())
    predicted = task.predict_step({"image": batch()["image"], "proposals": PROPOSALS}, 0)
    for results in (outputs, predicted):
        assert [one["boxes"].tolist() for one in results] == [boxes.tolist() for boxes in PROPOSALS]


def test_predicting_a_transformed_batch_as_pictures_do():
    task = Detection(Echo(), 3)
    task.class_names = ["a", "b", "c"]
    assert isinstance(task, Predictor)
    (predicted,) = task.predict(batch()["image"][0][None], proposals=PROPOSALS[:1])
    assert predicted["names"] == ["a", "b"] and predicted["boxes"].tolist() == PROPOSALS[0].tolist()


def test_a_detector_that_takes_none_ignores_them():
    task = Detection(Known([[0, 0, 1, 1, 0, 0.5]]), 2)
    task.losses(batch())
    assert "proposals" not in task.model.seen[0]
    assert len(task.evaluate(batch())[1]) == 2


def test_windows_reject_stored_proposals():
    with pytest.raises(ValueError, match=r"window: must be null with stored proposals.*\(4, 4\)"):
        Detection(Echo(), 3, window=4).evaluate(batch())
