"""Parameters of a sweep: the distributions of W&B, by their quantile functions.

Reference: the schema and the sampling of W&B's sweep engine, https://github.com/wandb/sweeps (August 2026).
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from ..launcher.messages import did_you_mean, notice

DISTRIBUTIONS: dict[str, tuple[tuple[str, ...], dict[str, float]]] = {
    "constant": (("value",), {}),
    "categorical": (("values",), {}),
    "categorical_w_probabilities": (("values", "probabilities"), {}),
    "int_uniform": (("min", "max"), {}),
    "uniform": (("min", "max"), {}),
    "q_uniform": (("min", "max"), {"q": 1}),
    "log_uniform": (("min", "max"), {}),
    "log_uniform_values": (("min", "max"), {}),
    "q_log_uniform": (("min", "max"), {"q": 1}),
    "q_log_uniform_values": (("min", "max"), {"q": 1}),
    "inv_log_uniform": (("min", "max"), {}),
    "inv_log_uniform_values": (("min", "max"), {}),
    "normal": ((), {"mu": 0, "sigma": 1}),
    "q_normal": ((), {"mu": 0, "sigma": 1, "q": 1}),
    "log_normal": ((), {"mu": 0, "sigma": 1}),
    "q_log_normal": ((), {"mu": 0, "sigma": 1, "q": 1}),
    "beta": ((), {"a": 1, "b": 1}),
    "q_beta": ((), {"a": 1, "b": 1, "q": 1}),
}
"""Name of a distribution -> its required arguments, and its other arguments with their defaults."""

LOGARITHMIC = ("log_uniform", "log_uniform_values", "inv_log_uniform", "inv_log_uniform_values")
"""Distributions that are uniform in the logarithm; of these and their quantized variants, a range is sampled."""

MAX_GRID = 100_000
"""Maximum number of points of a grid."""

EPSILON = 2.0**-53
"""Quantiles lie in ``[EPSILON, 1 - EPSILON]``, since those of a normal distribution at 0 and 1 are infinite."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a sweep.

    Attributes:
        name: Dotted key, such as ``model.optimizer.lr``.
        distribution: Name of the distribution.
        arguments: Arguments of the distribution, with the defaults of W&B.
    """

    name: str
    distribution: str
    arguments: Mapping[str, Any]

    @property
    def choices(self) -> list[Any]:
        """The values of a categorical or constant parameter; empty for others."""
        return [self.arguments["value"]] if "value" in self.arguments else list(self.arguments.get("values", ()))

    @property
    def labels(self) -> list[str]:
        """One text per choice. Optuna stores texts, since it takes neither lists nor mappings."""
        return [label(choice) for choice in self.choices]

    @property
    def base(self) -> str:
        """The distribution before it is quantized."""
        return self.distribution.removeprefix("q_")

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Smallest and largest value before quantization; None for a distribution that is not uniform in some scale."""
        if self.base in ("uniform", "int_uniform") or self.base.endswith("_values"):
            return self.arguments["min"], self.arguments["max"]
        if self.base == "log_uniform":
            return math.exp(self.arguments["min"]), math.exp(self.arguments["max"])
        if self.base == "inv_log_uniform":
            return math.exp(-self.arguments["max"]), math.exp(-self.arguments["min"])
        return None

    def quantile(self, probability: float) -> Any:
        """The quantile of the distribution, before quantization; for a categorical distribution, a label.

        Args:
            probability: Probability of the quantile, in [0, 1].
        """
        probability = min(max(probability, EPSILON), 1 - EPSILON)
        if "values" in self.arguments:
            weights = self.arguments.get("probabilities", [1 / len(self.choices)] * len(self.choices))
            return self.labels[min(int(np.searchsorted(np.cumsum(weights), probability)), len(weights) - 1)]
        if self.bounds is not None:
            low, high = self.bounds
            if self.distribution == "int_uniform":
                return min(low + int(probability * (high - low + 1)), high)
            if self.base in LOGARITHMIC:
                return min(max(math.exp(math.log(low) + probability * math.log(high / low)), low), high)
            return low + probability * (high - low)
        if self.base == "beta":
            from scipy.stats import beta

            return float(beta.ppf(probability, self.arguments["a"], self.arguments["b"]))
        normal = NormalDist().inv_cdf(probability) * self.arguments["sigma"] + self.arguments["mu"]
        return math.exp(normal) if self.base == "log_normal" else normal

    def finish(self, value: Any) -> Any:
        """The value that a trial gets, from a quantile: the choice of a label, or the number rounded to ``q``."""
        if "values" in self.arguments:
            return self.choices[self.labels.index(value)]
        q = self.arguments.get("q")
        if q is None:
            return value
        steps = round(value / q)  # to the even one between two, as NumPy does
        return steps * q if isinstance(q, int) else float(f"{steps * q:.12g}")  # 3 * 0.1 is 0.30000000000000004

    def grid(self) -> list[Any]:
        """The values of a grid search, as W&B takes them: the range of ``q_uniform`` excludes its end.

        Raises:
            ValueError: The distribution has no grid, or one that is too large.
        """
        if self.distribution in ("int_uniform", "q_uniform"):
            check_grid((self.arguments["max"] - self.arguments["min"]) / self.arguments.get("q", 1), self.name)
        if self.distribution in ("constant", "categorical"):
            unique = dict(zip(self.labels, self.choices, strict=True))
            return list(unique.values())
        if self.distribution == "int_uniform":
            return list(range(self.arguments["min"], self.arguments["max"] + 1))
        if self.distribution == "q_uniform":
            values = np.arange(self.arguments["min"], self.arguments["max"], self.arguments["q"]).tolist()
            return [value if isinstance(value, int) else float(f"{value:.12g}") for value in values]
        raise ValueError(
            f"{where(self.name)}: grid takes values, int_uniform and q_uniform, got {self.distribution}; list the "
            "values, or use method: random"
        )


