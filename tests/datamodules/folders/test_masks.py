"""Images with mask files: matching by name, and classes of gray and palette masks."""

import re
import unicodedata
import warnings

import numpy as np
import pytest
from PIL import Image

from striate.datamodules import MaskFolder
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.dataset_layout import encode_paths
from striate.datamodules.annotations.mask_files import MaskedFiles, class_lookup, read_mask
from striate.datamodules.doctor import check
from striate.datamodules.images.read import ImageError
from striate.tests.helpers.faults import stops_at
from striate.tests.helpers.fixtures import noise, write_image

MASK = np.array([[0, 1, 2, 255], [2, 2, 0, 1]], np.uint8)
NAMES = ["sky", "road", "car"]


def write_mask(path, values, palette=False):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if palette:
        image = image.convert("P") if image.mode != "L" else image
        image.putpalette([(7 * k) % 256 for k in range(768)])
    image.save(path)
    return path


def tree(root, splits=("train", "val"), count=3, mask=MASK, palette=False):
    for split in splits:
        for number in range(count):
            write_image(root / split / "images" / "x" / f"{number}.jpg", noise(4, 2, number))
            write_mask(root / split / "masks" / "x" / f"{number}.png", np.roll(mask, number, axis=1), palette)
    return root


def module(root, **options):
    return MaskFolder(str(root), **{"class_names": NAMES, "num_workers": 0, "batch_size": 2} | options)


@pytest.mark.parametrize("palette", [False, True])
def test_values_are_classes(tmp_path, palette):
    data = module(tree(tmp_path, palette=palette))
    data.setup("fit")
    for number in range(3):
        np.testing.assert_array_equal(data.datasets["train"][number]["mask"], np.roll(MASK, number, axis=1))
    batch = next(iter(data.val_dataloader()))
    assert batch["mask"].shape == (2, 2, 4) and batch["image"].shape == (2, 3, 2, 4)


def test_a_class_map_and_an_ignore_value(tmp_path):
    values = np.array([[0, 128, 7, 9], [7, 128, 0, 0]], np.uint8)
    tree(tmp_path, mask=values)
    names = ["sky", "road"]
    source = module(tmp_path, class_names=names, classes={0: 1, 128: 0, 9: 255}, ignore_value=7).make_source("train")
    assert source[0]["mask"].tolist() == [[1, 0, 255, 255], [255, 0, 1, 1]]
    source = module(tmp_path, class_names=names, classes={0: 1, 128: 0}).make_source("train")
    with stops_at("label-outside", r"0.png: .*7 \(2 pixels\), 9 \(1 .*0, 128, 255.*class_names"):
        source[0]


def test_masks_of_16_bits(tmp_path):
    wide = np.array([[0, 1000, 1000, 65535]] * 2, np.uint16)
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path / "m.png", wide)), wide)
    tree(tmp_path)
    write_mask(tmp_path / "train" / "masks" / "x" / "0.png", wide)
    data = module(tmp_path, class_names=["sky", "car"], classes={0: 0, 1000: 1}, ignore_value=65535)
    assert data.make_source("train")[0]["mask"].tolist() == [[0, 1, 1, 255]] * 2


