"""Localization through the launcher: fit, resume, plots, predictions in pixels of the file, fine-tuning."""

import albumentations as A
import numpy as np
import pytest
import torch
from PIL import Image

from striate.callbacks.drawing.overlays import draw_target, overlap_note
from striate.datamodules import DigitScenes, ShortSideResize
from striate.datamodules.loading.image_files import ImageFiles
from striate.models import Classifier, PlainCNN
from striate.tests.helpers.digit_configs import LOCALIZATION
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.launcher import launch, launch_error, read_csv, workdir_with

workdir = workdir_with(boxes=LOCALIZATION)


def test_from_a_classifier_to_predictions_in_pixels_of_the_file(workdir, caplog):
    trained = Classifier(PlainCNN((8, 16)), 10)
    state = {f"model.{key}": value for key, value in trained.state_dict().items()}
    torch.save({"state_dict": state}, workdir / "classifier.ckpt")
    launch("fit", "--config", "boxes.yaml",
           "--model.init_args.model.init_args.backbone.weights", "classifier.ckpt")  # fmt: skip
    log = caplog.text
    assert "Weights from classifier.ckpt:" in log and "trunk: all 24 tensors, prefix 'model.backbone.'" in log
    assert "class head: 3.weight, 3.bias, prefix 'model.head.'" in log and "box head: new" in log
    run = workdir / "runs" / "boxes" / "fit-1"
    with Image.open(run / "pictures" / "val_epoch_000.png") as drawn:
        assert drawn.width > drawn.height  # ground truth and prediction side by side
    (row,) = [row for row in read_csv(run / "metrics.csv") if row["val/loc_acc"]]
    assert float(row["val/acc"]) + float(row["val/cls_err"]) == pytest.approx(1)
    assert (run / "val_confusion.csv").is_file()

    (workdir / "classifier.ckpt").unlink()  # resuming and predicting do not need it anymore
    launch("fit", "--config", "boxes.yaml", "--trainer.max_epochs", 2, "--ckpt_path", "last")
    assert [row["epoch"] for row in read_csv(run / "metrics.csv") if row["val/acc"]] == ["0", "1"]

    scene = DigitScenes("localization", image_size=32, scale=(0.6, 0.9), num_workers=0).make_source("val")[0]["image"]
    write_image(workdir / "new" / "small.png", scene)
    large = np.repeat(np.repeat(scene, 2, axis=0), 5, axis=1)  # the same picture, 160 x 64
    write_image(workdir / "new" / "large.png", large)
    launch("predict", "--config", "boxes.yaml", "--ckpt_path", "last", "--data.images", "new",
           "--data.val_transform", '[{"class_path": "albumentations.Resize", "init_args": {"height": 32, "width": 32, '
           '"interpolation": 0}}]')  # fmt: skip
    out = workdir / "runs" / "boxes" / "predict-1"
    big, small = read_csv(out / "predictions.csv")
    assert list(small)[:9] == ["path", "label", "score", "x1", "y1", "x2", "y2", "label_2", "score_2"]
    assert "y2_5" in small and small["label_5"] == big["label_5"]
    for suffix in ("", "_2"):
        for side, factor in zip(("x1", "y1", "x2", "y2"), (5, 2, 5, 2), strict=True):
            assert float(big[side + suffix]) == pytest.approx(factor * float(small[side + suffix]), abs=0.06)
    assert 0 <= float(small["x1"]) < float(small["x2"]) <= 32
    assert len(list((out / "pictures").glob("*.png"))) == 2


def test_a_checkpoint_without_the_trunk_is_rejected(workdir, capsys):
    key = "--model.init_args.model.init_args.backbone.weights"
    other = {f"model.{name}": value for name, value in Classifier("resnet18", 10).state_dict().items()}
    torch.save({"state_dict": other}, workdir / "other.ckpt")
    with pytest.raises(SystemExit):
        launch("fit", "--config", "boxes.yaml", key, "other.ckpt")
    message = capsys.readouterr().err
    assert "Traceback" not in message and "striate: " in message
    assert "other.ckpt does not match PlainCNN (0 of 20" in message
    assert "got names such as 'model.backbone.stages.0.conv1.weight'" in message
    message = launch_error(capsys, 1, "fit", "--config", "boxes.yaml", key, "nowhere.ckpt")
    assert "no weights file at nowhere.ckpt" in message


def corners_after(folder, steps, width=100, height=60):
    data = DigitScenes("localization", val_transform=steps, num_workers=0)
    source = ImageFiles([write_image(folder / "blank.png", np.zeros((height, width, 3), np.uint8))])
    return data.dataset(source, training=False)[0]["corners"].round(4).tolist()


def test_corners_follow_resizing_cropping_and_padding(tmp_path):
    assert corners_after(tmp_path, None) == [[0, 0], [100, 0], [0, 60]]
    assert corners_after(tmp_path, [A.Resize(30, 30)]) == [[0, 0], [30, 0], [0, 30]]
    assert corners_after(tmp_path, [A.CenterCrop(20, 40)]) == [[-30, -20], [70, -20], [-30, 40]]
    assert corners_after(tmp_path, [A.PadIfNeeded(80, 120)]) == [[10, 10], [110, 10], [10, 70]]
    assert corners_after(tmp_path, [ShortSideResize(30)]) == [[0, 0], [50, 0], [0, 30]]
    assert corners_after(tmp_path, [A.ToGray()]) == [[0, 0], [100, 0], [0, 60]]

    class Own(A.DualTransform):
        _targets = ()

        def apply(self, img, *args, **params):
            return img

    assert np.isnan(corners_after(tmp_path, [Own(p=1)])).all()


def test_the_predicted_box_is_drawn_in_place_with_its_score():
    image = np.full((50, 100, 3), 90, np.uint8)
    prediction = {"label": 1, "score": 0.07, "box": torch.tensor([20.0, 10.0, 80.0, 40.0]), "top_labels": [1]}
    picture, legend = draw_target(image, prediction, ["cat", "dog"], 200)
    changed = np.argwhere((picture != 90).any(axis=2))
    assert changed[:, 1].min() == 40 and changed[:, 1].max() == 159  # even with a low score
    assert changed[:, 0].max() == 79 and [entry.text for entry in legend] == ["dog"]
    ground_truth = {"box": np.array([20.0, 10.0, 80.0, 25.0])}
    assert overlap_note(prediction, ground_truth) == ", IoU 0.50" and overlap_note(prediction, {"label": 1}) == ""
