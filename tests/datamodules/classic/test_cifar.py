"""CIFAR: both of the publisher's versions against torchvision, and pickles with anything but arrays."""

import os
import pickle
import warnings

import numpy as np
import pytest
import torchvision

from striate.datamodules import CIFAR10, CIFAR100
from striate.datamodules.classic.cifar import load_arrays
from striate.tests.helpers.mnist_cifar_imagenet import (
    CIFAR10_NAMES,
    CIFAR100_NAMES,
    planes,
    python2_pickle,
    write_cifar10,
    write_cifar100,
)

KINDS = [(CIFAR10, write_cifar10), (CIFAR100, write_cifar100)]


PUBLISHED = {kind: kind.file_lengths for kind, _ in KINDS}


@pytest.fixture(autouse=True)
def _short_files(monkeypatch):
    """Expect as many images per file as `publishers` writes, not tens of thousands."""
    monkeypatch.setattr(CIFAR10, "file_lengths", (20, 20))
    monkeypatch.setattr(CIFAR100, "file_lengths", (200, 200))


def opened(kind, root, **options):
    data = kind(str(root), val_fraction=0, num_workers=0, **options)
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("kind, write", KINDS)
def test_samples_equal_torchvisions(tmp_path, monkeypatch, kind, write):
    write(tmp_path)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *_: True)
    ours = opened(kind, tmp_path)
    for split, training in (("train", True), ("test", False)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy on Python 2's dtypes, which ours reads without a warning
            theirs = getattr(torchvision.datasets, kind.__name__)(tmp_path, train=training)
        source = ours.datasets[split].source
        assert len(source) == len(theirs) > 0
        for number, (image, label) in enumerate(theirs):
            np.testing.assert_array_equal(source[number]["image"], np.asarray(image))
            assert source[number]["label"] == label
        assert ours.class_names == theirs.classes


@pytest.mark.parametrize("kind, write", KINDS)
def test_the_binary_version_has_the_same_content(tmp_path, kind, write):
    write(tmp_path / "a")
    folder = write(tmp_path / "b", binary=True)
    first, second = opened(kind, tmp_path / "a"), opened(kind, folder)  # the folder itself may be the root
    for split in ("train", "test"):
        left, right = first.datasets[split].source, second.datasets[split].source
        np.testing.assert_array_equal(left.images, right.images)
        assert left.labels.tolist() == right.labels.tolist() and len(set(left.labels)) > 1
    assert first.class_names == second.class_names == (CIFAR10_NAMES if kind is CIFAR10 else CIFAR100_NAMES)


def test_pixel_order(tmp_path):
    # of 3072 bytes the first 1024 are red, then green, then blue; 32 bytes per row
    write_cifar10(tmp_path, binary=True)
    source = opened(CIFAR10, tmp_path).datasets["train"].source
    raw = planes(20, 3)[7]  # image 7 of the third batch
    image = source[2 * 20 + 7]["image"]
    assert image.shape == (32, 32, 3) and image.flags.c_contiguous
    assert image[5, 9].tolist() == [raw[5 * 32 + 9], raw[1024 + 5 * 32 + 9], raw[2048 + 5 * 32 + 9]]
    assert source[2 * 20 + 7]["label"] == 21 % 10


def test_a_sample_is_a_copy(tmp_path):
    write_cifar10(tmp_path)
    source = opened(CIFAR10, tmp_path).datasets["test"].source
    before = source.images.copy()
    source[0]["image"][:] = 0
    np.testing.assert_array_equal(source.images, before)


def test_current_pickle_protocols(tmp_path):
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], "bytes": b"ab"}
    for protocol in (0, 2, 4):
        (tmp_path / "a").write_bytes(pickle.dumps(content, protocol))
        loaded = load_arrays(tmp_path / "a")
        np.testing.assert_array_equal(loaded["data"], content["data"])
        assert loaded["labels"] == [1, 2] and loaded["bytes"] == b"ab"


class Harm:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_a_pickle_cannot_run_code(tmp_path):
    folder = write_cifar10(tmp_path)
    mark = tmp_path / "mark"
    (folder / "data_batch_3").write_bytes(pickle.dumps({"data": Harm(mark), "labels": []}))
    with pytest.raises(ValueError, match=r"data_batch_3: .*must not load.*(posix|nt).mkdir"):
        CIFAR10(str(tmp_path), val_fraction=0).setup("fit")
    assert not mark.exists()
    for code in (b"cbuiltins\neval\n.", b"cnumpy\nload\n.", b"cnumpy.core.multiarray\nscalar\n."):
        (tmp_path / "a").write_bytes(code)
        with pytest.raises(ValueError, match="must not load"):
            load_arrays(tmp_path / "a")


