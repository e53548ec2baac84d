"""Intersections and boundaries of run lengths against dense masks and OpenCV's erosion."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from striate.models.ops import mask_overlaps
from striate.models.ops.mask_overlaps import mask_boundaries, mask_intersections, sum_masks
from striate.models.ops.masks import RunLengths


def random_masks(count: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """Masks from empty to full: bool ``[count, height, width]``."""
    return torch.rand(count, height, width, generator=generator) > torch.rand(count, 1, 1, generator=generator) * 1.2


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 12), st.integers(0, 6), st.integers(0, 6))
def test_intersections_windows_and_boundaries_equal_dense_masks(seed, height, width, first, second) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = (random_masks(count, height, width, generator) for count in (first, second))
    runs, others = RunLengths.from_dense(one), RunLengths.from_dense(other)
    rows, columns, pixels = mask_intersections(runs, others)
    table = torch.zeros(first, second, dtype=torch.int64)
    table[rows, columns] = pixels
    assert torch.equal(table, (one[:, None] & other[None]).sum((2, 3))) and bool((pixels > 0).all())
    assert torch.equal(RunLengths.from_windows(list(runs.windows()), (height, width)).dense(), one)
    for ratio in (0.02, 0.3):
        distance = max(1, round(ratio * float(np.hypot(height, width))))
        for mask, border in zip(one.numpy(), mask_boundaries(runs, ratio).dense().numpy(), strict=True):
            padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            inner = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[1:-1, 1:-1]
            assert np.array_equal(border, mask & (inner == 0))


def test_blocks_give_the_same_pairs(monkeypatch) -> None:
    masks = RunLengths.from_dense(random_masks(9, 20, 30, torch.Generator().manual_seed(1)))
    whole = mask_intersections(masks, masks)
    monkeypatch.setattr(mask_overlaps, "BLOCK", 100)
    for part, expected in zip(mask_intersections(masks, masks), whole, strict=True):
        assert torch.equal(part, expected)


def test_bad_arguments() -> None:
    masks, other = (RunLengths.from_dense(torch.ones(1, side, 4)) for side in (4, 5))
    with pytest.raises(ValueError, match=r"second: must have masks of \(4, 4\) pixels .height, width., got \(5, 4\)"):
        mask_intersections(masks, other)
    with pytest.raises(ValueError, match="boundary: must be > 0"):
        mask_boundaries(masks, 0)


def test_weighted_sums_of_masks_equal_dense_ones() -> None:
    generator = torch.Generator().manual_seed(5)
    dense = random_masks(9, 7, 5, generator)
    dense[2], dense[3] = True, False
    sums, weights = torch.tensor([3, 0, 3, 0, 1, 0, 3, 1, 1]), torch.tensor([1.0, 2, 1, 3, 1, 1, 0.5, 4, 2])
    expected = torch.zeros(4, 7, 5).index_add_(0, sums, weights[:, None, None] * dense)
    for threshold in (0.5, 1, 2.5, 8):
        found = sum_masks(RunLengths.from_dense(dense), sums, weights, 4, threshold)
        assert torch.equal(found.dense(), expected >= threshold)
        assert torch.equal(found.edges, RunLengths.from_dense(expected >= threshold).edges)
    assert sum_masks(RunLengths.from_dense(dense[:0]), sums[:0], weights[:0], 2, 1).dense().shape == (2, 7, 5)
