"""Folders of images, one folder per class."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError, Fault, record_error
from ..annotations.dataset_layout import layout_error, split_folders, subfolders
from ..annotations.labeled_images import LabeledFiles
from ..annotations.similar_names import canonical, describe_similar, merged_names, similar_names
from ..annotations.skipped_files import report_skipped
from ..base import LoaderOptions, Unpack, VisionDataModule
from ..images.file_names import composed
from ..images.listing import SUPPORTED, Listing, Skipped, is_run_folder, list_folder
from ..loading.splits import optional_val_fraction, stratified_split


class ImageFolder(VisionDataModule):
    """Images sorted into one folder per class.

    Expected layout::

        ROOT/train/CLASS/*.jpg     (or, with val_fraction, ROOT/CLASS/*.jpg)
        ROOT/val/CLASS/*.jpg       (or val_fraction)
        ROOT/test/CLASS/*.jpg      (if there is a test set)

    The folders of the splits may also be named ``training``, ``valid``, ``validation`` or ``testing``, in any case.
    The classes are the folder names of the training set, in alphabetical order. Class folders are searched
    recursively, and links are followed. Hidden folders, those of systems and tools (``@eaDir``, ``__MACOSX``), and
    folders of training runs (``runs``, ``wandb``, ``lightning_logs``, ``mlruns``, ``checkpoints``) are not classes,
    except those that `class_names` has.

    Args:
        root: Folder of the dataset.
        val_fraction: Fraction of each class's training images held out for validation if there is no folder ``val``;
            stratified and determined by `seed`. At least one image per class is held out, and at least one is kept.
        merge_similar_classes: Whether class folders whose names differ only in case, blanks or Unicode form (``Cat``,
            ``cat``) are one class, with the first of these names; they are rejected otherwise.
        class_names: Names of the class folders, in the order of the classes; None: all, in alphabetical order. Other
            folders are rejected, except those of training runs.
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Folders are missing; the message shows the expected layout.
        ValueError: A class has no images, two have nearly the same name, or ``val`` or ``test`` has a class that
            ``train`` does not have.

    Batches are `ClassificationBatch`.
    """

    def __init__(
        self,
        root: str,
        val_fraction: float | None = None,
        merge_similar_classes: bool = False,
        class_names: list[str] | None = None,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        val_fraction = optional_val_fraction(val_fraction)
        self.root, self.val_fraction = Path(root).expanduser(), val_fraction
        self.merge_similar_classes = merge_similar_classes
        self._names = None if class_names is None else list(class_names)
        self._training: tuple[list[str], list[Path], np.ndarray] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: of the class folders in alphabetical order, or those of the argument."""
        return list(self._scan_training()[0])

    def make_source(self, split: str) -> LabeledFiles:
        """Return the images of a split with their classes."""
        names, paths, labels = self._scan_training()
        folders = split_folders(self.root)
        has_val = "val" in folders
        if split == "test" or (split == "val" and has_val):
            if split not in folders:
                raise layout_error(f"no folder {str(self.root / split)!r}", type(self), self.root, AbsentSplitError)
            return LabeledFiles(*self._scan(self.root / folders[split], names))
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
            splits = split_folders(self.root)
            if splits and "train" not in splits:
                problem = f"no folder {str(self.root / 'train')!r} beside {', '.join(map(repr, splits.values()))}"
                raise layout_error(problem, type(self), self.root)
            folder = self.root / splits.get("train", "")
            if not (class_folders := self._class_folders(folder)):
                raise layout_error(f"no class folders in {str(folder)!r}", type(self), self.root)
            if (similar := similar_names(class_folders)) and not self.merge_similar_classes:
                found = f"differ only in case, blanks or Unicode form, got {describe_similar(similar)}"
                remedy = "rename them, or set merge_similar_classes: true"
                record_error(
                    Fault(
                        "similar-classes",
                        folder,
                        [name for group in similar for name in group],
                        "folder",
                        found,
                        remedy,
                    )
                )
            names = self._names or class_folders
            if self._names is None and self.merge_similar_classes:
                names = sorted(set(merged_names(class_folders).values()))
            known = {self._key(name) for name in class_folders}
            if absent := [name for name in names if self._key(name) not in known]:
                raise ValueError(f"class_names: must be folders in {str(folder)!r}, got {', '.join(map(repr, absent))}")
            self._training = (names, *self._scan(folder, names))
        return self._training

    def _key(self, name: str) -> str:
        """The text by which names are compared."""
        return canonical(name) if self.merge_similar_classes else composed(name)

    def _class_folders(self, folder: Path) -> list[str]:
        """The names of the class folders in the folder of a split, without those of runs that are not asked for."""
        return [name for name in subfolders(folder) if name in (self._names or ()) or not is_run_folder(name)]

    def _scan(self, folder: Path, names: Sequence[str]) -> tuple[list[Path], np.ndarray]:
        """Return the images below the class folders, and the class of each: ``[N]`` int64."""
        key = self._key
        label_of = {key(name): label for label, name in enumerate(names)}
        class_folders = self._class_folders(folder)
        if unknown := [name for name in class_folders if key(name) not in label_of]:
            found, remedy = "a folder that the training set does not have", f"its classes are {list(names)}"
            record_error(Fault("label-outside", folder, unknown, "folder", found, remedy))
        found_folders = {name: list_folder(folder / name) for name in class_folders if key(name) in label_of}
        if empty := [name for name, listing in found_folders.items() if not listing.images]:
            remedy = f"searched for {SUPPORTED}; add images, or remove the folder"
            record_error(Fault("bad-target", folder, empty, "folder", "no images in it", remedy))
        report_skipped([self._beside(folder, class_folders), *found_folders.values()])
        # in the order of the classes
        ordered = sorted(found_folders, key=lambda name: (label_of[key(name)], name))
        paths = [path for name in ordered for path in found_folders[name].paths()]
        counts = [len(found_folders[name].images) for name in ordered]
        return paths, np.repeat(np.array([label_of[key(name)] for name in ordered], np.int64), counts)

    def _beside(self, folder: Path, class_folders: Sequence[str]) -> Listing:
        """What lies beside the class folders and is left out."""
        listing = list_folder(folder, recursive=False)
        skipped = [one._replace(reason="text") if one.reason == "format" else one for one in listing.skipped]
        skipped = [one for one in skipped if one.reason != "folder"]
        skipped += [Skipped(name, "outside") for name in listing.images]
        runs = [name for name in subfolders(folder) if name not in class_folders]
        return Listing(folder, [], skipped + [Skipped(f"{name}/", "run") for name in runs])
