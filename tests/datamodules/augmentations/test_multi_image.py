"""Mosaic and copy-paste: pixels and targets agree, and randomness comes from the sample's own generator."""

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import (
    CopyPaste,
    DigitScenes,
    ImageError,
    LargeScaleJitter,
    MaskFolder,
    Mosaic,
    ShortSideResize,
)
from striate.datamodules.augmentations.multi_image import Augmentation
from striate.datamodules.loading.collate import collate_objects
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.tests.helpers.samples import boxes_strategy, check_objects


class Scenes:
    """Each object has a color of its own, which is its label. ``task``: boxes, masks or mask."""

    def __init__(self, boxes, task="masks", sizes=None, broken=()):
        self.boxes, self.task, self.broken, self.requests = boxes, task, set(broken), []
        self.sizes = sizes or [(48, 64)] * len(boxes)

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, index):
        self.requests.append(index)
        if index in self.broken:
            raise ImageError(f"{index}.jpg", "broken")
        image = np.zeros((*self.sizes[index], 3), np.uint8)
        boxes = np.array(self.boxes[index], np.float32).reshape(-1, 4)
        masks = np.zeros((len(boxes), *self.sizes[index]), np.uint8)
        labels = 10 * index + 1 + np.arange(len(boxes))
        for (x1, y1, x2, y2), label, mask in zip(boxes.astype(int), labels, masks, strict=True):
            mask[y1:y2, x1:x2] = 1
            image[y1:y2, x1:x2] = label
        image[..., 1] = 200 + index  # identifies the image
        if self.task == "mask":
            return {"image": image, "mask": image[..., 0].copy(), "path": f"{index}.jpg"}
        sample = {"image": image, "boxes": boxes, "labels": labels, "image_id": 70 + index}
        return sample | ({"masks": masks} if self.task == "masks" else {})


BOXES = [[(4, 4, 30, 40)], [(20, 10, 60, 44), (0, 0, 9, 9)], [], [(10, 20, 50, 30)], [(1, 1, 63, 47), (5, 5, 20, 20)]]
some_boxes = st.lists(boxes_strategy(3), min_size=1, max_size=5)
some_sizes = st.lists(st.sampled_from([(48, 64), (60, 64), (48, 100)]), min_size=5, max_size=5)


def mixed(source, *steps, key=(0, 0), **options):
    return TransformedDataset(source, list(steps), **{"replace_unreadable": True, **options})[SampleKey(*key)]


# -- mosaic


@settings(max_examples=30, deadline=None)
@given(some_boxes, st.integers(0, 10**6))
def test_a_mosaic_has_consistent_targets_for_each_task(boxes, seed):
    step = Mosaic(64, scale=(1.0, 1.0))  # images keep their size, so colors are not interpolated
    masks, boxed, semantic = (mixed(Scenes(boxes, task), step, key=(seed, 0)) for task in ("masks", "boxes", "mask"))
    check_objects(masks)
    check_objects(boxed)
    np.testing.assert_array_equal(masks["image"], boxed["image"])
    np.testing.assert_array_equal(masks["image"], semantic["image"])
    gray = (masks["image"] == 114).all(axis=2)
    assert (semantic["mask"][gray] == 255).all()
    np.testing.assert_array_equal(semantic["mask"][~gray], masks["image"][..., 0][~gray])
    top = np.where(gray, 255, 0)
    for label, mask in zip(masks["labels"], masks["masks"], strict=True):
        if len(set(masks["labels"].tolist())) == len(masks["labels"]):
            top[mask > 0] = label
            assert set(np.unique(semantic["mask"][mask > 0])) <= {*masks["labels"].tolist()}
    if len(set(masks["labels"].tolist())) == len(masks["labels"]):
        np.testing.assert_array_equal(top, semantic["mask"])
        inner = dict(zip(boxed["labels"].tolist(), boxed["boxes"].tolist(), strict=True))
        assert all(
            inner[label] == box for label, box in zip(masks["labels"].tolist(), masks["boxes"].tolist(), strict=True)
        )


