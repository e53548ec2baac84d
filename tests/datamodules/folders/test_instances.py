"""Instance masks: objects by hand, at all bit depths, classes by divisor and by table, and images of 16 bits."""

import albumentations as A
import numpy as np
import pytest
from PIL import Image, ImageDraw

from striate.datamodules import InstanceMasks
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.annotations.mask_files import read_ids
from striate.datamodules.folders.instance_ids import inspect_ids, split_components, split_ids
from striate.datamodules.images.read import ImageError, read_image
from striate.tests.helpers.fixtures import noise
from striate.tests.helpers.tiff import tiff

IDS = np.array([[0, 5, 5, 0], [0, 5, 0, 900], [5, 0, 0, 900]])  # object 5 is not connected


def save(path, values, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


def tree(root, ids=IDS, splits=("train", "val"), names=("x/0", "x/1"), kind=np.uint16):
    for split in splits:
        for number, name in enumerate(names):
            save(root / split / "images" / f"{name}.tif", noise(ids.shape[1], ids.shape[0], number))
            save(root / split / "masks" / f"{name}.tif", np.roll(ids, number, axis=1).astype(kind))
    return root


def module(root, **options):
    return InstanceMasks(str(root), num_workers=0, batch_size=2, **options)


def test_objects_by_hand(tmp_path):
    data = module(tree(tmp_path))
    data.setup("fit")
    assert data.class_names == ["object"] and len(data.datasets["train"]) == 2
    sample = data.datasets["train"][0]
    np.testing.assert_array_equal(sample["image"], noise(4, 3))
    np.testing.assert_array_equal(sample["masks"], np.stack([IDS == 5, IDS == 900]))
    assert sample["boxes"].tolist() == [[0, 0, 3, 3], [3, 1, 4, 3]] and sample["labels"].tolist() == [0, 0]
    assert sample["area"].tolist() == [4, 2] and sample["boxes"].dtype == np.float32
    assert sample["masks"].dtype == np.uint8 and sample["image_id"] == 0
    batch = next(iter(data.val_dataloader()))
    assert [tuple(target["masks"].shape) for target in batch["target"]] == [(2, 3, 4)] * 2
    assert batch["target"][1]["boxes"].tolist() == [[1, 0, 4, 3], [0, 1, 1, 3]]


def test_an_image_without_objects_and_augmentation(tmp_path):
    tree(tmp_path)
    save(tmp_path / "train" / "masks" / "x" / "0.tif", np.zeros((3, 4), np.uint16))
    data = module(tmp_path, train_transform=[A.HorizontalFlip(p=1)])
    data.setup("fit")
    empty, flipped = data.datasets["train"][0], data.datasets["train"][1]
    assert empty["masks"].shape == (0, 3, 4) and empty["boxes"].shape == (0, 4) and empty["labels"].shape == (0,)
    assert flipped["boxes"].tolist() == [[0, 0, 3, 3], [3, 1, 4, 3]]


@pytest.mark.parametrize(
    "name, kind, highest",
    [
        ("m.png", np.uint8, 255),
        ("m.png", np.uint16, 65535),
        ("m.tif", np.uint8, 255),
        ("m.tif", np.uint16, 65535),
        ("m.tif", np.int32, 2**31 - 1),
        ("m.tif", np.float32, 2**24),
        ("u32.tif", np.uint32, 2**32 - 1),
    ],
)
def test_masks_of_all_depths(tmp_path, name, kind, highest):
    values = np.array([[0, 3], [highest, 3]]).astype(kind)
    if kind == np.uint32:
        (tmp_path / name).write_bytes(tiff(values, 32, 1))
    else:
        save(tmp_path / name, values)
    ids = read_ids(tmp_path / name)
    assert ids.tolist() == [[0, 3], [highest, 3]] and ids.dtype == np.int64
    numbers, places = split_ids(ids)
    assert numbers.tolist() == [3, highest] and places.tolist() == [[0, 1], [2, 1]]


@pytest.mark.parametrize("shift", [0, 2**40])  # the second is sorted, the first counted
def test_splitting_ids(shift):
    ids = np.random.default_rng(0).integers(0, 6, (20, 30)) * 7
    ids[ids > 0] += shift
    numbers, places = split_ids(ids)
    assert numbers.tolist() == sorted(set(ids.ravel().tolist()) - {0})
    np.testing.assert_array_equal(np.concatenate([[0], numbers])[places], ids)
    full = split_ids(np.full((2, 2), 3 + shift))
    assert full[0].tolist() == [3 + shift] and full[1].tolist() == [[1, 1], [1, 1]]
    assert split_ids(np.zeros((2, 2), np.int64))[0].tolist() == []


def test_compressed_tiff(tmp_path):
    path = save(tmp_path / "m.tif", IDS.astype(np.uint16), compression="tiff_lzw")
    np.testing.assert_array_equal(read_ids(path), IDS)


def bad_masks(folder):
    gray = np.zeros((3, 4), np.uint8)
    palette = Image.fromarray(gray).convert("P")
    palette.save(folder / "palette.png")
    save(folder / "colors.png", noise(4, 3))
    save(folder / "pages.tif", gray, save_all=True, append_images=[Image.fromarray(gray)])
    save(folder / "half.tif", np.full((3, 4), 0.5, np.float32))
    save(folder / "nan.tif", np.full((3, 4), np.nan, np.float32))
    save(folder / "negative.tif", np.full((3, 4), -1, np.int32))
    (folder / "cut.tif").write_bytes(save(folder / "whole.tif", IDS.astype(np.uint16)).read_bytes()[:20])


@pytest.mark.parametrize(
    "name, message",
    [
        ("palette.png", "palette image"),
        ("colors.png", "one gray channel.*RGB"),
        ("pages.tif", "2 pages"),
        ("half.tif", "whole numbers, got 0.5"),
        ("nan.tif", "whole numbers, got nan"),
        ("negative.tif", "whole numbers, got -1"),
        ("cut.tif", ""),
        ("none.tif", "No such file"),
    ],
)
def test_bad_masks(tmp_path, name, message):
    bad_masks(tmp_path)
    with pytest.raises(ImageError, match=rf"{name}: .*{message}"):
        read_ids(tmp_path / name)


# -- classes -----------------------------------------------------------------------------------------


def test_classes_by_divisor(tmp_path):
    ids = np.array([[0, 7, 24001, 24002], [26000, 25003, 0, 29001]])  # as in Cityscapes
    tree(tmp_path, ids, kind=np.int32, names=("0",))
    classes = {24: 0, 25: 1, 26: 2, 29: 255}
    data = module(tmp_path, class_names=["person", "rider", "car"], divisor=1000, classes=classes)
    sample = data.make_source("train")[0]
    assert sample["labels"].tolist() == [0, 0, 1, 2]  # in the order of the values; 7 is not an object, 29 is left out
    assert sample["boxes"].tolist() == [[2, 0, 3, 1], [3, 0, 4, 1], [1, 1, 2, 2], [0, 1, 1, 2]]
    del classes[26]
    data = module(tmp_path, class_names=["person", "rider", "car"], divisor=1000, classes=classes)
    with pytest.raises(ValueError, match="0.tif: .*24, 25, 29, got 26000 // 1000 = 26"):
        data.make_source("train")[0]


def test_classes_by_divisor_count_from_1_without_a_map(tmp_path):
    tree(tmp_path, np.array([[0, 255, 256], [513, 514, 0]]), kind=np.int32, names=("0",))
    source = module(tmp_path, class_names=["a", "b"], divisor=256).make_source("train")
    assert source[0]["labels"].tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match="0, 1, got 513 // 256 = 2"):
        module(tmp_path, class_names=["a"], divisor=256).make_source("train")[0]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_classes_by_a_table_for_each_image(tmp_path, kind):
    tree(tmp_path)
    rows = [("x/1.tif", 900, "cell"), ("x/0", 5, "cell"), ("x/0", 900, "dead"), ("x/1.tif", 5, "dead")]
    for split in ("train", "val"):
        file = tmp_path / split / f"classes.{kind}"
        if kind == "csv":
            file.write_text("path,id,label\n" + "".join(f"{p},{i},{name}\n" for p, i, name in rows))
        else:
            pyarrow = pytest.importorskip("pyarrow")
            import pyarrow.parquet as parquet

            parquet.write_table(
                pyarrow.table(dict(zip(("path", "id", "label"), zip(*rows, strict=True), strict=True))), file
            )
    data = module(tmp_path, class_file=f"{{split}}/classes.{kind}")
    data.setup("fit")
    assert data.class_names == ["cell", "dead"]
    assert [data.datasets["train"][k]["labels"].tolist() for k in range(2)] == [[0, 1], [1, 0]]


