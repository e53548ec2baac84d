"""Mosaic and copy-paste: what each pixel shows, the target says; drawn from the sample's own generator alone."""

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
from striate.datamodules.augmentations.mixing import Augmentation
from striate.datamodules.loading.collate import collate_objects
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.loader import make_loader


class Scenes:
    """Sample n has a colour of its own in each object; the label is the colour. ``task``: boxes, masks or mask."""

    def __init__(self, boxes, task="masks", sizes=None, broken=()):
        self.boxes, self.task, self.broken, self.asked = boxes, task, set(broken), []
        self.sizes = sizes or [(48, 64)] * len(boxes)

    def __len__(self):
        return len(self.boxes)

    def __getitem__(self, index):
        self.asked.append(index)
        if index in self.broken:
            raise ImageError(f"{index}.jpg", "broken")
        image = np.zeros((*self.sizes[index], 3), np.uint8)
        boxes = np.array(self.boxes[index], np.float32).reshape(-1, 4)
        masks = np.zeros((len(boxes), *self.sizes[index]), np.uint8)
        labels = 10 * index + 1 + np.arange(len(boxes))
        for (x1, y1, x2, y2), label, mask in zip(boxes.astype(int), labels, masks, strict=True):
            mask[y1:y2, x1:x2] = 1
            image[y1:y2, x1:x2] = label
        image[..., 1] = 200 + index  # says whose background it is
        if self.task == "mask":
            return {"image": image, "mask": image[..., 0].copy(), "path": f"{index}.jpg"}
        sample = {"image": image, "boxes": boxes, "labels": labels, "image_id": 70 + index}
        return sample | ({"masks": masks} if self.task == "masks" else {})


BOXES = [[(4, 4, 30, 40)], [(20, 10, 60, 44), (0, 0, 9, 9)], [], [(10, 20, 50, 30)], [(1, 1, 63, 47), (5, 5, 20, 20)]]
some_boxes = st.lists(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 44), st.integers(4, 40), st.integers(4, 40)).map(
            lambda b: (b[0], b[1], min(b[0] + b[2], 64), min(b[1] + b[3], 48))
        ),
        max_size=3,
    ),
    min_size=1,
    max_size=5,
)
some_sizes = st.lists(st.sampled_from([(48, 64), (60, 64), (48, 100)]), min_size=5, max_size=5)


def mixed(source, *steps, key=(0, 0), **options):
    return TransformedDataset(source, list(steps), **{"replace_unreadable": True, **options})[SampleKey(*key)]