@settings(max_examples=20, deadline=None)
@given(some_boxes, some_sizes, st.integers(0, 10**6))
def test_mosaics_of_any_scale_and_size(boxes, sizes, seed):
    masks, boxed, semantic = (
        mixed(Scenes(boxes, task, sizes), Mosaic(50), key=(seed, 0)) for task in ("masks", "boxes", "mask")
    )
    for sample in (masks, boxed):
        check_objects(sample)
        assert sample["image"].shape == (50, 50, 3)
    assert semantic["mask"].shape == (50, 50)
    np.testing.assert_array_equal(masks["image"], semantic["image"])
    # inside an object's mask, the semantic mask has its class or that of a later object
    for mask in masks["masks"]:
        assert set(np.unique(semantic["mask"][mask > 0])) <= set(masks["labels"].tolist())
    unique = [label for label in masks["labels"].tolist() if masks["labels"].tolist().count(label) == 1]
    for label in unique:
        if boxed["labels"].tolist().count(label) == 1:
            tight = masks["boxes"][masks["labels"].tolist().index(label)]
            outer = boxed["boxes"][boxed["labels"].tolist().index(label)]
            np.testing.assert_allclose(tight, outer, atol=0.51)


def test_hand_computed_mosaic():
    step = Mosaic(40, scale=(0.8, 0.8), center=(0.5, 0.5))  # 64 x 48 becomes 32 x 24, around (20, 20)
    source = Scenes([[(0, 0, 64, 48)], [(32, 24, 64, 48)]], "boxes")
    images = [source[n]["image"] for n in (0, 1)]
    placements = step._placements([source[0], source[1], source[0], source[1]], (20, 20), 0.8)
    assert [placement.offset for placement in placements] == [(-12, -4), (20, -4), (-12, 20), (20, 20)]
    assert {placement.new for placement in placements} == {(32, 24)}
    for seed in range(20):
        out = mixed(source, step, key=(seed, 0), min_visibility=0)
        corners = out["image"][[0, 0, 39, 39], [0, 39, 0, 39], 1].tolist()  # which image it is
        assert set(corners) <= {200, 201} and corners.count(200) == 1  # the partners are drawn from the others
        quarters = [(0, 0), (20, 0), (0, 20), (20, 20)]
        quarter = quarters[corners.index(200)]
        (box,) = out["boxes"][out["labels"] == 1].tolist()
        assert box == [quarter[0], quarter[1], quarter[0] + 20, quarter[1] + 20]
        np.testing.assert_allclose(out["area"][out["labels"] == 1], [400], rtol=1e-5)
    assert images[0].shape == (48, 64, 3)


def test_distribution_of_meeting_points_and_scales():
    step = Mosaic(100, scale=(0.5, 1.5), center=(0.25, 0.75))
    drawn = []
    step._placements = lambda tiles, meeting_point, scale: (
        drawn.append((*meeting_point, scale)) or Mosaic._placements(step, tiles, meeting_point, scale)
    )
    for seed in range(400):
        mixed(Scenes(BOXES, "boxes"), step, key=(seed, 0))
    x, y, scale = np.array(drawn).T
    for values, low, high in ((x, 25, 75), (y, 25, 75), (scale, 0.5, 1.5)):
        assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() < high
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15


def test_mosaic_respects_min_visibility():
    step = Mosaic(40, scale=(0.8, 0.8), center=(0.5, 0.5))
    counts = {}
    for minimum in (0.0, 0.5, 0.6):  # objects fill their image; 20 x 20 of 32 x 24 pixels remain: 0.52
        for task in ("boxes", "masks"):
            out = mixed(Scenes([[(0, 0, 64, 48)]], task), step, min_visibility=minimum)
            counts[minimum, task] = len(out["boxes"])
            assert len(out["labels"]) == len(out["boxes"])
    assert counts == {
        (0.0, "boxes"): 4,
        (0.0, "masks"): 4,
        (0.5, "boxes"): 4,
        (0.5, "masks"): 4,
        (0.6, "boxes"): 0,
        (0.6, "masks"): 0,
    }


