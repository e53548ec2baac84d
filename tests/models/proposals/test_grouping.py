"""Similarities, propagation and the hierarchy: by hand on four regions, and against a slow, plain version."""

import numpy as np
import pytest

from striate.models.proposals.grouping import _Growing, group_regions
from striate.models.proposals.regions import color_indices, measure_regions, texture_indices
from striate.tests.helpers.regions import four_regions, plain_hierarchy

ALL = ("color", "texture", "size", "fill")


def similarities(measures):
    """The similarity of each pair of neighbors of the four regions, of which the image has 12 pixels."""
    regions = four_regions()
    values = _Growing(regions, measures).similarities(*regions.pairs.T)
    return dict(zip(map(tuple, regions.pairs.tolist()), values, strict=True))


BY_HAND = {
    "color": {(0, 1): 0.5, (0, 2): 0, (1, 2): 0.5, (1, 3): 0.5, (2, 3): 1},
    # 6 of 8 orientations agree where one region has texture to the right and the other to the left
    "texture": {(0, 1): 7 / 8, (0, 2): 6 / 8, (1, 2): 7 / 8, (1, 3): 1, (2, 3): 7 / 8},
    "size": {(0, 1): 4 / 12, (0, 2): 5 / 12, (1, 2): 5 / 12, (1, 3): 7 / 12, (2, 3): 8 / 12},
    # areas of the boxes around both: 8, 9, 12, 6, 4
    "fill": {(0, 1): 1, (0, 2): 10 / 12, (1, 2): 7 / 12, (1, 3): 11 / 12, (2, 3): 1},
}


@pytest.mark.parametrize("measures", [("color",), ("texture",), ("size",), ("fill",), ALL, ALL[1:]])
def test_similarities_by_hand(measures):
    expected = {pair: sum(BY_HAND[measure][pair] for measure in measures) for pair in BY_HAND["color"]}
    assert similarities(measures) == pytest.approx(expected)


def test_propagation_by_hand():
    growing = _Growing(four_regions(), ALL)
    growing.join(1, 3, 4)  # 4 pixels, half white, and 1 white pixel
    assert growing.sizes[4] == 5
    assert (growing.boxes[4] * [-1, -1, 1, 1]).tolist() == [2, 0, 4, 3]
    np.testing.assert_allclose(growing.bins[4, [0, 24]], [0.4, 0.6])
    growing.join(0, 2, 5)  # 4 pixels with texture to the right, 3 with texture to the left
    texture = growing.bins[5, 25:].reshape(8, 10) * 8
    np.testing.assert_allclose(texture[0, [0, 3]], [3 / 7, 4 / 7])
    np.testing.assert_allclose(texture[4, [0, 3]], [4 / 7, 3 / 7])
    np.testing.assert_allclose(texture[1, 0], 1)


def test_hierarchy_by_hand():
    """By color: 2 and 3 are alike; then 0 with 1 and 1 with 4 are equally similar, and the lower pair is joined."""
    hierarchy = group_regions(four_regions(), ["color"])
    assert hierarchy.parts.tolist() == [[2, 3], [0, 1], [4, 5]]
    assert hierarchy.boxes[4:].tolist() == [[0, 2, 4, 3], [0, 0, 4, 2], [0, 0, 4, 3]]
    # by size: 2 and 3 first; their 4 pixels are as many as those of 0 and 1
    assert group_regions(four_regions(), ["size"]).parts.tolist() == [[2, 3], [0, 1], [4, 5]]
    # by texture: 1 and 3; then 0 with 4 and 2 with 4 have 7 / 8, and 0 with 2 has 6 / 8
    assert group_regions(four_regions(), ["texture"]).parts.tolist() == [[1, 3], [0, 4], [2, 5]]


def patches(seed, count=22, shape=(34, 40)):
    """An image of patches around random centers, each of a color of its own, with noise; and its patches' numbers."""
    random = np.random.default_rng(seed)
    centers = random.uniform(0, 1, (count, 2)) * shape
    pixels = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    labels = ((pixels[:, :, None] - centers) ** 2).sum(-1).argmin(-1)
    labels = np.unique(labels, return_inverse=True)[1].reshape(shape)
    colors = random.integers(0, 256, (count, 3))
    image = np.clip(colors[labels] + random.normal(0, 30, (*shape, 3)), 0, 255).astype(np.uint8)
    return image, labels


@pytest.mark.parametrize("measures", [ALL, ALL[1:], ("fill",), ("size",), ("color",)])
def test_hierarchy_against_a_plain_version(measures):
    image, labels = patches(seed=len(measures))
    bins = color_indices(image), texture_indices(image)
    regions = measure_regions(labels, *bins)
    found = group_regions(regions, measures)
    expected = plain_hierarchy(labels, *bins, measures)
    assert found.boxes[len(regions.sizes) :].tolist() == [list(map(int, box)) for box in expected]
    assert len(found.parts) == len(expected) > 10


def test_one_region_has_no_hierarchy():
    flat = np.zeros((3, 4, 1), dtype=np.uint8)
    regions = measure_regions(np.zeros((3, 4), int), color_indices(flat), texture_indices(flat))
    hierarchy = group_regions(regions, ALL)
    assert hierarchy.boxes.tolist() == [[0, 0, 4, 3]] and hierarchy.parts.shape == (0, 2)
