"""MNIST and Fashion-MNIST against torchvision's readers of the same files, and errors for damaged files."""

import gzip

import numpy as np
import pytest
import torchvision

from striate.datamodules import MNIST, FashionMNIST
from striate.datamodules.classic.mnist import read_idx
from striate.tests.helpers.mnist_cifar_imagenet import digits, idx_bytes, write_mnist


@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_samples_equal_torchvisions(tmp_path, kind):
    write_mnist(tmp_path / kind.__name__ / "raw")
    ours = kind(str(tmp_path), val_fraction=0, num_workers=0)
    ours.setup("fit")
    ours.setup("test")
    for split, training in (("train", True), ("val", False), ("test", False)):
        theirs = getattr(torchvision.datasets, kind.__name__)(tmp_path, train=training)
        source = ours.datasets[split].source
        assert len(source) == len(theirs) == (100 if training else 20)
        for number, (image, label) in enumerate(theirs):
            np.testing.assert_array_equal(source[number]["image"], np.asarray(image.convert("RGB")))
            assert source[number]["label"] == label
    names = [name.split(" - ")[0] if kind is MNIST else name for name in theirs.classes]
    assert ours.class_names == names


@pytest.mark.parametrize("packed", [False, True])
def test_files_in_the_root_folder_plain_or_gzipped(tmp_path, packed):
    write_mnist(tmp_path, packed=packed)
    data = MNIST(str(tmp_path), val_fraction=0.2, num_workers=0)
    data.setup("test")
    images, labels = digits(20, 1)
    sample = data.datasets["test"].source[13]
    assert sample["image"].shape == (28, 28, 3) and sample["image"].dtype == np.uint8 and sample["label"] == 3
    for channel in range(3):
        np.testing.assert_array_equal(sample["image"][..., channel], images[13])
    assert data.datasets["test"].source.labels.tolist() == labels.tolist()


def test_the_validation_split_is_stratified_and_seeded_and_shares_the_array(tmp_path):
    write_mnist(tmp_path)
    held = []
    for seed in (0, 0, 1):
        data = MNIST(str(tmp_path), val_fraction=0.2, seed=seed, num_workers=0)
        data.setup("fit")
        train, val = (data.datasets[split].source for split in ("train", "val"))
        assert np.bincount(val.labels).tolist() == [2] * 10 and np.bincount(train.labels).tolist() == [8] * 10
        assert sorted([*train.indices, *val.indices]) == list(range(100))
        assert train.images is val.images
        held.append(val.indices.tolist())
    assert held[0] == held[1] != held[2]


def test_five_thousand_are_held_out_by_default(tmp_path, monkeypatch):
    # the official sizes of MNIST's classes, which 12 does not divide
    sizes = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    labels = np.repeat(np.arange(10), sizes)
    monkeypatch.setattr(MNIST, "read", lambda self, training: (np.zeros((60000, 1, 1), np.uint8), labels))
    data = MNIST(str(tmp_path), num_workers=0)
    data.setup("fit")
    train, val = (data.datasets[split].source for split in ("train", "val"))
    assert (len(train), len(val)) == (55000, 5000)
    assert np.abs(np.bincount(val.labels) - np.array(sizes) / 12).max() < 1


def test_a_dataset_smaller_than_the_default_split(tmp_path):
    write_mnist(tmp_path)
    with pytest.raises(ValueError, match="val_fraction.*5000.*100 for training"):
        MNIST(str(tmp_path), num_workers=0).setup("fit")
    for fraction in (1, -0.1):
        with pytest.raises(ValueError, match=f"val_fraction.*got {fraction}"):
            MNIST(str(tmp_path), val_fraction=fraction)


