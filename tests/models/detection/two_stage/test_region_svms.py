"""Tests of R-CNN's SVMs: which regions they are trained on, the scale of features, the solver, and hard negatives."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from striate.models.detection.two_stage import region_svms
from striate.models.detection.two_stage.region_svms import (
    NO_CLASS,
    ImageRegions,
    SVMSettings,
    fit_linear_svm,
    mean_norm,
    score_to_probability,
    select_negatives,
    train_svms,
)

OBJECTS = torch.tensor([[0.0, 0.0, 10.0, 10.0], [20.0, 0.0, 30.0, 10.0]])


def regions_of(proposals, labels=(0, 2), features=None, objects=OBJECTS):
    proposals = torch.tensor(proposals, dtype=torch.float32).reshape(-1, 4)
    count = len(labels) + len(proposals)
    features = np.ones((count, 2), np.float32) if features is None else np.asarray(features, np.float32)
    return ImageRegions(features, objects[: len(labels)], torch.tensor(labels, dtype=torch.int64), proposals)


class TestSelection:
    PROPOSALS = (
        (0.0, 0.0, 10.0, 10.0),  # object 0
        (0.0, 0.0, 10.0, 3.0),  # IoU 0.3 with it, exactly
        (0.0, 0.0, 10.0, 2.9),  # 0.29
        (20.0, 0.0, 30.0, 5.0),  # 0.5 with object 1
        (40.0, 0.0, 50.0, 10.0),  # none
    )

    def test_a_region_is_negative_by_its_overlap_with_each_class(self):
        negatives = select_negatives(regions_of(self.PROPOSALS), 3, SVMSettings())
        assert negatives[:, 0].tolist() == [False, False, True, True, True]
        assert negatives[:, 1].all()  # a class without an object here: all of them
        assert negatives[:, 2].tolist() == [True, True, True, False, True]

    def test_spp_net_takes_the_threshold_itself(self):
        negatives = select_negatives(regions_of(self.PROPOSALS), 3, SVMSettings(inclusive=True))
        assert negatives[:, 0].tolist() == [False, True, True, True, True]

    def test_spp_net_drops_negatives_that_overlap_an_earlier_negative(self):
        proposals = (
            (0.0, 0.0, 10.0, 10.0),  # object 0: a positive does not drop the next one
            (40.0, 0.0, 50.0, 10.0),
            (40.0, 0.0, 50.0, 8.0),  # 0.8 with the one before
            (40.0, 0.0, 50.0, 6.0),  # 0.6 with the first, and 0.75 with a dropped one
            (1.0, 0.0, 10.0, 10.0),  # 0.9 with object 0, not negative for class 0
        )
        settings = SVMSettings(negative_overlap=0.7)
        negatives = select_negatives(regions_of(proposals), 3, settings)
        assert negatives[:, 0].tolist() == [False, True, False, True, False]
        assert negatives[:, 1].tolist() == [True, True, False, True, False]  # the last overlaps the first

    def test_objects_of_one_class_count_together(self):
        negatives = select_negatives(regions_of(self.PROPOSALS, labels=(1, 1)), 3, SVMSettings())
        assert negatives[:, 1].tolist() == [False, False, True, False, True]

    def test_without_objects_all_are_negatives(self):
        assert select_negatives(regions_of(self.PROPOSALS, labels=()), 3, SVMSettings()).all()

    def test_without_proposals(self):
        assert select_negatives(regions_of(()), 3, SVMSettings(negative_overlap=0.7)).shape == (0, 3)


def test_the_solver_minimizes_the_published_objective():
    """Against a general minimizer, on data that cannot be separated."""
    generator = np.random.default_rng(0)
    positives, negatives = generator.normal(0.5, 1, (8, 2)), generator.normal(-0.5, 1, (20, 2))
    settings = SVMSettings(c=0.05, bias=10.0, positive_weight=2.0)
    weight, bias, converged = fit_linear_svm(positives, negatives, settings)
    x = np.concatenate([positives, negatives])
    y = np.repeat([1, -1], [8, 20])
    weights = np.repeat([2.0, 1.0], [8, 20])

    def objective(parameters):
        margin = 1 - y * (x @ parameters[:2] + 10.0 * parameters[2])
        return (parameters**2).sum() / 2 + 0.05 * (weights * np.maximum(margin, 0)).sum()

    start = np.zeros(3)
    best = min(objective(minimize(objective, start, method=m).x) for m in ("Nelder-Mead", "Powell"))
    assert converged
    assert objective(np.append(weight, bias / 10.0)) == pytest.approx(best, rel=1e-3)


def test_features_are_scaled_to_a_mean_norm_of_20(monkeypatch):
    images = [
        regions_of([[40, 0, 50, 10]], features=[[3, 4], [0, 5], [6, 8]]),  # norms 5, 5, 10
        regions_of([[40, 0, 50, 10]], labels=(), features=[[0, 4]]),
    ]
    assert mean_norm(images) == pytest.approx(6.0)
    given = []

    def fit(positives, negatives, settings):
        given.append((positives, negatives))
        return fit_linear_svm(positives, negatives, settings)

    monkeypatch.setattr(region_svms, "fit_linear_svm", fit)
    svms = train_svms(images, 3, SVMSettings())
    assert svms.scale == pytest.approx(20 / 6)
    np.testing.assert_allclose(given[0][0], [[10, 40 / 3]], rtol=1e-5)  # the object of class 0
    np.testing.assert_allclose(given[0][1], [[20, 80 / 3], [0, 40 / 3]], rtol=1e-5)
    norms = np.concatenate([np.linalg.norm(image.features * svms.scale, axis=1) for image in images])
    assert norms.mean() == pytest.approx(20)


class TestHardNegatives:
    """One class on a line: objects at 4, negatives at -4, but for a few at 2 in the second image."""

    SETTINGS = SVMSettings(c=1.0, bias=1.0, retrain_after=3, feature_norm=4.0)
    FAR = tuple((40.0 + 10 * i, 0.0, 50.0 + 10 * i, 10.0) for i in range(6))

    def images(self):
        easy = [[4], [4], *[[-4]] * 6]
        mixed = [[4], [4], [-4], [2], [-4], [2], [2], [-4]]
        return [regions_of(self.FAR, (0, 0), features) for features in (easy, mixed, easy)]

    def trainings(self, monkeypatch, **changes):
        given = []

        def fit(positives, negatives, settings):
            given.append((len(positives), sorted(negatives[:, 0].round(3).tolist())))
            return fit_linear_svm(positives, negatives, settings)

        monkeypatch.setattr(region_svms, "fit_linear_svm", fit)
        settings = SVMSettings(**{**vars(self.SETTINGS), **changes})
        return given, train_svms(self.images(), 1, settings, norm=4.0)

    def test_only_the_known_hard_ones_are_added(self, monkeypatch):
        given, svms = self.trainings(monkeypatch)
        # first all negatives of the first image; then the three at 2, whose score is above -1
        assert given[0] == (6, [-4] * 6)
        assert given[1][1][-3:] == [2, 2, 2]
        assert set(given[1][1][:-3]) <= {-4}
        assert len(given) == 2  # nothing hard in the last image
        scores = np.array([4.0, 2.0, -4.0]) * svms.weight.item() + svms.bias.item()
        assert scores[0] > 0 > scores[1] > scores[2]

    def test_easy_negatives_are_dropped_after_each_training(self, monkeypatch):
        kept, _ = self.trainings(monkeypatch, easy_margin=-1.2)
        all_dropped, _ = self.trainings(monkeypatch, easy_margin=-1.0001, hard_margin=-1.0001)
        assert len(kept[1][1]) >= len(all_dropped[1][1])
        given, svms = self.trainings(monkeypatch)
        assert svms.negatives.tolist() == [3]  # those at -4 have scores far below -1.2 in the end
        del given

    def test_training_waits_for_enough_new_ones(self, monkeypatch):
        given, _ = self.trainings(monkeypatch, retrain_after=100)
        assert [count for count, _ in given] == [6]  # once, at the end, on all negatives
        assert len(given[0][1]) == 18

    def test_each_image_is_reported_and_may_interrupt(self):
        seen = []
        train_svms(self.images(), 1, self.SETTINGS, progress=seen.append)
        assert seen == [0, 1, 2]


def test_a_class_without_objects_is_never_detected():
    images = [regions_of([[40, 0, 50, 10]], labels=(0,), features=[[1, 0], [0, 1]])]
    svms = train_svms(images, 2, SVMSettings())
    assert svms.bias[1] == NO_CLASS and not svms.weight[1].any()
    assert score_to_probability(svms.bias)[1] < 1e-6 < score_to_probability(svms.bias)[0]


def test_images_without_proposals_or_without_objects():
    images = [regions_of((), labels=(0,), features=[[1, 0]]), regions_of((), labels=(), features=np.zeros((0, 2)))]
    svms = train_svms(images, 1, SVMSettings())
    assert (svms.weight @ torch.tensor([20.0, 0.0]) + svms.bias).item() > 0


def test_no_objects_at_all():
    with pytest.raises(ValueError, match="images: must have at least one object, got none"):
        train_svms([regions_of([[0, 0, 1, 1]], labels=())], 1, SVMSettings())


def test_features_of_zero():
    with pytest.raises(ValueError, match="features: must not all be 0"):
        train_svms([regions_of((), labels=(0,), features=[[0, 0]])], 1, SVMSettings())


def test_half_precision_features_are_used_in_float32():
    images = [regions_of([[40, 0, 50, 10]], labels=(0,), features=[[300, 0], [0, 300]])]
    halved = [regions._replace(features=regions.features.astype(np.float16)) for regions in images]
    torch.testing.assert_close(train_svms(halved, 1, SVMSettings()).weight, train_svms(images, 1, SVMSettings()).weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"negative_iou": 1.5}, r"negative_iou: must be in \[0, 1\], got 1.5"),
        ({"c": 0}, "c: must be > 0"),
        ({"retrain_after": 0}, "retrain_after: must be >= 1"),
        ({"easy_margin": -0.5}, "easy_margin: must be <= hard_margin.*got -0.5 > -1.0001"),
    ],
)
def test_wrong_settings(arguments, message):
    with pytest.raises(ValueError, match=message):
        SVMSettings(**arguments)
