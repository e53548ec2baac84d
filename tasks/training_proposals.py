"""The training set's objects and proposals, for detectors that measure something on all of them before training."""

from collections.abc import Iterator

from torch import Tensor
from torch.utils.data import DataLoader

from ..datamodules.base import VisionDataModule
from ..datamodules.loading.collate import collate_objects
from ..datamodules.loading.loader import prepare_worker
from .ignored_targets import drop_ignored_targets

BATCH = 16


def training_proposals(data: VisionDataModule, train_on_difficult: bool = True) -> Iterator[dict[str, Tensor]]:
    """Yield objects and proposals of all training samples once, in order, with the augmentation of the first epoch.

    Args:
        data: A data module that is set up for training.
        train_on_difficult: Keep difficult objects.

    Yields:
        ``boxes`` ``[N, 4]``, ``labels`` ``[N]``, ``proposals`` ``[P, 4]`` and the other fields of a target; nothing
        without stored proposals.
    """
    dataset = data.datasets.get("train")
    if dataset is None or dataset.proposals is None:
        return
    loader: DataLoader = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=data.num_workers,
        collate_fn=collate_objects,
        worker_init_fn=prepare_worker,
    )
    for batch in loader:
        targets = drop_ignored_targets(batch.get("target", ()), train_on_difficult)
        for target, proposals in zip(targets, batch.get("proposals", ()), strict=True):
            yield {**target, "proposals": proposals}
