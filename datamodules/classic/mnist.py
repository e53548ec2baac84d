"""MNIST and Fashion-MNIST, from their publishers' IDX files."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .arrays import InMemoryDataModule, Labelled

_UINT8 = 0x08  # IDX's code for unsigned bytes


class MNIST(InMemoryDataModule):
    """MNIST: 60,000 and 10,000 handwritten digits, 28 x 28, gray; given as three equal channels.

    Expected layout::

        ROOT/train-images-idx3-ubyte[.gz]   ROOT/train-labels-idx1-ubyte[.gz]
        ROOT/t10k-images-idx3-ubyte[.gz]    ROOT/t10k-labels-idx1-ubyte[.gz]
        (or these four in ROOT/MNIST/raw/, where torchvision puts them)

    Arguments and errors are those of `InMemoryDataModule`.

    Reference: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998. There
    the images are 32 x 32, the digits in a field of 28: add ``albumentations.Pad(padding=2)`` for LeNet-5.
    """

    dataset_name = "MNIST"

    @property
    def class_names(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(10)]

    def find(self) -> dict[str, Path]:
        """The four files by their names without suffix."""
        names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        folders = [self.root, self.root / self.dataset_name / "raw"]
        for folder in folders:
            found = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.is_file()}
            if len(found) == len(names):
                return found
            if found:
                absent = ", ".join(name for name in names if name not in found)
                raise self.missing(f"{str(folder)!r} has no {absent}")
        where = "no folder" if not self.root.is_dir() else f"no {self.dataset_name} files in"
        raise self.missing(f"data.init_args.root: {where} {str(self.root)!r}")

    def read(self, training: bool) -> Labelled:
        """The official training or test set."""
        part = "train" if training else "t10k"
        files = self.find()
        image_file, label_file = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
        if len(images) != len(labels):
            raise ValueError(f"{image_file} has {len(images)} images, but {label_file} has {len(labels)} labels")
        if len(labels) and labels.max() >= len(self.class_names):
            place = int((labels >= len(self.class_names)).argmax())
            raise ValueError(f"{label_file}: label {labels[place]} of image {place}; labels are 0 to 9")
        return images, labels.astype(np.int64)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 and 10,000 pictures of clothes, 28 x 28, gray; given as three equal channels.

    Expected layout::

        ROOT/train-images-idx3-ubyte[.gz]   ROOT/train-labels-idx1-ubyte[.gz]
        ROOT/t10k-images-idx3-ubyte[.gz]    ROOT/t10k-labels-idx1-ubyte[.gz]
        (or these four in ROOT/FashionMNIST/raw/, where torchvision puts them)

    Arguments and errors are those of `InMemoryDataModule`.

    Reference: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """

    dataset_name = "FashionMNIST"

    @property
    def class_names(self) -> list[str]:
        """The ten kinds of clothes, in the publisher's order and words."""
        first = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
        return [*first, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """An IDX file of unsigned bytes, plain or gzipped.

    The format: two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit number,
    then the bytes, last dimension fastest.

    Args:
        path: the file; gzip is known by its content.
        dimensions: how many it must have.

    Returns:
        The array, uint8.

    Raises:
        ValueError: for another type or number of dimensions, and for a file that is shorter or longer than its
            header says; the message names the file, the bytes expected and the bytes found.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(path, data)
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, _UINT8, dimensions))
    if data[:4] != magic[: len(data)]:
        raise ValueError(f"{path}: begins with {data[:4].hex(' ')}, but an IDX file of this kind with {magic.hex(' ')}")
    if len(data) < start:
        raise ValueError(f"{path}: ends within its header: {start} bytes expected, {len(data)} found")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        what = "the file is truncated" if len(data) < expected else "there is more than the header says"
        sizes = "x".join(map(str, shape))
        raise ValueError(f"{path}: {what}: {expected} bytes expected for {sizes}, {len(data)} found; fetch it anew")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _gunzip(path: Path, data: bytes) -> bytes:
    """Unpack as much as is there, so that a truncated file can be measured; one that is damaged is refused."""
    unpacked = bytearray()
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            unpacked += stream.decompress(data)
        except zlib.error as error:
            raise ValueError(f"{path}: damaged gzip file ({error}); fetch it anew") from error
        data = stream.unused_data
    return bytes(unpacked)
