"""YOLO's format: boxes and masks by hand and against pycocotools, forms of data.yaml, and errors for bad files."""

import warnings

import albumentations as A
import numpy as np
import pytest
from pycocotools import mask as oracle

from striate.datamodules import YoloDetection
from striate.datamodules.annotations.annotation_errors import AbsentSplitError
from striate.datamodules.yolo.data_yaml import read_data_yaml
from striate.datamodules.yolo.labels import label_path
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

# pycocotools 2.0.11 passes arrays to numpy 2 as to numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

# width, height, label lines
IMAGES = {
    "000000000007": (40, 20, "1 0.5 0.5 0.25 0.5\n\n0 0.1 0.2 0.2 0.4"),
    "000000000012": (33, 50, "0 0.1 0.1 0.9 0.2 0.5 0.8\r\n"),
    "000000000099": (8, 6, None),
}
YAML = "path: .\ntrain: images/train\nval: images/val\nnames: {0: cat, 1: dog}\n"


def write_yolo(root, text=YAML, images=None, splits=("train", "val")):
    for split in splits:
        for name, (width, height, labels) in (IMAGES if images is None else images).items():
            write_image(root / "images" / split / f"{name}.png", noise(width, height, int(width)))
            if labels is not None:
                (root / "labels" / split).mkdir(parents=True, exist_ok=True)
                (root / "labels" / split / f"{name}.txt").write_bytes(labels.encode())
    (root / "data.yaml").write_text(text)
    return root


def module(root, task="detection", **options):
    return YoloDetection(str(root), task, num_workers=0, batch_size=2, **options)


def test_boxes_and_labels_by_hand(tmp_path):
    data = module(write_yolo(tmp_path))
    data.setup("fit")
    assert data.class_names == ["cat", "dog"]
    first, second, empty = (data.datasets["train"][place] for place in range(3))
    np.testing.assert_array_equal(first["image"], noise(40, 20, 40))
    # x: 20 ± 5, y: 10 ± 5; and 4 ± 4, 4 ± 4 of an image of 40 by 20
    np.testing.assert_allclose(first["boxes"], [[15, 5, 25, 15], [0, 0, 8, 8]], atol=1e-5)
    assert first["boxes"].dtype == np.float32 and first["labels"].tolist() == [1, 0] and first["image_id"] == 7
    np.testing.assert_allclose(first["area"], [100, 64], rtol=1e-6)
    assert not first["iscrowd"].any() and not first["difficult"].any() and "masks" not in first
    np.testing.assert_allclose(second["boxes"], [[3.3, 5, 29.7, 40]], rtol=1e-6)  # around the triangle
    assert empty["boxes"].shape == (0, 4) and empty["image_id"] == 99
    batch = next(iter(data.val_dataloader()))
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 20, 40), (3, 50, 33)]
    assert batch["target"][0]["labels"].tolist() == [1, 0]


@pytest.mark.filterwarnings("ignore:.*clipped, reaching beyond")
def test_masks_have_pycocotools_pixels(tmp_path):
    polygons = ["0.1 0.1 0.9 0.2 0.5 0.8", "-0.2 0.512345 0.333333 0.4 1.1 0.99 0.2 1.2"]
    images = {"1": (33, 50, "\n".join(f"{k} {polygon}" for k, polygon in enumerate(polygons))), "2": (5, 5, "")}
    write_yolo(tmp_path, images=images)
    source = module(tmp_path, "instance_segmentation").make_source("train")
    sample = source[0]
    for mask, polygon in zip(sample["masks"], polygons, strict=True):
        points = (np.array(polygon.split(), np.float64).reshape(-1, 2) * (33, 50)).ravel().tolist()
        theirs = oracle.decode(oracle.frPyObjects([points], 50, 33))[..., 0]
        np.testing.assert_array_equal(mask, theirs)
        assert mask.any()
    np.testing.assert_allclose(sample["boxes"][1], [0, 20, 33, 50], rtol=1e-6)  # clipped
    assert source[1]["masks"].shape == (0, 5, 5)
    data = module(tmp_path, "instance_segmentation", train_transform=[A.HorizontalFlip(p=1)])
    data.setup("fit")
    flipped, plain = data.datasets["train"][0], data.datasets["val"][0]
    np.testing.assert_array_equal(flipped["masks"], sample["masks"][..., ::-1])
    assert plain["area"].tolist() == flipped["area"].tolist() == sample["masks"].sum(axis=(1, 2)).tolist()


