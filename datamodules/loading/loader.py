"""Loaders that resume within an epoch, and their worker processes."""

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from .collate import collate
from .epoch_sampling import EpochSampling
from .samplers import EpochSampler, OverfitSampler
from .sources import Sample


class ResumableLoader(DataLoader):
    """A DataLoader that counts its batches and can continue within an epoch.

    Lightning saves and restores the state of a loader that has ``state_dict`` and ``load_state_dict``. So a run that
    was stopped within an epoch continues with the batches it has not processed.
    """

    sampler: EpochSampler
    batch_size: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._batches = 0
        self._resume: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        self._batches = 0
        if self._resume is not None:
            if self._resume["epoch"] == self.sampler.epoch:
                self._batches = self._resume["batches"]
            self._resume = None
        self.sampler.skip = self._batches * self.batch_size
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, and the number of batches returned in it."""
        return {"epoch": self.sampler.epoch, "batches": self._batches}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue where `state_dict` was taken."""
        self._resume = dict(state)
        self.sampler.set_epoch(state["epoch"])


def make_loader(
    dataset: Dataset[Any],
    batch_size: int,
    num_workers: int,
    training: bool,
    seed: int,
    collate_fn: Callable[[Sequence[Sample]], Any] = collate,
    pin_memory: bool = False,
    sampling: EpochSampling | None = None,
    groups: np.ndarray | None = None,
    overfit: bool = False,
) -> ResumableLoader:
    """Build the loader of a training or evaluation set.

    Training shuffles, and drops the last incomplete batch (a batch of one breaks batch normalization) unless it is the
    only one; evaluation does neither.

    Args:
        dataset: Data set that takes a `SampleKey`.
        batch_size: Samples per batch.
        num_workers: Worker processes; 0: load in the main process.
        training: Whether to shuffle, pad and drop the last batch.
        seed: Seed of the order.
        collate_fn: Makes a batch of samples.
        pin_memory: Whether to copy batches to page-locked memory.
        sampling, groups: See `EpochSampler`; groups is ``[N]``.
        overfit: Whether all epochs equal the first.
    """
    size = len(dataset)  # type: ignore[arg-type]
    sampler_class = OverfitSampler if overfit else EpochSampler
    sampler = sampler_class(size, training, training, seed, sampling=sampling, groups=groups, batch_size=batch_size)
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
        # its own generator: otherwise each start of the loader would draw from torch's global one, and a resumed run,
        # which starts its loaders at other moments, would continue with other random numbers
        generator=torch.Generator().manual_seed(seed),
    )


def prepare_worker(_: int) -> None:
    """Set up a worker process: one thread, and no ties to the parent's W&B run."""
    gc.freeze()  # the collector would write to every inherited object, and so copy the parent's memory page by page
    cv2.setNumThreads(0)  # OpenCV's own pool would compete with the other workers
    signal.signal(signal.SIGTERM, survive_once)
    # W&B (0.31) reports imports through hooks, which fail when a forked worker is the first to import a library
    if hooks := sys.modules.get("wandb.sdk.lib.import_hooks"):
        hooks.unregister_all_post_import_hooks()


def survive_once(number: int, frame: FrameType | None) -> None:
    """Ignore a signal, a worker's SIGTERM, the first time only.

    Clusters and process managers send SIGTERM to all processes of a group. If the workers ended at once, the main
    process would fail while it saves; it ends them itself when it is done. If a worker does not react to that, the main
    process sends SIGTERM again.
    """
    signal.signal(number, signal.SIG_DFL)


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else (os.cpu_count() or 1)


def default_workers() -> int:
    """Number of workers for one device: its share of the usable cores, less one for the training itself, 1 to 8."""
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
    return max(1, min(8, usable_cores() // ranks - 1))
