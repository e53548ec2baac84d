"""Validation splits: random, and stratified by class."""

import numpy as np
import pytest

from striate.datamodules import (
    ImageFolder,
    InstanceMasks,
    LabelmeJson,
    Manifest,
    MaskFolder,
    VOCDetection,
    VOCLocalization,
    YoloDetection,
)
from striate.datamodules.loading.splits import (
    check_val_fraction,
    optional_val_fraction,
    random_split,
    stratified_split,
)


def test_a_stratified_split_has_the_rounded_fraction_of_all_and_of_each_class():
    labels = np.repeat([0, 1, 2], [25, 35, 45])  # a tenth: 2.5, 3.5, 4.5, in all 10.5
    held_out = stratified_split(labels, 0.1, seed=0)
    assert held_out.sum() == 10
    counts = np.bincount(labels[held_out])
    assert (counts >= [2, 3, 4]).all() and (counts <= [3, 4, 5]).all()
    labels = np.repeat([0, 1, 2], [18, 27, 5])  # 1.8, 2.7, 0.5, in all 5: the largest remainders are rounded up
    assert np.bincount(labels[stratified_split(labels, 0.1, seed=0)]).tolist() == [2, 2, 1]


@pytest.mark.parametrize(
    "size, fraction, count", [(10, 0.25, 2), (10, 0.01, 1), (10, 0.99, 9), (2, 0.5, 1), (1, 0.5, 0)]
)
def test_a_random_split_holds_out_the_rounded_fraction_and_never_all(size, fraction, count):
    held_out = random_split(size, fraction, seed=3)
    assert held_out.shape == (size,) and held_out.sum() == count
    np.testing.assert_array_equal(held_out, random_split(size, fraction, seed=3))


def test_random_splits_depend_on_the_seed():
    assert (random_split(50, 0.5, seed=0) != random_split(50, 0.5, seed=1)).any()


@pytest.mark.parametrize("fraction", [0, 1, -0.1, float("nan")])
def test_fractions_out_of_range(fraction):
    with pytest.raises(ValueError, match=f"val_fraction: .*got {fraction}"):
        check_val_fraction(fraction)


def test_a_fraction_may_be_absent_or_zero_if_allowed():
    check_val_fraction(None)
    check_val_fraction(0.5)
    check_val_fraction(0, allow_zero=True)
    with pytest.raises(ValueError, match=r"val_fraction: .*\[0, 1\), got 1"):
        check_val_fraction(1, allow_zero=True)


def test_a_fraction_of_zero_holds_out_nothing(tmp_path):
    assert [optional_val_fraction(fraction) for fraction in (None, 0, 0.0, 0.5)] == [None, None, None, 0.5]
    with pytest.raises(ValueError, match=r"val_fraction: .*\[0, 1\), got 1"):
        optional_val_fraction(1)
    root = str(tmp_path)
    modules = (
        ImageFolder(root, val_fraction=0),
        InstanceMasks(root, val_fraction=0),
        LabelmeJson(root, val_fraction=0),
        MaskFolder(root, ["a", "b"], val_fraction=0),
        Manifest("a.csv", root=root, val_fraction=0),
        VOCDetection(root, val_fraction=0),
        VOCLocalization(root, val_fraction=0),
        YoloDetection(root, val_fraction=0),
    )
    assert [data.val_fraction for data in modules] == [None] * len(modules)
