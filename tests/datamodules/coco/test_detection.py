"""COCO's format: content and pixels against pycocotools, and errors for bad files."""

import contextlib
import io
import json
import warnings

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as oracle
from pycocotools.coco import COCO

from striate.datamodules import CocoDetection
from striate.datamodules.annotations.object_masks import ObjectMasksBuilder
from striate.datamodules.coco.json_columns import coco_columns, fast_columns, tolerant_columns
from striate.datamodules.images.read import ImageError
from striate.datamodules.loading.dataset import TransformedDataset
from striate.tests.helpers.coco_voc import coco_content, runs_of, write_coco
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise

# pycocotools 2.0.11 passes arrays to numpy 2 as to numpy 1
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword")

TOO_MANY = oracle.encode(np.zeros((100, 100), np.uint8, order="F"))["counts"].decode()


def module(root, task="detection", **options):
    return CocoDetection(str(root), task, num_workers=0, batch_size=2, **options)


def test_boxes_labels_and_flags_by_hand(tmp_path):
    write_coco(tmp_path)
    data = module(tmp_path)
    data.setup("validate")
    assert data.class_names == ["car", "dog", "brush"] and data.category_ids == [3, 18, 90]
    first, second, empty = (data.datasets["val"][place] for place in range(3))
    np.testing.assert_array_equal(first["image"], noise(60, 40, 10))
    assert first["image_id"] == 10 and first["labels"].tolist() == [0, 1, 0] and "masks" not in first
    expected = np.array([[10.5, 5.25, 30.75, 20.01], [2, 2, 59.5, 39], [5, 30, 50, 38]], np.float32)
    np.testing.assert_array_equal(first["boxes"], expected)
    assert first["iscrowd"].tolist() == [False, False, True] and first["difficult"].tolist() == [False] * 3
    assert first["area"].tolist() == [285.5, 391.5, 360] and first["area"].dtype == np.float32
    assert second["image_id"] == 7 and second["labels"].tolist() == [1, 2]
    assert empty["image_id"] == 99 and empty["boxes"].shape == (0, 4)
    batch = next(iter(data.val_dataloader()))
    assert [tuple(image.shape) for image in batch["image"]] == [(3, 40, 60), (3, 50, 33)]
    assert batch["target"][0]["boxes"].tolist() == expected.tolist()


def test_against_pycocotools(tmp_path):
    file = write_coco(tmp_path)
    with contextlib.redirect_stdout(io.StringIO()):
        reference = COCO(str(file))
    data = module(tmp_path, "instance_segmentation")
    data.setup("fit")
    for place in range(3):
        sample = data.datasets["train"][place]
        theirs = reference.loadAnns(reference.getAnnIds(imgIds=sample["image_id"]))
        assert len(theirs) == len(sample["labels"])
        for number, one in enumerate(theirs):
            np.testing.assert_array_equal(sample["masks"][number], reference.annToMask(one))
            x, y, w, h = one["bbox"]
            np.testing.assert_array_equal(sample["boxes"][number], np.array([x, y, x + w, y + h], np.float32))
            assert sample["area"][number] == np.float32(one["area"])
            assert sample["iscrowd"][number] == one["iscrowd"]
            assert data.category_ids[sample["labels"][number]] == one["category_id"]
    assert sample["masks"].shape == (0, 30, 20) and sample["masks"].dtype == np.uint8


numbers = st.one_of(st.floats(-20, 70), st.integers(-20, 70).map(float), st.floats(0, 60).map(lambda x: round(x, 2)))
polygon = st.lists(numbers, min_size=6, max_size=16).map(lambda c: c[: len(c) // 2 * 2])


@settings(max_examples=150, deadline=None)
@given(st.lists(polygon, min_size=1, max_size=3), st.integers(1, 60), st.integers(1, 60))
def test_polygons_have_pycocotools_pixels(polygons, height, width):
    builder = ObjectMasksBuilder()
    assert builder.add(polygons, height, width) is None
    theirs = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, height, width)))
    np.testing.assert_array_equal(builder.build().decode([0], height, width)[0], theirs)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10**6), st.floats(0, 1))
