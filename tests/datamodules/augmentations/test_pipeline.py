"""Albumentations pipelines: targets are transformed with their image: boxes, masks, flags, and empty ones."""

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import DigitScenes, VisionDataModule
from striate.datamodules.augmentations.resizing import ShortSideResize
from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.tasks.file_coordinates import only_resized
from striate.tests.helpers.fixtures import noisy_image, write_image
from striate.tests.helpers.samples import Samples, box_masks, detection_sample, transformed


def test_a_flip_mirrors_boxes_masks_and_semantic_mask():
    out = transformed(detection_sample(masks=True), A.HorizontalFlip(p=1))
    assert out["boxes"].tolist() == [[30, 5, 50, 20], [0, 20, 20, 40]] and out["boxes"].dtype == np.float32
    np.testing.assert_array_equal(out["masks"], box_masks([(30, 5, 50, 20), (0, 20, 20, 40)]))
    assert out["labels"].tolist() == [3, 4] and out["labels"].dtype == np.int64
    raw = detection_sample()
    mask = raw["image"][..., 0]
    out = transformed({"image": raw["image"], "mask": mask}, A.HorizontalFlip(p=1))
    np.testing.assert_array_equal(out["mask"], mask[:, ::-1])
    assert out["mask"].dtype == np.uint8


def test_fractions_of_pixels_are_preserved():
    boxes = [[10.37, 5.01, 30.73, 20.99], [0.1, 0.2, 59.97, 39.93]]
    out = transformed(
        detection_sample(boxes), A.RandomBrightnessContrast(p=1), A.HorizontalFlip(p=1), A.HorizontalFlip(p=1)
    )
    np.testing.assert_allclose(out["boxes"], np.array(boxes, np.float32), rtol=3e-7)


def test_a_crop_clips_boxes_and_removes_objects_outside():
    flags = {"iscrowd": [True, False], "difficult": [False, True], "area": [150.0, 400.0], "image_id": 17}
    crop = A.Crop(35, 10, 60, 40)  # the first box ends at x = 30
    out = transformed(detection_sample(**flags), crop)
    assert out["image"].shape == (30, 25, 3)
    np.testing.assert_allclose(out["boxes"], [[5, 10, 25, 30]], atol=2e-6)
    assert out["labels"].tolist() == [4] and out["difficult"].tolist() == [True] and out["iscrowd"].tolist() == [False]
    np.testing.assert_allclose(out["area"], [400], rtol=1e-6)
    assert out["image_id"] == 17
    out = transformed(detection_sample(**flags), A.Crop(20, 0, 50, 40))
    np.testing.assert_allclose(out["boxes"], [[0, 5, 10, 20], [20, 20, 30, 40]], atol=2e-6)
    np.testing.assert_allclose(
        out["area"], [75, 200], rtol=1e-6
    )  # half of each box remains, and so does half of each area


def test_boxes_are_computed_from_masks():
    # an L: its box extends to x = 30 only because of its foot, which the crop removes
    mask = np.zeros((1, 40, 60), np.uint8)
    mask[0, 5:20, 10:14] = mask[0, 18:20, 10:30] = 1
    raw = detection_sample([[10, 5, 30, 20]], masks=True) | {"masks": mask}
    out = transformed(raw, A.Crop(0, 0, 60, 18))
    assert out["boxes"].tolist() == [[10, 5, 14, 18]] and out["area"].tolist() == [4 * 13]
    # no pixel lies in the part of the box that remains
    out = transformed(raw, A.Crop(20, 0, 60, 18))
    assert out["boxes"].shape == (0, 4) and out["masks"].shape == (0, 18, 40) and out["labels"].shape == (0,)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("boxes", [(), ((0, 0, 5, 5),)])
