"""Files of predicted instances: read back as data, evaluated by pycocotools, and with more objects than 8 bits hold."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from striate.callbacks.predictions.instances import InstanceWriter
from striate.datamodules import InstanceMasks
from striate.models import RunLengths
from striate.tasks import InstanceSegmentation
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.tiny_instances import KnownMasks, filled

BOXES = [[0, 0, 20, 10], [30, 5, 50, 30], [20, 12, 28, 20]]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools


def prediction_of(boxes, labels, scores, size):
    masks = RunLengths.from_dense(filled(boxes, size))
    fields = {"boxes": masks.boxes(), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}
    return fields | {"masks": masks}


def writer_of(folder, paths, names=("cat", "dog")):
    task = InstanceSegmentation(KnownMasks([], len(names)))
    task.class_names = list(names)
    return InstanceWriter(task, folder, 0, paths)


def test_predicted_instances_read_back_as_the_same_data(tmp_path):
    size, images = (40, 60), tmp_path / "data" / "train" / "images"
    names = ["a.png", "more/b.png", "more/empty.png"]
    for name in names:
        write_image(images / name, np.zeros((*size, 3), np.uint8))
    paths = [str(images / name) for name in names]
    out = tmp_path / "data" / "train" / "out"
    writer = writer_of(out, paths)
    out.mkdir()
    predictions = [
        prediction_of(BOXES, [0, 1, 1], [0.9, 0.8, 0.4], size),  # the last is below the minimum score
        prediction_of(BOXES[1:], [1, 0], [0.6, 0.7], size),
        prediction_of([], [], [], size),
    ]
    rows = [writer.rows(path, n, one, size) for n, (path, one) in enumerate(zip(paths, predictions, strict=True))]
    writer.join()
    assert writer.header(predictions[0])[-2:] == ["area", "id"]
    assert [row[1] for row in rows[0]] == ["cat", "dog"] and [row[-2:] for row in rows[0]] == [[200, 1], [500, 2]]
    (out / "instances").rename(tmp_path / "data" / "train" / "masks")
    (out / "instances.csv").rename(tmp_path / "data" / "classes.csv")
    data = InstanceMasks(str(tmp_path / "data"), class_file="classes.csv", class_names=["cat", "dog"], num_workers=0)
    source = data.make_source("train")
    for number, (one, kept) in enumerate(zip(predictions, ([0, 1], [1, 0], []), strict=True)):
        sample = source[number]
        assert np.array_equal(sample["masks"] != 0, one["masks"][torch.tensor(kept).long()].dense().numpy())
        assert sample["labels"].tolist() == one["labels"][kept].tolist()
    # all objects, whatever their score
    results = json.loads((out / "detections.json").read_text())
    assert len(results) == 5 and results[2]["score"] == pytest.approx(0.4)
    decoded = coco_mask.decode(results[2]["segmentation"])
    assert np.array_equal(decoded, filled([BOXES[2]], size)[0].numpy())


def test_the_object_of_higher_score_is_on_top_and_256_objects_take_16_bits(tmp_path):
    writer = writer_of(tmp_path, None, ["cell"])
    writer.rows("x.png", 3, prediction_of([[0, 0, 4, 4], [2, 2, 6, 6]], [0, 0], [0.6, 0.9], (8, 8)), (8, 8))
    with Image.open(tmp_path / "instances" / "00003_x.png") as file:
        ids = np.asarray(file)
    assert ids.dtype == np.uint8 and ids[3, 3] == 1 and ids[0, 0] == 2 and ids[7, 7] == 0
    boxes = [[x, y, x + 1, y + 1] for y in range(16) for x in range(16)]
    for count, dtype in ((255, np.uint8), (256, np.uint16)):
        scores = torch.linspace(1, 0.6, count).tolist()
        writer.rows("y.png", count, prediction_of(boxes[:count], [0] * count, scores, (20, 20)), (20, 20))
        with Image.open(tmp_path / "instances" / f"{count:05d}_y.png") as file:
            ids = np.asarray(file).astype(np.int64)
            assert file.mode == ("L" if dtype == np.uint8 else "I;16")
        assert ids.max() == count and ids[:16, :16].ravel()[:count].tolist() == list(range(1, count + 1))