def test_run_lengths_are_lossless(height, width, seed, share):
    mask = (np.random.default_rng(seed).random((height, width)) < share).astype(np.uint8)
    packed = oracle.encode(np.asfortranarray(mask))
    builder = ObjectMasksBuilder()
    for counts in (runs_of(mask), packed["counts"].decode(), packed["counts"]):
        assert builder.add({"size": [height, width], "counts": counts}, height, width) is None
    for decoded in builder.build().decode([0, 1, 2], height, width):
        np.testing.assert_array_equal(decoded, mask)


def test_polygons_keep_their_exact_numbers():
    for numbers in ([0.29, 1.57, 33.33, 4, 5.01, 60.07], [1 / 3, 1, 8, 1e-9, 5, 9]):
        builder = ObjectMasksBuilder()
        builder.add([numbers], 70, 70)
        assert builder.build().polygons(0) == [numbers]


@given(
    st.lists(
        st.lists(st.floats(-1e6, 1e6) | st.integers(-999, 999), min_size=0, max_size=12),
        min_size=0,
        max_size=4,
    )
)
def test_masks_from_text_equal_masks_from_parsed_json(polygons):
    built = []
    for compact in (True, False):
        builder = ObjectMasksBuilder()
        text = json.dumps(polygons, separators=(",", ":") if compact else None, indent=None if compact else 1)
        problems = builder.add(text.encode(), 50, 60), builder.add(json.loads(text), 50, 60)
        assert problems[0] == problems[1]
        built = builder.build()
        if problems[0] is None:
            assert built.polygons(0) == built.polygons(1) == [p for p in polygons if len(p) >= 6]


def test_both_paths_read_the_same_columns(tmp_path):
    content = coco_content()
    file = write_coco(tmp_path, content)
    fast, tolerant = fast_columns(file, with_masks=True), tolerant_columns(file)
    assert fast is not None
    for name in ("image_ids", "image_names", "category_ids", "category_names"):
        assert getattr(fast, name) == getattr(tolerant, name)
    for name in ("image_sizes", "ids", "object_image_ids", "object_category_ids", "boxes", "area", "iscrowd"):
        np.testing.assert_array_equal(getattr(fast, name), getattr(tolerant, name))
    assert [json.loads(text) for text in fast.segmentations] == list(tolerant.segmentations)
    content["annotations"][0]["id"] = "one"  # msgspec expects numbers
    file = write_coco(tmp_path, content)
    assert fast_columns(file, with_masks=False) is None
    assert coco_columns(file, with_masks=False).ids[0] == "one"


def test_semantic_masks_have_small_objects_on_top_and_crowds_below(tmp_path):
    write_coco(tmp_path)
    data = module(tmp_path, "semantic_segmentation", val_transform=[A.Resize(20, 20)])
    data.setup("validate")
    assert data.class_names == ["background", "car", "dog", "brush"]
    out = data.datasets["val"].source[0]["mask"]
    masks = module(tmp_path, "instance_segmentation").make_source("val")[0]["masks"] != 0
    expected = np.zeros((40, 60), np.uint8)
    for number, value in ((2, 1), (1, 2), (0, 1)):  # the crowd, the larger object, the smaller object
        expected[masks[number]] = value
    np.testing.assert_array_equal(out, expected)
    assert (masks[2] & masks[1]).any() and (out[masks[2] & masks[1]] == 2).all()
    assert next(iter(data.val_dataloader()))["mask"].shape == (2, 20, 20)


