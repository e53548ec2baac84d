"""Distributions of W&B: bounds, quantization, scale, and what is refused."""

import math

import numpy as np
import pytest
import yaml
from scipy import stats

from striate.experiments.sweep.parameters import DISTRIBUTIONS, read_parameter, read_parameters
from striate.experiments.sweep.study import DrawingSampler, storage_distribution

LOG = (math.log(2), math.log(50))
# parameter -> the same distribution by SciPy
CONTINUOUS = {
    "min: 2.0, max: 5.0": stats.uniform(2, 3),
    "distribution: uniform, min: 2, max: 5": stats.uniform(2, 3),
    "distribution: log_uniform_values, min: 2, max: 50": stats.loguniform(2, 50),
    f"distribution: log_uniform, min: {LOG[0]}, max: {LOG[1]}": stats.loguniform(2, 50),
    "distribution: inv_log_uniform_values, min: 2, max: 50": stats.loguniform(2, 50),
    f"distribution: inv_log_uniform, min: {LOG[0]}, max: {LOG[1]}": stats.loguniform(1 / 50, 1 / 2),
    "distribution: normal": stats.norm(0, 1),
    "distribution: normal, mu: 3, sigma: 0.5": stats.norm(3, 0.5),
    "distribution: log_normal, mu: 1, sigma: 0.5": stats.lognorm(0.5, scale=math.e),
    "distribution: beta, a: 2, b: 5": stats.beta(2, 5),
}
# parameter -> the distribution by SciPy that is rounded to multiples of q
QUANTIZED = {
    "distribution: q_uniform, min: 8, max: 64, q: 8": (stats.uniform(8, 56), 8),
    "distribution: q_uniform, min: 0, max: 1, q: 0.1": (stats.uniform(0, 1), 0.1),
    "distribution: q_log_uniform_values, min: 2, max: 50, q: 4": (stats.loguniform(2, 50), 4),
    f"distribution: q_log_uniform, min: {LOG[0]}, max: {LOG[1]}": (stats.loguniform(2, 50), 1),
    "distribution: q_normal, mu: 3, sigma: 2, q: 0.5": (stats.norm(3, 2), 0.5),
    "distribution: q_log_normal, mu: 1, sigma: 0.5": (stats.lognorm(0.5, scale=math.e), 1),
    "distribution: q_beta, a: 2, b: 5, q: 0.25": (stats.beta(2, 5), 0.25),
}


def parameter(text):
    return read_parameter("x", yaml.safe_load(f"{{{text}}}"))


def sample(one, count=1500):
    """Values of the trials of a random search, through the storage's distributions."""
    sampler = DrawingSampler([one], seed=0)
    name, distribution = storage_distribution(one)

    class Numbered:
        def __init__(self, number):
            self.number = number

    stored = [sampler.sample_independent(None, Numbered(number), name, distribution) for number in range(count)]
    for value in stored:
        assert distribution._contains(distribution.to_internal_repr(value))
    raw = [one.quantile(value) for value in stored] if name.endswith("(quantile)") else stored
    return [one.finish(value) for value in raw]


@pytest.mark.parametrize("text", CONTINUOUS)
def test_continuous_samples_have_the_distribution(text):
    one, reference = parameter(text), CONTINUOUS[text]
    shares = np.linspace(0.001, 0.999, 97)
    np.testing.assert_allclose([one.quantile(share) for share in shares], reference.ppf(shares), rtol=1e-9, atol=1e-9)
    values = sample(one)
    assert stats.kstest(values, reference.cdf).pvalue > 0.01
    low, high = reference.support()
    assert low <= min(values) and max(values) <= high


@pytest.mark.parametrize("text", QUANTIZED)
def test_quantized_samples_are_multiples_with_the_rounded_distribution(text):
    one, (reference, q) = parameter(text), QUANTIZED[text]
    values = sample(one)
    steps = np.array(values) / q
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-9)
    assert all(isinstance(value, int) == isinstance(q, int) for value in values)
    counts = {step: int(np.sum(np.round(steps) == step)) for step in np.unique(np.round(steps))}
    for step, count in counts.items():  # half of a bin lies on each side of its multiple
        share = reference.cdf((step + 0.5) * q) - reference.cdf((step - 0.5) * q)
        assert abs(count / len(values) - share) < 4 * math.sqrt(share * (1 - share) / len(values)) + 1e-9


def test_int_uniform_includes_both_ends():
    values = sample(parameter("min: 3, max: 6"))
    assert set(values) == {3, 4, 5, 6} and all(isinstance(value, int) for value in values)
    assert all(abs(values.count(value) / len(values) - 0.25) < 0.05 for value in set(values))


def test_categorical_keeps_every_kind_of_value():
    values = [None, True, 1, 1.5, "1", "torch.optim.SGD", [0.6, 0.9], {"class_path": "a.B"}]
    drawn = sample(parameter(f"values: {values!r}".replace("None", "null").replace("True", "true")))
    for value in values:
        same = [one for one in drawn if one == value and type(one) is type(value)]
        assert abs(len(same) / len(drawn) - 1 / len(values)) < 0.04, value


@pytest.mark.parametrize(
    "distribution", ["", "distribution: categorical, ", "distribution: categorical_w_probabilities, "]
)
def test_categorical_with_probabilities(distribution):
    drawn = sample(parameter(distribution + "values: [a, b, c], probabilities: [0.7, 0.3, 0]"))
    assert abs(drawn.count("a") / len(drawn) - 0.7) < 0.05 and "c" not in drawn