# -- copy-paste


@settings(max_examples=40, deadline=None)
@given(some_boxes, some_sizes, st.integers(0, 10**6), st.sampled_from([None, 1]))
def test_pasted_objects_are_visible_and_cover_those_below(boxes, sizes, seed, limit):
    source = Scenes(boxes, "masks", sizes)
    # without overlaps within an image, each visible color is one object's mask
    source.boxes = [image_boxes[:1] for image_boxes in boxes]
    out = mixed(source, CopyPaste(limit), key=(seed, 0))
    check_objects(out)
    assert out["image"].shape[:2] == sizes[0]
    labels = out["labels"].tolist()
    if len(set(labels)) == len(labels):
        for label, mask in zip(labels, out["masks"], strict=True):
            np.testing.assert_array_equal(mask, out["image"][..., 0] == label)
        assert {label for label in np.unique(out["image"][..., 0]).tolist() if label} == set(labels)
    pasted = out["image"][..., 1] != 200  # only pixels of objects are pasted, all channels of them
    assert (out["image"][..., 0][pasted] > 0).all() and (
        len(source) == 1 or not np.isin(1, out["image"][..., 0][pasted])
    )


def test_hand_computed_copy_paste():
    boxes = [[(0, 0, 20, 20), (30, 0, 50, 20), (40, 30, 60, 40)], [(10, 0, 60, 25)]]
    out = mixed(Scenes(boxes), CopyPaste())  # a single object is pasted always
    assert out["labels"].tolist() == [1, 3, 11]  # the second one is covered
    assert out["boxes"].tolist() == [[0, 0, 10, 20], [40, 30, 60, 40], [10, 0, 60, 25]]
    assert out["area"].tolist() == [200, 200, 1250] and out["image_id"] == 70 and out["index"] == 0
    assert mixed(Scenes(boxes), CopyPaste(), min_visibility=0.5)["labels"].tolist() == [1, 3, 11]
    assert mixed(Scenes(boxes), CopyPaste(), min_visibility=0.51)["labels"].tolist() == [3, 11]


def test_number_of_pasted_objects():
    boxes = [[], [(0, 0, 9, 9), (10, 0, 19, 9), (20, 0, 29, 9)]]
    drawn = [tuple(mixed(Scenes(boxes), CopyPaste(), key=(seed, 0))["labels"].tolist()) for seed in range(120)]
    assert set(drawn) == {(11,), (12,), (13,), (11, 12), (11, 13), (12, 13), (11, 12, 13)}
    assert 25 < sum(len(labels) == 3 for labels in drawn) < 55
    few = {len(mixed(Scenes(boxes), CopyPaste(2), key=(seed, 0))["labels"]) for seed in range(40)}
    assert few == {1, 2}


def test_crowds_are_not_pasted_but_may_be_covered():
    class Crowds(Scenes):
        def __getitem__(self, index):
            sample = super().__getitem__(index)
            return sample | {"iscrowd": np.array([True] + [False] * (len(sample["labels"]) - 1))}

    boxes = [[(0, 0, 20, 20)], [(0, 0, 40, 40), (0, 0, 10, 20)]]
    for seed in range(10):
        out = mixed(Crowds(boxes), CopyPaste(), key=(seed, 0))
        assert out["labels"].tolist() == [1, 12] and out["iscrowd"].tolist() == [True, False]
        assert out["boxes"].tolist() == [[10, 0, 20, 20], [0, 0, 10, 20]]
    only = Crowds([[(0, 0, 20, 20)], [(0, 0, 40, 40)]])
    assert mixed(only, CopyPaste())["labels"].tolist() == [1]


