"""Images with mask files: matching by name, and classes of gray and palette masks."""

import numpy as np
import pytest
from PIL import Image

from striate.datamodules import MaskFolder
from striate.datamodules.annotations.mask_files import read_mask
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
    source = module(tmp_path, classes={0: 1, 128: 0, 9: 255}, ignore_value=7).make_source("train")
    assert source[0]["mask"].tolist() == [[1, 0, 255, 255], [255, 0, 1, 1]]
    source = module(tmp_path, classes={0: 1, 128: 0}).make_source("train")
    with stops_at("label-outside", r"0.png: .*7 \(2 pixels\), 9 \(1 .*0, 128, 255.*class_names"):
        source[0]


def test_masks_of_16_bits(tmp_path):
    wide = np.array([[0, 1000, 1000, 65535]] * 2, np.uint16)
    np.testing.assert_array_equal(read_mask(write_mask(tmp_path / "m.png", wide)), wide)
    tree(tmp_path)
    write_mask(tmp_path / "train" / "masks" / "x" / "0.png", wide)
    source = module(tmp_path, classes={0: 0, 1000: 2}, ignore_value=65535).make_source("train")
    assert source[0]["mask"].tolist() == [[0, 2, 2, 255]] * 2


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
