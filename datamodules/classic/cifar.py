"""CIFAR-10 and CIFAR-100, from their publisher's files: the Python version or the binary one."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from .arrays import InMemoryDataModule, Labelled

_PIXELS = 3 * 32 * 32
# the function that numpy's own pickles name to make an empty array, under whichever module this version keeps it
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]


class CIFAR10(InMemoryDataModule):
    """CIFAR-10: 50,000 and 10,000 photographs, 32 x 32, of ten kinds of things.

    Expected layout, the publisher's Python version or the binary one, unpacked::

        ROOT/cifar-10-batches-py/data_batch_1 … data_batch_5, test_batch, batches.meta
        ROOT/cifar-10-batches-bin/data_batch_1.bin … data_batch_5.bin, test_batch.bin, batches.meta.txt

    ROOT may also be that folder itself. The Python version is pickled; here only arrays, lists, numbers and text
    are admitted from a pickle (`load_arrays`), so that a file from elsewhere cannot run code. Files that hold more or
    fewer images than the publisher's are read with one warning, which counts and names them. Arguments and errors
    are those of `InMemoryDataModule`.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    dataset_name = "CIFAR10"
    num_classes: ClassVar[int] = 10
    folders: ClassVar[tuple[str, str]] = ("cifar-10-batches-py", "cifar-10-batches-bin")
    training: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test: ClassVar[str] = "test_batch"
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "batches.meta.txt")
    # under which keys the Python version keeps labels and names
    keys: ClassVar[tuple[str, str]] = ("labels", "label_names")
    # the bytes before the pixels of a record in the binary version; the class is the last of them
    label_bytes: ClassVar[int] = 1
    # images in a training file and in the test file, as published
    file_lengths: ClassVar[tuple[int, int]] = (10_000, 10_000)

    @property
    def class_names(self) -> list[str]:
        """The publisher's names, from the file beside the images."""
        folder, binary = self.find()
        path = folder / self.meta[binary]
        if binary:
            names = path.read_text(encoding="utf-8").split()
        else:
            names = self._entry(path, load_arrays(path), self.keys[1])
        if len(names) != self.num_classes:
            raise ValueError(f"{path}: {len(names)} class names, where {self.dataset_name} has {self.num_classes}")
        return [str(name) for name in names]

    def find(self) -> tuple[Path, bool]:
        """The folder of the files, and whether they are the binary version."""
        for binary, name in enumerate(self.folders):
            for folder in (self.root / name, self.root):
                if folder.name != name or not folder.is_dir():
                    continue
                suffix = ".bin" if binary else ""
                files = [*(f"{part}{suffix}" for part in (*self.training, self.test)), self.meta[binary]]
                if absent := [file for file in files if not (folder / file).is_file()]:
                    raise self.missing(f"{str(folder)!r} has no {', '.join(absent)}")
                return folder, bool(binary)
        raise self.missing(f"data.init_args.root: no {' or '.join(self.folders)} in {str(self.root)!r}")

    def read(self, training: bool) -> Labelled:
        """The official training or test set."""
        folder, binary = self.find()
        parts = self.training if training else (self.test,)
        read: Callable[[Path], Labelled] = self._read_binary if binary else self._read_pickle
        files = [folder / f"{part}{'.bin' if binary else ''}" for part in parts]
        read_parts = [read(file) for file in files]
        self._compare_lengths(files, [len(labels) for _, labels in read_parts], self.file_lengths[not training])
        images = np.empty((sum(len(labels) for _, labels in read_parts), 32, 32, 3), np.uint8)
        start = 0
        for planes, labels in read_parts:  # planes [N, 3072]: all red, all green, all blue, each row by row
            images[start : start + len(labels)] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            start += len(labels)
        return images, np.concatenate([labels for _, labels in read_parts])

    @staticmethod
    def _compare_lengths(files: Sequence[Path], found: Sequence[int], expected: int) -> None:
        """Warn once of files that hold other than `expected` images, as files cut between two images do."""
        others = [f"{file.name} {count:,}" for file, count in zip(files, found, strict=True) if count != expected]
        if others:
            rank_zero_warn(
                f"{files[0].parent}: {len(others)} of {len(files)} files do not hold the {expected:,} images that the "
                f"publisher's do: {', '.join(others)}; unless they are your own, fetch them anew"
            )

    def _read_pickle(self, path: Path) -> Labelled:
        content = load_arrays(path)
        planes, labels = self._entry(path, content, "data"), self._entry(path, content, self.keys[0])
        if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.shape[1:] != (_PIXELS,):
            found = f"{planes.dtype} {list(planes.shape)}" if isinstance(planes, np.ndarray) else type(planes).__name__
            raise ValueError(f"{path}: 'data' is {found}, not uint8 [N, {_PIXELS}]")
        if len(planes) != len(labels):
            raise ValueError(f"{path}: {len(planes)} images, but {len(labels)} labels")
        return planes, self._checked(path, np.asarray(labels))

    def _read_binary(self, path: Path) -> Labelled:
        data = np.fromfile(path, np.uint8)
        record = self.label_bytes + _PIXELS
        if not len(data) or len(data) % record:
            whole = -(-max(len(data), 1) // record)
            raise ValueError(
                f"{path}: the file is truncated: {whole * record} bytes expected for {whole} images of {record}, "
                f"{len(data)} found; fetch it anew"
            )
        records = data.reshape(-1, record)
        return records[:, self.label_bytes :], self._checked(path, records[:, self.label_bytes - 1])

    def _checked(self, path: Path, labels: np.ndarray) -> np.ndarray:
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"{path}: the labels are not a list of whole numbers")
        wrong = (labels < 0) | (labels >= self.num_classes)
        if wrong.any():
            place = int(wrong.argmax())
            raise ValueError(f"{path}: label {labels[place]} of image {place}; labels are 0 to {self.num_classes - 1}")
        return labels.astype(np.int64)

    def _entry(self, path: Path, content: Any, key: str) -> Any:
        if not isinstance(content, dict) or key not in content:
            found = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{path}: no {key!r} in it, which {self.dataset_name}'s files have; it holds {found}")
        return content[key]


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 and 10,000 photographs, 32 x 32, of a hundred kinds of things (the fine labels).

    Expected layout, the publisher's Python version or the binary one, unpacked::

        ROOT/cifar-100-python/train, test, meta
        ROOT/cifar-100-binary/train.bin, test.bin, fine_label_names.txt

    All else is as in `CIFAR10`.
    """

    dataset_name = "CIFAR100"
    num_classes = 100
    folders = ("cifar-100-python", "cifar-100-binary")
    training = ("train",)
    test = "test"
    meta = ("meta", "fine_label_names.txt")
    keys = ("fine_labels", "fine_label_names")
    label_bytes = 2  # coarse, fine
    file_lengths = (50_000, 10_000)


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numbers, text, lists, dicts and numpy arrays, and refuses to look up anything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _RECONSTRUCT
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return _dtype
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array of numbers needs: refused")


def _dtype(name: str, align: object = False, copy: object = False) -> np.dtype:
    return np.dtype(name, align=bool(align), copy=bool(copy))


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1" if encoding == "latin1" else "ascii")


def load_arrays(path: Path) -> Any:
    """Unpickle a file of Python 2 or 3 that holds nothing but containers, numbers, text and numpy arrays.

    Args:
        path: the file.

    Returns:
        Its content; Python 2's strings become text, as latin-1.

    Raises:
        ValueError: for a truncated or damaged file, and for a pickle that asks for anything else: it is refused
            before that is imported or run.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can end in almost any exception
            size = path.stat().st_size
            reason = str(error).strip() or type(error).__name__
            raise ValueError(f"{path}: cannot be read as a pickle of arrays, {size} bytes found ({reason})") from error
