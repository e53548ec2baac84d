"""Which learning rate is taken from a search, and which results are not trusted."""

import numpy as np
import pytest
import yaml
from pytorch_lightning.tuner.lr_finder import _LRFinder

from striate.experiments.launcher.finders import doubt, steepest_fall
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, read_csv

RATES = np.geomspace(1e-8, 1, 100).tolist()


def search(loss):
    """A search with the loss as a function of the logarithm of the rate to base 10."""
    return {"lr": RATES, "loss": [loss(place) for place in np.log10(RATES)]}


FALLING = search(lambda place: 2 - 1 / (1 + np.exp(-4 * (place + 3))) + 1e-4 * np.sin(50 * place))


def test_the_loss_falls_fastest_over_the_logarithm_of_the_rate():
    assert steepest_fall(FALLING) == pytest.approx(1e-3, rel=0.2)
    lightning = _LRFinder("exponential", 1e-8, 1, 100)
    lightning.results = FALLING
    assert lightning.suggestion() < 1e-7  # the slope over the rate itself: noise at the smallest rates
    gaps = FALLING | {"loss": [np.nan if n % 3 else loss for n, loss in enumerate(FALLING["loss"])]}
    assert steepest_fall(gaps) == pytest.approx(1e-3, rel=0.5)
    assert steepest_fall(FALLING | {"loss": [1.0] * 11 + [np.inf] * 89}) is None


@pytest.mark.parametrize(
    "results, rate, problem",
    [
        (FALLING, RATES[60], None),
        (FALLING, RATES[15], None),
        (FALLING, RATES[14], "it is at the lower end of the searched rates, 1e-08 to 1"),
        (FALLING, RATES[93], None),
        (FALLING, RATES[94], "it is at the upper end of the searched rates"),
        (search(lambda place: 2 - 0.03 * (place > -2)), RATES[60], "the loss fell by 1.5 % in the whole search"),
        (search(lambda place: -2 - place), RATES[60], None),
        (search(lambda place: 9 + place), RATES[60], "the loss fell by 0.0 % in the whole search"),
        (FALLING, None, "there are too few finite losses"),
    ],
)
def test_which_results_are_doubtful(results, rate, problem):
    found = doubt(results, rate, steps=100)
    assert found == problem or (problem and found and problem in found)


def test_a_doubtful_rate_is_not_used(workdir):
    make_folder(workdir / "data", per_class=8)
    finder = {"class_path": "pytorch_lightning.callbacks.LearningRateFinder",
              "init_args": {"num_training_steps": 20, "min_lr": 1e-12, "max_lr": 1e-11}}  # fmt: skip
    trainer = CLASSIFICATION["trainer"] | {"max_epochs": 1, "callbacks": [finder]}
    (workdir / "search.yaml").write_text(yaml.safe_dump(CLASSIFICATION | {"trainer": trainer}))
    message = (
        r"learning rate 1?\.?\d.*e-12 found, so training continues with that .*the loss fell by .*lr_finder.png, then"
    )
    with pytest.warns(UserWarning, match=message):
        launch("fit", "--config", "search.yaml")
    run = workdir / "runs" / "search" / "fit-1"
    rates = [float(row["lr"]) for row in read_csv(run / "metrics.csv") if row["lr"]]
    configured = CLASSIFICATION["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert rates == pytest.approx([configured] * len(rates)) and rates
    assert (run / "pictures" / "lr_finder.png").is_file()
