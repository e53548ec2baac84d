"""Curves of each class against the rest."""

import numpy as np
import pytest
import torch
from sklearn.metrics import precision_recall_curve

from striate.tasks.metrics.one_vs_rest import OneVersusRest


def test_curves_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = (torch.randint(0, 100, (200, 3), generator=generator) + 0.5) / 100  # between the 101 scores
    labels = torch.randint(0, 2, (200,), generator=generator)  # class 2 has no image
    metric = OneVersusRest(3)
    for part in range(2):
        metric.update(scores[100 * part : 100 * part + 100], labels[100 * part : 100 * part + 100])
    curves = metric.pr_curves()
    for k in range(2):
        precision, recall, _ = precision_recall_curve(labels == k, scores[:, k])
        # without the last entry, which stands for no predictions at all
        expected = [precision[:-1][recall[:-1] >= level - 1e-9].max() for level in np.linspace(0, 1, 101)]
        np.testing.assert_allclose(curves["precision"][k], expected, atol=1e-6)
    assert curves["precision"][2].isnan().all() and curves["scores"][2].isnan().all()


def test_the_score_at_which_a_recall_is_reached():
    metric = OneVersusRest(2)
    metric.update(torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.8, 0.2]]), torch.tensor([0, 0, 1, 1]))
    curves = metric.pr_curves()
    assert curves["scores"][0, [0, 50, 51, 100]].tolist() == pytest.approx([0.9, 0.9, 0.7, 0.7], abs=0.011)
    assert curves["precision"][0, [0, 50, 51, 100]].tolist() == pytest.approx([1, 1, 2 / 3, 2 / 3])