def test_images_of_other_sizes_are_placed_within_each_other():
    source = Scenes([[], [(0, 0, 64, 10)]], sizes=[(48, 40), (20, 64)])  # lower, but wider
    corners = {tuple(mixed(source, CopyPaste(), key=(seed, 0))["boxes"][:, :2].ravel().tolist()) for seed in range(300)}
    # the wider image is shifted to the left by up to 24, the lower one down by up to 28
    assert {x for x, _ in corners} == {0.0} and {y for _, y in corners} == set(map(float, range(29)))
    for seed in range(20):
        out = mixed(source, CopyPaste(), key=(seed, 0))
        assert out["image"].shape == (48, 40, 3)
        for mask in out["masks"]:
            np.testing.assert_array_equal(mask, out["image"][..., 0] == 11)


# -- pipelines that mix samples


def test_partners_pass_the_transforms_before_the_mix():
    source = Scenes([[(0, 0, 64, 48)], [(0, 0, 32, 48)]])
    out = mixed(source, ShortSideResize(24, None), CopyPaste(), A.HorizontalFlip(p=1))
    assert out["image"].shape == (24, 32, 3) and out["boxes"].tolist() == [[0, 0, 16, 24], [16, 0, 32, 24]]
    assert len(source.requests) == 2
    source.requests.clear()
    mixed(source, Mosaic(40), CopyPaste())  # a mosaic of four, onto which another of four is pasted
    assert len(source.requests) == 8


def test_partners_are_drawn_uniformly_and_only_if_needed():
    source = Scenes(BOXES, "boxes")
    dataset = TransformedDataset(source, [Mosaic(32)])
    for epoch in range(100):
        dataset[SampleKey(epoch, 2)]
    counts = np.bincount(source.requests, minlength=5)
    assert counts[2] == 100 and counts.sum() == 400 and (counts[[0, 1, 3, 4]] > 50).all()
    source.requests.clear()
    dataset = TransformedDataset(source, [Mosaic(32, p=0.25)])
    for epoch in range(200):
        dataset[SampleKey(epoch, 2)]
    assert 200 + 3 * 30 < len(source.requests) < 200 + 3 * 72
    alone = Scenes(BOXES[:1], "boxes")
    assert len(mixed(alone, Mosaic(40, scale=(1, 1)))["labels"]) > 1 and alone.requests == [0] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_depend_on_seed_epoch_and_sample_only(workers):
    steps = [LargeScaleJitter(40, scale=(0.5, 1.5)), A.HorizontalFlip(), CopyPaste(), Mosaic(48, p=0.5)]

    def batches(workers, first=0):
        dataset = TransformedDataset(Scenes(BOXES * 2), steps, seed=5, replace_unreadable=True)
        loader = make_loader(dataset, 3, workers, training=True, seed=5, collate_fn=collate_objects)
        loader.load_state_dict({"epoch": 2, "batches": first})
        return list(loader)

    whole, again = batches(0), batches(workers, first=1)
    assert len(whole) == 3 and len(again) == 2
    for left, right in zip(whole[1:], again, strict=True):
        assert left["index"].tolist() == right["index"].tolist()
        for one, two in zip(left["image"] + left["target"], right["image"] + right["target"], strict=True):
            pairs = [(one, two)] if isinstance(one, torch.Tensor) else [(one[key], two[key]) for key in one]
            assert all(torch.equal(a, b) for a, b in pairs)


