"""Semantic masks of VOC and SBD: sets by hand, masks against torchvision's readers, and errors for bad files."""

import albumentations as A
import numpy as np
import pytest
import torchvision

from striate.datamodules import VOCSegmentation
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_image
from striate.tests.helpers.voc_sbd_masks import (
    HEIGHT,
    SBD_SETS,
    VOC_SETS,
    WIDTH,
    classes_of,
    write_mat,
    write_palette,
    write_sbd,
    write_set,
    write_voc_masks,
)


def module(root, **options):
    return VOCSegmentation(str(root), **{"num_workers": 0, "batch_size": 2} | options)


@pytest.fixture
def tree(tmp_path):
    write_voc_masks(tmp_path)
    write_sbd(tmp_path / "benchmark_RELEASE" / "dataset")
    return tmp_path


def stems(source):
    return [source[number]["path"].rpartition("/")[2].removesuffix(".jpg") for number in range(len(source))]


def test_values_are_classes_and_borders_are_ignored(tmp_path):
    write_voc_masks(tmp_path)
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[1, 2], values[1, 3:5], values[2, 0] = 1, 255, 20
    write_palette(tmp_path / "VOCdevkit" / "VOC2012" / "SegmentationClass" / "2007_000032.png", values)
    data = module(tmp_path)
    data.setup("fit")
    sample = data.datasets["train"][0]
    np.testing.assert_array_equal(sample["mask"], values)
    assert sample["mask"].dtype == np.uint8 and sample["image"].shape == (HEIGHT, WIDTH, 3)
    assert [data.class_names[k] for k in (0, 1, 15, 20)] == ["background", "aeroplane", "person", "tvmonitor"]
    assert len(data.class_names) == 21
    batch = next(iter(data.val_dataloader()))
    assert batch["mask"].shape == (2, HEIGHT, WIDTH) and batch["image"].shape == (2, 3, HEIGHT, WIDTH)


@pytest.mark.parametrize("image_set", ["train", "val", "trainval"])
def test_against_torchvision(tree, image_set):
    theirs = torchvision.datasets.VOCSegmentation(str(tree), "2012", image_set)
    ours = module(tree, test=image_set).make_source("test")
    assert len(theirs) == len(ours) == len(VOC_SETS["2012", "Segmentation", image_set])
    for (image, target), sample in zip(theirs, ours, strict=True):
        assert sample["image"].shape[:2] == image.size[::-1]
        np.testing.assert_array_equal(sample["mask"], np.asarray(target))


@pytest.mark.parametrize("image_set", ["train", "val"])
def test_sbd_against_torchvision(tmp_path, image_set):
    folder = write_sbd(tmp_path / "sbd")  # as torchvision saves it
    theirs = torchvision.datasets.SBDataset(str(folder), image_set, mode="segmentation")
    ours = module(tmp_path, test=f"sbd_{image_set}").make_source("test")
    assert len(theirs) == len(ours) == len(SBD_SETS[image_set])
    for (image, target), sample in zip(theirs, ours, strict=True):
        assert sample["image"].shape[:2] == image.size[::-1]
        np.testing.assert_array_equal(sample["mask"], np.asarray(target))


def test_train_aug_excludes_val_and_prefers_the_masks_of_voc(tree):
    data = module(tree, train="train_aug")
    data.setup("fit")
    source = data.datasets["train"].source
    assert stems(source) == ["2007_000032", "2008_000015", "2008_000002", "2009_000001"]
    # the first two masks are VOC's, with borders; the others are SBD's
    for sample, of_sbd in zip(source, [False, False, True, True], strict=True):
        stem = sample["path"].rpartition("/")[2].removesuffix(".jpg")
        np.testing.assert_array_equal(sample["mask"], classes_of(stem, of_sbd))
    assert stems(data.make_source("test")) == stems(data.datasets["val"].source)


def test_seg11valid_is_val_of_2011_without_train_of_sbd(tree):
    data = module(tree, train="sbd_train", val="seg11valid")
    data.setup("fit")
    assert stems(data.datasets["val"].source) == ["2009_000013"] and "VOC2011" in data.datasets["val"][0]["path"]
    assert stems(data.datasets["train"].source) == SBD_SETS["train"]


