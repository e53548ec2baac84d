"""Corrected copies have no faults and keep the rest; the originals are unchanged."""

import csv
import json
import shutil
from xml.etree import ElementTree

import numpy as np
import pytest

from striate.datamodules import (
    CocoDetection,
    DetectionManifest,
    ImageFolder,
    Manifest,
    MaskFolder,
    VOCDetection,
    YoloDetection,
)
from striate.datamodules.doctor import FORMATS, check, write_fix
from striate.datamodules.doctor.format_fixers import FIXERS
from striate.datamodules.doctor.formats import format_of
from striate.tests.helpers import small_datasets
from striate.tests.helpers.fixtures import noise, write_image
from striate.tests.helpers.small_datasets import actions, repaired, truncate, unique_image


def test_coco(tmp_path):
    def change(content):
        items = content["annotations"]
        items[0]["bbox"] = [5, 6, 0, 24]
        items[1]["bbox"] = [55, 38, -25, -28]
        items[2]["bbox"] = [-3, 6, 20, 24]
        items[3]["category_id"] = 9
        items.append(dict(items[4], id=50))
        items.append(small_datasets.coco_item(51, 99, small_datasets.BOXES[0]))

    root = tmp_path / "data"
    small_datasets.edit(small_datasets.write_coco(root), change)
    truncate(root / "train2017" / "train3.png")
    report, changes, copy, _ = repaired(CocoDetection, tmp_path, root=str(root), num_workers=0)
    assert report.clean and not report.findings.counts
    assert actions(changes) == {
        "clipped": "box-beyond",
        "corners reordered": "box-inverted",
        "dropped": "box-zero-area duplicate-object label-outside unknown-image",
        "left out": "unreadable-image",
    }
    source = copy.make_source("train")
    assert len(source) == 3
    assert source[0]["boxes"].tolist() == [[30, 10, 55, 38]] and source[0]["labels"].tolist() == [1]
    assert source[1]["boxes"].tolist() == [[0, 6, 17, 30]] and source[2]["labels"].tolist() == [0, 1]
    content = json.loads((tmp_path / "fixed/annotations/instances_train2017.json").read_text())
    assert content["info"] == {"year": 2017} and content["categories"][1]["name"] == "dog"
    assert (tmp_path / "fixed/train2017/train0.png").is_symlink()


def test_coco_masks_repair_boxes(tmp_path):
    def change(content):
        items = content["annotations"]
        items[0]["bbox"] = [5, 6, 0, 24]
        items[1]["segmentation"] = [[1, 1, 2]]
        items[2]["segmentation"] = [[5, 6, 5.1, 6, 5.1, 6.1]]
        items[3]["bbox"] = [0, 0, 10, 10]

    root = tmp_path / "data"
    small_datasets.edit(small_datasets.write_coco(root), change)
    options = {"root": str(root), "task": "instance_segmentation", "num_workers": 0}
    report, changes, copy, _ = repaired(CocoDetection, tmp_path, **options)
    assert report.clean
    assert actions(changes) == {"dropped": "bad-mask empty-mask", "box taken from the mask": "box-zero-area mask-box"}
    source = copy.make_source("train")
    assert source[0]["boxes"].tolist() == [[5, 6, 25, 30]] and source[1]["boxes"].tolist() == [[30, 10, 55, 38]]


def test_duplicates_are_left_out_of_train(tmp_path):
    root = tmp_path / "data"
    small_datasets.write_coco(root)
    shutil.copy(root / "val2017/val1.png", root / "train2017/train0.png")
    shutil.copy(root / "train2017/train1.png", root / "train2017/train2.png")
    report, changes, copy, _ = repaired(CocoDetection, tmp_path, root=str(root), num_workers=0)
    assert report.clean and len(copy.make_source("train")) == 2 and len(copy.make_source("val")) == 2
    found = [(change["kind"], change["location"]) for change in changes]
    assert found == [
        ("leaked-image", "image 'train0.png' (images[0])"),
        ("duplicate-image", "image 'train2.png' (images[2])"),
    ]


