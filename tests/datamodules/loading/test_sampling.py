"""Splits that keep the classes' shares, and draws that make them equal."""

from collections import Counter

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from striate.datamodules import DigitScenes, ImageFolder
from striate.datamodules.loading.dataset import SampleKey, TransformedDataset
from striate.datamodules.loading.loader import make_loader
from striate.datamodules.loading.samplers import EpochSampler
from striate.datamodules.loading.sampling import ClassBalancedSampling, ClassPresence
from striate.datamodules.loading.splits import stratified_split
from striate.tests.helpers.fixtures import noisy_image, write_image

LABELS = np.array([0] * 90 + [1] * 10)


def generator(seed=0):
    return np.random.default_rng(seed)


def balanced_draw(labels, generator):
    return ClassBalancedSampling(ClassPresence.of_labels(labels))(generator)


def test_a_split_has_the_rounded_fraction_of_the_whole_and_of_each_class():
    labels = np.repeat([0, 1, 2], [25, 35, 45])  # a tenth: 2.5, 3.5, 4.5, in all 10.5
    chosen = stratified_split(labels, 0.1, seed=0)
    assert chosen.sum() == 10
    counts = np.bincount(labels[chosen])
    assert (counts >= [2, 3, 4]).all() and (counts <= [3, 4, 5]).all()
    labels = np.repeat([0, 1, 2], [18, 27, 5])  # 1.8, 2.7, 0.5, in all 5: the largest remainders are rounded up
    assert np.bincount(labels[stratified_split(labels, 0.1, seed=0)]).tolist() == [2, 2, 1]


def test_equal_counts_by_hand():
    drawn, before = balanced_draw(LABELS, generator())
    assert len(drawn) == 100 and np.bincount(LABELS[drawn]).tolist() == [50, 50]
    times = Counter(drawn.tolist())
    assert all(times[rare] == 5 for rare in range(90, 100))  # 50 draws of 10 samples: five rounds
    assert sum(times[common] for common in range(90)) == 50 and max(times[common] for common in range(90)) == 1
    for rare in range(90, 100):
        assert sorted(before[drawn == rare]) == [0, 1, 2, 3, 4]
    assert before[drawn < 90].max() == 0


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.integers(0, 2**32))
def test_balance_for_any_labels(labels, seed):
    labels = np.array(labels)
    drawn, before = balanced_draw(labels, generator(seed))
    counts = [int((labels[drawn] == label).sum()) for label in np.unique(labels)]
    assert len(drawn) == len(labels) and max(counts) - min(counts) <= 1
    for label in np.unique(labels):  # within a class, nobody comes again before all have come
        times = [int((drawn == member).sum()) for member in np.flatnonzero(labels == label)]
        assert max(times) - min(times) <= 1
    assert len({(int(index), int(repeat)) for index, repeat in zip(drawn, before, strict=True)}) == len(labels)


def test_the_draw_is_in_random_order_and_reaches_every_sample():
    drawn, _ = balanced_draw(LABELS, generator())
    halves = [int((LABELS[half] == 1).sum()) for half in np.split(drawn, 2)]
    assert min(halves) > 15
    seen = {int(index) for seed in range(20) for index in balanced_draw(LABELS, generator(seed))[0]}
    assert seen == set(range(100))


def keys(epoch=0, seed=0, ranks=1, rank=0, skip=0, labels=LABELS):
    sampler = EpochSampler(
        len(labels),
        True,
        True,
        seed,
        num_replicas=ranks,
        rank=rank,
        sampling=ClassBalancedSampling(ClassPresence.of_labels(labels)),
    )
    sampler.set_epoch(epoch)
    sampler.skip = skip
    return list(sampler)


