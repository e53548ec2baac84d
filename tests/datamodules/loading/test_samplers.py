"""Samplers: the samples of each rank, shuffled, drawn by class, or in groups."""

from collections import Counter

import numpy as np
import pytest

from striate.datamodules.loading.collate import collate_objects
from striate.datamodules.loading.dataset import TransformedDataset
from striate.datamodules.loading.epoch_sampling import (
    ClassBalancedSampling,
    ClassPresence,
    RepeatFactorSampling,
)
from striate.datamodules.loading.loader import make_loader
from striate.datamodules.loading.samplers import EpochSampler
from striate.tests.helpers.samples import (
    presence_of,
)


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


def test_fewer_samples_than_devices_are_rejected():
    with pytest.raises(ValueError, match=r"trainer.devices: .*got 4 devices for 2 sample"):
        EpochSampler(2, False, False, num_replicas=4, rank=0)


# -- with sampling by class


LABELS = np.array([0] * 90 + [1] * 10)


def balanced_keys(epoch=0, seed=0, ranks=1, rank=0, skip=0, labels=LABELS):
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


def test_draws_depend_on_seed_and_epoch():
    assert balanced_keys(3, 7) == balanced_keys(3, 7)
    orders = [[key.index for key in balanced_keys(*numbers)] for numbers in ((3, 7), (4, 7), (3, 8))]
    assert orders[0] != orders[1] and orders[0] != orders[2]
    assert {key.epoch for key in balanced_keys(3)} == {3}


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_share_one_draw(ranks):
    whole = balanced_keys(epoch=2)
    shares = [balanced_keys(epoch=2, ranks=ranks, rank=rank) for rank in range(ranks)]
    assert {len(share) for share in shares} == {-(-100 // ranks)}
    for rank, share in enumerate(shares):
        expected = whole[rank::ranks]
        assert share[: len(expected)] == expected
    together = {key for share in shares for key in share}
    assert len(together) == 100 and together == set(whole)  # each draw, and no others


def test_skipping_continues_within_the_draw():
    assert balanced_keys(1, skip=30) == balanced_keys(1)[30:]


# -- with groups


GROUPS = np.array([0] * 37 + [1] * 21 + [2] * 5)


def keys(groups, epoch=1, ranks=1, rank=0, batch=4, skip=0, sampling=None):
    sampler = EpochSampler(
        len(groups), True, True, 7, num_replicas=ranks, rank=rank, sampling=sampling, groups=groups, batch_size=batch
    )
    sampler.set_epoch(epoch)
    sampler.skip = skip
    assert len(list(sampler)) == max(len(sampler) - skip, 0)
    return list(sampler)


@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("drawn", [False, True])
def test_ranks_share_grouped_batches(ranks, drawn):
    draw = RepeatFactorSampling(presence_of([{int(group)} for group in GROUPS]), 0.5) if drawn else None
    shares = [keys(GROUPS, ranks=ranks, rank=rank, sampling=draw) for rank in range(ranks)]
    total = draw.length if draw else 63
    assert {len(share) for share in shares} == {-(-total // ranks)}  # the same number of steps
    together = Counter(key for share in shares for key in share)
    assert len(together) == total  # each draw occurs; only padding repeats some
    assert sum(together.values()) - total == -total % ranks
    assert {key.index for key in together} == set(range(63))
    batches = [share[start : start + 4] for share in shares for start in range(0, len(share) // 4 * 4, 4)]
    uniform = sum(len({int(GROUPS[key.index]) for key in batch}) == 1 for batch in batches)
    assert uniform >= len(batches) - 2  # three groups have remainders of at most nine samples


def test_groups_are_reshuffled_each_epoch_and_resumable():
    first, again, other = keys(GROUPS), keys(GROUPS), keys(GROUPS, epoch=2)
    assert first == again and [key.index for key in first] != [key.index for key in other]
    assert keys(GROUPS, skip=24) == first[24:]
    order = [int(GROUPS[key.index]) for key in first[::4]]
    assert order != sorted(order)  # batches of a group are not consecutive
    assert {tuple(sorted(key.index for key in keys(GROUPS, epoch=epoch)[60:])) for epoch in range(9)} != {(60, 61, 62)}


def test_groups_without_padding_are_rejected():
    with pytest.raises(ValueError, match="groups: need pad"):
        EpochSampler(3, False, False, groups=np.zeros(3))


def test_make_loader_with_sampling_and_groups():
    source = [{"image": np.zeros((4, 4, 3), np.uint8), "boxes": [], "labels": []}] * 63
    draw = RepeatFactorSampling(presence_of([{int(group)} for group in GROUPS]), 0.5)
    loader = make_loader(
        TransformedDataset(source),
        4,
        0,
        training=True,
        seed=7,
        collate_fn=collate_objects,
        sampling=draw,
        groups=GROUPS,
    )
    indices = [index for batch in loader for index in batch["index"].tolist()]
    assert indices == [key.index for key in keys(GROUPS, epoch=0, sampling=draw)][: draw.length // 4 * 4]


def test_groups_of_another_length_are_rejected():
    with pytest.raises(ValueError, match="groups: .*got 3 for 5"):
        EpochSampler(5, True, True, groups=np.arange(3))
