"""An unusable entry hides no other fault of its split; check and repair name each fault alike."""

import json

import numpy as np
import pytest

from striate.datamodules import (
    CocoDetection,
    DetectionManifest,
    InstanceMasks,
    LocalizationManifest,
    Manifest,
    VOCDetection,
    YoloDetection,
)
from striate.datamodules.doctor import check
from striate.tests.helpers import small_datasets
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.small_datasets import actions, repaired, unique_image, write_object_table


def found(report):
    return dict(report.findings.counts)


def places(report, code):
    return [finding.location.rpartition("/")[2] for finding in report.findings.of(code)]


def coco_with(root, change):
    small_datasets.edit(small_datasets.write_coco(root), change)
    return {"root": str(root), "num_workers": 0}


def box_of_no_area(content, number=2):
    content["annotations"][number]["bbox"] = [5, 6, 0, 24]


@pytest.mark.parametrize(
    "change, code, where, detail",
    [
        (lambda c: c["annotations"][0].pop("bbox"), "unusable-annotation", "annotation 1 (annotations[0])",
         "bbox must be a list, got no such field"),
        (lambda c: c["annotations"][0].update(bbox=[1, 2, "3", 4]), "unusable-annotation",
         "annotation 1 (annotations[0])", "got [1, 2, '3', 4]"),
        (lambda c: c["annotations"][0].update(category_id="cat"), "unusable-annotation",
         "annotation 1 (annotations[0])", "category_id must be a whole number, got 'cat'"),
        (lambda c: c["annotations"].insert(0, "no object"), "unusable-annotation", "annotations[0]",
         "got 'no object'"),
        (lambda c: c["images"][0].pop("height"), "bad-target", "image 'train0.png' (images[0])",
         "height must be a whole number"),
        (lambda c: c["images"][0].update(file_name="../train0.png"), "bad-target",
         "image '../train0.png' (images[0])", "leads out of its folder"),
        (lambda c: c["images"][0].update(width=0), "bad-target", "image 'train0.png' (images[0])",
         "got 0 and 40"),
        (lambda c: c["images"].append(dict(c["images"][3], file_name="train0.png")), "bad-target",
         "image 'train0.png' (images[4])", "more than once"),
    ],
)  # fmt: skip
def test_coco(tmp_path, change, code, where, detail):
    def both(content):
        box_of_no_area(content)
        change(content)

    root = tmp_path / "data"
    options = coco_with(root, both)
    report = check(CocoDetection(**options), splits=("train", "val"), processes=0, ignored=("orphan-image",))
    assert found(report) == {code: 1, "box-zero-area": 1}
    (finding,) = report.findings.of(code)
    assert finding.location.endswith(f"instances_train2017.json, {where}") and detail in finding.detail
    assert [split.name for split in report.statistics.splits] == ["train", "val"]
    with pytest.raises(ValueError, match="instances_train2017.json, ") as error:  # which training stops at
        CocoDetection(**options).make_source("train")
    assert detail in str(error.value) and where in str(error.value)
    report, changes, _, _ = repaired(CocoDetection, tmp_path, **options)
    assert not {"bad-target", "unusable-annotation", "box-zero-area"} & set(found(report))
    assert {code, "box-zero-area"} == {change["kind"] for change in changes}


@pytest.mark.parametrize(
    "change, detail",
    [
        (lambda c: c["categories"][0].pop("name"), "name must be text"),
        (lambda c: c["categories"].append({"id": 1, "name": "bird"}), "got 1 more than once"),
        (lambda c: c["categories"][0].update(name="lion"), "its categories must equal"),
    ],
)
def test_coco_categories(tmp_path, change, detail):
    def both(content):
        box_of_no_area(content, 3)
        change(content)

    report = check(CocoDetection(**coco_with(tmp_path, both)), processes=0)
    details = [finding.detail for finding in report.findings.of("unopened-split")]
    assert any(detail in one for one in details) and found(report)["box-zero-area"] == 1
    assert len(report.statistics.splits) == 2


