"""Caltech-101 and -256: the published layouts, and splits with a fixed number of images per class."""

import numpy as np
import pytest
import torchvision

from striate.datamodules import Caltech101, Caltech256
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.tests.helpers.fixtures import noisy_image, write_image

SIZES_101 = {"BACKGROUND_Google": 9, "Faces": 4, "accordion": 8, "ant": 5}
SIZES_256 = {"001.ak47": 6, "002.american-flag": 7, "257.clutter": 6}


def write_tree(folder, sizes, pattern="image_{number:04d}.jpg"):
    for label, (name, size) in enumerate(sizes.items()):
        for number in range(1, size + 1):
            write_image(folder / name / pattern.format(number=number, label=label + 1), noisy_image(label, number, 8))


def split(data, name):
    source = data.make_source(name)
    return [path.decode() for path in source.paths], source.labels.tolist()


@pytest.fixture
def root(tmp_path):
    write_tree(tmp_path / "101_ObjectCategories", SIZES_101)
    write_tree(tmp_path / "256_ObjectCategories", SIZES_256, "{label:03d}_{number:04d}.jpg")
    return tmp_path


def test_numbers_of_training_and_test_images(root):
    data = Caltech101(str(root), per_class=3, max_test=2, num_workers=0)
    assert data.class_names == ["Faces", "accordion", "ant"]
    train, labels = split(data, "train")
    assert labels == [0] * 3 + [1] * 3 + [2] * 3
    test, labels = split(data, "test")
    assert labels == [0] + [1] * 2 + [2] * 2  # one of Faces' 4 images is left
    assert not set(train) & set(test) and len({*train, *test}) == 14
    assert all(path.split("/")[0] == data.class_names[label] for path, label in zip(test, labels, strict=True))
    assert split(data, "val") == (test, labels)
    assert len(split(Caltech101(str(root), per_class=3, max_test=None), "test")[0]) == 1 + 5 + 2


def test_folds_differ_and_do_not_depend_on_the_seed(root):
    folds = [split(Caltech101(str(root), per_class=3, fold=fold, seed=seed), "train") for fold, seed in
             [(0, 0), (0, 1), (1, 0), (2, 0)]]  # fmt: skip
    assert folds[0] == folds[1] and len({tuple(paths) for paths, _ in folds}) == 3


def test_every_image_is_in_some_fold(root):
    seen = {path for fold in range(40) for path in split(Caltech101(str(root), per_class=2, fold=fold), "train")[0]}
    assert len(seen) == 4 + 8 + 5


def test_the_background_is_the_last_class(root):
    plain, more = (Caltech101(str(root), per_class=3, background=background) for background in (False, True))
    assert more.class_names == [*plain.class_names, "BACKGROUND_Google"]
    paths, labels = split(more, "train")
    assert labels[9:] == [3] * 3 and all(path.startswith("BACKGROUND_Google/") for path in paths[9:])
    assert paths[:9] == split(plain, "train")[0]


def test_caltech256_strips_numbers_and_skips_stray_files(root):
    folder = root / "256_ObjectCategories"
    write_image(folder / "001.ak47" / "greg" / "stray.jpg", noisy_image(0, 0, 8))
    (folder / "002.american-flag" / "RENAME2").touch()
    data = Caltech256(str(root), per_class=5)
    with pytest.warns(UserWarning, match=r"1 of \d+ files left out \(1 x no suffix; .*RENAME2\)"):
        assert data.class_names == ["ak47", "american-flag"]
    (folder / "002.american-flag" / "RENAME2").unlink()
    with record_faults() as faults:
        Caltech256(str(root), per_class=5).make_source("train")
    assert [(fault.found, list(fault.names)) for fault in faults] == [("a folder, which is not searched", ["greg/"])]
    assert len(split(data, "train")[0]) == 10 and len(split(data, "test")[0]) == 1 + 2
    assert Caltech256(str(root)).per_class == 60 and Caltech101(str(root)).per_class == 30
    more = Caltech256(str(root), per_class=5, background=True)
    assert more.class_names == ["ak47", "american-flag", "clutter"]
    sample = data.make_source("train")[7]
    assert sample["label"] == 1 and sample["image"].shape == (8, 8, 3)


def test_classes_equal_torchvisions(tmp_path):
    write_tree(tmp_path / "caltech101" / "101_ObjectCategories", SIZES_101)
    theirs = torchvision.datasets.Caltech101(tmp_path)
    data = Caltech101(str(tmp_path), per_class=3, max_test=None)  # torchvision's folder is found too
    assert data.class_names == theirs.categories
    every = np.concatenate([data.make_source(name).labels for name in ("train", "test")])
    assert sorted(every) == sorted(theirs.y)


def test_too_few_images(root):
    with pytest.raises(ValueError, match="per_class.*2 class.*Faces 4, ant 5"):
        Caltech101(str(root), per_class=5).setup("fit")
    for key, value, least in (("per_class", 0, 1), ("max_test", 0, 1), ("fold", -1, 0)):
        with pytest.raises(ValueError, match=f"{key}.*>= {least}, got {value}"):
            Caltech101(str(root), **{key: value})


def test_missing_folders_show_the_expected_layout(tmp_path, root):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    message = r"(?s)no folder '101_ObjectCategories' in.*download: true.*ROOT/101_ObjectCategories.*contains: nothing"
    with pytest.raises(FileNotFoundError, match=message):
        Caltech101(str(elsewhere)).setup("fit")
    (elsewhere / "256_ObjectCategories" / "257.clutter").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="no class folders in"):
        Caltech256(str(elsewhere)).setup("fit")
    assert len(Caltech101(str(root / "101_ObjectCategories"), per_class=3).make_source("train")) == 9
    for path in (root / "101_ObjectCategories" / "BACKGROUND_Google").iterdir():
        path.unlink()
    (root / "101_ObjectCategories" / "BACKGROUND_Google").rmdir()
    with pytest.raises(FileNotFoundError, match="background: no folder 'BACKGROUND_Google'"):
        Caltech101(str(root), per_class=3, background=True).setup("fit")


def test_torchvision_downloads_only_missing_files(tmp_path, monkeypatch):
    asked = []

    def stand_in(root, download):
        asked.append((root, download))
        write_tree(tmp_path / "caltech256" / "256_ObjectCategories", SIZES_256)

    monkeypatch.setattr(torchvision.datasets, "Caltech256", stand_in)
    data = Caltech256(str(tmp_path), per_class=5, download=True)
    with pytest.raises(FileNotFoundError, match=r"call prepare_data\(\)"):
        data.setup("fit")
    data.prepare_data()
    data.prepare_data()
    data.setup("fit")
    assert asked == [(str(tmp_path), True)] and len(data.datasets["train"]) == 10