def test_the_smaller_of_two_objects_is_on_top_in_either_order(tmp_path):
    def square(number, category, left, size):
        polygon = [left, 2, left + size, 2, left + size, 2 + size, left, 2 + size]
        return {
            "id": number, "image_id": 10, "category_id": category, "segmentation": [polygon], "area": size**2,
            "bbox": [left, 2, size, size], "iscrowd": 0,
        }  # fmt: skip

    content = coco_content()
    content["annotations"] = [square(1, 3, 2, 4), square(2, 18, 2, 9), square(3, 18, 30, 9), square(4, 3, 30, 4)]
    write_coco(tmp_path, content)
    mask = module(tmp_path, "semantic_segmentation").make_source("train")[0]["mask"]
    assert mask[4, 4] == mask[4, 32] == 1 and mask[8, 8] == mask[8, 36] == 2
    assert np.bincount(mask.ravel()).tolist() == [2400 - 2 * 81, 2 * 16, 2 * 65]


def test_annotations_without_masks(tmp_path):
    content = coco_content()
    for annotation, nothing in zip(content["annotations"], ([], None, [[]], {}, None), strict=True):
        annotation["segmentation"] = nothing
    del content["annotations"][4]["segmentation"]
    file = write_coco(tmp_path, content)
    for task in ("instance_segmentation", "semantic_segmentation"):
        with pytest.raises(ValueError, match="train2017.json: .*segmentation.*5 .*task: detection"):
            module(tmp_path, task).make_source("train")
    assert len(module(tmp_path).make_source("train")) == 3
    content["annotations"][0]["segmentation"] = coco_content()["annotations"][0]["segmentation"]
    file.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"^4 annotations .*bad-mask"):
        module(tmp_path, "instance_segmentation").make_source("train")


@pytest.mark.parametrize("columns", [lambda file: coco_columns(file, False), tolerant_columns])
def test_integers_may_be_written_as_floats(tmp_path, columns):
    content = coco_content()
    content["images"][0]["width"] = 60.0
    content["annotations"][0]["image_id"] = 10.0
    result = columns(write_coco(tmp_path, content))
    assert result.image_sizes[0].tolist() == [60, 40] and result.object_image_ids[0] == 10
    content["images"][0]["width"] = 60.5
    with pytest.raises(ValueError, match="width must be a whole number, got 60.5"):
        columns(write_coco(tmp_path, content))


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_min_visibility_is_a_fraction(tmp_path, value):
    with pytest.raises(ValueError, match=rf"^min_visibility: .*got {value}"):
        module(tmp_path, min_visibility=value)
    with pytest.raises(ValueError, match="min_visibility"):
        TransformedDataset([], [A.HorizontalFlip()], min_visibility=value)
    assert module(tmp_path, min_visibility=1.0).min_visibility == 1


def test_skip_empty_applies_to_training(tmp_path):
    content = coco_content()
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation["image_id"] == 10)
    write_coco(tmp_path, content)
    data = module(tmp_path, skip_empty=True)
    with pytest.warns(UserWarning, match="^3 of 5 objects are crowds and never trained on, all objects of car"):
        data.setup("fit")
    assert [data.datasets["train"][place]["image_id"] for place in range(len(data.datasets["train"]))] == [7]
    assert len(data.datasets["val"]) == 3


def test_masks_move_with_the_image_and_boxes_with_them(tmp_path):
    write_coco(tmp_path)
    plain = module(tmp_path, "instance_segmentation").make_source("train")[0]
    data = module(tmp_path, "instance_segmentation", train_transform=[A.HorizontalFlip(p=1)])
    data.setup("fit")
    flipped = data.datasets["train"][0]
    np.testing.assert_array_equal(flipped["masks"], plain["masks"][..., ::-1])
    columns = np.flatnonzero(flipped["masks"][0].any(axis=0))
    assert flipped["boxes"][0, [0, 2]].tolist() == [columns[0], columns[-1] + 1]
    assert flipped["area"].tolist() == plain["masks"].sum(axis=(1, 2)).tolist()


def broken(tmp_path, change, task="detection", **options):
    content = coco_content()
    change(content)
    write_coco(tmp_path, content)
    return module(tmp_path, task, **options).make_source("train")


def setting(number, **fields):
    return lambda content: content["annotations"][number].update(fields)