def test_truncated_files(tmp_path):
    folder = write_cifar10(tmp_path / "a")
    whole = (folder / "test_batch").read_bytes()
    for size in (0, 1, 1000, len(whole) - 1):
        (folder / "test_batch").write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"test_batch: .*pickle.*got {size} bytes"):
            CIFAR10(str(tmp_path / "a")).setup("test")
    folder = write_cifar10(tmp_path / "b", binary=True)
    with (folder / "test_batch.bin").open("r+b") as file:
        file.truncate(20 * 3073 - 1)
    message = "test_batch.bin: truncated.*61460 bytes for 20 images of 3073, got 61459"
    with pytest.raises(ValueError, match=message):
        CIFAR10(str(tmp_path / "b")).setup("test")
    (folder / "test_batch.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="3073 bytes for 1 images of 3073, got 0"):
        CIFAR10(str(tmp_path / "b")).setup("test")


@pytest.mark.parametrize("kind", PUBLISHED)
def test_whole_files_hold_50000_and_10000_images(kind):
    training, test = PUBLISHED[kind]
    assert (len(kind.training) * training, test) == (50_000, 10_000)


@pytest.mark.parametrize("binary", [False, True])
def test_files_cut_between_two_images_are_counted_in_one_warning(tmp_path, binary):
    folder = write_cifar10(tmp_path, binary=binary)
    suffix = ".bin" if binary else ""
    for name, count in (("data_batch_2", 19), ("data_batch_5", 7)):
        if binary:
            with (folder / f"{name}.bin").open("r+b") as file:
                file.truncate(count * 3073)
        else:
            (folder / name).write_bytes(python2_pickle({"data": planes(count, 0), "labels": [1] * count}))
    with pytest.warns(UserWarning) as caught:
        data = opened(CIFAR10, tmp_path)
    (message,) = [str(warning.message) for warning in caught]
    assert message.startswith("2 of 5 files")
    assert f"{str(folder)!r}" in message and f": data_batch_2{suffix} 19, data_batch_5{suffix} 7;" in message
    assert len(data.datasets["train"].source) == 3 * 20 + 19 + 7


@pytest.mark.parametrize("kind, write", KINDS)
def test_a_short_test_file(tmp_path, monkeypatch, kind, write):
    write(tmp_path)
    monkeypatch.setattr(kind, "file_lengths", (kind.file_lengths[0], 10_000))
    with pytest.warns(UserWarning, match=r"1 of 1 files .*10,000 images: test(_batch)? 20+;"):
        opened(kind, tmp_path)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"data": planes(2, 0)}, "CIFAR10 must have 'labels', got 'data'"),
        ({"labels": [1]}, "CIFAR10 must have 'data', got 'labels'"),
        ({"data": planes(2, 0), "labels": [1]}, "2 images, but 1 labels"),
        ({"data": planes(2, 0), "labels": [1, 10]}, "labels must be 0 to 9, got 10 for image 1"),
        ({"data": planes(2, 0), "labels": ["a", "b"]}, "labels must be a list of whole numbers"),
        ({"data": planes(2, 0)[:, 1:], "labels": [1, 2]}, r"'data' must be uint8 \[N, 3072\], got uint8 \[2, 3071\]"),
        ({"data": [1], "labels": [1]}, "'data' must be uint8.*got list"),
    ],
)
def test_bad_content(tmp_path, content, message):
    folder = write_cifar10(tmp_path)
    (folder / "test_batch").write_bytes(python2_pickle(content))
    with pytest.raises(ValueError, match=f"test_batch: .*{message}"):
        CIFAR10(str(tmp_path)).setup("test")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)cifar-100-binary in.*ROOT/cifar-100-py"):
        CIFAR100(str(tmp_path)).setup("fit")
    folder = write_cifar10(tmp_path)
    (folder / "data_batch_4").unlink()
    with pytest.raises(FileNotFoundError, match="has no data_batch_4; .*download: true"):
        CIFAR10(str(tmp_path)).setup("fit")
    (folder / "data_batch_4").touch()
    (folder / "batches.meta").write_bytes(python2_pickle({"label_names": ["a", "b"]}))
    with pytest.raises(ValueError, match="batches.meta: .*10 class names, got 2"):
        _ = CIFAR10(str(tmp_path)).class_names
