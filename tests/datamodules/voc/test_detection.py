"""VOC's layout: boxes by hand and against torchvision's reader, and errors for bad files."""

import numpy as np
import pytest
import torchvision

from striate.datamodules import VOCDetection, VOCSegmentation
from striate.datamodules.voc.detection import VOC_CLASSES
from striate.tests.helpers.coco_voc import VOC_OBJECTS, voc_xml, write_voc
from striate.tests.helpers.faults import stops_at, warns_of


def module(root, year="2007", **options):
    return VOCDetection(str(root), year, num_workers=0, batch_size=2, **options)


def test_boxes_labels_and_flags_by_hand(tmp_path):
    write_voc(tmp_path)
    data = module(tmp_path)
    data.setup("fit")
    sample = data.datasets["train"][0]
    # 62 pixels from the 263rd to the 324th; the last box covers the whole image
    assert sample["boxes"].tolist() == [[262, 210, 324, 339], [4, 243, 67, 374], [0, 0, 500, 375]]
    assert [data.class_names[label] for label in sample["labels"]] == ["chair", "chair", "person"]
    assert sample["difficult"].tolist() == [False, True, False] and not sample["iscrowd"].any()
    assert sample["area"].tolist() == [62 * 129, 63 * 131, 500 * 375] and sample["image_id"] == 5
    batch = next(iter(data.val_dataloader()))
    assert [target["image_id"].item() for target in batch["target"]] == [5, 7]
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 375, 500)] * 2
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)


@pytest.mark.parametrize("year, names", [("2007", ["000005", "000007"]), ("2012", ["2008_000008"])])
def test_against_torchvision(tmp_path, year, names):
    write_voc(tmp_path)
    theirs = torchvision.datasets.VOCDetection(str(tmp_path), year, "trainval")
    ours = module(tmp_path, year, train=[f"{year}_trainval"]).make_source("train")
    assert len(theirs) == len(ours) == len(names)
    for (image, target), sample in zip(theirs, ours, strict=True):
        assert sample["image"].shape[:2] == image.size[::-1]
        objects = target["annotation"]["object"]
        boxes = [[float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax")] for one in objects]
        np.testing.assert_array_equal(sample["boxes"], np.array(boxes, np.float32) - [1, 1, 0, 0])
        assert [VOC_CLASSES[label] for label in sample["labels"]] == [one["name"] for one in objects]
        assert [str(int(flag)) for flag in sample["difficult"]] == [one["difficult"] for one in objects]


def test_both_years_and_custom_sets(tmp_path):
    devkit = write_voc(tmp_path)
    both = module(tmp_path, "07+12")
    assert [sample["image_id"] for sample in both.make_source("train")] == [5, 7, 2008000008]
    assert [sample["image_id"] for sample in both.make_source("val")] == [5, 7]
    more = module(devkit, "07+12", train=["2012_val", "2007_test"])  # VOCdevkit itself is a valid root
    assert [sample["image_id"] for sample in more.make_source("train")] == [2008000008, 5, 7]


def test_skip_difficult_applies_to_training(tmp_path):
    write_voc(tmp_path)
    data = module(tmp_path, skip_difficult=True)
    assert data.make_source("train")[0]["boxes"].tolist() == [[262, 210, 324, 339], [0, 0, 500, 375]]
    assert len(data.make_source("val")[0]["boxes"]) == 3


def test_an_image_without_objects(tmp_path):
    write_voc(tmp_path, VOC_OBJECTS | {"000006": []})
    sample = module(tmp_path).make_source("train")[2]
    assert sample["boxes"].shape == (0, 4) and sample["labels"].shape == (0,) and sample["image_id"] == 6


@pytest.mark.filterwarnings("ignore:.*one pixel wide or high")
@pytest.mark.parametrize(
    "box, code",
    [
        ((10, 20, 9, 40), "box-zero-area"),
        ((501, 20, 540, 40), "box-outside"),
        (("nan", 20, 540, 40), "box-not-finite"),
    ],
)
def test_unusable_boxes(tmp_path, box, code):
    write_voc(tmp_path, {"000005": [("car", (1, 1, 1, 1), 0), ("car", box, 0)]})
    where = r"VOC2007/Annotations/000005.xml, object 2"
    with warns_of(code, where):
        source = module(tmp_path).make_source("train")
    assert source[0]["boxes"].tolist() == [[0, 0, 1, 1]]  # one pixel is a box
    with stops_at(code, f"/{where}: "):
        module(tmp_path, strict=True).make_source("train")


def write_xml(tmp_path, text):
    (write_voc(tmp_path) / "VOC2007" / "Annotations" / "000005.xml").write_text(text)


@pytest.mark.parametrize(
    "text, code, message",
    [
        (
            voc_xml("a", (9, 9), [("cat", (1, 1, 2, 2), 0)])[:150],
            "annotation-file",
            r"line 9, column \d+: malformed XML",
        ),
        (voc_xml("a", (9, 9), [("hrose", (1, 1, 2, 2), 0)]), "label-outside", "object 1: .*'hrose'; .*mean 'horse'"),
        (
            voc_xml("a", (9, 9), [("x", (1, 1, 2, 2), 0)]),
            "label-outside",
            "object 1: .*'x'; .*class_names.* 20",
        ),
        (voc_xml("a", (9, 9), [("cat", (1, "x", 2, 2), 0)]), "unusable-annotation", "object 1: bndbox/ymin .*'x'"),
        (voc_xml("a", (9, 0), []), "annotation-file", "size/height.*'0'"),
    ],
)
def test_bad_annotation_files(tmp_path, text, code, message):
    write_xml(tmp_path, text)
    with stops_at(code, f"000005.xml.*{message}"):
        module(tmp_path).make_source("train")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*train.txt'(?s:.*)VOCdevkit/VOC2007/Ann"):
        module(tmp_path).make_source("train")
    folder = write_voc(tmp_path) / "VOC2007"
    (folder / "Annotations" / "000007.xml").unlink()
    with pytest.raises(FileNotFoundError, match=r"000007.xml: .*image set") as error:
        module(tmp_path).make_source("train")
    assert error.value.fault.code == "missing-annotation"
    (folder / "JPEGImages" / "000005.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images.*\n    VOC2007/JPEGImages/000005.jpg"):
        module(tmp_path).make_source("train")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("\n")
    with pytest.raises(ValueError, match="val.txt: .*empty"):
        module(tmp_path).make_source("val")


def test_a_root_one_level_too_deep(tmp_path, monkeypatch):
    devkit = write_voc(tmp_path)
    with pytest.raises(ValueError, match=f"year: .*got '2007'; set root: {devkit} for other years$"):
        module(devkit / "VOC2012").make_source("train")
    with pytest.raises(FileNotFoundError, match="no file '.*VOC2012/VOC2007/ImageSets"):
        VOCSegmentation(str(devkit / "VOC2012"), "2007", num_workers=0).make_source("train")
    monkeypatch.chdir(devkit / "VOC2012")
    with pytest.raises(ValueError, match=r"set root: \.\. for other years$"):
        module(".").make_source("train")


def test_bad_options(tmp_path):
    with pytest.raises(ValueError, match="year.*got '2006'; did you mean '2007'"):
        module("x", "2006")
    with pytest.raises(ValueError, match="train: .*YEAR_NAME.*got 'trainval'"):
        module(tmp_path, train=["trainval"]).make_source("train")
