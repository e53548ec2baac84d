"""Targets follow their image through augmentation, and travel in batches: boxes, masks, flags, and none at all."""

import albumentations as A
import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.collate import collate, collate_objects
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.datamodules.loading.targets import boxes_of_masks, fill_defaults


class Samples(list):
    """A source: a list of raw samples."""


def blocks(boxes, size=(40, 60)):
    """Filled rectangles as masks ``[N, H, W]``."""
    masks = np.zeros((len(boxes), *size), np.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes, strict=True):
        mask[y1:y2, x1:x2] = 1
    return masks


def sample(boxes=((10, 5, 30, 20), (40, 20, 60, 40)), masks=False, **more):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    image = np.zeros((40, 60, 3), np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes.astype(int)):
        image[y1:y2, x1:x2] = number + 1
    raw = {"image": image, "boxes": boxes, "labels": np.arange(len(boxes)) + 3}
    if masks:
        raw["masks"] = blocks(boxes.astype(int))
    return raw | more


def run(raw, *steps, **options):
    return TransformedDataset(Samples([raw]), A.Compose(list(steps)) if steps else None, **options)[0]


def test_a_flip_mirrors_boxes_masks_and_semantic_mask():
    out = run(sample(masks=True), A.HorizontalFlip(p=1))
    assert out["boxes"].tolist() == [[30, 5, 50, 20], [0, 20, 20, 40]] and out["boxes"].dtype == np.float32
    np.testing.assert_array_equal(out["masks"], blocks([(30, 5, 50, 20), (0, 20, 20, 40)]))
    assert out["labels"].tolist() == [3, 4] and out["labels"].dtype == np.int64
    raw = sample()
    mask = raw["image"][..., 0]
    out = run({"image": raw["image"], "mask": mask}, A.HorizontalFlip(p=1))
    np.testing.assert_array_equal(out["mask"], mask[:, ::-1])
    assert out["mask"].dtype == np.uint8


def test_fractions_of_a_pixel_survive():
    boxes = [[10.37, 5.01, 30.73, 20.99], [0.1, 0.2, 59.97, 39.93]]
    out = run(sample(boxes), A.RandomBrightnessContrast(p=1), A.HorizontalFlip(p=1), A.HorizontalFlip(p=1))
    np.testing.assert_allclose(out["boxes"], np.array(boxes, np.float32), rtol=3e-7)


def test_a_crop_cuts_boxes_and_removes_those_outside_with_all_that_is_theirs():
    flags = {"iscrowd": [True, False], "difficult": [False, True], "area": [150.0, 400.0], "image_id": 17}
    crop = A.Crop(35, 10, 60, 40)  # the first box ends at x = 30
    out = run(sample(**flags), crop)
    assert out["image"].shape == (30, 25, 3)
    np.testing.assert_allclose(out["boxes"], [[5, 10, 25, 30]], atol=2e-6)
    assert out["labels"].tolist() == [4] and out["difficult"].tolist() == [True] and out["iscrowd"].tolist() == [False]
    np.testing.assert_allclose(out["area"], [400], rtol=1e-6)
    assert out["image_id"] == 17
    out = run(sample(**flags), A.Crop(20, 0, 50, 40))
    np.testing.assert_allclose(out["boxes"], [[0, 5, 10, 20], [20, 20, 30, 40]], atol=2e-6)
    np.testing.assert_allclose(
        out["area"], [75, 200], rtol=1e-6
    )  # half of each box is left, and so is half of each area


def test_masks_say_where_boxes_are():
    # an L: its box reaches to x = 30 only through its foot, which the crop removes
    mask = np.zeros((1, 40, 60), np.uint8)
    mask[0, 5:20, 10:14] = mask[0, 18:20, 10:30] = 1
    raw = sample([[10, 5, 30, 20]], masks=True) | {"masks": mask}
    out = run(raw, A.Crop(0, 0, 60, 18))
    assert out["boxes"].tolist() == [[10, 5, 14, 18]] and out["area"].tolist() == [4 * 13]
    # the crop's part of the box holds none of its pixels
    out = run(raw, A.Crop(20, 0, 60, 18))
    assert out["boxes"].shape == (0, 4) and out["masks"].shape == (0, 18, 40) and out["labels"].shape == (0,)


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("boxes", [(), ((0, 0, 5, 5),)])
def test_an_image_may_end_without_objects_and_goes_on_through_the_pipeline(boxes, masks):
    steps = [A.Crop(10, 10, 50, 40), A.Rotate(p=1), A.RandomResizedCrop((24, 32)), A.Affine(p=1), A.HorizontalFlip(p=1)]
    out = run(sample(boxes, masks), *steps)
    assert out["boxes"].shape == (0, 4) and out["boxes"].dtype == np.float32
    assert out["labels"].shape == out["iscrowd"].shape == out["area"].shape == (0,)
    assert not masks or (out["masks"].shape == (0, 24, 32) and out["masks"].dtype == np.uint8)