def test_an_image_may_lose_all_objects_within_the_pipeline(boxes, masks):
    steps = [A.Crop(10, 10, 50, 40), A.Rotate(p=1), A.RandomResizedCrop((24, 32)), A.Affine(p=1), A.HorizontalFlip(p=1)]
    out = transformed(detection_sample(boxes, masks), *steps)
    assert out["boxes"].shape == (0, 4) and out["boxes"].dtype == np.float32
    assert out["labels"].shape == out["iscrowd"].shape == out["area"].shape == (0,)
    assert not masks or (out["masks"].shape == (0, 24, 32) and out["masks"].dtype == np.uint8)


def test_a_box_that_only_touches_the_crop_is_removed():
    out = transformed(detection_sample([[10, 5, 30, 20]]), A.Crop(30, 0, 60, 40))
    assert len(out["boxes"]) == 0
    out = transformed(detection_sample([[10, 5, 30, 20]]), A.Crop(29, 0, 60, 40))
    assert out["boxes"].tolist() == [[0, 5, 1, 20]]


def test_min_visibility_removes_mostly_cropped_objects():
    assert (
        len(transformed(detection_sample([[10, 5, 30, 20]]), A.Crop(20, 0, 60, 40), min_visibility=0.49)["boxes"]) == 1
    )
    assert (
        len(transformed(detection_sample([[10, 5, 30, 20]]), A.Crop(20, 0, 60, 40), min_visibility=0.51)["boxes"]) == 0
    )


def test_padding_of_a_semantic_mask_is_ignored_and_classes_are_preserved():
    mask = np.array([[0, 1], [254 - 1, 255]], np.uint8)
    image = np.zeros((2, 2, 3), np.uint8)
    for fill in ({}, {"fill_mask": 255}):
        out = transformed({"image": image, "mask": mask}, A.PadIfNeeded(4, 4, position="top_left", **fill))
        assert out["mask"].tolist() == [[0, 1, 255, 255], [253, 255, 255, 255], [255] * 4, [255] * 4]
    assert mask.tolist() == [[0, 1], [253, 255]]


def test_a_mask_is_never_interpolated():
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 9
    out = transformed({"image": np.zeros((40, 60, 3), np.uint8), "mask": mask}, A.Resize(97, 131), A.Rotate(p=1))
    assert set(np.unique(out["mask"])) <= {0, 9, 255}


def test_a_localization_box_always_remains():
    raw = {"image": np.zeros((64, 64, 3), np.uint8), "label": 1, "box": np.array([0, 0, 8, 8], np.float32)}
    dataset = TransformedDataset(Samples([raw]), A.Compose([A.RandomCrop(32, 32)]), seed=1)
    boxes = [dataset[SampleKey(epoch, 0)]["box"] for epoch in range(30)]
    assert all(box.shape == (4,) and box.dtype == np.float32 and (box[2:] >= box[:2] + 1).all() for box in boxes)
    assert all(np.array_equal(dataset[SampleKey(epoch, 0)]["box"], box) for epoch, box in enumerate(boxes))
    assert len({tuple(box) for box in boxes}) > 3


def test_a_sample_that_always_loses_its_object_is_omitted():
    lost = {"image": np.zeros((64, 64, 3), np.uint8), "label": 1, "box": np.array([0, 0, 8, 8], np.float32)}
    valid = lost | {"box": np.array([0, 0, 40, 40], np.float32)}
    crop = A.Compose([A.Crop(32, 32, 64, 64)])
    training = TransformedDataset(Samples([lost, valid]), crop, replace_unreadable=True)
    assert training[0]["index"] == 1 and "sample 0: transform: 100 augmentations" in training[0]["unreadable"][0]
    assert training[0]["box"].tolist() == [0, 0, 8, 8]
    assert "image" not in TransformedDataset(Samples([lost, valid]), crop)[0]
    counted = TransformedDataset(Samples([lost]), crop, strict=True, keep_objects=True)[0]  # evaluation
    assert counted["box"].tolist() == [0, 0, 0, 0] and counted["label"] == 1 and not counted["unreadable"]
    with pytest.raises(ImageError, match="such as albumentations.BBoxSafeRandomCrop"):
        TransformedDataset(Samples([lost]), crop, strict=True)[0]


