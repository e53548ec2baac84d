"""Small MNIST, CIFAR and ImageNet datasets in the publishers' formats, byte by byte where the format is binary."""

import gzip
import struct
from pathlib import Path

import numpy as np
import scipy.io

from striate.tests.helpers.fixtures import noisy_image, write_image

# -- MNIST -------------------------------------------------------------------------------------------


def idx_bytes(array: np.ndarray) -> bytes:
    """Return an array in the IDX format, as its publisher describes it."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return noise images ``[N, 28, 28]`` and their labels, each class equally often."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, 28, 28), dtype=np.uint8), np.arange(count) % 10


def write_mnist(folder: Path, train: int = 100, test: int = 20, packed: bool = False) -> None:
    """Write the four files; training images are `digits(train, 0)`, test images `digits(test, 1)`."""
    folder.mkdir(parents=True, exist_ok=True)
    for part, (images, labels) in {"train": digits(train, 0), "t10k": digits(test, 1)}.items():
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx_bytes(array)
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(data))
            else:
                (folder / name).write_bytes(data)


# -- CIFAR -------------------------------------------------------------------------------------------


def _string(data: bytes) -> bytes:
    return b"U" + bytes([len(data)]) + data if len(data) < 256 else b"T" + struct.pack("<i", len(data)) + data


def _list(items: list[bytes]) -> bytes:
    return b"](" + b"".join(items) + b"e"


def _number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _array(array: np.ndarray) -> bytes:
    shape = _number(array.shape[0]) + _number(array.shape[1]) + b"\x86"
    dtype = b"cnumpy\ndtype\n" + _string(b"u1") + b"K\x00K\x01\x87R(K\x03" + _string(b"|") + b"NNN" + _number(-1) * 2
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _string(b"b") + b"\x87R"
    return empty + b"(K\x01" + shape + dtype + b"K\x00tb\x89" + _string(array.tobytes()) + b"tb"


def python2_pickle(content: dict) -> bytes:
    """Pickle a dict of uint8 matrices, lists of numbers and lists of text as Python 2 with the numpy of 2009 did."""
    out = b"\x80\x02}("
    for key, value in content.items():
        out += _string(key.encode())
        if isinstance(value, np.ndarray):
            out += _array(value)
        else:
            out += _list([_number(v) if isinstance(v, int) else _string(v.encode()) for v in value])
    return out + b"u."


def planes(count: int, seed: int) -> np.ndarray:
    """Return images as CIFAR stores them: ``[N, 3072]``, red, then green, then blue."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


CIFAR10_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
CIFAR100_NAMES = [f"fine{number:02d}" for number in range(100)]


def write_cifar10(root: Path, binary: bool = False, count: int = 20) -> Path:
    """Write five batches and a test batch; batch `b` is `planes(count, b)`, the test batch `planes(count, 6)`."""
    folder = root / ("cifar-10-batches-bin" if binary else "cifar-10-batches-py")
    folder.mkdir(parents=True)
    labels = [(3 * number) % 10 for number in range(count)]
    for seed, name in enumerate([*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"], start=1):
        data = planes(count, seed)
        if binary:
            records = np.hstack([np.array(labels, np.uint8)[:, None], data])
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            content = {"batch_label": [name], "labels": labels, "data": data, "filenames": ["a.png"] * count}
            (folder / name).write_bytes(python2_pickle(content))
    if binary:
        (folder / "batches.meta.txt").write_text("\n".join(CIFAR10_NAMES) + "\n\n")
    else:
        (folder / "batches.meta").write_bytes(python2_pickle({"label_names": CIFAR10_NAMES, "num_vis": [3072]}))
    return folder


def write_cifar100(root: Path, binary: bool = False, count: int = 200) -> Path:
    """Write ``train``, `planes(count, 1)`, and ``test``, `planes(count, 2)`; coarse labels are a fifth of fine ones."""
    folder = root / ("cifar-100-binary" if binary else "cifar-100-python")
    folder.mkdir(parents=True)
    fine = [(7 * number) % 100 for number in range(count)]
    coarse = [label // 5 for label in fine]
    for seed, name in ((1, "train"), (2, "test")):
        data = planes(count, seed)
        if binary:
            records = np.hstack([np.array([coarse, fine], np.uint8).T, data])
            (folder / f"{name}.bin").write_bytes(records.tobytes())
        else:
            content = {"data": data, "coarse_labels": coarse, "fine_labels": fine}
            (folder / name).write_bytes(python2_pickle(content))
    if binary:
        (folder / "fine_label_names.txt").write_text("\n".join(CIFAR100_NAMES) + "\n")
    else:
        (folder / "meta").write_bytes(python2_pickle({"fine_label_names": CIFAR100_NAMES}))
    return folder


# -- ImageNet ----------------------------------------------------------------------------------------

# number in the devkit, WordNet id, synonyms, number of children; the last synset is not a class
SYNSETS = [
    (1, "n02012849", "crane", 0),
    (2, "n01440764", "tench, Tinca tinca", 0),
    (3, "n03126707", "crane, hoist", 0),
    (4, "n00001930", "physical entity", 3),
]
GROUND_TRUTH = [3, 1, 2, 2, 3]  # numbers in the devkit of the five validation images
VAL_WNIDS = ["n03126707", "n02012849", "n01440764", "n01440764", "n03126707"]


def write_devkit(root: Path) -> Path:
    """Write ``ILSVRC2012_devkit_t12`` with three classes, as MATLAB saves it."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    table = np.array([[(a, b, c, "a thing", d)] for a, b, c, d in SYNSETS], dtype=kinds)
    scipy.io.savemat(data / "meta.mat", {"synsets": table})
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in GROUND_TRUTH))
    return data


def write_imagenet(root: Path, val_sorted: bool = False, per_class: int = 2) -> None:
    """Write the devkit, `per_class` training images per class, and five validation images, flat or sorted."""
    write_devkit(root)
    for label, wnid in enumerate(["n01440764", "n02012849", "n03126707"]):
        for number in range(per_class):
            write_jpeg(root / "train" / wnid / f"{wnid}_{number + 7}.JPEG", noisy_image(label, number))
    for number, wnid in enumerate(VAL_WNIDS, start=1):
        name = f"ILSVRC2012_val_{number:08d}.JPEG"
        write_jpeg(root / "val" / (wnid if val_sorted else "") / name, noisy_image(0, number))


def write_jpeg(path: Path, image: np.ndarray) -> Path:
    """Write an image under the publisher's suffix .JPEG, which OpenCV does not accept."""
    return write_image(path.with_suffix(".jpg"), image).rename(path)
