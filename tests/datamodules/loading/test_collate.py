"""Samples to batches: one tensor for images of one size, lists for others."""

import albumentations as A
import numpy as np
import pytest
import torch

from striate.datamodules.loading.collate import collate, collate_objects, collate_whole
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.tests.helpers.samples import (
    NoisyImages,
    Samples,
    detection_sample,
)


def test_collate_preserves_pixels_and_layout():
    samples = [TransformedDataset(NoisyImages(4))[i] for i in range(3)]
    batch = collate(samples)
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (3, 3, 32, 32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["image"][1].permute(1, 2, 0).numpy(), samples[1]["image"])
    assert batch["label"].tolist() == [0, 1, 0] and batch["label"].dtype == torch.int64


def test_images_of_different_sizes_are_rejected():
    samples = [{"image": np.zeros((h, 8, 3), np.uint8), "label": 0, "index": 0, "unreadable": []} for h in (8, 9)]
    with pytest.raises(ValueError, match=r"^train_transform: .*got 8x8, 8x9"):
        collate(samples)


def test_batches_of_one_size_stack_boxes_and_masks():
    raw = {"image": np.zeros((4, 6, 3), np.uint8), "label": 1, "box": np.array([0, 1, 2, 3], np.float32)}
    batch = collate([TransformedDataset(Samples([raw]))[0]] * 2)
    assert batch["box"].tolist() == [[0, 1, 2, 3]] * 2 and batch["box"].dtype == torch.float32
    batch = collate(
        [TransformedDataset(Samples([{"image": raw["image"], "mask": np.eye(4, 6, dtype=np.uint8)}]))[0]] * 2
    )
    assert batch["mask"].shape == (2, 4, 6) and batch["mask"].dtype == torch.uint8


# -- whole images for evaluation and prediction


def image_sample(index, shape, **more):
    rng = np.random.default_rng(index)
    return {"image": rng.integers(0, 256, (*shape, 3), dtype=np.uint8), "index": index, "unreadable": [], **more}


def mask(size, seed=0):
    return np.random.default_rng(seed).integers(0, 5, size, dtype=np.uint8)


def test_images_of_different_sizes_become_lists_without_padding():
    sizes = [(4, 6), (5, 3), (4, 6)]
    samples = [image_sample(i, size, mask=mask(size, i), path=f"{i}.png") for i, size in enumerate(sizes)]
    batch = collate_whole([*samples, {"unreadable": ["x.png: broken"]}])
    assert batch["index"].tolist() == [0, 1, 2] and batch["path"] == ["0.png", "1.png", "2.png"]
    assert batch["unreadable"] == ["x.png: broken"]
    for image, target, sample in zip(batch["image"], batch["mask"], samples, strict=True):
        assert image.dtype == target.dtype == torch.uint8
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), sample["image"])
        np.testing.assert_array_equal(target.numpy(), sample["mask"])
    sized = collate_whole([image_sample(i, size, file_size=np.array(size)) for i, size in enumerate(sizes)])
    assert sized["file_size"].tolist() == [list(size) for size in sizes] and "mask" not in sized


def test_images_of_one_size_stay_one_tensor():
    batch = collate_whole([image_sample(i, (4, 6), mask=mask((4, 6))) for i in range(2)])
    assert batch["image"].shape == (2, 3, 4, 6) and batch["mask"].shape == (2, 4, 6)
    assert collate_whole([{"unreadable": ["a: b"]}])["image"].shape == (0, 3, 1, 1)


@pytest.mark.parametrize("target", [{"label": 1}, {"label": 1, "box": np.zeros(4, np.float32)}])
def test_images_with_labels_must_have_one_size(target):
    with pytest.raises(ValueError, match=r"train_transform: .*got 6x4, 3x5"):
        collate_whole([image_sample(0, (4, 6), **target), image_sample(1, (5, 3), **target)])


def test_training_images_with_masks_must_have_one_size():
    samples = [image_sample(i, size, mask=mask(size)) for i, size in enumerate([(4, 6), (5, 3)])]
    with pytest.raises(ValueError, match=r"train_transform: .*RandomCrop.*batch_size: 1$"):
        collate(samples)


# -- objects


def test_objects_of_images_of_different_sizes():
    raws = Samples(
        [
            detection_sample(masks=True, image_id=70),
            detection_sample((), masks=True, image_id=71),
            detection_sample(masks=True, image_id=72),
        ]
    )
    dataset = TransformedDataset(raws, A.Compose([A.RandomSizedCrop((20, 40), (30, 50), p=0.7)]), seed=2)
    samples = [dataset[index] for index in range(3)]
    batch = collate_objects(samples)
    assert len(batch["image"]) == len(batch["target"]) == 3 and batch["index"].tolist() == [0, 1, 2]
    assert len({tuple(image.shape) for image in batch["image"]}) > 1
    for image, target, one in zip(batch["image"], batch["target"], samples, strict=True):
        assert image.dtype == torch.uint8
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), one["image"])
        types = {"boxes": torch.float32, "labels": torch.int64, "area": torch.float32, "masks": torch.uint8}
        types |= {"iscrowd": torch.bool, "difficult": torch.bool, "image_id": torch.int64}
        assert {field: value.dtype for field, value in target.items()} == types
        for field in types:
            np.testing.assert_array_equal(target[field].numpy(), one[field])
        assert target["masks"].shape[1:] == image.shape[1:]
    assert batch["target"][1]["boxes"].shape == (0, 4) and batch["target"][1]["image_id"].item() == 71
    storages = {t["boxes"].untyped_storage().data_ptr() for t in batch["target"] if t["boxes"].numel()}
    assert len(storages) == 1 == len({image.untyped_storage().data_ptr() for image in batch["image"]})


def test_unreadable_samples_and_images_without_targets_in_lists():
    lost = {"unreadable": ["a.jpg: broken"]}
    assert collate_objects([lost]) == {"unreadable": ["a.jpg: broken"], "image": []}
    images = [
        {"image": np.zeros((h, 8, 3), np.uint8), "path": f"{h}.jpg", "index": h, "unreadable": []} for h in (4, 6)
    ]
    batch = collate_objects([images[0], lost, images[1]])
    assert [tuple(i.shape) for i in batch["image"]] == [(3, 4, 8), (3, 6, 8)] and batch["path"] == ["4.jpg", "6.jpg"]
    assert "target" not in batch and batch["unreadable"] == ["a.jpg: broken"]


def test_batches_with_objects_do_not_depend_on_the_number_of_workers():
    def batches(workers):
        dataset = TransformedDataset(
            Samples([detection_sample(masks=True) for _ in range(8)]),
            A.Compose([A.RandomResizedCrop((30, 30))]),
            seed=3,
        )
        return list(make_loader(dataset, 3, workers, training=True, seed=3, collate_fn=collate_objects))

    for left, right in zip(batches(0), batches(2), strict=True):
        for one, two in zip(left["target"], right["target"], strict=True):
            assert all(torch.equal(one[field], two[field]) for field in one)
        assert all(torch.equal(one, two) for one, two in zip(left["image"], right["image"], strict=True))
