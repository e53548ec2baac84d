"""Choosing samples by class or shape: splits that keep the classes' shares, draws that change them, like shapes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

import numpy as np


class RepeatFactor:
    """Repeat-factor sampling, as a value of the data modules' `sampling`, with a threshold of one's own.

    Args:
        threshold: part of the images below which a class counts as rare; 0.001 is that of LVIS with its 1,203 classes.
            For few classes give more: 0.1 repeats images of classes that fewer than a tenth of all images have.

    Raises:
        ValueError: for a threshold that is not above 0 and at most 1.
    """

    def __init__(self, threshold: float = 0.001) -> None:
        if not 0 < threshold <= 1:
            raise ValueError(f"threshold={threshold}: a part of the images, above 0 and at most 1 (LVIS: 0.001)")
        self.threshold = threshold


SamplingName = Literal["uniform", "class_balanced", "repeat_factor"]
Sampling = SamplingName | RepeatFactor


class Presence(NamedTuple):
    """Which classes each sample has: P pairs, each once.

    Attributes:
        samples: int64 ``[P]``, numbers of samples.
        classes: int64 ``[P]``.
        size: number of samples, those without any class too.
    """

    samples: np.ndarray
    classes: np.ndarray
    size: int

    @staticmethod
    def of_labels(labels: np.ndarray) -> "Presence":
        """Where each sample has one class ``[N]``."""
        return Presence(np.arange(len(labels)), np.asarray(labels, np.int64), len(labels))

    @staticmethod
    def of_objects(starts: np.ndarray, labels: np.ndarray, counted: np.ndarray) -> "Presence":
        """Where a sample has the classes of its objects.

        Args:
            starts: ``[N + 1]``; sample n has the objects ``starts[n]`` up to ``starts[n + 1]``.
            labels: class of each object.
            counted: which objects count, bool.
        """
        samples = np.repeat(np.arange(len(starts) - 1), np.diff(starts))[counted]
        classes = labels[counted].astype(np.int64)
        width = int(classes.max(initial=0)) + 1
        pairs = np.unique(samples * width + classes)
        return Presence(pairs // width, pairs % width, len(starts) - 1)

    def of_samples(self, chosen: np.ndarray) -> "Presence":
        """That of a selection of the samples ``[M]``, each chosen once, which are numbered anew."""
        place = np.full(self.size, -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.samples] >= 0
        return Presence(place[self.samples][kept], self.classes[kept], len(chosen))


class Draw(Protocol):
    """Which samples an epoch has."""

    length: int
    """Samples an epoch, the same in each."""

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The samples in random order, and how often each has been drawn before: ``[length]``, ``[length]`` int64."""
        ...


def check_fraction(value: float | None, zero: bool = False) -> None:
    """Refuse a `val_fraction` that is no fraction; None is none asked for."""
    if value is not None and not (0 < value < 1 or (zero and value == 0)):
        raise ValueError(f"data.init_args.val_fraction: {value} is not {'0 or ' * zero}between 0 and 1")


