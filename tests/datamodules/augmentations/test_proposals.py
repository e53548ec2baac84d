"""Tests of proposals in the augmentation: they move as boxes do, and have no influence on anything else."""

import albumentations as A
import numpy as np
import pytest

from striate.datamodules import CopyPaste, LargeScaleJitter, Mosaic, ShortSideResize, ZoomOut
from striate.datamodules.augmentations.ssd import IoUCrop
from striate.datamodules.loading.collate import collate_objects
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.sources import prediction_sample

from ...helpers.fixtures import noisy_image
from ...helpers.samples import Samples

BOXES = np.array([[4, 4, 40, 30], [20, 10, 60, 44], [50, 2, 62, 12]], np.float32)
PROPOSALS = np.array([[0, 0, 64, 48], [4, 4, 40, 30], [20, 10, 60, 44], [50, 2, 62, 12], [1, 1, 3, 3]], np.float32)
STEPS = {
    "flip": [A.HorizontalFlip(p=1)],
    "resize": [A.Resize(96, 32)],
    "crop": [A.Crop(10, 8, 50, 40)],
    "all": [A.HorizontalFlip(p=0.5), A.RandomCrop(30, 30), A.Resize(40, 50)],
    "short side": [ShortSideResize([30, 60], None)],
    "jitter": [LargeScaleJitter(50)],
    "zoom out": [ZoomOut(p=1)],
    "rotate": [A.Rotate((30, 30), p=1)],
    "pixels": [A.RandomBrightnessContrast(p=1)],
}
ON_OBJECTS = {
    "IoU crop": [IoUCrop()],
    "crop that keeps objects": [A.BBoxSafeRandomCrop()],
    "mosaic": [Mosaic(64)],
    "paste": [CopyPaste()],
}


class Stored:
    """The same proposals for each sample."""

    def __init__(self, proposals=PROPOSALS):
        self.proposals = proposals

    def boxes(self, index, size):
        assert size == (64, 48)
        return self.proposals


def scenes(masks=False, boxes=BOXES):
    """Four samples of 64 x 48 pixels with the same boxes; with masks, they are filled boxes."""
    samples = []
    for index in range(4):
        sample = {"image": noisy_image(0, index, 64)[:48], "boxes": boxes, "labels": np.arange(len(boxes))}
        if masks:
            sample["masks"] = np.zeros((len(boxes), 48, 64), np.uint8)
            for mask, (x1, y1, x2, y2) in zip(sample["masks"], boxes.astype(int), strict=True):
                mask[y1:y2, x1:x2] = 1
        samples.append(sample)
    return Samples(samples)


def dataset(steps, masks=False, proposals=PROPOSALS, boxes=BOXES, **options):
    stored = None if proposals is None else Stored(proposals)
    return TransformedDataset(scenes(masks, boxes), steps, proposals=stored, **options)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("name", STEPS)
def test_proposals_move_as_boxes_do(name, masks):
    """The same boxes as objects and as proposals give the same results, clipped alike."""
    for epoch in range(5):
        key = SampleKey(epoch, 1)
        (objects,) = [dataset(STEPS[name], proposals=None, boxes=PROPOSALS)[key]]
        sample = dataset(STEPS[name], masks)[key]
        np.testing.assert_allclose(sample["proposals"], objects["boxes"], atol=1e-3)
        assert sample["proposals"].dtype == np.float32
        height, width = sample["image"].shape[:2]
        moved = sample["proposals"]
        assert (moved >= 0).all() and (moved <= np.array([width, height, width, height]) + 1e-3).all()
        assert (moved[:, 2:] > moved[:, :2]).all()


def test_clipping_dropping_and_order_by_hand():
    sample = dataset([A.Crop(10, 8, 50, 40), A.HorizontalFlip(p=1)])[0]
    # the fourth touches the crop's edge at x = 50 only, the last lies outside
    expected = [[0, 0, 40, 32], [10, 0, 40, 22], [0, 2, 30, 32]]
    np.testing.assert_allclose(sample["proposals"], expected, atol=1e-3)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("keep_objects", [False, True])
@pytest.mark.parametrize("name", [*STEPS, *ON_OBJECTS])
def test_images_and_objects_are_the_same_with_proposals(name, masks, keep_objects):
    steps = {**STEPS, **ON_OBJECTS}[name]
    if (name == "paste" and not masks) or (keep_objects and name in ("mosaic", "paste")):
        pytest.skip("not for such samples")
    for epoch in range(5):
        options = {"keep_objects": keep_objects, "min_visibility": 0.3}
        plain = dataset(steps, masks, proposals=None, **options)[SampleKey(epoch, 2)]
        sample = dataset(steps, masks, **options)[SampleKey(epoch, 2)]
        assert sample.keys() == plain.keys() | {"proposals"}
        for field, value in plain.items():
            np.testing.assert_array_equal(sample[field], value, err_msg=field)


def test_mosaic_has_the_best_proposals_of_all_tiles_first():
    """Objects of a mosaic are its tiles' boxes in order; the proposals here are the same boxes."""
    steps = [Mosaic(200, scale=(1.0, 1.0), center=(0.5, 0.5))]
    sample = dataset(steps, proposals=BOXES[:2], boxes=BOXES[:2])[SampleKey(0, 0)]
    boxes = sample["boxes"].reshape(4, 2, 4)
    np.testing.assert_allclose(sample["proposals"], boxes.transpose(1, 0, 2).reshape(-1, 4), atol=1e-3)


def test_pasting_adds_the_proposals_of_the_other_image():
    sample = dataset([CopyPaste()], masks=True, proposals=BOXES[:1])[SampleKey(0, 0)]
    assert sample["proposals"].tolist() == [BOXES[0].tolist()] * 2  # images of one size: no offset


def test_no_proposals_stay_none():
    for steps in (None, [A.HorizontalFlip(p=1)], [Mosaic(64)]):
        assert dataset(steps, proposals=PROPOSALS[:0])[0]["proposals"].shape == (0, 4)


def test_images_for_prediction_have_proposals_and_corners():
    source = Samples([prediction_sample(noisy_image(0, 0, 64)[:48], "a.png")])
    for steps in ([A.HorizontalFlip(p=1)], [A.HorizontalFlip(p=1), A.GridDistortion(p=1)]):
        plain = TransformedDataset(source, steps)[0]
        sample = TransformedDataset(source, steps, proposals=Stored())[0]
        np.testing.assert_array_equal(sample["corners"], plain["corners"])
        np.testing.assert_array_equal(sample["image"], plain["image"])
        assert len(sample["proposals"])
    flipped = TransformedDataset(source, [A.HorizontalFlip(p=1)], proposals=Stored())[0]["proposals"]
    np.testing.assert_allclose(flipped[1], [24, 4, 60, 30], atol=1e-4)


def test_batches_have_the_proposals_of_each_image():
    samples = [dataset(None)[0], dataset([A.Crop(10, 8, 50, 40)])[1], dataset(None, proposals=PROPOSALS[:0])[2]]
    batch = collate_objects(samples)
    assert [len(boxes) for boxes in batch["proposals"]] == [5, 3, 0]
    np.testing.assert_array_equal(batch["proposals"][0].numpy(), PROPOSALS)
    assert "proposals" not in batch["target"][0]
    assert "proposals" not in collate_objects([dataset(None, proposals=None)[0]])
