"""From raw samples to batches: reproducible augmentation, sampling under DDP, and loaders that resume.

Every random number of the pipeline follows from (seed, epoch, sample, repeat), never from a worker's state. So a run
gives the same batches with any number of workers, and a resumed run continues as if it had never stopped.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from .images import ImageError
from .sampling import balanced_draw
from .targets import LostObjectError, Sample, TargetAugmentation, check_targets, complete, without_unseen


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
        transform: an ``albumentations.Compose``, or None. Boxes and masks go through it with their image
            (`TargetAugmentation`).
        seed: of the augmentation.
        replace_unreadable: give the next readable sample in place of an unreadable one (training, where every
            rank must make the same number of steps); otherwise the unreadable sample is left out of its batch.
        strict: let an unreadable image stop the run.
        num_classes: number of classes; a label outside them is refused here, where the sample is known, and not on
            a GPU, where nothing is. None: labels are not looked at.
        min_visibility: part of a box's area that a step of the pipeline must leave, or the object is removed.

    A sample whose only object (localization) no augmentation leaves in sight is treated as an unreadable one.
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
        self._augmentation = None if transform is None else TargetAugmentation(transform, min_visibility)
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
                sample = self._sample(self.source[number], epoch, number, repeat)
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

    def _sample(self, raw: Sample, epoch: int, number: int, repeat: int) -> Sample:
        if "boxes" in raw:
            raw = complete(raw, number)
        try:
            check_targets(raw, self.num_classes)
        except ValueError as error:
            raise ValueError(f"sample {number} of {type(self.source).__name__} {error}") from None
        if self._augmentation is None:
            return without_unseen(raw)
        # numpy's own mixing of the four numbers
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((self.seed, epoch, number, repeat))))
        try:
            return self._augmentation(raw, generator)
        except LostObjectError as error:
            raise ImageError(raw.get("path", f"sample {number}"), str(error)) from error


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
            f"the images of a batch differ in size ({named}): end data.init_args.train_transform and val_transform "
            "with steps that fix it, such as albumentations.Resize, or SmallestMaxSize and CenterCrop"
        )
    pixels = torch.empty(len(samples), *sizes.pop(), dtype=torch.uint8)  # [B, H, W, 3]
    for row, sample in zip(pixels.numpy(), samples, strict=True):
        row[...] = sample["image"]
    batch["image"] = pixels.permute(0, 3, 1, 2)
    for key in samples[0].keys() - {"image", "unreadable"}:
        values = [sample[key] for sample in samples]
        batch[key] = values if isinstance(values[0], str) else torch.as_tensor(np.asarray(values))
    return batch


class EpochSampler(DistributedSampler):
    """Which samples this rank sees in an epoch, in which order.

    Training: shuffled by (seed, epoch); padded so that all ranks make the same number of steps.
    Class-balanced training: as many draws, equally many of each class (`balanced_draw`); the ranks share one draw.
    Evaluation: in order and *not* padded, so that a metric counts each sample once.

    Args:
        size: number of samples in the data set.
        shuffle: reorder each epoch.
        pad: repeat a few samples where the ranks do not divide them evenly.
        seed: of the order.
        num_replicas, rank: taken from ``torch.distributed`` where that is initialised.
        balance: class of each sample, to draw each class equally often; None: each sample once.

    Raises:
        ValueError: for fewer samples than ranks, or a number of classes in `balance` that is not `size`.
    """

    def __init__(
        self,
        size: int,
        shuffle: bool,
        pad: bool,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        balance: np.ndarray | None = None,
    ) -> None:
        if num_replicas is None and not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            num_replicas, rank = 1, 0
        # Lightning leaves a DistributedSampler alone, whatever it does
        super().__init__(range(size), num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size, self.pad, self.skip = size, pad, 0
        if size < self.num_replicas:
            raise ValueError(
                f"the data set has {size} sample(s), fewer than the {self.num_replicas} devices that share it: "
                "use fewer devices (trainer.devices) or more data"
            )
        if balance is not None and len(balance) != size:
            raise ValueError(f"{len(balance)} classes given to balance {size} samples by; give one a sample")
        self.balance = balance

    def __len__(self) -> int:
        even, rest = divmod(self.size, self.num_replicas)
        return even + ((rest > 0) if self.pad else (self.rank < rest))

    def __iter__(self) -> Iterator[SampleKey]:
        order, repeats = np.arange(self.size), np.zeros(self.size, dtype=np.int64)
        generator = np.random.Generator(np.random.PCG64([self.seed, self.epoch]))
        if self.balance is not None:
            order, repeats = balanced_draw(self.balance, generator)
        elif self.shuffle:
            generator.shuffle(order)
        mine = np.arange(self.rank, self.size, self.num_replicas)  # places in the order
        if len(mine) < len(self):
            mine = np.append(mine, self.rank % self.size)
        for place in mine[self.skip :]:
            yield SampleKey(self.epoch, int(order[place]), int(repeats[place]))


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
    balance: np.ndarray | None = None,
) -> ResumableLoader:
    """The loader of a training or evaluation set.

    Training shuffles and drops the last incomplete batch (a batch of one breaks batch normalisation) unless that
    is all there is; evaluation does neither. `balance` is `EpochSampler`'s.
    """
    size = len(dataset)  # type: ignore[arg-type]
    sampler = EpochSampler(size, shuffle=training, pad=training, seed=seed, balance=balance)
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
