"""Tests of R-CNN's box regression: its pairs, whitening, and the solution against scikit-learn's ridge regression."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from sklearn.linear_model import Ridge

from striate.models.detection.two_stage.region_boxes import (
    MIN_VARIANCE,
    BoxPairs,
    BoxRegressionSettings,
    fit_ridge,
    select_pairs,
    train_box_regression,
    whitening,
)

OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]])


def test_pairs_are_proposals_with_the_object_that_they_overlap_most():
    proposals = torch.tensor(
        [
            [0.0, 0.0, 10.0, 6.0],  # 0.6 with object 0, 0.75 with object 1
            [0.0, 0.0, 12.5, 10.0],  # 0.8 with object 0
            [0.0, 0.0, 5.0, 10.0],  # 0.5 with object 0
            [50.0, 50.0, 60.0, 60.0],
        ]
    )
    pairs = select_pairs(OBJECTS, torch.tensor([3, 1]), proposals, BoxRegressionSettings())
    assert pairs.rows.tolist() == [0, 1] and pairs.labels.tolist() == [1, 3]
    expected = [[0.0, 1 / 6, 0.0, np.log(8 / 6)], [-1.25 / 12.5, 0.0, np.log(10 / 12.5), 0.0]]
    torch.testing.assert_close(pairs.offsets, torch.tensor(expected, dtype=torch.float32))


def test_the_threshold_is_exclusive_for_r_cnn_and_inclusive_for_spp_net():
    proposals = torch.tensor([[0.0, 0.0, 5.0, 10.0]])  # 0.5
    for inclusive, count in ((False, 0), (True, 1)):
        settings = BoxRegressionSettings(min_iou=0.5, inclusive=inclusive)
        assert len(select_pairs(OBJECTS[:1], torch.tensor([0]), proposals, settings).rows) == count


def test_no_objects_or_no_proposals():
    none, labels = torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)
    assert len(select_pairs(none, labels, OBJECTS, BoxRegressionSettings()).rows) == 0
    assert len(select_pairs(OBJECTS, torch.tensor([0, 1]), none, BoxRegressionSettings()).rows) == 0


def offsets(count, seed=0):
    generator = np.random.default_rng(seed)
    mixing = np.array([[1.0, 0.5, 0, 0], [0, 1, 0.2, 0], [0, 0, 1, 0.9], [0.1, 0, 0, 1]])
    return generator.normal(0.3, 1, (count, 4)) @ mixing


def test_whitening_is_the_inverse_square_root_of_the_covariance():
    targets = offsets(200)
    mean, whiten, restore = whitening(targets)
    covariance = np.cov(targets.T, bias=True) + MIN_VARIANCE * np.eye(4)
    np.testing.assert_allclose(restore, sqrtm(covariance).real, atol=1e-8)
    np.testing.assert_allclose(whiten @ restore, np.eye(4), atol=1e-8)
    whitened = (targets - mean) @ whiten
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-10)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(4), atol=0.01)


def test_one_pair_has_no_variance():
    mean, whiten, _ = whitening(np.array([[0.1, 0.2, 0.3, 0.4]]))
    np.testing.assert_allclose(mean, [0.1, 0.2, 0.3, 0.4])
    assert np.isfinite(whiten).all()


@pytest.mark.parametrize("samples", [50, 6])  # more and fewer than features
def test_ridge_equals_scikit_learn(samples):
    generator = np.random.default_rng(1)
    features, targets = generator.normal(size=(samples, 12)), offsets(samples)
    constant = np.ones((samples, 1))
    model = Ridge(alpha=7.0, fit_intercept=False).fit(np.hstack([features, constant]), targets)
    np.testing.assert_allclose(fit_ridge(features, targets, 7.0), model.coef_.T, atol=1e-8)


def test_all_classes_equal_scikit_learn_with_the_same_whitening():
    generator = np.random.default_rng(2)
    features = [generator.normal(size=(30, 5)).astype(np.float32) for _ in range(3)]
    pairs = [
        BoxPairs(torch.arange(30), torch.arange(30) % 2, torch.tensor(offsets(30, seed), dtype=torch.float32))
        for seed in range(3)
    ]
    regression = train_box_regression(features, pairs, 3, 5, norm=4.0, settings=BoxRegressionSettings(ridge=100.0))
    assert regression.pairs.tolist() == [45, 45, 0]
    for label in (0, 1):
        x = np.concatenate([rows[label::2] for rows in features]) * 5.0  # a mean norm of 4 becomes 20
        y = np.concatenate([one.offsets[label::2].numpy() for one in pairs])
        covariance = np.cov(y.T, bias=True) + MIN_VARIANCE * np.eye(4)
        root = sqrtm(covariance).real
        x = np.hstack([x, np.ones((len(x), 1))])
        model = Ridge(alpha=100.0, fit_intercept=False).fit(x, (y - y.mean(0)) @ np.linalg.inv(root))
        expected = model.predict(x) @ root + y.mean(0)
        own = np.concatenate([rows[label::2] for rows in features]) @ regression.weight[label].numpy()
        np.testing.assert_allclose(own + regression.bias[label].numpy(), expected, atol=1e-4)
    assert not regression.weight[2].any() and not regression.bias[2].any()  # boxes remain as proposed


@pytest.mark.parametrize(
    ("arguments", "message"), [({"min_iou": 2}, "min_iou: must be in"), ({"ridge": 0}, "ridge: must be > 0, got 0")]
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        BoxRegressionSettings(**arguments)