def test_a_box_touched_by_the_crop_s_edge_alone_is_gone():
    out = run(sample([[10, 5, 30, 20]]), A.Crop(30, 0, 60, 40))
    assert len(out["boxes"]) == 0
    out = run(sample([[10, 5, 30, 20]]), A.Crop(29, 0, 60, 40))
    assert out["boxes"].tolist() == [[0, 5, 1, 20]]


def test_min_visibility_removes_what_is_mostly_cut():
    assert len(run(sample([[10, 5, 30, 20]]), A.Crop(20, 0, 60, 40), min_visibility=0.49)["boxes"]) == 1
    assert len(run(sample([[10, 5, 30, 20]]), A.Crop(20, 0, 60, 40), min_visibility=0.51)["boxes"]) == 0


def test_padding_of_a_semantic_mask_is_ignored_and_classes_keep_their_numbers():
    mask = np.array([[0, 1], [254 - 1, 255]], np.uint8)
    image = np.zeros((2, 2, 3), np.uint8)
    for fill in ({}, {"fill_mask": 255}):
        out = run({"image": image, "mask": mask}, A.PadIfNeeded(4, 4, position="top_left", **fill))
        assert out["mask"].tolist() == [[0, 1, 255, 255], [253, 255, 255, 255], [255] * 4, [255] * 4]
    assert mask.tolist() == [[0, 1], [253, 255]]


def test_a_mask_is_never_interpolated():
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 30:] = 9
    out = run({"image": np.zeros((40, 60, 3), np.uint8), "mask": mask}, A.Resize(97, 131), A.Rotate(p=1))
    assert set(np.unique(out["mask"])) <= {0, 9, 255}


def test_a_box_of_localization_cannot_vanish():
    raw = {"image": np.zeros((64, 64, 3), np.uint8), "label": 1, "box": np.array([0, 0, 8, 8], np.float32)}
    dataset = TransformedDataset(Samples([raw]), A.Compose([A.RandomCrop(32, 32)]), seed=1)
    boxes = [dataset[SampleKey(epoch, 0)]["box"] for epoch in range(30)]
    assert all(box.shape == (4,) and box.dtype == np.float32 and (box[2:] >= box[:2] + 1).all() for box in boxes)
    assert all(np.array_equal(dataset[SampleKey(epoch, 0)]["box"], box) for epoch, box in enumerate(boxes))
    assert len({tuple(box) for box in boxes}) > 3


def test_where_no_augmentation_can_show_the_object_the_sample_is_left_out():
    lost = {"image": np.zeros((64, 64, 3), np.uint8), "label": 1, "box": np.array([0, 0, 8, 8], np.float32)}
    fine = lost | {"box": np.array([0, 0, 40, 40], np.float32)}
    crop = A.Compose([A.Crop(32, 32, 64, 64)])
    training = TransformedDataset(Samples([lost, fine]), crop, replace_unreadable=True)
    assert (
        training[0]["index"] == 1
        and "sample 0: 100 augmentations in a row removed the object" in training[0]["unreadable"][0]
    )
    assert training[0]["box"].tolist() == [0, 0, 8, 8]
    assert "image" not in TransformedDataset(Samples([lost, fine]), crop)[0]
    with pytest.raises(ImageError, match="such as albumentations.BBoxSafeRandomCrop"):
        TransformedDataset(Samples([lost]), crop, strict=True)[0]


boxes_of_pixels = st.tuples(st.integers(0, 55), st.integers(0, 35), st.integers(2, 60), st.integers(2, 40)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 60), min(b[1] + b[3], 40))
)


@settings(max_examples=40, deadline=None)
@given(st.lists(boxes_of_pixels, max_size=4), st.integers(0, 10**6))
def test_image_boxes_and_masks_move_together(boxes, seed):
    """The image shows object n in the value n + 1, in a plane of its own: what it shows is what the masks say."""
    masks = blocks(boxes)
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
    np.testing.assert_array_equal(out["image"], boxed["image"])  # the same draw with masks and without
    for label, mask, box in zip(out["labels"], out["masks"], out["boxes"], strict=True):
        if label < 3:
            np.testing.assert_array_equal(mask, out["image"][..., label] // 200)
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        if label in boxed["labels"]:  # albumentations' box holds what the mask says, up to rotation's half pixels
            outer = boxed["boxes"][boxed["labels"].tolist().index(label)]
            assert (outer[:2] <= box[:2] + 1).all() and (outer[2:] >= box[2:] - 1).all()
    for label in set(range(min(len(boxes), 3))) - set(out["labels"].tolist()):
        assert not out["image"][..., label].any()  # what is not there any more is not seen any more


def test_a_step_that_looks_at_boxes_finds_them_beside_masks():
    boxes = ((10, 5, 30, 20), (40, 20, 60, 40))
    for step in (A.BBoxSafeRandomCrop(p=1), A.RandomSizedBBoxSafeCrop(40, 60, p=1)):
        out = run(sample(boxes, masks=True), A.Sequential([step], p=1))
        assert out["labels"].tolist() == [3, 4] and (out["area"] >= [300, 400]).all()
    out = run(sample(boxes, masks=True), A.Crop(20, 0, 60, 40), min_visibility=0.51)
    assert out["labels"].tolist() == [4] and out["boxes"].tolist() == [[20, 20, 40, 40]] and len(out["masks"]) == 1


def test_boxes_of_masks():
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 2, 3] = masks[1, :, 0] = masks[2, 4, 6] = masks[2, 1, 2] = True
    assert boxes_of_masks(masks).tolist() == [[3, 2, 4, 3], [0, 0, 1, 5], [2, 1, 7, 5]]
    assert boxes_of_masks(masks[:0]).shape == (0, 4)


