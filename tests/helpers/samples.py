"""Raw samples of sources, and the conventions that augmented ones must follow."""

import numpy as np
from hypothesis import strategies as st


class Samples(list):
    """A source: a list of raw samples."""


def boxes_strategy(max_size):
    """Lists of up to `max_size` boxes, at least 4 pixels wide and high, in an image of 64 x 48 pixels."""
    corners = st.tuples(st.integers(0, 60), st.integers(0, 44), st.integers(4, 40), st.integers(4, 40))
    return st.lists(
        corners.map(lambda box: (box[0], box[1], min(box[0] + box[2], 64), min(box[1] + box[3], 48))),
        max_size=max_size,
    )


def check_objects(sample):
    """Check types, lengths and ranges of a sample's objects, and that boxes and areas are those of the masks."""
    height, width = sample["image"].shape[:2]
    count, boxes = len(sample["labels"]), sample["boxes"]
    assert all(len(sample[field]) == count for field in ("boxes", "area", "iscrowd", "difficult"))
    assert boxes.dtype == sample["area"].dtype == np.float32 and sample["labels"].dtype == np.int64
    assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= (width, height)).all()
    assert (boxes[:, 2:] > boxes[:, :2]).all()
    if "masks" not in sample:
        return
    assert sample["masks"].shape == (count, height, width) and sample["masks"].dtype == np.uint8
    assert sample["masks"].max(initial=0) <= 1
    np.testing.assert_array_equal(sample["area"], sample["masks"].sum(axis=(1, 2)))
    for mask, box in zip(sample["masks"], boxes, strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
