"""Objects of VOC and SBD with masks: by hand, boxes against torchvision, and errors for bad files."""

import albumentations as A
import numpy as np
import pytest
import torch
from torchvision.ops import masks_to_boxes

from striate.datamodules import VOCInstances
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_gray, write_image
from striate.tests.helpers.voc_sbd_masks import (
    SBD_SETS,
    VOC_SETS,
    boundaries,
    classes_of,
    write_mat,
    write_palette,
    write_sbd,
    write_set,
    write_voc_masks,
)

# two people (15) and one pixel of a dog (12), with borders; one of the second person's four pixels has another class
OBJECTS = [
    [0, 255, 255, 255, 0, 0, 0, 0, 0],
    [255, 1, 1, 255, 2, 2, 255, 0, 0],
    [255, 1, 1, 255, 2, 2, 255, 0, 0],
    [0, 255, 255, 255, 255, 255, 0, 0, 0],
    [4, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
]
CLASSES = [
    [0, 255, 255, 255, 0, 0, 0, 0, 0],
    [255, 15, 15, 255, 15, 9, 255, 0, 0],
    [255, 15, 15, 255, 15, 15, 255, 0, 0],
    [0, 255, 255, 255, 255, 255, 0, 0, 0],
    [12, 0, 0, 0, 0, 0, 0, 0, 0],
    [0, 0, 0, 0, 0, 0, 0, 0, 0],
]
PLANE = np.array([[0, 2, 2, 0, 0, 0, 0, 0, 0]] + [[1, 1, 2, 0, 0, 0, 0, 0, 0]] * 4 + [[0] * 9], np.uint8)


def tree(root):
    devkit = write_voc_masks(root)
    for (year, kind, _), stems in VOC_SETS.items():
        for stem in stems if kind == "Segmentation" else ():
            write_palette(devkit / f"VOC{year}" / "SegmentationObject" / f"{stem}.png", np.array(OBJECTS))
            write_palette(devkit / f"VOC{year}" / "SegmentationClass" / f"{stem}.png", np.array(CLASSES))
    dataset = write_sbd(root / "benchmark_RELEASE" / "dataset")
    for stem in sum(SBD_SETS.values(), []):
        write_inst(dataset / "inst" / f"{stem}.mat", PLANE, [20, 1])
    return devkit


def write_inst(path, plane, categories):
    column = np.array(categories, np.uint8).reshape(-1, 1)
    return write_mat(path, "GTinst", Segmentation=plane, Boundaries=boundaries(len(column)), Categories=column)


def module(root, **options):
    return VOCInstances(str(root), **{"num_workers": 0, "batch_size": 2} | options)


def test_objects_of_voc_by_hand(tmp_path):
    tree(tmp_path)
    data = module(tmp_path)
    data.setup("fit")
    sample = data.datasets["train"][0]
    assert [data.class_names[label] for label in sample["labels"]] == ["person", "person", "dog"]
    assert sample["boxes"].tolist() == [[1, 1, 3, 3], [4, 1, 6, 3], [0, 4, 1, 5]]
    assert sample["area"].tolist() == [4, 4, 1] and sample["image_id"] == 2007000032
    assert not sample["iscrowd"].any() and not sample["difficult"].any()
    expected = np.stack([np.array(OBJECTS) == number for number in (1, 2, 4)])
    np.testing.assert_array_equal(sample["masks"], expected)
    assert sample["masks"].dtype == np.uint8 and len(data.class_names) == 20
    batch = next(iter(data.val_dataloader()))
    assert [target["masks"].shape for target in batch["target"]] == [(3, 6, 9)] * 2
    assert batch["target"][1]["image_id"].item() == 2009000013


def test_objects_of_sbd_by_hand(tmp_path):
    tree(tmp_path)
    source = module(tmp_path, train="sbd_train", val="sbd_val").make_source("train")
    for sample in source:
        assert sample["labels"].tolist() == [19, 0] and sample["boxes"].tolist() == [[0, 1, 2, 5], [1, 0, 3, 5]]
        np.testing.assert_array_equal(sample["masks"], np.stack([PLANE == 1, PLANE == 2]))
    assert [source[number]["image_id"] for number in range(3)] == [2008000015, 2008000073, 2008000002]


def test_boxes_against_torchvision_on_random_masks(tmp_path):
    devkit = tree(tmp_path)
    source = module(tmp_path).make_source("train")
    for seed in range(20):
        generator = np.random.default_rng(seed)
        plane = generator.integers(0, 4, (6, 9)) * (generator.random((6, 9)) < 0.2)
        write_palette(devkit / "VOC2012" / "SegmentationObject" / "2007_000032.png", plane)
        write_palette(devkit / "VOC2012" / "SegmentationClass" / "2007_000032.png", plane)
        sample = source[0]
        assert sample["labels"].tolist() == [number - 1 for number in (1, 2, 3) if (plane == number).any()]
        if len(sample["masks"]):
            theirs = masks_to_boxes(torch.from_numpy(sample["masks"])).numpy() + np.array(
                [0, 0, 1, 1]
            )  # torchvision includes the last pixel
            np.testing.assert_array_equal(sample["boxes"], theirs)


def test_sets_with_sbd(tmp_path):
    tree(tmp_path)
    data = module(tmp_path, train="train_aug")
    paths = [sample["path"] for sample in data.make_source("train")]
    assert [path[-15:-4] for path in paths] == ["2007_000032", "2008_000015", "2008_000002", "2009_000001"]
    # the second image is in VOC and in SBD; VOC's objects are used
    assert [len(sample["labels"]) for sample in data.make_source("train")] == [3, 3, 2, 2]
    data = module(tmp_path, train="sds_train", val="sds_val")
    assert [sample["image_id"] for sample in data.make_source("train")] == [2008000015, 2008000002]
    assert [sample["image_id"] for sample in data.make_source("val")] == [2008000073, 2009000001, 2010000003]
    assert len(data.make_source("test")) == 3


def test_objects_without_a_class_or_a_pixel(tmp_path):
    devkit = tree(tmp_path)
    no_class = np.array(CLASSES)
    no_class[4, 0], no_class[1:3, 4:6] = 0, 255  # the dog is on background, the second person on a border
    write_palette(devkit / "VOC2012" / "SegmentationClass" / "2007_000032.png", no_class)
    with warns_of("bad-mask", "object 2", 2):
        sample = module(tmp_path).make_source("train")[0]
    assert sample["boxes"].tolist() == [[1, 1, 3, 3]] and len(sample["masks"]) == 1
    with stops_at("bad-mask", r"2007_000032.png, object 2 \(and 1 more\): .*background"):
        module(tmp_path, strict=True).make_source("train")[0]
    write_inst(tmp_path / "benchmark_RELEASE" / "dataset" / "inst" / "2009_000001.mat", PLANE, [20, 1, 5])
    with warns_of("bad-mask", "object 3"):
        sample = module(tmp_path, test="sbd_val").make_source("test")[0]
    assert sample["labels"].tolist() == [19, 0]


def test_an_image_without_objects(tmp_path):
    devkit = tree(tmp_path)
    for folder in ("SegmentationObject", "SegmentationClass"):
        write_palette(devkit / "VOC2012" / folder / "2007_000032.png", np.zeros((6, 9)))
    write_inst(tmp_path / "benchmark_RELEASE" / "dataset" / "inst" / "2009_000001.mat", np.zeros((6, 9), np.uint8), [])
    data = module(tmp_path, test="sbd_val", train_transform=[A.HorizontalFlip(p=1)])
    for source in (data.make_source("train"), data.make_source("test")):
        assert source[0]["masks"].shape == (0, 6, 9) and source[0]["boxes"].shape == (0, 4)
    data.setup("fit")
    assert data.datasets["train"][0]["labels"].shape == (0,)


@pytest.mark.parametrize(
    "folder, values, error, message",
    [
        (
            "SegmentationClass",
            np.full((6, 9), 21),
            ValueError,
            "2007_000032.png: label .*got the value 21; .*0 =",
        ),
        (
            "SegmentationClass",
            np.zeros((9, 6)),
            ImageError,
            r"Object/.*: the mask is 9x6, but the classes in '.*' are 6x9",
        ),
        ("JPEGImages", None, ImageError, r"image is 5x5, .*Object/2007_000032.png' is 9x6"),
    ],
)
def test_inconsistent_masks(tmp_path, folder, values, error, message):
    devkit = tree(tmp_path)
    if values is None:
        write_image(devkit / "VOC2012" / folder / "2007_000032.jpg", noise(5, 5))
    else:
        write_palette(devkit / "VOC2012" / folder / "2007_000032.png", values)
    with pytest.raises(error, match=message):
        module(tmp_path).make_source("train")[0]


def test_masks_of_16_bits(tmp_path):
    devkit = tree(tmp_path)
    write_gray(devkit / "VOC2012" / "SegmentationObject" / "2007_000032.png", np.full((6, 9), 300, np.uint16))
    with pytest.raises(ImageError, match="2007_000032.png: .*8 bits.*got 16"):
        module(tmp_path).make_source("train")[0]


@pytest.mark.parametrize(
    "plane, categories, message",
    [
        (PLANE, [20, 21], "object 2: label is not a class, got 21; classes are 1 to 20"),
        (PLANE, [0, 1], "object 1: label is not a class, got 0; classes are 1 to 20"),
        (PLANE, [20], "pixels of object 2, but GTinst.Categories has 1 objects"),
    ],
)
def test_inconsistent_files_of_sbd(tmp_path, plane, categories, message):
    tree(tmp_path)
    write_inst(tmp_path / "benchmark_RELEASE" / "dataset" / "inst" / "2009_000001.mat", plane, categories)
    with pytest.raises(ValueError, match=f"inst/2009_000001.mat.*{message}"):
        module(tmp_path, test="sbd_val").make_source("test")[0]


def test_damaged_files_of_sbd_are_unreadable_images(tmp_path):
    tree(tmp_path)
    folder = tmp_path / "benchmark_RELEASE" / "dataset" / "inst"
    write_mat(folder / "2009_000001.mat", "GTinst", Segmentation=PLANE)
    write_mat(folder / "2010_000003.mat", "GTinst", Segmentation=PLANE, Categories=np.array([[1.5]]))
    source = module(tmp_path, test="sbd_val").make_source("test")
    with pytest.raises(ImageError, match="2009_000001.mat: no GTinst.Categories"):
        source[0]
    with pytest.raises(ImageError, match="2010_000003.mat: GTinst.Categories.*float64"):
        source[1]
    (folder / "2010_000003.mat").unlink()
    with pytest.raises(ImageError, match=r"2010_000003.mat: No such file"):
        source[1]


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train.txt'\. VOCInstances.*SegmentationObject/2007"):
        module(tmp_path).make_source("train")
    devkit = write_voc_masks(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"train: train: 2 of 2 masks of objects.*\n.*Object/2007_0"):
        module(tmp_path).make_source("train")
    tree(tmp_path)
    (devkit / "VOC2012" / "SegmentationClass" / "2007_000032.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 masks of classes.*\n.*SegmentationClass/2007_00"):
        module(tmp_path).make_source("train")
    (tmp_path / "benchmark_RELEASE" / "dataset" / "inst").rename(tmp_path / "inst_elsewhere")
    with pytest.raises(FileNotFoundError, match=r"(?s)sbd_val needs SBD.*'inst'.*dataset/inst/2008_0"):
        module(tmp_path, test="sbd_val").make_source("test")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd"])
def test_a_name_that_leads_out_of_its_folder(tmp_path, name):
    write_set(tree(tmp_path), "2012", "Segmentation", "train", [name])
    with pytest.raises(ValueError, match="train.txt, line 1: .*folder, got"):
        module(tmp_path).make_source("train")


def test_augmentation_of_extreme_sizes(tmp_path):
    devkit = tree(tmp_path)
    (one, strip), flip = VOC_SETS["2012", "Segmentation", "train"], [A.HorizontalFlip(p=1)]
    wide = np.zeros((20, 20_000))
    wide[3:7, 100:15_000] = 2
    for stem, plane in ((one, np.ones((1, 1))), (strip, wide)):
        write_image(devkit / "VOC2012" / "JPEGImages" / f"{stem}.jpg", noise(plane.shape[1], plane.shape[0]))
        for folder in ("SegmentationObject", "SegmentationClass"):
            write_palette(devkit / "VOC2012" / folder / f"{stem}.png", plane)
    data = module(tmp_path, train_transform=flip)
    data.setup("fit")
    pixel, strip = data.datasets["train"][0], data.datasets["train"][1]
    assert pixel["boxes"].tolist() == [[0, 0, 1, 1]] and pixel["labels"].tolist() == [0]
    assert strip["boxes"].tolist() == [[5_000, 3, 19_900, 7]] and strip["area"].tolist() == [4 * 14_900]


def test_classes_agree_with_the_semantic_reader_s(tmp_path):
    from striate.datamodules import VOCSegmentation

    tree(tmp_path)
    semantic = VOCSegmentation(str(tmp_path), num_workers=0).make_source("train")
    for number, sample in enumerate(module(tmp_path).make_source("train")):
        whole = semantic[number]
        for mask, label in zip(sample["masks"], sample["labels"], strict=True):
            values, counts = np.unique(whole["mask"][mask > 0], return_counts=True)
            assert values[counts.argmax()] == label + 1
    assert not np.array_equal(classes_of("2008_000015"), classes_of("2008_000015", of_sbd=True))
