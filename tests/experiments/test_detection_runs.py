"""Detection from YAML to COCO's files: fit, resume, validate, test, predict, in this process and in two."""

import json
import re

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from pycocotools.coco import COCO

from striate.datamodules import DigitScenes
from striate.tasks import Detection
from striate.tests.helpers.digit_configs import DETECTION
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.launcher import fit_and_resume, launch, launch_error, read_csv, workdir_with
from striate.tests.helpers.tiny_detector import TinyDetector
from striate.tests.helpers.training import run_script

workdir = workdir_with(digits=DETECTION)


def test_fit_resume_test_and_predict_on_digits(workdir, capsys):
    run = fit_and_resume("digits", workdir)
    rows = read_csv(run / "metrics.csv")
    metrics = {"val/map", "val/map50", "val/map75", "val/map_small", "val/mar100", "val/voc_map", "train/loss_box"}
    assert metrics | {"train/loss", "train/loss_class"} <= rows[0].keys() and "val/loss" not in rows[0]
    assert len([row for row in rows if row["val/map"]]) == 2
    classes = read_csv(run / "val_classes.csv")
    assert list(classes[0]) == ["class", "ap", "ap50", "ap75", "ar100", "objects", "detections", "voc_ap"]
    ground_truth = DigitScenes("detection", image_size=32, num_workers=0).make_source("val")
    assert sum(int(row["objects"]) for row in classes) == sum(len(ground_truth[n]["labels"]) for n in range(9))
    with Image.open(run / "pictures" / "val_epoch_001.png") as drawn:
        assert drawn.width > drawn.height > 200  # ground truth and prediction, side by side
    assert (run / "checkpoints" / "best.ckpt").is_file() and not (run / "val_confusion.csv").exists()

    # keys as a W&B sweep passes them, and the report of errors
    report = json.dumps([{"class_path": "striate.callbacks.DetectionReport"}])
    for command, stage in (("validate", "val"), ("test", "test")):
        launch(command, "--config", "digits.yaml", "--ckpt_path", "best", "--trainer.callbacks", report,
               "--model.init_args.optimizer.init_args.lr=0.003", "--model.init_args.model.init_args.dropout=0.2"
        )  # fmt: skip
        out = workdir / "runs" / "digits" / f"{command}-1"
        assert f"{stage}/map" in capsys.readouterr().out
        assert (out / "pictures" / f"{stage}_curves.png").is_file() and (out / f"{stage}_errors.csv").is_file()


