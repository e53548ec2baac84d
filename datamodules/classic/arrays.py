"""Base of the data sets that fit in memory and come as a training and a test set: MNIST's and CIFAR's kin."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from ..annotations.dataset_layout import download_dataset, layout_error
from ..annotations.labeled_images import LabeledArrays
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from ..loading.sampling import stratified_split

Labelled = tuple[np.ndarray, np.ndarray]


class InMemoryDataModule(VisionDataModule):
    """Small images with labels, read once and shared by the loader's workers.

    A subclass supplies `read`, `find` and `class_names`, its publisher's name in torchvision.

    Args:
        root: the folder of the publisher's files, or the one torchvision downloaded into.
        download: have torchvision fetch the files where they are not there yet; done in `prepare_data`, which the
            trainer calls once a machine.
        val_fraction: part of the training images held out for validation, stratified by class and fixed by `seed`;
            None: 5,000 of them; 0: train on all and validate on the test set, as many papers' curves do. The test
            split is the official one.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when the files are not there; the message shows the expected tree and what was found.
        ValueError: for a damaged file; the message names it and what is wrong.

    Batches are `ClassificationBatch`.
    """

    held_out = 5000
    dataset_name: ClassVar[str]

    def __init__(
        self,
        root: str,
        download: bool = False,
        val_fraction: float | None = None,
        batch_size: int = 128,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        if val_fraction is not None and not 0 <= val_fraction < 1:
            raise ValueError(f"data.init_args.val_fraction: {val_fraction} is not 0, between 0 and 1, or null")
        self.root, self.download, self.val_fraction = Path(root).expanduser(), download, val_fraction
        self._training: Labelled | None = None

    # -- what a subclass supplies ------------------------------------------------------------------

    def find(self) -> object:
        """Where the files are; raises FileNotFoundError, by `missing`, when one is not there."""
        raise NotImplementedError

    def read(self, training: bool) -> Labelled:
        """All images ``[N, H, W(, 3)]`` uint8 and labels ``[N]`` int64 of the official training or test set."""
        raise NotImplementedError

    # -- the rest ----------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download what is not there, if asked to."""
        if not self.download:
            return
        try:
            self.find()
        except FileNotFoundError:
            download_dataset(self.dataset_name, self.root)

    def make_source(self, split: str) -> LabeledArrays:
        """The images of a split."""
        if split == "test" or (split == "val" and self.val_fraction == 0):
            return LabeledArrays(*self.read(training=False))
        if self._training is None:
            self._training = self.read(training=True)
        images, labels = self._training
        if self.val_fraction == 0:
            return LabeledArrays(images, labels)
        fraction = self.val_fraction
        if fraction is None:
            if len(labels) <= self.held_out:
                raise ValueError(
                    f"data.init_args.val_fraction: null holds out {self.held_out} images, but {str(self.root)!r} has "
                    f"{len(labels)} for training; give a fraction, such as 0.1"
                )
            fraction = self.held_out / len(labels)
        held = stratified_split(labels, fraction, self.seed)
        return LabeledArrays(images, labels, held if split == "val" else ~held)

    def missing(self, problem: str) -> FileNotFoundError:
        """The error for files that are not there."""
        hint = (
            "call prepare_data(), which downloads them"
            if self.download
            else "data.init_args.download: true has torchvision fetch them"
        )
        return layout_error(f"{problem}; {hint}", type(self), self.root)
