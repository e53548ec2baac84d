"""Folders of images: valid layouts, and errors for others."""

import unicodedata

import numpy as np
import pytest

from striate.datamodules import ImageFolder
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.loading.splits import stratified_split
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import make_folder, noisy_image, write_image


def labels(data, split):
    dataset = data.datasets[split]
    return [dataset.source[i]["label"] for i in range(len(dataset))]


def test_train_and_val_folders(tmp_path):
    make_folder(tmp_path / "train", 4)
    make_folder(tmp_path / "val", 2)
    data = ImageFolder(str(tmp_path), num_workers=0)
    data.setup("fit")
    assert data.class_names == ["bright", "dark"]
    assert labels(data, "train") == [0] * 4 + [1] * 4
    assert labels(data, "val") == [0] * 2 + [1] * 2
    np.testing.assert_array_equal(data.datasets["train"].source[5]["image"], noisy_image(1, 1))


@pytest.mark.parametrize("below", ["", "train"])
def test_a_fraction_is_held_out_stratified_and_seeded(tmp_path, below):
    make_folder(tmp_path / below, 10)
    held = []
    for seed in (0, 0, 1):
        data = ImageFolder(str(tmp_path), val_fraction=0.2, seed=seed, num_workers=0)
        data.setup("fit")
        assert labels(data, "val") == [0, 0, 1, 1]
        train, val = (set(data.datasets[split].source.paths.tolist()) for split in ("train", "val"))
        assert len(train) == 16 and not train & val
        held.append(val)
    assert held[0] == held[1] != held[2]


def test_split_keeps_one_image_per_class_on_either_side():
    chosen = stratified_split(np.array([0] * 2 + [1] * 100), 0.01, seed=0)
    assert chosen[:2].sum() == 1 and chosen[2:].sum() == 1
    with pytest.raises(ValueError, match="val_fraction: .*got 1 of class 1"):
        stratified_split(np.array([0, 0, 1]), 0.5, seed=0)
    with pytest.raises(ValueError, match=r"val_fraction: .*class 'dog' \(and 1 more"):
        stratified_split(np.array([0, 0, 1, 2]), 0.5, 0, ["cat", "dog", "emu"])