@pytest.mark.parametrize(("training", "name"), [(True, "train_transform"), (False, "val_transform")])
def test_errors_of_a_pipeline_name_its_argument(training, name):
    """Not the argument of the other pipeline too, which may be fine."""
    sample = {"image": np.zeros((32, 32, 3), np.uint8), "label": 1, "box": np.array([0, 0, 8, 8], np.float32)}
    data = VisionDataModule(train_transform=[A.ToFloat()], val_transform=[A.ToFloat()])
    with pytest.raises(
        TypeError, match=rf"^{name}: images must stay uint8 \[H, W, 3\], got ndarray of float32; remove"
    ):
        data.dataset(Samples([sample]), training)[0]
    data = VisionDataModule(
        train_transform=[A.Crop(16, 16, 32, 32)], val_transform=[A.Crop(16, 16, 32, 32)], strict=True
    )
    if not training:  # evaluation counts the object
        assert not data.dataset(Samples([sample]), training)[0]["box"].any()
        return
    with pytest.raises(ImageError, match=f"sample 0: {name}: 100 augmentations in a row removed the object; crop less"):
        data.dataset(Samples([sample]), training)[0]


@pytest.mark.parametrize("masks", [False, True])
def test_evaluation_keeps_every_object(masks):
    boxes = [[20, 5, 24, 9], [0, 0, 10, 10], [40, 10, 58, 30]]
    raw = detection_sample(boxes, masks=masks) | {"labels": [5, 6, 7], "area": [11.0, 22.0, 300.0]}
    raw |= {"iscrowd": [False, True, False]}
    for steps, left in (
        ([A.Crop(15, 0, 60, 40)], [[5, 5, 9, 9], [0, 0, 0, 0], [25, 10, 43, 30]]),
        ([A.Crop(15, 0, 60, 40), A.Crop(20, 0, 45, 40)], [[0, 0, 0, 0], [0, 0, 0, 0], [5, 10, 23, 30]]),
        ([A.Crop(11, 11, 19, 40)], [[0, 0, 0, 0]] * 3),
    ):
        out = transformed(raw, *steps, keep_objects=True, min_visibility=0.99)
        np.testing.assert_allclose(out["boxes"], left, rtol=1e-6)
        assert out["boxes"].dtype == np.float32 and (out["boxes"] == 0).all(axis=1).tolist() == [
            not any(b) for b in left
        ]
        assert out["labels"].tolist() == [5, 6, 7] and out["iscrowd"].tolist() == [False, True, False]
        lost = [box == [0, 0, 0, 0] for box in left]
        assert [area for area, gone in zip(out["area"], lost, strict=True) if gone] == [
            area for area, gone in zip((11, 22, 300), lost, strict=True) if gone
        ]
        if masks:
            np.testing.assert_array_equal(out["masks"], box_masks(left, out["image"].shape[:2]))


def test_evaluation_keeps_boxes_below_a_pixel():
    small = detection_sample([[8, 4, 12, 8], [20, 10, 40, 30]])
    steps = A.Resize(4, 6)
    assert transformed(small, steps)["boxes"].tolist() == [[2, 1, 4, 3]]
    kept = transformed(small, steps, keep_objects=True)
    np.testing.assert_allclose(kept["boxes"], [[0.8, 0.4, 1.2, 0.8], [2, 1, 4, 3]], rtol=1e-6)
    np.testing.assert_allclose(kept["area"], [0.16, 4], rtol=1e-5)
    # and finer than any pixel: nothing is left
    tiny = transformed(detection_sample([[8, 4, 8.5, 4.5], [20, 10, 40, 30]]), A.Resize(1, 1), keep_objects=True)
    assert tiny["boxes"][0].tolist() == [0, 0, 0, 0] and len(tiny["labels"]) == 2


