"""``striate data``: from a command line to a page of samples or a data set on disk, and its errors in one line."""

import subprocess
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from striate.callbacks.drawing import overlays
from striate.datamodules import CocoDetection, DigitScenes, ImageFolder
from striate.experiments.data.section import split_arguments, understand
from striate.experiments.data.show import page
from striate.experiments.launcher.main import main
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import launch, launch_error

CONFIG = {
    "model": {"class_path": "no.such.Model", "init_args": {"wrong": 1}},  # what is no data is not looked at
    "data": {
        "class_path": "striate.datamodules.DigitScenes",
        "init_args": {
            "task": "detection", "image_size": 48, "train_size": 20, "val_size": 5, "test_size": 4, "batch_size": 8,
            "train_transform": [{"class_path": "albumentations.HorizontalFlip", "init_args": {"p": 1.0}}],
        },
    },
    "trainer": {"max_epochs": 3},
}  # fmt: skip


@pytest.fixture
def workdir(workdir):
    (workdir / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    return workdir


def test_show_draws_the_first_batches_of_training(workdir, monkeypatch, capsys):
    drawn = []
    kept = overlays.target_panel
    monkeypatch.setattr(overlays, "target_panel", lambda *a: drawn.append(a) or kept(*a))
    launch("data", "show", "--config", "small.yaml", "--count", "10", "--data.seed", "3", "--trainer.max_epochs", "9")
    assert capsys.readouterr().err == "striate: 10 samples of train drawn in small_train.png\n"
    with Image.open(workdir / "small_train.png") as saved:
        assert saved.size == (5 * 264, 30 + 2 * 318)
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
    call = understand(words, {})
    data = call.build()
    assert (data.image_size, data.sizes["train"], data.sizes["val"], data.seed) == (80, 9, 5, 5)
    assert type(data.train_transform[0]).__name__ == "HorizontalFlip" and call.name == "more"
    assert understand(["--data", "striate.datamodules.DigitScenes", "--data.seed", "4"], {}).build().seed == 4
    make_folder(workdir / "photos" / "train")
    assert isinstance(understand(["ImageFolder", "--root", "photos"], {}).build(), ImageFolder)


def test_arguments_are_split():
    words = ["a", "--b", "-1", "--c.d=e=f", "--g+", "h", "i", "-c", "j"]
    assert split_arguments(words) == (["a", "i"], [("b", "-1"), ("c.d", "e=f"), ("g+", "h"), ("c", "j")])


def test_export_writes_what_show_and_fit_read(workdir, capsys):
    words = ["digit_scenes", "--format", "coco", "out/digits", "--task", "instance_segmentation", "--image_size", "48"]
    main(
        [
            "data",
            "export",
            *words,
            "--train_size",
            "3",
            "--val_size",
            "2",
            "--num_workers",
            "0",
            "--splits",
            "train, val",
        ]
    )
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "striate: out/digits: 3 train, 2 val samples of instance_segmentation as coco"
    assert said[-1] == "striate: look at it: striate data show --config out/digits/striate.yaml"
    launch("data", "show", "--config", "out/digits/striate.yaml", "--count", "2")
    assert (workdir / "striate_train.png").is_file()
    data = understand(["--config", "out/digits/striate.yaml"], {}).build()
    assert isinstance(data, CocoDetection) and len(data.make_source("train")) == 3


def test_export_says_what_is_lost(workdir, capsys):
    launch("data", "export", "--config", "small.yaml", "--format", "voc", "out", "--num_workers", "0")
    assert "striate: lost: 29 images written as JPEG, whose pixels differ a little" in capsys.readouterr().err


def test_an_interrupted_export_says_that_nothing_was_written(workdir, capsys, monkeypatch):
    from striate.experiments.data import export as data_export

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(data_export, "_bar", stop)
    answer = launch_error(capsys, 130, "data", "export", "--config", "small.yaml", "--format", "coco", "out")
    assert answer == "interrupted; nothing was written"
    assert [path.name for path in workdir.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize(
    "words, code, message",
    [
        ("shwo", 2, "unknown command 'data shwo': there are show, export, check; did you mean 'show'?"),
        ("show", 2, "no data: give --config FILE, or the name of a data module, such as digit_scenes"),
        ("show digitscene", 2, "no data module 'digitscene'; did you mean 'DigitScenes'?"),
        ("show --config quikstart", 2, "--config quikstart: no such file, and no packaged experiment of that name; did "
         "you mean 'quickstart'?"),
        ("show --config small.yaml --spilt val", 2, "--spilt: no such key; did you mean 'split'?"),
        ("show --config small.yaml --split vall", 2, "--split: 'vall' is not one of 'train', 'val', 'test'; did you "
         "mean 'val'?"),
        ("show --config small.yaml --count many", 2, "--count: 'many' is not a whole number"),
        ("show --config small.yaml --count 0", 2, "--count: 0; give 1 or more"),
        ("show --config small.yaml --count", 2, "--count: no value given"),
        ("show --config small.yaml --out a.jpg", 2, "--out: 'a.jpg' is not a .png"),
        ("show --config small.yaml --out no/a.png", 2, "--out: no folder 'no'"),
        ("show --config small.yaml twice", 2, "'twice': not known what that is for; keys are given as --KEY VALUE"),
        ("show --config small.yaml --data.image_sise 3", 2, "--data.image_sise: no such key; did you mean "
         "'image_size'?"),
        ("show --config small.yaml --image_size big", 2, "--data.image_size: 'big' is not a whole number"),
        ("show --config small.yaml --image_size 3", 1, None),
        ("show --config wrong.yaml", 2, "wrong.yaml:3: data.class_path: 'striate.datamodules' has no 'DigitScene'; did "
         "you mean 'striate.datamodules.DigitScenes'?"),
        ("show --config broken.yaml", 2, "broken.yaml:2: not valid YAML: expected the node content, but found "
         "'<stream end>'"),
        ("show --config list.yaml", 2, "list.yaml: a configuration is a mapping with the keys model, data and trainer"),
        ("show --config other.yaml", 2, "no 'data' given: add --config FILE (`striate experiments` lists the packaged "
         "ones)"),
        ("show --config value.yaml", 2, "value.yaml:5: data.init_args.image_size: 'big' is not a whole number"),
        ("export --config small.yaml out", 2, "--format: give one of coco, voc, yolo, masks, folder"),
        ("export --config small.yaml --format cooc out", 2, None),
        ("export --config small.yaml --format coco", 2, "no folder to write to; `striate data export --help` "
         "shows how"),
        ("export --config small.yaml --format coco a b", 2, "more than one folder: a, b; `striate data export --help` "
         "shows how"),
        ("export --config small.yaml --format masks out", 1, "format: masks holds semantic_segmentation, and these are "
         "samples of detection; give --format coco or voc or yolo"),
        ("export --config small.yaml --format coco small.yaml", 1, "'small.yaml' is a file, and an export overwrites "
         "nothing: name another folder"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_answered_in_one_line(workdir, capsys, words, code, message):
    begin = "model: 3\ndata:\n  class_path: striate.datamodules."
    (workdir / "wrong.yaml").write_text(f"{begin}DigitScene\n")
    (workdir / "value.yaml").write_text(f"{begin}DigitScenes\n  init_args:\n    image_size: big\n")
    (workdir / "broken.yaml").write_text("data: [\n")
    (workdir / "list.yaml").write_text("- 1\n")
    (workdir / "other.yaml").write_text("trainer: {}\n")
    answer = launch_error(capsys, code, "data", *words.split())
    assert answer == message if message else "size=3" in answer or "did you mean 'coco'?" in answer


def test_a_data_module_without_a_split_says_so(workdir, capsys):
    make_folder(workdir / "photos" / "train")
    make_folder(workdir / "photos" / "val")
    words = ["ImageFolder", "--root", "photos", "--split", "test"]
    with pytest.raises(SystemExit):
        launch("data", "show", *words)
    assert capsys.readouterr().err.startswith("striate: no folder 'photos/test'. ImageFolder expects")


def test_help_answers_without_torch():
    for words in (
        ["data"],
        ["data", "--help"],
        ["data", "show", "--help"],
        ["data", "export", "-h"],
        ["data", "check", "-h"],
    ):
        code = "import sys; from striate.experiments.launcher.main import main; "
        code += f"main({words!r}); print(' '.join(sys.modules))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        *usage, loaded = done.stdout.strip().splitlines()
        assert usage[0].startswith("usage: striate data") and not {"torch", "numpy", "jsonargparse"} & set(
            loaded.split()
        )