def test_missing_root_shows_the_expected_layout(tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(FileNotFoundError, match=r"(?s)no folder '.*absent'.*ROOT/train/CLASS.*contains: other/"):
        ImageFolder(str(tmp_path / "absent"), val_fraction=0.1).setup("fit")


def test_empty_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no class folders in.*contains: nothing"):
        ImageFolder(str(tmp_path), val_fraction=0.1).setup("fit")


def test_class_without_images(tmp_path):
    make_folder(tmp_path, 3)
    (tmp_path / "void").mkdir()
    with stops_at("bad-target", "folder void: no images"):
        ImageFolder(str(tmp_path), val_fraction=0.5).setup("fit")


def test_no_validation_split(tmp_path):
    make_folder(tmp_path / "train", 3)
    with pytest.raises(FileNotFoundError, match="val_fraction"):
        ImageFolder(str(tmp_path)).setup("fit")


def test_unknown_class_in_val(tmp_path):
    make_folder(tmp_path / "train", 3)
    make_folder(tmp_path / "val", 3)
    write_image(tmp_path / "val" / "gray" / "a.png", noisy_image(0, 0))
    with stops_at("label-outside", "val, folder gray: .*training set"):
        ImageFolder(str(tmp_path)).setup("fit")


def test_bad_arguments():
    with pytest.raises(ValueError, match="val_fraction: .*got 1.5"):
        ImageFolder("x", val_fraction=1.5)
    with pytest.raises(ValueError, match="batch_size: .*got 0"):
        ImageFolder("x", batch_size=0)
    with pytest.raises(ValueError, match="num_workers: .*got -1"):
        ImageFolder("x", num_workers=-1)


def test_predict_needs_images_and_reads_them_without_the_training_data(tmp_path):
    data = ImageFolder(str(tmp_path / "gone"), num_workers=0)
    data.setup("predict")
    with pytest.raises(ValueError, match="images: .*got null"):
        data.predict_dataloader()
    path = write_image(tmp_path / "a.png", noisy_image(0, 0))
    data = ImageFolder(str(tmp_path / "gone"), num_workers=0, images=str(path))
    data.setup("predict")
    (batch,) = data.predict_dataloader()
    assert batch["path"] == [str(path)] and batch["image"].shape == (1, 3, 32, 32)


# -- folders that are no classes, and class names ----------------------------------------------------


def test_usual_names_of_splits(tmp_path):
    for name, count in (("Training", 4), ("Validation", 2), ("TESTING", 3)):
        make_folder(tmp_path / name, count)
    data = ImageFolder(str(tmp_path), num_workers=0)
    assert data.class_names == ["bright", "dark"]
    assert [len(data.make_source(split)) for split in ("train", "val", "test")] == [8, 4, 6]
    (tmp_path / "Validation").rename(tmp_path / "test")
    with pytest.raises(ValueError, match="root: must have one folder for test, got 'TESTING' and 'test'"):
        data.make_source("val")


def test_a_test_set_without_a_training_set(tmp_path):
    make_folder(tmp_path / "Testing", 2)
    with pytest.raises(FileNotFoundError, match=r"no folder '.*train' beside 'Testing'"):
        ImageFolder(str(tmp_path), val_fraction=0.5).setup("fit")


def test_folders_of_tools_and_runs_are_no_classes(tmp_path):
    make_folder(tmp_path, 3)
    for name in ("runs/fit-0/pictures/a.png", "__MACOSX/b.png", "@eaDir/c.png", "dark/@eaDir/x.png/T.jpg"):
        write_image(tmp_path / name, noisy_image(0, 0))
    data = ImageFolder(str(tmp_path), val_fraction=0.4, num_workers=0)
    with record_faults() as faults:
        train = data.make_source("train")
    assert data.class_names == ["bright", "dark"] and len(train) == 4
    names = {(name, fault.found) for fault in faults for name in fault.names}
    assert {fault.code for fault in faults} == {"skipped-file"}
    assert ("runs/", "a folder of training runs") in names
    assert {"__MACOSX/", "@eaDir/"} <= {name for name, _ in names}


@pytest.mark.parametrize("name", ["runs", "wandb", "lightning_logs", "mlruns", "checkpoints"])
@pytest.mark.parametrize("below", ["", "train"])
def test_folders_of_runs_with_images_are_named_and_are_classes_only_if_asked_for(tmp_path, name, below):
    make_folder(tmp_path / below, 3)
    for number in range(2):
        write_image(tmp_path / below / name / f"{number}.png", noisy_image(0, number))
    options = {"val_fraction": 0.4, "num_workers": 0}
    with pytest.warns(UserWarning, match=rf"2 images left out .*{name} is that of training runs.* class_names"):
        data = ImageFolder(str(tmp_path), **options)
        assert data.class_names == ["bright", "dark"]
    chosen = ImageFolder(str(tmp_path), class_names=[name, "dark", "bright"], **options)
    assert chosen.class_names == [name, "dark", "bright"]
    source = chosen.make_source("val")
    found = [(source[number]["label"], path.split("/")[-2]) for number, path in enumerate(source.files())]
    assert found == [(0, name), (1, "dark"), (2, "bright")]


def test_class_names_choose_the_order_and_must_be_folders(tmp_path):
    make_folder(tmp_path, 3)
    with pytest.raises(ValueError, match=r"class_names: must be folders in .*, got 'cat'"):
        ImageFolder(str(tmp_path), class_names=["dark", "cat"]).make_source("train")
    with pytest.raises(ValueError, match=r"folder bright.*its classes are \['dark'\]"):
        ImageFolder(str(tmp_path), class_names=["dark"]).make_source("train")


def test_images_beside_the_class_folders_are_named(tmp_path):
    make_folder(tmp_path / "train", 3)
    make_folder(tmp_path / "val", 1)
    write_image(tmp_path / "train" / "stray.png", noisy_image(0, 0))
    with pytest.warns(UserWarning, match=r"1 of 7 files left out \(1 x images outside the class folders.*stray.png"):
        ImageFolder(str(tmp_path)).make_source("train")


def test_names_that_mean_the_same(tmp_path):
    make_folder(tmp_path, 3)
    (tmp_path / "bright").rename(tmp_path / "Dark ")
    with stops_at("similar-classes", "got 'Dark ' and 'dark'; rename them, or set merge_similar_classes: true"):
        ImageFolder(str(tmp_path), val_fraction=0.4).make_source("train")
    make_folder(tmp_path / "new" / "val", 1)
    (tmp_path / "new" / "val" / "bright").rename(tmp_path / "new" / "val" / "DARK")
    for name in ("Dark ", "dark"):
        (tmp_path / "new" / "train").mkdir(exist_ok=True)
        (tmp_path / name).rename(tmp_path / "new" / "train" / name)
    data = ImageFolder(str(tmp_path / "new"), merge_similar_classes=True)
    assert data.class_names == ["Dark"]
    assert [data.make_source(split).labels.tolist() for split in ("train", "val")] == [[0] * 6, [0] * 2]


def test_class_folders_in_another_unicode_form(tmp_path):
    for split, form in (("train", "NFC"), ("val", "NFD")):
        make_folder(tmp_path / split, 2)
        (tmp_path / split / "dark").rename(tmp_path / split / unicodedata.normalize(form, "é"))
    data = ImageFolder(str(tmp_path))
    assert data.make_source("val").labels.tolist() == data.make_source("train").labels.tolist() == [0, 0, 1, 1]
