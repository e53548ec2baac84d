"""From raw samples to batches: reproducible augmentation, sampling under DDP, and loaders that resume.

Every random number of the pipeline follows from (seed, epoch, sample, repeat), never from a worker's state. So a run
gives the same batches with any number of workers, and a resumed run continues as if it had never stopped.
"""

import functools
import gc
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, SequentialSampler

from ..augmentations.mixing import Augmentation
from ..images.read import ImageError
from .sampling import Draw, grouped_batches
from .targets import LostObjectError, Sample, check_targets, complete, packed, without_unseen


class Source(Protocol):
    """Raw samples by number: ``image`` (RGB uint8 ``[H, W, 3]``, numpy) and whatever targets belong to it."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


class SampleKey(NamedTuple):
    """What a sampler asks a data set for: which sample, for which epoch, and how often it came before in it."""

    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index
    repeat: int = 0


class TransformedDataset(Dataset[Sample]):
    """A source behind its augmentation pipeline.

    Args:
        source: gives raw samples; may raise `ImageError`.
        transform: albumentations' steps in order, with steps that mix samples (`Mix`) among them; or one
            ``albumentations.Compose``; or None. Boxes and masks go through it with their image (`TargetAugmentation`).
        seed: of the augmentation.
        replace_unreadable: give the next readable sample in place of an unreadable one (training, where every
            rank must make the same number of steps); otherwise the unreadable sample is left out of its batch.
        strict: let an unreadable image stop the run.
        num_classes: number of classes; a label outside them is refused here, where the sample is known, and not on
            a GPU, where nothing is. None: labels are not looked at.
        min_visibility: part of a box's area that a step of the pipeline must leave, or the object is removed.

    A sample whose only object (localization) no augmentation leaves in sight is treated as an unreadable one. An
    unreadable image that a step would have mixed in is replaced by another, in the end by the sample's own.
    """

    # so many unreadable images in a row are no accident
    max_replacements = 20

    def __init__(
        self,
        source: Source,
        transform: Any | None = None,
        seed: int = 0,
        replace_unreadable: bool = False,
        strict: bool = False,
        num_classes: int | None = None,
        min_visibility: float = 0.0,
    ) -> None:
        self.source, self.transform, self.seed = source, transform, seed
        self._augmentation = None if transform is None else Augmentation(transform, min_visibility)
        self.replace_unreadable, self.strict = replace_unreadable, strict
        self.num_classes = num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, key: SampleKey | int) -> Sample:
        epoch, index, repeat = key if isinstance(key, tuple) else SampleKey(0, int(key))
        unreadable: list[str] = []
        for attempt in range(self.max_replacements):
            number = (index + attempt) % len(self)
            try:
                sample = self._sample(self.source[number], SampleKey(epoch, number, repeat), unreadable)
            except ImageError as error:
                if self.strict:
                    raise
                unreadable.append(str(error))
                if not self.replace_unreadable:
                    return {"unreadable": unreadable}
                continue
            sample["index"] = number
            sample["unreadable"] = unreadable
            return sample
        raise ImageError(
            unreadable[0].split(": ", 1)[0],
            f"unreadable, and so are the {self.max_replacements - 1} images after it ({unreadable[0]})",
        )

    def _sample(self, raw: Sample, key: SampleKey, unreadable: list[str]) -> Sample:
        raw = self._checked(raw, key.index)
        if self._augmentation is None:
            return without_unseen(raw)
        # numpy's own mixing of the four numbers
        seeds = np.random.SeedSequence((self.seed, key.epoch, key.index, key.repeat))
        generator = np.random.Generator(np.random.PCG64(seeds))
        another = functools.partial(self._another, key.index, generator, unreadable)
        try:
            return self._augmentation(raw, generator, another)
        except LostObjectError as error:
            raise ImageError(raw.get("path", f"sample {key.index}"), str(error)) from error

    def _checked(self, raw: Sample, number: int) -> Sample:
        if "boxes" in raw:
            raw = complete(raw, number)
        try:
            check_targets(raw, self.num_classes)
        except ValueError as error:
            raise ValueError(f"sample {number} of {type(self.source).__name__} {error}") from None
        return raw

    def _another(self, number: int, generator: np.random.Generator, unreadable: list[str]) -> Sample:
        """A raw sample other than `number`, to be mixed with it; where none can be read, that one again."""
        for _ in range(self.max_replacements):
            other = (number + 1 + int(generator.integers(max(len(self) - 1, 1)))) % len(self)
            try:
                return self._checked(self.source[other], other)
            except ImageError as error:
                if self.strict:
                    raise
                unreadable.append(str(error))
        return self._checked(self.source[number], number)


def image_to_tensor(image: np.ndarray) -> Tensor:
    """``[H, W, 3]`` uint8 to a ``[3, H, W]`` view of the same memory."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)