def test_validation_held_out(tmp_path):
    tree(tmp_path, splits=("train",), count=10)
    train, val = (module(tmp_path, val_fraction=0.3).make_source(split) for split in ("train", "val"))
    assert len(train) == 7 and len(val) == 3 and not set(train.images) & set(val.images)
    with pytest.raises(FileNotFoundError, match="val_fraction"):
        module(tmp_path).make_source("val")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)images'.*ROOT/train/images/a.jpg"):
        module(tmp_path).make_source("train")
    tree(tmp_path)
    (tmp_path / "train" / "masks" / "x" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 3 images of train/images: x/1"):
        module(tmp_path).make_source("train")
    write_image(tmp_path / "val" / "images" / "x" / "1.png", noise(4, 2))
    with pytest.raises(ValueError, match="1.jpg and 1.png have the same name"):
        module(tmp_path).make_source("val")


def test_bad_masks(tmp_path):
    tree(tmp_path)
    source = module(tmp_path).make_source("train")
    write_mask(tmp_path / "train" / "masks" / "x" / "0.png", np.zeros((3, 4), np.uint8))
    with pytest.raises(ImageError, match=r"the image is 4x2, but its mask '.*masks/x/0.png' is 4x3"):
        source[0]
    write_image(tmp_path / "train" / "masks" / "x" / "1.png", noise(4, 2))
    with pytest.raises(ImageError, match="palette.*RGB"):
        source[1]
    (tmp_path / "train" / "masks" / "x" / "2.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    with pytest.raises(ImageError, match="2.png: "):
        source[2]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"classes": {0: 3}}, "classes: .*65535.*got 0: 3"),
        ({"class_names": []}, "class_names: .*got 0"),
        ({"ignore_value": -1}, "ignore_value: .*got -1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        module("x", **options)


# -- what values mean --------------------------------------------------------------------------------


def binary_tree(root, levels=(0, 255)):
    return tree(root, mask=np.array([[levels[0], levels[1], levels[0], levels[1]], [levels[0]] * 4], np.uint8))


def test_a_class_for_255_wins_over_the_default(tmp_path):
    binary_tree(tmp_path)
    source = module(tmp_path, class_names=["a", "b"], classes={0: 0, 255: 1}).make_source("train")
    assert source[0]["mask"].tolist() == [[0, 1, 0, 1], [0] * 4]
    with pytest.raises(ValueError, match="ignore_value: .*got 255, which classes maps to 1"):
        module(tmp_path, class_names=["a", "b"], classes={0: 0, 255: 1}, ignore_value=255)


def test_masks_of_0_and_255_need_a_mapping(tmp_path):
    binary_tree(tmp_path)
    with stops_at("binary-mask", r"only the values 0 and 255, and 255 is ignored; set classes: {0: 0, 255: 1}"):
        module(tmp_path, class_names=["a", "b"]).make_source("train")
    # a mask with the second class shows that 255 means ignore
    write_mask(tmp_path / "train" / "masks" / "x" / "2.png", np.full((2, 4), 1, np.uint8))
    assert module(tmp_path, class_names=["a", "b"]).make_source("train")[0]["mask"].max() == 255


def test_a_class_without_a_pixel_warns(tmp_path):
    tree(tmp_path, mask=np.array([[0, 2, 0, 2]] * 2, np.uint8))
    with pytest.warns(UserWarning, match="1 of 3 classes will not be learned .*: 'road'; run striate data check"):
        module(tmp_path).setup("fit")
    report = check(module(tmp_path), processes=0)
    (finding,) = report.findings.of("absent-class")
    assert (finding.location, finding.detail, finding.split) == ("road", "class 1 has no pixel", "train")
    assert not report.clean


@pytest.mark.parametrize(
    "levels, names, remedy",
    [
        ((0, 128), ["a", "b"], r"set classes: {0: 0, 128: 1}"),
        ((1, 2), ["a", "b"], r"values that count from 1 need classes: {1: 0, 2: 1}"),
        ((0, 7), NAMES, "map the values with the argument classes"),
    ],
)
def test_values_without_a_class_get_a_remedy(tmp_path, levels, names, remedy):
    binary_tree(tmp_path, levels)
    source = module(tmp_path, class_names=names).make_source("train")
    with stops_at("label-outside", remedy):
        source[0]


def test_antialiased_masks_are_named(tmp_path):
    smooth = np.array([[0, 30, 60, 90], [120, 150, 180, 210], [240, 250, 251, 252]], np.uint8)
    path = write_mask(tmp_path / "m.png", smooth)
    source = MaskedFiles(tmp_path, encode_paths([path]), encode_paths([path]), class_lookup(None, 2))
    with stops_at("label-outside", "its edges look smoothed"):
        source[0]
    write_mask(path, np.array([[0, 0, 85, 170, 255, 255, 255]] * 4, np.uint8))  # two values are enough beside white
    with stops_at("label-outside", "its edges look smoothed"):
        source[0]


def test_smoothed_edges_whose_values_are_classes_are_found(tmp_path):
    names = [f"class {number}" for number in range(21)]
    sharp = np.zeros((40, 60), np.uint8)
    sharp[8:30, 10:40], sharp[12:20, 36:52] = 20, 13
    sharp[7, 10:40] = 255  # a seam that is ignored
    smooth = np.asarray(Image.fromarray(sharp).resize((48, 32), Image.Resampling.BILINEAR))
    assert smooth.max() > 20  # of the seam, which is not tested here
    smooth = np.where(smooth > 20, 255, smooth).astype(np.uint8)
    message = "^edges are trained on as other classes .2 masks .*first: .*0.png.*without antialiasing"
    for mask, count in ((sharp, 0), (smooth, 1)):
        for split in ("train", "val"):
            for number in range(2):
                write_image(tmp_path / split / "images" / f"{number}.png", noise(*mask.shape[::-1], number))
                write_mask(tmp_path / split / "masks" / f"{number}.png", mask)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            source = MaskFolder(tmp_path, class_names=names).make_source("train")
        assert sum(bool(re.match(message, str(one.message))) for one in caught) == count
        with record_faults() as faults:
            source[0]
        assert [fault.code for fault in faults] == ["smoothed-mask"] * count


def test_jpeg_masks_are_rejected(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "m.jpg")
    with pytest.raises(ImageError, match="must be stored without loss, got JPEG"):
        read_mask(tmp_path / "m.jpg")


def test_gray_masks_saved_as_colors_and_floats(tmp_path):
    Image.fromarray(np.repeat(MASK[..., None], 3, axis=2)).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "rgb.png"), MASK)
    Image.fromarray(MASK.astype(np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "f.tif"), MASK)
    Image.fromarray(MASK.astype(np.float32) / 255).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match="must have whole numbers, got floating-point values from 0 to 1"):
        read_mask(tmp_path / "f.tif")
    Image.fromarray(np.dstack([MASK, MASK])).save(tmp_path / "la.png")
    with pytest.raises(ImageError, match="must be a gray or palette image, got mode LA"):
        read_mask(tmp_path / "la.png")


