"""Sizes, boxes, neighbors and histograms of regions, by hand; texture against a direct convolution."""

import numpy as np
import pytest

from striate.models.proposals.regions import (
    color_indices,
    measure_regions,
    neighbor_pairs,
    segment,
    texture_indices,
)
from striate.tests.helpers.regions import four_regions


def test_sizes_and_boxes():
    regions = four_regions()
    assert regions.sizes.tolist() == [4, 4, 3, 1]
    assert regions.boxes.tolist() == [[0, 0, 2, 2], [2, 0, 4, 2], [0, 2, 3, 3], [3, 2, 4, 3]]


def test_neighbors_touch_at_sides_or_corners():
    assert four_regions().pairs.tolist() == [[0, 1], [0, 2], [1, 2], [1, 3], [2, 3]]
    assert neighbor_pairs(np.array([[0, 1], [2, 3]])).tolist() == [[0, 1], [0, 2], [0, 3], [1, 2], [1, 3], [2, 3]]
    assert neighbor_pairs(np.array([[0, 0, 1, 2]])).tolist() == [[0, 1], [1, 2]]
    assert neighbor_pairs(np.zeros((1, 1), dtype=np.int64)).shape == (0, 2)


def test_color_histograms():
    color = four_regions().color
    assert color.shape == (4, 25)
    assert color[:, 0].tolist() == [1, 0.5, 0, 0] and color[:, 24].tolist() == [0, 0.5, 1, 1]
    np.testing.assert_allclose(color.sum(axis=1), 1)


def test_bins_are_around_25_levels():
    levels = np.array([[[0], [5], [6], [15], [16], [127], [249], [250], [255]]], dtype=np.uint8)
    # 255 / 24 = 10.625 apart
    assert color_indices(levels).ravel().tolist() == [0, 0, 1, 1, 2, 12, 23, 24, 24]


def test_channels_share_one_histogram_of_sum_1():
    channels = np.zeros((1, 2, 3), dtype=np.uint8)
    channels[0, 1, 2] = 255
    regions = measure_regions(np.zeros((1, 2), int), color_indices(channels), texture_indices(channels))
    third = 1 / 3
    np.testing.assert_allclose(regions.color[0, [0, 25, 50, 74]], [third, third, third / 2, third / 2])
    assert regions.texture.shape == (1, 240)
    np.testing.assert_allclose(regions.texture.sum(), 1)


def test_texture_histograms_of_eight_orientations():
    texture = four_regions().texture.reshape(4, 8, 10) * 8  # each orientation sums to 1 now
    expected = np.zeros((4, 8, 10))
    expected[..., 0] = 1
    expected[0, 0, [0, 3]] = 0, 1  # to the right
    expected[2, 4, [0, 3]] = 0, 1  # the opposite
    np.testing.assert_allclose(texture, expected)


def direct_texture(channel):
    """Bins of the derivatives in eight orientations, ``[8, H, W]``, by a convolution with a kernel for each."""
    reach = np.arange(-4, 5)
    bell = np.exp(-(reach**2) / 2)
    bell /= bell.sum()
    slope = -reach * bell
    padded = np.pad(channel / 255, 4, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (9, 9))
    bins = []
    for orientation in range(8):
        angle = orientation * np.pi / 4
        # correlating with the derivative of the Gaussian, mirrored
        kernel = -(np.cos(angle) * np.outer(bell, slope) + np.sin(angle) * np.outer(slope, bell))
        derivative = (windows * kernel).sum(axis=(2, 3))
        bins.append(np.minimum(np.rint(np.maximum(derivative, 0) * 9 / 0.43), 9))
    return np.stack(bins)


def test_texture_against_a_direct_convolution():
    channels = np.random.default_rng(0).integers(0, 256, (24, 30, 2), dtype=np.uint8)
    indices = texture_indices(channels)
    for number in range(2):
        expected = direct_texture(channels[..., number])
        for orientation in range(4):
            signed = expected[orientation] - expected[orientation + 4]
            differ = indices[:, :, number, orientation] != signed
            assert differ.mean() < 0.001 and (signed > 0).any() and (signed < 0).any()


def test_a_step_to_the_right():
    step = np.zeros((9, 12, 1), dtype=np.uint8)
    step[:, 6:] = 255
    right, diagonal, down, other = np.moveaxis(texture_indices(step)[:, :, 0], -1, 0)
    # the sum of x times the Gaussian's density at x = 1, 2, … is 0.364, times 9 / 0.43
    assert (right[:, 5:7] == 8).all() and (right[:, :2] == 0).all() and (down == 0).all()
    assert (diagonal[:, 5:7] == 5).all() and (other[:, 5:7] == -5).all()
    np.testing.assert_array_equal(texture_indices(255 - step), -texture_indices(step))


def test_segments_have_the_minimum_size_and_one_channel_counts_three_times():
    pytest.importorskip("skimage")
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    for k in (30, 120):
        assert np.bincount(segment(image, k).ravel()).min() >= k
    gray = image[..., :1]
    np.testing.assert_array_equal(segment(gray, 50), segment(gray.repeat(3, axis=2), 50))


def test_a_larger_scale_gives_fewer_segments():
    """A difference of 20 levels exceeds k / size of regions of 200 pixels if k is below 4,000."""
    pytest.importorskip("skimage")
    halves = np.zeros((20, 20, 3), dtype=np.uint8)
    halves[:, 10:] = 12  # a distance of 12 * sqrt(3) = 20.8 before smoothing, which leaves steps of a third
    counts = [segment(halves, k).max() + 1 for k in (100, 5000)]
    assert counts == [2, 1]
