"""A source with its augmentation: reproducible, and tolerant of unreadable images.

Every random number follows from (seed, epoch, sample, repeat), never from the state of a worker. So a run gives the
same batches with any number of workers, and a resumed run continues as if it had never stopped.
"""

import functools
import traceback
from typing import Any, NamedTuple

import albumentations as A
import numpy as np
from torch.utils.data import Dataset

from ..augmentations.multi_image import Augmentation
from ..augmentations.pipeline import ImageTypeError, LostObjectError
from ..images.read import ImageError
from .sources import HasFiles, ProposalsByIndex, Sample, Source
from .targets import check_targets, drop_empty_masks, fill_defaults


class SampleKey(NamedTuple):
    """What a sampler asks a data set for: which sample, in which epoch, and how often it occurred before in it."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    repeat: int = 0


class TransformedDataset(Dataset[Sample]):
    """A source with its augmentation pipeline.

    In training, a localization sample whose only object every augmentation cuts away is treated as unreadable. An
    unreadable image that a transform would have mixed in is replaced by another one, or by the sample itself if none
    can be read.

    Args:
        source: Returns raw samples; may raise `ImageError`.
        transform: Albumentations transforms in order, which may include transforms that mix samples (`Mix`); or one
            ``albumentations.Compose``; or None. Boxes and masks are transformed with their image
            (`TargetAugmentation`).
        seed: Seed of the augmentation.
        replace_unreadable: Return the next readable sample in place of an unreadable one (for training, where every
            rank must make the same number of steps); otherwise leave the unreadable sample out of its batch.
        strict: Raise at an unreadable image.
        num_classes: Number of classes. A label outside them is rejected here, where the sample is known, and not on a
            GPU. None: labels are not checked.
        min_visibility: Fraction of a box's area that a transform must leave; otherwise its object is removed.
        transform_name: Name of the argument that `transform` comes from, for messages.
        keep_objects: Keep every object, for evaluation: what the transform removes is missed, not left out
            (`TargetAugmentation`).
        proposals: Stored proposals, which each sample gets as its field ``proposals``. None: no such field.
    """

    max_replacements = 20  # this many unreadable images in a row are not a coincidence

    def __init__(
        self,
        source: Source,
        transform: Any | None = None,
        seed: int = 0,
        replace_unreadable: bool = False,
        strict: bool = False,
        num_classes: int | None = None,
        min_visibility: float = 0.0,
        transform_name: str = "transform",
        keep_objects: bool = False,
        proposals: ProposalsByIndex | None = None,
    ) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self.transform_name, self.keep_objects = transform_name, keep_objects
        self._augmentation = None if transform is None else Augmentation(transform, min_visibility, keep_objects)
        self.replace_unreadable, self.strict = replace_unreadable, strict
        self.num_classes, self.proposals = num_classes, proposals

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        epoch, index, repeat = key if isinstance(key, tuple) else SampleKey(0, int(key))
        unreadable: list[str] = []
        for attempt in range(self.max_replacements):
            candidate = (index + attempt) % len(self)
            try:
                sample = self._augmented(self.source[candidate], SampleKey(epoch, candidate, repeat), unreadable)
            except ImageError as error:
                if self.strict:
                    raise
                unreadable.append(str(error))
                if not self.replace_unreadable:
                    return {"unreadable": unreadable}
                continue
            sample["index"] = candidate
            sample["unreadable"] = unreadable
            return sample
        raise ImageError(
            unreadable[0].split(": ", 1)[0],
            f"unreadable, and so are the {self.max_replacements - 1} images after it ({unreadable[0]})",
        )

    def _augmented(self, raw: Sample, key: SampleKey, unreadable: list[str]) -> Sample:
        raw = self._checked(raw, key.index)
        if self._augmentation is None:
            return dict(raw) if self.keep_objects else drop_empty_masks(raw)
        # SeedSequence mixes the four numbers into independent streams
        seeds = np.random.SeedSequence((self.seed, key.epoch, key.index, key.repeat))
        generator = np.random.Generator(np.random.PCG64(seeds))
        draw_partner = functools.partial(self._draw_partner, key.index, generator, unreadable)
        try:
            return self._augmentation(raw, generator, draw_partner)
        except LostObjectError as error:
            reason = f"{self.transform_name}: {error}"
            raise ImageError(raw.get("path", f"sample {key.index}"), reason) from error
        except ImageTypeError as error:
            raise TypeError(f"{self.transform_name}: {error}") from error
        except Exception as error:
            if (step := failed_step(error)) is None:
                raise
            height, width = raw["image"].shape[:2]
            raise ValueError(
                f"{self.transform_name}: {step} fails ({' '.join(str(error).split())}), got an image of "
                f"{width}x{height}, {self._name(raw, key.index)}; {_remedy(error)}"
            ) from error

    def _name(self, raw: Sample, index: int) -> str:
        """Return the file of a sample, or its index in its source."""
        if "path" in raw:
            return str(raw["path"])
        return self.source.files()[index] if isinstance(self.source, HasFiles) else f"sample {index}"

    def _checked(self, raw: Sample, index: int) -> Sample:
        if "boxes" in raw:
            raw = fill_defaults(raw, index)
        if self.proposals is not None:
            height, width = raw["image"].shape[:2]
            raw = {**raw, "proposals": self.proposals.boxes(index, (width, height))}
        try:
            check_targets(raw, self.num_classes)
        except ValueError as error:
            raise ValueError(f"sample {index} of {type(self.source).__name__}: {error}") from None
        return raw

    def _draw_partner(self, index: int, generator: np.random.Generator, unreadable: list[str]) -> Sample:
        """Draw a raw sample other than `index`, to be mixed with it; that one itself if none can be read."""
        for _ in range(self.max_replacements):
            partner = (index + 1 + int(generator.integers(max(len(self) - 1, 1)))) % len(self)
            try:
                return self._checked(self.source[partner], partner)
            except ImageError as error:
                if self.strict:
                    raise
                unreadable.append(str(error))
        return self._checked(self.source[index], index)


def failed_step(error: BaseException) -> str | None:
    """Return the name of the transform of another library that raised an error; None if none did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if not frames or frames[-1].f_globals.get("__name__", "").startswith("striate.datamodules."):
        return None
    owners = (frame.f_locals.get("self") for frame in reversed(frames))
    return next((type(owner).__name__ for owner in owners if isinstance(owner, A.BasicTransform)), None)


def _remedy(error: Exception) -> str:
    """What to do about an error of a transform."""
    if "crop" in str(error).lower() or type(error).__name__ == "CropSizeError":
        return "resize smaller images before it, with albumentations.SmallestMaxSize, or set its pad_if_needed: true"
    return "change or remove this transform"
