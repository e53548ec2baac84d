"""One object an image: from VOC's and COCO's trees, by hand and against their own tools; what is wrong is said."""

import inspect
from pathlib import Path

import albumentations as A
import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ArgumentParser
from PIL import Image
from pycocotools.coco import COCO

from striate.datamodules import (
    CUB200,
    CocoLocalization,
    ImageNetLocalization,
    LocalizationManifest,
    OxfordPets,
    VisionDataModule,
    VOCLocalization,
)
from striate.datamodules.annotations.one_box import BoxSource, choose_objects
from striate.datamodules.images.read import ImageError, read_image
from striate.datamodules.images.sizes import image_sizes
from striate.datamodules.loading.loader import TransformedDataset
from striate.datamodules.voc.detection import VOC_CLASSES
from striate.tests.helpers.annotated import coco_content, noise, write_coco, write_voc
from striate.tests.helpers.fixtures import write_image

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


def coco(root, **options):
    return CocoLocalization(str(root), num_workers=0, batch_size=2, **options)


def shown(source):
    """What a source gives: file name, label, box."""
    return [(Path(s["path"]).stem, s["label"], s["box"].tolist()) for s in source]


# -- choosing ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule, expected", [("one", [2]), ("first", [0, 2, 3]), ("largest", [1, 2, 5])])
def test_choosing_by_hand(rule, expected):
    boxes = np.array([[0, 0, 3, 3], [0, 0, 2, 5], [1, 1, 2, 2], [0, 0, 1, 9], [4, 4, 8, 6], [0, 0, 10, 1]], np.float32)
    assert choose_objects(np.array([4, 4, 5, 9, 9, 9]), boxes, rule).tolist() == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(1, 4)), max_size=20))
def test_choosing_against_a_loop(objects):
    of_image = np.array([image for image, _, _ in objects], np.int64)
    boxes = np.array([(0, 0, w, h) for _, w, h in objects], np.float32).reshape(-1, 4)
    groups = {image: [n for n, o in enumerate(objects) if o[0] == image] for image in sorted({o[0] for o in objects})}
    largest = [max(group, key=lambda n: objects[n][1] * objects[n][2]) for group in groups.values()]
    assert choose_objects(of_image, boxes, "largest").tolist() == largest
    assert choose_objects(of_image, boxes, "first").tolist() == [group[0] for group in groups.values()]
    assert choose_objects(of_image, boxes, "one").tolist() == [g[0] for g in groups.values() if len(g) == 1]


# -- the source --------------------------------------------------------------------------------------


def source_of(tmp_path, box, **options):
    write_image(tmp_path / "a.png", noise(60, 40))
    return BoxSource(["a.png"], np.array([3]), np.array([box], np.float32), tmp_path, **options)


def test_a_sample_is_the_image_its_label_and_its_box_clipped_to_it(tmp_path):
    sample = source_of(tmp_path, [-2, 5.5, 70, 40])[0]
    np.testing.assert_array_equal(sample["image"], noise(60, 40))
    assert sample["label"] == 3 and sample["box"].tolist() == [0, 5.5, 60, 40] and sample["box"].dtype == np.float32
    assert sample["path"] == str(tmp_path / "a.png")


def test_a_box_drawn_in_another_size_is_scaled_or_refused(tmp_path):
    sizes = np.array([[120, 160]], np.int32)
    sample = source_of(tmp_path, [12, 16, 120, 160], sizes=sizes, rescale=True)[0]
    assert sample["box"].tolist() == [6, 4, 60, 40]
    with pytest.raises(ImageError, match="a.png: the image is 60x40, but its annotations are for 120x160"):
        source_of(tmp_path, [12, 16, 120, 160], sizes=sizes)[0]
    assert source_of(tmp_path, [0, 0, 60, 40], sizes=sizes[:, ::-1] // 4 + [[20, 10]])[0]["box"].tolist() == [
        0,
        0,
        60,
        40,
    ]


def test_a_box_outside_its_image_counts_as_unreadable(tmp_path):
    source = source_of(tmp_path, [60, 5, 70, 9])
    with pytest.raises(
        ImageError, match=r"a.png: nothing of its box \[60.0, 5.0, 70.0, 9.0\] lies in the image, 60x40"
    ):
        source[0]
    assert TransformedDataset(source)[0]["unreadable"][0].startswith(str(tmp_path / "a.png"))


def test_a_part_keeps_everything(tmp_path):
    sizes = np.array([[10, 20], [30, 40]], np.int32)
    whole = BoxSource(["a", "b"], np.array([0, 1]), np.eye(2, 4, dtype=np.float32), tmp_path, sizes, rescale=True)
    part = whole.part(np.array([False, True]))
    assert len(part) == 1 and part.paths.tolist() == [b"b"] and part.labels.tolist() == [1] and part.rescale
    assert part.boxes.tolist() == [[0, 1, 0, 0]] and part.sizes.tolist() == [[30, 40]] and part.root == tmp_path


