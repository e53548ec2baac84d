"""MNIST and Fashion-MNIST, read from their publishers' IDX files."""

import math
import struct
import zlib
from pathlib import Path

import numpy as np

from .in_memory import ImagesAndLabels, InMemoryDataModule

_UINT8 = 0x08  # IDX type code of unsigned bytes


class MNIST(InMemoryDataModule):
    """MNIST: 60,000 and 10,000 handwritten digits of 28 x 28 pixels, gray, returned with three equal channels.

    Expected layout::

        ROOT/train-images-idx3-ubyte[.gz]   ROOT/train-labels-idx1-ubyte[.gz]
        ROOT/t10k-images-idx3-ubyte[.gz]    ROOT/t10k-labels-idx1-ubyte[.gz]
        (or these four in ROOT/MNIST/raw/ or ROOT/FashionMNIST/raw/, where torchvision puts them)

    For arguments and errors see `InMemoryDataModule`.

    Reference: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", 1998. There,
    images are 32 x 32 with the digit in the central 28 x 28: add ``albumentations.Pad(padding=2)`` for LeNet-5.
    """

    dataset_name = "MNIST"

    @property
    def class_names(self) -> list[str]:
        """Names of the classes: the digits ``"0"`` to ``"9"``."""
        return [str(digit) for digit in range(10)]

    def find(self) -> dict[str, Path]:
        """Return the paths of the four files by their names without suffix."""
        names = [f"{part}-{kind}" for part in ("train", "t10k") for kind in ("images-idx3-ubyte", "labels-idx1-ubyte")]
        for folder in (self.root, self.root / self.dataset_name / "raw"):
            files = {name: path for name in names for path in (folder / f"{name}.gz", folder / name) if path.is_file()}
            if len(files) == len(names):
                return files
            if files:
                raise self.missing(f"{str(folder)!r} has no {', '.join(name for name in names if name not in files)}")
        problem = "no folder" if not self.root.is_dir() else f"no {self.dataset_name} files in"
        raise self.missing(f"root: {problem} {str(self.root)!r}")

    def read(self, training: bool) -> ImagesAndLabels:
        """Read the official training or test set: images ``[N, 28, 28]`` uint8 and labels ``[N]`` int64."""
        part = "train" if training else "t10k"
        files = self.find()
        image_file, label_file = files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"]
        images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
        if len(images) != len(labels):
            raise ValueError(f"{image_file} has {len(images)} images, but {label_file} has {len(labels)} labels")
        if len(labels) and labels.max() >= len(self.class_names):
            index = int((labels >= len(self.class_names)).argmax())
            raise ValueError(f"{label_file}: labels must be 0 to 9, got {labels[index]} for image {index}")
        return images, labels.astype(np.int64)


class FashionMNIST(MNIST):
    """Fashion-MNIST: 60,000 and 10,000 images of clothes, 28 x 28 pixels, gray, returned with three equal channels.

    The files have the same names as those of `MNIST`. For arguments and errors see `InMemoryDataModule`.

    Reference: Xiao, Rasul, Vollgraf, "Fashion-MNIST", 2017, arXiv:1708.07747.
    """

    dataset_name = "FashionMNIST"

    @property
    def class_names(self) -> list[str]:
        """Names of the ten kinds of clothes, in the publisher's order and spelling."""
        first = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"]
        return [*first, "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzipped.

    The format has two zero bytes, a type code, the number of dimensions, the size of each dimension as a big-endian
    32-bit number, and then the bytes, with the last dimension varying fastest.

    Args:
        path: IDX file; gzip is recognized by its content.
        dimensions: Number of dimensions D that the file must have.

    Shape:
        - Output: ``[N, …]`` uint8, D dimensions with the sizes in the header.

    Raises:
        ValueError: The file has another type or number of dimensions, or is shorter or longer than its header says;
            the message has the expected and the actual number of bytes.
    """
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(path, data)
    start = 4 + 4 * dimensions
    magic = bytes((0, 0, _UINT8, dimensions))
    if data[:4] != magic[: len(data)]:
        raise ValueError(f"{path}: an IDX file must begin with {magic.hex(' ')}, got {data[:4].hex(' ')}")
    if len(data) < start:
        raise ValueError(f"{path}: the header must have {start} bytes, got {len(data)}; download the file again")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    expected = start + math.prod(shape)
    if len(data) != expected:
        problem = "truncated file" if len(data) < expected else "file longer than its header says"
        sizes = "x".join(map(str, shape))
        raise ValueError(
            f"{path}: {problem}: must have {expected} bytes for {sizes}, got {len(data)}; download it again"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _gunzip(path: Path, data: bytes) -> bytes:
    """Decompress as much as possible, so that the size of a truncated file can be reported; reject a damaged one."""
    unpacked = bytearray()
    while data:
        stream = zlib.decompressobj(wbits=31)
        try:
            unpacked += stream.decompress(data)
        except zlib.error as error:
            raise ValueError(f"{path}: damaged gzip file ({error}); download it again") from error
        data = stream.unused_data
    return bytes(unpacked)