@pytest.mark.parametrize(
    "box, polygon, code, action",
    [
        ([70, 6, 20, 24], [[70, 6, 90, 6, 90, 30]], "box-outside", "dropped"),  # and its mask is empty
        ([5, 6, float("nan"), 24], [[1, 1, 2]], "box-not-finite", "dropped"),  # and its mask is none
        ([5, 6, 0, 24], [[5, 6, 25, 6, 25, 30, 5, 30]], "box-zero-area", "box taken from the mask"),
        ([5, 6, 20, 24], [[1, 1, 2]], "bad-mask", "dropped"),
    ],
)
def test_an_object_with_two_faults_is_named_by_its_box(tmp_path, box, polygon, code, action):
    options = coco_with(tmp_path / "data", lambda c: c["annotations"][0].update(bbox=box, segmentation=polygon))
    options["task"] = "instance_segmentation"
    assert found(check(CocoDetection(**options), processes=0)) == {code: 1}
    report, changes, _, _ = repaired(CocoDetection, tmp_path, **options)
    assert report.clean and actions(changes) == {action: code}


def test_voc(tmp_path):
    root = tmp_path / "data"
    small_datasets.write_voc(root)
    folder = root / "VOCdevkit/VOC2007"
    files = sorted((folder / "Annotations").iterdir())
    text = files[0].read_text()
    one = text.index("<xmin>"), text.index("</xmin>")
    two = text.rindex("<ymax>"), text.rindex("</ymax>")
    broken = text[: one[0]] + "<xmin>left" + text[one[1] : two[0]] + "<ymax>0" + text[two[1] :]
    files[0].write_text(broken)
    with (folder / "ImageSets/Main/train.txt").open("a") as file:
        file.write("../../000009\n")
    report = check(VOCDetection(str(root), "2007", num_workers=0), processes=0, ignored=["unused-class"])
    assert found(report) == {"unusable-annotation": 1, "box-inverted": 1, "bad-target": 1}
    assert places(report, "unusable-annotation") == [f"{files[0].name}, object 1"]
    assert "xmin must be a number of pixels, got 'left'" in report.findings.of("unusable-annotation")[0].detail
    assert places(report, "bad-target")[0].endswith("000009")
    assert report.findings.of("box-inverted")[0].location == f"{files[0]}, object 2"
    report, changes, _, _ = repaired(VOCDetection, tmp_path, root=str(root), year="2007", num_workers=0)
    assert report.clean, list(report.findings)
    assert sorted({change["kind"] for change in changes}) == ["bad-target", "box-inverted", "unusable-annotation"]


@pytest.mark.parametrize(
    "row, code",
    [
        ("0.png,cat,1,2,3", "unusable-annotation"),
        ("0.png,cat,1,2,3,", "unusable-annotation"),
        ("0.png,,1,2,3,4", "missing-annotation"),
        (",cat,1,2,30,40", "missing-annotation"),
        ("0.png,cat,1,2,x,40", "box-not-finite"),
        ("../0.png,cat,1,2,30,40", "bad-target"),
    ],
)
def test_a_table_of_objects(tmp_path, row, code):
    rows = ["0.png,cat,5,6,25,30", "1.png,dog,5,6,5,30", "2.png,dog,5,6,25,30", row]
    options = write_object_table(tmp_path / "data", rows) | {"class_names": ["cat", "dog"]}
    report = check(DetectionManifest(**options), processes=0)
    assert found(report) == {code: 1, "box-zero-area": 1}, list(report.findings)
    assert places(report, code) == ["train.csv, line 5"] and places(report, "box-zero-area") == ["train.csv, line 3"]
    with pytest.raises(ValueError, match=r"train.csv, line 5"):
        DetectionManifest(**options).make_source("train")
    report, changes, _, _ = repaired(DetectionManifest, tmp_path, **options)
    assert report.clean, list(report.findings)
    assert sorted(change["kind"] for change in changes) == sorted([code, "box-zero-area"])


