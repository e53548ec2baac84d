"""Steps that make one sample of several, among those that change one.

A pipeline is a list of steps in order. Where a `Mix` stands in it, the sample meets others of its data set, each of
which has gone through the steps before it, with numbers of its own: a `Mosaic` at the start gets raw images, a
`CopyPaste` behind `LargeScaleJitter` gets jittered ones. Which others, and all else that is random, comes from the
sample's own generator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import albumentations as A
import numpy as np

from ..augmentations.pipeline import TargetAugmentation, check_min_visibility
from ..loading.sources import Sample
from ..loading.targets import OBJECT_FIELDS


class Mix(ABC):
    """A step that makes one sample of several.

    Args:
        p: probability of applying it.

    Attributes:
        others: how many further samples it takes.
    """

    others: int

    def __init__(self, p: float = 1.0) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p={p}: a probability lies from 0 to 1")
        self.p = p

    @abstractmethod
    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """Make one sample; none of those given may be written to.

        Args:
            sample: keeps its name and number.
            others: as many as the attribute says.
            generator: of every random choice here.
            min_visibility: part of an object that must be left, or it is removed.

        Raises:
            TypeError: for samples without what this step needs.
        """


Step: TypeAlias = A.BasicTransform | A.BaseCompose | Mix


class Augmentation:
    """A pipeline of albumentations' steps and of those that mix samples.

    Args:
        steps: in order; or one ``albumentations.Compose``.
        min_visibility: part of a box's area that a step must leave, or its object is removed.
    """

    def __init__(self, steps: A.Compose | Sequence[Step], min_visibility: float = 0.0) -> None:
        self.min_visibility = check_min_visibility(min_visibility)
        self.stages: list[TargetAugmentation | Mix] = []
        if isinstance(steps, A.Compose):
            self.stages.append(TargetAugmentation(steps, min_visibility))
            return
        alone: list[Any] = []  # steps in a row that change one sample
        for step in [*steps, None]:
            if step is not None and not isinstance(step, Mix):
                alone.append(step)
                continue
            if alone:
                self.stages.append(TargetAugmentation(A.Compose(alone), min_visibility))
                alone = []
            if step is not None:
                self.stages.append(step)

    def __call__(self, raw: Sample, generator: np.random.Generator, draw: Callable[[], Sample]) -> Sample:
        """Augment a raw sample.

        Args:
            raw: the sample.
            generator: of every random choice.
            draw: gives another raw sample of the data set, by a number from `generator`.
        """
        return self._run(len(self.stages), raw, generator, draw)

    def _run(self, count: int, sample: Sample, generator: np.random.Generator, draw: Callable[[], Sample]) -> Sample:
        """The first `count` stages."""
        for place, stage in enumerate(self.stages[:count]):
            if isinstance(stage, TargetAugmentation):
                sample = stage(sample, generator)
            elif stage.p >= 1 or generator.random() < stage.p:
                others = [self._run(place, draw(), generator, draw) for _ in range(stage.others)]
                sample = stage.mix(sample, others, generator, self.min_visibility)
        return sample


def chosen_objects(sample: Sample, which: np.ndarray) -> Sample:
    """The fields of some of a sample's objects, by number or by mask ``[N]``; without ``masks``."""
    return {field: sample[field][which] for field in ("boxes", *OBJECT_FIELDS)}


def joined_objects(parts: Sequence[Sample]) -> Sample:
    """The fields of the objects of several samples, one after the other; without ``masks``."""
    return {field: np.concatenate([part[field] for part in parts]) for field in ("boxes", *OBJECT_FIELDS)}
