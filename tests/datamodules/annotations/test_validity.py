"""The rules of valid boxes, by hand."""

from pathlib import Path

import numpy as np
import pytest

from striate.datamodules.annotations.annotation_errors import AnnotationErrors, DataError, record_faults
from striate.datamodules.annotations.objects import usable_boxes
from striate.datamodules.annotations.validity import box_faults, differs_from_mask, repair_boxes


def test_box_faults():
    boxes = [
        [0, 0, 9, 9],
        [9, 0, 0, 9],
        [3, 3, 3, 9],
        [10, 0, 12, 9],
        [-2, 0, 0, 9],
        [-1, 0, 5, 9],
        [0, 0, 5, 10.9],
        [1, 1, 5, np.inf],
    ]
    expected = ["", "box-inverted", "box-zero-area", "box-outside", "box-outside", "box-beyond", "", "box-not-finite"]
    assert box_faults(np.array(boxes), np.full((8, 2), 10)).tolist() == expected


def test_boxes_of_masks_may_differ_a_little():
    tight = np.array([[10, 10, 20, 20], [10, 10, 20, 20], [0, 0, 100, 50], [0, 0, 100, 50]], float)
    given_ = np.array([[8, 10, 20, 20], [7, 10, 20, 20], [9, 0, 100, 50], [0, 12, 100, 50]], float)
    assert differs_from_mask(tight, given_).tolist() == [False, True, False, True]


def test_repaired_boxes():
    boxes = [
        [5, 5, 9, 9],
        [9, 9, 5, 5],
        [-4, 5, 9, 9],
        [5, 5, 5, 9],
        [np.nan, 1, 2, 2],
        [30, 5, 20, 9],
        [-0.5, 0, 5, 20.5],
    ]
    out, codes, kept = repair_boxes(np.array(boxes, np.float64), np.full((7, 2), 20))
    assert codes.tolist() == ["", "box-inverted", "box-beyond", "box-zero-area", "box-not-finite", "box-inverted", ""]
    assert kept.tolist() == [True, True, True, False, False, False, True]
    assert out[:3].tolist() == [[5, 5, 9, 9], [5, 5, 9, 9], [0, 5, 9, 9]] and out[6].tolist() == boxes[6]


def test_sides_below_the_minimum_are_outside():
    boxes = np.array([[0.5, 0.5, 0.5 + 1e-7, 0.6], [0.5, 0.5, 0.5 + 1e-5, 0.6]])
    assert box_faults(boxes, np.ones((2, 2)), min_side=1e-6).tolist() == ["box-outside", ""]


def test_boxes_far_beyond_their_image_are_a_fault_of_their_own():
    boxes = np.array([[-1e300, 1, 1e300, 5], [1e300, 1, 2e300, 5], [1, 1, 5, 5], [0, 0, 5, 101], [-100, 0, 5, 100]])
    with record_faults() as faults:
        usable = usable_boxes(boxes, np.full((5, 2), 10), np.arange(5), AnnotationErrors(Path("a"), strict=True))
    assert usable.tolist() == [False, False, True, False, True]
    assert {fault.code: fault.names for fault in faults} == {
        "box-far-beyond": [0, 3],
        "box-outside": [1],
        "box-beyond": [4],
    }


def test_boxes_far_beyond_their_image_are_refused():
    boxes = np.array([[1, 1, 5, 5], [0, 0, 1e30, 20]])
    message = r"a\.csv, line 7: .*beyond ten times its image, got \[0, 0, 1e\+30, 20\] in an image of 64x20"
    with pytest.raises(DataError, match=message):
        usable_boxes(boxes, np.full((2, 2), [64, 20]), np.array([3, 7]), AnnotationErrors(Path("a.csv"), False), "line")


def test_boxes_that_lose_more_than_rounding_are_warned_of(recwarn):
    boxes = np.array([[0, 0, 105, 50], [-5, 0, 50, 50]], np.float64)
    usable_boxes(boxes, np.full((2, 2), 100), np.arange(2), AnnotationErrors(Path("a"), False))
    assert not recwarn.list and boxes.tolist() == [[0, 0, 100, 50], [0, 0, 50, 50]]
    boxes = np.array([[0, 0, 105, 50], [-6, 0, 50, 50], [0, 0, 90, 400]], np.float64)
    with pytest.warns(UserWarning, match=r"2 boxes are clipped, .*first: a, annotation 1, got \[-6, 0, 50, 50\]"):
        assert usable_boxes(boxes, np.full((3, 2), 100), np.arange(3), AnnotationErrors(Path("a"), False)).all()
