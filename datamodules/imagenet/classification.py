"""ImageNet (ILSVRC2012), as its publishers' archives unpack."""

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
from ..base import LoaderOptionsExceptBatchSize, Unpack, VisionDataModule

_VAL_NAME = re.compile(r"ILSVRC2012_val_(\d{8})\.JPEG", re.IGNORECASE)


class Synsets(NamedTuple):
    """The devkit's classes, in the order of their labels.

    Attributes:
        wnids: WordNet's numbers, sorted; a class's label is its place here.
        names: one a class, each once.
        label_of_id: the devkit's own number of a class (``ILSVRC2012_ID``) to its label; empty without devkit.
    """

    wnids: list[str]
    names: list[str]
    label_of_id: dict[int, int]


class ImageNet(VisionDataModule):
    """ILSVRC2012's classification set: 1.28 million training images, 50,000 for validation, 1,000 classes.

    Expected layout::

        ROOT/ILSVRC2012_devkit_t12/data/meta.mat
        ROOT/ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt
        ROOT/train/nXXXXXXXX/*.JPEG    (ILSVRC2012_img_train.tar, and each archive in it, unpacked)
        ROOT/val/*.JPEG                (ILSVRC2012_img_val.tar unpacked; or sorted, ROOT/val/nXXXXXXXX/*.JPEG)

    Labels are places in the sorted list of WordNet numbers, as torchvision's weights and most others have them; not
    the devkit's own numbers. Names are the first synonym of each class, with the WordNet number in brackets where
    two classes share it (the crane that flies and the crane that lifts). The true classes of the test images are
    not public: the test split here is the validation set, on which papers report.

    For a part of ImageNet, or a copy without devkit, `ImageFolder` reads ``train`` and a sorted ``val``.

    Args:
        root: the data set's folder.
        batch_size: Training samples per step and device.
        **kwargs: Loader options of `VisionDataModule`: ``eval_batch_size``, ``seed``, ``train_transform``, ….

    Raises:
        FileNotFoundError: when files are not there; the message shows the expected tree and what was found.
        ValueError: for class folders that the devkit does not know or that are missing, and for validation images
            that do not agree with the ground truth in number, name or folder.

    Batches are `ClassificationBatch`.
    """

    def __init__(
        self,
        root: str,
        batch_size: int = 64,
        **kwargs: Unpack[LoaderOptionsExceptBatchSize],
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self.root = Path(root).expanduser()
        self._known: Synsets | None = None

    @property
    def synsets(self) -> Synsets:
        """The devkit's classes."""
        if self._known is None:
            self._known = read_synsets(self._devkit("meta.mat"))
        return self._known

    @property
    def class_names(self) -> list[str]:
        """The first synonym of each class, made unique."""
        return list(self.synsets.names)

    def make_source(self, split: str) -> LabeledFiles:
        """The files of a split; ``test`` is ``val``."""
        folder = self.root / ("train" if split == "train" else "val")
        if not folder.is_dir():
            raise AbsentSplitError(str(self._missing(f"no folder {str(folder)!r}")))
        return self._training(folder) if split == "train" else self._validation(folder)

    def _training(self, folder: Path) -> LabeledFiles:
        found = subfolders(folder)
        if not found:
            packed = next(folder.glob("n*.tar"), None)
            raise self._missing(
                f"{str(folder)!r} holds archives, such as {packed.name}: unpack each into a folder of its name"
                if packed
                else f"no class folders in {str(folder)!r}"
            )
        check_class_folders(folder, found, self.synsets.wnids)
        return self._sorted(folder)

    def _validation(self, folder: Path) -> LabeledFiles:
        truth = read_ground_truth(self._devkit("ILSVRC2012_validation_ground_truth.txt"), self.synsets)
        found = subfolders(folder)
        if found:
            check_class_folders(folder, found, self.synsets.wnids)
            source = self._sorted(folder)
            names = [os.fsdecode(path).rpartition("/")[2] for path in source.paths]
        else:
            names = image_names(folder)
        if len(names) != len(truth):
            raise ValueError(
                f"{folder}: {len(names)} images, but the devkit's ground truth is of {len(truth)}: unpack "
                "ILSVRC2012_img_val.tar anew"
            )
        labels = truth[self._numbers(folder, names, len(truth)) - 1]
        if not found:
            return LabeledFiles(names, labels, root=folder)
        if (wrong := source.labels != labels).any():
            place = int(wrong.argmax())
            given, true = (self.synsets.wnids[array[place]] for array in (source.labels, labels))
            raise ValueError(
                f"{folder}: {names[place]} lies in {given}, but is of {true} by the devkit's ground truth "
                f"({int(wrong.sum())} such image(s)): sort the validation images anew"
            )
        return source

    def _numbers(self, folder: Path, names: Sequence[str], count: int) -> np.ndarray:
        """The numbers in the validation images' names, 1 to `count`, each once."""
        matches = [_VAL_NAME.fullmatch(name) for name in names]
        numbers = np.array([int(match[1]) if match else 0 for match in matches])
        if (outside := (numbers < 1) | (numbers > count)).any():
            raise ValueError(
                f"{folder}: {names[int(outside.argmax())]!r} is not named ILSVRC2012_val_00000001.JPEG to "
                f"ILSVRC2012_val_{count:08d}.JPEG, so its class cannot be looked up"
            )
        if len(np.unique(numbers)) < len(numbers):
            twice = Counter(numbers.tolist()).most_common(1)[0][0]
            raise ValueError(f"{folder}: ILSVRC2012_val_{twice:08d}.JPEG is there more than once")
        return numbers

    def _sorted(self, folder: Path) -> LabeledFiles:
        files = images_by_class(folder, self.synsets.wnids)
        labels = np.repeat(np.arange(len(files)), [len(own) for own in files])
        return LabeledFiles(np.concatenate(files), labels, root=folder)

    def _devkit(self, name: str) -> Path:
        path = self.root / "ILSVRC2012_devkit_t12" / "data" / name
        if not path.is_file():
            raise self._missing(
                f"data.init_args.root: no file {str(path)!r}; ILSVRC2012_devkit_t12.tar.gz, unpacked, has it"
            )
        return path

    def _missing(self, problem: str) -> FileNotFoundError:
        return layout_error(problem, type(self), self.root)


def check_class_folders(folder: Path, found: Sequence[str], known: Sequence[str]) -> None:
    """Compare the class folders that there are with the WordNet numbers of the classes.

    Raises:
        ValueError: when they differ.
    """
    if strange := sorted(set(found) - set(known)):
        raise ValueError(f"{folder}: the devkit knows no class {', '.join(map(repr, strange[:5]))}")
    if absent := sorted(set(known) - set(found)):
        raise ValueError(
            f"{folder}: {len(absent)} of {len(known)} class folders are missing ({', '.join(absent[:5])}"
            f"{', …' if len(absent) > 5 else ''}); a part of ImageNet is read by ImageFolder"
        )


def read_synsets(path: Path) -> Synsets:
    """The classes of the devkit's ``meta.mat``: the synsets without children.

    Raises:
        ValueError: when it cannot be read, or lacks a field.
    """
    import scipy.io  # comes with scikit-learn; slow to import

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
    """The classes of Kaggle's ``LOC_synset_mapping.txt``: a WordNet number and its words a line.

    Raises:
        ValueError: for another line; the message names it.
    """
    words_of = {}
    for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        wnid, _, words = text.strip().partition(" ")
        if not re.fullmatch(r"n\d{8}", wnid) or not words or wnid in words_of:
            raise ValueError(f"{path}, line {line}: {text!r} is not a class, such as 'n01440764 tench, Tinca tinca'")
        words_of[wnid] = words
    wnids = sorted(words_of)
    return Synsets(wnids, _unique_names(wnids, [words_of[wnid] for wnid in wnids]), {})


def _unique_names(wnids: Sequence[str], words: Sequence[str]) -> list[str]:
    first = [synonyms.split(",")[0].strip() for synonyms in words]
    times = Counter(first)
    return [name if times[name] == 1 else f"{name} ({wnid})" for name, wnid in zip(first, wnids, strict=True)]


def read_ground_truth(path: Path, synsets: Synsets) -> np.ndarray:
    """The labels of the validation images, in the order of their numbers.

    Args:
        path: the devkit's list, one of its class numbers a line.
        synsets: the devkit's classes.

    Shape:
        - Output: ``[N]`` int64.

    Raises:
        ValueError: for a line that is no class's number; the message names the line.
    """
    labels = []
    for line, text in enumerate(path.read_text(encoding="ascii", errors="replace").split(), start=1):
        label = synsets.label_of_id.get(int(text)) if text.isdecimal() else None
        if label is None:
            raise ValueError(f"{path}, line {line}: {text!r} is not the number of a class (ILSVRC2012_ID)")
        labels.append(label)
    return np.array(labels, dtype=np.int64)
