"""Data sets of one's own in VOC's layout: one folder, files side by side, folders of splits; classes off the XML."""

import unicodedata

import pytest

from striate.datamodules import VOCDetection, VOCLocalization, VOCSegmentation
from striate.datamodules.annotations.annotation_errors import AbsentSplitError, record_faults
from striate.tests.helpers.coco_voc import voc_xml, write_voc
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_gray, write_image

SIZE = (40, 30)


def write_home(folder, stems, annotations="Annotations", images="JPEGImages", sets=None, suffix=".jpg", label="cell"):
    """Write a data set in one folder: an object of the class `label` per image, at a place of its own."""
    for number, stem in enumerate(stems):
        write_image(folder / images / f"{stem}{suffix}", noise(*SIZE, number))
        xml = folder / annotations / f"{stem}.xml"
        xml.parent.mkdir(parents=True, exist_ok=True)
        box = (number + 1, 2, number + 10, 20)
        xml.write_text(voc_xml(stem, SIZE, [(label, box, 0), (label, (20, 3, 30, 9), 0)]), encoding="utf-8")
    for name, listed in (sets or {}).items():
        file = folder / "ImageSets" / "Main" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in listed), encoding="utf-8")
    return folder


def module(root, **options):
    return VOCDetection(str(root), num_workers=0, batch_size=2, **options)


def stems(source):
    return sorted(path.rpartition("/")[2].rpartition(".")[0] for path in source.files())


def test_one_folder_with_image_sets(tmp_path):
    root = write_home(tmp_path / "cells", "abc", sets={"train": "ab", "val": "c"})
    data = module(root)
    assert data.class_names == ["cell"]
    train = data.make_source("train")
    assert stems(train) == ["a", "b"] and stems(data.make_source("val")) == ["c"]
    assert train[1]["boxes"].tolist() == [[1, 1, 11, 20], [19, 2, 30, 9]]
    with pytest.raises(AbsentSplitError, match="test: no image set"):
        data.make_source("test")
    assert stems(module(root, train=["val"], val=["train"]).make_source("train")) == ["c"]
    with pytest.raises(AbsentSplitError, match="train: no image set 'trian'; did you mean 'train'"):
        module(root, train=["trian"]).make_source("train")
    # the folder above has nothing else
    assert stems(module(tmp_path).make_source("train")) == ["a", "b"]


@pytest.mark.filterwarnings("ignore:.*may be mistakes")
def test_the_folder_of_a_year_is_a_data_set(tmp_path):
    devkit = write_voc(tmp_path)
    for year in (None, "2012"):
        assert stems(module(devkit / "VOC2012", year=year).make_source("train")) == ["2008_000008"]
    with pytest.raises(ValueError, match="year: must be null.*got '2007'"):
        module(devkit / "VOC2012", year="2007").make_source("train")
    assert module(devkit).layout.year == "07+12" and module(devkit).class_names[0] == "aeroplane"
    (devkit / "VOC2012").rename(tmp_path / "away")
    assert module(tmp_path).layout.year == "2007"


def test_names_in_image_sets(tmp_path):
    """Spaces, suffixes, the flags of a class, a byte order mark, CRLF, and the other Unicode form."""
    nfc, nfd = (unicodedata.normalize(form, "Größe") for form in ("NFC", "NFD"))
    names = ["my photo 1", "my photo", "b.c", nfd]
    root = write_home(tmp_path, names, sets={"val": ["b.c.jpg"]})
    lines = ["my photo 1", "my photo  -1", "b.c", nfc]
    (root / "ImageSets/Main/train.txt").write_bytes(("\ufeff" + "\r\n".join(lines)).encode())
    data = module(root)
    assert data.make_source("train").files() == [str(root / "JPEGImages" / f"{name}.jpg") for name in names]
    assert stems(data.make_source("val")) == ["b.c"]


def test_other_image_suffixes_and_subfolders(tmp_path):
    root = write_home(tmp_path, ["x/a", "x/b"], images="images", suffix=".png", sets={"train": ["x/a"], "val": ["x/b"]})
    source = module(root).make_source("train")
    assert source.files() == [str(root / "images/x/a.png")] and len(source[0]["labels"]) == 2


def test_without_image_sets_a_part_is_held_out(tmp_path):
    root = write_home(tmp_path, "abcdefgh", annotations=".", images=".")
    data = module(root, val_fraction=0.25)
    train, val = data.make_source("train"), data.make_source("val")
    assert len(train) == 6 and len(val) == 2 and sorted(stems(train) + stems(val)) == list("abcdefgh")
    assert stems(module(root, val_fraction=0.25, seed=1).make_source("val")) != stems(val)
    with pytest.raises(FileNotFoundError, match="val: no image set.*val_fraction"):
        module(root).make_source("val")
    one = VOCLocalization(str(root), objects="largest", val_fraction=0.25, num_workers=0)
    held_out = [path.rpartition("/")[2] for path in one.make_source("val").files()]
    assert held_out == [f"{stem}.jpg" for stem in stems(val)] and len(one.make_source("train")) == 6
    (tmp_path / "ImageSets" / "Main").mkdir(parents=True)
    for name, line in (("train", "a"), ("val", "b")):
        (tmp_path / "ImageSets" / "Main" / f"{name}.txt").write_text(line)
    with pytest.raises(ValueError, match="val_fraction: must be null.*got 0.25"):
        module(root, val_fraction=0.25).make_source("train")


