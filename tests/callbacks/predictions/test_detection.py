"""Predicted objects as COCO's files: numbers of images and classes, places, and the shares of several ranks."""

import json
from types import SimpleNamespace

import pytest
import torch
from pycocotools.coco import COCO

from striate.callbacks.predictions.detection import DetectionWriter, category_ids, file_size, image_ids


def found(boxes, labels, scores):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        "scores": torch.tensor(scores, dtype=torch.float32),
    }


def task(**more):
    return SimpleNamespace(**{"class_names": ["cat", "dog"], "num_classes": 2, "category_ids": []} | more)


def files(*paths):
    return SimpleNamespace(source=SimpleNamespace(paths=list(paths)))


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
def test_images_have_the_numbers_that_they_are_named_by(paths, ids):
    assert image_ids(paths) == ids


def test_classes_have_the_sources_numbers_or_count_from_one():
    assert category_ids(task(category_ids=[18, 90])) == [18, 90]
    assert category_ids(task()) == category_ids(SimpleNamespace(class_names=["cat", "dog"])) == [1, 2]


def test_the_size_is_the_files():
    image = torch.zeros(3, 5, 9)
    assert file_size({"image": [image], "file_size": torch.tensor([[40, 60]])}, 0) == (40, 60)
    assert file_size({"image": [image]}, 0) == (5, 9)


def test_two_ranks_make_one_file_that_pycocotools_loads(tmp_path, capsys):
    dataset, one = files("p/12.jpg", "p/5.jpg", "p/30.jpg"), task(category_ids=[18, 90])
    writers = [DetectionWriter(tmp_path, rank, dataset) for rank in (0, 1)]
    rows = writers[0].write("p/12.jpg", 0, (40, 60), found([[1, 2, 11, 22], [0, 0, 60, 40]], [1, 0], [0.9, 0.25]), one)
    assert rows == [
        ["p/12.jpg", "dog", "0.900000", "1.00", "2.00", "11.00", "22.00"],
        ["p/12.jpg", "cat", "0.250000", "0.00", "0.00", "60.00", "40.00"],
    ]
    assert writers[0].write("p/30.jpg", 2, (10, 10), found([], [], []), one) == []
    writers[1].write("p/5.jpg", 1, (20, 30), found([[3.00049, 4, 5, 6]], [0], [0.5]), one)
    writers[0].join(one)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["detections.json", "images.json"]
    results = json.loads((tmp_path / "detections.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in results] == [(12, 90), (12, 18), (5, 18)]
    assert results[0]["bbox"] == [1, 2, 10, 20] and results[2]["bbox"] == [3.0, 4, 2.0, 2]
    truth = COCO(str(tmp_path / "images.json"))
    loaded = truth.loadRes(str(tmp_path / "detections.json"))
    capsys.readouterr()
    assert [image["file_name"] for image in truth.loadImgs([12, 5, 30])] == ["p/12.jpg", "p/5.jpg", "p/30.jpg"]
    assert truth.loadCats([90])[0]["name"] == "dog" and len(loaded.getAnnIds(imgIds=[12])) == 2
    assert truth.loadImgs([12])[0]["height"] == 40


def test_nothing_found_is_still_a_list(tmp_path):
    DetectionWriter(tmp_path, 0).join(task())  # nothing was predicted: no file
    assert not list(tmp_path.iterdir())
    writer = DetectionWriter(tmp_path, 0)
    writer.write("a.jpg", 6, (4, 4), found([], [], []), task())
    writer.join(task())
    assert json.loads((tmp_path / "detections.json").read_text()) == []
    listed = json.loads((tmp_path / "images.json").read_text())
    assert listed["images"] == [{"id": 7, "file_name": "a.jpg", "height": 4, "width": 4}]
    assert listed["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]


def test_what_an_older_run_left_is_not_joined(tmp_path):
    (tmp_path / "detections.rank0.jsonl").write_text("[0, {}, [{}]]\n")
    writer = DetectionWriter(tmp_path, 0)
    writer.write("a.jpg", 0, (4, 4), found([], [], []), task())
    writer.join(task())
    assert json.loads((tmp_path / "detections.json").read_text()) == []
