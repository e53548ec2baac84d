"""Early termination as W&B does it: Hyperband at the bands of a sweep.

Reference: Li et al., Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization, 2016, as simplified in
W&B's sweep engine, https://github.com/wandb/sweeps (August 2026).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..launcher.messages import did_you_mean
from .parameters import is_number

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


@dataclass(frozen=True)
class Hyperband:
    """Stops trials that are not among the best ``1 / eta`` at a band.

    Attributes:
        bands: Numbers of logged values after which trials are compared, ascending.
        eta: Inverse of the fraction of trials that continue.
        strict: Compare the value at the band; otherwise the best value so far.
    """

    bands: Sequence[int]
    eta: float
    strict: bool = True

    def band(self, length: int) -> int | None:
        """The last band that a trial with `length` logged values has reached; None if it has reached none."""
        return max((band for band in self.bands if band <= length), default=None)

    def threshold(self, band: int, histories: Sequence[Sequence[float]]) -> float:
        """The largest value with which a trial continues at a band.

        Args:
            band: The band.
            histories: Logged values of all trials, finished and running ones; less is better.
        """
        values = sorted(history[band - 1] for history in histories if len(history) >= band)
        return values[int(len(values) / self.eta)]

    def stops(self, history: Sequence[float], others: Sequence[Sequence[float]]) -> bool:
        """Whether to stop a running trial.

        Args:
            history: The values that it has logged; less is better.
            others: Those of all other trials.
        """
        band = self.band(len(history))
        if band is None:
            return False
        value = history[band - 1] if self.strict else min(history)
        return value > self.threshold(band, [history, *others])


def read_early_termination(content: Any) -> Hyperband | None:
    """Read the section ``early_terminate`` of a sweep.

    Raises:
        ValueError: Something in the section is wrong; the message is one line.
    """
    if content is None:
        return None
    if not isinstance(content, Mapping):
        raise ValueError(f"early_terminate: must have type: hyperband, got {content!r}")
    for key in content:
        if key not in KEYS:
            hint = did_you_mean(str(key), KEYS, otherwise=f"; use {', '.join(KEYS)}")
            raise ValueError(f"early_terminate: no such key, got {key!r}{hint}")
    if content.get("type") != "hyperband":
        raise ValueError(f"early_terminate.type: must be hyperband, got {content.get('type')!r}")
    if "min_iter" not in content and not {"max_iter", "s"} <= content.keys():
        raise ValueError("early_terminate: needs min_iter, or max_iter and s")
    for key in ("min_iter", "max_iter", "s"):
        value = content.get(key, 1)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"early_terminate.{key}: must be a whole number of at least 1, got {value!r}")
    eta = content.get("eta", 3)
    if not is_number(eta) or eta <= 1:
        raise ValueError(f"early_terminate.eta: must be larger than 1, got {eta!r}")
    strict = content.get("strict", True)
    if not isinstance(strict, bool):
        raise ValueError(f"early_terminate.strict: must be true or false, got {strict!r}")
    if "max_iter" in content:  # it decides if both are given
        if "s" not in content:
            raise ValueError("early_terminate.s: missing; it is the number of bands before max_iter")
        bands = sorted(powers(content["max_iter"] / eta, 1 / eta, content["s"]))
    else:
        bands = powers(content["min_iter"], eta, 100)
    if not bands:
        raise ValueError(
            f"early_terminate.max_iter: leaves no band, got max_iter {content['max_iter']} with eta {eta}; increase it"
        )
    return Hyperband(bands, eta, strict)


def powers(first: float, factor: float, count: int) -> list[int]:
    """The whole parts of a geometric series, without those below 1."""
    return [int(value) for value in (first * factor**power for power in range(count)) if value >= 1]
