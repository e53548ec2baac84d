"""Semantic segmentation from YAML to masks: fit, resume, validate, test, predict, in this process and in two."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from striate.tests.helpers.digit_configs import SEGMENTATION
from striate.tests.helpers.fixtures import make_folder, noisy_image, write_image
from striate.tests.helpers.launcher import (
    CLASSIFICATION,
    fit_and_resume,
    launch,
    launch_error,
    read_csv,
    run_config,
    workdir_with,
)
from striate.tests.helpers.training import run_script

MASKS = run_config(
    "SemanticSegmentation",
    {"class_path": "striate.tests.helpers.tiny_segmenter.Thresholds"},  # knows the answer
    {"class": "MaskFolder", "root": "data", "class_names": ["dark", "light"], "batch_size": 1, "eval_batch_size": 3},
    lr=0.0, trainer={"max_epochs": 1},
)  # fmt: skip


workdir = workdir_with(digits=SEGMENTATION, folder=MASKS)


def write_shades(root, sizes, folder="train"):
    """Write images ``(height, width)`` with a dark left part and a light right part, and their masks."""
    for number, (height, width) in enumerate(sizes):
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 3 :] = 1
        image = np.where(mask[..., None] == 1, 220, 30).astype(np.uint8).repeat(3, axis=2)
        mask[0, :] = 255
        write_image(root / folder / "images" / f"{number}.png", image)
        cv2.imwrite(str(write_image(root / folder / "masks" / f"{number}.png", mask)), mask)
    return root


def test_fit_resume_and_predict_on_digits(workdir):
    run = fit_and_resume("digits", workdir)
    rows = read_csv(run / "metrics.csv")
    metrics = {"val/miou", "val/acc", "val/acc_class", "val/fwiou", "val/boundary_miou", "val/loss", "train/loss"}
    assert metrics <= rows[0].keys() and len([row for row in rows if row["val/miou"]]) == 2
    classes = read_csv(run / "val_classes.csv")
    assert list(classes[0]) == ["class", "pixels", "accuracy", "iou", "boundary_iou"]
    assert [row["class"] for row in classes] == ["background", *map(str, range(10))]
    assert sum(int(row["pixels"]) for row in classes) == 9 * 32 * 32
    ious = [float(row["iou"]) for row in classes if row["iou"]]
    last = [float(row["val/miou"]) for row in rows if row["val/miou"]][-1]
    assert np.mean(ious) == pytest.approx(last, abs=1e-3)
    assert (run / "checkpoints" / "best.ckpt").is_file()
    for name in ("val_epoch_001", "val_confusion"):
        with Image.open(run / "pictures" / f"{name}.png") as drawn:
            assert min(drawn.size) > 200

    # images of any size, two of them with the same name, and one that cannot be read
    noise = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
    for name, image in (("a/x.png", noise), ("b/x.png", noise[:20]), ("b/wide.png", noise[:30, :64])):
        write_image(workdir / "new" / name, image)
    (workdir / "new" / "broken.jpg").write_bytes(b"no image")
    launch("predict", "--config", "digits.yaml", "--ckpt_path", "best", "--data.images", "new")
    out = workdir / "runs" / "digits" / "predict-1"
    rows = read_csv(out / "predictions.csv")
    assert list(rows[0]) == ["path", "width", "height", "mask", "background", *map(str, range(10))]
    assert {row["path"] for row in rows} == {"new/a/x.png", "new/b/x.png", "new/b/wide.png"}
    for row in rows:
        with Image.open(out / row["mask"]) as mask, Image.open(workdir / row["path"]) as image:
            assert mask.mode == "P" and mask.size == image.size == (int(row["width"]), int(row["height"]))
            values = np.asarray(mask)
            assert mask.getpalette()[3:9] == [128, 0, 0, 0, 128, 0]  # the first colors of VOC
        areas = [int(row[name]) for name in ("background", *map(str, range(10)))]
        assert areas == np.bincount(values.ravel(), minlength=11).tolist()
    assert len(list((out / "masks").iterdir())) == len(list((out / "pictures").iterdir())) == 3
    assert {row["mask"] for row in rows if row["path"].endswith("wide.png")} == {"masks/wide.png"}


def test_images_of_different_sizes_are_trained_evaluated_and_predicted_whole(workdir):
    sizes = [(20, 31), (44, 18), (44, 18), (9, 60), (33, 33)]
    for split in ("train", "val", "test"):
        write_shades(workdir / "data", sizes, split)
    launch("fit", "--config", "folder.yaml")
    run = workdir / "runs" / "folder" / "fit-1"
    (row,) = [row for row in read_csv(run / "metrics.csv") if row["val/miou"]]
    assert float(row["val/miou"]) == float(row["val/acc"]) == float(row["val/boundary_miou"]) == 1
    pixels = [int(row["pixels"]) for row in read_csv(run / "val_classes.csv")]
    assert sum(pixels) == sum((height - 1) * width for height, width in sizes)  # the first row is ignored
    launch("test", "--config", "folder.yaml", "--ckpt_path", "best",
           "--model.window", "[16, 16]", "--model.scales", "[1.0, 2.0]", "--model.flip", "true")  # fmt: skip
    (row,) = read_csv(workdir / "runs" / "folder" / "test-1" / "metrics.csv")
    assert float(row["test/miou"]) > 0.9
    launch("predict", "--config", "folder.yaml", "--ckpt_path", "best", "--data.images", "data/val/images")
    for number, (height, width) in enumerate(sizes):
        with Image.open(workdir / "runs" / "folder" / "predict-1" / "masks" / f"{number}.png") as mask:
            expected = np.zeros((height, width), np.uint8)
            expected[:, width // 3 :] = 1
            np.testing.assert_array_equal(np.asarray(mask), expected)


def test_data_that_does_not_fit_produces_a_one_line_error(workdir, capsys):
    write_shades(workdir / "data", [(20, 30), (30, 20)], "train")
    write_shades(workdir / "data", [(20, 30), (20, 30)], "val")
    fit = ("fit", "--config", "folder.yaml")
    message = launch_error(capsys, 1, *fit, "--data.batch_size", 2)
    assert "train_transform: " in message and "got 30x20, 20x30" in message
    message = launch_error(capsys, 1, *fit, "--model.model.num_classes", 3)
    assert "--model.model.num_classes 3: " in message and "MaskFolder" in message and "dark, light" in message
    crop = json.dumps([{"class_path": "albumentations.CenterCrop", "init_args": {"height": 8, "width": 8}}])
    call = ("predict", "--allow_random_weights", "--config", "folder.yaml", "--data.images", "data/val/images")
    message = launch_error(capsys, 1, *call, "--data.val_transform", crop)
    assert "val_transform" in message and "must only resize the images to predict" in message
    mask = np.full((20, 30), 0, np.uint8)
    mask[3, 4:9], mask[5, 5] = 2, 77
    cv2.imwrite("data/val/masks/0.png", mask)
    message = launch_error(capsys, 1, *fit)
    assert "2 (5 pixels), 77 (1 pixel)" in message
    cv2.imwrite("data/val/masks/0.png", mask[:, :-1])
    message = launch_error(capsys, 1, *fit, "--data.strict", "true")
    assert "data/val/images/0.png: the image is 30x20, but its mask" in message and "is 29x20" in message


def test_classification_rejects_images_of_different_sizes(workdir, capsys):
    make_folder(workdir / "data", 4)
    (workdir / "small.yaml").write_text(yaml.safe_dump(CLASSIFICATION))
    for size in (20, 30):
        write_image(workdir / "new" / f"{size}.png", noisy_image(0, size, size))
    call = ("predict", "--allow_random_weights", "--config", "small.yaml", "--data.images", "new")
    message = launch_error(capsys, 1, *call)
    assert re.search("val_transform: .*Classification images of one size, got several sizes", message)


DDP_SCRIPT = """
from striate.callbacks import ClassReport, PredictionWriter
from striate.datamodules import MaskFolder
from striate.tasks import SemanticSegmentation
from striate.tests.helpers.tiny_segmenter import TinySegmenter
data = MaskFolder("data", ["dark", "light"], num_workers=0, batch_size=1, eval_batch_size=2, images="data/val/images")
task = SemanticSegmentation(TinySegmenter(2), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
callbacks = [ClassReport(), PredictionWriter(pictures=False)]
trainer = ddp_trainer(callbacks=callbacks, default_root_dir=f"out-{processes}")
(metrics,) = trainer.validate(task, data, verbose=False)
table = {name: values.tolist() for name, values in task.class_table("val").items()}
trainer.predict(task, data, return_predictions=False)
report(trainer, {**metrics, **table})
"""


def test_two_processes_count_each_pixel_once(workdir):
    write_shades(workdir / "data", [(20, 30)] * 4, "train")
    # five images: odd, so that a padding sampler would count one twice; the last is ignored throughout
    write_shades(workdir / "data", [(20, 31), (44, 18), (44, 18), (9, 60), (33, 33)], "val")
    cv2.imwrite(str(workdir / "data/val/masks/4.png"), np.full((33, 33), 255, np.uint8))
    one, two = (run_script(DDP_SCRIPT, workdir, processes) for processes in (1, 2))
    assert sum(one["pixels"]) == sum(two["pixels"]) == 19 * 31 + 2 * 43 * 18 + 8 * 60
    for name, value in one.items():
        assert two[name] == pytest.approx(value, abs=1e-6), name
    first, second = (workdir / f"out-{processes}" for processes in "12")
    assert (first / "predictions.csv").read_text() == (second / "predictions.csv").read_text()
    for mask in (first / "masks").iterdir():
        assert mask.read_bytes() == (second / "masks" / mask.name).read_bytes()
    assert len(list((second / "masks").iterdir())) == 5 and Path(first / "val_classes.csv").is_file()
