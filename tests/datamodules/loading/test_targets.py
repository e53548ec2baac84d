"""Targets of a raw sample: defaults, checks, and geometry of boxes and masks."""

import numpy as np
import pytest

from striate.datamodules.loading.targets import boxes_of_masks, counted_values, fill_defaults
from striate.tests.helpers.samples import box_masks, detection_sample, transformed


def test_boxes_of_masks():
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 2, 3] = masks[1, :, 0] = masks[2, 4, 6] = masks[2, 1, 2] = True
    assert boxes_of_masks(masks).tolist() == [[3, 2, 4, 3], [0, 0, 1, 5], [2, 1, 7, 5]]
    assert boxes_of_masks(masks[:0]).shape == (0, 4)


def test_missing_fields_get_defaults():
    out = transformed(detection_sample())
    assert out["iscrowd"].tolist() == out["difficult"].tolist() == [False, False] and out["iscrowd"].dtype == np.bool_
    assert out["area"].tolist() == [300, 400] and out["area"].dtype == np.float32 and out["image_id"] == 0
    mask = box_masks([(10, 5, 20, 20), (40, 20, 60, 40)])
    assert fill_defaults(detection_sample(masks=True) | {"masks": mask.astype(bool)}, 5)["area"].tolist() == [150, 400]
    assert fill_defaults(detection_sample(), 5)["image_id"] == 5


@pytest.mark.parametrize(
    "change, message",
    [
        ({"labels": np.array([3, 9])}, "sample 0 of Samples: label: .*9 classes.*got 9"),
        (
            {"boxes": [[0, 0, 61, 5], [0, 0, 5, 5]]},
            r"box: .*x2 <= 60 and .*y2 <= 40, got \[0.0, 0.0, 61.0, 5.0\]",
        ),
        ({"boxes": [[0, 0, 5, 5], [5, 0, 5, 5]]}, r"box: .*got \[5.0, 0.0, 5.0, 5.0\]"),
        ({"boxes": [[0, 0, 5, 5], [np.nan, 0, 5, 5]]}, r"box: .*got \[nan"),
        ({"labels": np.array([3])}, "labels: .*got 1 for 2 boxes"),
        ({"masks": np.zeros((2, 60, 40), np.uint8)}, r"masks: .*N, 40, 60\].*got \[2, 60, 40\]"),
        ({"mask": np.zeros((40, 61), np.uint8)}, r"mask: .*\[40, 60\].*got uint8 \[40, 61\]"),
        (
            {"mask": np.full((40, 60), 9, np.uint8)},
            r"mask: .*9 classes.*255 = ignore, got 9 \(2400 pixels\)",
        ),
        ({"mask": np.zeros((40, 60), np.int64)}, "mask: .*got int64"),
    ],
)
def test_invalid_targets_are_rejected(change, message):
    with pytest.raises(ValueError, match=message):
        transformed(detection_sample() | change, num_classes=9)


def test_counted_values():
    assert counted_values(np.array([[9, 7], [7, 300]])) == "7 (2 pixels), 9 (1 pixel), 300 (1 pixel)"
    assert counted_values(np.arange(8), limit=2) == "0 (1 pixel), 1 (1 pixel) and 6 more"
