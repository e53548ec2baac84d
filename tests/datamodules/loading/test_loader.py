"""Loading: reproducible whatever the workers, each sample once, and resumable."""

import albumentations as A
import numpy as np
import pytest
import torch

from striate.datamodules import ImageFolder
from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.collate import collate
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.datamodules.loading.samplers import EpochSampler
from striate.tests.helpers.fixtures import noisy_image


class Numbers:
    """Samples whose pixels are their number, some of them unreadable."""

    def __init__(self, size, broken=()):
        self.size, self.broken = size, set(broken)

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        if index in self.broken:
            raise ImageError(f"{index}.jpg", "broken")
        return {"image": np.full((8, 8, 3), index, np.uint8), "label": index % 3}


class Pictures(Numbers):
    def __getitem__(self, index):
        return {"image": noisy_image(index % 2, index), "label": index % 2}


def augmented(workers, epoch=3, seed=7):
    transform = A.Compose([A.RandomResizedCrop((16, 16)), A.HorizontalFlip(), A.ColorJitter(p=0.5)])
    dataset = TransformedDataset(Pictures(20), transform, seed=seed)
    loader = make_loader(dataset, 5, workers, training=True, seed=seed)
    loader.sampler.set_epoch(epoch)
    return [(batch["index"].tolist(), batch["image"].clone()) for batch in loader]


def same(left, right):
    return all(i == j and torch.equal(a, b) for (i, a), (j, b) in zip(left, right, strict=True))


def test_batches_do_not_depend_on_the_number_of_workers():
    assert same(augmented(0), augmented(2))


def test_another_epoch_or_seed_gives_other_order_and_augmentation():
    assert not same(augmented(0), augmented(0, epoch=4))
    assert not same(augmented(0), augmented(0, seed=8))


def test_the_steps_of_a_pipeline_draw_independently():
    # with one seed given to each step, both would always decide alike
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


def test_an_epoch_sees_each_sample_once():
    loader = make_loader(TransformedDataset(Numbers(24)), 5, 0, training=True, seed=0)
    loader = make_loader(TransformedDataset(Numbers(25)), 5, 0, training=True, seed=0)
    seen = [index for batch in loader for index in batch["index"].tolist()]
    assert sorted(seen) == list(range(25)) and seen != sorted(seen)


def test_training_drops_a_rest_and_evaluation_keeps_it():
    dataset = TransformedDataset(Numbers(12))
    assert [len(b["index"]) for b in make_loader(dataset, 5, 0, training=True, seed=0)] == [5, 5]
    assert [len(b["index"]) for b in make_loader(dataset, 5, 0, training=False, seed=0)] == [5, 5, 2]
    assert [len(b["index"]) for b in make_loader(TransformedDataset(Numbers(3)), 5, 0, training=True, seed=0)] == [3]


@pytest.mark.parametrize("size, ranks", [(10, 3), (11, 4), (8, 2), (7, 7)])
def test_ranks_share_the_samples(size, ranks):
    def shares(shuffle, pad):
        return [
            [key.index for key in EpochSampler(size, shuffle, pad, num_replicas=ranks, rank=rank)]
            for rank in range(ranks)
        ]

    once = shares(shuffle=False, pad=False)
    assert sorted(sum(once, [])) == list(range(size))  # evaluation: each exactly once
    padded = shares(shuffle=True, pad=True)
    assert {len(share) for share in padded} == {-(-size // ranks)}  # training: the same number of steps
    assert set(sum(padded, [])) == set(range(size))
    for pad in (False, True):
        for rank in range(ranks):
            sampler = EpochSampler(size, pad, pad, num_replicas=ranks, rank=rank)
            assert len(sampler) == len(list(sampler))


def test_fewer_samples_than_devices_is_refused():
    with pytest.raises(ValueError, match=r"trainer.devices: .*got 4 devices for 2 sample"):
        EpochSampler(2, False, False, num_replicas=4, rank=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_continues_where_its_state_was_taken(workers):
    def make():
        loader = make_loader(TransformedDataset(Numbers(20)), 3, workers, training=True, seed=5)
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
    assert len(list(second)) == len(whole)  # the next epoch is whole again


def test_training_replaces_an_unreadable_sample_and_names_it():
    dataset = TransformedDataset(Numbers(6, broken=[2, 3]), replace_unreadable=True)
    sample = dataset[2]
    assert sample["index"] == 4 and sample["image"][0, 0, 0] == 4
    assert sample["unreadable"] == ["2.jpg: broken", "3.jpg: broken"]


def test_evaluation_leaves_an_unreadable_sample_out():
    loader = make_loader(TransformedDataset(Numbers(5, broken=[0, 1, 3])), 2, 0, training=False, seed=0)
    batches = list(loader)
    assert [len(b["image"]) for b in batches] == [0, 1, 1]
    assert sum((b["unreadable"] for b in batches), []) == ["0.jpg: broken", "1.jpg: broken", "3.jpg: broken"]


def test_a_label_outside_the_classes_is_named():
    assert TransformedDataset(Numbers(6), num_classes=3)[5]["label"] == 2
    with pytest.raises(ValueError, match="sample 5 of Numbers: label: .*2 classes.*got 2"):
        TransformedDataset(Numbers(6), num_classes=2)[5]


def test_predict_without_images_names_the_argument_and_the_flag(tmp_path):
    with pytest.raises(ValueError, match=r"images: .*got null"):
        ImageFolder(str(tmp_path)).predict_dataloader()


def test_strict_stops_and_so_do_unreadable_images_without_end():
    with pytest.raises(ImageError, match="2.jpg: broken"):
        TransformedDataset(Numbers(6, broken=[2]), replace_unreadable=True, strict=True)[2]
    with pytest.raises(ImageError, match="unreadable, and so are the 19 images after it"):
        TransformedDataset(Numbers(40, broken=range(40)), replace_unreadable=True)[0]


def test_collate_keeps_pixels_and_layout():
    samples = [TransformedDataset(Pictures(4))[i] for i in range(3)]
    batch = collate(samples)
    assert batch["image"].dtype == torch.uint8 and batch["image"].shape == (3, 3, 32, 32)
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["image"][1].permute(1, 2, 0).numpy(), samples[1]["image"])
    assert batch["label"].tolist() == [0, 1, 0] and batch["label"].dtype == torch.int64


def test_images_of_different_size_are_explained():
    samples = [{"image": np.zeros((h, 8, 3), np.uint8), "label": 0, "index": 0, "unreadable": []} for h in (8, 9)]
    with pytest.raises(ValueError, match=r"^train_transform: .*got 8x8, 8x9"):
        collate(samples)


def test_a_transform_that_leaves_uint8_is_explained():
    dataset = TransformedDataset(Pictures(2), A.Compose([A.Normalize()]))
    with pytest.raises(TypeError, match=r"got ndarray of float32.*Normalize"):
        dataset[0]
