"""Hyperband as W&B does it: bands, thresholds, and what is refused."""

import pytest

from striate.experiments.sweep.hyperband import Hyperband, read_early_termination


@pytest.mark.parametrize(
    ("content", "bands"),
    [
        ({"min_iter": 3}, [3, 9, 27, 81]),
        ({"min_iter": 1, "eta": 2}, [1, 2, 4, 8]),
        ({"max_iter": 27, "s": 2}, [3, 9]),
        ({"max_iter": 27, "s": 5}, [1, 3, 9]),
        ({"max_iter": 5, "s": 2, "eta": 2}, [1, 2]),
        ({"max_iter": 27, "s": 2, "min_iter": 7}, [3, 9]),  # max_iter decides
    ],
)
def test_bands(content, bands):
    assert list(read_early_termination({"type": "hyperband", **content}).bands[:4]) == bands


def test_the_best_share_goes_on_at_a_band():
    hyperband = Hyperband([2, 4], eta=2)
    others = [[9, 1], [9, 2], [9, 3]]
    # of four values at the band, W&B takes the one with index 4 / 2 as the threshold
    assert not hyperband.stops([0], others)  # before the band
    assert not hyperband.stops([9, 2.5], others)
    assert hyperband.stops([9, 4], others)
    assert not hyperband.stops([9, 4], [])
    assert not hyperband.stops([9, 2, 9], others)  # between bands, the value at the last one counts
    assert hyperband.stops([9, 1, 0, 5], [[9, 1, 0, 1], [9, 1, 0, 2]])


def test_less_strict_termination_takes_the_best_value_so_far():
    others = [[9, 1], [9, 2], [9, 3]]
    assert Hyperband([2], eta=2).stops([0, 4], others)
    assert not Hyperband([2], eta=2, strict=False).stops([0, 4], others)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("hyperband", "early_terminate: must have type: hyperband, got 'hyperband'"),
        ({"type": "envelope", "min_iter": 1}, "early_terminate.type: must be hyperband, got 'envelope'"),
        ({"type": "hyperband"}, "early_terminate: needs min_iter, or max_iter and s"),
        ({"type": "hyperband", "max_iter": 9}, "early_terminate: needs min_iter, or max_iter and s"),
        ({"type": "hyperband", "min_itr": 9}, "no such key, got 'min_itr'; did you mean 'min_iter'"),
        ({"type": "hyperband", "min_iter": 0}, "min_iter: must be a whole number of at least 1, got 0"),
        ({"type": "hyperband", "min_iter": 1, "eta": 1}, "eta: must be larger than 1, got 1"),
        ({"type": "hyperband", "min_iter": 1, "strict": "yes"}, "strict: must be true or false, got 'yes'"),
        ({"type": "hyperband", "max_iter": 2, "s": 1}, "max_iter: leaves no band, got max_iter 2 with eta 3"),
    ],
)
def test_bad_sections(content, message):
    with pytest.raises(ValueError, match=message):
        read_early_termination(content)
