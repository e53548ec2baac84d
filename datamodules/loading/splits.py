"""Validation splits: hold out a fraction of a training set, at random or stratified by class."""

from collections.abc import Sequence

import numpy as np


def check_val_fraction(fraction: float | None, allow_zero: bool = False) -> None:
    """Check a ``val_fraction`` argument; None, for no split, is valid.

    Raises:
        ValueError: It is not between 0 and 1.
    """
    if fraction is not None and not (0 < fraction < 1 or (allow_zero and fraction == 0)):
        raise ValueError(f"val_fraction: must be in {'[' if allow_zero else '('}0, 1), got {fraction}")


def optional_val_fraction(fraction: float | None) -> float | None:
    """Check a ``val_fraction`` argument of data that may have a validation split; return it, or None for 0, no split.

    Raises:
        ValueError: It is not between 0 and 1.

    >>> optional_val_fraction(0.1), optional_val_fraction(0)
    (0.1, None)
    """
    check_val_fraction(fraction, allow_zero=True)
    return fraction or None


def random_split(size: int, fraction: float, seed: int) -> np.ndarray:
    """Hold out a fraction of the samples at random, at least one and not all.

    Shape:
        - Output: ``[N]`` bool with N = `size`, True for samples held out.
    """
    held_out = np.zeros(size, np.bool_)
    count = min(max(round(fraction * size), 1), size - 1)
    held_out[np.random.default_rng(seed).permutation(size)[:count]] = True
    return held_out


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Hold out the same fraction of each class.

    The total is that fraction of all samples, rounded, as far as each class can have one sample held out and one left:
    counts are rounded down, and the remaining samples come from the classes with the largest remainders.

    Args:
        labels: Class of each sample.
        fraction: Fraction to hold out, in (0, 1).
        seed: Seed of the random choice.
        class_names: Names for messages; None: classes are named by their index.

    Returns:
        Which samples are held out: at least one per class, and not all of any class.

    Shape:
        - labels: ``[N]`` int64.
        - Output: ``[N]`` bool.

    Raises:
        ValueError: A class has a single sample.
    """
    classes, counts = np.unique(labels, return_counts=True)
    if (single := classes[counts < 2]).size:
        name = repr(class_names[single[0]]) if class_names is not None else single[0]
        more = f" (and {len(single) - 1} more classes)" if len(single) > 1 else ""
        raise ValueError(
            f"val_fraction: needs at least 2 images per class, got 1 of class {name}{more}; add images, remove the "
            "class, or provide separate validation images"
        )
    shares = fraction * counts
    quotas = np.clip(np.floor(shares).astype(np.int64), 1, counts - 1)
    remaining = max(round(fraction * len(labels)) - int(quotas.sum()), 0)
    for index in np.argsort(quotas - shares, kind="stable")[:remaining]:
        quotas[index] = min(quotas[index] + 1, counts[index] - 1)
    held_out = np.zeros(len(labels), np.bool_)
    generator = np.random.default_rng(seed)
    for label, quota in zip(classes, quotas, strict=True):
        held_out[generator.permutation(np.flatnonzero(labels == label))[:quota]] = True
    return held_out
