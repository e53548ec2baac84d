"""Label Studio's exports JSON and JSON-MIN, as Label Studio 1 writes them."""

import base64
import io
import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from striate.datamodules import LabelStudioJson
from striate.datamodules.annotations.annotation_errors import record_faults
from striate.datamodules.doctor import check
from striate.datamodules.labeling_tools.brush import decode_brush
from striate.tests.helpers.faults import stops_at, warns_of
from striate.tests.helpers.fixtures import noise, write_image

WIDTH, HEIGHT = 60, 40
UPLOAD = "3fd2a1b0-a.png"


def region(kind, label, number=1, **value):
    """A region with all of Label Studio's keys."""
    return {
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": value | {kind: [label]}, "id": f"r{number}", "from_name": "label", "to_name": "image",
        "type": kind, "origin": "manual",
    }  # fmt: skip


def task(*results, number=1, image=f"/data/upload/1/{UPLOAD}", **more):
    """A task with one annotation."""
    annotation = {
        "id": number,
        "completed_by": 1,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
    }
    content = {"id": number, "annotations": [annotation], "file_upload": UPLOAD, "drafts": [], "predictions": []}
    return content | {"data": {"image": image}, "meta": {}} | more


def write(root, *tasks, image=UPLOAD):
    """An export beside its image."""
    write_image(root / image, noise(WIDTH, HEIGHT))
    (root / "project-1.json").write_text(json.dumps(tasks))
    return root


def module(root, task="detection", **options):
    return LabelStudioJson(str(root), task, num_workers=0, **options)


BOX = region("rectanglelabels", "cat", x=10.0, y=25.0, width=50.0, height=50.0, rotation=0)


def encode_brush(alpha, lengths=(3, 8, 4, 16)):
    """Encode a mask as Label Studio does; single values are written as blocks of literals."""
    values = np.repeat((alpha * 255).astype(np.uint8).ravel(), 4)
    bits = f"{values.size:032b}{7:05b}" + "".join(f"{length - 1:04b}" for length in lengths)
    edges = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), values.size]
    for number, (start, end) in enumerate(itertools.pairwise(edges)):
        while start < end:
            choice = 3 if end - start > 256 else 1
            count = min(end - start, 2 ** lengths[choice])
            repeats = number % 3 > 0
            bits += f"{int(repeats)}{choice:02b}{count - 1:0{lengths[choice]}b}"
            bits += "".join(f"{value:08b}" for value in values[start : start + (1 if repeats else count)])
            start += count
    bits += "0" * (-len(bits) % 8)
    return [int(bits[place : place + 8], 2) for place in range(0, len(bits), 8)]


@pytest.mark.parametrize("seed", range(4))
def test_brush_run_lengths(seed):
    mask = (np.random.default_rng(seed).random((HEIGHT, WIDTH)) < (0.5, 0.02, 0.98, 0)[seed]).astype(np.uint8)
    numbers = encode_brush(mask)
    np.testing.assert_array_equal(decode_brush(numbers, HEIGHT, WIDTH), mask)
    with pytest.raises(ValueError, match="2400 pixels, the image has 2401"):
        decode_brush(numbers, 1, 2401)
    with pytest.raises(ValueError, match="end early"):
        decode_brush(numbers[:-2], HEIGHT, WIDTH)
    for bad in (-1, 256, 1.5, "1", True):
        with pytest.raises(ValueError, match="must be bytes"):
            decode_brush([bad, *numbers[1:]], HEIGHT, WIDTH)