def test_classes_by_a_table_for_all_images(tmp_path):
    tree(tmp_path)
    (tmp_path / "classes.csv").write_text("id,label,note\n900,1,x\n5,0,y\n77,1,has no pixels\n")
    data = module(tmp_path, class_file="classes.csv", class_names=["a", "b"])
    assert [data.make_source("val")[k]["labels"].tolist() for k in range(2)] == [[0, 1], [0, 1]]


@pytest.mark.parametrize(
    "text, message",
    [
        ("id,label\n5,a\n", "0.tif: the value 900 has no class in '.*classes.csv'"),
        ("id,label\n5,a\n5,b\n900,a\n", "classes.csv, line 3: .*got 5 more"),
        ("id,label\n5,a\n0,b\n", "classes.csv, line 3: id .*got '0'"),
        ("id,label\nfive,a\n", "classes.csv, line 2: id .*got 'five'"),
        ("id,label\n5,\n", "classes.csv, line 2: .*label must be text"),
        ("id,name\n5,a\n", r"classes.csv: no column 'label' \(classes\), got 'id', 'name'"),
        ("path,id,label\nx/9.tif,5,a\n", "classes.csv, line 2: path .*2 images, got 'x/9.tif'"),
        ("path,id,label\nx/0,5,a\nx/1,5,a\nx/0,5,a\n", "classes.csv, line 4: .*got 5 more"),
    ],
)
def test_bad_tables_of_classes(tmp_path, text, message):
    (tree(tmp_path) / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        module(tmp_path, class_file="classes.csv").make_source("train")[0]


# -- images ------------------------------------------------------------------------------------------


def test_images_of_16_bits_need_a_scale(tmp_path):
    tree(tmp_path)
    levels = np.array([[0, 100, 200, 300]] * 3, np.uint16)
    for name in ("x/0.tif", "x/1.tif"):
        save(tmp_path / "train" / "images" / name, levels)
    with pytest.raises(
        ValueError, match=r"0.tif: .*16 bits from 0 to 300; set scale_16bit: \[low, high\], such as \[0, 1023\], full"
    ):
        module(tmp_path).make_source("train")[0]
    for scale, expected in (
        ("image", [0, 85, 170, 255]),
        ([100, 300], [0, 0, 128, 255]),
        ("full", [0, 0, 1, 1]),  # 200 / 257 and 300 / 257
    ):
        image = module(tmp_path, scale_16bit=scale).open_source("train")[0]["image"]
        assert image.shape == (3, 4, 3) and image[1, :, 2].tolist() == expected and image.dtype == np.uint8
    save(tmp_path / "train" / "images" / "x" / "0.tif", noise(4, 3)[..., 0])  # 8 bits are not scaled
    np.testing.assert_array_equal(module(tmp_path).make_source("train")[0]["image"][..., 0], noise(4, 3)[..., 0])


def test_images_that_cannot_be_read(tmp_path):
    tree(tmp_path)
    folder = tmp_path / "train" / "images" / "x"
    save(folder / "0.tif", noise(4, 3), save_all=True, append_images=[Image.fromarray(noise(4, 3))])
    source = module(tmp_path).open_source("train")
    with pytest.raises(ImageError, match="0.tif: .*single image, got 2 pages; set page: 0"):
        source[0]
    save(folder / "0.tif", noise(5, 3))
    with pytest.raises(ImageError, match=r"0.tif: .*image is 5x3, .*masks/x/0.tif' is 4x3"):
        source[0]
    (folder / "0.tif").write_bytes(b"II*\0")
    with pytest.raises(ImageError, match="0.tif: "):
        source[0]


# -- parts of one value ------------------------------------------------------------------------------


def test_parts_of_a_value_as_objects():
    # object 7 has two parts, one of which touches itself at a corner only; 9 has one
    ids = np.array([[7, 0, 0, 9], [0, 7, 0, 9], [0, 0, 0, 0], [7, 7, 0, 0]])
    owners, parts = split_components(ids)
    assert owners.tolist() == [7, 7, 9]
    assert parts.tolist() == [[1, 0, 0, 3], [0, 1, 0, 3], [0, 0, 0, 0], [2, 2, 0, 0]]
    assert split_components(np.zeros((2, 2), np.int64))[0].tolist() == []


def test_masks_of_one_value_and_several_parts(tmp_path):
    binary = np.array([[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 255, 255]])
    tree(tmp_path, binary, kind=np.uint8)
    with pytest.warns(UserWarning, match="3 separate parts are one object.*split_components: true"):
        whole = module(tmp_path).make_source("train")
    assert whole[0]["boxes"].tolist() == [[0, 0, 4, 3]]
    with record_faults() as faults:
        whole[0]
    assert [(fault.code, "3 separate parts" in fault.found) for fault in faults] == [("merged-objects", True)]
    source = module(tmp_path, split_components=True).make_source("train")
    with record_faults() as faults:
        sample = source[0]
    assert not faults
    assert sorted(sample["boxes"].tolist()) == [[0, 0, 1, 2], [2, 2, 4, 3], [3, 0, 4, 1]]
    assert sample["labels"].tolist() == [0, 0, 0] and sample["masks"].sum(axis=(1, 2)).tolist() == [2, 1, 2]


@pytest.mark.parametrize("ids", [np.ones((3, 4)), np.array([[1, 1, 1, 1], [1, 2, 1, 1], [3, 3, 1, 1]])])
def test_a_background_other_than_0_is_warned_of(tmp_path, ids):
    tree(tmp_path, ids)
    message = "^the background may be trained on as an object .*no pixel of 0, and value 1 covers half of .*write 0"
    with pytest.warns(UserWarning, match=message):
        source = module(tmp_path).make_source("train")
    assert source[0]["masks"].shape[0] == ids.max()  # as written
    with record_faults() as faults:
        source[0]
    assert [fault.code for fault in faults] == ["no-background"] and "value 1" in faults[0].found


def test_objects_that_cover_an_image_together_are_no_background(tmp_path, recwarn):
    tree(tmp_path, np.array([[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 3, 3]]))
    with record_faults() as faults:
        assert len(module(tmp_path).make_source("train")[0]["boxes"]) == 3
    module(tmp_path).make_source("train")
    assert not faults and not [one for one in recwarn if "background" in str(one.message)]


# -- smoothed edges, and odd masks among others -------------------------------------------------------


def antialiased(white=255):
    """A rectangle drawn at four times the size and reduced: its edges have values between."""
    large = Image.fromarray(np.zeros((96, 128), np.uint8))
    ImageDraw.Draw(large).rectangle((21, 22, 90, 71), fill=white)
    return np.asarray(large.resize((32, 24), Image.Resampling.BICUBIC))


def test_smoothed_edges_are_not_objects(tmp_path):
    tree(tmp_path, antialiased(), kind=np.uint8)
    message = "^the rims of objects .*2 of 2 masks .* only along edges, .*first: .*0.tif.*without antialiasing"
    with pytest.warns(UserWarning, match=message):
        source = module(tmp_path).make_source("train")
    with record_faults() as faults:
        source[0]
    assert [fault.code for fault in faults] == ["smoothed-mask"]


def test_three_gray_objects_are_smoothed_and_one_edge_of_a_white_one():
    assert inspect_ids(antialiased(200).astype(np.int64)).on_edges >= 3
    half = np.array([[0, 0, 128, 255, 255, 255, 255]] * 4)
    assert inspect_ids(half).on_edges == 1
    assert inspect_ids(np.where(half == 255, 254, half)).on_edges == 0  # may be a thin object beside another


def test_small_and_touching_objects_are_not_smoothed_edges(recwarn, tmp_path):
    rng, ids = np.random.default_rng(0), np.zeros((256, 256), np.int64)
    rows, columns = np.mgrid[:256, :256]
    for number in rng.permutation(300) + 1:  # radius 1 to 8, many touch or overlap
        center, radius = rng.integers(0, 256, 2), rng.uniform(0.5, 8)
        ids[(rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2] = number
    specks = np.zeros((64, 64), np.int64)
    specks[::4, ::4] = np.arange(256).reshape(16, 16)  # a pixel each
    specks[40:60, 40:60] = 255
    stripes = np.repeat(np.arange(1, 33), 2)[None].repeat(64, axis=0)  # ascending, two pixels wide
    for mask in (ids, specks, stripes):
        assert len(np.unique(mask)) > 30 and inspect_ids(mask).on_edges == 0
    tree(tmp_path, ids)
    module(tmp_path).make_source("train")
    assert not recwarn.list


@pytest.mark.parametrize(
    "odd, message",
    [
        (
            np.pad(np.full((5, 5), 255), ((2, 3), (2, 13))) + np.pad(np.full((5, 5), 255), ((2, 3), (12, 3))),
            "2 separate",
        ),
        (np.ones((10, 20)), "the background may be trained on as an object"),
    ],
)
def test_one_odd_mask_among_others(tmp_path, odd, message):
    tree(tmp_path, np.pad(np.array([[1] * 4 + [2] * 4] * 4), ((2, 4), (2, 10))), names=[str(k) for k in range(8)])
    save(tmp_path / "train" / "masks" / "5.tif", odd.astype(np.uint8))
    with pytest.warns(UserWarning, match=rf"^{message}.*1 of 8 masks.* first: train/masks/5\.tif") as warned:
        module(tmp_path).make_source("train")
    assert len(warned) == 1


def test_an_object_in_two_parts_among_others(tmp_path, recwarn):
    tree(tmp_path, np.array([[1, 1, 0, 0, 2, 2]] * 3))
    save(tmp_path / "train" / "masks" / "x" / "1.tif", np.array([[1, 1, 0, 0, 1, 1]] * 3, np.uint16))
    module(tmp_path).make_source("train")
    assert not recwarn.list


# -- layouts -----------------------------------------------------------------------------------------


def test_both_in_one_folder_by_their_endings(tmp_path):
    for number in range(2):
        save(tmp_path / "train" / f"{number:03d}_img.png", noise(4, 3, number))
        save(tmp_path / "train" / f"{number:03d}_masks.png", np.roll(IDS, number, axis=1).astype(np.uint16))
    folders = {"image_folder": "{split}", "mask_folder": "{split}", "mask_ending": "_masks"}
    source = module(tmp_path, image_ending="_img", **folders).make_source("train")
    assert [path[-11:] for path in source.files()] == ["000_img.png", "001_img.png"]
    np.testing.assert_array_equal(source[1]["masks"][0], np.roll(IDS, 1, axis=1) == 5)
    (tmp_path / "train" / "000_img.png").rename(tmp_path / "train" / "000.png")
    (tmp_path / "train" / "001_img.png").rename(tmp_path / "train" / "001.png")
    source = module(tmp_path, **folders).make_source("train")
    np.testing.assert_array_equal(source[1]["image"], read_image(tmp_path / "train" / "001.png"))


def test_cityscapes_layout(tmp_path):
    for part, ending in (("leftImg8bit", "leftImg8bit"), ("gtFine", "gtFine_instanceIds"), ("gtFine", "gtFine_color")):
        values = IDS.astype(np.int32) * 1000 if "Ids" in ending else noise(4, 3)
        save(
            tmp_path / part / "train" / "aachen" / f"aachen_0_0_{ending}.{'tif' if 'Ids' in ending else 'png'}", values
        )
    data = module(
        tmp_path,
        image_folder="leftImg8bit/{split}",
        mask_folder="gtFine/{split}",
        image_ending="_leftImg8bit",
        mask_ending="_gtFine_instanceIds",
        class_names=["a", "b"],
        divisor=1000,
        classes={5: 1, 900: 0},
    )
    assert data.make_source("train")[0]["labels"].tolist() == [1, 0]


def test_validation_held_out(tmp_path):
    tree(tmp_path, splits=("train",), names=[str(k) for k in range(10)])
    train, val = (module(tmp_path, val_fraction=0.3).make_source(split) for split in ("train", "val"))
    assert len(train) == 7 and len(val) == 3 and not set(train.files()) & set(val.files())
    assert {train[k]["image_id"] for k in range(7)} | {val[k]["image_id"] for k in range(3)} == set(range(10))
    with pytest.raises(FileNotFoundError, match="val_fraction"):
        module(tmp_path).make_source("val")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)images'.*ROOT/train/images/a.tif"):
        module(tmp_path).make_source("train")
    tree(tmp_path)
    (tmp_path / "train" / "masks" / "x" / "1.tif").unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 images of train/images: x/1"):
        module(tmp_path).make_source("train")
    with pytest.raises(ValueError, match="no images whose names end with '_a'; searched for .jpg"):
        module(tmp_path, image_ending="_a").make_source("val")
    save(tmp_path / "val" / "images" / "x" / "1.png", noise(4, 2))
    with pytest.raises(ValueError, match="1.png and 1.tif have the same name"):
        module(tmp_path).make_source("val")
    with pytest.raises(FileNotFoundError, match="class_file: no file '.*train/c.csv'"):
        assert module(tmp_path, class_file="{split}/c.csv").class_names


@pytest.mark.parametrize(
    "options, message",
    [
        ({"divisor": 1000}, "divisor: needs class_names.*1000"),
        ({"divisor": 0, "class_names": ["a"]}, "divisor: .*got 0"),
        ({"divisor": 10, "class_file": "x.csv", "class_names": ["a"]}, "divisor: .*10 and 'x.csv'"),
        ({"classes": {1: 0}}, "classes: needs divisor"),
        ({"class_names": ["a", "b"]}, "class_names: .*divisor or class_file.*got 2"),
        ({"class_names": []}, r"class_names: .*got \[\]"),
        ({"class_names": ["a"], "divisor": 9, "classes": {1: 1}}, "classes: .*got 1: 1"),
        ({"scale_16bit": "ful"}, "scale_16bit: .*got 'ful'; did you mean 'full'"),
        ({"scale_16bit": [5, 5]}, r"scale_16bit: .*got \[5, 5\]"),
        ({"val_fraction": 1.0}, "val_fraction: .*got 1.0"),
        ({"mask_folder": "masks"}, "mask_folder: .*{split}.*got 'masks'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        module("x", **options)
