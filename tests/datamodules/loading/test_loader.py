"""Loaders: reproducible with any number of workers, each sample once, and resumable."""

import albumentations as A
import numpy as np
import pytest
import torch

from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.tests.helpers.samples import (
    NoisyImages,
    NumberedImages,
)


def augmented(workers, epoch=3, seed=7):
    transform = A.Compose([A.RandomResizedCrop((16, 16)), A.HorizontalFlip(), A.ColorJitter(p=0.5)])
    dataset = TransformedDataset(NoisyImages(20), transform, seed=seed)
    loader = make_loader(dataset, 5, workers, training=True, seed=seed)
    loader.sampler.set_epoch(epoch)
    return [(batch["index"].tolist(), batch["image"].clone()) for batch in loader]


def same(left, right):
    return all(i == j and torch.equal(a, b) for (i, a), (j, b) in zip(left, right, strict=True))


def test_batches_do_not_depend_on_the_number_of_workers():
    assert same(augmented(0), augmented(2))


def test_epochs_and_seeds_differ_in_order_and_augmentation():
    assert not same(augmented(0), augmented(0, epoch=4))
    assert not same(augmented(0), augmented(0, seed=8))


def test_an_epoch_has_each_sample_once():
    loader = make_loader(TransformedDataset(NumberedImages(24)), 5, 0, training=True, seed=0)
    loader = make_loader(TransformedDataset(NumberedImages(25)), 5, 0, training=True, seed=0)
    indices = [index for batch in loader for index in batch["index"].tolist()]
    assert sorted(indices) == list(range(25)) and indices != sorted(indices)


def test_a_batch_of_the_whole_set_has_each_sample_once():
    class NumberedImages:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return {"image": np.full((2, 2, 3), index, np.uint8), "label": 0}

    loader = make_loader(TransformedDataset(NumberedImages()), 6, 0, training=True, seed=0)
    (batch,) = loader
    assert sorted(batch["index"].tolist()) == list(range(6))


def test_training_drops_the_last_incomplete_batch_and_evaluation_does_not():
    dataset = TransformedDataset(NumberedImages(12))
    assert [len(b["index"]) for b in make_loader(dataset, 5, 0, training=True, seed=0)] == [5, 5]
    assert [len(b["index"]) for b in make_loader(dataset, 5, 0, training=False, seed=0)] == [5, 5, 2]
    assert [
        len(b["index"]) for b in make_loader(TransformedDataset(NumberedImages(3)), 5, 0, training=True, seed=0)
    ] == [3]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_resumes_from_its_state(workers):
    def make():
        loader = make_loader(TransformedDataset(NumberedImages(20)), 3, workers, training=True, seed=5)
        loader.sampler.set_epoch(2)
        return loader

    whole = [batch["index"].tolist() for batch in make()]
    first = make()
    iterator = iter(first)
    begun = [next(iterator)["index"].tolist() for _ in range(2)]
    state = first.state_dict()
    assert state == {"epoch": 2, "batches": 2}
    second = make()
    second.load_state_dict(state)
    rest = [batch["index"].tolist() for batch in second]
    assert begun + rest == whole
    assert second.state_dict()["batches"] == len(whole)
    second.sampler.set_epoch(3)
    assert len(list(second)) == len(whole)  # the next epoch is complete


def test_evaluation_omits_unreadable_samples():
    loader = make_loader(TransformedDataset(NumberedImages(5, broken=[0, 1, 3])), 2, 0, training=False, seed=0)
    batches = list(loader)
    assert [len(b["image"]) for b in batches] == [0, 1, 1]
    assert sum((b["unreadable"] for b in batches), []) == ["0.jpg: broken", "1.jpg: broken", "3.jpg: broken"]