def check(sample):
    """The conventions of a target, and that masks are where the picture shows their colour."""
    height, width = sample["image"].shape[:2]
    count = len(sample["labels"])
    assert all(len(sample[field]) == count for field in ("boxes", "area", "iscrowd", "difficult"))
    assert sample["boxes"].dtype == sample["area"].dtype == np.float32 and sample["labels"].dtype == np.int64
    assert (sample["boxes"][:, :2] >= 0).all() and (sample["boxes"][:, 2:] <= (width, height)).all()
    assert (sample["boxes"][:, 2:] > sample["boxes"][:, :2]).all()
    if "masks" not in sample:
        return
    assert sample["masks"].shape == (count, height, width) and sample["masks"].dtype == np.uint8
    np.testing.assert_array_equal(sample["area"], sample["masks"].sum(axis=(1, 2)))
    for mask, box in zip(sample["masks"], sample["boxes"], strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


# -- mosaic


@settings(max_examples=30, deadline=None)
@given(some_boxes, st.integers(0, 10**6))
def test_a_mosaic_s_views_agree(boxes, seed):
    step = Mosaic(64, scale=(1.0, 1.0))  # images stay as large as they are, so no colours are mixed
    masks, boxed, semantic = (mixed(Scenes(boxes, task), step, key=(seed, 0)) for task in ("masks", "boxes", "mask"))
    check(masks)
    check(boxed)
    np.testing.assert_array_equal(masks["image"], boxed["image"])
    np.testing.assert_array_equal(masks["image"], semantic["image"])
    gray = (masks["image"] == 114).all(axis=2)
    assert (semantic["mask"][gray] == 255).all()
    np.testing.assert_array_equal(semantic["mask"][~gray], masks["image"][..., 0][~gray])
    top = np.where(gray, 255, 0)
    for label, mask in zip(masks["labels"], masks["masks"], strict=True):
        if len(set(masks["labels"].tolist())) == len(masks["labels"]):
            top[mask > 0] = label  # in their order, as they were painted
            assert set(np.unique(semantic["mask"][mask > 0])) <= {*masks["labels"].tolist()}
    if len(set(masks["labels"].tolist())) == len(masks["labels"]):
        np.testing.assert_array_equal(top, semantic["mask"])
        inner = dict(zip(boxed["labels"].tolist(), boxed["boxes"].tolist(), strict=True))
        assert all(
            inner[label] == box for label, box in zip(masks["labels"].tolist(), masks["boxes"].tolist(), strict=True)
        )


@settings(max_examples=20, deadline=None)
@given(some_boxes, some_sizes, st.integers(0, 10**6))
def test_any_scale_and_size_of_a_mosaic(boxes, sizes, seed):
    masks, boxed, semantic = (
        mixed(Scenes(boxes, task, sizes), Mosaic(50), key=(seed, 0)) for task in ("masks", "boxes", "mask")
    )
    for sample in (masks, boxed):
        check(sample)
        assert sample["image"].shape == (50, 50, 3)
    assert semantic["mask"].shape == (50, 50)
    np.testing.assert_array_equal(masks["image"], semantic["image"])
    # where an object's mask is, the semantic mask has its class or that of one painted over it
    for mask in masks["masks"]:
        assert set(np.unique(semantic["mask"][mask > 0])) <= set(masks["labels"].tolist())
    left = [label for label in masks["labels"].tolist() if masks["labels"].tolist().count(label) == 1]
    for label in left:
        if boxed["labels"].tolist().count(label) == 1:
            own = masks["boxes"][masks["labels"].tolist().index(label)]
            outer = boxed["boxes"][boxed["labels"].tolist().index(label)]
            np.testing.assert_allclose(own, outer, atol=0.51)


def test_a_mosaic_by_hand():
    step = Mosaic(40, scale=(0.8, 0.8), centre=(0.5, 0.5))  # 64 x 48 becomes 32 x 24, around (20, 20)
    source = Scenes([[(0, 0, 64, 48)], [(32, 24, 64, 48)]], "boxes")
    images = [source[n]["image"] for n in (0, 1)]
    places = step._places([source[0], source[1], source[0], source[1]], (20, 20), 0.8)
    assert [where.offset for where in places] == [(-12, -4), (20, -4), (-12, 20), (20, 20)]
    assert {where.new for where in places} == {(32, 24)}
    for seed in range(20):
        out = mixed(source, step, key=(seed, 0), min_visibility=0)
        corners = out["image"][[0, 0, 39, 39], [0, 39, 0, 39], 1].tolist()  # whose image it is
        assert set(corners) <= {200, 201} and corners.count(200) == 1  # the others are drawn from the rest
        quarters = [(0, 0), (20, 0), (0, 20), (20, 20)]
        own = quarters[corners.index(200)]
        (box,) = out["boxes"][out["labels"] == 1].tolist()
        assert box == [own[0], own[1], own[0] + 20, own[1] + 20]
        np.testing.assert_allclose(out["area"][out["labels"] == 1], [400], rtol=1e-5)
    assert images[0].shape == (48, 64, 3)


def test_where_mosaics_meet_and_how_large_they_are():
    step = Mosaic(100, scale=(0.5, 1.5), centre=(0.25, 0.75))
    seen = []
    step._places = lambda tiles, meeting, scale: (
        seen.append((*meeting, scale)) or Mosaic._places(step, tiles, meeting, scale)
    )
    for seed in range(400):
        mixed(Scenes(BOXES, "boxes"), step, key=(seed, 0))
    x, y, scale = np.array(seen).T
    for values, low, high in ((x, 25, 75), (y, 25, 75), (scale, 0.5, 1.5)):
        assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() < high
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.15


def test_what_a_mosaic_cuts_follows_min_visibility():
    step = Mosaic(40, scale=(0.8, 0.8), centre=(0.5, 0.5))
    counts = {}
    for least in (0.0, 0.5, 0.6):  # of the objects that fill their image, 20 x 20 of 32 x 24 pixels are left: 0.52
        for task in ("boxes", "masks"):
            out = mixed(Scenes([[(0, 0, 64, 48)]], task), step, min_visibility=least)
            counts[least, task] = len(out["boxes"])
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
def test_pasted_objects_are_seen_and_cover_those_below(boxes, sizes, seed, most):
    source = Scenes(boxes, "masks", sizes)
    for n, own in enumerate(boxes):  # without overlaps within an image, each colour that is seen is one object's mask
        source.boxes[n] = own[:1]
    out = mixed(source, CopyPaste(most), key=(seed, 0))
    check(out)
    assert out["image"].shape[:2] == sizes[0]
    labels = out["labels"].tolist()
    if len(set(labels)) == len(labels):
        for label, mask in zip(labels, out["masks"], strict=True):
            np.testing.assert_array_equal(mask, out["image"][..., 0] == label)
        assert {label for label in np.unique(out["image"][..., 0]).tolist() if label} == set(labels)
    pasted = out["image"][..., 1] != 200  # only pixels of objects come over, with what is theirs in each channel
    assert (out["image"][..., 0][pasted] > 0).all() and (
        len(source) == 1 or not np.isin(1, out["image"][..., 0][pasted])
    )


def test_copy_paste_by_hand():
    boxes = [[(0, 0, 20, 20), (30, 0, 50, 20), (40, 30, 60, 40)], [(10, 0, 60, 25)]]
    out = mixed(Scenes(boxes), CopyPaste())  # one object: it is pasted
    assert out["labels"].tolist() == [1, 3, 11]  # the second is hidden
    assert out["boxes"].tolist() == [[0, 0, 10, 20], [40, 30, 60, 40], [10, 0, 60, 25]]
    assert out["area"].tolist() == [200, 200, 1250] and out["image_id"] == 70 and out["index"] == 0
    assert mixed(Scenes(boxes), CopyPaste(), min_visibility=0.5)["labels"].tolist() == [1, 3, 11]
    assert mixed(Scenes(boxes), CopyPaste(), min_visibility=0.51)["labels"].tolist() == [3, 11]


def test_how_many_objects_are_pasted():
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


def test_images_that_differ_in_size_lie_anywhere_within_each_other():
    source = Scenes([[], [(0, 0, 64, 10)]], sizes=[(48, 40), (20, 64)])  # lower, but wider
    corners = {tuple(mixed(source, CopyPaste(), key=(seed, 0))["boxes"][:, :2].ravel().tolist()) for seed in range(300)}
    # across, the wider one is shifted by up to 24 to the left; down, the lower one by up to 28
    assert {x for x, _ in corners} == {0.0} and {y for _, y in corners} == set(map(float, range(29)))
    for seed in range(20):
        out = mixed(source, CopyPaste(), key=(seed, 0))
        assert out["image"].shape == (48, 40, 3)
        for mask in out["masks"]:
            np.testing.assert_array_equal(mask, out["image"][..., 0] == 11)


# -- the seam


def test_a_step_meets_samples_that_went_through_the_steps_before_it():
    source = Scenes([[(0, 0, 64, 48)], [(0, 0, 32, 48)]])
    out = mixed(source, ShortSideResize(24, None), CopyPaste(), A.HorizontalFlip(p=1))
    assert out["image"].shape == (24, 32, 3) and out["boxes"].tolist() == [[0, 0, 16, 24], [16, 0, 32, 24]]
    assert len(source.asked) == 2
    source.asked.clear()
    mixed(source, Mosaic(40), CopyPaste())  # a mosaic of four, onto which another of four is pasted
    assert len(source.asked) == 8


def test_others_are_drawn_evenly_from_the_rest_and_only_where_they_are_needed():
    source = Scenes(BOXES, "boxes")
    dataset = TransformedDataset(source, [Mosaic(32)])
    for epoch in range(100):
        dataset[SampleKey(epoch, 2)]
    counts = np.bincount(source.asked, minlength=5)
    assert counts[2] == 100 and counts.sum() == 400 and (counts[[0, 1, 3, 4]] > 50).all()
    source.asked.clear()
    dataset = TransformedDataset(source, [Mosaic(32, p=0.25)])
    for epoch in range(200):
        dataset[SampleKey(epoch, 2)]
    assert 200 + 3 * 30 < len(source.asked) < 200 + 3 * 72
    alone = Scenes(BOXES[:1], "boxes")
    assert len(mixed(alone, Mosaic(40, scale=(1, 1)))["labels"]) > 1 and alone.asked == [0] * 4


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_follow_from_seed_epoch_and_sample_alone(workers):
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


def test_unreadable_others_are_replaced_and_named():
    source = Scenes(BOXES, "boxes", broken=[1, 3, 4])
    for seed in range(10):
        source.asked.clear()
        out = mixed(source, Mosaic(64, scale=(1, 1)), key=(seed, 0))
        tried = [index for index in source.asked[1:] if index != 2]
        assert out["index"] == 0 and source.asked.count(2) == 3
        assert out["unreadable"] == [f"{index}.jpg: broken" for index in tried]
    hopeless = Scenes(BOXES, "boxes", broken=[1, 2, 3, 4])
    out = mixed(hopeless, CopyPasteOfAnything())
    assert out["index"] == 0 and len(out["unreadable"]) == 20 and hopeless.asked[-1] == 0
    with pytest.raises(ImageError, match="broken"):
        mixed(Scenes(BOXES, "boxes", broken=[1, 2, 3, 4]), Mosaic(64), strict=True)


class CopyPasteOfAnything(CopyPaste):
    def mix(self, sample, others, generator, min_visibility):
        assert others[0]["image_id"] == 70
        return sample


def test_what_was_given_is_not_written_to():
    raw = [Scenes(BOXES)[n] for n in range(5)]
    kept = [{key: np.array(value) for key, value in sample.items()} for sample in raw]
    for seed in range(10):
        mixed(raw, CopyPaste(), Mosaic(40), key=(seed, 0))
    for sample, before in zip(raw, kept, strict=True):
        assert all(np.array_equal(sample[key], before[key]) for key in before)


def test_without_mixing_steps_a_list_is_a_compose():
    steps = [A.RandomCrop(30, 30), A.ColorJitter(p=1), A.HorizontalFlip()]
    listed, composed = Augmentation(steps), Augmentation(A.Compose(steps))
    assert len(listed.stages) == len(composed.stages) == 1 and Augmentation([]).stages == []
    raw = Scenes(BOXES)[1] | {field: np.zeros(2) for field in ("iscrowd", "difficult", "area")}
    one, two = (pipeline(raw, np.random.default_rng(3), None) for pipeline in (listed, composed))
    np.testing.assert_array_equal(one["image"], two["image"])


def test_samples_that_cannot_be_mixed_are_explained():
    with pytest.raises(TypeError, match=r"Mosaic takes samples of detection.*this one has only label; take it out of"):
        mixed([{"image": np.zeros((8, 8, 3), np.uint8), "label": 1}], Mosaic())
    with pytest.raises(TypeError, match="CopyPaste cuts objects out along their masks.*set task: instance_seg"):
        mixed(Scenes(BOXES, "boxes"), CopyPaste())
    with pytest.raises(ValueError, match="sample 1 of Scenes: label: .*got 11"):
        mixed(Scenes([[], [(0, 0, 9, 9)]]), CopyPaste(), num_classes=5)


@pytest.mark.parametrize("make, message", [
    (lambda: Mosaic(0), "a side has 1 pixel or more"),
    (lambda: Mosaic(scale=(1.5, 0.5)), "scales are above 0, in order"),
    (lambda: Mosaic(centre=(0.5, 1.5)), r"centre=\(0.5, 1.5\): parts of the frame's side"),
    (lambda: CopyPaste(0), "max_objects=0: give 1 or more"),
    (lambda: Mosaic(p=2), "p=2: a probability"),
    (lambda: MaskFolder("x", ["a"], val_transform=[Mosaic()]), "val_transform: .*got Mosaic"),
])  # fmt: skip
def test_arguments_out_of_range(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("task", ["detection", "instance_segmentation", "semantic_segmentation"])
def test_a_data_module_mixes_in_training_alone(task):
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