def test_nested_parameters_become_dotted_keys_in_the_order_of_the_names():
    text = "model: {parameters: {optimizer: {parameters: {lr: {value: 1}}}}}\ndata.batch_size: {values: [8]}"
    assert [one.name for one in read_parameters(yaml.safe_load(text))] == ["data.batch_size", "model.optimizer.lr"]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("value: [1, 2]", [[1, 2]]),
        ("values: [a, null, a]", ["a", None]),
        ("min: 1, max: 3", [1, 2, 3]),
        ("distribution: q_uniform, min: 0, max: 0.3, q: 0.1", [0.0, 0.1, 0.2]),  # as W&B: without the end
    ],
)
def test_grid_values(text, values):
    assert parameter(text).grid() == values


@pytest.mark.parametrize("text", ["min: 0, max: 1000000000", "distribution: q_uniform, min: 0, max: 1, q: 1.0e-9"])
def test_a_grid_that_fills_the_memory_is_refused(text):
    with pytest.raises(ValueError, match=r"parameters\.x: a grid has at most 100000 points, got 1e\+09; list fewer"):
        parameter(text).grid()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"x: has no values, got \{\}; write value, values"),
        ("{min: 1}", "x: has no values, got min: 1"),
        ("{values: []}", r"x\.values: must be a list with at least one value, got \[\]"),
        ("{values: [2026-01-01]}", r"x\.values: must be plain values, .*; quote them"),
        ("{values: abc}", r"x\.values: must be a list"),
        ("{distribution: unifrm, min: 1, max: 2}", "no such distribution, got 'unifrm'; did you mean 'uniform'"),
        ("{distribution: loguniform, min: 1, max: 2}", "'loguniform'; use log_uniform_values, or log_uniform, whose"),
        ("{distribution: uniform, min: 1}", "x: uniform needs max, got min: 1"),
        ("{distribution: normal, my: 1}", "x: normal has no 'my'; did you mean 'mu'"),
        ("{values: [1], min: 2}", "x: categorical has no 'min'"),
        ("{min: 5, max: 2}", r"x\.min: must be less than max, got min 5 and max 2"),
        ("{min: 1e-4, max: 0.1}", r"x\.min: must be a number, got '1e-4'; YAML reads 1e-4 as text, write 0\.0001"),
        ("{min: .nan, max: 0.1}", r"x\.min: must be a number, got nan"),
        ("{min: true, max: 2.0}", r"x\.min: must be a number, got True"),
        ("{distribution: log_uniform_values, min: 0, max: 1}", r"x\.min: must be positive .*, got 0; .* log_uniform"),
        ("{distribution: int_uniform, min: 1, max: 2.5}", r"x\.max: must be a whole number, got 2\.5; use uniform"),
        ("{distribution: q_uniform, min: 1, max: 2, q: 0}", r"x\.q: must be positive, got 0"),
        ("{distribution: normal, sigma: -1}", r"x\.sigma: must not be negative, got -1"),
        ("{values: [1, 2], probabilities: [0.5]}", r"x\.probabilities: must be 2 numbers that sum to 1"),
        ("{values: [1, 2], probabilities: [0.5, 0.4]}", r"x\.probabilities: must be 2 numbers that sum to 1"),
        (
            "{distribution: log_uniform, min: 32, max: 1024}",
            r"x: .* infinite or 0, got min: 32, .*use log_uniform_values",
        ),
        ("{distribution: inv_log_uniform, min: 0, max: 1000}", r"x: .* infinite or 0, .*use inv_log_uniform_values"),
        ("{distribution: q_log_normal, mu: 800}", r"x: q_log_normal has .* infinite or 0, .*choose a smaller range"),
        ("{distribution: uniform, min: -1.0e+308, max: 1.0e+308}", "x: uniform has values that are infinite or 0"),
        ("{distribution: [uniform], min: 0, max: 1}", r"x\.distribution: no such distribution, got \['uniform'\]"),
        ("{parameters: {}}", r"parameters\.x: must map names to distributions, got \{\}"),
        ("{parameters: {y: {value: 1}}, value: 3}", "takes nothing beside nested parameters, got 'value'"),
    ],
)
def test_bad_parameters(text, message):
    with pytest.raises(ValueError, match=message) as caught:
        read_parameters({"x": yaml.safe_load(text)})
    assert str(caught.value).startswith("parameters.x") and "\n" not in str(caught.value)


def test_bounds_that_are_taken_for_values_are_doubted(capsys):
    read_parameters({"x": {"distribution": "log_uniform", "min": 0.0001, "max": 0.1}})
    assert capsys.readouterr().err == (
        "striate: parameters.x: is drawn from 1 to 1.105, since the bounds of log_uniform are exponents; for bounds "
        "that are values use log_uniform_values\n"
    )
    read_parameters({"x": {"distribution": "log_uniform", "min": -9.2, "max": -2.3}})
    read_parameters({"x": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.1}})
    assert not capsys.readouterr().err


def test_every_distribution_is_tried():
    tried = {parameter(text).distribution for text in [*CONTINUOUS, *QUANTIZED]}
    categorical = {"constant", "categorical", "categorical_w_probabilities", "int_uniform"}
    assert tried | categorical == set(DISTRIBUTIONS)