def test_regions(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:9, 30:50] = 1
    polygon = region("polygonlabels", "dog", 2, points=[[50, 25], [100, 25], [50, 95]], closed=True)
    brush = region("brushlabels", "dog", 3, format="rle", rle=encode_brush(mask))
    ellipse = region("ellipselabels", "cat", 4, x=50, y=50, radiusX=10, radiusY=25, rotation=0)
    turned = region("rectanglelabels", "cat", 5, x=50, y=25, width=20, height=25, rotation=90)
    labels = region("labels", "dog", 6, x=0, y=0, width=50, height=50, rotation=0)
    shape = {key: value for key, value in labels.items() if key != "value"} | {"type": "rectangle"}
    shape["value"] = {"x": 0, "y": 0, "width": 50, "height": 50, "rotation": 0}
    choice = {"value": {"choices": ["sunny"]}, "id": "c", "from_name": "c", "to_name": "image", "type": "choices"}
    write(tmp_path, task(BOX, polygon, brush, ellipse, turned, shape, labels, choice))
    data = module(tmp_path, "instance_segmentation")
    assert data.class_names == ["cat", "dog"]
    sample = data.make_source("train")[0]
    assert sample["labels"].tolist() == [0, 1, 1, 0, 0, 1]
    # the turned one: 12 wide and 10 high, clockwise about 30, 10
    boxes = [[6, 10, 36, 30], [30, 10, 60, 38], [30, 4, 50, 9], [24, 10, 36, 30], [20, 10, 30, 22], [0, 0, 30, 20]]
    np.testing.assert_allclose(sample["boxes"], boxes, atol=1e-4)
    np.testing.assert_array_equal(sample["masks"][2], mask)
    assert abs(sample["masks"][3].sum() - math.pi * 6 * 10) < 12
    assert sample["masks"][4][10:22, 20:30].all() and sample["masks"][4].sum() == 120


