"""The folder of a corrected copy, and copies of data sets with mask files: lists or trees of links."""

import numpy as np
import pytest

from striate.datamodules import ADE20K, Cityscapes, ImageFolder, InstanceMasks, VOCInstances, VOCSegmentation
from striate.datamodules.doctor import check, write_fix, write_html
from striate.experiments.data.check import check as command
from striate.tests.helpers import small_datasets, voc_sbd_masks
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.small_datasets import (
    actions,
    make_images_unique,
    repaired,
    truncate,
    unique_image,
    write_ade20k,
    write_cityscapes,
    write_instance_masks,
)

LEFT_OUT = {"left out": "unreadable-image"}


def stems_of(copy, split):
    source = copy.make_source(split)
    return [source[place]["path"].rpartition("/")[2].partition(".")[0] for place in range(len(source))]


def test_voc_segmentation_gets_lists(tmp_path):
    root = tmp_path / "data"
    year = voc_sbd_masks.write_voc_masks(root) / "VOC2012"
    make_images_unique(root)
    truncate(year / "JPEGImages/2008_000015.jpg")
    truncate(year / "JPEGImages/2009_000013.jpg")
    options = {"root": str(root), "num_workers": 0}
    report, changes, copy, fix = repaired(VOCSegmentation, tmp_path, **options)
    assert report.clean and actions(changes) == {"left out": "unreadable-image unreadable-image"}
    assert stems_of(copy, "train") == ["2007_000032"] and stems_of(copy, "val") == ["2008_000073", "2010_000003"]
    assert stems_of(copy, "test") == stems_of(copy, "val")
    assert (fix.folder / "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt").read_text() == "2007_000032\n"


def test_an_image_excluded_from_one_part_of_a_composed_set_stays_excluded(tmp_path):
    """2008_000073 is in VOC's val and in SBD's train: train_aug has no image of val."""
    root = tmp_path / "data"
    year = voc_sbd_masks.write_voc_masks(root) / "VOC2012"
    voc_sbd_masks.write_sbd(tmp_path / "sbd")
    for folder in (root, tmp_path / "sbd"):
        make_images_unique(folder)
    truncate(year / "JPEGImages/2008_000073.jpg")
    truncate(tmp_path / "sbd/img/2009_000001.jpg")
    options = {"root": str(root), "train": "train_aug", "sbd": str(tmp_path / "sbd"), "num_workers": 0}
    report, changes, copy, fix = repaired(VOCSegmentation, tmp_path, **options)
    assert report.clean and actions(changes) == {"left out": "unreadable-image unreadable-image"}
    assert fix.init_args["train"] == ["2012_train", "sbd_train"] and fix.init_args["sbd"] is None
    assert stems_of(copy, "train") == ["2007_000032", "2008_000015", "2008_000002"]
    assert stems_of(copy, "val") == ["2009_000013", "2010_000003"]
    np.testing.assert_array_equal(
        copy.make_source("train")[2]["mask"], voc_sbd_masks.classes_of("2008_000002", of_sbd=True)
    )


def test_voc_instances_get_lists(tmp_path):
    root = tmp_path / "data"
    devkit = root / "VOCdevkit"
    for split, stems in (("train", ["000001", "000002"]), ("val", ["000003", "000004"])):
        voc_sbd_masks.write_set(devkit, "2012", "Segmentation", split, stems)
        for stem in stems:
            plane = np.zeros((small_datasets.HEIGHT, small_datasets.WIDTH), np.uint8)
            plane[5:20, 5:30] = 1
            write_image(devkit / "VOC2012/JPEGImages" / f"{stem}.jpg", unique_image(int(stem)))
            voc_sbd_masks.write_palette(devkit / "VOC2012/SegmentationObject" / f"{stem}.png", plane)
            voc_sbd_masks.write_palette(devkit / "VOC2012/SegmentationClass" / f"{stem}.png", 8 * plane)
    truncate(devkit / "VOC2012/JPEGImages/000001.jpg")
    report, changes, copy, _ = repaired(VOCInstances, tmp_path, root=str(root), num_workers=0)
    assert report.clean and actions(changes) == LEFT_OUT
    assert stems_of(copy, "train") == ["000002"] and copy.make_source("train")[0]["labels"].tolist() == [7]


@pytest.mark.parametrize(
    "make, write", [(InstanceMasks, write_instance_masks), (Cityscapes, write_cityscapes), (ADE20K, write_ade20k)]
)
def test_trees_are_linked_without_unreadable_images(tmp_path, make, write):
    bad = write(tmp_path / "data")
    truncate(bad)
    report, changes, copy, _ = repaired(make, tmp_path, root=str(tmp_path / "data"), num_workers=0)
    assert report.clean and actions(changes) == LEFT_OUT
    assert changes[0]["file"] == str(bad.relative_to(tmp_path / "data"))
    assert len(copy.make_source("train")) == 2 and len(copy.make_source("val")) == 3
    assert bad.stem not in "".join(stems_of(copy, "train"))


def test_a_set_that_cannot_be_corrected(tmp_path, capsys, monkeypatch):
    root = tmp_path / "data"
    truncate(write_instance_masks(root))
    for split in ("train", "val"):
        (root / split / "classes.csv").write_text("id,label\n1,cell\n")
    monkeypatch.chdir(tmp_path)
    words = ["instance_masks", "--root", "data", "--class_file", "{split}/classes.csv", "--fix", "fixed"]
    assert command([*words, "--workers", "0"]) == 1
    out = capsys.readouterr().out
    assert f"{tmp_path / 'fixed'}: no corrected copy\n" in out and " change" not in out and "fixed.yaml" not in out
    assert "1 sample to leave out is listed in excluded.csv" in out
    assert "2.png" in (tmp_path / "fixed/excluded.csv").read_text()
    assert not (tmp_path / "fixed/fixed.yaml").exists()


def test_paths_may_be_text(tmp_path):
    write_instance_masks(tmp_path / "data")
    report = check(InstanceMasks(str(tmp_path / "data"), num_workers=0), processes=0)
    assert write_html(report, str(tmp_path / "new/p.html")) == tmp_path / "new/p.csv"
    assert write_fix(report, str(tmp_path / "fixed")).folder == tmp_path / "fixed"


def test_the_folder_must_be_empty_and_outside_the_data(tmp_path):
    root = small_datasets.write_folder(tmp_path / "data")
    report = check(ImageFolder(str(root), num_workers=0), processes=0)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="folder: must be new or empty"):
        write_fix(report, tmp_path / "full")
    with pytest.raises(ValueError, match="folder: must be outside"):
        write_fix(report, root / "fixed")
    assert (tmp_path / "full" / "a.txt").read_text() == "mine" and not (root / "fixed").exists()