def test_seg11valid_from_the_list_of_fcn_needs_neither_2011_nor_sbd(tmp_path):
    devkit = write_voc_masks(tmp_path)
    (devkit / "VOC2011").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="val: seg11valid.*VOC2011/ImageSets/Segmentation/val.txt'"):
        module(tmp_path, val="seg11valid").make_source("val")
    write_set(devkit, "2012", "Segmentation", "seg11valid", ["2010_000003"])
    source = module(tmp_path, val="seg11valid").make_source("val")
    assert stems(source) == ["2010_000003"] and "VOC2012" in source[0]["path"]


def test_several_sets_other_years_and_the_test_set_of_2007(tmp_path):
    devkit = write_voc_masks(tmp_path)
    (devkit / "VOC2012").rename(devkit / "VOC2007")
    write_set(devkit, "2007", "Segmentation", "test", ["2010_000003"])
    data = module(devkit, year="2007", train=["train", "2011_val", "2007_train"])  # VOCdevkit itself is a valid root
    assert stems(data.make_source("test")) == ["2010_000003"]
    with pytest.warns(UserWarning, match=r"2 of 4 .*\(train and 2011_val and 2007_train\)"):
        source = data.make_source("train")
    assert stems(source) == ["2007_000032", "2008_000015", "2008_000073", "2009_000013"]  # each once


def test_training_on_images_of_val_warns(tree):
    message = r"1 of 3 .*\(sbd_train\).*\(val\).*2008_000073"
    with pytest.warns(UserWarning, match=message):
        module(tree, train="sbd_train").make_source("train")
    assert len(module(tree, train="sbd_train", val="2009_val").make_source("train")) == 3  # a missing val is not needed


def test_images_missing_from_sbd_are_read_from_voc(tmp_path):
    write_voc_masks(tmp_path)
    write_sbd(tmp_path / "far" / "dataset", images=False)
    write_image(tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "2009_000001.jpg", noise(WIDTH, HEIGHT))
    data = module(tmp_path, test="sbd_val", sbd="far")
    source = data.make_source("test")
    assert stems(source) == SBD_SETS["val"] and "JPEGImages" in source[0]["path"]
    again = module(tmp_path, test="sbd_val", sbd=str(tmp_path / "far" / "dataset")).make_source("test")
    np.testing.assert_array_equal(again[0]["mask"], classes_of("2009_000001", of_sbd=True))


def test_masks_of_sbd_as_png_by_folder(tmp_path):
    devkit = write_voc_masks(tmp_path)
    (devkit / "VOC2012" / "SegmentationClass").rename(devkit / "VOC2012" / "SegmentationClassAug")
    write_set(devkit, "2012", "Segmentation", "trainaug", ["2007_000032"])
    data = module(tmp_path, train="trainaug", mask_folder="SegmentationClassAug")
    assert stems(data.make_source("train")) == ["2007_000032"]
    with pytest.raises(FileNotFoundError, match=r"train: trainaug: 1 of 1 masks.*\n.*Class/2007_000032.png"):
        module(tmp_path, train="trainaug").make_source("train")


def test_missing_files_show_the_expected_layout(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)train.txt'\..*ROOT/VOCdevkit/.*0032.jpg.*contains"):
        module(tmp_path).make_source("train")
    devkit = write_voc_masks(tmp_path)
    with pytest.raises(FileNotFoundError, match="train: no file '.*trainag.txt'; did you mean 'train_aug'"):
        module(tmp_path, train="trainag").make_source("train")
    message = r"(?s)train: train_aug needs SBD.*'cls'.*dataset/cls/2008_000002.mat.*contains: VOCdevkit/"
    with pytest.raises(FileNotFoundError, match=message):
        module(tmp_path, train="train_aug").make_source("train")
    with pytest.raises(FileNotFoundError, match="sbd.*'there'"):
        module(tmp_path, train="train_aug", sbd="there").make_source("train")
    write_sbd(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"(?s)test: .*/vla.txt'; did you mean 'val'.*dataset/cls"):
        module(tmp_path, test="sbd_vla").make_source("test")
    (tmp_path / "cls" / "2008_000002.mat").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 4 masks.*\n.*cls/2008_000002.mat"):
        module(tmp_path, train="train_aug").make_source("train")
    (devkit / "VOC2012" / "JPEGImages" / "2009_000013.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"val: val: 1 of 3 images.*\n.*Images/2009_000013.jpg$"):
        module(tmp_path).make_source("val")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "C:\\x"])