def bit_mask(mask, mode="RGBA"):
    """A mask as Label Studio stores it: black on transparent."""
    buffer = io.BytesIO()
    alpha = Image.fromarray((mask * 255).astype(np.uint8))
    image = Image.new("L", alpha.size)
    channels = {"RGBA": [image] * 3 + [alpha], "LA": [image, alpha], "L": [alpha]}[mode]
    Image.merge(mode, channels).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_bit_masks_and_vectors(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[4:9, 30:50] = 1
    masks = [region("bitmasklabels", "cat", n, imageDataURL=bit_mask(mask, m)) for n, m in enumerate(["RGBA", "LA"])]
    corners = [{"id": f"p{x}{y}", "x": x, "y": y, "prevPointId": None, "isBezier": False} for x, y in CORNERS]
    vector = region("vectorlabels", "dog", 3, vertices=corners, closed=True)
    write(tmp_path, task(*masks, vector))
    sample = module(tmp_path, "instance_segmentation").make_source("train")[0]
    assert sample["labels"].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(sample["masks"][:2], np.stack([mask, mask]))
    assert sample["boxes"].tolist() == [[30, 4, 50, 9]] * 2 + [[30, 10, 60, 38]]


CORNERS = [(50, 25), (100, 25), (50, 95)]


def test_a_rotated_rectangle_at_an_odd_angle(tmp_path):
    write(tmp_path, task(region("rectanglelabels", "cat", x=50, y=25, width=20, height=25, rotation=30)))
    box = module(tmp_path).make_source("train")[0]["boxes"][0]
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    np.testing.assert_allclose(box, [30 - 10 * sin, 10, 30 + 12 * cos, 10 + 12 * sin + 10 * cos], rtol=1e-6)


def test_json_min(tmp_path):
    flat = BOX["value"] | {"original_width": WIDTH, "original_height": HEIGHT}
    row = {"image": f"/data/upload/1/{UPLOAD}", "id": 1, "label": [flat], "annotator": 1, "annotation_id": 1}
    write(tmp_path, row | {"lead_time": 3.2})
    np.testing.assert_allclose(module(tmp_path).make_source("train")[0]["boxes"], [[6, 10, 36, 30]])
    write(tmp_path, row, row | {"annotator": 2, "annotation_id": 2, "label": [flat, flat | {"x": 0}]})
    with stops_at("bad-target", "project-1.json, task 1: it has 2 annotations; set several"):
        module(tmp_path).make_source("train")
    assert len(module(tmp_path, several="last").make_source("train")[0]["labels"]) == 2
    # the newest first, as Label Studio writes them
    old, new = ({"created_at": f"2024-01-{day}T10:00:00Z", "annotation_id": day} for day in (28, 29))
    write(tmp_path, row | new, row | old | {"label": [flat, flat | {"x": 0}]})
    for several, count in (("last", 1), ("first", 2)):
        assert len(module(tmp_path, several=several).make_source("train")[0]["labels"]) == count


def test_several_annotations(tmp_path):
    second = task(BOX, BOX)["annotations"][0]
    both = task(BOX)
    both["annotations"].append(second)
    write(tmp_path, both)
    with stops_at("bad-target", "task 1: it has 2 annotations; set several: first"):
        module(tmp_path).make_source("train")
    assert len(module(tmp_path, several="first").make_source("train")[0]["labels"]) == 1
    both["annotations"][0]["created_at"], second["created_at"] = "2024-01-30T02:40:43Z", "2024-01-30T02:39:00Z"
    write(tmp_path, both)
    assert len(module(tmp_path, several="first").make_source("train")[0]["labels"]) == 2
    for key in ("ground_truth", "was_cancelled", "skipped"):
        second[key] = True
        write(tmp_path, both)
        assert len(module(tmp_path).make_source("train")[0]["labels"]) == (2 if key == "ground_truth" else 1)
        second[key] = False


@pytest.mark.parametrize(
    "image, file",
    [
        (f"/data/upload/1/{UPLOAD}", UPLOAD),
        (f"/data/upload/1/{UPLOAD}", "a.png"),
        (f"/data/upload/1/{UPLOAD}", f"images/{UPLOAD}"),
        ("/data/local-files/?d=disk/photos/a.png", "photos/a.png"),
        ("s3://bucket/photos/a.png", "photos/a.png"),
        ("https://host/photos/a.png?token=1", "a.png"),
        ("C:\\photos\\a.png", "a.png"),
        ("/data/local-files/?d=disk/my%20photos/a.png", "my photos/a.png"),
        ("https://host/my%20photos/a.png", "my photos/a.png"),
        ("https://host/100%25.png", "100%.png"),
        ("https://host/a%20b.png", "a%20b.png"),
        ("/storage-data/uploaded/?filepath=upload/1/a.png", "a.png"),
        (f"/tasks/7/resolve/?fileuri={base64.urlsafe_b64encode(b's3://bucket/photos/a.png').decode()}", "photos/a.png"),
    ],
)
def test_where_images_are(tmp_path, image, file):
    write(tmp_path, task(BOX, image=image), image=file)
    assert module(tmp_path).make_source("train").files() == [str(tmp_path / file)]
    (tmp_path / file).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 1 images are not in"):
        module(tmp_path).make_source("train")


@pytest.mark.parametrize(
    "bad, message",
    [
        (region("keypointlabels", "cat", 2, x=1, y=2, width=0.3), "a keypoint has no area"),
        (region("labels", "cat", 2, x=1, y=2, width=0.3) | {"type": "keypoint"}, "a keypoint has no area"),
        (region("vectorlabels", "cat", 2, vertices=[], closed=False), "only if it is closed"),
        (region("vectorlabels", "cat", 2, vertices=[{"x": 1, "isBezier": True}], closed=True), "has no curves"),
        (region("bitmasklabels", "cat", 2, imageDataURL=bit_mask(np.ones((3, 4)))), "is 4x3, the image is 60x40"),
        (region("bitmasklabels", "cat", 2, imageDataURL=bit_mask(np.ones((40, 60)), "L")), "an alpha channel"),
        (region("bitmasklabels", "cat", 2, imageDataURL="data:image/png;base64,AAAA"), "imageDataURL must be a PNG"),
        (BOX | {"id": "r2", "image_rotation": 90}, "must not be rotated, got image_rotation 90"),
        (BOX | {"id": "r2", "value": BOX["value"] | {"rectanglelabels": ["cat", "dog"]}}, "one label, got"),
        (BOX | {"id": "r2", "value": {"x": 1, "y": 2, "width": 3, "height": 4}}, r"one label, got \[\]"),
        (BOX | {"id": "r2", "value": BOX["value"] | {"x": "1"}}, "numbers in percent, got '1'"),
        (region("polygonlabels", "cat", 2, points=[[1, 2], [3, 4]]), "three points"),
        (region("brushlabels", "cat", 2, format="rle", rle=[1, 2]), "end early"),
        (region("brushlabels", "cat", 2, format="rle", rle="x"), "must be a list of numbers, got str"),
    ],
)
def test_regions_that_are_no_objects(tmp_path, bad, message):
    write(tmp_path, task(BOX, bad))
    with warns_of("unusable-annotation", "task 1, region r2"):
        assert module(tmp_path, "instance_segmentation").make_source("train")[0]["labels"].tolist() == [0]
    with stops_at("unusable-annotation", rf"project-1.json, task 1, region r2: .*{message}"):
        module(tmp_path, "instance_segmentation", strict=True).make_source("train")


@pytest.mark.parametrize(
    "bad, message",
    [
        (task(BOX, BOX | {"original_width": 61}), "the same throughout"),
        (task(BOX | {"original_width": "60"}), "numbers of pixels"),
        (task(BOX, data={"text": "a"}), "the path of one image, got none"),
        (task(BOX, data={"left": "a.png", "right": "b.png"}), "one image, got left, right"),
        (task(annotations=[{"result": None}]), "a list result"),
        (task(annotations=None), "a list result"),
    ],
)
def test_tasks_that_cannot_be_used(tmp_path, bad, message):
    write(tmp_path, bad | {"id": 7}, task(BOX))
    with stops_at("bad-target", f"project-1.json, task 7: .*{message}"):
        module(tmp_path).make_source("train")
    with record_faults() as faults:
        assert len(module(tmp_path).make_source("train")) == 1
    assert [fault.code for fault in faults] == ["bad-target"]


@pytest.mark.parametrize("content, message", [({}, "got dict"), ([], r"got \[\]"), ([1], "got list")])
def test_files_that_cannot_be_used(tmp_path, content, message):
    (tmp_path / "a.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"a.json: must .*{message}"):
        module(tmp_path).make_source("train")
    (tmp_path / "b.json").touch()
    with pytest.raises(FileNotFoundError, match="(?s)root: must be a JSON file or the folder of one, got 2.*ROOT/"):
        module(tmp_path).make_source("train")
    with pytest.raises(ValueError, match="^several: .*got 'frist'; did you mean 'first'"):
        module(tmp_path, several="frist")


def test_tasks_that_nobody_has_annotated_are_left_out(tmp_path):
    """Also those whose only annotation is cancelled; an empty annotation says that there are no objects."""
    for number in (2, 3, 4):
        write_image(tmp_path / f"{number}.png", noise(20, 30, number))
    cancelled = task(BOX, number=4, image="/data/upload/1/4.png")
    cancelled["annotations"][0]["was_cancelled"] = True
    nothing = task(number=2, image="/data/upload/1/2.png")
    write(tmp_path, task(BOX), nothing, task(number=3, annotations=[], image="/data/upload/1/3.png"), cancelled)
    with pytest.warns(
        UserWarning, match=r"^2 of 4 tasks left out \(no annotation, .* first: task 3\): submit an empty"
    ):
        source = module(tmp_path).make_source("train")
    assert [len(source[index]["labels"]) for index in range(len(source))] == [1, 0]
    report = check(module(tmp_path / "project-1.json"), ["train"], processes=0)
    places = [finding.location.rpartition("/")[2] for finding in report.findings.of("unlabeled-task")]
    assert places == ["project-1.json, task 3", "project-1.json, task 4"]
    # JSON-MIN: only the annotation has an id
    flat = BOX["value"] | {"original_width": WIDTH, "original_height": HEIGHT}
    rows = [{"image": f"/data/upload/1/{name}", "id": n, "annotation_id": n} for n, name in ((1, UPLOAD), (2, "2.png"))]
    write(tmp_path, rows[0] | {"label": [flat]}, rows[1], rows[1] | {"id": 3, "annotation_id": None})
    with pytest.warns(UserWarning, match="^1 of 3 tasks left out .* first: task 3"):
        source = module(tmp_path).make_source("train")
    assert [len(source[index]["labels"]) for index in range(len(source))] == [1, 0]
