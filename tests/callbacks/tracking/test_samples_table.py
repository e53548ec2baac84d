"""The table of samples on W&B: scores of all tasks, the worst first, and the caps."""

import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import wandb

from striate.callbacks.tracking import wandb_images
from striate.callbacks.tracking.sample_scores import average_precision, box_iou, mean_iou, sample_score, worst_first
from striate.callbacks.tracking.wandb_connection import connect
from striate.callbacks.tracking.wandb_images import Sample, log_samples_table, within_caps
from striate.models import RunLengths
from striate.tests.helpers.wandb_runs import read_run

NAMES = ["cat", "dog"]
BOX = torch.tensor([[0.0, 0, 10, 10]])


def test_boxes_and_masks_of_one_image_have_an_average_precision():
    target = {"boxes": torch.cat([BOX, BOX + 20]), "labels": torch.tensor([0, 1])}
    prediction = {"boxes": BOX, "scores": torch.tensor([0.9]), "labels": torch.tensor([0])}
    assert average_precision(2, prediction, target) == pytest.approx(0.5)  # the cat is found, the dog is not
    assert sample_score(SimpleNamespace(num_classes=2), {"target": [target]}, prediction) == (
        "AP50",
        pytest.approx(0.5),
    )
    none = {"boxes": BOX[:0], "labels": torch.zeros(0, dtype=torch.long)}
    assert math.isnan(average_precision(2, prediction, none))
    dense = torch.zeros(2, 30, 30, dtype=torch.uint8)
    dense[0, :10, :10], dense[1, 20:, 20:] = 1, 1
    masks = RunLengths.from_dense(dense)
    cut = dense[:1].clone()
    cut[:, 5:] = 0  # half of the cat: exactly IoU 0.5 and correct; a row less, and it is wrong
    first = {**prediction, "masks": RunLengths.from_dense(cut)}
    cut[:, 4:] = 0
    second = {**prediction, "masks": RunLengths.from_dense(cut)}
    assert average_precision(2, first, {**target, "masks": masks}) == pytest.approx(0.5)
    assert average_precision(2, second, {**target, "masks": masks}) == 0  # although the box is right


def test_masks_of_classes_boxes_and_classes_have_scores():
    expected = np.array([[0, 0, 1, 255]], np.uint8)
    assert mean_iou(np.array([[0, 1, 1, 0]], np.uint8), expected) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert mean_iou(expected, expected) == 1 and math.isnan(mean_iou(expected[:, 3:], expected[:, 3:]))
    assert box_iou([0, 0, 10, 10], torch.tensor([5.0, 0, 15, 10])) == pytest.approx(50 / 150)
    assert box_iou([0, 0, 1, 1], [2, 2, 3, 3]) == 0 == box_iou([0, 0, 0, 0], [0, 0, 0, 0])
    batch = {"label": torch.tensor([1]), "box": BOX}
    assert sample_score(None, batch, {"label": 1, "box": BOX[0]}) == ("IoU", 1)
    assert sample_score(None, batch, {"label": 0, "box": BOX[0]}) == ("IoU", 0)
    task = SimpleNamespace(evaluate=lambda batch: ({"ce": torch.tensor(0.5), "aux": torch.tensor(0.25)}, None))
    assert sample_score(task, {"label": torch.tensor([1])}, {"label": 1}) == ("loss", 0.75)
    assert worst_first("loss", [0.1, math.nan, 2.0, 0.5]) == [2, 3, 0, 1]
    assert worst_first("AP50", [0.1, math.nan, 1.0, 0.0]) == [3, 0, 2, 1]


def mask(*columns):
    return np.array([columns], np.uint8).repeat(8, 0).repeat(4, 1)


def objects(x, label, **fields):
    dense = torch.zeros(1, 8, 16, dtype=torch.uint8)
    dense[0, 2:6, x : x + 4] = 1
    return {"boxes": np.array([[x, 2.0, x + 4, 6]]), "labels": np.array([label]),
            "masks": RunLengths.from_dense(dense), **fields}  # fmt: skip


