"""ImageNet (ILSVRC2012) for classification, in the layout of its publishers' archives."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..annotations.annotation_errors import AbsentSplitError
from ..annotations.dataset_layout import image_names, images_by_class, layout_error, subfolders
from ..annotations.labeled_images import LabeledFiles
from ..annotations.text_files import read_text
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


class Synsets(NamedTuple):
    """Classes of ImageNet, in the order of their labels.

    Attributes:
        wnids: WordNet ids, sorted; the position of a class is its label.
        names: Unique name of each class.
        label_of_id: Label of each of the devkit's class numbers (``ILSVRC2012_ID``); empty without devkit.
    """

    wnids: list[str]
    names: list[str]
    label_of_id: dict[int, int]


class ImageNet(VisionDataModule):
    """ILSVRC2012's classification dataset: 1.28 million training images, 50,000 for validation, 1,000 classes.

    Expected layout::

        ROOT/ILSVRC2012_devkit_t12/data/meta.mat
        ROOT/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt
        ROOT/train/nXXXXXXXX/*.JPEG    (ILSVRC2012_img_train.tar, and each archive in it, unpacked)
        ROOT/val/*.JPEG                (ILSVRC2012_img_val.tar unpacked; or sorted, ROOT/val/nXXXXXXXX/*.JPEG)

    Labels are positions in the sorted list of WordNet ids, as in torchvision's weights and most others, and not the
    devkit's own numbers. A class is named by its first synonym, with the WordNet id in parentheses where two classes
    share it (the crane that flies and the crane that lifts). The ground truth of the test images is not public, so the
    test split here is the validation set, on which papers report.

    For a subset of ImageNet, or a copy without devkit, `ImageFolder` reads ``train`` and a sorted ``val``.

    Args:
        root: Folder of the dataset.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: Files are missing; the message shows the expected layout.
        ValueError: The class folders are not those of the devkit, or the validation images do not match the ground
            truth in number, name or folder.

    Batches are `ClassificationBatch`.
    """

    def __init__(self, root: str, batch_size: int = 64, **kwargs: Unpack[LoaderOptionsExceptBatchSize]) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self.root = Path(root).expanduser()
        self._synsets: Synsets | None = None

    @property
    def synsets(self) -> Synsets:
        """Classes, read from the devkit."""
        if self._synsets is None:
            self._synsets = read_synsets(self._devkit("meta.mat"))
        return self._synsets

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: the first synonym of each, made unique."""
        return list(self.synsets.names)

    def make_source(self, split: str) -> LabeledFiles:
        """Return the images of a split; ``test`` is ``val``."""
        folder = self.root / ("train" if split == "train" else "val")
        if not folder.is_dir():
            raise layout_error(f"no folder {str(folder)!r}", type(self), self.root, AbsentSplitError)
        return self._training(folder) if split == "train" else self._validation(folder)

    def _training(self, folder: Path) -> LabeledFiles:
        class_folders = subfolders(folder)
        if not class_folders:
            archive = next(folder.glob("n*.tar"), None)
            problem = (
                f"{str(folder)!r} has archives, such as {archive.name}: unpack each into a folder of its name"
                if archive
                else f"no class folders in {str(folder)!r}"
            )
            raise layout_error(problem, type(self), self.root)
        check_class_folders(folder, class_folders, self.synsets.wnids)
        return self._sorted(folder)

    def _validation(self, folder: Path) -> LabeledFiles:
        ground_truth = read_ground_truth(self._devkit("ILSVRC2012_validation_ground_truth.txt"), self.synsets)
        class_folders = subfolders(folder)
        if class_folders:
            check_class_folders(folder, class_folders, self.synsets.wnids)
            source = self._sorted(folder)
            names = [os.fsdecode(path).rpartition("/")[2] for path in source.paths]
        else:
            names = image_names(folder)
        if len(names) != len(ground_truth):
            raise ValueError(
                f"{folder}: must have the {len(ground_truth)} images of the devkit's ground truth, got {len(names)}; "
                "unpack ILSVRC2012_img_val.tar again"
            )
        labels = ground_truth[self._numbers(folder, names, len(ground_truth)) - 1]
        if not class_folders:
            return LabeledFiles(names, labels, root=folder)
        if (wrong := source.labels != labels).any():
            index = int(wrong.argmax())
            actual, expected = (self.synsets.wnids[array[index]] for array in (source.labels, labels))
            raise ValueError(
                f"{folder}: {names[index]} must be in {expected} by the devkit's ground truth, got {actual} "
                f"({int(wrong.sum())} such image(s)); sort the validation images again"
            )
        return source

    def _numbers(self, folder: Path, names: Sequence[str], count: int) -> np.ndarray:
        """Return the numbers in the names of the validation images, 1 to `count`, each once: ``[N]`` int64."""
        matches = [_VAL_NAME.fullmatch(name) for name in names]
        numbers = np.array([int(match[1]) if match else 0 for match in matches])
        if (outside := (numbers < 1) | (numbers > count)).any():
            raise ValueError(
                f"{folder}: images must be named ILSVRC2012_val_00000001.JPEG to ILSVRC2012_val_{count:08d}.JPEG, got "
                f"{names[int(outside.argmax())]!r}, whose class is unknown"
            )
        if len(np.unique(numbers)) < len(numbers):
            duplicate = Counter(numbers.tolist()).most_common(1)[0][0]
            raise ValueError(f"{folder}: images must be unique, got ILSVRC2012_val_{duplicate:08d}.JPEG more than once")
        return numbers

    def _sorted(self, folder: Path) -> LabeledFiles:
        files = images_by_class(folder, self.synsets.wnids)
        labels = np.repeat(np.arange(len(files)), list(map(len, files)))
        return LabeledFiles(np.concatenate(files), labels, root=folder)

    def _devkit(self, name: str) -> Path:
        path = self.root / "ILSVRC2012_devkit_t12" / "data" / name
        if not path.is_file():
            problem = f"root: no file {str(path)!r}; unpack ILSVRC2012_devkit_t12.tar.gz there"
            raise layout_error(problem, type(self), self.root)
        return path


def check_class_folders(folder: Path, class_folders: Sequence[str], wnids: Sequence[str]) -> None:
    """Check that the class folders are named by the WordNet ids of the classes.

    Raises:
        ValueError: They are not.
    """
    if unknown := sorted(set(class_folders) - set(wnids)):
        raise ValueError(f"{folder}: the devkit has no class {', '.join(map(repr, unknown[:5]))}")
    if absent := sorted(set(wnids) - set(class_folders)):
        raise ValueError(
            f"{folder}: {len(absent)} of {len(wnids)} class folders are missing ({', '.join(absent[:5])}"
            f"{', …' if len(absent) > 5 else ''}); use ImageFolder for a subset of ImageNet"
        )


def read_synsets(path: Path) -> Synsets:
    """Read the classes from the devkit's ``meta.mat``: the synsets without children.

    Raises:
        ValueError: The file cannot be read, or a field is missing.
    """
    import scipy.io  # a dependency of scikit-learn; slow to import

    try:
        table = np.atleast_1d(scipy.io.loadmat(path, squeeze_me=True)["synsets"])
        leaves = table[table["num_children"].astype(int) == 0]
        rows = sorted(
            (str(wnid), str(words), int(number))
            for wnid, words, number in zip(leaves["WNID"], leaves["words"], leaves["ILSVRC2012_ID"], strict=True)
        )
    except Exception as error:  # scipy raises ValueError, TypeError, zlib.error, NotImplementedError … for bad files
        raise ValueError(f"{path}: not the devkit's table of synsets ({type(error).__name__}: {error})") from error
    wnids = [wnid for wnid, _, _ in rows]
    label_of_id = {number: label for label, (_, _, number) in enumerate(rows)}
    return Synsets(wnids, _unique_names(wnids, [words for _, words, _ in rows]), label_of_id)


def read_synset_mapping(path: Path) -> Synsets:
    """Read the classes from Kaggle's ``LOC_synset_mapping.txt``, which has a WordNet id and its synonyms per line.

    Raises:
        ValueError: A line has another form, or a class occurs twice; the message names the line.
    """
    words_of = {}
    for line, text in enumerate(read_text(path).splitlines(), start=1):
        wnid, _, words = text.strip().partition(" ")
        if not re.fullmatch(r"n\d{8}", wnid) or not words or wnid in words_of:
            raise ValueError(
                f"{path}, line {line}: must be a class such as 'n01440764 tench, Tinca tinca', got {text!r}"
            )
        words_of[wnid] = words
    wnids = sorted(words_of)
    return Synsets(wnids, _unique_names(wnids, [words_of[wnid] for wnid in wnids]), {})


def _unique_names(wnids: Sequence[str], words: Sequence[str]) -> list[str]:
    """Return the first synonym of each class, followed by the WordNet id where several classes share it."""
    first = [synonyms.split(",")[0].strip() for synonyms in words]
    counts = Counter(first)
    return [name if counts[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(first, wnids, strict=True)]


def read_ground_truth(path: Path, synsets: Synsets) -> np.ndarray:
    """Read the labels of the validation images, in the order of their numbers.

    Args:
        path: List of the devkit with one class number (``ILSVRC2012_ID``) per line.
        synsets: Classes, from the devkit.

    Shape:
        - Output: ``[N]`` int64.

    Raises:
        ValueError: A line is not the number of a class; the message names the line.
    """
    labels = []
    for line, text in enumerate(path.read_text(encoding="ascii", errors="replace").split(), start=1):
        label = synsets.label_of_id.get(int(text)) if text.isdecimal() else None
        if label is None:
            raise ValueError(f"{path}, line {line}: must be the number of a class (ILSVRC2012_ID), got {text!r}")
        labels.append(label)
    return np.array(labels, dtype=np.int64)
