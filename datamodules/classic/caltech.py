"""Caltech-101 and Caltech-256 with their usual splits: a fixed number of training images per class."""

import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..annotations.dataset_layout import download_dataset, images_by_class, layout_error, subfolders
from ..annotations.labeled_images import LabeledFiles
from ..base import LoaderOptions, Unpack, VisionDataModule


class Caltech101(VisionDataModule):
    """Caltech-101: photographs of 101 kinds of objects, 31 to 800 of each.

    Expected layout::

        ROOT/101_ObjectCategories/accordion/image_0001.jpg … (101 class folders and BACKGROUND_Google)

    The folder may also be in ``ROOT/caltech101``, where torchvision puts it, or in ``ROOT/caltech-101``, as in the
    publisher's archive.

    Zeiler and Fergus train on 15 or 30 random images per class, test on up to 50 of the others, and report mean and
    standard deviation, over five such folds, of the accuracy averaged over *classes*. Their folds are not published.
    The folds here depend on `fold` alone, so fold 0 has the same images for every seed, machine and sampling. There is
    no third part: validation and test both use the fold's test images, so do not select models by them.

    Classes are the object folders in alphabetical order. ``BACKGROUND_Google`` is not an object; as in torchvision, it
    is left out, unless `background` includes it as the last class. The other classes keep their labels.

    Args:
        root: Folder of the dataset.
        per_class: Number of training images per class.
        max_test: Maximum number of test images per class; null: all others.
        fold: Index of the random split, from 0.
        background: Whether the background folder is a class too.
        download: Whether to download missing files with torchvision (in `prepare_data`).
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, …. The split does
            not depend on ``seed``.

    Raises:
        FileNotFoundError: The folder is missing; the message shows the expected layout.
        ValueError: A class has at most `per_class` images, which leaves none to test on.

    Reference: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 5.2;
    Fei-Fei, Fergus, Perona, 2004 (the data).

    Batches are `ClassificationBatch`.
    """

    dataset_name: ClassVar[str] = "Caltech101"
    folder: ClassVar[str] = "101_ObjectCategories"
    parents: ClassVar[tuple[str, ...]] = ("", "caltech101", "caltech-101")
    clutter: ClassVar[str] = "BACKGROUND_Google"

    def __init__(
        self,
        root: str,
        per_class: int = 30,
        max_test: int | None = 50,
        fold: int = 0,
        background: bool = False,
        download: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(**kwargs)
        for name, value, minimum in (("per_class", per_class, 1), ("max_test", max_test, 1), ("fold", fold, 0)):
            if value is not None and value < minimum:
                raise ValueError(f"{name}: must be >= {minimum}, got {value}")
        self.root = Path(root).expanduser()
        self.per_class, self.max_test, self.fold = per_class, max_test, fold
        self.background, self.download = background, download
        self._scanned: tuple[Path, list[str], list[np.ndarray]] | None = None

    @property
    def class_names(self) -> list[str]:
        """Names of the objects; ``ak47`` for the folder ``001.ak47``."""
        return [re.sub(r"^\d+\.", "", name) for name in self._scan()[1]]

    def prepare_data(self) -> None:
        """Download missing files if `download` is set."""
        if self.download and self._find() is None:
            download_dataset(self.dataset_name, self.root)

    def make_source(self, split: str) -> LabeledFiles:
        """Return the fold's training images, or its test images (``val`` and ``test``)."""
        folder, names, files_of_class = self._scan()
        counts = {name: len(files) for name, files in zip(names, files_of_class, strict=True)}
        if small := [f"{name} {count}" for name, count in counts.items() if count <= self.per_class]:
            raise ValueError(
                f"per_class: {self.per_class} training images per class leave none to test on in {len(small)} "
                f"class(es) of {str(folder)!r}: {', '.join(small[:5])}{', …' if len(small) > 5 else ''}; lower it"
            )
        paths, labels = [], []
        for label, files in enumerate(files_of_class):
            # one generator per class: an additional image in one class does not change the split of the others
            order = np.random.default_rng((self.fold, label)).permutation(len(files))
            train, rest = order[: self.per_class], order[self.per_class :]
            paths.append(files[np.sort(train if split == "train" else rest[: self.max_test])])
            labels.append(np.full(len(paths[-1]), label))
        return LabeledFiles(np.concatenate(paths), np.concatenate(labels), root=folder)

    def _find(self) -> Path | None:
        folders = [self.root / parent / self.folder for parent in self.parents]
        if self.root.name == self.folder:
            folders.append(self.root)
        return next((folder for folder in folders if folder.is_dir()), None)

    def _scan(self) -> tuple[Path, list[str], list[np.ndarray]]:
        """Return the folder of the classes, their folder names, and the files ``[N]`` of each class."""
        if self._scanned is None:
            folder = self._find()
            names = [name for name in subfolders(folder) if name != self.clutter] if folder else []
            if folder is None or not names:
                problem = f"no folder {self.folder!r}" if folder is None else "no class folders"
                hint = "call prepare_data()" if self.download else "set download: true"
                raise layout_error(
                    f"root: {problem} in {str(folder or self.root)!r}; {hint} to download the images",
                    type(self),
                    self.root,
                )
            if self.background:
                if not (folder / self.clutter).is_dir():
                    raise FileNotFoundError(
                        f"background: no folder {self.clutter!r} in {str(folder)!r}; set background: false"
                    )
                names.append(self.clutter)
            self._scanned = (folder, names, images_by_class(folder, names))
        return self._scanned


class Caltech256(Caltech101):
    """Caltech-256: photographs of 256 kinds of objects, at least 80 of each.

    Expected layout::

        ROOT/256_ObjectCategories/001.ak47/001_0001.jpg … (256 class folders and 257.clutter)

    The folder may also be in ``ROOT/caltech256``, where torchvision puts it. Class names omit the folders' numbers.
    Only images directly in a class folder count: the publisher's archive has a stray folder and a script among them.

    Zeiler and Fergus train on 15, 30, 45 or 60 images per class. They state no limit of test images for this dataset;
    50 is that of Caltech-101, and ``max_test: null`` takes all others. ``257.clutter`` is left out unless `background`
    is set; torchvision counts it as a class. Otherwise as `Caltech101`.

    Args:
        root: Folder of the dataset.
        per_class: Number of training images per class.
        **kwargs: Other options of `Caltech101`.

    Reference: Zeiler and Fergus, 2014, section 5.2; Griffin, Holub, Perona, 2007 (the data).
    """

    dataset_name = "Caltech256"
    folder = "256_ObjectCategories"
    parents = ("", "caltech256")
    clutter = "257.clutter"

    def __init__(self, root: str, per_class: int = 60, **kwargs: Any) -> None:
        super().__init__(root, per_class, **kwargs)
