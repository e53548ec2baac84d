"""Predicted objects in COCO's files: ids of images and classes, boxes, and the shares of several ranks."""

import json
from types import SimpleNamespace

import pytest
import torch
from pycocotools.coco import COCO

from striate.callbacks import PredictionWriter
from striate.callbacks.predictions.base import file_size
from striate.callbacks.predictions.detection import DetectionWriter, category_ids, image_ids
from striate.tasks import Detection
from striate.tests.helpers.random_detections import detections_of
from striate.tests.helpers.tiny_detector import Known


@pytest.fixture
def task():
    task = Detection(Known([], 2))
    task.class_names = ["cat", "dog"]
    return task


@pytest.mark.parametrize(
    "paths, ids",
    [
        (["a/000000000139.jpg", "a/000000000285.jpg"], [139, 285]),
        (["a/7.jpg", "a/7.png"], [1, 2]),
        (["a/7.jpg", "a/x.jpg"], [1, 2]),
        (["a/7.jpg", "a/²3.jpg"], [1, 2]),
        ([], []),
    ],
)
def test_image_ids_come_from_file_names(paths, ids):
    assert image_ids(paths) == ids


def test_category_ids_are_those_of_the_source_or_count_from_one(task):
    assert category_ids(task) == [1, 2]
    task.category_ids = [18, 90]
    assert category_ids(task) == [18, 90]


def test_the_size_is_that_of_the_file():
    image = torch.zeros(3, 5, 9)
    assert file_size({"image": [image], "file_size": torch.tensor([[40, 60]])}, 0) == (40, 60)
    assert file_size({"image": [image]}, 0) == (5, 9)


def test_two_ranks_make_one_file_that_pycocotools_loads(task, tmp_path, capsys):
    task.category_ids = [18, 90]
    paths = ["p/12.jpg", "p/5.jpg", "p/30.jpg"]
    writers = [DetectionWriter(task, tmp_path, rank, paths) for rank in (0, 1)]
    detections = detections_of([[1, 2, 11, 22], [0, 0, 60, 40]], [0.9, 0.25], [1, 0])
    assert writers[0].rows("p/12.jpg", 0, detections, (40, 60)) == [
        ["p/12.jpg", "dog", "0.900000", "1.00", "2.00", "11.00", "22.00"],
    ]  # that of 0.25 is in detections.json alone
    assert writers[0].rows("p/30.jpg", 2, detections_of([], [], []), (10, 10)) == []
    writers[1].rows("p/5.jpg", 1, detections_of([[3.00049, 4, 5, 6]], [0.5], [0]), (20, 30))
    writers[0].join()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections.json", "images.json"]
    results = json.loads((tmp_path / "detections.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in results] == [(12, 90), (12, 18), (5, 18)]
    assert results[0]["bbox"] == [1, 2, 10, 20] and results[2]["bbox"] == [3.0, 4, 2.0, 2]
    annotations = COCO(str(tmp_path / "images.json"))
    loaded = annotations.loadRes(str(tmp_path / "detections.json"))
    capsys.readouterr()
    assert [image["file_name"] for image in annotations.loadImgs([12, 5, 30])] == ["p/12.jpg", "p/5.jpg", "p/30.jpg"]
    assert annotations.loadCats([90])[0]["name"] == "dog" and len(loaded.getAnnIds(imgIds=[12])) == 2
    assert annotations.loadImgs([12])[0]["height"] == 40


def test_tables_have_the_objects_that_plots_show(tmp_path):
    boxes = [[0, 0, 9, 9]] * 5
    prediction = detections_of(boxes, [0.9, 0.7, 0.5, 0.3, 0.0], [1, 1, 0, 1, 0])
    for score_threshold, own, rows, counts in (
        (0.0, None, 3, [3, 1, 2]),  # as plots do: 0.5 and above
        (0.3, None, 5, [5, 2, 3]),  # the task has dropped what is below
        (0.0, 0.7, 2, [2, 0, 2]),  # 0.7 in float32 is below 0.7
        (0.0, 0.0, 5, [5, 2, 3]),
    ):
        callback = PredictionWriter(score_threshold=own)
        task = Detection(Known([], 2), score_threshold=score_threshold)
        task.class_names = ["cat", "dog"]
        callback.on_predict_start(
            SimpleNamespace(log_dir=str(tmp_path), global_rank=0, world_size=1, predict_dataloaders=None), task
        )
        writer = callback._writer
        assert len(writer.rows("a.jpg", 0, prediction, (9, 9))) == rows
        assert writer.count_header() == ["path", "objects", "cat", "dog"]
        assert writer.counts("a.jpg", prediction) == ["a.jpg", *counts]
        assert writer.counts("a.jpg", detections_of([], [], [])) == ["a.jpg", 0, 0, 0]
    with pytest.raises(ValueError, match=r"score_threshold: must be in \[0, 1\], got 50"):
        PredictionWriter(score_threshold=50)


def test_no_detections_are_an_empty_list(task, tmp_path):
    DetectionWriter(task, tmp_path, 0).join()  # no image was predicted: no file
    assert not list(tmp_path.iterdir())
    writer = DetectionWriter(task, tmp_path, 0)
    writer.rows("a.jpg", 6, detections_of([], [], []), (4, 4))
    writer.join()
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    content = json.loads((tmp_path / "images.json").read_text())
    assert content["images"] == [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 4}]
    assert content["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_lines_of_an_earlier_run_are_not_merged(task, tmp_path):
    (tmp_path / "detections.rank0.jsonl").write_text("[0, {}, [{}]]\n")
    writer = DetectionWriter(task, tmp_path, 0)
    writer.rows("a.jpg", 0, detections_of([], [], []), (4, 4))
    writer.join()
    assert json.loads((tmp_path / "detections.json").read_text()) == []