def test_the_draw_follows_from_seed_and_epoch():
    assert keys(3, 7) == keys(3, 7)
    orders = [[key.index for key in keys(*numbers)] for numbers in ((3, 7), (4, 7), (3, 8))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert {key.epoch for key in keys(3)} == {3}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_stride_over_one_draw(ranks):
    whole = keys(epoch=2)
    shares = [keys(epoch=2, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert {len(share) for share in shares} == {-(-100 // ranks)}
    for rank, share in enumerate(shares):
        own = whole[rank::ranks]
        assert share[: len(own)] == own
    together = {key for share in shares for key in share}
    assert len(together) == 100 and together == set(whole)  # each draw, and nothing else


def test_skipping_continues_the_same_draw():
    assert keys(1, skip=30) == keys(1)[30:]


def test_groups_that_are_not_one_a_sample():
    with pytest.raises(ValueError, match="groups: .*got 3 for 5"):
        EpochSampler(5, True, True, groups=np.arange(3))


@pytest.fixture
def folder(tmp_path):
    for name, size in (("common", 18), ("rare", 2)):
        for number in range(size):
            for split in ("train", "val"):
                write_image(tmp_path / split / name / f"{number:02d}.png", noisy_image(name == "rare", number, 16))
    return str(tmp_path)


def loaded(folder, workers=0, epoch=0, **options):
    transform = [A.RandomCrop(8, 8), A.HorizontalFlip(), A.RandomBrightnessContrast(p=1)]
    data = ImageFolder(
        folder, batch_size=4, num_workers=workers, train_transform=transform, sampling="class_balanced", **options
    )
    data.setup("fit")
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return data, loader


def test_a_data_module_trains_balanced_and_evaluates_in_order(folder):
    data, loader = loaded(folder)
    labels = torch.cat([batch["label"] for batch in loader])
    assert torch.bincount(labels).tolist() == [10, 10]
    assert [i for batch in data.val_dataloader() for i in batch["index"].tolist()] == list(range(20))
    plain = ImageFolder(folder, batch_size=4, num_workers=0)
    plain.setup("fit")
    assert torch.bincount(torch.cat([batch["label"] for batch in plain.train_dataloader()])).tolist() == [18, 2]


def test_a_sample_is_augmented_anew_each_time_it_comes(folder):
    _, loader = loaded(folder)
    pictures = [
        image.numpy().tobytes()
        for batch in loader
        for image, index in zip(batch["image"], batch["index"], strict=True)
        if index == 18
    ]
    assert len(pictures) == 5 and len(set(pictures)) == 5


def test_the_first_time_is_as_under_uniform_sampling():
    transform = A.Compose([A.RandomCrop(8, 8)])

    class One:
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return {"image": noisy_image(0, 0), "label": 0}

    dataset = TransformedDataset(One(), transform, seed=3)
    first, same, other = (dataset[key]["image"] for key in (SampleKey(2, 0), SampleKey(2, 0, 0), SampleKey(2, 0, 1)))
    assert np.array_equal(first, same) and not np.array_equal(first, other)


def test_workers_and_resumption_change_nothing(folder):
    def taken(loader, count=None):
        batches = []
        for batch in loader:
            batches.append((batch["index"].tolist(), batch["image"].clone()))
            if len(batches) == count:
                break
        return batches

    whole = taken(loaded(folder, epoch=2)[1])
    first = loaded(folder, workers=1, epoch=2)[1]
    begun = taken(first, 2)
    second = loaded(folder, workers=1)[1]
    second.load_state_dict(first.state_dict())
    joined = begun + taken(second)
    assert len(joined) == len(whole) == 5
    assert all(i == j and torch.equal(a, b) for (i, a), (j, b) in zip(joined, whole, strict=True))


def test_a_source_without_labels_is_explained():
    data = DigitScenes(num_workers=0, train_size=4, val_size=2)
    data.sampling = "class_balanced"
    data.setup("fit")
    with pytest.raises(ValueError, match=r"sampling: class_balanced needs the classes .*got SceneSource"):
        data.train_dataloader()


def test_an_unknown_sampling_is_explained():
    with pytest.raises(
        ValueError,
        match=r"sampling: .*got 'balanced'.*'class_balanced'",
    ):
        ImageFolder("x", sampling="balanced")


def test_make_loader_without_balance_is_as_before():
    class Numbers:
        def __len__(self):
            return 6

        def __getitem__(self, index):
            return {"image": np.full((2, 2, 3), index, np.uint8), "label": 0}

    loader = make_loader(TransformedDataset(Numbers()), 6, 0, training=True, seed=0)
    (batch,) = loader
    assert sorted(batch["index"].tolist()) == list(range(6))
