"""Thumbnails with boxes, and masks drawn over their images."""

import numpy as np

from striate.datamodules.doctor import pictures


def test_thumbnails_show_boxes_outside_the_image():
    image = np.full((40, 60, 3), 200, np.uint8)
    inside = pictures.thumbnail(image, [(10, 10, 30, 30)])
    assert inside.shape == (147, 220, 3)
    red = (inside == (230, 57, 70)).all(axis=2)
    scale = 220 / 60
    assert red[round(10 * scale) : round(30 * scale), round(10 * scale)].all() and not red[:, : round(8 * scale)].any()
    beyond = pictures.thumbnail(image, [(50, 10, 80, 30)])
    assert max(beyond.shape) in (219, 220, 221) and (beyond[:, -3] == (60, 60, 66)).all()  # gray, on the right
    assert pictures.thumbnail(np.zeros((20, 20000, 3), np.uint8)).shape == (1, 220, 3)
    assert pictures.thumbnail(np.zeros((1, 1, 3), np.uint8), [(0, 0, 1, np.nan)]).shape == (4, 4, 3)


def test_overlays_do_not_color_the_background():
    image = np.full((2, 3, 3), 100, np.uint8)
    shown = pictures.overlay(image, np.array([[0, 1, 255], [0, 2, 2]], np.uint8))
    assert (shown[:, 0] == 100).all() and shown[0, 2].tolist() == [114] * 3
    assert shown[0, 1].tolist() != shown[1, 1].tolist() == shown[1, 2].tolist()
