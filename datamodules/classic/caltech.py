"""Caltech-101 and Caltech-256, with the splits on which features are compared: so many training images a class."""

import re
from pathlib import Path
from typing import ClassVar

import numpy as np

from ..annotations.dataset_layout import download_dataset, images_by_class, layout_error, subfolders
from ..annotations.labeled_images import LabeledFiles
from ..base import LoaderOptions, Unpack, VisionDataModule


class Caltech101(VisionDataModule):
    """Caltech-101: photographs of 101 kinds of objects, 31 to 800 of each.

    Expected layout::

        ROOT/101_ObjectCategories/accordion/image_0001.jpg …

    also below ``ROOT/caltech101`` (torchvision's place) or ``ROOT/caltech-101`` (the publisher's archive).

    Zeiler and Fergus train on 15 or 30 random images a class, test on up to 50 of the others, and report the mean
    and deviation, over five such folds, of the accuracy averaged over *classes*. Their folds are not published; those
    here are drawn by `fold` alone, so that fold 0 has the same images whatever the seed, machine or sampling. There
    is no third part: validation and test are both the fold's test images, so choose nothing by them.

    Classes are the object folders in alphabetical order. ``BACKGROUND_Google`` is no object; it is left out, as in
    torchvision, unless `background` asks for it: then it is the last class, and the others keep their numbers.

    Args:
        root: the data set's folder.
        per_class: training images a class.
        max_test: test images a class, at most; null: all the others.
        fold: number of the random split, from 0.
        background: make the background folder a class too.
        download: have torchvision fetch the files where they are not there yet (in `prepare_data`).
        **kwargs: Loader options of `VisionDataModule`: ``batch_size``, ``seed``, ``train_transform``, …. The
            split does not depend on ``seed``.

    Raises:
        FileNotFoundError: when the folder is not there; the message shows the expected tree and what was found.
        ValueError: for a class with no more than `per_class` images, which leaves none to test on.

    Reference: Zeiler and Fergus, "Visualizing and Understanding Convolutional Networks", 2014, section 5.2;
    Fei-Fei, Fergus, Perona, 2004 (the data).

    Batches are `ClassificationBatch`.
    """

    dataset_name: ClassVar[str] = "Caltech101"
    folder: ClassVar[str] = "101_ObjectCategories"
    places: ClassVar[tuple[str, ...]] = ("", "caltech101", "caltech-101")
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
        for name, value, least in (("per_class", per_class, 1), ("max_test", max_test, 1), ("fold", fold, 0)):
            if value is not None and value < least:
                raise ValueError(f"data.init_args.{name}: {value}; give {least} or more")
        self.root = Path(root).expanduser()
        self.per_class, self.max_test, self.fold = per_class, max_test, fold
        self.background, self.download = background, download
        self._scanned: tuple[Path, list[str], list[np.ndarray]] | None = None

    @property
    def class_names(self) -> list[str]:
        """The objects' names; of ``001.ak47``, ``ak47``."""
        return [re.sub(r"^\d+\.", "", name) for name in self._scan()[1]]

    def prepare_data(self) -> None:
        """Download what is not there, if asked to."""
        if self.download and self._find() is None:
            download_dataset(self.dataset_name, self.root)

    def make_source(self, split: str) -> LabeledFiles:
        """The fold's training images, or its test images (``val`` and ``test``)."""
        folder, names, files = self._scan()
        if small := [
            f"{name} {len(own)}" for name, own in zip(names, files, strict=True) if len(own) <= self.per_class
        ]:
            raise ValueError(
                f"data.init_args.per_class: {self.per_class} training images a class leave none to test on in "
                f"{len(small)} class(es) of {str(folder)!r}: {', '.join(small[:5])}{', …' if len(small) > 5 else ''}"
            )
        paths, labels = [], []
        for label, own in enumerate(files):
            # a generator of its own for each class: one more image in one does not change the others
            order = np.random.default_rng((self.fold, label)).permutation(len(own))
            train, rest = order[: self.per_class], order[self.per_class :]
            chosen = own[np.sort(train if split == "train" else rest[: self.max_test])]
            paths.append(chosen)
            labels.append(np.full(len(chosen), label))
        return LabeledFiles(np.concatenate(paths), np.concatenate(labels), root=folder)

    def _find(self) -> Path | None:
        folders = [self.root / place / self.folder for place in self.places]
        if self.root.name == self.folder:
            folders.append(self.root)
        return next((folder for folder in folders if folder.is_dir()), None)

    def _scan(self) -> tuple[Path, list[str], list[np.ndarray]]:
        if self._scanned is None:
            folder = self._find()
            names = [name for name in subfolders(folder) if name != self.clutter] if folder else []
            if folder is None or not names:
                what = f"no folder {self.folder!r}" if folder is None else "no class folders"
                hint = "call prepare_data(), which downloads them" if self.download else "data.init_args.download: true"
                message = f"data.init_args.root: {what} in {str(folder or self.root)!r}; to fetch the images, {hint}"
                raise layout_error(message, type(self), self.root)
            if self.background:
                if not (folder / self.clutter).is_dir():
                    raise FileNotFoundError(
                        f"data.init_args.background: no folder {self.clutter!r} in {str(folder)!r}; set it to false"
                    )
                names.append(self.clutter)
            self._scanned = (folder, names, images_by_class(folder, names))
        return self._scanned


class Caltech256(Caltech101):
    """Caltech-256: photographs of 256 kinds of objects, 80 and more of each.

    Expected layout::

        ROOT/256_ObjectCategories/001.ak47/001_0001.jpg …

    also below ``ROOT/caltech256`` (torchvision's place). Class names are without the folders' numbers. Only images
    directly in a class's folder count: the publisher's archive has a stray folder and a script among them.

    Zeiler and Fergus train on 15, 30, 45 or 60 images a class; for this set they name no limit of test images, and
    50 is Caltech-101's (`max_test`: null takes all the others). ``257.clutter`` is left out unless `background` asks
    for it; torchvision counts it as a class. All else is as in `Caltech101`.

    Reference: Zeiler and Fergus, 2014, section 5.2; Griffin, Holub, Perona, 2007 (the data).
    """

    dataset_name = "Caltech256"
    folder = "256_ObjectCategories"
    places = ("", "caltech256")
    clutter = "257.clutter"

    def __init__(
        self,
        root: str,
        per_class: int = 60,
        max_test: int | None = 50,
        fold: int = 0,
        background: bool = False,
        download: bool = False,
        **kwargs: Unpack[LoaderOptions],
    ) -> None:
        super().__init__(root, per_class, max_test, fold, background, download, **kwargs)