def test_a_polygon_thinner_than_a_pixel_has_no_mask_and_never_reaches_a_batch(tmp_path):
    images = {"1": (20, 20, "0 0.1 0.1 0.9 0.1 0.9 0.10001 0.1 0.10001\n1 0.2 0.2 0.8 0.2 0.8 0.8")}
    data = module(write_yolo(tmp_path, images=images), "instance_segmentation")
    data.setup("fit")
    assert data.make_source("train")[0]["labels"].tolist() == [0, 1]  # as annotated, for the check of the data
    sample = data.datasets["train"][0]
    assert sample["labels"].tolist() == [1] and sample["masks"].any() and len(sample["boxes"]) == 1


@pytest.mark.parametrize(
    "name, expected",
    [
        ("images/train/a.jpg", "data/set/labels/train/a.txt"),
        ("train/images/x/a.b.png", "data/set/train/labels/x/a.b.txt"),
        ("images/my/images/a.jpg", "data/set/images/my/labels/a.txt"),  # the last
        ("all/a.jpg", "data/set/all/a.txt"),
        ("my_images/a.jpg", "data/set/my_images/a.txt"),
    ],
)
def test_label_path(name, expected):
    assert label_path("data/set", name) == expected


def test_labels_of_a_root_named_images():
    assert label_path("/data/images/", "train/a.jpg") == "/data/labels/train/a.txt"


@pytest.mark.parametrize(
    "split",
    [
        "images/train",
        "./images/train/",
        "[images/train]",
        "train.txt",
        "../images/train",  # as Roboflow writes it, with the file in the root
        "[first.txt, lists/rest.txt]",
        "{root}/images/train",
    ],
)
def test_forms_of_a_split(tmp_path, split):
    root = write_yolo(tmp_path / "set")
    names = [f"./images/train/{name}.png" for name in IMAGES]
    (root / "train.txt").write_text("\n".join(names) + "\n\n")
    (root / "lists").mkdir()
    (root / "first.txt").write_text(names[0])
    (root / "lists" / "rest.txt").write_text("\n".join(name[2:] for name in names[1:]))  # relative to the root
    (root / "data.yaml").write_text(f"train: {split.format(root=root)}\nval: images/val\nnames: [cat, dog]\n")
    source = module(root).make_source("train")
    assert source.images.ids.tolist() == [7, 12, 99] and [len(source[k]["labels"]) for k in range(3)] == [2, 1, 0]


def test_folders_are_searched_recursively_in_order(tmp_path):
    images = {"b/2": (4, 4, "0 .5 .5 1 1"), "b/1": (5, 5, None), "a/3": (6, 6, None), ".hidden/9": (6, 6, None)}
    root = tmp_path / "set"
    write_yolo(root, images={name: (w, h, None) for name, (w, h, _) in images.items()})
    (root / "labels" / "train" / "b").mkdir(parents=True)
    (root / "labels" / "train" / "b" / "2.txt").write_text("0 .5 .5 1 1")
    source = module(root).make_source("train")
    assert source.images.names.tolist() == [b"images/train/a/3.png", b"images/train/b/1.png", b"images/train/b/2.png"]
    assert source[2]["boxes"].tolist() == [[0, 0, 4, 4]]


def test_the_folder_of_the_dataset(tmp_path):
    write_yolo(tmp_path / "set")
    elsewhere = tmp_path / "configs" / "pets.yaml"
    elsewhere.parent.mkdir()
    for path in ("../set", str(tmp_path / "set")):
        elsewhere.write_text(YAML.replace("path: .", f"path: {path}"))
        assert len(module(elsewhere).make_source("train")) == 3  # the file itself
        assert len(module(elsewhere.parent).make_source("train")) == 3  # the only YAML file in its folder
    (tmp_path / "set" / "data.yaml").write_text(YAML.replace("path: .", "path: /on/another/machine"))
    assert len(module(tmp_path / "set").make_source("train")) == 3