TASKS = {
    "classification": ("loss", {"label": np.array(1)}, {"label": np.array(0), "score": np.array(0.6)}, "dog", "cat"),
    "localization": (
        "IoU", {"label": np.array(1), "box": np.array([1.0, 2, 5, 6])},
        {"label": np.array(1), "score": np.array(0.6), "box": np.array([0.0, 2, 5, 6])}, "dog", "dog",
    ),
    "semantic_segmentation": ("IoU", {"mask": mask(0, 0, 1, 255)}, {"mask": mask(0, 0, 0, 0)}, "cat, dog", "cat"),
    "detection": (
        "AP50", {"boxes": np.array([[1.0, 2, 5, 6]] * 2), "labels": np.array([0, 0])},
        {"boxes": np.array([[1.0, 2, 5, 6]] * 2), "labels": np.array([1, 0]), "scores": np.array([0.9, 0.2])},
        "2 cat", "1 dog",
    ),
    "instance_segmentation": ("AP50", objects(2, 1), objects(3, 1, scores=np.array([0.8])), "1 dog", "1 dog"),
}  # fmt: skip


@pytest.fixture
def logged(tmp_path, monkeypatch):
    """A function that logs a table of samples offline, and returns its content."""
    monkeypatch.chdir(tmp_path)

    def log(samples):
        logger = connect(tmp_path, {"project": "p"}, offline=True, timeout=60)
        trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
        log_samples_table(trainer, samples, NAMES, "val/samples")
        logger.finish(0)
        (folder,) = tmp_path.glob("wandb/offline-run-*")
        artifacts = [record.artifact for record in read_run(folder)["records"] if record.HasField("artifact")]
        (path,) = (file.local_path for file in artifacts[0].manifest.contents if file.path.endswith(".table.json"))
        return json.loads(Path(path).read_text())

    yield log
    wandb.teardown()


@pytest.mark.parametrize("task", TASKS)
def test_the_table_has_a_row_per_sample_with_layers_and_the_worst_first(logged, task):
    name, ground_truth, prediction, expected, predicted = TASKS[task]
    scores = [0.5, math.nan, 0.25]
    samples = [
        Sample(np.full((8, 16, 3), 50 * n, np.uint8), ground_truth, prediction, 10 + n, "", (name, score))
        for n, score in enumerate(scores)
    ]
    table = logged(samples)
    assert table["columns"] == ["image", "sample", name, "ground truth", "prediction"]
    order = [10, 12, 11] if name == "loss" else [12, 10, 11]
    assert [row[1] for row in table["data"]] == order
    assert [row[2] for row in table["data"]] == [0.5, 0.25, None] if name == "loss" else [0.25, 0.5, None]
    assert all(row[3:] == [expected, predicted] for row in table["data"])
    image = table["data"][0][0]
    assert (image["width"], image["height"]) == (16, 8)
    layers = {"classification": set(), "localization": {"boxes"}, "semantic_segmentation": {"masks"},
              "detection": {"boxes"}, "instance_segmentation": {"boxes", "masks"}}  # fmt: skip
    assert {kind for kind in ("boxes", "masks") if image.get(kind)} == layers[task]
    for kind in layers[task]:
        assert image[kind].keys() == {"ground_truth", "predictions"}


def test_uploads_are_capped_in_number_and_bytes(monkeypatch):
    images = [np.zeros((10, 10, 3), np.uint8)] * 5
    assert len(within_caps(images)) == 5
    monkeypatch.setattr(wandb_images, "MAX_BYTES", 1000)  # three of 300 bytes
    with pytest.warns(UserWarning, match="W&B: 2 of 5 samples not uploaded .*lower the callback Pictures' count"):
        assert len(within_caps(images)) == 3
    monkeypatch.setattr(wandb_images, "MAX_SAMPLES", 2)
    with pytest.warns(UserWarning, match="3 of 5"):
        assert len(within_caps(images)) == 2
