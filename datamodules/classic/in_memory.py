"""Base of the datasets that fit in memory and have a training and a test set, such as MNIST and CIFAR."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from ..annotations.dataset_layout import download_dataset, layout_error
from ..annotations.labeled_images import LabeledArrays
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule
from ..loading.splits import stratified_split

ImagesAndLabels = tuple[np.ndarray, np.ndarray]


class InMemoryDataModule(VisionDataModule):
    """Small labeled images, read once and shared by the loader's workers.

    A subclass implements `read`, `find` and `class_names`, and sets `dataset_name`, the dataset's class in torchvision.

    Args:
        root: Folder of the publisher's files, or the one that torchvision downloaded into.
        download: Whether to download missing files with torchvision; done in `prepare_data`, which the trainer calls
            once per machine.
        val_fraction: Fraction of the training images held out for validation, stratified by class and determined by
            `seed`. None: 5,000 images. 0: train on all images and validate on the test set, as the curves of many
            papers do. The test split is the official one.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files are missing; the message shows the expected layout.
        ValueError: A file is damaged; the message names the file and the problem.

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
            raise ValueError(f"val_fraction: must be in [0, 1) or null, got {val_fraction}")
        self.root, self.download, self.val_fraction = Path(root).expanduser(), download, val_fraction
        self._training: ImagesAndLabels | None = None

    # -- to implement in a subclass ------------------------------------------------------------------

    def find(self) -> object:
        """Locate the files; raise `missing` when one does not exist."""
        raise NotImplementedError

    def read(self, training: bool) -> ImagesAndLabels:
        """Read the official training or test set: images ``[N, H, W(, 3)]`` uint8 and labels ``[N]`` int64."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """Download missing files if `download` is set."""
        if not self.download:
            return
        try:
            self.find()
        except FileNotFoundError:
            download_dataset(self.dataset_name, self.root)

    def make_source(self, split: str) -> LabeledArrays:
        """Return the images of a split; the training set is read once for ``train`` and ``val``."""
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
                    f"val_fraction: null holds out {self.held_out} images, but {str(self.root)!r} has {len(labels)} "
                    "for training; set a fraction, such as 0.1"
                )
            fraction = self.held_out / len(labels)
        held_out = stratified_split(labels, fraction, self.seed)
        return LabeledArrays(images, labels, held_out if split == "val" else ~held_out)

    def missing(self, problem: str) -> FileNotFoundError:
        """Return the error for missing files, with a hint how to download them."""
        hint = "call prepare_data() to download them" if self.download else "set download: true to download them"
        return layout_error(f"{problem}; {hint}", type(self), self.root)