def test_a_batch(tmp_path):
    write_mnist(tmp_path)
    data = MNIST(str(tmp_path), val_fraction=0.2, batch_size=16, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (16, 3, 28, 28) and batch["label"].shape == (16,)
    first = data.datasets["val"].source.indices[5]
    np.testing.assert_array_equal(batch["image"][5, 1].numpy(), digits(100, 0)[0][first])


def test_a_sample_is_a_copy(tmp_path):
    write_mnist(tmp_path)
    data = MNIST(str(tmp_path), val_fraction=0.2, num_workers=0)
    source = data.make_source("test")
    before = source[0]["image"].copy()
    source[0]["image"][:] = 0
    np.testing.assert_array_equal(source[0]["image"], before)


@pytest.mark.parametrize("packed", [False, True])
def test_the_size_of_a_truncated_file_is_reported(tmp_path, packed):
    write_mnist(tmp_path, packed=packed)
    path = tmp_path / ("train-images-idx3-ubyte" + ".gz" * packed)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    # 16 bytes of header and 100 images of 784 bytes
    with pytest.raises(ValueError, match=rf"{path}: truncated.*78416 bytes for 100x28x28, got \d+"):
        MNIST(str(tmp_path), val_fraction=0.2).setup("fit")
    if not packed:
        with pytest.raises(ValueError, match="got 39208"):
            read_idx(path, 3)


def test_damaged_files(tmp_path):
    path = tmp_path / "a"
    whole = idx_bytes(np.arange(10))
    for data, message in (
        (whole + b"x", "file longer.*18 bytes for 10, got 19"),
        (whole[:6], "header must have 8 bytes, got 6"),
        (b"<html>", "must begin with 00 00 08 01, got 3c 68 74 6d"),
        (b"", "header must have 8 bytes, got 0"),
        (idx_bytes(np.zeros((2, 2))), "must begin with 00 00 08 01, got 00 00 08 02"),
        (whole[:2] + b"\x0d" + whole[3:], "got 00 00 0d 01"),
        (gzip.compress(whole)[:-8] + bytes(8), "damaged gzip file"),  # its checksum
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=f"{path}.*{message}"):
            read_idx(path, 1)
    path.write_bytes(gzip.compress(whole[:4]) + gzip.compress(whole[4:]))  # gzip allows several members
    assert read_idx(path, 1).tolist() == list(range(10))


def test_mismatched_images_and_labels(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(np.zeros(99)))
    with pytest.raises(ValueError, match=rf"has 100 images, but {labels} has 99 labels"):
        MNIST(str(tmp_path), val_fraction=0.2).setup("fit")
    labels.write_bytes(idx_bytes(np.array([*range(10)] * 9 + [0] * 9 + [10])))
    with pytest.raises(ValueError, match="labels.*got 10 for image 99"):
        MNIST(str(tmp_path), val_fraction=0.2).setup("fit")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no folder '.*gone'.*download: true.*train-images"):
        MNIST(str(tmp_path / "gone")).setup("fit")
    (tmp_path / "FashionMNIST").mkdir()
    with pytest.raises(FileNotFoundError, match=r"(?s)no MNIST.*ROOT/MNIST/raw/.*: FashionMNIST/"):
        MNIST(str(tmp_path)).setup("fit")
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="has no t10k-labels-idx1-ubyte"):
        MNIST(str(tmp_path)).setup("test")
    with pytest.raises(FileNotFoundError, match=r"prepare_data\(\)"):
        MNIST(str(tmp_path), download=True).setup("test")


def test_torchvision_downloads_only_missing_files(tmp_path, monkeypatch):
    calls = []

    def fake_dataset(root, download):
        calls.append((root, download))
        write_mnist(tmp_path / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fake_dataset)
    MNIST(str(tmp_path)).prepare_data()
    assert calls == []
    for _ in range(2):
        data = MNIST(str(tmp_path), download=True, val_fraction=0.2, num_workers=0)
        data.prepare_data()
        data.setup("fit")
    assert calls == [(str(tmp_path), True)] and len(data.datasets["train"]) == 80


def test_a_failed_download(tmp_path, monkeypatch):
    def offline(root, download):
        raise RuntimeError("no route to host")

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(RuntimeError, match=r"download.*FashionMNIST.*no route to host"):
        FashionMNIST(str(tmp_path), download=True).prepare_data()
