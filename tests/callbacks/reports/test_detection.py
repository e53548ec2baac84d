"""The error analysis of a detector: curves, errors and confusion of a hand-computed scene."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from striate.callbacks import ClassReport, DetectionReport
from striate.callbacks.reports import curves as curves_report
from striate.callbacks.reports import detection as detection_report
from striate.callbacks.reports.curves import curves_figure
from striate.callbacks.reports.detection import errors_figure
from striate.tasks import Classification, Detection
from striate.tests.helpers.detector_inputs import detection_batch, detection_target
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.launcher import read_csv
from striate.tests.helpers.tiny_detector import Known
from striate.tests.helpers.training import Batches

# class 1: the first is correct, the second on the background; class 0: on an object of class 1
OBJECTS = [[0.5, 0.5, 1, 1, 1, 0.9], [0, 0.5, 0.3, 1, 1, 0.8], [0.6, 0, 1, 0.4, 0, 0.7]]
TARGETS = [detection_target([[20, 10, 40, 20], [24, 0, 40, 8], [0, 0, 12, 5]], [1, 1, 0])]


@pytest.fixture
def run(tmp_path):
    def run(command, *callbacks, classes=("cat", "dog"), objects=OBJECTS, targets=TARGETS, **settings):
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=list(callbacks), default_root_dir=str(tmp_path), **settings,
        )  # fmt: skip
        task = Detection(Known(objects, len(classes)), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
        getattr(trainer, command)(task, Batches([detection_batch([(20, 40)], targets)], class_names=classes))
        return tmp_path

    return run


def test_curves_errors_and_confusion_of_a_test(run):
    folder = run("test", DetectionReport(score=0.75))
    points = read_csv(folder / "test_curves.csv")
    dog = [
        (float(row["recall"]), float(row["precision"]), float(row["score"])) for row in points if row["class"] == "dog"
    ]
    assert len(points) == 202 and len(dog) == 101
    # one of two dogs is detected, by the box of highest score
    assert dog[0] == (0, 1, 0.9) and dog[50] == (0.5, 1, 0.9) and dog[51] == (0.51, 0, 0)
    errors = {row["error"]: int(row["count"]) for row in read_csv(folder / "test_errors.csv")}
    assert errors == {
        "wrong class": 1,
        "poor localization": 0,
        "wrong class, poor localization": 0,
        "duplicate": 0,
        "background": 1,
        "missed": 1,
    }
    (cat, dog, background) = read_csv(folder / "test_objects_confusion.csv")
    assert list(cat.values()) == ["cat", "0", "0", "1"]
    assert list(dog.values()) == ["dog", "0", "1", "1"]  # detections below 0.75 do not count
    assert list(background.values()) == ["background", "0", "1", "0"]
    names = {"test_curves.png", "test_errors.png", "test_objects_confusion.png"}
    assert {path.name for path in (folder / "pictures").iterdir()} == names


def test_no_report_in_training_by_default(run):
    assert not (run("fit", DetectionReport()) / "pictures").exists()
    assert (run("fit", DetectionReport(during_fit=True), num_sanity_val_steps=0) / "val_errors.csv").is_file()


def test_class_report_of_a_detector_has_a_table_curves_and_the_confusion_of_objects(run):
    folder = run("validate", ClassReport())
    cat, dog = read_csv(folder / "val_classes.csv")
    assert (cat["class"], cat["ap50"], cat["objects"], cat["detections"]) == ("cat", "0.0", "1", "1")
    assert (dog["class"], float(dog["ap50"]), dog["objects"]) == ("dog", round(51 / 101, 4), "2")
    assert not (folder / "val_confusion.csv").exists()
    assert {path.name for path in (folder / "pictures").iterdir()} == {"val_curves.png", "val_objects_confusion.png"}
    counts = [list(row.values())[1:] for row in read_csv(folder / "val_objects_confusion.csv")]
    assert counts == [["0", "0", "1"], ["1", "1", "0"], ["0", "1", "0"]]  # as of the report, from score 0.5
    dog = [row for row in read_csv(folder / "val_curves.csv") if row["class"] == "dog"]
    assert [(row["precision"], row["score"]) for row in dog[50:52]] == [("1.0", "0.9"), ("0.0", "0.0")]


def test_a_detection_report_takes_the_place_of_the_class_report(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        curves_report, "curves_figure", lambda *args: drawn.append(args[-1]) or np.zeros((2, 2, 3), "u1")
    )
    run("test", ClassReport(), DetectionReport(iou=0.75))
    assert not list(run("test").glob("val_objects*"))
    run("fit", ClassReport(), DetectionReport(iou=0.75), num_sanity_val_steps=0)  # which has no such report
    assert drawn == ["test: precision over recall, IoU 0.75", "val: precision over recall, IoU 0.5"]


def test_a_report_without_objects(run):
    folder = run("test", DetectionReport(), objects=[], targets=[detection_target([], [])])
    assert read_csv(folder / "test_curves.csv") == []


def test_many_classes_have_a_mean_curve_only(monkeypatch):
    recall, precision = np.linspace(0, 1, 101), np.linspace(1, 0, 101)[None].repeat(3, 0)
    precision[1], precision[2] = 1.0, np.nan

    def colored_pixels(picture):
        axes = picture[40:-60, 60:460].astype(int)
        return int((axes.max(2) - axes.min(2) > 60).sum())

    with_lines = curves_figure(recall, precision, ["a", "b", "c"], "t")
    monkeypatch.setattr(curves_report, "MAX_CURVES", 1)
    assert colored_pixels(with_lines) > colored_pixels(curves_figure(recall, precision, ["a", "b", "c"], "t")) == 0


def test_bars_are_as_long_as_the_ap_lost():
    def blue(lost):
        errors = {"delta_ap": dict.fromkeys(detection_report.ERRORS, 0.0) | {"Loc": lost}, "counts": {}}
        picture = errors_figure(errors, "t").astype(int)
        return int((picture[..., 2] - picture[..., 0] > 60).sum())

    assert blue(0.0) == 0 < blue(0.005) < blue(0.3)


def test_invalid_arguments_and_tasks(tmp_path):
    with pytest.raises(ValueError, match="iou.*got 50"):
        DetectionReport(iou=50)
    with pytest.raises(ValueError, match="score.*got 2"):
        DetectionReport(score=2)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_progress_bar=False, enable_checkpointing=False)
    with pytest.raises(TypeError, match=r"DetectionReport: .*detection_metric.*got Classification"):
        DetectionReport().setup(trainer, Classification(TinyNet()), "test")


def test_score_thresholds_of_highest_f1_come_from_validation_alone(run):
    folder = run("validate", ClassReport())
    cat, dog, together = read_csv(folder / "val_thresholds.csv")
    assert list(dog) == ["class", "threshold", "f1", "precision", "recall"]
    # of two dogs one is detected, with the highest score; no cat is
    assert list(dog.values()) == ["dog", "0.9", "0.6667", "1.0", "0.5"]
    assert list(cat.values()) == ["cat", "", "", "", ""]
    assert together["class"] == "(all classes)" and float(together["f1"]) == 0.5
    (folder / "val_thresholds.csv").unlink()
    run("test", ClassReport())
    assert (folder / "test_classes.csv").is_file() and not list(folder.glob("*_thresholds.csv"))


def test_tide_counts_as_many_detections_as_the_report_is_told(run):
    folder = run("test", DetectionReport(max_detections=1))
    errors = {row["error"]: int(row["count"]) for row in read_csv(folder / "test_errors.csv")}
    assert errors["background"] == errors["wrong class"] == 0 and errors["missed"] == 2
    with pytest.raises(ValueError, match="max_detections: must be >= 1, got 0"):
        DetectionReport(max_detections=0)


def test_names_in_the_legend_of_curves(monkeypatch):
    figures = []
    monkeypatch.setattr(curves_report, "render_figure", figures.append)
    names = ["_background_", "$x$", "a very long name " * 9]
    curves_figure(np.linspace(0, 1, 101), np.ones((3, 101)), names, "$t$")
    (axes,) = figures[0].axes
    texts = axes.get_legend().get_texts()
    assert [text.get_text().split()[0] for text in texts] == ["_background_", "$x$", "a", "mean"]
    assert len(texts[2].get_text()) < 40 and not any(text.get_parse_math() for text in [*texts, axes.title])
