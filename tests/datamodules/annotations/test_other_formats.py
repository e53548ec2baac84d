"""Files of other tools, as these tools write them, are named with what converts them."""

import json

import pytest

from striate.datamodules import CocoDetection
from striate.datamodules.annotations.annotation_errors import DataError
from striate.datamodules.annotations.other_formats import OTHER_FORMATS, other_format, other_format_below
from striate.tests.helpers.fixtures import noise, write_image

LABEL_STUDIO = {
    "id": 1,
    "annotations": [{"id": 1, "completed_by": 1, "result": [], "was_cancelled": False}],
    "file_upload": "3fd2a1b0-a.png",
    "data": {"image": "/data/upload/1/3fd2a1b0-a.png"},
}
JSON_MIN = {
    "image": "/data/upload/1/3fd2a1b0-a.png",
    "id": 1,
    "label": [{"x": 1, "y": 2, "width": 3, "height": 4, "rotation": 0, "rectanglelabels": ["cat"]}],
    "annotator": 1,
    "annotation_id": 1,
}
VIA = {"filename": "a.png", "size": 9, "regions": [{"shape_attributes": {"name": "rect"}}], "file_attributes": {}}
SUPERVISELY = {"description": "", "tags": [], "size": {"height": 4, "width": 6}, "objects": [{"classTitle": "cat"}]}
FIFTYONE = {"samples": [{"filepath": "data/a.png", "ground_truth": {"_cls": "Detections", "detections": []}}]}
SAMPLES = {
    "labelme": {"version": "5.4.1", "flags": {}, "shapes": [], "imagePath": "a.png", "imageData": None},
    "Label Studio's JSON": [LABEL_STUDIO],
    "JSON-MIN": [JSON_MIN],
    "VIA": {"_via_settings": {}, "_via_img_metadata": {"a.png9": VIA}, "_via_attributes": {}},
    "VGG": {"a.png9": VIA},
    "CreateML": [{"image": "a.png", "annotations": [{"label": "cat", "coordinates": {"x": 1, "y": 2}}]}],
    "Supervisely": SUPERVISELY,
    "FiftyOne": FIFTYONE,
    "Datumaro": {"info": {}, "categories": {"label": {"labels": []}}, "items": []},
    "Scalabel": [{"name": "a.png", "labels": [{"category": "cat"}]}],
    "results": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}],
}
TEXTS = {
    "CVAT": '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n  <version>1.1</version>\n</annotations>',
    "VOCDetection": "<annotation>\n  <folder>x</folder>\n</annotation>",
    "VIA": "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n",
    "XML": "<opencv_storage></opencv_storage>",
}


@pytest.mark.parametrize("name, content", SAMPLES.items())
def test_a_recognized_file(tmp_path, name, content):
    file = tmp_path / "a.json"
    file.write_text(json.dumps(content))
    write_image(tmp_path / "a.png", noise(6, 4))
    data = CocoDetection(str(tmp_path), train_annotations="a.json", train_images=".", num_workers=0)
    with pytest.raises(DataError, match=f"a.json.*must be COCO's JSON, got .*{name}.*; ") as error:
        data.make_source("train")
    assert "\n" not in str(error.value)
    without_folder = CocoDetection(str(tmp_path), train_annotations="a.json", train_images="no", num_workers=0)
    with pytest.raises(DataError, match=f"train_annotations: must be COCO's JSON.*{name}"):
        without_folder.make_source("train")


@pytest.mark.parametrize("name, text", TEXTS.items())
def test_a_recognized_text(tmp_path, name, text):
    (tmp_path / "a.json").write_text(text)
    data = CocoDetection(str(tmp_path), train_annotations="a.json", train_images=".", num_workers=0)
    with pytest.raises(DataError, match=f"a.json: must be COCO's JSON, got .*{name}"):
        data.make_source("train")


def test_each_format_is_recognized_as_itself():
    found = {other_format(content).partition(";")[0] for content in SAMPLES.values()}
    assert found == {known.name for known in OTHER_FORMATS}


@pytest.mark.parametrize(
    "content", [None, 1, "x", [], {}, [[]], [1], [None], {"a": 1}, {"a": None}, {"images": [], "annotations": []}]
)
def test_anything_else_is_not_recognized(content):
    assert other_format(content) is None


def test_a_folder_of_other_files(tmp_path):
    assert other_format_below(tmp_path) == "" == other_format_below(tmp_path / "missing")
    (tmp_path / "a.json").write_text(json.dumps(SAMPLES["labelme"]))
    with pytest.raises(FileNotFoundError, match="no file .*but a.json, labelme's JSON; read it with LabelmeJson"):
        CocoDetection(str(tmp_path), num_workers=0).make_source("train")
