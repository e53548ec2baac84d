"""A small data set of one's own in VOC's layout, from the check to the predictions, with the usual oddities."""

import re

import pytest
import yaml

from striate.experiments.data.commands import run as data_command
from striate.tests.helpers.coco_voc import voc_xml
from striate.tests.helpers.fixtures import noise, write_image
from striate.tests.helpers.launcher import launch, run_config, workdir_with
from striate.tests.helpers.small_datasets import truncate

NAMES = ["rote Blutkörperchen", "血小板", "cell/other"]
SIZE = (64, 48)

pytestmark = [
    pytest.mark.filterwarnings("ignore:Glyph"),  # charts in a font without Chinese
    pytest.mark.filterwarnings("ignore:.*drawn as numbers"),
    pytest.mark.filterwarnings("ignore:.*one pixel wide or high"),
    pytest.mark.filterwarnings("ignore:.*skipped .could not be read"),
]

workdir = workdir_with(cells=run_config(
    "Detection",
    {"class_path": "striate.tests.helpers.tiny_detector.TinyDetector", "init_args": {"num_classes": 3}},
    {"class": "VOCDetection", "root": "cells", "batch_size": 2},
    lr=0.01, trainer={"max_epochs": 1, "limit_train_batches": 2},
))  # fmt: skip


@pytest.fixture(autouse=True)
def cells(workdir):
    """Six training and two validation images; two points, one truncated file, names with spaces and umlauts."""
    root = workdir / "cells"
    stems = ["Träger 1", "Träger 2", "試料", "a b (1)", "x.y", "IMG_6", "val Größe", "val-2"]
    for number, stem in enumerate(stems):
        write_image(root / "JPEGImages" / f"{stem}.jpg", noise(*SIZE, number))
        objects = [(NAMES[number % 2], (5, 6, 30, 40), 0), (NAMES[2], (33, 10, 60, 40), 0)]
        objects += [(NAMES[1], (9 + number, 9, 9 + number, 9), 0)] if number < 2 else []
        (root / "Annotations").mkdir(exist_ok=True)
        (root / "Annotations" / f"{stem}.xml").write_text(voc_xml(stem, SIZE, objects), encoding="utf-8")
    truncate(root / "JPEGImages" / "x.y.jpg")
    (root / "ImageSets" / "Main").mkdir(parents=True)
    for name, listed in (("train", stems[:6]), ("val", stems[6:])):
        (root / "ImageSets" / "Main" / f"{name}.txt").write_text("\n".join(listed), encoding="utf-8")
    return root


def test_check_says_what_is_there_and_what_is_wrong(workdir, capsys):
    from striate.experiments.data.check import check

    assert check(["--format", "voc", "cells", "--workers", "0", "--fix", "fixed"]) == 1
    out = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "train: the images in ImageSets/Main/train.txt, images in JPEGImages, XML files in Annotations" in out
    assert "cell/other (8), 血小板 (6), rote Blutkörperchen (4)" in out
    assert "or far below the sizes of the others: 2 box-tiny" in out and "1 x 1 pixels" in out
    assert "JPEGImages/x.y.jpg" in out and "unreadable-image" in out and "2 warnings" in out and "1 error" in out
    fixed = yaml.safe_load((workdir / "fixed/fixed.yaml").read_text(encoding="utf-8"))["data"]["init_args"]
    assert fixed["class_names"] == sorted(NAMES)
    assert check(["--format", "voc", "fixed", "--workers", "0", "--ignore", "box-tiny"]) == 0
    assert "Clean: 7 images read" in capsys.readouterr().out


def test_show_needs_no_validation_images(workdir):
    (workdir / "cells/ImageSets/Main/val.txt").unlink()
    data_command(["show", "voc_detection", "--root", "cells", "--count", "2", "--out", "train.png"])
    assert (workdir / "train.png").is_file()


def test_show_export_fit_validate_and_predict(workdir, capsys):
    data_command(["show", "voc_detection", "--root", "cells", "--count", "4"])
    data_command(["export", "voc_detection", "--root", "cells", "--format", "yolo", "out"])
    assert (workdir / "voc_detection_train.png").is_file()
    assert "血小板" in (workdir / "out/data.yaml").read_text(encoding="utf-8")
    launch("fit", "--config", "cells.yaml")
    launch("validate", "--config", "cells.yaml", "--ckpt_path", "last")
    launch("predict", "--config", "cells.yaml", "--ckpt_path", "last", "--data.images", "cells/JPEGImages")
    counts = (workdir / "runs/cells/predict-1/counts.csv").read_text(encoding="utf-8")
    assert "試料.jpg" in counts and all(name in counts.splitlines()[0] for name in NAMES)
    assert "val/map" in capsys.readouterr().out
