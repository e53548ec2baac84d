"""Boxes in fractions of the image and in pixels: recognized only where all or most of them say so."""

from pathlib import Path

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.normalized import (
    are_fractions,
    reject_fractions,
    reject_pixels,
    warn_of_mixed_units,
    warn_of_percent,
)
from striate.tests.helpers.faults import stops_at

SIZE = np.array([[64, 48]])
FRACTIONS = np.array([[0.1, 0.2, 0.5, 0.9], [0.0, 0.0, 1.0, 1.0], [0.3, 0.3, 1.02, 0.7]])


@pytest.mark.parametrize(
    ("boxes", "size", "expected"),
    [
        (FRACTIONS, (64, 48), True),
        (FRACTIONS, (0, 0), True),  # unknown size
        (FRACTIONS, (2, 2), False),  # an image of two pixels: these may be pixels
        (np.vstack([FRACTIONS, [[3, 3, 9, 9]]]), (64, 48), False),  # one box in pixels
        (np.vstack([FRACTIONS, [[np.nan, 3, 9, 9]]]), (64, 48), True),
        (np.full((2, 4), np.nan), (64, 48), False),
        (np.ones((2, 4)), (64, 48), False),  # VOC's first pixel
        (np.zeros((0, 4)), (64, 48), False),
    ],
)
def test_boxes_are_fractions_if_all_lie_in_0_to_1(boxes, size, expected):
    assert are_fractions(boxes, np.tile(size, (len(boxes), 1))) is expected


def test_fractions_are_rejected_with_the_first_box_and_what_to_do():
    sizes = np.tile(SIZE, (3, 1))
    with stops_at("box-normalized", match=r"a\.csv, x1, y1: .*fractions.*all 3 .*0\.1, 0\.2, 0\.5, 0\.9\); set it"):
        reject_fractions(FRACTIONS, sizes, Path("a.csv"), "x1, y1", "set it")
    with record_faults() as faults:
        assert reject_fractions(FRACTIONS, sizes, Path("a.csv"), "x1, y1", "")
    assert [fault.code for fault in faults] == ["box-normalized"]
    assert not reject_fractions(FRACTIONS * 48, sizes, Path("a.csv"), "x1, y1", "")


def test_pixels_are_rejected_if_most_boxes_have_them():
    boxes = np.array([[1.0, 2, 30, 40], [0, 0, 5, 5], [0, 0, 1, 1]])
    with stops_at("box-in-pixels", match=r"a\.csv, x1: .*2 of 3 .*1, 2, 30, 40; set it"):
        reject_pixels(boxes, Path("a.csv"), "x1", "set it")
    assert not reject_pixels(np.vstack([boxes[1:], FRACTIONS]), Path("a.csv"), "x1", "")


MIXED = np.vstack([FRACTIONS[:2], [[3, 4, 9, 9], [0, 0, 1, 1], [0.5, 0.5, 30, 1], [np.nan, 0, 0.5, 0.5]]])


@pytest.mark.parametrize(
    ("normalized", "expected", "message"),
    [
        (False, [0], r"^1 of 6 lie in 0 to 1, but pixels .*a\.csv, line 10, got 0\.1, 0\.2, 0\.5, 0\.9\)"),
        (True, [2, 4], r"^2 of 6 have a coordinate beyond 2, but fractions .*a\.csv, line 12, got 3, 4, 9, 9\)"),
    ],
)
def test_boxes_in_another_unit_than_the_others(normalized, expected, message):
    arguments = (MIXED, np.tile(SIZE, (6, 1)), normalized, Path("a.csv"), list(range(10, 16)), "line")
    with pytest.warns(UserWarning, match=message):
        warn_of_mixed_units(*arguments)
    with record_faults() as faults:
        warn_of_mixed_units(*arguments)
    assert [(fault.code, fault.names) for fault in faults] == [("box-mixed-units", [10 + k for k in expected])]
    np.testing.assert_array_equal(faults[0].boxes, MIXED[expected])


def test_boxes_of_one_unit_are_not_warned_of():
    for boxes, normalized in ((FRACTIONS, True), (np.array([[1.0, 2, 30, 40], [0, 0, 1, 1]]), False)):
        warn_of_mixed_units(boxes, np.tile(SIZE, (len(boxes), 1)), normalized, Path("a.csv"), range(len(boxes)))
    warn_of_mixed_units(FRACTIONS[:1], np.array([[2, 2]]), False, Path("a.csv"), [1])  # an image of two pixels


def test_percentages_are_warned_of():
    boxes = np.array([[0.0, 5, 60, 95], [10, 10, 20, 20], [90, 0, 100, 10]])
    with pytest.warns(UserWarning, match=r"may be percentages.*all 3 lie in 0 to 100.*480 pixels \(a, bbox\)"):
        warn_of_percent(boxes, np.array([[640, 480]] * 3), Path("a"), "bbox")
    for other, size in ((boxes + 1, 480), (boxes / 2, 480), (boxes, 150), (boxes[:1], 480)):
        warn_of_percent(other, np.array([[640, size]] * len(other)), Path("a"), "bbox")