def collate(samples: Sequence[Sample]) -> dict[str, Any]:
    """Samples to a batch; unreadable ones are left out and named under ``unreadable``.

    Shape:
        - image: ``[B, 3, H, W]`` uint8, channels-last in memory (the decoder's own layout: no transposition).
        - every other number: ``[B]`` int64; text: list of B.

    Raises:
        ValueError: when the images differ in size.
    """
    unreadable = [message for sample in samples for message in sample["unreadable"]]
    samples = [sample for sample in samples if "image" in sample]
    batch: dict[str, Any] = {"unreadable": unreadable}
    if not samples:
        batch["image"] = torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        return batch
    sizes = {sample["image"].shape for sample in samples}
    if len(sizes) > 1:
        named = ", ".join(f"{width}x{height}" for height, width, _ in sorted(sizes)[:4])
        raise ValueError(
            f"the images of a batch differ in size ({named}): end data.init_args.train_transform "
            + (
                "with a step that fixes it, such as albumentations.RandomCrop with pad_if_needed: true, or set "
                "data.init_args.batch_size: 1"
                if "mask" in samples[0]
                else "and val_transform with steps that fix it, such as albumentations.Resize, or SmallestMaxSize and "
                "CenterCrop"
            )
        )
    pixels = torch.empty(len(samples), *sizes.pop(), dtype=torch.uint8)  # [B, H, W, 3]
    for row, sample in zip(pixels.numpy(), samples, strict=True):
        row[...] = sample["image"]
    batch["image"] = pixels.permute(0, 3, 1, 2)
    return batch | _columns(samples, samples[0].keys() - {"image", "unreadable"})


def _columns(samples: Sequence[Sample], fields: Iterable[str]) -> dict[str, Any]:
    """Fields of equal shape, one tensor each; texts stay a list."""
    columns = {field: [sample[field] for sample in samples] for field in fields}
    return {
        field: values if isinstance(values[0], str) else torch.as_tensor(np.asarray(values))
        for field, values in columns.items()
    }


def collate_whole(samples: Sequence[Sample]) -> dict[str, Any]:
    """As `collate`; but images with a mask each, or with no truth, may differ in size, and then come as lists.

    For evaluation and prediction. Nothing is padded, so that what is predicted in an image does not depend on which
    others are in its batch.

    Shape:
        - image, mask: where sizes differ, lists of B times ``[3, H_i, W_i]`` and ``[H_i, W_i]`` uint8.

    Raises:
        ValueError: when images with labels differ in size.
    """
    readable = [sample for sample in samples if "image" in sample]
    if len({sample["image"].shape for sample in readable}) < 2 or not readable[0].keys().isdisjoint(("label", "box")):
        return collate(samples)
    fields = readable[0].keys()
    batch: dict[str, Any] = {"unreadable": [message for sample in samples for message in sample["unreadable"]]}
    batch["image"] = [image.permute(2, 0, 1) for image in packed([sample["image"] for sample in readable])]
    if "mask" in fields:
        batch["mask"] = packed([sample["mask"] for sample in readable])
    return batch | _columns(readable, fields - {"image", "mask", "unreadable"})