def test_without_test_its_images_are_those_of_val(tmp_path):
    write_yolo(tmp_path)
    assert module(tmp_path).make_source("test").images.names[0].startswith(b"images/val/")
    (tmp_path / "data.yaml").write_text(YAML + "test: images/train\n")
    assert module(tmp_path).make_source("test").images.names[0].startswith(b"images/train/")


def test_skip_empty_applies_to_training(tmp_path):
    data = module(write_yolo(tmp_path), skip_empty=True)
    assert len(data.make_source("train")) == 2 and len(data.make_source("val")) == 3


def test_sizes_are_read_from_the_files_on_demand(tmp_path):
    source = module(write_yolo(tmp_path)).make_source("train")
    assert not source.images.sizes.any()
    (tmp_path / "images" / "train" / "000000000012.png").write_bytes(b"\x89PNG")
    assert source.images.measured().tolist() == [[40, 20], [0, 0], [8, 6]]


UNUSABLE = [
    ("0 0.5 0.5 0 0.2", "box-zero-area"),
    ("0 0.5 0.5 0.2 -0.2", "box-inverted"),
    ("0 0.5 nan 0.2 0.2", "box-not-finite"),
    ("0 0.5 0.5 inf 0.2", "box-not-finite"),
    ("0 0.1 0.1 0.5 nan 0.3 0.9", "box-not-finite"),
    ("0 1.2 0.5 0.2 0.2", "box-outside"),
    ("0 0.5 0.5 0.0000001 0.2", "box-outside"),
    ("0 20 10 10 10", "unusable-annotation"),
    ("0 0.1 0.2", "bad-mask"),
]


@pytest.mark.parametrize("line, code", UNUSABLE)
@pytest.mark.parametrize("task", ["detection", "instance_segmentation"])
def test_unusable_objects(tmp_path, line, code, task):
    good = ["1 0.2 0.2 0.8 0.2 0.8 0.8", "0 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4"]
    if task == "instance_segmentation" and len(line.split()) == 5 and code != "unusable-annotation":
        code = "bad-mask"  # a box without polygon
    write_yolo(tmp_path, images={"1": (40, 20, f"{good[0]}\n{line}\n{good[1]}"), "2": (9, 9, f"{good[0]}\n")})
    where = r"labels/train/1.txt, line 2"
    with warns_of(code, where):
        source = module(tmp_path, task).make_source("train")
    assert [source[k]["labels"].tolist() for k in range(2)] == [[1, 0], [1]]
    np.testing.assert_allclose(source[0]["boxes"][1], [8, 4, 16, 8], rtol=1e-6)
    if task == "instance_segmentation":  # masks and boxes still match
        assert source[0]["masks"][1].sum() == 8 * 4 and not source[0]["masks"][1][:, :8].any()
    with stops_at(code, f"/{where}: "):
        module(tmp_path, task, strict=True).make_source("train")


def test_boxes_without_polygons(tmp_path):
    write_yolo(tmp_path, images={"1": (40, 20, "0 .5 .5 .2 .2\n1 .5 .5 .1 .1\n"), "2": (9, 9, "0 .5 .5 1 1\n")})
    with pytest.raises(ValueError, match="3 boxes and no polygon.*task: detection"):
        module(tmp_path, "instance_segmentation").make_source("train")
    assert len(module(tmp_path).make_source("train")) == 2


def test_a_box_partly_outside_is_clipped_without_a_warning(tmp_path):
    write_yolo(tmp_path, images={"1": (40, 20, "0 0.1 0.9 0.28 0.28")})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(module(tmp_path).make_source("train")[0]["boxes"], [[0, 15.2, 9.6, 20]], rtol=1e-6)