def test_a_palette_whose_grays_descend_is_ambiguous(tmp_path):
    for grays, valid in (((255, 0), False), ((0, 255), True)):
        image = Image.fromarray(np.array([[0, 1], [1, 1]], np.uint8), "P")
        image.putpalette([level for gray in grays for level in (gray, gray, gray)])
        image.save(tmp_path / "p.png")
        if valid:
            assert read_mask(tmp_path / "p.png").tolist() == [[0, 1], [1, 1]]
        else:
            with pytest.raises(ImageError, match="palette in which 0 is the gray 255 and 1 the gray 0"):
                read_mask(tmp_path / "p.png")


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


def test_masks_are_turned_like_their_images(tmp_path):
    tree(tmp_path)
    image, mask = tmp_path / "train" / "images" / "x" / "0.jpg", tmp_path / "train" / "masks" / "x" / "0.png"
    Image.fromarray(noise(4, 2)).save(image, exif=exif(6))
    Image.fromarray(MASK).save(mask, exif=exif(6))  # a quarter clockwise
    data = module(tmp_path)
    with record_faults() as faults:
        sample = data.make_source("train")[0]
    assert sample["image"].shape == (4, 2, 3) and not faults
    np.testing.assert_array_equal(sample["mask"], np.rot90(MASK, -1))
    Image.fromarray(noise(4, 2)).save(image, exif=exif(3))
    Image.fromarray(MASK).save(mask)
    with record_faults() as faults:
        np.testing.assert_array_equal(data.make_source("train")[0]["mask"], MASK)
    assert [(fault.code, "orientation 3" in fault.found) for fault in faults] == [("turned-mask", True)]


# -- folders -----------------------------------------------------------------------------------------


def test_usual_names_of_splits(tmp_path):
    tree(tmp_path, splits=("Training", "valid", "TEST"))
    assert [len(module(tmp_path).make_source(split)) for split in ("train", "val", "test")] == [3, 3, 3]
    (tmp_path / "val").mkdir()
    with pytest.raises(ValueError, match="root: must have one folder for val, got 'val' and 'valid'"):
        module(tmp_path).make_source("train")


