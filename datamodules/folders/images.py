"""Folders of images, one folder per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.dataset_layout import layout_error, subfolders
from ..annotations.labeled_images import LabeledFiles
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..images.read import IMAGE_SUFFIXES, list_images
from ..loading.splits import check_val_fraction, stratified_split


class ImageFolder(VisionDataModule):
    """Images sorted into one folder per class.

    Expected layout::

        ROOT/train/CLASS/*.jpg     (or, with val_fraction, ROOT/CLASS/*.jpg)
        ROOT/val/CLASS/*.jpg       (or val_fraction)
        ROOT/test/CLASS/*.jpg      (if there is a test set)

    The classes are the folder names of the training set, in alphabetical order. Class folders are searched recursively.

    Args:
        root: Folder of the dataset.
        val_fraction: Fraction of each class's training images held out for validation if there is no folder ``val``;
            stratified and determined by `seed`. At least one image per class is held out, and at least one is kept.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders are missing; the message shows the expected layout.
        ValueError: A class has no images, or ``val`` or ``test`` has a class that ``train`` does not have.

    Batches are `ClassificationBatch`.
    """

    def __init__(self, root: str, val_fraction: float | None = None, **kwargs: Unpack[LoaderOptions]) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        self.root, self.val_fraction = Path(root).expanduser(), val_fraction
        self._training: tuple[list[str], list[Path], np.ndarray] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the class folders, in alphabetical order."""
        return self._scan_training()[0]

    def make_source(self, split: str) -> LabeledFiles:
        """Return the images of a split with their classes."""
        names, paths, labels = self._scan_training()
        has_val = (self.root / "val").is_dir()
        if split == "test" or (split == "val" and has_val):
            folder = self.root / split
            if not folder.is_dir():
                raise layout_error(f"no folder {str(folder)!r}", type(self), self.root, AbsentSplitError)
            return LabeledFiles(*self._scan(folder, names))
        if has_val or (split == "train" and self.val_fraction is None):
            return LabeledFiles(paths, labels)
        if self.val_fraction is None:
            problem = f"no folder {str(self.root / 'val')!r}; add it, or set val_fraction: 0.1"
            raise layout_error(problem, type(self), self.root)
        held_out = stratified_split(labels, self.val_fraction, self.seed, names)
        selected = held_out if split == "val" else ~held_out
        return LabeledFiles([path for path, kept in zip(paths, selected, strict=True) if kept], labels[selected])

    def _scan_training(self) -> tuple[list[str], list[Path], np.ndarray]:
        """Return the classes, the training images, and the class of each: ``[N]`` int64."""
        if self._training is None:
            if not self.root.is_dir():
                raise layout_error(f"root: no folder {str(self.root)!r}", type(self), self.root)
            folder = self.root / "train" if (self.root / "train").is_dir() else self.root
            names = subfolders(folder)
            if not names or (folder == self.root and {"val", "test"} & set(names)):
                raise layout_error(f"no class folders in {str(folder)!r}", type(self), self.root)
            self._training = (names, *self._scan(folder, names))
        return self._training

    def _scan(self, folder: Path, names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
        """Return the images below the class folders, and the class of each: ``[N]`` int64."""
        class_folders = subfolders(folder)
        if unknown := [name for name in class_folders if name not in names]:
            found, remedy = "a folder that the training set does not have", f"its classes are {list(names)}"
            record_error(Fault("label-outside", folder, unknown, "folder", found, remedy))
        paths: list[Path] = []
        labels: list[int] = []
        empty = []
        for label, name in enumerate(names):
            files = list_images(folder / name) if (folder / name).is_dir() else []
            if not files and name in class_folders:
                empty.append(name)
            paths += files
            labels += [label] * len(files)
        if empty:
            remedy = f"searched for {', '.join(IMAGE_SUFFIXES)}; add images, or remove the folder"
            record_error(Fault("bad-target", folder, empty, "folder", "no images in it", remedy))
        return paths, np.asarray(labels, dtype=np.int64)