def test_what_a_source_leaves_out_is_filled_in():
    out = run(sample())
    assert out["iscrowd"].tolist() == out["difficult"].tolist() == [False, False] and out["iscrowd"].dtype == np.bool_
    assert out["area"].tolist() == [300, 400] and out["area"].dtype == np.float32 and out["image_id"] == 0
    mask = blocks([(10, 5, 20, 20), (40, 20, 60, 40)])
    assert fill_defaults(sample(masks=True) | {"masks": mask.astype(bool)}, 5)["area"].tolist() == [150, 400]
    assert fill_defaults(sample(), 5)["image_id"] == 5


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
def test_targets_that_break_the_conventions_are_refused_where_the_sample_is_known(change, message):
    with pytest.raises(ValueError, match=message):
        run(sample() | change, num_classes=9)


def test_batches_of_images_that_differ_in_size():
    raws = Samples(
        [sample(masks=True, image_id=70), sample((), masks=True, image_id=71), sample(masks=True, image_id=72)]
    )
    dataset = TransformedDataset(raws, A.Compose([A.RandomSizedCrop((20, 40), (30, 50), p=0.7)]), seed=2)
    out = [dataset[place] for place in range(3)]
    batch = collate_objects(out)
    assert len(batch["image"]) == len(batch["target"]) == 3 and batch["index"].tolist() == [0, 1, 2]
    assert len({tuple(image.shape) for image in batch["image"]}) > 1
    for image, target, one in zip(batch["image"], batch["target"], out, strict=True):
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), one["image"])
        kinds = {"boxes": torch.float32, "labels": torch.int64, "area": torch.float32, "masks": torch.uint8}
        kinds |= {"iscrowd": torch.bool, "difficult": torch.bool, "image_id": torch.int64}
        assert {field: value.dtype for field, value in target.items()} == kinds
        for field in kinds:
            np.testing.assert_array_equal(target[field].numpy(), one[field])
        assert target["masks"].shape[1:] == image.shape[1:]
    assert batch["target"][1]["boxes"].shape == (0, 4) and batch["target"][1]["image_id"].item() == 71
    storages = {t["boxes"].untyped_storage().data_ptr() for t in batch["target"] if t["boxes"].numel()}
    assert len(storages) == 1 == len({image.untyped_storage().data_ptr() for image in batch["image"]})


def test_unreadable_samples_and_images_without_truth_in_lists():
    lost = {"unreadable": ["a.jpg: broken"]}
    assert collate_objects([lost]) == {"unreadable": ["a.jpg: broken"], "image": []}
    images = [
        {"image": np.zeros((h, 8, 3), np.uint8), "path": f"{h}.jpg", "index": h, "unreadable": []} for h in (4, 6)
    ]
    batch = collate_objects([images[0], lost, images[1]])
    assert [tuple(i.shape) for i in batch["image"]] == [(3, 4, 8), (3, 6, 8)] and batch["path"] == ["4.jpg", "6.jpg"]
    assert "target" not in batch and batch["unreadable"] == ["a.jpg: broken"]


def test_batches_with_targets_do_not_depend_on_the_number_of_workers():
    def batches(workers):
        dataset = TransformedDataset(
            Samples([sample(masks=True) for _ in range(8)]), A.Compose([A.RandomResizedCrop((30, 30))]), seed=3
        )
        return list(make_loader(dataset, 3, workers, training=True, seed=3, collate_fn=collate_objects))

    for left, right in zip(batches(0), batches(2), strict=True):
        for one, two in zip(left["target"], right["target"], strict=True):
            assert all(torch.equal(one[field], two[field]) for field in one)
        assert all(torch.equal(one, two) for one, two in zip(left["image"], right["image"], strict=True))


def test_batches_of_one_size_stack_boxes_and_masks():
    raw = {"image": np.zeros((4, 6, 3), np.uint8), "label": 1, "box": np.array([0, 1, 2, 3], np.float32)}
    batch = collate([TransformedDataset(Samples([raw]))[0]] * 2)
    assert batch["box"].tolist() == [[0, 1, 2, 3]] * 2 and batch["box"].dtype == torch.float32
    batch = collate(
        [TransformedDataset(Samples([{"image": raw["image"], "mask": np.eye(4, 6, dtype=np.uint8)}]))[0]] * 2
    )
    assert batch["mask"].shape == (2, 4, 6) and batch["mask"].dtype == torch.uint8
