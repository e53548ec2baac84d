"""Folders of images, one folder a class."""

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
    """Images sorted into one folder a class, from local disk.

    Expected layout::

        ROOT/train/CLASS/*.jpg     (or, with val_fraction, ROOT/CLASS/*.jpg)
        ROOT/val/CLASS/*.jpg       (or val_fraction)
        ROOT/test/CLASS/*.jpg      (where there is a test set)

    The classes are the folder names of the training set, in alphabetical order. Images may lie at any depth below
    their class's folder.

    Args:
        root: the data set's folder.
        val_fraction: part of each class's training images to hold out for validation, when there is no ``val``
            folder: stratified, and fixed by `seed`. At least one image a class is held out, and one kept.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when the folders are not there; the message shows that tree and what was found.
        ValueError: for a class without images, or classes of ``val`` or ``test`` that ``train`` does not have.

    Batches are `ClassificationBatch`.
    """

    def __init__(
        self,
        root: str,
        val_fraction: float | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        check_val_fraction(val_fraction)
        self.root, self.val_fraction = Path(root).expanduser(), val_fraction
        self._training: tuple[list[str], list[Path], np.ndarray] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the class folders, in alphabetical order."""
        return self._scan_training()[0]

    def make_source(self, split: str) -> LabeledFiles:
        """The files of a split."""
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
            raise self._layout_error(f"no folder {str(self.root / 'val')!r}; add it, or set val_fraction: 0.1")
        held_out = stratified_split(labels, self.val_fraction, self.seed, names)
        keep = held_out if split == "val" else ~held_out
        return LabeledFiles([path for path, kept in zip(paths, keep, strict=True) if kept], labels[keep])

    def _scan_training(self) -> tuple[list[str], list[Path], np.ndarray]:
        if self._training is None:
            if not self.root.is_dir():
                raise self._layout_error(f"data.init_args.root: no folder {str(self.root)!r}")
            folder = self.root / "train" if (self.root / "train").is_dir() else self.root
            names = subfolders(folder)
            if not names or (folder == self.root and {"val", "test"} & set(names)):
                raise self._layout_error(f"no class folders in {str(folder)!r}")
            self._training = (names, *self._scan(folder, names))
        return self._training

    def _scan(self, folder: Path, names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
        found = subfolders(folder)
        if unknown := [name for name in found if name not in names]:
            classes, remedy = "a folder that the training set does not have", f"its classes are {list(names)}"
            record_error(Fault("label-outside", folder, unknown, "folder", classes, remedy))
        paths: list[Path] = []
        labels: list[int] = []
        empty = []
        for label, name in enumerate(names):
            files = list_images(folder / name) if (folder / name).is_dir() else []
            if not files and name in found:
                empty.append(name)
            paths += files
            labels += [label] * len(files)
        if empty:
            remedy = f"looked for {', '.join(IMAGE_SUFFIXES)}; add images, or remove the folder"
            record_error(Fault("bad-target", folder, empty, "folder", "no images in it", remedy))
        return paths, np.asarray(labels, dtype=np.int64)

    def _layout_error(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)