UNUSABLE = [
    ("detection", {"bbox": [1, 2, 0, 5]}, "box-zero-area", ""),
    ("detection", {"bbox": [5, 2, -3, 5]}, "box-inverted", ""),
    ("detection", {"bbox": [1, float("nan"), 4, 5]}, "box-not-finite", ""),
    ("detection", {"bbox": [float("-inf"), 1, float("inf"), 5]}, "box-not-finite", ""),
    ("detection", {"bbox": [60, 2, 4, 5]}, "box-outside", ""),
    ("detection", {"bbox": [-9, 2, 9, 5]}, "box-outside", ""),
    ("instance_segmentation", {"segmentation": [[1, 1, 5, 5]]}, "bad-mask", "no polygon has three points"),
    ("instance_segmentation", {"segmentation": [[1, 1, 5, 5, 8, 2, 3]]}, "bad-mask", "an odd number of coordinates"),
    (
        "instance_segmentation",
        {"segmentation": [[1, 1, 5, 5, 8, float("nan")]]},
        "bad-mask",
        "coordinate that is",
    ),
    ("instance_segmentation", {"segmentation": []}, "bad-mask", "no mask"),
    (
        "instance_segmentation",
        {"segmentation": {"size": [60, 40], "counts": [2400]}},
        "bad-mask",
        "another size",
    ),
    (
        "instance_segmentation",
        {"segmentation": {"size": [40, 60], "counts": [2, 3]}},
        "bad-mask",
        "do not add up",
    ),
    (
        "semantic_segmentation",
        {"segmentation": {"size": [40, 60], "counts": TOO_MANY}},
        "bad-mask",
        "do not add up",
    ),
]


@pytest.mark.parametrize("task, fields, code, message", UNUSABLE)
def test_unusable_objects(tmp_path, task, fields, code, message):
    with warns_of(code, "annotation 1"):
        source = broken(tmp_path, setting(0, **fields), task)
    assert source.objects.labels.tolist() == [1, 0, 1, 2] and len(source) == 3
    with stops_at(code, rf"train2017.json, annotation 1: .*{message}"):
        broken(tmp_path, setting(0, **fields), task, strict=True)


def test_several_faults_are_counted_in_one_warning(tmp_path):
    def change(content):
        for number in (0, 2):
            content["annotations"][number]["bbox"] = [1, 1, 0, 0]
        content["annotations"][3]["bbox"] = [500, 500, 3, 3]

    with pytest.warns(UserWarning, match=r"^3 annotations .* 2 x .*box-zero-area.* 1 x .*box-outside") as warned:
        broken(tmp_path, change)
    assert len(warned) == 1