@pytest.mark.parametrize(
    "line, code, message",
    [
        ("2 0.5 0.5 0.1 0.1", "label-outside", "got 2; .* 2 classes, 0 to 1"),
        ("-1 0.5 0.5 0.1 0.1", "label-outside", "got -1"),
        ("0.5 0.5 0.5 0.1 0.1", "label-outside", "got 0.5"),
        ("cat 0.5 0.5 0.1 0.1", "unusable-annotation", "numbers, got 'cat 0.5 0.5 0.1 0.1'"),
        ("0 0.5 0.5 0.1", "unusable-annotation", "5 numbers.*got 4"),
        ("0 0.5 0.5 0.1 0.1 0.99", "unusable-annotation", "got 6"),
        ("0", "unusable-annotation", "got 1"),
    ],
)
def test_bad_lines(tmp_path, line, code, message):
    write_yolo(tmp_path, images={"1": (40, 20, f"\n0 0.5 0.5 0.1 0.1\n{line}\n")})
    with stops_at(code, rf"labels/train/1.txt, line 3: .*{message}"):
        module(tmp_path).make_source("train")


def test_a_class_may_be_written_as_a_float_and_a_file_begin_with_a_byte_order_mark(tmp_path):
    write_yolo(tmp_path, images={"1": (40, 20, "\ufeff1.0 0.5 0.5 1 1")})
    assert module(tmp_path).make_source("train")[0]["labels"].tolist() == [1]


@pytest.mark.parametrize(
    "names", ["[007, 1e3, 010, 1.50, 0x1F, 1_0]", "{0: 007, 1: 1e3, 2: 010, 3: 1.50, 4: 0x1F, 5: 1_0}"]
)
def test_class_names_that_are_numbers_stay_as_written(tmp_path, names):
    file = tmp_path / "data.yaml"
    file.write_text(f"nc: 6\nnames: {names}\ntrain: images\n")
    assert read_data_yaml(file).class_names == ["007", "1e3", "010", "1.50", "0x1F", "1_0"]


@pytest.mark.parametrize(
    "text, message",
    [
        ("path: .\ntrain: [images\nval: x", r"data.yaml, line 3, column 4: malformed YAML"),
        ("- 1\n", "keys path, .*got list"),
        ("train: images/train\nname: [cat]", "no key 'names'.*did you mean 'name'"),
        ("names: [cat]\ntrain: images/train\nval:", "no images for 'val'"),
        ("names: [cat]\nval: {a: 1}", "val: .*got {'a': 1}"),
        ("names: cat\nval: images/val", "names: .*got 'cat'"),
        ("names: {1: cat, 2: dog}\nval: images/val", r"names: .*0 to 1, got \[1, 2\]"),
        ("names: [cat, no]\nval: images/val", "names: class 1 .*got False; .*quotes"),
        (
            "names: [cat, Cat ]\nval: images/val",
            "data.yaml, names: .*only in case.*got 'Cat' and 'cat'; rename them, or set merge_sim",
        ),
        ("names: [cat, cat]\nval: images/val", "names: .*got 'cat' more"),
        ("nc: 3\nnames: [cat, dog]\nval: images/val", "nc: must be 2.*got 3"),
        ("kpt_shape: [17, 4]\nnames: [cat]\nval: images/val", r"kpt_shape: .*keypoints and 2 or 3, got \[17, 4\]"),
        ("path: 3\nnames: [cat]\nval: images/val", "path: .*got 3"),
        ("names: [cat]\nval: ../other/images", "val: .*got '../other/images'"),
        ("names: [cat]\nval: /etc", "val: .*got '/etc'"),
        ("names: [cat]\nval: empty", "val: no images in 'empty'"),
    ],
)
def test_bad_data_yaml(tmp_path, text, message):
    write_yolo(tmp_path, text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=message):
        module(tmp_path).make_source("val")


@pytest.mark.parametrize("line", ["../out.png", "/etc/out.png", "images/../../out.png"])
def test_a_list_that_leads_out_of_the_root(tmp_path, line):
    root = write_yolo(tmp_path / "set", YAML.replace("images/val", "val.txt"))
    write_image(tmp_path / "out.png", noise(4, 4))
    (root / "val.txt").write_text(f"images/val/000000000007.png\n{line}\n")
    with stops_at("bad-target", rf"val.txt, line 2: .*'{line}'; .*set'"):
        module(root).make_source("val")


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)data.yaml'.*ROOT/labels/train/a.txt.*nothing"):
        module(tmp_path).make_source("train")
    write_yolo(tmp_path, YAML.replace("images/val", "images/vla"))
    with pytest.raises(FileNotFoundError, match=r"(?s)data.yaml, val: .*vla'.*contains: data.yaml"):
        module(tmp_path).make_source("val")
    (tmp_path / "val.txt").write_text("images/val/000000000007.png\nimages/val/8.png\n")
    (tmp_path / "data.yaml").write_text(YAML.replace("images/val", "val.txt"))
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images.*\n    images/val/8.png"):
        module(tmp_path).make_source("val")
    (tmp_path / "labels").rename(tmp_path / "label")
    with pytest.raises(FileNotFoundError, match="train: none of its 3 images.*labels/train/0"):
        module(tmp_path).make_source("train")


