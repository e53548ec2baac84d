"""Raw samples of sources, and the conventions that augmented ones must follow."""

import albumentations as A
import numpy as np
from hypothesis import strategies as st

from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.epoch_sampling import ClassPresence
from striate.tests.helpers.fixtures import noisy_image


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


class NumberedImages:
    """Samples whose pixels are their index; those in `broken` are unreadable."""

    def __init__(self, size, broken=()):
        self.size, self.broken = size, set(broken)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise ImageError(f"{index}.jpg", "broken")
        return {"image": np.full((8, 8, 3), index, np.uint8), "label": index % 3}


class NoisyImages(NumberedImages):
    """Samples with the noise of `noisy_image` in two classes."""

    def __getitem__(self, index):
        return {"image": noisy_image(index % 2, index), "label": index % 2}


def presence_of(classes):
    """The class presence of samples with the given sets of classes."""
    pairs = [(sample, label) for sample, labels in enumerate(classes) for label in sorted(labels)]
    samples, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    return ClassPresence(samples, labels, len(classes))


def box_masks(boxes, size=(40, 60)):
    """Filled rectangles as masks ``[N, H, W]``."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def detection_sample(boxes=((10, 5, 30, 20), (40, 20, 60, 40)), masks=False, **more):
    """A raw sample of 60 x 40 pixels whose object n fills its box with the value n + 1 and has the label n + 3."""
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.zeros((40, 60, 3), np.uint8)
    for index, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = index + 1
    raw = {"image": image, "boxes": boxes, "labels": np.arange(len(boxes)) + 3}
    if masks:
        raw["masks"] = box_masks(boxes.astype(int))
    return raw | more


def transformed(raw, *steps, **options):
    """The sample after a pipeline of albumentations transforms."""
    return TransformedDataset(Samples([raw]), A.Compose(list(steps)) if steps else None, **options)[0]
