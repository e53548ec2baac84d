"""Transforms that mix several samples into one, and pipelines that contain them.

A pipeline is a list of transforms in order. At a `Mix`, the sample is combined with other samples of its data set, each
of which has passed the transforms before it with its own random numbers: a `Mosaic` at the start gets raw images, a
`CopyPaste` after `LargeScaleJitter` gets jittered ones. The choice of the other samples, like every random choice,
comes from the sample's own generator.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import albumentations as A
import numpy as np

from ..annotations.argument_checks import check_probability
from ..loading.sources import Sample
from ..loading.targets import OBJECT_FIELDS
from .pipeline import TargetAugmentation, check_min_visibility


class Mix(ABC):
    """A transform that mixes several samples into one.

    Args:
        p: Probability of applying it.

    Attributes:
        others: Number of further samples that it takes.
    """

    others: int

    def __init__(self, p: float = 1.0) -> None:
        check_probability("p", p)
        self.p = p

    @abstractmethod
    def mix(
        self, sample: Sample, others: Sequence[Sample], generator: np.random.Generator, min_visibility: float
    ) -> Sample:
        """Mix samples into one, without writing to any of them.

        Args:
            sample: The sample that keeps its path and index.
            others: As many further samples as the attribute `others` states.
            generator: Generator of every random choice.
            min_visibility: Fraction of an object that must remain; otherwise it is removed.

        Raises:
            TypeError: The samples lack targets that this transform needs.
        """


Step: TypeAlias = A.BasicTransform | A.BaseCompose | Mix


class Augmentation:
    """A pipeline of albumentations transforms and of transforms that mix samples.

    Args:
        steps: Transforms in order, or one ``albumentations.Compose``.
        min_visibility: Fraction of a box's area that a transform must leave; otherwise its object is removed.
        keep_objects: Keep every object, for evaluation; see `TargetAugmentation`.
    """

    def __init__(
        self, steps: A.Compose | Sequence[Step], min_visibility: float = 0.0, keep_objects: bool = False
    ) -> None:
        self.min_visibility = check_min_visibility(min_visibility)
        self.stages: list[TargetAugmentation | Mix] = []
        if isinstance(steps, A.Compose):
            self.stages.append(TargetAugmentation(steps, min_visibility, keep_objects))
            return
        pending: list[Any] = []  # consecutive albumentations transforms, which form one stage
        for step in [*steps, None]:
            if step is not None and not isinstance(step, Mix):
                pending.append(step)
                continue
            if pending:
                self.stages.append(TargetAugmentation(A.Compose(pending), min_visibility, keep_objects))
                pending = []
            if step is not None:
                self.stages.append(step)

    def __call__(self, raw: Sample, generator: np.random.Generator, draw_partner: Callable[[], Sample]) -> Sample:
        """Augment a raw sample.

        Args:
            raw: The sample.
            generator: Generator of every random choice.
            draw_partner: Returns another raw sample of the data set, drawn with `generator`.
        """
        return self._run(len(self.stages), raw, generator, draw_partner)

    def _run(
        self, count: int, sample: Sample, generator: np.random.Generator, draw_partner: Callable[[], Sample]
    ) -> Sample:
        """Run the first `count` stages of the pipeline."""
        for index, stage in enumerate(self.stages[:count]):
            if isinstance(stage, TargetAugmentation):
                sample = stage(sample, generator)
            elif stage.p >= 1 or generator.random() < stage.p:
                # the partners pass the stages before this one
                others = [self._run(index, draw_partner(), generator, draw_partner) for _ in range(stage.others)]
                sample = stage.mix(sample, others, generator, self.min_visibility)
        return sample


def select_objects(sample: Sample, selected: np.ndarray) -> Sample:
    """Return the fields of some objects of a sample, by index ``[M]`` or by bool mask ``[N]``, without ``masks``."""
    return {field: sample[field][selected] for field in ("boxes", *OBJECT_FIELDS)}


def concatenate_objects(samples: Sequence[Sample]) -> Sample:
    """Concatenate the fields of the objects of several samples, without ``masks``."""
    return {field: np.concatenate([sample[field] for sample in samples]) for field in ("boxes", *OBJECT_FIELDS)}
