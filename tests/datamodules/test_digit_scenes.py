"""DigitScenes as a data module."""

import pytest
import torch

from striate.datamodules import DigitScenes


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
    with pytest.raises(ValueError, match="train_size: 0 is not a number of scenes"):
        DigitScenes(train_size=0)