def write_images(workdir):
    """Write images of several sizes, one of them unreadable; return the sizes by path."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    for name, image in (("000012.png", noise), ("000345.png", noise[:20]), ("000007.png", noise[:7, :5])):
        write_image(workdir / "new" / name, image)
    (workdir / "new" / "000001.jpg").write_bytes(b"no image")
    return {"new/000012.png": (40, 70), "new/000345.png": (20, 70), "new/000007.png": (7, 5)}


PREDICT = ("predict", "--allow_random_weights", "--config", "known.yaml", "--data.images", "new")

# three objects per image: the lower right quarter, one of lower score that overlaps it, and another
KNOWN = [[0.5, 0.5, 1, 1, 0, 0.9], [0.5, 0.6, 1, 1, 0, 0.5], [0, 0, 0.5, 1, 2, 0.4]]


def write_known(workdir, **data_args):
    """Write ``known.yaml`` with a model that always predicts `KNOWN`."""
    model = {
        "class_path": "striate.tests.helpers.tiny_detector.Known",
        "init_args": {"objects": KNOWN, "num_classes": 10},
    }
    config = json.loads(json.dumps(DETECTION))
    config["model"]["init_args"] |= {"model": model, "optimizer": {"class_path": "torch.optim.SGD"}}
    config["data"]["init_args"] |= data_args
    (workdir / "known.yaml").write_text(yaml.safe_dump(config))


def test_predictions_are_in_the_pixels_of_the_file_for_any_transform(workdir):
    write_known(workdir)
    sizes = write_images(workdir)
    for number, steps in enumerate((
        "null",
        '[{"class_path": "albumentations.Resize", "init_args": {"height": 30, "width": 44}}]',
    ), 1):  # fmt: skip
        launch(*PREDICT, "--data.val_transform", steps)
        out = workdir / "runs" / "known" / f"predict-{number}"
        rows = read_csv(out / "predictions.csv")
        # the plots show two of the three objects: the third has a score of 0.4
        assert list(rows[0]) == ["path", "label", "score", "x1", "y1", "x2", "y2"] and len(rows) == 6
        counts = read_csv(out / "counts.csv")
        assert [row["path"] for row in counts] == list(dict.fromkeys(row["path"] for row in rows))
        assert {(row["objects"], *list(row.values())[2:5]) for row in counts} == {("2", "2", "0", "0")}
        for path, (height, width) in sizes.items():
            first, second = [row for row in rows if row["path"] == path]
            corners = [float(first[side]) for side in ("x1", "y1", "x2", "y2")]
            assert corners == pytest.approx([width / 2, height / 2, width, height], abs=0.01)
            assert [row["score"] for row in (first, second)] == ["0.900000", "0.500000"]
            assert float(second["y1"]) == pytest.approx(0.6 * height, abs=0.01)
        ground_truth = COCO(str(out / "images.json"))
        assert {one["id"]: (one["file_name"], (one["height"], one["width"])) for one in ground_truth.imgs.values()} == {
            int(path[4:10]): (path, size) for path, size in sizes.items()
        }
        detection = ground_truth.loadRes(str(out / "detections.json")).loadAnns([1])[0]
        assert (
            detection["image_id"] == 7 and detection["category_id"] == 1 and detection["bbox"] == [2.5, 3.5, 2.5, 3.5]
        )
        assert len(json.loads((out / "detections.json").read_text())) == 9
        assert len(list((out / "pictures").glob("*.png"))) == 3 and not list(out.glob("*.jsonl"))


def test_score_and_overlap_are_options_of_predict(workdir):
    write_known(workdir)
    write_images(workdir)
    launch(*PREDICT,
           "--model.score_threshold", 0.45, "--model.nms_iou", 0.7)  # fmt: skip
    rows = read_csv(workdir / "runs" / "known" / "predict-1" / "predictions.csv")
    assert [row["score"] for row in rows] == ["0.900000"] * 3
    launch(*PREDICT, "--model.score_threshold", 1)
    out = workdir / "runs" / "known" / "predict-2"
    assert (out / "predictions.csv").read_text().splitlines() == ["path,label,score,x1,y1,x2,y2"]
    assert json.loads((out / "detections.json").read_text()) == []
    assert len(json.loads((out / "images.json").read_text())["images"]) == 3


def test_a_transform_that_transposes_the_image_is_rejected(workdir, capsys):
    write_known(workdir)
    write_images(workdir)
    steps = '[{"class_path": "albumentations.Transpose", "init_args": {"p": 1}}]'
    message = launch_error(capsys, 1, *PREDICT,
                   "--data.val_transform", steps)  # fmt: skip
    assert re.search("val_transform .*must only resize, crop and pad", message)


def test_a_loss_that_is_nan_stops_the_run_with_one_line(workdir, capsys):
    config = json.loads(json.dumps(DETECTION))
    config["model"]["init_args"]["model"] = {
        "class_path": "striate.tests.helpers.tiny_detector.Breaking", "init_args": {"after": 4}
    }  # fmt: skip
    (workdir / "breaking.yaml").write_text(yaml.safe_dump(config))
    message = launch_error(capsys, 1, "fit", "--config", "breaking.yaml")
    assert message.startswith("loss: must be finite, got NaN or infinity at step 4 (epoch 1): loss_class ")
    assert ", loss_box nan, their sum nan; the batch: image_id " in message
    saved = torch.load(workdir / "runs/breaking/fit-1/checkpoints/last.ckpt", weights_only=True)
    assert saved["global_step"] == 3  # the first epoch's


DDP_SCRIPT = """
from striate.callbacks import ClassReport, DetectionReport, PredictionWriter
from striate.datamodules import DigitScenes
from striate.tasks import Detection
from striate.tests.helpers.tiny_detector import TinyDetector
data = DigitScenes(
    "detection", image_size=32, train_size=8, val_size=7, empty_fraction=0.3, batch_size=2, num_workers=0, images="new"
)
task = Detection(TinyDetector(10), voc=2007)
task.model.load_state_dict(torch.load("trained.pt", weights_only=True))
callbacks = [ClassReport(), DetectionReport(score=0.1), PredictionWriter(pictures=False)]
trainer = ddp_trainer(callbacks=callbacks, default_root_dir=f"out-{processes}")
(metrics,) = trainer.validate(task, data, verbose=False)
trainer.predict(task, data, return_predictions=False)
if processes > 1:
    trainer.limit_val_batches = 0
    trainer.fit(task, data)
    assert_ranks_agree(trainer, task)
report(trainer, metrics)
"""


def trained_weights(scenes, steps=60):
    """The weights of a detector trained on these scenes, so that there are detections to count."""
    data = DigitScenes(
        "detection", image_size=32, val_size=scenes, empty_fraction=0.3, batch_size=scenes, num_workers=0
    )
    data.setup("validate")
    (batch,) = data.val_dataloader()
    task = Detection(TinyDetector(10), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.02)).train()
    optimizer = task.configure_optimizers()
    for _ in range(steps):
        losses, _ = task.losses(batch)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    return task.model.state_dict()


def test_two_processes_count_and_predict_what_one_does(workdir):
    torch.save(trained_weights(7), workdir / "trained.pt")
    source = DigitScenes("detection", image_size=32, empty_fraction=0.3, num_workers=0).make_source("val")
    for number in range(5):
        write_image(workdir / "new" / f"scene_{number}.png", source[number]["image"])
    one, two = (run_script(DDP_SCRIPT, workdir, processes) for processes in (1, 2))
    assert two == pytest.approx(one, abs=1e-9, nan_ok=True) and one["val/map50"] > 0.2
    tables = ("classes", "thresholds", "errors", "curves", "objects_confusion")
    for name in ("predictions.csv", "counts.csv", *(f"val_{table}.csv" for table in tables)):
        first, second = ((workdir / f"out-{count}" / name).read_text() for count in (1, 2))
        assert len(first.splitlines()) > 1 and first == second, name
    for name in ("detections.json", "images.json"):
        assert (workdir / "out-1" / name).read_text() == (workdir / "out-2" / name).read_text()