def stratified_split(
    labels: np.ndarray, fraction: float, seed: int, class_names: Sequence[str] | None = None
) -> np.ndarray:
    """Choose the same fraction of each class.

    The number chosen in all is that fraction of the whole, rounded, wherever the rule of one chosen and one left
    allows it: what rounding down leaves over goes to the classes with the largest remainders.

    Args:
        labels: class of each sample.
        fraction: part to choose, between 0 and 1.
        seed: of the choice.
        class_names: for messages; None: classes are named by their numbers.

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
        first = int(classes[counts.argmin()])
        called = first if class_names is None else repr(class_names[first])
        more = f" (and {int((counts < 2).sum()) - 1} more classes)" if (counts < 2).sum() > 1 else ""
        raise ValueError(
            f"data.init_args.val_fraction: {fraction}: class {called} has 1 image{more}, and a split by fraction needs "
            "2 or more of each; add images, remove the class, or give validation images of their own"
        )
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


class BalancedDraw:
    """As many draws as there are samples, equally many for each class.

    The counts of two classes differ by at most one; which classes get the one more is random. A class's draws go round
    the samples that have it: none comes an (n+1)th time before each has come n times. So a small class repeats its
    samples evenly, and a large one gives a random part of itself, another each time. A sample of several classes may be
    drawn for each of them; one without any, such as an image without objects, is not drawn.

    Args:
        presence: which classes each sample has.

    Raises:
        ValueError: where no sample has a class.

    Reference:
        For several classes an image: Shen, Lin, Huang, "Relay backpropagation for effective learning of deep
        convolutional neural networks", ECCV 2016 (class-aware sampling).
    """

    def __init__(self, presence: Presence) -> None:
        if not len(presence.classes):
            raise ValueError("no sample has a class (an object); class_balanced has nothing to draw from")
        order = np.argsort(presence.classes, kind="stable")
        counts = np.unique(presence.classes, return_counts=True)[1]
        self._members = np.split(presence.samples[order], np.cumsum(counts)[:-1])
        self.length = presence.size

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See `Draw`."""
        share, rest = divmod(self.length, len(self._members))
        quotas = np.full(len(self._members), share)
        quotas[generator.permutation(len(self._members))[:rest]] += 1
        drawn = []
        for own, quota in zip(self._members, quotas, strict=True):
            rounds = -(-quota // len(own))
            drawn.append(generator.permuted(np.tile(own, (rounds, 1)), axis=1).ravel()[:quota])
        samples = np.concatenate(drawn)
        order = generator.permutation(self.length)
        return samples[order], times_before(samples)[order]


def times_before(numbers: np.ndarray) -> np.ndarray:
    """How often each number stands before its place: int64, of the same length.

    >>> times_before(np.array([7, 3, 7, 7, 3])).tolist()
    [0, 0, 1, 2, 1]
    """
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    first = np.searchsorted(ordered, ordered)
    before = np.empty(len(numbers), np.int64)
    before[order] = np.arange(len(numbers)) - first
    return before


def repeat_factors(presence: Presence, threshold: float) -> np.ndarray:
    """How often each sample is to come in an epoch, on average.

    For a class that the part f of the samples has, it is ``max(1, sqrt(threshold / f))``; for a sample the largest of
    its classes', and 1 without any.

    Shape:
        - Output: ``[N]`` float64.

    Reference:
        Gupta, Dollár, Girshick, "LVIS: a dataset for large vocabulary instance segmentation", CVPR 2019
        (repeat factor sampling).
    """
    frequency = np.bincount(presence.classes) / max(presence.size, 1)
    with np.errstate(divide="ignore"):
        of_class = np.maximum(1.0, np.sqrt(threshold / frequency))
    factors = np.ones(presence.size)
    np.maximum.at(factors, presence.samples, of_class[presence.classes])
    return factors


class RepeatFactorDraw:
    """Each sample as often as its repeat factor says, rounded up or down at random, anew each epoch.

    The roundings are drawn together (systematically, over a random order), not one by one: each is right on average,
    and their sum, and so the number of an epoch's samples, is always the sum of the factors, rounded down.

    Args:
        presence: which classes each sample has.
        threshold: see `repeat_factors`.
    """

    def __init__(self, presence: Presence, threshold: float) -> None:
        self.factors = repeat_factors(presence, threshold)
        self.length = int(self.factors.sum() + 1e-6)

    def __call__(self, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """See `Draw`."""
        counts = np.floor(self.factors).astype(np.int64)
        order = generator.permutation(len(counts))
        # a comb of teeth 1 apart, begun anywhere, laid along the fractions: who is hit is rounded up
        edges = np.floor(np.cumsum((self.factors - counts)[order]) + generator.random()).astype(np.int64)
        hit = order[np.diff(edges, prepend=0) > 0]
        lacking = self.length - int(counts.sum())
        hit = hit[:lacking] if len(hit) >= lacking else order[:lacking]
        counts[hit] += 1
        samples = generator.permutation(np.repeat(np.arange(len(counts)), counts))
        return samples, times_before(samples)


def aspect_groups(sizes: np.ndarray) -> np.ndarray:
    """Eight groups of images by width / height, with edges at powers of two in steps of a third, from 1/2 to 2.

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
    """Reorder samples so that batches are of one group each, and give every rank equally many.

    Whole batches are cut from each group, in the order given. What is left over of the groups, less than a batch of
    each, is put together group by group and cut into batches too, which mix neighbouring groups; so each sample comes
    as often as it was given. The batches are shuffled and dealt to the ranks; what is too little for another batch on
    every rank is dealt in the end.

    Args:
        groups: of the samples, in their order; as many as the ranks divide evenly.
        batch_size: samples a batch.
        ranks: processes that share the samples.
        generator: of the batches' order.

    Returns:
        For each rank the places in `groups` that are its own, batch after batch.

    Shape:
        - groups: ``[M]`` int.
        - Output: `ranks` times ``[M / ranks]`` int64.
    """
    each = len(groups) // ranks
    full = each // batch_size
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    counts = np.bincount(groups)
    whole = times_before(ordered) < (counts // batch_size * batch_size)[ordered]
    arranged = np.concatenate([order[whole], order[~whole]])
    number = len(arranged) // batch_size
    batches = arranged[: number * batch_size].reshape(number, batch_size)
    dealt = generator.permutation(number)
    rest = np.concatenate([batches[dealt[full * ranks :]].ravel(), arranged[number * batch_size :]])
    return [
        np.concatenate([batches[dealt[rank : full * ranks : ranks]].ravel(), rest[rank::ranks]])
        for rank in range(ranks)
    ]