class EpochSampler(DistributedSampler):
    """Which samples this rank sees in an epoch, in which order.

    Training: shuffled by (seed, epoch); padded so that all ranks make the same number of steps. Training by a draw: as
    it says, which samples how often; the ranks share one draw. Training in groups: the batches of each rank,
    `batch_size` samples in a row, are of one group where that can be; each sample comes as often as without groups
    (`grouped_batches`). Evaluation: in order and *not* padded, so that a metric counts each sample once.

    Args:
        size: number of samples in the data set.
        shuffle: reorder each epoch.
        pad: repeat a few samples where the ranks do not divide them evenly.
        seed: of the order.
        num_replicas, rank: taken from ``torch.distributed`` where that is initialised.
        draw: says which samples come how often; None: each once.
        groups: number of each sample's group, ``[size]``; None: no groups.
        batch_size: of the batches that groups are for.

    Raises:
        ValueError: for fewer samples than ranks, or a number of groups that is not `size`.
    """

    def __init__(
        self,
        size: int,
        shuffle: bool,
        pad: bool,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        draw: Draw | None = None,
        groups: np.ndarray | None = None,
        batch_size: int = 1,
    ) -> None:
        if num_replicas is None and not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            num_replicas, rank = 1, 0
        # Lightning leaves a DistributedSampler alone, whatever it does
        super().__init__(range(size), num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size, self.pad, self.skip = size if draw is None else draw.length, pad, 0
        if self.size < self.num_replicas:
            raise ValueError(
                f"the data set has {self.size} sample(s), fewer than the {self.num_replicas} devices that share it: "
                "use fewer devices (trainer.devices) or more data"
            )
        if groups is not None and len(groups) != size:
            raise ValueError(f"{len(groups)} groups given for {size} samples; give one a sample")
        if groups is not None and not pad:
            raise ValueError("groups are for training, where each rank is padded to the same number of samples")
        self.draw, self.groups, self.batch_size = draw, groups, batch_size

    def __len__(self) -> int:
        even, rest = divmod(self.size, self.num_replicas)
        return even + ((rest > 0) if self.pad else (self.rank < rest))

    def __iter__(self) -> Iterator[SampleKey]:
        order, repeats = np.arange(self.size), np.zeros(self.size, dtype=np.int64)
        epoch = self.drawn_epoch
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        if self.draw is not None:
            order, repeats = self.draw(generator)
        elif self.shuffle:
            generator.shuffle(order)
        for place in self._places(order, generator)[self.skip :].tolist():
            yield SampleKey(epoch, int(order[place]), int(repeats[place]))

    @property
    def drawn_epoch(self) -> int:
        """The epoch that order and augmentation follow from."""
        return self.epoch

    def _places(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The places in the order that are this rank's, one after the other."""
        if self.groups is None:
            mine = np.arange(self.rank, self.size, self.num_replicas)
            return mine if len(mine) == len(self) else np.append(mine, self.rank % self.size)
        lacking = np.arange(self.size, len(self) * self.num_replicas) % self.num_replicas  # ranks that are one short
        places = np.concatenate([np.arange(self.size), lacking])
        groups = self.groups[order[places]]
        return places[grouped_batches(groups, self.batch_size, self.num_replicas, generator)[self.rank]]


class SameSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]  # it gives keys, not plain numbers
    """Every epoch is as the first, in order and augmentation: what ``trainer.overfit_batches`` asks for.

    It calls itself sequential because Lightning puts a `SequentialSampler` in the place of any other sampler then; that
    would take the samples as they lie in the data set, often of one class, and lose the position in the epoch.
    """

    @property
    def drawn_epoch(self) -> int:
        """The first."""
        return 0


class ResumableLoader(DataLoader):
    """A DataLoader that knows how many batches it has given, and continues there.

    Lightning saves and restores the state of a loader that has ``state_dict`` and ``load_state_dict``; so a run
    stopped in the middle of an epoch goes on with the batches it has not seen.
    """

    sampler: EpochSampler
    batch_size: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given = 0
        self._resume: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._given = 0
        if self._resume is not None:
            if self._resume["epoch"] == self.sampler.epoch:
                self._given = self._resume["batches"]
            self._resume = None
        self.sampler.skip = self._given * self.batch_size
        for batch in super().__iter__():
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and the number of batches given in it."""
        return {"epoch": self.sampler.epoch, "batches": self._given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken."""
        self._resume = dict(state)
        self.sampler.set_epoch(state["epoch"])


def prepare_worker(_: int) -> None:
    """Make a worker process one thread, and free of its parent's W&B run."""
    gc.freeze()  # the collector would write to every object inherited, and so copy the parent's memory page by page
    cv2.setNumThreads(0)  # OpenCV's own pool would fight with the other workers
    # W&B (0.31) listens for imports to report them, and fails when a forked worker is the first to import a library
    if hooks := sys.modules.get("wandb.sdk.lib.import_hooks"):
        hooks.unregister_all_post_import_hooks()


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    training: bool,
    seed: int,
    collate_fn: Callable[[Sequence[Sample]], Any] = collate,
    pin_memory: bool = False,
    draw: Draw | None = None,
    groups: np.ndarray | None = None,
    same: bool = False,
) -> ResumableLoader:
    """The loader of a training or evaluation set.

    Training shuffles and drops the last incomplete batch (a batch of one breaks batch normalisation) unless that
    is all there is; evaluation does neither. `draw` and `groups` are `EpochSampler`'s; with `same` all epochs are as
    the first.
    """
    size = len(dataset)  # type: ignore[arg-type]
    kind = SameSampler if same else EpochSampler
    sampler = kind(size, training, training, seed, draw=draw, groups=groups, batch_size=batch_size)
    return ResumableLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate_fn,
        drop_last=training and len(sampler) >= batch_size,
        pin_memory=pin_memory,
        worker_init_fn=prepare_worker,
        persistent_workers=num_workers > 0,
        # an own generator: otherwise each start of the loader would draw from torch's, and a run that is resumed,
        # which starts its loaders at other moments, would continue with other random numbers
        generator=torch.Generator().manual_seed(seed),
    )
