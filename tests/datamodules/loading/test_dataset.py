"""Data sets: reproducible augmentation, unreadable images, and rejected targets."""

import albumentations as A
import numpy as np
import pytest

from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.targets import check_targets
from striate.tests.helpers.fixtures import noisy_image
from striate.tests.helpers.samples import NoisyImages, NumberedImages


def test_transforms_of_a_pipeline_draw_independently():
    # with the same seed for each transform, both would always decide alike
    transform = A.Compose([A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)])
    image = np.zeros((8, 8, 3), np.uint8)
    image[0, 0] = 1

    class One:
        def __len__(self):
            return 400

        def __getitem__(self, index):
            return {"image": image, "label": 0}

    corners = {(0, 0): 0, (0, 7): 0, (7, 0): 0, (7, 7): 0}
    dataset = TransformedDataset(One(), transform)
    for index in range(400):
        row, column, _ = np.argwhere(dataset[index]["image"])[0]
        corners[int(row), int(column)] += 1
    assert all(60 < count < 140 for count in corners.values()), corners


def test_the_first_occurrence_equals_uniform_sampling():
    transform = A.Compose([A.RandomCrop(8, 8)])

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"image": noisy_image(0, 0), "label": 0}

    dataset = TransformedDataset(One(), transform, seed=3)
    first, same, other = (dataset[key]["image"] for key in (SampleKey(2, 0), SampleKey(2, 0, 0), SampleKey(2, 0, 1)))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_training_replaces_and_names_unreadable_samples():
    dataset = TransformedDataset(NumberedImages(6, broken=[2, 3]), replace_unreadable=True)
    sample = dataset[2]
    assert sample["index"] == 4 and sample["image"][0, 0, 0] == 4
    assert sample["unreadable"] == ["2.jpg: broken", "3.jpg: broken"]


def test_strict_and_too_many_unreadable_images_raise():
    with pytest.raises(ImageError, match="2.jpg: broken"):
        TransformedDataset(NumberedImages(6, broken=[2]), replace_unreadable=True, strict=True)[2]
    with pytest.raises(ImageError, match="unreadable, and so are the 19 images after it"):
        TransformedDataset(NumberedImages(40, broken=range(40)), replace_unreadable=True)[0]


def test_labels_outside_the_classes_are_rejected():
    assert TransformedDataset(NumberedImages(6), num_classes=3)[5]["label"] == 2
    with pytest.raises(ValueError, match="sample 5 of NumberedImages: label: .*2 classes.*got 2"):
        TransformedDataset(NumberedImages(6), num_classes=2)[5]


def test_a_transform_that_changes_the_type_is_rejected():
    dataset = TransformedDataset(NoisyImages(2), A.Compose([A.Normalize()]))
    with pytest.raises(TypeError, match=r"got ndarray of float32.*Normalize"):
        dataset[0]


def test_a_failing_transform_names_itself_and_the_image():
    dataset = TransformedDataset(NoisyImages(2), [A.RandomCrop(64, 64)], transform_name="train_transform")
    message = r"train_transform: RandomCrop fails .*, got an image of 32x32, sample 1; resize .*pad_if_needed: true"
    with pytest.raises(ValueError, match=message):
        dataset[1]

    def fail(image, **_):
        raise RuntimeError("no light")

    with pytest.raises(ValueError, match=r"transform: Lambda fails \(no light\), got .*; change or remove"):
        TransformedDataset(NoisyImages(2), [A.Lambda(image=fail)])[0]


def test_masks_of_8_bits_hold_at_most_254_classes():
    mask = {"image": noisy_image(0, 0), "mask": np.zeros((32, 32), np.uint8)}
    check_targets(mask, 254)
    with pytest.raises(ValueError, match="mask: must have at most 254 classes in 8 bits, got 255"):
        check_targets(mask, 255)
