"""Samples on W&B: boxes and masks as layers, and each image stored once."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from striate.callbacks.tracking.wandb_images import MAX_OBJECTS, Sample, WandbSamples, box_data, mask_data
from striate.models import RunLengths
from striate.tests.helpers.wandb_runs import read_history

NAMES = ["cat", "dog"]


def test_positions_are_fractions_in_order_of_score():
    prediction = {
        "boxes": np.array([[0, 0, 20, 10], [50, 10, 100, 50], [1, 1, 2, 2]], np.float32),
        "labels": np.array([1, 0, 0]),
        "scores": np.array([0.5, 0.9, 0.01], np.float32),
    }
    first, second = box_data(prediction, NAMES, (100, 50))  # the score of the third is too low
    assert first["position"] == {"minX": 0.5, "minY": 0.2, "maxX": 1.0, "maxY": 1.0}
    assert first["class_id"] == 0 and first["box_caption"] == "cat 90%"
    assert first["scores"]["score"] == pytest.approx(0.9)
    assert second["position"] == {"minX": 0.0, "minY": 0.0, "maxX": 0.2, "maxY": 0.2}


def test_ground_truth_has_flags_and_no_scores():
    ground_truth = {
        "boxes": np.array([[0, 0, 10, 10]] * 2),
        "labels": np.array([1, 5]),
        "iscrowd": np.array([True, False]),
    }
    ground_truth["difficult"] = np.array([False, True])
    crowd, difficult = box_data(ground_truth, NAMES, (10, 10))
    assert crowd["box_caption"] == "dog (crowd)" and difficult["box_caption"] == "5 (difficult)"
    assert "scores" not in crowd
    assert box_data({"boxes": np.zeros((0, 4)), "labels": np.zeros(0, int)}, NAMES, (5, 5)) == []
    many = {"boxes": np.ones((300, 4)), "labels": np.zeros(300, int), "scores": np.linspace(0.1, 1, 300)}
    sent = box_data(many, NAMES, (5, 5))
    assert len(sent) == MAX_OBJECTS and sent[0]["scores"]["score"] == 1


def test_the_box_of_localization_is_uploaded_with_any_score():
    (one,) = box_data({"box": np.array([0, 0, 5, 5.0]), "label": np.array(1), "score": np.array(0.02)}, NAMES, (10, 20))
    assert one["box_caption"] == "dog 2%" and one["position"]["maxY"] == 0.25


def test_samples_become_images_of_a_wandb_run(tmp_path):
    logger = WandbLogger(save_dir=str(tmp_path), offline=True, log_model=False)
    trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    objects = {"boxes": np.array([[320.0, 0, 1280, 960]]), "labels": np.array([1])}
    prediction = {**objects, "scores": np.array([0.75])}
    image = np.zeros((960, 1280, 3), np.uint8)
    WandbSamples().log(trainer, [Sample(image, objects, prediction, 4)], NAMES, "val/pictures")
    logger.experiment.finish()
    (run,) = tmp_path.glob("wandb/offline-run-*")
    (picture,) = run.rglob("*.png")
    kept = [json.loads(path.read_text()) for path in run.rglob("val/*.boxes2D.json")]
    ground_truth, predicted = sorted((one["box_data"][0] for one in kept), key=lambda box: "scores" in box)
    assert picture.parent.name == "val" and len(kept) == 2
    assert ground_truth["position"] == predicted["position"] == {"minX": 0.25, "minY": 0.0, "maxX": 1.0, "maxY": 1.0}
    assert predicted["scores"] == {"score": 0.75} and "scores" not in ground_truth
    assert all(one["class_labels"] == {"0": "cat", "1": "dog"} for one in kept)


@pytest.fixture
def sent(tmp_path, caplog):
    """The images that W&B stores for samples, and the positions of their ground-truth boxes, in order."""

    def sent(*images):
        logger = WandbLogger(save_dir=str(tmp_path), offline=True, log_model=False)
        trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
        samples = []
        for number, (height, width) in enumerate(images):
            box = np.array([[0.5 * width, 0.25 * height, width, height]])
            ground_truth = {"boxes": box, "labels": np.array([0])}
            prediction = {"boxes": box[:0], "labels": np.zeros(0, int), "scores": np.zeros(0)}
            samples.append(Sample(np.full((height, width, 3), number, np.uint8), ground_truth, prediction, number))
        WandbSamples().log(trainer, samples, NAMES, "val/pictures")
        logger.experiment.finish()
        assert "sizes do not match" not in caplog.text
        pictures, places = {}, {}
        for path in tmp_path.rglob("*.png"):
            picture = np.asarray(Image.open(path).convert("RGB"))
            pictures[int(picture[0, 0, 0])] = picture
        for path in tmp_path.rglob("*.boxes2D.json"):
            for one in json.loads(path.read_text())["box_data"]:
                places[json.dumps(one["position"])] = one["position"]
        return [pictures[n] for n in range(len(images))], list(places.values())

    return sent


def test_images_are_padded_to_one_size_and_boxes_are_fractions_of_it(sent):
    (first, second), places = sent((100, 50), (320, 1280))  # the second is halved
    assert first.shape == second.shape == (160, 640, 3)
    assert (first[:100, :50] == 0).all() and (first[100:] == 128).all() and (first[:, 50:] == 128).all()
    assert (second == 1).all()
    own = {"minX": 25 / 640, "minY": 25 / 160, "maxX": 50 / 640, "maxY": 100 / 160}
    whole = {"minX": 0.5, "minY": 0.25, "maxX": 1.0, "maxY": 1.0}
    for place, known in zip(sorted(places, key=lambda one: one["minX"]), (own, whole), strict=True):
        assert place == pytest.approx(known)


def test_images_of_one_size_are_not_padded(sent):
    (first, second), _ = sent((30, 40), (30, 40))
    assert first.shape == (30, 40, 3) and (first == 0).all() and (second == 1).all()


@pytest.fixture
def offline(tmp_path):
    """A trainer with an offline W&B logger, and a function that ends the run and returns its folder and history."""
    logger = WandbLogger(save_dir=str(tmp_path), offline=True, log_model=False)
    trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)

    def finish():
        logger.experiment.finish()
        (run,) = tmp_path.glob("wandb/offline-run-*")
        return run / "files", [row["val/pictures"] for row in read_history(run) if "val/pictures" in row]

    return trainer, finish


def noise(seed, *shape):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def stored(folder, pattern):
    """Number of files of a kind in a folder, and their size in bytes."""
    files = list(folder.rglob(pattern))
    return len(files), sum(path.stat().st_size for path in files)


def test_images_and_ground_truth_are_stored_once_and_predictions_each_time(offline):
    trainer, finish = offline
    samples = WandbSamples()
    epochs, count = 5, 3
    for epoch in range(epochs):
        box = np.array([[0.0, 0, 10 + epoch, 20]])
        now = [
            Sample(noise(k, 60, 80, 3), {"boxes": np.array([[1.0, 2, 30, 40]]), "labels": np.array([k])},
                   {"boxes": box, "labels": np.array([0]), "scores": np.array([0.9])}, k, f"sample {k}")
            for k in range(count)
        ]  # fmt: skip
        samples.log(trainer, now, NAMES, "val/pictures")
    folder, history = finish()
    images, size = stored(folder, "*.png")
    assert images == count and size < 1.1 * count * 60 * 80 * 3  # once; logged anew, it would be five times that
    # the boxes of each sample are known from the ground truth's one file, and a file per step
    assert stored(folder, "*.boxes2D.json")[0] == count + epochs
    assert len(history) == epochs
    for epoch, entry in enumerate(history):
        assert entry["filenames"] == history[0]["filenames"] and entry["captions"][2] == "sample 2"
        assert all((folder / name).is_file() for name in entry["filenames"])
        for layers, first in zip(entry["all_boxes"], history[0]["all_boxes"], strict=True):
            assert layers["ground_truth"]["path"] == first["ground_truth"]["path"]
            predicted = json.loads((folder / layers["predictions"]["path"]).read_text())["box_data"][0]["position"]
            assert predicted["maxX"] == (10 + epoch) / 80


def test_other_images_are_stored_anew(offline):
    trainer, finish = offline
    samples = WandbSamples()
    plain = {"label": np.array(1)}
    for seed, label in ((0, 1), (0, 0), (1, 0)):
        one = Sample(
            noise(seed, 20, 30, 3), plain, {"label": np.array(label), "score": np.array(0.5)}, 0, f"is {label}"
        )
        samples.log(trainer, [one], NAMES, "val/pictures")
    folder, history = finish()
    names = [entry["filenames"][0] for entry in history]
    assert names[0] == names[1] != names[2] and stored(folder, "*.png")[0] == 2
    assert [entry["captions"] for entry in history] == [["is 1"], ["is 0"], ["is 0"]]


def test_semantic_masks_are_layers(offline):
    trainer, finish = offline
    samples, image, classes = WandbSamples(), noise(0, 40, 50, 3), [f"class {k}" for k in range(200)]
    truth = np.repeat(np.array([[0, 7, 150, 255]], np.uint8), 40, 0).repeat([10, 20, 10, 10], 1)
    for shift in (0, 3):
        predicted = {"mask": np.roll(truth, shift, axis=1)}
        samples.log(trainer, [Sample(image, {"mask": truth}, predicted, 0)], classes, "val/pictures")
    folder, history = finish()
    # files are named by content: one for the ground truth and the first prediction, which are equal, and one more
    assert stored(folder, "*.mask.png")[0] == 1 + 1
    paths = [entry["all_masks"][0]["ground_truth"]["path"] for entry in history]
    assert paths[0] == paths[1]
    with Image.open(folder / paths[0]) as file:
        np.testing.assert_array_equal(np.asarray(file), truth)  # 150 and 255 too
    with Image.open(folder / history[1]["all_masks"][0]["predictions"]["path"]) as file:
        np.testing.assert_array_equal(np.asarray(file), np.roll(truth, 3, axis=1))
    assert history[0]["filenames"] == history[1]["filenames"]


def test_masks_of_objects_become_classes():
    masks = np.zeros((3, 4, 6), np.uint8)
    masks[0, :, :4], masks[1, :2, :2], masks[2] = 1, 1, 1
    target = {
        "masks": RunLengths.from_dense(torch.from_numpy(masks)),
        "labels": np.array([0, 1, 1]),
        "scores": np.array([0.9, 0.8, 0.1]),
    }
    layer = mask_data(target, NAMES, (6, 6, 3), (4, 6, 3))
    assert layer["class_labels"] == {0: "no object", 1: "cat", 2: "dog"}
    expected = np.zeros((6, 6), np.uint8)
    expected[:4, :4], expected[:2, :2] = 1, 2  # the smaller object lies above; the third has a low score
    np.testing.assert_array_equal(layer["mask_data"], expected)
    assert mask_data({"label": 1}, NAMES, (6, 6), (4, 6)) is None
    assert mask_data(target, ["x"] * 255, (6, 6), (4, 6)) is None
    semantic = mask_data({"mask": masks[0]}, NAMES, (5, 12), (4, 12))
    assert semantic["class_labels"] == {0: "cat", 1: "dog", 255: "ignored"} and (semantic["mask_data"][4] == 255).all()
    np.testing.assert_array_equal(semantic["mask_data"][:4], masks[0].repeat(2, axis=1))
