"""Tests of the recall of proposals, by hand."""

import numpy as np

from striate.datamodules.proposals.recall import ProposalRecall, object_ranks

OBJECTS = np.array([[0, 0, 10, 10], [20, 20, 30, 40], [50, 50, 60, 60]], float)
# IoU 0.6 with the first object, 0 with all, 1 with the second, 0.5 and then 0.8 with the first
PROPOSALS = np.array([[0, 0, 10, 6], [70, 0, 80, 10], [20, 20, 30, 40], [0, 0, 10, 5], [0, 0, 10, 8]], float)


def test_ranks_of_the_first_proposal_that_overlaps_enough():
    assert object_ranks(OBJECTS, PROPOSALS).tolist() == [[0, 2, -1], [4, 2, -1]]
    assert object_ranks(OBJECTS, PROPOSALS[:0]).tolist() == [[-1] * 3] * 2
    assert object_ranks(OBJECTS[:0], PROPOSALS).shape == (2, 0)


def test_recall_by_the_number_of_proposals():
    recall = ProposalRecall("val", np.array([5]), object_ranks(OBJECTS, PROPOSALS))
    expected = [[0, 1 / 3, 1 / 3, 2 / 3, 2 / 3], [0, 0, 0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(recall.recall([0, 1, 2, 3, 5]), expected)
    assert str(recall) == "Proposals of val: 5 per image, at most 5; recall 0.667 at IoU 0.5, 0.667 at IoU 0.7."


def test_without_objects_it_is_not_a_number():
    assert np.isnan(ProposalRecall("val", np.array([5]), np.zeros((2, 0))).recall([1])).all()
