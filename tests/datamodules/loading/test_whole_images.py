"""Evaluation and prediction on whole images, which may differ in size."""

import albumentations as A
import numpy as np
import pytest
import torch

from striate.datamodules import DigitScenes
from striate.datamodules.augmentations.resizing import ShortSideResize
from striate.datamodules.loading.collate import collate, collate_whole
from striate.datamodules.loading.targets import counted_values
from striate.tasks.semantic_segmentation import shows_whole_images
from striate.tests.helpers.fixtures import noisy_image, write_image


def sample(index, shape, **more):
    rng = np.random.default_rng(index)
    return {"image": rng.integers(0, 256, (*shape, 3), dtype=np.uint8), "index": index, "unreadable": [], **more}


def mask(size, seed=0):
    return np.random.default_rng(seed).integers(0, 5, size, dtype=np.uint8)


def test_images_that_differ_in_size_come_as_lists_with_nothing_padded():
    sizes = [(4, 6), (5, 3), (4, 6)]
    samples = [sample(i, size, mask=mask(size, i), path=f"{i}.png") for i, size in enumerate(sizes)]
    batch = collate_whole([*samples, {"unreadable": ["x.png: broken"]}])
    assert batch["index"].tolist() == [0, 1, 2] and batch["path"] == ["0.png", "1.png", "2.png"]
    assert batch["unreadable"] == ["x.png: broken"]
    for image, target, given in zip(batch["image"], batch["mask"], samples, strict=True):
        assert image.dtype == target.dtype == torch.uint8
        np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), given["image"])
        np.testing.assert_array_equal(target.numpy(), given["mask"])
    sized = collate_whole([sample(i, size, file_size=np.array(size)) for i, size in enumerate(sizes)])
    assert sized["file_size"].tolist() == [list(size) for size in sizes] and "mask" not in sized


def test_images_of_one_size_stay_one_tensor():
    batch = collate_whole([sample(i, (4, 6), mask=mask((4, 6))) for i in range(2)])
    assert batch["image"].shape == (2, 3, 4, 6) and batch["mask"].shape == (2, 4, 6)
    assert collate_whole([{"unreadable": ["a: b"]}])["image"].shape == (0, 3, 1, 1)


@pytest.mark.parametrize("target", [{"label": 1}, {"label": 1, "box": np.zeros(4, np.float32)}])
def test_images_with_labels_must_have_one_size(target):
    with pytest.raises(ValueError, match=r"train_transform: .*got 6x4, 3x5"):
        collate_whole([sample(0, (4, 6), **target), sample(1, (5, 3), **target)])


def test_training_images_with_masks_must_have_one_size():
    samples = [sample(i, size, mask=mask(size)) for i, size in enumerate([(4, 6), (5, 3)])]
    with pytest.raises(ValueError, match=r"train_transform: .*RandomCrop.*batch_size: 1$"):
        collate(samples)


def test_which_transforms_keep_the_whole_image(tmp_path):
    write_image(tmp_path / "a.png", noisy_image(0, 0, 16)[:, :9])

    def kept(steps):
        data = DigitScenes("semantic_segmentation", val_transform=steps, images=str(tmp_path), num_workers=0)
        (batch,) = data.predict_dataloader()
        assert batch["file_size"].tolist() == [[16, 9]]
        return shows_whole_images(batch)

    for steps in (None, [], [A.Resize(8, 9)], [A.ToGray(), A.LongestMaxSize(9)], [ShortSideResize(8)]):
        assert kept(steps)
    moved = A.Affine(translate_px=1, p=1)
    for step in (A.CenterCrop(4, 4), A.PadIfNeeded(9, 9), A.HorizontalFlip(p=1), A.Rotate((5, 9), p=1), moved):
        assert not kept([A.Resize(8, 8), step])
    assert not shows_whole_images({"image": torch.zeros(1, 3, 4, 4), "path": ["a"]})


def test_values_are_counted():
    assert counted_values(np.array([[9, 7], [7, 300]])) == "7 (2 pixels), 9 (1 pixel), 300 (1 pixel)"
    assert counted_values(np.arange(8), limit=2) == "0 (1 pixel), 1 (1 pixel) and 6 more"
