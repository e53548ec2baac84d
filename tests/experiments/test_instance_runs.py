"""Instance segmentation from YAML to files: fit, validate, test, predict, and the predictions read back as data."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from striate.datamodules import DigitScenes, InstanceMasks
from striate.tests.helpers.digit_configs import INSTANCES
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.launcher import launch, read_csv, workdir_with

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools

workdir = workdir_with(digits=INSTANCES)


def test_fit_validate_test_and_predict_on_digits(workdir):
    launch("fit", "--config", "digits.yaml")
    run = workdir / "runs" / "digits" / "fit-1"
    logged = read_csv(run / "metrics.csv")[-1]
    names = {"val/map", "val/mask_map", "val/mask_map50", "val/mask_mar20", "val/mask_map_r50", "val/mask_map_r70_mnc"}
    assert names | {"val/boundary_map"} <= logged.keys() and "val/loss" not in logged
    classes = read_csv(run / "val_classes.csv")
    assert list(classes[0])[:6] == ["class", "mask_ap", "mask_ap50", "mask_ap75", "mask_ar20", "ap"]
    assert (run / "pictures" / "val_epoch_000.png").is_file() and (run / "checkpoints" / "best.ckpt").is_file()
    report = json.dumps([{"class_path": "striate.callbacks.DetectionReport"}])
    for command, stage in (("validate", "val"), ("test", "test")):
        launch(command, "--config", "digits.yaml", "--ckpt_path", "best", "--trainer.callbacks", report)
        assert (workdir / "runs" / "digits" / f"{command}-1" / f"{stage}_errors.csv").is_file()

    source = DigitScenes("instance_segmentation", image_size=32, num_workers=0).make_source("val")
    for number in range(3):
        write_image(workdir / "data" / "train" / "images" / f"{number + 7}.png", source[number]["image"])
    launch("predict", "--config", "digits.yaml", "--ckpt_path", "best", "--data.images", "data/train/images",
           "--model.score_threshold", 0.001)  # fmt: skip
    out = workdir / "runs" / "digits" / "predict-1"
    rows = read_csv(out / "predictions.csv")
    assert list(rows[0])[-2:] == ["area", "id"] and rows
    results = COCO(str(out / "images.json")).loadRes(str(out / "detections.json"))
    assert len(results.anns) == len(rows)
    assert sorted(int(results.annToMask(one).sum()) for one in results.anns.values()) == sorted(
        int(row["area"]) for row in rows
    )
    # what lies on top reads back as data, with its class
    (out / "instances").rename(workdir / "data" / "train" / "masks")
    (out / "instances.csv").rename(workdir / "data" / "classes.csv")
    names = DigitScenes("instance_segmentation", num_workers=0).class_names
    data = InstanceMasks("data", class_file="classes.csv", class_names=names, num_workers=0).make_source("train")
    with (workdir / "data" / "classes.csv").open(encoding="utf-8") as file:
        labels = {(row["path"], int(row["id"])): names.index(row["label"]) for row in csv.DictReader(file)}
    for number, name in enumerate(sorted(path.name for path in (workdir / "data" / "train" / "images").iterdir())):
        with Image.open(workdir / "data" / "train" / "masks" / name) as file:
            ids = np.asarray(file)
        present = sorted(set(ids.ravel().tolist()) - {0})
        sample = data[number]
        assert sample["labels"].tolist() == [labels[name, value] for value in present]
        assert all(
            (mask != 0).sum() == (ids == value).sum() for mask, value in zip(sample["masks"], present, strict=True)
        )
