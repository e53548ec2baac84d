"""One object per image from VOC's layout: by hand and against torchvision."""

import albumentations as A
import numpy as np
import pytest
import torch
import torchvision

from striate.datamodules import VOCLocalization
from striate.datamodules.images.read import ImageError
from striate.datamodules.voc.detection import VOC_CLASSES
from striate.tests.helpers.coco_voc import one_box_samples, write_voc
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

DOG, CAT = VOC_CLASSES.index("dog"), VOC_CLASSES.index("cat")
# each box in VOC's own form; the comment says what counts
OBJECTS = {
    "000001": [("dog", (11, 21, 60, 80), 0)],
    "000002": [("cat", (1, 1, 40, 40), 0), ("dog", (5, 5, 300, 200), 0)],  # one dog
    "000003": [("dog", (1, 1, 400, 300), 1), ("cat", (101, 51, 500, 375), 0)],  # the dog is difficult
    "000004": [],
    "000005": [("dog", (1, 1, 10, 10), 0), ("dog", (3, 3, 13, 12), 0), ("dog", (50, 1, 60, 10), 0)],  # two are largest
    "000006": [("cat", (1, 1, 40, 40), 1)],
}
BOX = {
    "000001": [10, 20, 60, 80],
    "000002": [4, 4, 300, 200],
    "000003": [100, 50, 500, 375],
    "000005": [2, 2, 13, 12],
}


def voc(root, **options):
    return VOCLocalization(str(root), "2007", num_workers=0, batch_size=2, **options)


def test_voc_by_hand(tmp_path):
    write_voc(tmp_path, OBJECTS)
    one = voc(tmp_path)
    assert one_box_samples(one.make_source("train")) == [("000001", DOG, BOX["000001"]), ("000003", CAT, BOX["000003"])]
    assert one.class_names == list(VOC_CLASSES)
    largest = voc(tmp_path, objects="largest").make_source("val")
    labels = {"000001": DOG, "000002": DOG, "000003": CAT, "000005": DOG}
    assert one_box_samples(largest) == [(name, labels[name], box) for name, box in BOX.items()]
    assert largest.labels.dtype == np.int64 and largest.boxes.dtype == np.float32


def test_voc_classes_of_interest_are_numbered_as_given(tmp_path):
    write_voc(tmp_path, OBJECTS)
    data = voc(tmp_path, classes=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert [label for _, label, _ in one_box_samples(data.make_source("train"))] == [0, 1]
    dogs = voc(tmp_path, classes=["dog"])
    assert one_box_samples(dogs.make_source("test")) == [("000001", 0, BOX["000001"]), ("000002", 0, BOX["000002"])]
    cats = voc(tmp_path, classes=["cat"], objects="largest")
    assert one_box_samples(cats.make_source("train")) == [("000002", 0, [0, 0, 40, 40]), ("000003", 0, BOX["000003"])]


@pytest.mark.parametrize("rule", ["one", "largest"])
def test_voc_against_torchvision(tmp_path, rule):
    write_voc(tmp_path, OBJECTS)
    expected = []
    for _, target in torchvision.datasets.VOCDetection(str(tmp_path), "2007", "train"):
        boxes = []
        for one in target["annotation"]["object"]:
            x1, y1, x2, y2 = (float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            if one["difficult"] == "0":
                boxes.append((one["name"], [x1 - 1, y1 - 1, x2, y2]))
        if len(boxes) == 1 or (boxes and rule == "largest"):
            name, box = max(boxes, key=lambda b: (b[1][2] - b[1][0]) * (b[1][3] - b[1][1]))
            expected.append((target["annotation"]["filename"].split(".")[0], VOC_CLASSES.index(name), box))
    assert one_box_samples(voc(tmp_path, objects=rule).make_source("train")) == expected


def test_batches_and_their_augmentation(tmp_path):
    write_voc(tmp_path, OBJECTS)
    data = voc(tmp_path, objects="largest", train_transform=[A.HorizontalFlip(p=1)], sampling="class_balanced")
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (2, 3, 375, 500) and batch["image"].dtype == torch.uint8
    assert batch["label"].tolist() == [DOG, DOG] and batch["label"].dtype == torch.int64
    assert batch["box"].tolist() == [BOX["000001"], BOX["000002"]] and batch["box"].dtype == torch.float32
    x1, y1, x2, y2 = BOX["000003"]
    np.testing.assert_allclose(data.datasets["train"][2]["box"], [500 - x2, y1, 500 - x1, y2], rtol=3e-7)
    labels = torch.cat([b["label"] for b in data.train_dataloader()]).tolist()
    assert labels.count(CAT) == labels.count(DOG) == 2


def test_unusable_boxes(tmp_path):
    write_voc(tmp_path, {"000001": [("dog", (10, 20, 9, 40), 0)], "000002": [("cat", (1, 1, 9, 9), 0)]})
    with warns_of("box-zero-area"):
        assert one_box_samples(voc(tmp_path).make_source("train")) == [("000002", CAT, [0, 0, 9, 9])]
    with stops_at("box-zero-area", r"000001.xml, object 1: "):
        voc(tmp_path, strict=True).make_source("train")


def test_an_image_of_another_size_than_annotated_is_unreadable(tmp_path):
    folder = write_voc(tmp_path, OBJECTS) / "VOC2007" / "JPEGImages"
    source = voc(tmp_path).make_source("train")
    write_image(folder / "000001.jpg", noise(375, 500))
    with pytest.raises(ImageError, match="000001.jpg: .*375x500, .*annotations.* 500x375"):
        source[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objects": "larges"}, "objects.*got 'larges'; did you mean 'largest'"),
        ({"classes": ["dgo"]}, "classes.*20.*got 'dgo'; did you mean 'dog'"),
        ({"classes": ["dog", "cat", "dog"]}, "classes.*got 'dog' more than once"),
        ({"classes": []}, r"classes.*got \[\]"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        voc("x", class_names=list(VOC_CLASSES), **options)


def test_a_split_without_images(tmp_path):
    write_voc(tmp_path, OBJECTS)
    message = r"train: \['2007_train'\]: .*exactly one object.*bus.*objects: largest"
    with pytest.raises(ValueError, match=message):
        voc(tmp_path, classes=["bus"]).make_source("train")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train.txt'. VOCLocalization expects.*contains: nothing"):
        voc(tmp_path).make_source("train")