def test_unreadable_partners_are_replaced_and_named():
    source = Scenes(BOXES, "boxes", broken=[1, 3, 4])
    for seed in range(10):
        source.requests.clear()
        out = mixed(source, Mosaic(64, scale=(1, 1)), key=(seed, 0))
        tried = [index for index in source.requests[1:] if index != 2]
        assert out["index"] == 0 and source.requests.count(2) == 3
        assert out["unreadable"] == [f"{index}.jpg: broken" for index in tried]
    unreadable = Scenes(BOXES, "boxes", broken=[1, 2, 3, 4])
    out = mixed(unreadable, CopyPasteOfAnything())
    assert out["index"] == 0 and len(out["unreadable"]) == 20 and unreadable.requests[-1] == 0
    with pytest.raises(ImageError, match="broken"):
        mixed(Scenes(BOXES, "boxes", broken=[1, 2, 3, 4]), Mosaic(64), strict=True)


class CopyPasteOfAnything(CopyPaste):
    def mix(self, sample, others, generator, min_visibility):
        assert others[0]["image_id"] == 70
        return sample


def test_inputs_are_not_modified():
    raw = [Scenes(BOXES)[n] for n in range(5)]
    copies = [{key: np.array(value) for key, value in sample.items()} for sample in raw]
    for seed in range(10):
        mixed(raw, CopyPaste(), Mosaic(40), key=(seed, 0))
    for sample, before in zip(raw, copies, strict=True):
        assert all(np.array_equal(sample[key], before[key]) for key in before)


def test_a_list_without_mixing_equals_a_compose():
    steps = [A.RandomCrop(30, 30), A.ColorJitter(p=1), A.HorizontalFlip()]
    listed, composed = Augmentation(steps), Augmentation(A.Compose(steps))
    assert len(listed.stages) == len(composed.stages) == 1 and Augmentation([]).stages == []
    raw = Scenes(BOXES)[1] | {field: np.zeros(2) for field in ("iscrowd", "difficult", "area")}
    one, two = (pipeline(raw, np.random.default_rng(3), None) for pipeline in (listed, composed))
    np.testing.assert_array_equal(one["image"], two["image"])


def test_unsuitable_samples_are_rejected():
    with pytest.raises(TypeError, match="train_transform: Mosaic needs boxes.*got samples with label"):
        mixed([{"image": np.zeros((8, 8, 3), np.uint8), "label": 1}], Mosaic())
    with pytest.raises(TypeError, match="train_transform: CopyPaste.*masks.*task: instance_seg"):
        mixed(Scenes(BOXES, "boxes"), CopyPaste())
    with pytest.raises(ValueError, match="sample 1 of Scenes: label: .*got 11"):
        mixed(Scenes([[], [(0, 0, 9, 9)]]), CopyPaste(), num_classes=5)


@pytest.mark.parametrize("make, message", [
    (lambda: Mosaic(0), "size: .*got 0"),
    (lambda: Mosaic(scale=(1.5, 0.5)), r"scale: .*got \(1.5, 0.5\)"),
    (lambda: Mosaic(center=(0.5, 1.5)), r"center: .*got \(0.5, 1.5\)"),
    (lambda: CopyPaste(0), "max_objects: .*got 0"),
    (lambda: Mosaic(p=2), "^p: .*got 2"),
    (lambda: MaskFolder("x", ["a"], val_transform=[Mosaic()]), "val_transform: .*got Mosaic"),
])  # fmt: skip
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("task", ["detection", "instance_segmentation", "semantic_segmentation"])
def test_a_data_module_mixes_samples_in_training_only(task):
    mixing = [Mosaic(48)] + ([CopyPaste()] if task == "instance_segmentation" else [])
    data = DigitScenes(
        task,
        image_size=48,
        train_size=6,
        val_size=3,
        batch_size=3,
        num_workers=0,
        train_transform=[*mixing, A.HorizontalFlip()],
    )
    data.setup("fit")
    for batch in data.train_dataloader():
        assert all(image.shape == (3, 48, 48) for image in batch["image"])
        if task != "semantic_segmentation":
            assert sum(len(target["boxes"]) for target in batch["target"]) > 3
    for batch in data.val_dataloader():
        assert len(batch["image"]) == 3
