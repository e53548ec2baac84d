"""Boxes for W&B: positions, captions, and which are uploaded."""

import json

import numpy as np
import pytest
import pytorch_lightning as pl
from PIL import Image
from pytorch_lightning.loggers import WandbLogger

from striate.callbacks.tracking.wandb_boxes import MAX_OBJECTS, Sample, box_data, log_boxes

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
    plain = Sample(image, {"mask": image[..., 0]}, {"mask": image[..., 0]}, 0)  # no boxes: not uploaded
    log_boxes(trainer, [plain, Sample(image, objects, prediction, 4)], NAMES, "val/boxes")
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
    """The images that W&B stores for samples, and the positions of their ground-ground_truth boxes, in order."""

    def sent(*images):
        logger = WandbLogger(save_dir=str(tmp_path), offline=True, log_model=False)
        trainer = pl.Trainer(logger=logger, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
        samples = []
        for number, (height, width) in enumerate(images):
            box = np.array([[0.5 * width, 0.25 * height, width, height]])
            ground_truth = {"boxes": box, "labels": np.array([0])}
            prediction = {"boxes": box[:0], "labels": np.zeros(0, int), "scores": np.zeros(0)}
            samples.append(Sample(np.full((height, width, 3), number, np.uint8), ground_truth, prediction, number))
        log_boxes(trainer, samples, NAMES, "val/boxes")
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