def test_bad_options():
    with pytest.raises(ValueError, match="task.*got 'detecton'; did you mean 'detection'"):
        module("x", "detecton")


# as CVAT and darknet, CVAT with validation images, and Label Studio write it
OBJ_DATA = "classes = 2\ntrain = {0}train.txt  # all\nnames = {0}obj.names\nbackup = backup/\n"
TOOLS = {
    "cvat": {"obj.data": OBJ_DATA.format("data/"), "train.txt": "".join(f"data/x/{n}.png\n" for n in range(4))},
    "relative": {"obj.data": OBJ_DATA.format(""), "train.txt": "x/0.png\nx/1.png\nx/2.png\nx/3.png\n"},
    "label studio": {"classes.txt": "cat\nred dog\n\n", "notes.json": "{}"},
}


def write_tool_folder(root, tool):
    files = TOOLS[tool]
    if "obj.data" in files:
        files = files | {"obj.names": "cat\nred dog\n\n"}
    images, labels = ("images", "labels") if tool == "label studio" else ("x", "x")
    for number in range(4):
        write_image(root / images / f"{number}.png", noise(20, 10, number))
        (root / labels).mkdir(exist_ok=True)
        (root / labels / f"{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.5 0.5\n")
    for name, text in files.items():
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize("tool", TOOLS)
def test_folders_of_tools_without_a_data_yaml(tmp_path, tool):
    data = module(write_tool_folder(tmp_path, tool))
    assert data.class_names == ["cat", "red dog"]
    with pytest.raises(AbsentSplitError, match="no images for 'val'; .*or set val_fraction: 0.1"):
        data.make_source("val")
    data = module(tmp_path, val_fraction=0.25)
    train, val, test = (data.make_source(split) for split in ("train", "val", "test"))
    assert (len(train), len(val)) == (3, 1) and test.files() == val.files()
    assert len({*train.files(), *val.files()}) == 4
    assert [train[0]["boxes"].tolist(), train[0]["labels"].tolist()] == [
        [[5, 2.5, 15, 7.5]],
        [train[0]["image_id"] % 2],
    ]


def test_cvat_with_validation_images(tmp_path):
    write_tool_folder(tmp_path, "relative")
    (tmp_path / "obj.data").write_text(OBJ_DATA.format("") + "valid = val.txt\n")
    (tmp_path / "val.txt").write_text("x/3.png\n")
    assert [len(module(tmp_path).make_source(split)) for split in ("train", "val", "test")] == [4, 1, 1]
    with pytest.raises(ValueError, match="val_fraction: must be null, since .*obj.data names images .*got 0.5"):
        module(tmp_path, val_fraction=0.5).make_source("train")
    (tmp_path / "obj.names").unlink()
    with pytest.raises(FileNotFoundError, match="obj.data, names: no file .*obj.names"):
        module(tmp_path).make_source("train")


def test_similar_names_are_one_class_on_request(tmp_path):
    text = YAML.replace("{0: cat, 1: dog}", "[cat, dog, ' Cat', dog]")
    labels = {"7": (40, 20, "2 0.5 0.5 0.25 0.5\n3 0.1 0.2 0.2 0.4\n1 0.5 0.2 0.2 0.4\n")}
    with pytest.raises(ValueError, match="names: each name must be unique, got 'dog'"):
        module(write_yolo(tmp_path, text, labels)).make_source("train")
    data = module(tmp_path, merge_similar_classes=True)
    assert data.class_names == ["cat", "dog"] and data.make_source("train")[0]["labels"].tolist() == [0, 1, 1]