def test_data_modules_keep_objects_in_evaluation_only():
    steps = [A.Crop(0, 0, 1, 1)]
    data = DigitScenes("detection", train_size=4, val_size=4, num_workers=0, train_transform=steps, val_transform=steps)
    data.setup("fit")
    assert not any(len(data.datasets["train"][index]["labels"]) for index in range(4))
    counts = [len(data.make_source("val")[index]["labels"]) for index in range(4)]
    assert [len(data.datasets["val"][index]["labels"]) for index in range(4)] == counts and sum(counts) >= 4


boxes_of_pixels = st.tuples(st.integers(0, 55), st.integers(0, 35), st.integers(2, 60), st.integers(2, 40)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 60), min(b[1] + b[3], 40))
)


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes_of_pixels, max_size=4), st.integers(0, 10**6))
def test_image_boxes_and_masks_stay_aligned(boxes, seed):
    """Object n has its own channel of the image, which must equal its mask."""
    masks = box_masks(boxes)
    image = np.zeros((40, 60, 3), np.uint8)
    for number, mask in enumerate(masks[:3]):
        image[..., number] = 200 * mask
    raw = {"image": image, "boxes": np.array(boxes, np.float32).reshape(-1, 4), "labels": np.arange(len(boxes))}
    steps = A.Compose(
        [
            A.RandomCrop(28, 44),
            A.D4(),
            A.Affine(translate_percent=(-0.2, 0.2), rotate=(-45, 45), interpolation=cv2.INTER_NEAREST, p=0.5),
        ]
    )
    out = TransformedDataset(Samples([raw | {"masks": masks}]), steps, seed=seed)[0]
    boxed = TransformedDataset(Samples([raw]), steps, seed=seed)[0]
    np.testing.assert_array_equal(out["image"], boxed["image"])  # the same random numbers with and without masks
    for label, mask, box in zip(out["labels"], out["masks"], out["boxes"], strict=True):
        if label < 3:
            np.testing.assert_array_equal(mask, out["image"][..., label] // 200)
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        if label in boxed["labels"]:  # albumentations' box contains the mask, up to half a pixel of rotation
            outer = boxed["boxes"][boxed["labels"].tolist().index(label)]
            assert (outer[:2] <= box[:2] + 1).all() and (outer[2:] >= box[2:] - 1).all()
    for label in set(range(min(len(boxes), 3))) - set(out["labels"].tolist()):
        assert not out["image"][..., label].any()  # removed objects are not visible


def test_transforms_that_use_boxes_get_them_beside_masks():
    boxes = ((10, 5, 30, 20), (40, 20, 60, 40))
    for step in (A.BBoxSafeRandomCrop(p=1), A.RandomSizedBBoxSafeCrop(40, 60, p=1)):
        out = transformed(detection_sample(boxes, masks=True), A.Sequential([step], p=1))
        assert out["labels"].tolist() == [3, 4] and (out["area"] >= [300, 400]).all()
    out = transformed(detection_sample(boxes, masks=True), A.Crop(20, 0, 60, 40), min_visibility=0.51)
    assert out["labels"].tolist() == [4] and out["boxes"].tolist() == [[20, 20, 40, 40]] and len(out["masks"]) == 1


def test_which_transforms_preserve_the_whole_image(tmp_path):
    write_image(tmp_path / "a.png", noisy_image(0, 0, 16)[:, :9])

    def preserved(steps):
        data = DigitScenes("semantic_segmentation", val_transform=steps, images=str(tmp_path), num_workers=0)
        (batch,) = data.predict_dataloader()
        assert batch["file_size"].tolist() == [[16, 9]]
        return only_resized(batch)

    for steps in (None, [], [A.Resize(8, 9)], [A.ToGray(), A.LongestMaxSize(9)], [ShortSideResize(8)]):
        assert preserved(steps)
    shift = A.Affine(translate_px=1, p=1)
    for step in (A.CenterCrop(4, 4), A.PadIfNeeded(9, 9), A.HorizontalFlip(p=1), A.Rotate((5, 9), p=1), shift):
        assert not preserved([A.Resize(8, 8), step])
    assert not only_resized({"image": torch.zeros(1, 3, 4, 4), "path": ["a"]})