# -- VOC ---------------------------------------------------------------------------------------------


def test_voc_by_hand(tmp_path):
    write_voc(tmp_path, OBJECTS)
    one = voc(tmp_path)
    assert shown(one.make_source("train")) == [("000001", DOG, BOX["000001"]), ("000003", CAT, BOX["000003"])]
    assert one.class_names == list(VOC_CLASSES)
    largest = voc(tmp_path, objects="largest").make_source("val")
    labels = {"000001": DOG, "000002": DOG, "000003": CAT, "000005": DOG}
    assert shown(largest) == [(name, labels[name], box) for name, box in BOX.items()]
    assert largest.labels.dtype == np.int64 and largest.boxes.dtype == np.float32


def test_voc_classes_of_interest_are_numbered_as_given(tmp_path):
    write_voc(tmp_path, OBJECTS)
    data = voc(tmp_path, classes=["dog", "cat"])
    assert data.class_names == ["dog", "cat"]
    assert [label for _, label, _ in shown(data.make_source("train"))] == [0, 1]
    dogs = voc(tmp_path, classes=["dog"])
    assert shown(dogs.make_source("test")) == [("000001", 0, BOX["000001"]), ("000002", 0, BOX["000002"])]
    cats = voc(tmp_path, classes=["cat"], objects="largest")
    assert shown(cats.make_source("train")) == [("000002", 0, [0, 0, 40, 40]), ("000003", 0, BOX["000003"])]


@pytest.mark.parametrize("rule", ["one", "largest"])
def test_voc_against_torchvision(tmp_path, rule):
    write_voc(tmp_path, OBJECTS)
    expected = []
    for _, truth in torchvision.datasets.VOCDetection(str(tmp_path), "2007", "train"):
        boxes = []
        for one in truth["annotation"]["object"]:
            x1, y1, x2, y2 = (float(one["bndbox"][side]) for side in ("xmin", "ymin", "xmax", "ymax"))
            if one["difficult"] == "0":
                boxes.append((one["name"], [x1 - 1, y1 - 1, x2, y2]))
        if len(boxes) == 1 or (boxes and rule == "largest"):
            name, box = max(boxes, key=lambda b: (b[1][2] - b[1][0]) * (b[1][3] - b[1][1]))
            expected.append((truth["annotation"]["filename"].split(".")[0], VOC_CLASSES.index(name), box))
    assert shown(voc(tmp_path, objects=rule).make_source("train")) == expected


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


def test_voc_boxes_that_cannot_be_used_are_counted_or_refused(tmp_path):
    write_voc(tmp_path, {"000001": [("dog", (10, 20, 9, 40), 0)], "000002": [("cat", (1, 1, 9, 9), 0)]})
    with pytest.warns(UserWarning, match=r"1 annotation\(s\) left out: 1 of a box of zero or negative width"):
        assert shown(voc(tmp_path).make_source("train")) == [("000002", CAT, [0, 0, 9, 9])]
    with pytest.raises(ValueError, match=r"000001.xml, object 1: a box of zero or negative width"):
        voc(tmp_path, strict=True).make_source("train")