def test_a_name_that_leads_out_of_its_folder(tmp_path, name):
    write_set(write_voc_masks(tmp_path), "2012", "Segmentation", "train", ["2007_000032", name])
    with pytest.raises(ValueError, match="train.txt, line 2: .*folder, got"):
        module(tmp_path).make_source("train")


def test_an_empty_set(tmp_path):
    write_set(write_voc_masks(tmp_path), "2012", "Segmentation", "train", ["", " "])
    with pytest.raises(ValueError, match="train.txt: .*empty"):
        module(tmp_path).make_source("train")


def test_bad_masks(tmp_path):
    folder = write_voc_masks(tmp_path) / "VOC2012" / "SegmentationClass"
    source = module(tmp_path).make_source("train")
    write_palette(folder / "2007_000032.png", np.full((HEIGHT, WIDTH), 21))
    with stops_at("label-outside", r"2007_000032.png: .*21 \(\d+ pixels?\)"):
        source[0]
    write_palette(folder / "2007_000032.png", np.zeros((WIDTH, HEIGHT)))
    with pytest.raises(ImageError, match=r"the image is 9x6, but its mask '.*2007_000032.png' is 6x9"):
        source[0]


@pytest.mark.parametrize(
    "break_it, message",
    [
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "not a readable MATLAB file"),
        (lambda path: path.write_bytes(b""), "not a readable MATLAB file"),
        (lambda path: path.write_text("no MATLAB at all " * 20), "not a readable MATLAB file"),
        (
            lambda path: write_mat(path, "GTinst", Segmentation=np.zeros((2, 2))),
            "no GTcls.Segmentation",
        ),
        (lambda path: write_mat(path, "GTcls", Boundaries=1), "no GTcls.Segmentation"),
        (
            lambda path: write_mat(path, "GTcls", Segmentation=np.full((2, 2), 0.5)),
            r"GTcls.Segmentation.*got float64 \[2, 2\]",
        ),
        (
            lambda path: write_mat(path, "GTcls", Segmentation=np.full((2, 2), 300)),
            "GTcls.Segmentation must be",
        ),
        (
            lambda path: write_mat(path, "GTcls", Segmentation=np.zeros((2, 2), np.uint8)),
            r"the image is 9x6, but its mask",
        ),
    ],
)
def test_damaged_files_of_sbd_are_unreadable_images(tree, break_it, message):
    break_it(tree / "benchmark_RELEASE" / "dataset" / "cls" / "2009_000001.mat")
    data = module(tree, test="sbd_val")
    with pytest.raises(ImageError, match=rf"2009_000001\.(mat|jpg): .*{message}|{message}.*2009_000001.mat"):
        data.make_source("test")[0]
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert len(batch["unreadable"]) == 1 and len(batch["mask"]) == 1


@pytest.mark.parametrize("size", [(1, 1), (20_000, 20)])
def test_augmentation_of_extreme_sizes(tmp_path, size):
    width, height = size
    folder = write_voc_masks(tmp_path) / "VOC2012"
    values = np.full((height, width), 7)
    values[:, width // 2 + 1 :] = 255
    for stem in VOC_SETS["2012", "Segmentation", "train"]:
        write_image(folder / "JPEGImages" / f"{stem}.jpg", noise(width, height))
        write_palette(folder / "SegmentationClass" / f"{stem}.png", values)
    data = module(tmp_path, train_transform=[A.HorizontalFlip(p=1), A.Resize(8, 10)])
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 3, 8, 10)
    expected = [7] * 10 if size == (1, 1) else [255] * 5 + [7] * 5  # flipped
    assert batch["mask"].tolist() == [[expected] * 8] * 2


@pytest.mark.parametrize(
    "options, message",
    [
        ({"year": "2006"}, "year.*got '2006'; did you mean '20"),
        ({"train": []}, r"train.*got \[\]"),
        ({"val": ""}, "val.*got ''"),
        ({"class_names": []}, "class_names.*254.*got 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        module("x", **options)
