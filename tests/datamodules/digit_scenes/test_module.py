"""DigitScenes as a data module: the splits, and the same scenes with the targets of five tasks."""

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from striate.datamodules import DigitScenes
from striate.datamodules.loading.dataset import TransformedDataset


def test_splits_are_scenes_with_one_label():
    data = DigitScenes(image_size=48, train_size=12, val_size=7, test_size=5, batch_size=4, num_workers=0)
    data.setup("fit")
    data.setup("test")
    assert [len(data.datasets[split]) for split in ("train", "val", "test")] == [12, 7, 5]
    batches = list(data.train_dataloader())
    assert len(batches) == 3
    assert batches[0]["image"].shape == (4, 3, 48, 48) and batches[0]["image"].dtype == torch.uint8
    assert set(torch.cat([b["label"] for b in batches]).tolist()) <= set(range(10))
    assert data.class_names == list("0123456789")
    assert len(torch.cat([b["label"] for b in data.val_dataloader()])) == 7


def test_same_seed_same_scenes():
    def scenes(seed):
        data = DigitScenes(image_size=32, val_size=3, num_workers=0, seed=seed)
        data.setup("validate")
        return next(iter(data.val_dataloader()))["image"]

    assert torch.equal(scenes(1), scenes(1))
    assert not torch.equal(scenes(1), scenes(2))


def test_bad_size():
    with pytest.raises(ValueError, match="train_size: .*got 0"):
        DigitScenes(train_size=0)


def source(task, **options):
    return DigitScenes(task, num_workers=0, val_size=40, **options).make_source("val")


@settings(max_examples=25, deadline=None)
@given(
    size=st.sampled_from([48, 64, 100]),
    digits=st.tuples(st.integers(1, 3), st.integers(0, 4)),
    occlusion=st.floats(0, 0.7),
    contrast=st.floats(0, 127),
    empty=st.sampled_from([0.0, 0.5]),
    seed=st.integers(0, 1000),
    index=st.integers(0, 39),
)
def test_targets_of_all_tasks_are_consistent(size, digits, occlusion, contrast, empty, seed, index):
    options = {"image_size": size, "min_digits": digits[0], "max_digits": sum(digits), "occlusion": occlusion}
    options |= {"contrast": contrast, "empty_fraction": empty, "seed": seed}
    semantic, boxed, masked = (
        TransformedDataset(source(task, **options), num_classes=11)[index]
        for task in ("semantic_segmentation", "detection", "instance_segmentation")
    )
    np.testing.assert_array_equal(semantic["image"], boxed["image"])
    np.testing.assert_array_equal(semantic["image"], masked["image"])
    for field in ("boxes", "labels", "area", "iscrowd", "difficult"):
        np.testing.assert_array_equal(boxed[field], masked[field])
    assert "masks" not in boxed and masked["image_id"] == index
    assert (0 if empty else 1) <= len(masked["labels"]) <= sum(digits)
    # each pixel of the semantic mask belongs to exactly one instance of its class, and to none in the background
    painted = (masked["masks"] * (masked["labels"] + 1)[:, None, None]).sum(axis=0)
    np.testing.assert_array_equal(painted, semantic["mask"])
    assert masked["masks"].sum(axis=0).max(initial=0) <= 1
    for mask, box, area in zip(masked["masks"], masked["boxes"], masked["area"], strict=True):
        rows, columns = np.nonzero(mask)
        assert box.tolist() == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] and area == mask.sum()


def test_localization_is_classification_with_the_box_of_detection():
    options = {"image_size": 48, "scale": (0.4, 0.8)}
    for index in range(8):
        plain, located = source("classification", **options)[index], source("localization", **options)[index]
        boxed = source("detection", max_digits=1, **options)[index]
        np.testing.assert_array_equal(plain["image"], located["image"])
        np.testing.assert_array_equal(plain["image"], boxed["image"])
        assert plain["label"] == located["label"] == boxed["labels"][0]
        assert located["box"].tolist() == boxed["boxes"][0].tolist()


def test_empty_scenes_are_the_same_photographs_without_digits():
    full, empty = source("detection"), source("detection", empty_fraction=0.4)
    counts = [len(empty[index]["labels"]) for index in range(40)]
    assert 8 <= counts.count(0) <= 24
    for index, count in enumerate(counts):
        np.testing.assert_array_equal(
            empty[index]["image"], full[index]["image"] if count else full.composer.layers(index)[0]
        )


@pytest.mark.parametrize(
    "task, fields",
    [
        ("classification", {"label": (3,)}),
        ("localization", {"label": (3,), "box": (3, 4)}),
        ("semantic_segmentation", {"mask": (3, 40, 40)}),
    ],
)
def test_batches_of_one_size(task, fields):
    flip = [A.HorizontalFlip(p=1)]
    data = DigitScenes(task, image_size=40, train_size=6, batch_size=3, num_workers=0, train_transform=flip)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (3, 3, 40, 40)
    assert {name: tuple(value.shape) for name, value in batch.items() if name in fields} == fields
    assert len(data.class_names) == (11 if task == "semantic_segmentation" else 10)


@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_batches_of_lists(task):
    data = DigitScenes(task, image_size=40, train_size=6, val_size=5, batch_size=3, num_workers=0, empty_fraction=0.3)
    data.setup("fit")
    for batch in (next(iter(data.train_dataloader())), next(iter(data.val_dataloader()))):
        assert [tuple(image.shape) for image in batch["image"]] == [(3, 40, 40)] * 3
        assert all(("masks" in target) == (task == "instance_segmentation") for target in batch["target"])
    assert data.class_names == list("0123456789")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"task": "detektion"}, "task: .*got 'detektion'.*'detection'"),
        ({"task": "localization", "max_digits": 3}, "max_digits: .*got 1 to 3"),
        ({"task": "detection", "empty_fraction": 1.0}, "empty_fraction: .*got 1.0"),
        ({"task": "classification", "empty_fraction": 0.1}, "empty_fraction: .*0 for classification, got 0.1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        DigitScenes(**options)