def test_an_image_of_another_size_than_annotated_is_unreadable(tmp_path):
    folder = write_voc(tmp_path, OBJECTS) / "VOC2007" / "JPEGImages"
    source = voc(tmp_path).make_source("train")
    write_image(folder / "000001.jpg", noise(375, 500))
    with pytest.raises(ImageError, match="000001.jpg: the image is 375x500, but its annotations are for 500x375"):
        source[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"objects": "larges"}, "objects: 'larges' is not one of one, largest; did you mean 'largest'"),
        ({"classes": ["dgo"]}, "classes: 'dgo' is not one of the 20 classes; did you mean 'dog'"),
        ({"classes": ["dog", "cat", "dog"]}, "classes: 'dog' is there more than once"),
        ({"classes": []}, "classes: an empty list"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        voc("x", **options)


def test_a_split_of_which_nothing_is_left(tmp_path):
    write_voc(tmp_path, OBJECTS)
    message = r"train: \['2007_train'\]: no image in it has exactly one object of the classes bus that .*objects: larg"
    with pytest.raises(ValueError, match=message):
        voc(tmp_path, classes=["bus"]).make_source("train")


def test_missing_files_show_the_tree_under_the_readers_own_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*train.txt'. VOCLocalization expects.*holds: nothing"):
        voc(tmp_path).make_source("train")
    with pytest.raises(FileNotFoundError, match=r"(?s)no file .*val2017.json'. CocoLocalization expects.*ROOT/val2017"):
        coco(tmp_path).setup("validate")


# -- COCO --------------------------------------------------------------------------------------------


def test_coco_by_hand(tmp_path):
    write_coco(tmp_path)
    cars = coco(tmp_path, classes=["car"])
    # the crowd of cars in the same image does not count
    assert shown(cars.make_source("train")) == [("000000000010", 0, np.float32([10.5, 5.25, 30.75, 20.01]).tolist())]
    assert cars.category_ids == [3] and cars.class_names == ["car"]
    data = coco(tmp_path, classes=["brush", "dog"], objects="largest")
    assert shown(data.make_source("val")) == [
        ("000000000010", 1, [2, 2, 59.5, 39]),
        ("000000000007", 1, [7, 16, 26, 35]),
    ]
    assert data.category_ids == [90, 18]
    one = coco(tmp_path, classes=["brush", "dog"])
    assert [name for name, _, _ in shown(one.make_source("test"))] == ["000000000010"]
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
    found = {name: (data.category_ids[label], box) for name, label, box in shown(data.make_source("train"))}
    assert found == expected and len(found) == 2


def test_coco_classes_that_are_not_there(tmp_path):
    write_coco(tmp_path)
    with pytest.raises(ValueError, match="classes: 'dgo' is not one of the 3 classes; did you mean 'dog'"):
        coco(tmp_path, classes=["dgo"]).setup("fit")
    with pytest.raises(ValueError, match=r"train_annotations: .*train2017.json: no image in it has exactly one object"):
        coco(tmp_path).make_source("train")


def test_coco_boxes_that_cannot_be_used_are_counted_or_refused(tmp_path):
    content = coco_content()
    content["annotations"][2]["bbox"] = [1, 2, float("nan"), 5]
    write_coco(tmp_path, content)
    with pytest.warns(UserWarning, match=r"1 annotation\(s\) left out: 1 of a coordinate that is NaN or infinite"):
        assert len(coco(tmp_path).make_source("train")) == 1  # of two objects one is left
    with pytest.raises(ValueError, match="annotation 3: a coordinate that is NaN"):
        coco(tmp_path, strict=True).make_source("train")


# -- what the readers share --------------------------------------------------------------------------

READERS = [VOCLocalization, CocoLocalization, CUB200, OxfordPets, ImageNetLocalization, LocalizationManifest]


@pytest.mark.parametrize("reader", READERS)
def test_the_shared_arguments_come_last_and_reach_the_base_and_yaml_can_build_it(reader):
    shared = list(inspect.signature(VisionDataModule).parameters.values())
    tail = list(inspect.signature(reader).parameters.values())[-len(shared) :]
    assert [p.name for p in tail] == [p.name for p in shared]
    assert [p.default for p in tail if p.name != "batch_size"] == [p.default for p in shared if p.name != "batch_size"]
    given = dict.fromkeys(("batch_size", "eval_batch_size", "num_workers", "seed"), 3) | {"images": "x.png"}
    given |= {"train_transform": None, "val_transform": None, "strict": True, "sampling": "class_balanced"}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(VisionDataModule, "data")
    first = "train" if reader is LocalizationManifest else "root"
    options = {first: "somewhere", "min_visibility": 0.25, **given}
    config = parser.parse_object(
        {"data": {"class_path": f"striate.datamodules.{reader.__name__}", "init_args": options}}
    )
    data = parser.instantiate(config).data
    assert type(data) is reader and {name: getattr(data, name) for name in given} == given
    assert data.min_visibility == 0.25 and not data.lists_images


@pytest.mark.parametrize("orientation, expected", [(1, (40, 20)), (3, (40, 20)), (6, (20, 40)), (8, (20, 40))])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_sizes_from_headers_are_those_of_the_images_as_they_are_seen(tmp_path, orientation, expected, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(noise(40, 20)).save(tmp_path / f"a.{suffix}", exif=exif)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    sizes = image_sizes(tmp_path / name for name in (f"a.{suffix}", "b.jpg", "gone.jpg"))
    assert sizes.tolist() == [list(expected), [0, 0], [0, 0]]
    assert read_image(tmp_path / f"a.{suffix}").shape[1::-1] == expected


def test_sizes_of_many_files_stay_in_order(tmp_path):
    for width in range(1, 9):
        write_image(tmp_path / f"{width}.png", noise(width, 2))
    paths = [tmp_path / f"{1 + n % 8}.png" for n in range(1000)]
    assert image_sizes(paths).tolist() == [[1 + n % 8, 2] for n in range(1000)]
    assert image_sizes([]).shape == (0, 2)