def test_images_and_masks_in_different_unicode_forms(tmp_path):
    tree(tmp_path)
    for kind, form, suffix in (("images", "NFC", "jpg"), ("masks", "NFD", "png")):
        folder = tmp_path / "train" / kind / "x"
        (folder / f"0.{suffix}").rename(folder / f"{unicodedata.normalize(form, 'é')}.{suffix}")
    source = module(tmp_path).make_source("train")
    assert len(source) == 3 and source[2]["mask"].tolist() == MASK.tolist()
    assert not check(module(tmp_path), processes=0).findings.of("orphan-annotation")


# -- training sets without anything to learn -----------------------------------------------------------


@pytest.mark.parametrize(
    "mask, names, message",
    [
        ([[0, 128]], ["a", "b"], r"x/0.png: .*128 \(1 pixel\).* set classes: {0: 0, 128: 1} of MaskFolder"),
        ([[1, 2]], ["a", "b"], r"x/0.png: .*2 \(1 pixel\).* need classes: {1: 0, 2: 1}"),
        ([[0, 254]], ["a", "b"], r"x/0.png: .*254 \(1 pixel\).* set classes: {0: 0, 254: 1}"),
        ([[0, 1, 300]], ["a", "b"], r"x/0.png: .*300 \(1 pixel\).* argument classes of MaskFolder"),
        ([[256, 65535]], ["a", "b"], r"x/0.png: .*256 \(1 pixel\), 65535 .* set classes: {256: 0, 65535: 1}"),
        ([[0, 65535]], ["a", "b"], r"x/0.png: .*65535 \(1 pixel\).* set classes: {0: 0, 65535: 1}"),
        ([[[255, 0, 0], [0, 0, 9]]], ["a", "b"], r"x/0.png: .*mode RGB with the colors \(0, 0, 9\), \(255, 0, 0\);"),
        ([[0, 0]], ["a", "b"], r"train/masks/x: none of its 3 images has a usable object: every pixel is of class 0"),
        ([[0, 255]], ["a", "b", "c"], r"every pixel is of class 0 or ignored"),
        ([[255, 255]], ["a"], r"every pixel is ignored"),
    ],
)
def test_a_training_set_without_objects_is_refused_with_file_values_and_argument(tmp_path, mask, names, message):
    values = np.array(mask)
    values = values.astype(np.uint16 if values.max() > 255 else np.uint8)
    tree(tmp_path, mask=values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is refused needs no warning before
        with stops_at("no-objects", message):
            module(tmp_path, class_names=names).setup("fit")


@pytest.mark.parametrize("first", ["road", "bg"])
def test_class_0_alone_is_refused_unless_it_is_something_to_learn(tmp_path, first):
    tree(tmp_path, mask=np.full((2, 4), 7, np.uint8))
    data = module(tmp_path, class_names=[first, "car"], classes={7: 0, 26: 1})
    if first == "bg":
        with stops_at("no-objects", "every pixel is of class 0"):
            data.setup("fit")
        return
    with pytest.warns(UserWarning, match=r"^1 of 2 classes will not be learned \(no pixel in .*\): 'car'; run"):
        data.setup("fit")


def test_one_class_needs_no_other_and_a_mapping_of_16_bits_is_read(tmp_path):
    tree(tmp_path / "one", mask=np.zeros((2, 4), np.uint8))
    module(tmp_path / "one", class_names=["a"]).setup("fit")
    tree(tmp_path / "wide", mask=np.array([[256, 65535, 256, 65535]] * 2, np.uint16))
    wide = module(tmp_path / "wide", class_names=["a", "b"], classes={256: 0, 65535: 1})
    wide.setup("fit")
    assert wide.make_source("train")[0]["mask"].tolist() == [[0, 1, 0, 1]] * 2


@pytest.mark.parametrize("names", [["bg", "bg "], ["Bg", "bg"]])
def test_class_names_that_mean_the_same_are_refused(tmp_path, names):
    with pytest.raises(ValueError, match="^class_names: names must not"):
        MaskFolder(str(tmp_path), names)
