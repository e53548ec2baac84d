"""Mask voting: weights and sums by hand, and sums of random masks against dense ones."""

import pytest
import torch

from striate.models.instance import vote_masks, voting_weights
from striate.models.instance.mask_voting import tight_boxes
from striate.models.ops.masks import RunLengths


def test_weights_are_scores_of_the_class_of_regions_that_overlap() -> None:
    regions = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 2.0], [0.0, 0.0, 4.0, 1.9], [8.0, 8.0, 9.0, 9.0]])
    scores = torch.tensor([[0.6, 0.1], [0.2, 0.3], [0.9, 0.9], [0.9, 0.9]])
    # an IoU of exactly 0.5 counts; the second detection is of another class, with its own scores
    weights = voting_weights(regions[[0, 0]], torch.tensor([0, 1]), regions, scores, 0.5)
    torch.testing.assert_close(weights, torch.tensor([[0.75, 0.25, 0, 0], [0.25, 0.75, 0, 0]]))


def test_votes_by_hand() -> None:
    masks = RunLengths.from_dense(
        torch.tensor([[[1, 1, 0, 0], [1, 1, 0, 0]], [[0, 1, 1, 0], [0, 1, 1, 0]], [[0, 0, 0, 0], [0, 0, 0, 1]]]).bool()
    )
    weights = torch.tensor([[0.6, 0.4, 0.0], [0.3, 0.3, 0.4], [0.39, 0.3, 0.31], [0.0, 0.0, 0.0]])
    voted = vote_masks(masks, weights, 0.4)
    assert voted.dense().int().tolist() == [
        [[1, 1, 1, 0], [1, 1, 1, 0]],  # a sum of exactly 0.4 counts
        [[0, 1, 0, 0], [0, 1, 0, 1]],
        [[0, 1, 0, 0], [0, 1, 0, 0]],  # 0.39 and 0.31 do not
        [[0, 0, 0, 0], [0, 0, 0, 0]],
    ]
    assert voted.edges.tolist()[:2] == [0, 6]  # runs that touch are one
    boxes = torch.tensor([[0.2, 0.1, 3.4, 2.0]]).repeat(4, 1)
    assert tight_boxes(boxes, voted).tolist()[:3] == [[0, 0, 3, 2], [1, 0, 4, 2], [1, 0, 2, 2]]
    assert torch.equal(tight_boxes(boxes, voted)[3], boxes[3])  # of an empty mask


@pytest.mark.parametrize("threshold", [0.0, 0.3, 0.4, 1.0])
def test_votes_equal_sums_of_pixels(threshold: float) -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(20, 9, 13, generator=generator) > 0.4
    dense[3] = True
    weights = torch.rand(70, 20, generator=generator, dtype=torch.float64) * (torch.rand(70, 20) > 0.5)
    weights[0] = 0
    weights[1] = torch.eye(20)[3]
    weights /= weights.sum(1, keepdim=True).clamp(min=1e-9)
    sums = torch.einsum("mr,rhw->mhw", weights, dense.double())
    expected = (sums >= threshold - 1e-6) & (sums > 0)
    assert torch.equal(vote_masks(RunLengths.from_dense(dense), weights, threshold).dense(), expected)


def test_no_detections_and_wrong_weights() -> None:
    masks = RunLengths.from_dense(torch.ones(2, 3, 4).bool())
    assert vote_masks(masks, torch.zeros(0, 2), 0.4).dense().shape == (0, 3, 4)
    assert vote_masks(masks[:0], torch.zeros(0, 0), 0.4).dense().shape == (0, 3, 4)
    with pytest.raises(ValueError, match=r"weights: must be \[M, 2\].*got \[3, 1\]"):
        vote_masks(masks, torch.ones(3, 1), 0.4)
    with pytest.raises(ValueError, match=r"mask_threshold.*got 1.5"):
        vote_masks(masks, torch.ones(3, 2), 1.5)
