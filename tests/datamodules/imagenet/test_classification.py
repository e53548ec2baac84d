"""ImageNet in the layout of its archives: against torchvision's reader, and errors for incomplete copies."""

import tarfile

import numpy as np
import pytest
import scipy.io
import torchvision

from striate.datamodules import ImageNet
from striate.datamodules.imagenet.classification import read_synsets
from striate.tests.helpers.fixtures import noisy_image
from striate.tests.helpers.mnist_cifar_imagenet import VAL_WNIDS, write_devkit, write_imagenet, write_jpeg

WNIDS = ["n01440764", "n02012849", "n03126707"]
LABELS = [2, 1, 0, 0, 2]  # of the five validation images: positions of their WordNet ids in the sorted list


def test_synsets_of_the_devkit(tmp_path):
    synsets = read_synsets(write_devkit(tmp_path) / "meta.mat")
    assert synsets.wnids == WNIDS
    assert synsets.names == ["tench", "crane (n02012849)", "crane (n03126707)"]
    assert synsets.label_of_id == {2: 0, 1: 1, 3: 2}


@pytest.mark.parametrize("val_sorted", [False, True])
def test_labels_of_both_splits(tmp_path, val_sorted):
    write_imagenet(tmp_path, val_sorted)
    data = ImageNet(str(tmp_path), num_workers=0)
    data.setup("fit")
    data.setup("test")
    train, val, test = (data.datasets[split].source for split in ("train", "val", "test"))
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert train.paths[3] == b"n02012849/n02012849_8.JPEG" and train.paths.dtype.kind == "S"
    by_name = {bytes(path).rpartition(b"/")[2]: int(label) for path, label in zip(val.paths, val.labels, strict=True)}
    assert [by_name[f"ILSVRC2012_val_{number:08d}.JPEG".encode()] for number in range(1, 6)] == LABELS
    assert test.paths.tolist() == val.paths.tolist()
    sample = train[4]  # the first lifting crane: dark
    assert sample["label"] == 2 and abs(sample["image"].mean() - noisy_image(2, 0).mean()) < 3
    assert data.class_names[2] == "crane (n03126707)"


def test_samples_equal_torchvisions(tmp_path, monkeypatch):
    write_imagenet(tmp_path, val_sorted=True)
    with tarfile.open(tmp_path / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    monkeypatch.setattr("torchvision.datasets.imagenet._verify_archive", lambda *_: None)
    ours = ImageNet(str(tmp_path), num_workers=0)
    for split in ("train", "val"):
        theirs = torchvision.datasets.ImageNet(tmp_path, split)
        source = ours.make_source(split)
        paths = [str(source.root / path.decode()) for path in source.paths]
        assert paths == [str(path) for path, _ in theirs.imgs]
        assert source.labels.tolist() == [label for _, label in theirs.imgs]
        for number in range(len(theirs)):  # two JPEG decoders may round differently by one or two
            difference = source[number]["image"].astype(int) - np.asarray(theirs[number][0])
            assert np.abs(difference).max() <= 2
    assert theirs.wnids == WNIDS
    assert [names[0] for names in theirs.classes] == [name.split(" (")[0] for name in ours.class_names]


def test_flat_validation_images_are_matched_by_the_number_in_their_name(tmp_path):
    write_imagenet(tmp_path)
    (tmp_path / "val" / "ILSVRC2012_val_00000002.JPEG").unlink()
    with pytest.raises(ValueError, match="5 images.*ground truth, got 4"):
        ImageNet(str(tmp_path)).make_source("val")
    write_jpeg(tmp_path / "val" / "ILSVRC2012_val_00000006.JPEG", noisy_image(0, 0))
    with pytest.raises(ValueError, match="00000005.JPEG, got 'ILSVRC2012_val_00000006.JPEG'"):
        ImageNet(str(tmp_path)).make_source("val")


def test_a_badly_sorted_validation_set(tmp_path):
    write_imagenet(tmp_path, val_sorted=True)
    val = tmp_path / "val"
    (val / VAL_WNIDS[0] / "ILSVRC2012_val_00000001.JPEG").rename(val / WNIDS[0] / "ILSVRC2012_val_00000001.JPEG")
    message = r"00000001.JPEG must be in n03126707.*got n01440764 \(1 such image"
    with pytest.raises(ValueError, match=message):
        ImageNet(str(tmp_path)).make_source("val")
    write_jpeg(val / WNIDS[2] / "ILSVRC2012_val_00000001.JPEG", noisy_image(0, 0))
    (val / WNIDS[0] / "ILSVRC2012_val_00000003.JPEG").unlink()
    with pytest.raises(ValueError, match="got ILSVRC2012_val_00000001.JPEG more than once"):
        ImageNet(str(tmp_path)).make_source("val")


def test_class_folders_that_do_not_match_the_devkit(tmp_path):
    write_imagenet(tmp_path)
    train = tmp_path / "train"
    (train / "n09999999").mkdir()
    with pytest.raises(ValueError, match="no class 'n09999999'"):
        ImageNet(str(tmp_path)).make_source("train")
    (train / "n09999999").rmdir()
    (train / WNIDS[1]).rename(train / ".hidden")
    message = r"1 of 3 class folders.*\(n02012849\).*ImageFolder"
    with pytest.raises(ValueError, match=message):
        ImageNet(str(tmp_path)).make_source("train")
    (train / WNIDS[1]).mkdir()
    with pytest.raises(ValueError, match=r"no images in the class folder\(s\) 'n02012849'"):
        ImageNet(str(tmp_path)).make_source("train")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train'.*ROOT/ILSVRC2012_devkit_t12.*contains: nothing"):
        ImageNet(str(tmp_path)).setup("fit")
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="no class folders in"):
        ImageNet(str(tmp_path)).setup("fit")
    (tmp_path / "train" / "n01440764.tar").touch()
    with pytest.raises(FileNotFoundError, match="archives, such as n01440764.tar"):
        ImageNet(str(tmp_path)).setup("fit")
    with pytest.raises(FileNotFoundError, match="root: no file '.*meta.mat'"):
        _ = ImageNet(str(tmp_path)).class_names


def test_a_damaged_devkit(tmp_path):
    data = write_devkit(tmp_path)
    (tmp_path / "val").mkdir()
    ground_truth = data / "ILSVRC2012_validation_ground_truth.txt"
    for line in ("4", "x", "0"):  # the fourth synset has children, so it is not a class
        ground_truth.write_text(f"3\n{line}\n")
        with pytest.raises(ValueError, match=f"ground_truth.txt, line 2: .*got '{line}'"):
            ImageNet(str(tmp_path)).make_source("val")
    scipy.io.savemat(data / "meta.mat", {"other": 1})
    with pytest.raises(ValueError, match=r"meta.mat: not the devkit's table of synsets"):
        _ = ImageNet(str(tmp_path)).class_names
    (data / "meta.mat").write_bytes(b"not MATLAB's")
    with pytest.raises(ValueError, match=r"meta.mat: not the devkit's table of synsets"):
        _ = ImageNet(str(tmp_path)).class_names
