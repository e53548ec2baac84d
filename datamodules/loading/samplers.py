"""Samplers: which samples a rank processes in an epoch, in which order."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import DistributedSampler, SequentialSampler

from .dataset import SampleKey
from .epoch_sampling import EpochSampling, grouped_batches


class EpochSampler(DistributedSampler):
    """The samples of one rank in an epoch, in order.

    Training: shuffled by (seed, epoch), and padded so that all ranks make the same number of steps. With `sampling`,
    it draws the samples of the epoch, and the ranks share one draw. With `groups`, the batches of each rank,
    `batch_size` consecutive samples, have one group as far as possible; each sample occurs as often as without groups
    (`grouped_batches`). Evaluation: in order and *not* padded, so a metric counts each sample once.

    Args:
        size: Number of samples in the data set.
        shuffle: Whether to reorder each epoch.
        pad: Whether to repeat a few samples if the ranks do not divide them evenly.
        seed: Seed of the order.
        num_replicas: Number of ranks; None: taken from ``torch.distributed`` where that is initialized.
        rank: Index of this rank; None: as above.
        sampling: Draws the samples of an epoch; None: each once.
        groups: Group of each sample, ``[N]`` with N = `size`; None: no groups.
        batch_size: Size of the batches that `groups` applies to.

    Raises:
        ValueError: Fewer samples than ranks, or `groups` of another length or without `pad`.
    """

    def __init__(
        self,
        size: int,
        shuffle: bool,
        pad: bool,
        seed: int = 0,
        num_replicas: int | None = None,
        rank: int | None = None,
        sampling: EpochSampling | None = None,
        groups: np.ndarray | None = None,  # [N]
        batch_size: int = 1,
    ) -> None:
        if num_replicas is None and not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            num_replicas, rank = 1, 0
        # a DistributedSampler in one process too: Lightning does not replace it
        super().__init__(range(size), num_replicas, rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]
        self.size, self.pad, self.skip = size if sampling is None else sampling.length, pad, 0
        if self.size < self.num_replicas:
            raise ValueError(
                f"trainer.devices: must not exceed the number of samples, got {self.num_replicas} devices for "
                f"{self.size} sample(s); use fewer devices or more data"
            )
        if groups is not None and len(groups) != size:
            raise ValueError(f"groups: must have one entry per sample, got {len(groups)} for {size} samples")
        if groups is not None and not pad:
            raise ValueError("groups: need pad=True, since only training has batches of one group")
        self.sampling, self.groups, self.batch_size = sampling, groups, batch_size

    def __len__(self) -> int:
        even, remainder = divmod(self.size, self.num_replicas)
        return even + ((remainder > 0) if self.pad else (self.rank < remainder))

    def __iter__(self) -> Iterator[SampleKey]:
        order, repeats = np.arange(self.size), np.zeros(self.size, dtype=np.int64)
        epoch = self.effective_epoch
        generator = np.random.Generator(np.random.PCG64([self.seed, epoch]))
        if self.sampling is not None:
            order, repeats = self.sampling(generator)
        elif self.shuffle:
            generator.shuffle(order)
        for position in self._positions(order, generator)[self.skip :].tolist():
            yield SampleKey(epoch, int(order[position]), int(repeats[position]))

    @property
    def effective_epoch(self) -> int:
        """The epoch that determines order and augmentation."""
        return self.epoch

    def _positions(self, order: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Return this rank's positions ``[M]`` in the order ``[N]`` of all ranks."""
        if self.groups is None:
            positions = np.arange(self.rank, self.size, self.num_replicas)
            return positions if len(positions) == len(self) else np.append(positions, self.rank % self.size)
        # the ranks that are one sample short repeat one of the first samples
        padding = np.arange(self.size, len(self) * self.num_replicas) % self.num_replicas
        positions = np.concatenate([np.arange(self.size), padding])
        groups = self.groups[order[positions]]
        return positions[grouped_batches(groups, self.batch_size, self.num_replicas, generator)[self.rank]]


class OverfitSampler(EpochSampler, SequentialSampler):  # type: ignore[misc]  # yields keys, not plain indices
    """Every epoch equals the first, in order and augmentation, for ``trainer.overfit_batches``.

    It is a `SequentialSampler` because Lightning replaces any other sampler by one then; that would take the samples in
    the order of the data set, often of a single class, and lose the position in the epoch.
    """

    @property
    def effective_epoch(self) -> int:
        """The first epoch, 0, in every epoch."""
        return 0
