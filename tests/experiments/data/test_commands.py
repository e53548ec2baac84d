"""``striate data show`` and ``export`` from command line to file, and their one-line errors."""

import re

import numpy as np
import pytest
import yaml
from PIL import Image

from striate.callbacks.drawing import overlays
from striate.datamodules import CocoDetection, DigitScenes, ImageFolder
from striate.experiments.data.build_data import parse_data_command
from striate.experiments.data.show import page
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import launch, launch_error, workdir_with

CONFIG = {
    "model": {"class_path": "no.such.Model", "init_args": {"wrong": 1}},  # only the data section is read
    "data": {
        "class_path": "striate.datamodules.DigitScenes",
        "init_args": {
            "task": "detection", "image_size": 48, "train_size": 20, "val_size": 5, "test_size": 4, "batch_size": 8,
            "train_transform": [{"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 1.0}}],
        },
    },
    "trainer": {"max_epochs": 3},
}  # fmt: skip


workdir = workdir_with(small=CONFIG)


def test_show_draws_the_first_batches_of_training(workdir, monkeypatch, capsys):
    drawn = []
    original = overlays.target_panel
    monkeypatch.setattr(overlays, "target_panel", lambda *args, **more: drawn.append(args) or original(*args, **more))
    launch("data", "show", "--config", "small.yaml", "--count", "10", "--data.seed", "3", "--trainer.max_epochs", "9")
    assert capsys.readouterr().err == "striate: small_train.png: 10 samples of train\n"
    with Image.open(workdir / "small_train.png") as saved:
        assert saved.size == (5 * 264, 32 + 2 * 318)
    data = DigitScenes(**CONFIG["data"]["init_args"] | {"train_transform": None}, seed=3, num_workers=0)
    data.setup("fit")
    order = [key.index for key in data.train_dataloader().sampler]
    for (image, target, names, note, side), index in zip(drawn, order, strict=False):
        raw = data.make_source("train")[index]
        np.testing.assert_array_equal(image, raw["image"][:, ::-1])  # what the network sees is flipped
        flipped = raw["boxes"][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [48, 0, 48, 0]
        np.testing.assert_allclose(target["boxes"].numpy(), flipped, atol=1e-4)
        assert names == data.class_names and note == f"no. {index}   48 x 48" and side == 256


@pytest.mark.parametrize(
    "task", ["classification", "localization", "semantic_segmentation", "detection", "instance_segmentation"]
)
def test_show_draws_all_tasks_by_name(workdir, task):
    words = ["digit_scenes", "--task", task, "--image_size=64", "--val_size", "3", "--split", "val", "--side", "100"]
    launch("data", "show", *words, "--out", f"{task}.png")
    with Image.open(workdir / f"{task}.png") as saved:
        assert saved.size == (3 * 108, 30 + 162)


def test_another_epoch_is_another_page_and_the_same_one_is_the_same(workdir):
    pages = [page(DigitScenes(train_size=30, num_workers=0), "train", 4, epoch)[0] for epoch in (0, 1, 0)]
    np.testing.assert_array_equal(pages[0], pages[2])
    assert (pages[0] != pages[1]).any()


def test_configurations_are_merged_and_overridden_in_their_order(workdir):
    (workdir / "more.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"image_size": 80, "train_size": 7}}}))
    words = ["--config", "small.yaml", "--config=more.yaml", "--train_size", "9", "--data.init_args.seed", "5"]
    call = parse_data_command(words, {})
    data = call.build()
    assert (data.image_size, data.sizes["train"], data.sizes["val"], data.seed) == (80, 9, 5, 5)
    assert type(data.train_transform[0]).__name__ == "HorizontalFlip" and call.name == "more"
    assert parse_data_command(["--data", "striate.datamodules.DigitScenes", "--data.seed", "4"], {}).build().seed == 4
    make_folder(workdir / "photos" / "train")
    assert isinstance(parse_data_command(["ImageFolder", "--root", "photos"], {}).build(), ImageFolder)


def test_export_writes_what_show_and_fit_read(workdir, capsys):
    words = ["digit_scenes", "--format", "coco", "out/digits", "--task", "instance_segmentation", "--image_size", "48"]
    sizes = ["--train_size", "3", "--val_size", "2", "--num_workers", "0", "--splits", "train, val"]
    launch("data", "export", *words, *sizes)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "striate: out/digits: 3 train, 2 val samples of instance_segmentation as coco"
    assert last.endswith("striate data show --config out/digits/striate.yaml")
    launch("data", "show", "--config", "out/digits/striate.yaml", "--count", "2")
    assert (workdir / "striate_train.png").is_file()
    data = parse_data_command(["--config", "out/digits/striate.yaml"], {}).build()
    assert isinstance(data, CocoDetection) and len(data.make_source("train")) == 3


def test_export_says_what_is_lost(workdir, capsys):
    launch("data", "export", "--config", "small.yaml", "--format", "voc", "out", "--num_workers", "0")
    assert "striate: lost: 29 images re-encoded as JPEG (pixels differ slightly)" in capsys.readouterr().err


def test_an_interrupted_export_says_that_nothing_was_written(workdir, capsys, monkeypatch):
    from striate.experiments.data import export as data_export

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_export, "track", stop)
    answer = launch_error(capsys, 130, "data", "export", "--config", "small.yaml", "--format", "coco", "out")
    assert answer == "interrupted; nothing was written"
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    "words, code, pattern",
    [
        ("shwo", 2, "^data shwo: .*mean 'show'"),
        ("show", 2, "^no data; add --config FILE"),
        ("show digitscene", 2, "^digitscene: .*mean 'DigitScenes'"),
        ("show --config quikstart", 2, "^--config quikstart: .*mean 'quickstart'"),
        ("show --config small.yaml --spilt val", 2, "^--spilt: .*mean 'split'"),
        ("show --config small.yaml --split vall", 2, "^--split: .*'test', got 'vall'; .*mean 'val'"),
        ("show --config small.yaml --count many", 2, "^--count: must be an integer, got 'many'$"),
        ("show --config small.yaml --count 0", 2, "^--count: must be >= 1, got 0$"),
        ("show --config small.yaml --count", 2, "^--count: no value"),
        ("show --config small.yaml --out a.jpg", 2, "^--out: .*png, got 'a.jpg'$"),
        ("show --config small.yaml --out no/a.png", 2, "^--out: no folder 'no'$"),
        ("show --config small.yaml twice", 2, "^twice: unexpected"),
        ("show --config small.yaml --data.image_sise 3", 2, "^--data.image_sise: .*mean 'image_size'"),
        ("show --config small.yaml --image_size big", 2, "^--data.image_size: .*integer, got 'big'$"),
        ("show --config small.yaml --image_size 3", 1, "size: .*got 3|^--data.image_size 3: "),
        ("show --config wrong.yaml", 2, r"^data.class_path \(wrong.yaml, line 3\): .*DigitScenes'"),
        ("show --config broken.yaml", 2, "^broken.yaml, line 2: not valid YAML"),
        ("show --config list.yaml", 2, "^list.yaml: must be a mapping"),
        ("show --config other.yaml", 2, "^data: missing; add --config FILE"),
        ("show --config value.yaml", 2, r"^data.*image_size \(value.yaml, line 5\): .*got 'big'$"),
        ("export --config small.yaml out", 2, "^--format: missing; use one of coco, voc"),
        ("export --config small.yaml --format cooc out", 2, "^--format: .*mean 'coco'"),
        ("export --config small.yaml --format coco", 2, "^give a folder"),
        ("export --config small.yaml --format coco a b", 2, "^give one folder, got a, b;"),
        ("export --config small.yaml --format masks out", 1, "format.*masks.*semantic_segmentation"),
        ("export --config small.yaml --format coco small.yaml", 1, "small.yaml.*file"),
    ],
)
def test_a_wrong_call_produces_a_one_line_error(workdir, capsys, words, code, pattern):
    begin = "model: 3\ndata:\n  class_path: striate.datamodules."
    (workdir / "wrong.yaml").write_text(f"{begin}DigitScene\n")
    (workdir / "value.yaml").write_text(f"{begin}DigitScenes\n  init_args:\n    image_size: big\n")
    (workdir / "broken.yaml").write_text("data: [\n")
    (workdir / "list.yaml").write_text("- 1\n")
    (workdir / "other.yaml").write_text("trainer: {}\n")
    message = launch_error(capsys, code, "data", *words.split())
    assert re.search(pattern, message), message


def test_a_data_module_without_a_split_says_so(workdir, capsys):
    make_folder(workdir / "photos" / "train")
    make_folder(workdir / "photos" / "val")
    words = ["ImageFolder", "--root", "photos", "--split", "test"]
    with pytest.raises(SystemExit):
        launch("data", "show", *words)
    assert "no folder 'photos/test'" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["", "--help", "show --help", "export -h", "check -h"])
def test_help_prints_the_usage(capsys, words):
    launch("data", *words.split())
    assert capsys.readouterr().out.startswith("usage: striate data")