def test_a_malformed_file_is_left_to_the_user(tmp_path):
    truncate(small_datasets.write_coco(tmp_path / "data"))
    report = check(CocoDetection(str(tmp_path / "data"), num_workers=0), processes=0)
    fix = write_fix(report, tmp_path / "fixed")
    assert "train_annotations" not in fix.init_args and any("malformed JSON" in text for text in fix.log.remaining)
    assert "# Left to you" in (tmp_path / "fixed/FIXES.md").read_text()


def test_voc(tmp_path):
    root = tmp_path / "data"
    year = small_datasets.write_voc(root)
    objects = [("cat", (20, 30, 10, 5), 0), ("cat", (50, 5, 62.5, 30), 1), ("cta", (1, 1, 9, 9), 0)]
    small_datasets.write_xml(year, "000002", [*objects, ("dog", (80, 1, 90, 9), 0), ("dog", (1, 1, 9, 9), 0)])
    truncate(year / "Annotations" / "000001.xml")
    (year / "Annotations" / "000004.xml").unlink()
    truncate(year / "JPEGImages" / "000003.jpg")
    options = {"root": str(root), "year": "2007", "num_workers": 0}
    report, changes, copy, fix = repaired(VOCDetection, tmp_path, **options)
    assert report.clean and not report.findings.counts
    assert actions(changes) == {
        "left out": "annotation-file missing-annotation unreadable-image",
        "clipped": "box-beyond",
        "corners reordered": "box-inverted",
        "dropped": "box-outside label-outside",
    }
    file = fix.folder / "VOCdevkit/VOC2007/Annotations/000002.xml"
    items = ElementTree.parse(file).getroot().findall("object")
    sides = [[item.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")] for item in items]
    # reordered, pixel 10 is the first inside and 20 the last: x1 = 9, x2 = 20; as written, x1 = 19 and x2 = 10
    assert sides == [["11", "6", "19", "29"], ["50", "5", "60", "30"], ["1", "1", "9", "9"]]
    assert items[1].findtext("difficult") == "1"
    sound = fix.folder / "VOCdevkit/VOC2007/Annotations/000005.xml"
    assert sound.read_bytes() == (year / "Annotations/000005.xml").read_bytes()
    assert len(copy.make_source("train")) == 1


def test_masks(tmp_path):
    root = small_datasets.write_masks(tmp_path / "data")
    write_image(root / "train/masks/1.png", np.full((40, 60), 7, np.uint8))
    (root / "val/masks/1.png").unlink()
    options = {"root": str(root), "class_names": ["ground", "cat", "dog"], "num_workers": 0}
    report, changes, copy, fix = repaired(MaskFolder, tmp_path, **options)
    assert report.clean and actions(changes) == {"left out": "label-outside missing-annotation"}
    assert len(copy.make_source("train")) == 2 and len(copy.make_source("val")) == 1
    with (fix.folder / "excluded.csv").open() as file:
        rows = [(row["split"], row["path"], row["kind"]) for row in csv.DictReader(file)]
    assert sorted(rows) == [
        ("train", str(root / "train/images/1.png"), "label-outside"),
        ("val", str(root / "val/images/1.png"), "missing-annotation"),
    ]
    assert (fix.folder / "manifest_train.csv").read_text().split()[1] == "train/images/0.png,train/masks/0.png"


def test_class_folders(tmp_path):
    root = small_datasets.write_folder(tmp_path / "data")
    truncate(root / "train/cat/1.png")
    (root / "train/empty").mkdir()
    shutil.copy(root / "train/dog/0.png", root / "val/dog/9.png")
    report, changes, copy, fix = repaired(ImageFolder, tmp_path, root=str(root), num_workers=0)
    assert report.clean and copy.class_names == ["cat", "dog"]
    assert actions(changes) == {"left out": "leaked-image unreadable-image"}
    table = (fix.folder / "manifest_train.csv").read_text().splitlines()
    assert table[1:] == ["train/cat/0.png,cat", "train/cat/2.png,cat", "train/dog/1.png,dog", "train/dog/2.png,dog"]


def test_an_image_with_two_labels_is_left_to_the_user(tmp_path):
    root = small_datasets.write_folder(tmp_path / "data")
    shutil.copy(root / "train/dog/0.png", root / "val/cat/9.png")
    report, changes, _, fix = repaired(ImageFolder, tmp_path, root=str(root), num_workers=0)
    assert not changes and dict(report.findings.counts) == {"leaked-image": 1}
    assert any("with different labels (cat, dog)" in text for text in fix.log.remaining)


@pytest.mark.parametrize("rooted", [True, False])
def test_manifests(tmp_path, rooted):
    root = tmp_path / "data"
    with small_datasets.write_manifest(root).open("a") as file:
        file.write("images/gone.png,cat\nimages/train1.png,\nimages/train0.png,cat\n")
    (root / "val.csv").write_text("path,label\nimages/val0.png,cat\nimages/val1.png,bird\n")
    options = {"train": str(root / "train.csv"), "val": str(root / "val.csv"), "num_workers": 0}
    options |= {"root": str(root), "class_names": ["cat", "dog"]} if rooted else {"class_names": ["cat", "dog"]}
    report, changes, copy, _ = repaired(Manifest, tmp_path, **options)
    assert report.clean and not report.findings.counts
    found = {(change["location"], change["kind"]) for change in changes}
    assert found == {
        ("line 6", "missing-image"),
        ("line 7", "missing-annotation"),
        ("line 8", "duplicate-image"),
        ("line 3", "label-outside"),
    }
    assert len(copy.make_source("train")) == 4 and len(copy.make_source("val")) == 1


def test_yolo(tmp_path):
    root = small_datasets.write_yolo(tmp_path / "data")
    (root / "labels/train/1.txt").write_text(
        "0 0.5 0.5 0 0.5\n0 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.5 0.5\n1 1.9 0.5 0.2 0.2\n"
    )
    truncate(root / "images/train/2.png")
    options = {"root": str(root), "num_workers": 0}
    report, changes, copy, _ = repaired(YoloDetection, tmp_path, **options)
    assert report.clean and not report.findings.counts, list(report.findings)
    assert actions(changes) == {"dropped": "box-outside box-zero-area duplicate-object", "left out": "unreadable-image"}
    source = copy.make_source("train")
    assert len(source) == 2 and source[1]["boxes"].tolist() == [[15, 10, 45, 30]]


def test_a_yolo_label_with_a_byte_order_mark(tmp_path):
    root = small_datasets.write_yolo(tmp_path / "data")
    text = "0 0.25 0.5 0.25 0.5\n1 0.75 0.5 0.25 0.5\n"
    (root / "labels/train/0.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (root / "labels/train/1.txt").write_text("0 0.5 0.5 0 0.5\n")
    report, changes, copy, fix = repaired(YoloDetection, tmp_path, root=str(root), num_workers=0)
    assert report.clean and actions(changes) == {"dropped": "box-zero-area"}
    assert (fix.folder / "labels/train/0.txt").read_text() == text
    assert copy.make_source("train")[0]["labels"].tolist() == [0, 1]


def test_a_folder_of_label_studio_with_names_to_merge(tmp_path):
    root = tmp_path / "data"
    for number in range(4):
        write_image(root / "images" / f"{number}.png", unique_image(number))
        (root / "labels").mkdir(exist_ok=True)
        (root / "labels" / f"{number}.txt").write_text(f"{number % 3} 0.5 0.5 0.5 0.5\n")
    (root / "classes.txt").write_text("cat\ndog\nCat\n")
    (root / "labels/3.txt").write_text("1 0.5 0.5 0 0.5\n0 0.5 0.5 0.25 0.5\n")
    options = {"root": str(root), "val_fraction": 0.25, "merge_similar_classes": True, "num_workers": 0}
    report, changes, copy, fix = repaired(YoloDetection, tmp_path, **options)
    assert report.findings.total("error") == 0 and actions(changes) == {"dropped": "box-zero-area"}
    assert fix.init_args["val_fraction"] is None and copy.class_names == ["cat", "dog"]
    assert [len(copy.make_source(split)) for split in ("train", "val")] == [3, 1]


def test_yolo_boxes_beyond_their_image_are_reported_and_clipped(tmp_path):
    """Images are 60 by 40: 0.02 of the width is 1.2 pixels, 0.02 of the height 0.8."""
    root = small_datasets.write_yolo(tmp_path / "data")
    (root / "labels/train/0.txt").write_text("0 0.9 0.5 0.24 0.5\n1 0.5 0.9 0.5 0.24\n")
    (root / "labels/train/1.txt").write_text("0 -0.2 0.25 0.5 0.25 0.5 0.75 -0.2 0.75\n")
    (root / "labels/val/0.txt").unlink()
    data = {"root": str(root), "num_workers": 0}
    found = check(YoloDetection(**data), processes=0)
    places = sorted(finding.location.removeprefix(f"{root}/") for finding in found.findings)
    assert places == ["labels/train/0.txt, line 1", "labels/train/1.txt, line 1"]
    assert dict(found.findings.counts) == {"box-beyond": 2}
    (note,) = [note for note in found.notes if "no label file" in note]
    assert note.startswith("val: 1 of 2 images") and note.endswith(": images/val/0.png")
    report, changes, _, fix = repaired(YoloDetection, tmp_path, **data)
    assert report.clean and actions(changes) == {"clipped": "box-beyond box-beyond"}
    written = (fix.folder / "labels/train/0.txt").read_text().splitlines()
    assert [float(word) for word in written[0].split()] == pytest.approx([0, 0.89, 0.5, 0.22, 0.5])
    assert written[1] == "1 0.5 0.9 0.5 0.24"  # by less than a pixel
    points = np.array((fix.folder / "labels/train/1.txt").read_text().split()[1:], np.float64).reshape(-1, 2)
    assert sorted(map(tuple, points.tolist())) == [(0, 0.25), (0, 0.75), (0.5, 0.25), (0.5, 0.75)]


def test_detection_manifests(tmp_path):
    root = tmp_path / "data"
    for split, first in (("train", 0), ("val", 50)):
        for number in range(3):
            write_image(root / "images" / f"{split}{number}.png", unique_image(first + number))
        rows = [f"images/{split}{number}.png,{label},5,6,25,30" for number in range(3) for label in ("cat", "dog")]
        (root / f"{split}.csv").write_text("\n".join(["path,label,x1,y1,x2,y2", *rows]) + "\n")
    table = (root / "train.csv").read_text().splitlines()
    table[1:5] = [f"images/train0.png,cat,{box}" for box in ("25,30,5,6", "-3,6,20,30", "5,5,5,9", "-3,6,20,30")]
    table[4:6] = ["images/train1.png,cat,80,6,90,30", "images/train2.png,dog,1,1,9,9"]
    (root / "train.csv").write_text("\n".join(table) + "\n")
    options = {"train": str(root / "train.csv"), "val": str(root / "val.csv"), "root": str(root), "num_workers": 0}
    report, changes, copy, _ = repaired(DetectionManifest, tmp_path, **options)
    assert report.clean and not report.findings.counts, list(report.findings)
    assert actions(changes) == {
        "clipped": "box-beyond",
        "corners reordered": "box-inverted",
        "dropped": "box-outside box-zero-area",
    }
    source = copy.make_source("train")
    counts = {len(source[place]["labels"]) for place in range(len(source))}
    assert len(source) == 3 and counts == {2, 0}  # the image whose only box was dropped stays, without objects


def test_a_format_without_a_writer_gives_tables(tmp_path, monkeypatch):
    class Own(ImageFolder):
        """A folder with another name."""

    assert format_of(Own("x")) is FORMATS["folder"]  # by the class it is derived from
    root = small_datasets.write_folder(tmp_path / "data")
    truncate(root / "train/cat/1.png")
    write_image(root / "train/cat/big.png", noise(50, 50, 5))
    report = check(Own(str(root), num_workers=0), processes=0)
    monkeypatch.delitem(FIXERS, "folder")
    fix = write_fix(report, tmp_path / "fixed")
    assert fix.class_path == "striate.datamodules.Manifest"
    copy = Manifest(**fix.init_args, num_workers=0)
    assert check(copy, processes=0).findings.total("error") == 0
    assert len(copy.make_source("train")) == 6 and copy.class_names == ["cat", "dog"]
