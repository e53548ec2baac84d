"""One object per image from COCO's format: by hand and against pycocotools."""

import numpy as np
import pytest
from pycocotools.coco import COCO

from striate.datamodules import CocoLocalization
from striate.tests.helpers.coco_voc import coco_content, one_box_samples, write_coco
from striate.tests.helpers.faults import stops_at, warns_of


def coco(root, **options):
    return CocoLocalization(str(root), num_workers=0, batch_size=2, **options)


def test_coco_by_hand(tmp_path):
    write_coco(tmp_path)
    cars = coco(tmp_path, classes=["car"])
    # the crowd of cars in the same image does not count
    assert one_box_samples(cars.make_source("train")) == [
        ("000000000010", 0, np.float32([10.5, 5.25, 30.75, 20.01]).tolist())
    ]
    assert cars.category_ids == [3] and cars.class_names == ["car"]
    data = coco(tmp_path, classes=["brush", "dog"], objects="largest")
    assert one_box_samples(data.make_source("val")) == [
        ("000000000010", 1, [2, 2, 59.5, 39]),
        ("000000000007", 1, [7, 16, 26, 35]),
    ]
    assert data.category_ids == [90, 18]
    one = coco(tmp_path, classes=["brush", "dog"])
    assert [name for name, _, _ in one_box_samples(one.make_source("test"))] == ["000000000010"]
    assert coco(tmp_path).class_names == ["car", "dog", "brush"]


def test_coco_against_pycocotools(tmp_path, capsys):
    reference = COCO(str(write_coco(tmp_path)))
    data = coco(tmp_path, objects="largest")
    expected = {}
    for image in reference.getImgIds():
        found = [a for a in reference.loadAnns(reference.getAnnIds(imgIds=image)) if not a["iscrowd"]]
        if found:
            largest = max(found, key=lambda a: a["bbox"][2] * a["bbox"][3])
            x, y, w, h = largest["bbox"]
            expected[f"{image:012d}"] = (largest["category_id"], np.float32([x, y, x + w, y + h]).tolist())
    found = {name: (data.category_ids[label], box) for name, label, box in one_box_samples(data.make_source("train"))}
    assert found == expected and len(found) == 2


def test_unknown_classes(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match="classes.*3.*got 'dgo'; did you mean 'dog'"):
        coco(tmp_path, classes=["dgo"]).setup("fit")
    with pytest.raises(ValueError, match="train_annotations: .*train2017.json: .*exactly one object"):
        coco(tmp_path).make_source("train")


def test_unusable_boxes(tmp_path):
    content = coco_content()
    content["annotations"][2]["bbox"] = [1, 2, float("nan"), 5]
    write_coco(tmp_path, content)
    with warns_of("box-not-finite"):
        assert len(coco(tmp_path).make_source("train")) == 1  # one of two objects is left
    with stops_at("box-not-finite", "annotation 3: "):
        coco(tmp_path, strict=True).make_source("train")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)val2017.json'. CocoLocalization expects.*ROOT/val2017"):
        coco(tmp_path).setup("validate")