def test_a_box_partly_outside_is_clipped_without_a_warning(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source = broken(tmp_path, setting(0, bbox=[-2.5, 30, 65, 11]))
    assert source[0]["boxes"][0].tolist() == [0, 30, 60, 40]


def removing(part, number=0):
    return lambda content: content[part].pop(number)


@pytest.mark.parametrize(
    "change, message",
    [
        (removing("images"), r"annotation 1 \(and 2 more\): .*got image_id 10"),
        (removing("categories", 2), "annotation 5: label .*got category_id 90"),
        (lambda c: c.pop("images"), r"list 'images', got \['info', 'annotations', 'categories'\]"),
        (lambda c: c["images"].clear(), r"images.*got \[\]"),
        (lambda c: c["images"].append(c["images"][0]), r"image '0+10.png' \(images\[3\]\): .*got 10 more"),
        (lambda c: c["images"][1].pop("width"), r"'0+7.png' \(images\[1\]\): width .*got no such field"),
        (lambda c: c["images"][1].update(file_name="../x.png"), "'../x.png' .*file_name leads out"),
        (lambda c: c["images"][1].update(file_name="/etc/x.png"), "'/etc/x.png' .*file_name leads out"),
        (setting(2, bbox=[1, 2, 3]), r"annotation 3 \(annotations\[2\]\): bbox .*got \[1, 2, 3\]"),
        (setting(2, bbox=[1, 2, 3, "x"]), r"annotation 3 .*: bbox .*got \[1, 2, 3, 'x'\]"),
        (setting(2, category_id="dog"), "annotation 3 .*: category_id .*got 'dog'"),
        (lambda c: c["images"][1].update(width=0), "'0+7.png' .*: width and height .*got 0 and 50"),
    ],
)
def test_inconsistent_files(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        broken(tmp_path, change)


def test_malformed_json(tmp_path):
    file = write_coco(tmp_path)
    text = json.dumps(coco_content(), indent=1)
    file.write_text(text[: len(text) // 2])
    lines = text[: len(text) // 2].count("\n") + 1
    with pytest.raises(ValueError, match=rf"train2017.json, line {lines}, column \d+: .*JSON"):
        module(tmp_path).make_source("train")


def test_files_of_other_names_are_named_with_their_argument(tmp_path):
    file = write_coco(tmp_path)
    for name in ("b.json", "instances_a.json"):
        (tmp_path / name).write_bytes(file.read_bytes())
    file.unlink()
    (tmp_path / "annotations/instances_val2017.json").unlink()
    (tmp_path / "a.json").write_text("{}")
    found = r"but b.json and instances_a.json are in COCO's format; name the file of {0} in {0}_annotations"
    for split in ("train", "val"):
        with pytest.raises(FileNotFoundError, match=found.format(split)):
            module(tmp_path).make_source(split)


def test_missing_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"(?s)instances_train2017.json.*ROOT/val2017/000000000139.jpg"):
        module(tmp_path).make_source("train")
    write_coco(tmp_path)
    (tmp_path / "val2017" / "000000000007.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images.*val2017.*\n    000000000007.png"):
        module(tmp_path).make_source("val")


def test_an_image_of_another_size_is_unreadable(tmp_path):
    source = broken(tmp_path, lambda content: content["images"][0].update(width=61))
    with pytest.raises(ImageError, match="0010.png: .*60x40, .*annotations.* 61x40"):
        source[0]


def test_categories_that_differ_between_splits(tmp_path):
    file = write_coco(tmp_path)
    content = coco_content()
    content["categories"] = content["categories"] + [{"id": 91, "name": "comb"}]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="categories.*91 'comb'"):
        module(tmp_path).setup("fit")


def test_training_set_without_objects(tmp_path):
    write_coco(tmp_path)
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"annotations": []}))
    with pytest.raises(ValueError, match=r"train2017.json: none of its 3 images has a usable object"):
        module(tmp_path).setup("fit")
    data = module(tmp_path, val_annotations="annotations/instances_train2017.json", val_images="train2017")
    with pytest.warns(UserWarning, match="^metrics of val will measure nothing"):
        data.setup("validate")  # validation does not need objects


def test_a_file_without_areas_has_those_of_boxes_or_masks(tmp_path):
    content = coco_content()
    for item in content["annotations"]:
        del item["area"]
    write_coco(tmp_path, content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        boxed = module(tmp_path).make_source("train")[0]
        masked = module(tmp_path, "instance_segmentation").make_source("train")[0]
    np.testing.assert_allclose(boxed["area"], [20.25 * 14.76, 57.5 * 37, 360], rtol=1e-6)
    assert masked["area"].tolist() == masked["masks"].sum(axis=(1, 2)).tolist()


@pytest.mark.parametrize("task, boxes", [("detection", None), ("instance_segmentation", [0, 0, 0, 0])])
def test_evaluation_counts_objects_that_the_transform_leaves_nothing_of(tmp_path, task, boxes):
    write_coco(tmp_path)
    data = module(tmp_path, task, train_transform=[A.Resize(2, 3)], val_transform=[A.Resize(2, 3)], min_visibility=0.9)
    data.setup("fit")
    assert len(data.datasets["train"][1]["labels"]) < 2
    kept = data.datasets["val"][1]
    assert kept["labels"].tolist() == [1, 2]
    small = kept["boxes"][1].tolist()
    assert small == boxes if boxes else 0 < small[2] - small[0] < 1