def check_grid(points: float, name: str = "") -> None:
    """Refuse a grid that no computer can hold.

    Args:
        points: Number of points.
        name: The parameter that they are the values of; empty: they are those of all parameters.

    Raises:
        ValueError: There are more than `MAX_GRID`.
    """
    if points > MAX_GRID:
        raise ValueError(
            f"{where(name).rstrip('.')}: a grid has at most {MAX_GRID} points, got {points:.6g}; list fewer values, or "
            "use method: random"
        )


def label(value: Any) -> str:
    """Text of a value: texts as they are, unless they read like another value; all else as JSON."""
    if isinstance(value, str):
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value)


def where(name: str) -> str:
    """How messages name a parameter of the file."""
    return f"parameters.{name}"


def read_parameters(content: Any, prefix: str = "") -> list[Parameter]:
    """Read the section ``parameters`` of a sweep, with the nested sections in it.

    Args:
        content: The section.
        prefix: Dotted key that the names start with.

    Returns:
        The parameters, sorted by name as W&B sorts them.

    Raises:
        ValueError: Something in the section is wrong; the message is one line.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{where(prefix).rstrip('.')}: must map names to distributions, got {content!r}")
    found = []
    for key, value in sorted(content.items(), key=lambda item: str(item[0])):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and "parameters" in value:
            if len(value) > 1:
                other = next(word for word in value if word != "parameters")
                raise ValueError(f"{where(name)}: takes nothing beside nested parameters, got {other!r}")
            found += read_parameters(value["parameters"], f"{name}.")
        else:
            found.append(read_parameter(name, value))
    names = [parameter.name for parameter in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{where(twice)}: is given twice; remove one of them")
    return found


def read_parameter(name: str, content: Any) -> Parameter:
    """Read one parameter.

    Raises:
        ValueError: It has no values, an unknown distribution or key, or arguments that make no distribution.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{where(name)}: has no values, got {content!r}; write value, values, or min and max")
    given = {key: value for key, value in content.items() if key != "distribution"}
    distribution = content.get("distribution") or guess_distribution(name, given)
    if distribution == "categorical" and "probabilities" in given:
        distribution = "categorical_w_probabilities"
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        hint = did_you_mean(str(distribution), DISTRIBUTIONS, otherwise=f"; use one of {', '.join(DISTRIBUTIONS)}")
        if "log" in str(distribution).lower() and "min" in given:
            hint = "; use log_uniform_values, or log_uniform, whose bounds are exponents"
        raise ValueError(f"{where(name)}.distribution: no such distribution, got {distribution!r}{hint}")
    required, defaults = DISTRIBUTIONS[distribution]
    for key in given:
        if key not in required and key not in defaults:
            known = [*required, *defaults]
            hint = did_you_mean(str(key), known, otherwise=f"; it takes {', '.join(known)}")
            raise ValueError(f"{where(name)}: {distribution} has no {key!r}{hint}")
    missing = [key for key in required if key not in given]
    if missing:
        raise ValueError(f"{where(name)}: {distribution} needs {' and '.join(missing)}, got {describe(given)}")
    arguments = {**defaults, **given}
    check_choices(name, arguments)
    check_numbers(name, distribution, arguments)
    parameter = Parameter(name, distribution, arguments)
    check_range(parameter)
    if distribution.removeprefix("q_") == "log_uniform" and arguments["min"] >= 0 and arguments["max"] <= 1:
        low, high = (f"{math.exp(arguments[bound]):.4g}" for bound in ("min", "max"))
        notice(
            f"{where(name)}: is drawn from {low} to {high}, since the bounds of {distribution} are exponents; for "
            f"bounds that are values use {distribution}_values"
        )
    return parameter