def test_images_without_xml_are_counted(tmp_path):
    root = write_home(tmp_path, "abcd", annotations=".", images=".")
    write_image(tmp_path / "new.png", noise(*SIZE))
    with pytest.warns(UserWarning, match=r"1 images of .* left out \(no XML file, first: .*new\.png\)"):
        assert len(module(root, val_fraction=0.5).make_source("train")) == 2


def test_folders_of_splits(tmp_path):
    for folder, names in (("Train", "ab"), ("valid", "a"), ("test", "c")):
        write_home(tmp_path / folder, names, annotations=".", images=".")
    data = module(tmp_path)
    found = {split: data.make_source(split).files() for split in ("train", "val", "test")}
    assert found["val"] == [str(tmp_path / "valid/a.jpg")] and len(found["train"]) == 2 and len(found["test"]) == 1
    with pytest.raises(ValueError, match="train: must be null.*folders"):
        module(tmp_path, train=["a"]).make_source("train")


@pytest.mark.parametrize("name", ["trainval", "default"])
def test_a_single_image_set_is_for_training(tmp_path, name):
    root = write_home(tmp_path, "abcd", sets={name: "abcd"})
    assert len(module(root, val_fraction=0.5).make_source("train")) == 2


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_single_image_set_of_another_split_is_not_trained_on(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=f"train: no image set.*'{name}'"):
        module(write_home(tmp_path, "ab", sets={name: "ab"})).make_source("train")


def test_trainval_is_not_trained_on_beside_val(tmp_path):
    root = write_home(tmp_path, "abcd", sets={"trainval": "abcd", "val": "d"})
    with pytest.raises(FileNotFoundError, match=r"train: no image set.*'trainval', 'val'.*train: \[trainval\]"):
        module(root).make_source("train")


def test_class_names_are_read_off_all_splits_in_a_fixed_order(tmp_path):
    root = write_home(tmp_path, "ab", sets={"train": "ab", "val": "c"}, label=" zebra ")
    write_home(tmp_path, "c", label="Ähre")
    assert module(root).class_names == ["zebra", "Ähre"]
    assert module(root, class_names="auto").class_names == module(root).class_names
    assert module(root, class_names=["Ähre", "zebra"]).make_source("train")[0]["labels"].tolist() == [1, 1]
    with pytest.raises(ValueError, match="class_names: .*got 'atuo'.*'auto'"):
        module(root, class_names="atuo")
    write_home(tmp_path, "d", label="zebar")
    (root / "ImageSets/Main/train.txt").write_text("a\nb\nd\n")
    with pytest.warns(UserWarning, match="dropped|mistakes") as caught:
        (root / "Annotations/d.xml").write_text(voc_xml("d", SIZE, [("emu", (1, 1, 5, 5), 0)]))
        assert module(root).class_names == ["emu", "zebra", "Ähre"]
    assert "1 of 3 class names" in str(caught[0].message) and "'emu' occurs once" in str(caught[0].message)


def test_an_unknown_class_of_many_objects_is_one_fault(tmp_path):
    root = write_home(tmp_path, [f"{number:02d}" for number in range(11)], sets={"val": ["00"]})
    (root / "ImageSets/Main/train.txt").write_text("".join(f"{number:02d}\n" for number in range(11)))
    data = module(root, class_names=["cat"])
    with stops_at("label-outside", "00.xml, object 1: .*'cell'; set class_names.*auto"):
        data.make_source("train")
    with record_faults() as faults:
        assert not data.make_source("train").objects.counts().any()
        assert not data.make_source("val").objects.counts().any()
    many, *few = faults
    assert "22 objects, the first: Annotations/00.xml, object 1" in str(many) and "auto" in many.found
    assert [str(fault.file).rpartition("/")[2] for fault in few] == ["00.xml", "00.xml"]


def test_segmentation_in_one_folder(tmp_path):
    import numpy as np

    write_image(tmp_path / "JPEGImages" / "a.jpg", noise(*SIZE))
    write_gray(tmp_path / "SegmentationClass" / "a.png", np.tile(np.arange(SIZE[0]) % 2, (SIZE[1], 1)).astype(np.uint8))
    (tmp_path / "ImageSets" / "Segmentation").mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    data = VOCSegmentation(str(tmp_path), class_names=["background", "cell"], val="train", num_workers=0)
    with pytest.warns(UserWarning, match="training images"):
        source = data.make_source("train")
    assert source[0]["mask"].max() == 1
