"""CIFAR-10 and CIFAR-100, read from their publisher's files: the Python version or the binary one."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_warn

from ..annotations.text_files import read_text
from .in_memory import ImagesAndLabels, InMemoryDataModule

_PIXELS = 3 * 32 * 32
# the function by which numpy's pickles create an empty array, in the module where this version of numpy keeps it
_RECONSTRUCT: Any = np.empty(0).__reduce__()[0]


class CIFAR10(InMemoryDataModule):
    """CIFAR-10: 50,000 and 10,000 color photographs of 32 x 32 pixels in ten classes.

    Expected layout, the publisher's Python version or the binary one, unpacked::

        ROOT/cifar-10-batches-py/data_batch_1 … data_batch_5, test_batch, batches.meta
            (cifar-10-python.tar.gz, unpacked)
        ROOT/cifar-10-batches-bin/data_batch_1.bin … data_batch_5.bin, test_batch.bin, batches.meta.txt
            (cifar-10-binary.tar.gz, unpacked)

    ROOT may also be that folder itself. The Python version is pickled; only arrays, lists, numbers and text are loaded
    from the pickles (`load_arrays`), so a file from an untrusted source cannot run code. A warning lists the files that
    have more or fewer images than the publisher's. For arguments and errors see `InMemoryDataModule`.

    Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009.
    """

    dataset_name = "CIFAR10"
    published_classes: ClassVar[int] = 10
    folders: ClassVar[tuple[str, str]] = ("cifar-10-batches-py", "cifar-10-batches-bin")
    training: ClassVar[tuple[str, ...]] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test: ClassVar[str] = "test_batch"
    meta: ClassVar[tuple[str, str]] = ("batches.meta", "batches.meta.txt")
    # keys of the labels and of the class names in the Python version
    keys: ClassVar[tuple[str, str]] = ("labels", "label_names")
    # label bytes before the pixels of a record in the binary version; the last of them is the class
    label_bytes: ClassVar[int] = 1
    # images per training file and in the test file, as published
    file_lengths: ClassVar[tuple[int, int]] = (10_000, 10_000)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, from the publisher's file beside the images."""
        folder, binary = self.find()
        path = folder / self.meta[binary]
        if binary:
            names = read_text(path).split()
        else:
            names = self._entry(path, load_arrays(path), self.keys[1])
        if len(names) != self.published_classes:
            raise ValueError(
                f"{path}: {self.dataset_name} must have {self.published_classes} class names, got {len(names)}"
            )
        return [str(name) for name in names]

    def find(self) -> tuple[Path, bool]:
        """Return the folder of the files, and whether they are the binary version."""
        for binary, name in enumerate(self.folders):
            for folder in (self.root / name, self.root):
                if folder.name != name or not folder.is_dir():
                    continue
                suffix = ".bin" if binary else ""
                files = [*(f"{part}{suffix}" for part in (*self.training, self.test)), self.meta[binary]]
                if absent := [file for file in files if not (folder / file).is_file()]:
                    raise self.missing(f"{str(folder)!r} has no {', '.join(absent)}")
                return folder, bool(binary)
        raise self.missing(f"root: no {' or '.join(self.folders)} in {str(self.root)!r}")

    def read(self, training: bool) -> ImagesAndLabels:
        """Read the official training or test set: images ``[N, 32, 32, 3]`` uint8 and labels ``[N]`` int64."""
        folder, binary = self.find()
        parts = self.training if training else (self.test,)
        read: Callable[[Path], ImagesAndLabels] = self._read_binary if binary else self._read_pickle
        files = [folder / f"{part}{'.bin' if binary else ''}" for part in parts]
        batches = [read(file) for file in files]
        self._compare_lengths(files, [len(labels) for _, labels in batches], self.file_lengths[not training])
        images = np.empty((sum(len(labels) for _, labels in batches), 32, 32, 3), np.uint8)
        start = 0
        for planes, labels in batches:  # planes [N, 3072]: all red, all green, all blue, each row by row
            images[start : start + len(labels)] = planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            start += len(labels)
        return images, np.concatenate([labels for _, labels in batches])

    @staticmethod
    def _compare_lengths(files: Sequence[Path], lengths: Sequence[int], expected: int) -> None:
        """Warn once about files with a wrong number of images, such as files truncated between two images."""
        wrong = [f"{file.name} {count:,}" for file, count in zip(files, lengths, strict=True) if count != expected]
        if wrong:
            rank_zero_warn(
                f"{len(wrong)} of {len(files)} files in {str(files[0].parent)!r} do not have the publisher's "
                f"{expected:,} images: {', '.join(wrong)}; download them again if you did not change them"
            )

    def _read_pickle(self, path: Path) -> ImagesAndLabels:
        """Read a file of the Python version: planes ``[N, 3072]`` uint8 and labels ``[N]`` int64."""
        content = load_arrays(path)
        planes, labels = self._entry(path, content, "data"), self._entry(path, content, self.keys[0])
        if not isinstance(planes, np.ndarray) or planes.dtype != np.uint8 or planes.shape[1:] != (_PIXELS,):
            kind = f"{planes.dtype} {list(planes.shape)}" if isinstance(planes, np.ndarray) else type(planes).__name__
            raise ValueError(f"{path}: 'data' must be uint8 [N, {_PIXELS}], got {kind}")
        if len(planes) != len(labels):
            raise ValueError(f"{path}: {len(planes)} images, but {len(labels)} labels")
        return planes, self._check_labels(path, np.asarray(labels))

    def _read_binary(self, path: Path) -> ImagesAndLabels:
        """Read a file of the binary version: planes ``[N, 3072]`` uint8 and labels ``[N]`` int64."""
        data = np.fromfile(path, np.uint8)
        record = self.label_bytes + _PIXELS
        if not len(data) or len(data) % record:
            images = -(-max(len(data), 1) // record)
            raise ValueError(
                f"{path}: truncated file: must have {images * record} bytes for {images} images of {record}, got "
                f"{len(data)}; download it again"
            )
        records = data.reshape(-1, record)
        return records[:, self.label_bytes :], self._check_labels(path, records[:, self.label_bytes - 1])

    def _check_labels(self, path: Path, labels: np.ndarray) -> np.ndarray:
        """Return labels ``[N]`` as int64.

        Raises:
            ValueError: They are not whole numbers, or one is out of range.
        """
        if labels.ndim != 1 or labels.dtype.kind not in "iu":
            raise ValueError(f"{path}: labels must be a list of whole numbers, got {labels.dtype}")
        wrong = (labels < 0) | (labels >= self.published_classes)
        if wrong.any():
            index = int(wrong.argmax())
            raise ValueError(
                f"{path}: labels must be 0 to {self.published_classes - 1}, got {labels[index]} for image {index}"
            )
        return labels.astype(np.int64)

    def _entry(self, path: Path, content: Any, key: str) -> Any:
        if not isinstance(content, dict) or key not in content:
            keys = ", ".join(map(repr, content)) if isinstance(content, dict) else type(content).__name__
            raise ValueError(f"{path}: a file of {self.dataset_name} must have {key!r}, got {keys}")
        return content[key]


class CIFAR100(CIFAR10):
    """CIFAR-100: 50,000 and 10,000 color photographs of 32 x 32 pixels in a hundred classes (the fine labels).

    Expected layout, the publisher's Python version or the binary one, unpacked::

        ROOT/cifar-100-python/train, test, meta                               (cifar-100-python.tar.gz, unpacked)
        ROOT/cifar-100-binary/train.bin, test.bin, fine_label_names.txt       (cifar-100-binary.tar.gz, unpacked)

    Otherwise as `CIFAR10`.
    """

    dataset_name = "CIFAR100"
    published_classes = 100
    folders = ("cifar-100-python", "cifar-100-binary")
    training = ("train",)
    test = "test"
    meta = ("meta", "fine_label_names.txt")
    keys = ("fine_labels", "fine_label_names")
    label_bytes = 2  # coarse, fine
    file_lengths = (50_000, 10_000)


class _ArrayUnpickler(pickle.Unpickler):
    """Load numbers, text, lists, dicts and numpy arrays; reject everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return _RECONSTRUCT
        if (module, name) == ("numpy", "ndarray"):
            return np.ndarray
        if (module, name) == ("numpy", "dtype"):
            return lambda name, align=False, copy=False: np.dtype(name, align=bool(align), copy=bool(copy))
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes for Python 2
            return lambda text, encoding: text.encode("latin1" if encoding == "latin1" else "ascii")
        raise pickle.UnpicklingError(f"must not load {module}.{name}, which an array of numbers does not need")


def load_arrays(path: Path) -> Any:
    """Unpickle a file of Python 2 or 3 that has only containers, numbers, text and numpy arrays.

    Args:
        path: Pickle file.

    Returns:
        The content; strings of Python 2 are decoded as latin-1.

    Raises:
        ValueError: The file is truncated or damaged, or the pickle refers to anything else, which is rejected before it
            is imported or run.
    """
    with path.open("rb") as file:
        try:
            return _ArrayUnpickler(file, encoding="latin1").load()
        except Exception as error:  # a damaged pickle can raise almost any exception
            size = path.stat().st_size
            reason = str(error).strip() or type(error).__name__
            raise ValueError(f"{path}: must be a pickle of arrays, got {size} bytes that are not ({reason})") from error
