"""Which samples an epoch has: class-balanced and repeat-factor sampling, and batches of similar aspect ratio."""

from typing import Literal, NamedTuple, Protocol

import numpy as np


class RepeatFactor:
    """Repeat-factor sampling with a custom threshold, a value of the data modules' `sampling`.

    Args:
        threshold: Fraction of the images below which a class counts as rare. The default is that of LVIS with its 1,203
            classes. Use more for few classes: 0.1 repeats images of classes that fewer than a tenth of all images have.

    Raises:
        ValueError: The threshold is not in (0, 1].
    """

    def __init__(self, threshold: float = 0.001) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold: must be in (0, 1], got {threshold}; LVIS uses 0.001")
        self.threshold = threshold


SamplingName = Literal["uniform", "class_balanced", "repeat_factor"]
Sampling = SamplingName | RepeatFactor


class ClassPresence(NamedTuple):
    """Which classes each sample has: P distinct pairs of sample and class.

    Attributes:
        samples: int64 ``[P]``, indices of samples.
        classes: int64 ``[P]``.
        size: Number of samples, including those without any class.
    """

    samples: np.ndarray
    classes: np.ndarray
    size: int

    @staticmethod
    def of_labels(labels: np.ndarray) -> "ClassPresence":
        """Build it from one class per sample, ``[N]``."""
        return ClassPresence(np.arange(len(labels)), np.asarray(labels, np.int64), len(labels))

    @staticmethod
    def of_objects(starts: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> "ClassPresence":
        """Build it from the objects of each sample.

        Args:
            starts: ``[N + 1]``; sample n has the objects ``starts[n]`` up to ``starts[n + 1]``.
            labels: Class of each object, ``[M]``.
            counted: Which objects count, bool ``[M]``.
        """
        samples = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[counted]
        classes = labels[counted].astype(np.int64)
        width = int(classes.max(initial=0)) + 1
        pairs = np.unique(samples * width + classes)
        return ClassPresence(pairs // width, pairs % width, len(starts) - 1)

    def select(self, indices: np.ndarray) -> "ClassPresence":
        """Return that of a selection of samples: distinct `indices` ``[M]``, renumbered from 0 to M-1."""
        renumbered = np.full(self.size, -1)
        renumbered[indices] = np.arange(len(indices))
        samples = renumbered[self.samples]
        return ClassPresence(samples[samples >= 0], self.classes[samples >= 0], len(indices))


class EpochSampling(Protocol):
    """Draws the samples of an epoch."""

    length: int
    """Number of samples M, the same in each epoch."""

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return samples in random order, and how often each occurs before: ``[M]``, ``[M]`` int64."""
        ...


class ClassBalancedSampling:
    """As many samples as the data set has, with the same number for each class.

    The counts of two classes differ by at most one, and which classes get one more is random. A class cycles through
    its samples: none occurs an (n+1)th time before each has occurred n times. So a small class repeats its samples
    evenly, and a large one contributes a random subset, a different one in each epoch. A sample with several classes
    can be drawn for each of them. A sample without any, such as an image without objects, is not drawn.

    Args:
        presence: Which classes each sample has.

    Raises:
        ValueError: No sample has a class.

    Reference:
        For several classes per image: Shen, Lin, Huang, "Relay backpropagation for effective learning of deep
        convolutional neural networks", ECCV 2016 (class-aware sampling).
    """

    def __init__(self, presence: ClassPresence) -> None:
        if not len(presence.classes):
            raise ValueError("sampling: class_balanced needs objects, got a training set without any; set uniform")
        order = np.argsort(presence.classes, kind="stable")
        counts = np.unique(presence.classes, return_counts=True)[1]
        self._samples_by_class = np.split(presence.samples[order], np.cumsum(counts)[:-1])
        self.length = presence.size

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw an epoch; see `EpochSampling`. Output: ``[M]``, ``[M]``."""
        num_classes = len(self._samples_by_class)
        share, remainder = divmod(self.length, num_classes)
        quotas = np.full(num_classes, share)
        quotas[generator.permutation(num_classes)[:remainder]] += 1
        drawn = []
        for members, quota in zip(self._samples_by_class, quotas, strict=True):
            rounds = -(-quota // len(members))
            # each row is one pass through the class's samples, in its own order
            drawn.append(generator.permuted(np.tile(members, (rounds, 1)), axis=1).ravel()[:quota])
        samples = np.concatenate(drawn)
        order = generator.permutation(self.length)
        return samples[order], previous_occurrences(samples)[order]


def previous_occurrences(values: np.ndarray) -> np.ndarray:
    """Count how often each value ``[N]`` occurs before its position: ``[N]`` int64.

    >>> previous_occurrences(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.searchsorted(ordered, ordered)
    counts = np.empty(len(values), np.int64)
    counts[order] = np.arange(len(values)) - first
    return counts


def repeat_factors(presence: ClassPresence, threshold: float) -> np.ndarray:
    """Return how often each sample occurs in an epoch, on average.

    For a class that a fraction f of the samples has, it is ``max(1, sqrt(threshold / f))``; for a sample the maximum
    over its classes, and 1 without any.

    Shape:
        - Output: ``[N]`` float64.

    Reference:
        Gupta, Dollár, Girshick, "LVIS: a dataset for large vocabulary instance segmentation", CVPR 2019
        (repeat factor sampling).
    """
    frequency = np.bincount(presence.classes) / max(presence.size, 1)
    with np.errstate(divide="ignore"):  # classes that no sample has
        of_class = np.maximum(1.0, np.sqrt(threshold / frequency))
    factors = np.ones(presence.size)
    np.maximum.at(factors, presence.samples, of_class[presence.classes])
    return factors


class RepeatFactorSampling:
    """Each sample as often as its repeat factor, rounded up or down at random, anew in each epoch.

    The factors are rounded jointly (systematic sampling over a random order), not independently: each is right on
    average, and the number of samples is the same in each epoch, the sum of the factors rounded down.

    Args:
        presence: Which classes each sample has.
        threshold: See `repeat_factors`.
    """

    def __init__(self, presence: ClassPresence, threshold: float) -> None:
        self.factors = repeat_factors(presence, threshold)
        self.length = int(self.factors.sum() + 1e-6)

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Draw an epoch; see `EpochSampling`. Output: ``[M]``, ``[M]``."""
        counts = np.floor(self.factors).astype(np.int64)
        order = generator.permutation(len(counts))
        # systematic sampling: place the fractions end to end, from a random start; a sample is rounded up where its
        # fraction contains a whole number
        edges = np.floor(np.cumsum((self.factors - counts)[order]) + generator.random()).astype(np.int64)
        rounded_up = order[np.diff(edges, prepend=0) > 0]
        # the random start makes one more or one fewer; the length is fixed
        missing = self.length - int(counts.sum())
        rounded_up = rounded_up[:missing] if len(rounded_up) >= missing else order[:missing]
        counts[rounded_up] += 1
        samples = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        return samples, previous_occurrences(samples)


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """Assign images to eight groups by width / height, with edges at powers of two in steps of a third, 1/2 to 2.

    Those are the edges of torchvision's references with their ``--aspect-ratio-group-factor 3``.

    Shape:
        - sizes: ``[N, 2]``, width and height.
        - Output: ``[N]`` int64, 0 (tall) to 7 (wide).
    """
    edges = 2.0 ** (np.arange(-3, 4) / 3)
    return np.searchsorted(edges, sizes[:, 0] / sizes[:, 1], side="right")


def grouped_batches(
    groups: np.ndarray, batch_size: int, ranks: int, generator: np.random.Generator
) -> list[np.ndarray]:
    """Reorder samples so that each batch has one group, and all ranks have the same number of samples.

    Each group is cut into whole batches, in the given order. The remainders of the groups, less than a batch each, are
    joined in order of the groups and cut into batches that mix neighboring groups. So each sample occurs as often as
    before. The batches are shuffled and dealt to the ranks; samples that do not fill another batch on every rank are
    dealt at the end.

    Args:
        groups: Group of each sample, in order; their number is a multiple of `ranks`.
        batch_size: Samples per batch.
        ranks: Number of processes that share the samples.
        generator: Generator of the order of the batches.

    Returns:
        For each rank the indices into `groups` of its samples, batch after batch.

    Shape:
        - groups: ``[M]`` int.
        - Output: `ranks` times ``[M / ranks]`` int64.
    """
    batches_per_rank = len(groups) // ranks // batch_size
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    counts = np.bincount(groups)
    in_whole_batch = previous_occurrences(ordered) < (counts // batch_size * batch_size)[ordered]
    arranged = np.concatenate([order[in_whole_batch], order[~in_whole_batch]])
    num_batches = len(arranged) // batch_size
    batches = arranged[: num_batches * batch_size].reshape(num_batches, batch_size)
    shuffled = generator.permutation(num_batches)
    dealt = batches_per_rank * ranks
    rest = np.concatenate([batches[shuffled[dealt:]].ravel(), arranged[num_batches * batch_size :]])
    return [np.concatenate([batches[shuffled[rank:dealt:ranks]].ravel(), rest[rank::ranks]]) for rank in range(ranks)]