def guess_distribution(name: str, given: Mapping[str, Any]) -> str:
    """The distribution that W&B takes when a parameter names none."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical_w_probabilities" if "probabilities" in given else "categorical"
    if "min" in given and "max" in given:
        whole = all(isinstance(given[key], int) and not isinstance(given[key], bool) for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    raise ValueError(f"{where(name)}: has no values, got {describe(given)}; write value, values, or min and max")


def describe(given: Mapping[str, Any]) -> str:
    """The arguments of a parameter for a message."""
    return ", ".join(f"{key}: {value}" for key, value in given.items()) or "nothing"


def check_choices(name: str, arguments: Mapping[str, Any]) -> None:
    """Check ``value``, ``values`` and ``probabilities``."""
    for key in ("value", "values"):
        try:
            json.dumps(arguments.get(key))
        except TypeError as error:
            text = "YAML reads dates and the like as objects; quote them"
            raise ValueError(f"{where(name)}.{key}: must be plain values, got {arguments[key]!r}; {text}") from error
    if "values" not in arguments:
        return
    values = arguments["values"]
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ValueError(f"{where(name)}.values: must be a list with at least one value, got {values!r}")
    if "probabilities" not in arguments:
        return
    shares = arguments["probabilities"]
    good = isinstance(shares, Sequence) and all(is_number(share) and share >= 0 for share in shares)
    if not good or len(shares) != len(values) or not math.isclose(sum(shares), 1, rel_tol=1e-5):
        raise ValueError(
            f"{where(name)}.probabilities: must be {len(values)} numbers that sum to 1, one per value, got {shares!r}"
        )


def check_numbers(name: str, distribution: str, arguments: Mapping[str, Any]) -> None:
    """Check the arguments that are numbers."""
    for key, value in arguments.items():
        if key in ("value", "values", "probabilities"):
            continue
        if not is_number(value):
            number = isinstance(value, str) and as_float(value) is not None
            hint = f"; YAML reads {value} as text, write {as_float(value)!r}" if number else ""
            raise ValueError(f"{where(name)}.{key}: must be a number, got {value!r}{hint}")
    checks: list[tuple[str, Callable[[Any], bool], str]] = [
        ("q", lambda value: value > 0, "must be positive"),
        ("sigma", lambda value: value >= 0, "must not be negative"),
        ("a", lambda value: value > 0, "must be positive"),
        ("b", lambda value: value > 0, "must be positive"),
    ]
    if distribution.endswith("_values"):
        hint = f"; for a range of exponents use {distribution.removesuffix('_values')}"
        checks.append(("min", lambda value: value > 0, f"must be positive on a logarithmic scale{hint}"))
    if distribution == "int_uniform":
        whole = "must be a whole number; use uniform or q_uniform for others"
        checks += [(key, lambda value: isinstance(value, int), whole) for key in ("min", "max")]
    for key, holds, rule in checks:
        if key in arguments and not holds(arguments[key]):
            rule, _, hint = rule.partition("; ")
            raise ValueError(f"{where(name)}.{key}: {rule}, got {arguments[key]!r}{hint and f'; {hint}'}")
    if "min" in arguments and arguments["min"] >= arguments["max"]:
        raise ValueError(
            f"{where(name)}.min: must be less than max, got min {arguments['min']!r} and max {arguments['max']!r}"
        )


def check_range(parameter: Parameter) -> None:
    """Check that all values that can be drawn are finite numbers: exponents soon lead beyond them."""
    if parameter.choices:
        return
    try:
        ends = [parameter.finish(parameter.quantile(share)) for share in (0, 1)]
        positive = parameter.base not in LOGARITHMIC or min(parameter.bounds or ()) > 0
        good = positive and all(map(math.isfinite, ends))
    except (OverflowError, ValueError):  # exp(1024); log(0)
        good = False
    if not good:
        exponents = parameter.base in ("log_uniform", "inv_log_uniform")
        hint = f"its bounds are exponents, for bounds that are values use {parameter.distribution}_values"
        raise ValueError(
            f"{where(parameter.name)}: {parameter.distribution} has values that are infinite or 0, got "
            f"{describe(parameter.arguments)}; {hint if exponents else 'choose a smaller range'}"
        )


def is_number(value: Any) -> bool:
    """Whether a value is a finite number, and no boolean."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def as_float(text: str) -> float | None:
    """Parse a text as a number; None if it is not a number."""
    try:
        return float(text)
    except ValueError:
        return None
