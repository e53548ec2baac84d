"""labelme's JSON files, as labelme 3 to 7 write them."""

import base64
import io
import json
import math

import numpy as np
import pytest
from PIL import Image

from striate.datamodules import CocoDetection, LabelmeJson
from striate.datamodules.annotations.annotation_errors import AbsentSplitError, record_faults
from striate.datamodules.doctor import check
from striate.datamodules.export import export_data
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

WIDTH, HEIGHT = 60, 40


def shape(label, kind, points, **more):
    """A shape with all of labelme's keys."""
    keys = {"label": label, "points": points, "group_id": None, "description": "", "shape_type": kind, "flags": {}}
    return keys | {"mask": None} | more


def write(root, name, objects, seed=0, **more):
    """An image and its JSON file."""
    write_image(root / f"{name}.png", noise(WIDTH, HEIGHT, seed))
    content = {"version": "5.4.1", "flags": {}, "shapes": objects, "imagePath": f"{name.rpartition('/')[2]}.png"}
    content |= {"imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH} | more
    (root / f"{name}.json").write_text(json.dumps(content, indent=2))


def png(mask):
    """A mask as labelme stores it: a PNG of booleans in base64."""
    buffer = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(buffer, format="PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def module(root, task="detection", **options):
    return LabelmeJson(str(root), task, num_workers=0, **options)


RECTANGLE = shape("cat", "rectangle", [[25.0, 30.0], [5.0, 6.0]])  # drawn from the lower right corner
POLYGON = shape("dog", "polygon", [[30, 10], [55, 10], [30, 38]])


def test_shapes(tmp_path):
    mask = np.zeros((10, 8), np.uint8)
    mask[2:, 1:] = 1
    drawn = shape("dog", "mask", [[40, 20], [47, 29]], mask=png(mask))
    write(tmp_path, "a", [RECTANGLE, POLYGON, shape("cat", "circle", [[20, 20], [23, 24]]), drawn])
    data = module(tmp_path, "instance_segmentation")
    assert data.class_names == ["cat", "dog"]
    sample = data.make_source("train")[0]
    assert sample["labels"].tolist() == [0, 1, 0, 1]
    expected = [[5, 6, 25, 30], [30, 10, 55, 38], [15, 15, 25, 25], [41, 22, 48, 30]]
    np.testing.assert_allclose(sample["boxes"], expected, atol=1e-5)
    np.testing.assert_array_equal(sample["masks"][0], _filled(5, 6, 25, 30))
    assert abs(sample["masks"][2].sum() - math.pi * 25) < 8
    np.testing.assert_array_equal(sample["masks"][3][20:30, 40:48], mask)
    assert sample["masks"][3].sum() == mask.sum()
    semantic = module(tmp_path, "semantic_segmentation")
    assert semantic.class_names == ["background", "cat", "dog"]
    assert semantic.make_source("train")[0]["mask"][8, 7] == 1


def test_rotated_rectangles(tmp_path):
    corners = [[20.0, 10.0], [30.0, 20.0], [20.0, 30.0], [10.0, 20.0]]
    write(tmp_path, "a", [shape("cat", "oriented_rectangle", corners), shape("cat", "rotation", corners)])
    sample = module(tmp_path, "instance_segmentation").make_source("train")[0]
    assert sample["boxes"].tolist() == [[10, 10, 30, 30]] * 2
    assert abs(sample["masks"][0].sum() - 200) < 25 and sample["masks"][0][20, 20] and not sample["masks"][0][12, 12]


@pytest.mark.parametrize(
    "points, part, box",
    [
        ([[-3, -2], [4, 7]], (10, 8), [0, 0, 5, 8]),  # beyond the image: cut off
        ([[55, 36], [62, 45]], (10, 8), [55, 36, 60, 40]),
        ([[10, 5], [13, 7]], (10, 8), [10, 5, 14, 8]),  # whole pixels: the corners are of the first and last
        ([[10.4, 5.6], [13.2, 7.2]], (10, 8), [10, 6, 18, 16]),  # otherwise only the first counts
    ],
)
def test_where_masks_lie(tmp_path, points, part, box):
    write(tmp_path, "a", [shape("cat", "mask", points, mask=png(np.ones(part)))])
    sample = module(tmp_path, "instance_segmentation").make_source("train")[0]
    np.testing.assert_array_equal(sample["masks"][0], _filled(*box))
    assert sample["boxes"].tolist() == [box]


def test_labels_that_are_no_classes(tmp_path):
    box = [[1, 2], [30, 35]]
    write(tmp_path, "a", [RECTANGLE, shape("__ignore__", "rectangle", box), shape("_background_", "rectangle", box)])
    data = module(tmp_path, "instance_segmentation")
    assert data.class_names == ["cat"]
    with warns_of("unusable-annotation", "a.json, shape 2"):
        assert len(data.make_source("train")[0]["labels"]) == 1
    with stops_at("label-outside", "a.json, shape 2: .*'__ignore__'; write masks .* MaskFolder"):
        module(tmp_path, "semantic_segmentation").make_source("train")


def test_files_without_the_size_of_their_image(tmp_path):
    """As labelme before 3.5 wrote them: without the sizes, and without the kind of a polygon."""
    old = {"label": "dog", "line_color": None, "fill_color": None, "points": POLYGON["points"]}
    write(tmp_path, "a", [old])
    content = json.loads((tmp_path / "a.json").read_text())
    del content["imageWidth"], content["imageHeight"]
    (tmp_path / "a.json").write_text(json.dumps(content))
    sample = module(tmp_path, "instance_segmentation").make_source("train")[0]
    assert sample["boxes"].tolist() == [[30, 10, 55, 38]] and sample["masks"].shape == (1, HEIGHT, WIDTH)


def test_an_image_that_is_in_its_json_file_alone(tmp_path):
    write(tmp_path, "a", [RECTANGLE], imageData=png(np.ones((HEIGHT, WIDTH))))
    (tmp_path / "a.png").unlink()
    with stops_at("missing-image", "a.png: .*; a.json holds it as imageData, in base64: write it to that file"):
        module(tmp_path).make_source("train")


def _filled(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def test_shapes_of_a_group_are_one_object(tmp_path):
    mask = shape("cat", "mask", [[40, 20], [47, 29]], mask=png(np.ones((10, 8))), group_id=1)
    first = shape("cat", "rectangle", [[2, 2], [10, 10]], group_id=1)
    other = shape("cat", "rectangle", [[12, 12], [20, 20]], group_id=2)
    write(tmp_path, "a", [first, mask, other, shape("dog", "rectangle", [[1, 1], [3, 3]], group_id=1)])
    sample = module(tmp_path, "instance_segmentation").make_source("train")[0]
    assert sample["labels"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(sample["masks"][0], _filled(2, 2, 10, 10) | _filled(40, 20, 48, 30))
    assert sample["boxes"].tolist() == [[2, 2, 48, 30], [12, 12, 20, 20], [1, 1, 3, 3]]


@pytest.mark.parametrize(
    "bad, message",
    [
        (shape("cat", "line", [[1, 2], [3, 4]]), "a line has no area"),
        (shape("cat", "point", [[1, 2]]), "a point has no area"),
        (shape("cat", "polygon", [[1, 2], [3, 4]]), "'polygon' with 2 points"),
        (shape("cat", "polygon", [[1, 2], [3, "4"], [5, 6]]), "pairs of numbers"),
        (shape("", "rectangle", [[1, 2], [3, 4]]), "must have a label"),
        (shape("cat", "mask", [[1, 2], [3, 4]], mask="x"), "a PNG in base64"),
        (shape("cat", "mask", [[61, 2], [63, 4]], mask=png(np.ones((3, 3)))), "no pixel in the image of 60x40"),
        (shape("cat", "mask", [[58, 2], [3, 4]], mask=png(np.ones((3, 3)))), "no pixel in the image"),
        (shape("cat", "mask", [[8, 2], [10, 4]], mask=None), "a PNG in base64 .got NoneType"),
        (7, "must have a label"),
    ],
)
def test_shapes_that_are_no_objects(tmp_path, bad, message):
    write(tmp_path, "a", [RECTANGLE, bad])
    with warns_of("unusable-annotation", "a.json, shape 2"):
        source = module(tmp_path).make_source("train")
    assert source[0]["labels"].tolist() == [0]
    with stops_at("unusable-annotation", rf"a.json, shape 2: .*{message}"):
        module(tmp_path, strict=True).make_source("train")


def test_a_box_outside_its_image(tmp_path):
    write(tmp_path, "a", [RECTANGLE, shape("cat", "rectangle", [[70, 2], [80, 9]])])
    with warns_of("box-outside", "a.json, shape 2"):
        module(tmp_path).make_source("train")


@pytest.mark.parametrize(
    "more, message",
    [
        ({"imageWidth": None}, "a.json: .*imageWidth and imageHeight .*got None and 40"),
        ({"imageWidth": "60"}, "a.json: .*imageWidth and imageHeight .*got '60' and 40"),
        ({"imagePath": 3}, "a.json: .*imagePath .*got 3"),
        ({"shapes": None}, "a.json: .*must be labelme's JSON"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, more, message):
    write(tmp_path, "a", [RECTANGLE], **more)
    write(tmp_path, "b", [RECTANGLE], seed=1)
    with stops_at("annotation-file", message):
        module(tmp_path).make_source("train")
    with record_faults() as faults:
        assert len(module(tmp_path).make_source("train")) == 1
    assert [fault.code for fault in faults] == ["annotation-file"]
    (tmp_path / "a.json").write_text('{"shapes": [')
    with stops_at("annotation-file", "a.json, line 1, column 13: malformed JSON"):
        module(tmp_path).make_source("train")


def test_where_images_are(tmp_path):
    write(tmp_path / "json", "deep/a", [RECTANGLE], imagePath="..\\images\\a.png")
    write(tmp_path / "json", "b", [RECTANGLE], imagePath="C:\\data\\b.png")
    source = module(tmp_path / "json").make_source("train")
    assert [path.rpartition("json/")[2] for path in source.files()] == ["b.png", "deep/a.png"]
    (tmp_path / "json" / "b.png").unlink()
    with stops_at("missing-image", r"1 of 2 images.*\n +b.png"):
        module(tmp_path / "json").make_source("train")


def test_splits(tmp_path):
    for number in range(10):
        write(tmp_path / "whole", str(number), [RECTANGLE], seed=number)
        write(tmp_path / "split", f"{('train', 'val')[number % 2]}/{number}", [RECTANGLE], seed=number)
    data = module(tmp_path / "whole", val_fraction=0.3)
    sources = [data.make_source(split) for split in ("train", "val")]
    assert [len(source) for source in sources] == [7, 3] and not set(sources[0].files()) & set(sources[1].files())
    with pytest.raises(AbsentSplitError, match="no files of val; set val_fraction"):
        module(tmp_path / "whole").make_source("val")
    data = module(tmp_path / "split")
    assert [len(data.make_source(split)) for split in ("train", "val")] == [5, 5]
    with pytest.raises(AbsentSplitError, match="no files of test"):
        data.make_source("test")


def test_an_unknown_label_and_no_label(tmp_path):
    write(tmp_path, "a", [RECTANGLE, shape("cta", "rectangle", [[1, 2], [30, 40]])])
    with stops_at("label-outside", "a.json, shape 2: .*'cta'.*did you mean 'cat'"):
        module(tmp_path, class_names=["cat"]).make_source("train")
    write(tmp_path, "a", [])
    with pytest.raises(ValueError, match="no object has a label"):
        module(tmp_path).make_source("train")
    with stops_at("no-objects", "none of its 1 images"):
        module(tmp_path, class_names=["cat"]).setup("fit")
    with pytest.raises(FileNotFoundError, match="(?s)no JSON files.*ROOT/a.json"):
        module(tmp_path / "no").make_source("train")


def test_export_and_check(tmp_path):
    for number in range(3):
        write(tmp_path / "data", str(number), [RECTANGLE, POLYGON], seed=number)
    data = module(tmp_path / "data", "instance_segmentation")
    report = check(data, ["train"], processes=0)
    assert report.clean and report.statistics.splits[0].objects == 6
    export_data(data, "coco", tmp_path / "coco")
    copy = CocoDetection(str(tmp_path / "coco"), "instance_segmentation", num_workers=0).make_source("train")
    original = data.make_source("train")
    for number in range(3):
        np.testing.assert_array_equal(copy[number]["masks"], original[number]["masks"])
        np.testing.assert_allclose(copy[number]["boxes"], original[number]["boxes"], atol=1e-3)
