"""Color spaces of selective search: against colorsys, OpenCV, and by hand."""

import colorsys

import cv2
import numpy as np
import pytest

from striate.models.proposals.color_spaces import convert_color


def noise(height=20, width=30, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_hsv_is_scaled_to_255():
    pytest.importorskip("skimage")
    image = noise()
    expected = [[[255 * v for v in colorsys.rgb_to_hsv(*(p / 255))] for p in row] for row in image]
    difference = np.abs(convert_color(image, "hsv") - np.rint(expected))
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01  # halves are rounded either way
    np.testing.assert_array_equal(convert_color(image, "h"), convert_color(image, "hsv")[..., :1])


def test_lab_is_that_of_opencv():
    pytest.importorskip("skimage")
    image = noise()
    theirs = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    assert np.abs(convert_color(image, "lab").astype(int) - theirs).max() <= 1
    white_black = np.array([[[255] * 3, [0] * 3]], dtype=np.uint8)
    assert convert_color(white_black, "lab").tolist() == [[[255, 128, 128], [0, 128, 128]]]


def test_normalized_red_and_green_are_stretched_and_black_is_gray():
    image = np.array([[[200, 0, 0], [0, 100, 0], [0, 0, 0], [10, 10, 20]]], dtype=np.uint8)
    # shares of red: 1, 0, 1/3, 1/4; of green: 0, 1, 1/3, 1/4
    intensity = [0.299 * 200, 0.587 * 100, 0, 0.299 * 10 + 0.587 * 10 + 0.114 * 20]
    expected = np.rint([[255, 0, 85, 255 / 4], [0, 255, 85, 255 / 4], intensity]).T
    np.testing.assert_array_equal(convert_color(image, "rgi")[0], expected)
    np.testing.assert_array_equal(convert_color(image, "intensity")[0, :, 0], np.rint(intensity))
    np.testing.assert_array_equal(convert_color(image, "rgb"), image)


def test_a_single_color_has_no_range_to_stretch():
    assert convert_color(np.full((2, 2, 3), 90, np.uint8), "rgi").tolist() == [[[0, 0, 90]] * 2] * 2