@pytest.mark.parametrize(
    "row, code",
    [
        ("2.png,cat,1,2,x,40", "box-not-finite"),
        ("0.png,cat,1,2,30,40", "duplicate-image"),
        ("../2.png,cat,1,2,30,40", "bad-target"),
        ("2.png,,1,2,30,40", "missing-annotation"),
    ],
)
def test_a_table_with_one_object_per_image(tmp_path, row, code):
    options = write_object_table(tmp_path / "data", ["0.png,cat,5,6,25,30", "1.png,dog,5,6,5,30", row])
    options |= {"class_names": ["cat", "dog"]}
    (tmp_path / "data/val.csv").write_text("path,label,x1,y1,x2,y2\nv0.png,cat,5,6,25,30\nv1.png,dog,5,6,25,30\n")
    ignored = ("orphan-image", "unused-image", "absent-class")
    report = check(LocalizationManifest(**options), processes=0, ignored=ignored)
    assert found(report) == {code: 1, "box-zero-area": 1}, list(report.findings)
    assert places(report, code) == ["train.csv, line 4"]
    with pytest.raises(ValueError, match=r"train.csv, line 4"):
        LocalizationManifest(**options).make_source("train")
    report, changes, _, _ = repaired(LocalizationManifest, tmp_path, **options)
    assert not {code, "box-zero-area"} & set(found(report))
    assert sorted(change["kind"] for change in changes) == sorted([code, "box-zero-area"])


def test_a_table_of_labels(tmp_path):
    table = small_datasets.write_manifest(tmp_path)
    with table.open("a") as file:
        file.write("../x.png,cat\nimages/train0.png,bird\n")
    options = {"train": str(table), "val": str(tmp_path / "val.csv"), "root": str(tmp_path), "num_workers": 0}
    report = check(Manifest(**options, class_names=["cat", "dog"]), processes=0)
    assert found(report) == {"bad-target": 1, "label-outside": 1} and len(report.records[0]) == 4
    assert places(report, "bad-target") == ["train.csv, line 6"]


def test_a_yolo_list_of_images(tmp_path):
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_image(tmp_path / f"images/{name}.png", unique_image(seed))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0 0.1\n")
    (tmp_path / "labels/c.txt").write_text("0 0.5 0.5 0.2 0.1\n")
    (tmp_path / "train.txt").write_text("images/a.png\n../../etc/x.png\nimages/b.png\n")
    (tmp_path / "val.txt").write_text("images/c.png\n")
    (tmp_path / "data.yaml").write_text("names: [cat]\ntrain: train.txt\nval: val.txt\n")
    report = check(YoloDetection(str(tmp_path), num_workers=0), processes=0)
    assert found(report) == {"bad-target": 1, "box-zero-area": 1, "no-objects": 1}
    assert places(report, "bad-target") == ["train.txt, line 2"] and len(report.records[0]) == 2


def test_bad_paths_are_found_by_the_fast_decoder_too(tmp_path):
    """A bad path is found in a file of COCO's types throughout too."""

    def change(content):
        content["images"][1]["file_name"] = "/etc/train1.png"
        box_of_no_area(content, 0)

    file = small_datasets.write_coco(tmp_path)
    small_datasets.edit(file, change)
    report = check(CocoDetection(str(tmp_path), num_workers=0), processes=0, ignored=("orphan-image",))
    assert found(report) == {"bad-target": 1, "box-zero-area": 1}
    assert len(report.records[0]) == len(json.loads(file.read_text())["images"]) - 1
    assert report.statistics.splits[0].objects == 8 - 2 - 1  # those of the image, and the box


def test_an_image_without_instance_mask(tmp_path):
    for number in range(3):
        write_image(tmp_path / f"train/images/{number}.png", unique_image(number))
        write_image(tmp_path / f"val/images/{number}.png", unique_image(100 + number))
        for split in ("train", "val"):
            write_image(tmp_path / f"{split}/masks/{number}.png", np.tri(40, 60, dtype=np.uint16))
    (tmp_path / "train/masks/1.png").unlink()
    write_image(tmp_path / "train/images/2.png", unique_image(2)[:30])
    report = check(InstanceMasks(str(tmp_path), num_workers=0), processes=0)
    assert found(report) == {"missing-annotation": 1, "size-mismatch": 1}, list(report.findings)
    assert report.findings.of("missing-annotation")[0].location == str(tmp_path / "train/images/1.png")
