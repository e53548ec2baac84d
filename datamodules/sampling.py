"""Choosing samples by class: splits that keep the classes' shares, and draws that make them equal."""

from typing import Literal

import numpy as np

Sampling = Literal["uniform", "class_balanced"]


def stratified_split(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose the same fraction of each class.

    The number chosen in all is that fraction of the whole, rounded, wherever the rule of one chosen and one left
    allows it: what rounding down leaves over goes to the classes with the largest remainders.

    Args:
        labels: class of each sample.
        fraction: part to choose, between 0 and 1.
        seed: of the choice.

    Returns:
        Which samples are chosen. Each class has at least one chosen and at least one left.

    Shape:
        - labels: ``[N]`` int64.
        - Output: ``[N]`` bool.

    Raises:
        ValueError: when a class has a single sample, which cannot be split.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if len(classes) and counts.min() < 2:
        raise ValueError(f"class {classes[counts.argmin()]} has 1 image; a split by fraction needs 2 or more")
    shares = fraction * counts
    quotas = np.clip(np.floor(shares).astype(np.int64), 1, counts - 1)
    missing = max(round(fraction * len(labels)) - int(quotas.sum()), 0)
    for number in np.argsort(quotas - shares, kind="stable")[:missing]:
        quotas[number] = min(quotas[number] + 1, counts[number] - 1)
    chosen = np.zeros(len(labels), dtype=bool)
    generator = np.random.default_rng(seed)
    for label, quota in zip(classes, quotas, strict=True):
        chosen[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return chosen


def balanced_draw(labels: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """As many draws as there are samples, equally many of each class, in random order.

    The counts of two classes differ by at most one; which classes get the one more is random. Within a class the
    draws go round: no sample comes an (n+1)th time before each has come n times. So a small class repeats its
    samples evenly, and a large one gives a random part of itself, another each time.

    Args:
        labels: class of each sample; classes without samples do not count.
        generator: of every random choice here.

    Returns:
        The samples drawn, and how often each has been drawn before in this draw.

    Shape:
        - labels: ``[N]`` int.
        - Output: ``[N]`` and ``[N]`` int64.
    """
    counts = np.unique(labels, return_counts=True)[1]
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    share, rest = divmod(len(labels), len(counts))
    quotas = np.full(len(counts), share)
    quotas[generator.permutation(len(counts))[:rest]] += 1
    drawn, before = [], []
    for own, quota in zip(members, quotas, strict=True):
        rounds = -(-quota // len(own))
        drawn.append(generator.permuted(np.tile(own, (rounds, 1)), axis=1).ravel()[:quota])
        before.append(np.arange(quota) // len(own))
    order = generator.permutation(len(labels))
    return np.concatenate(drawn)[order], np.concatenate(before)[order]
