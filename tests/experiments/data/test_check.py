"""``striate data check``: exit codes and output on the terminal."""

import html
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from striate.experiments.data.check import check
from striate.experiments.data.commands import run as data_command
from striate.experiments.launcher.main import main
from striate.tests.helpers import small_datasets
from striate.tests.helpers.fixtures import write_image
from striate.tests.helpers.processes import HANG, start_striate
from striate.tests.helpers.small_datasets import truncate, unique_image


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def run(*arguments):
    return check([*map(str, arguments), "--workers", "0"])


def rejected(capsys, *arguments):
    """The one-line error of a wrong call."""
    with pytest.raises(SystemExit) as exit_:
        check(list(map(str, arguments)))
    assert exit_.value.code == 2
    return capsys.readouterr().err


def test_a_clean_set_exits_with_0(tmp_path, capsys):
    small_datasets.write_coco(tmp_path / "set")
    assert run("--format", "coco", "set") == 0
    out = capsys.readouterr().out
    assert "Clean: 6 images read, no errors, no warnings." in out
    assert (tmp_path / "runs/data_check/set.html").is_file() and "runs/data_check/set.html: " in out


def test_findings_exit_with_1_and_name_their_location(tmp_path, capsys):
    small_datasets.write_folder(tmp_path / "set")
    truncate(tmp_path / "set/train/cat/1.png")
    assert run("--format", "folder", "set", "--output", tmp_path / "page.html", "--fix", "fixed") == 1
    out = capsys.readouterr().out
    assert ": 1  unreadable-image" in out and "train: train/cat/1.png: " in out
    assert "1 error in 10 images" in out and "fixed: 1 change, listed in fixes.csv" in out
    assert run("--format", "folder", "fixed") == 0
    assert run("--format", "folder", "set", "--ignore", "unreadable-image") == 0


def test_a_configuration_with_overrides(tmp_path, capsys):
    small_datasets.write_folder(tmp_path / "set")
    truncate(tmp_path / "set/train/cat/1.png")
    config = tmp_path / "mine.yaml"
    config.write_text(
        "seed_everything: 1\nmodel: {class_path: anything}\ntrainer: {max_epochs: 1}\n"
        "data:\n  class_path: striate.datamodules.ImageFolder\n  init_args:\n    root: elsewhere\n"
        "    train_transform:\n    - class_path: albumentations.HorizontalFlip\n"
    )
    assert run("--config", config, "--data.root", "set", "--fix", tmp_path / "fixed") == 1
    assert run("--config", config, "--config", tmp_path / "fixed/fixed.yaml") == 0
    assert run("--config", config, "--data.init_args.root", "set", "--splits", "val") == 0


def test_packaged_experiments_by_name(capsys):
    arguments = ["--data.train_size", "8", "--data.val_size", "4", "--data.test_size", "4"]
    assert run("--config", "quickstart", *arguments, "--ignore", "absent-class") == 0  # eight scenes lack digits
    assert "Clean: 16 images read" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((), "no data; add --config FILE"),
        (("--format", "cocoo", "."), "--format: .*coco, voc, .*got 'cocoo'; .*mean 'coco'"),
        (("--format", "coco"), "--format: no path .*--format coco PATH"),
        (("--format", "coco", "nowhere"), "no file or folder 'nowhere'"),
        (("--format", "coco", ".", "--config", "quickstart"), "--format: not allowed with --config"),
        (("--config", "quikstart"), "--config quikstart: .*mean 'quickstart'"),
        (("--config", "quickstart", "more"), "more: unexpected argument; .*--root PATH"),
        (("--config", "quickstart", "--data.image_sized", "3"), "--data.image_sized: no such key; .*'image_size'"),
        (("--config", "quickstart", "--image_size", "large"), "--data.image_size: .*integer, got 'large'"),
        (("--format", "folder", ".", "--ignore", "orphans"), "--ignore: unknown name 'orphans'; .*mean 'orphan-"),
        (
            ("--format", "folder", ".", "--splits", "train,training"),
            "--splits: .*'training'; .*mean 'train'",
        ),
        (("--format", "folder", ".", "--workers", "-1"), "--workers: .*got -1"),
        (("--format", "folder", ".", "--output", "page.pdf"), "--output: .*html, got 'page.pdf'"),
        (("--format", "folder", ".", "--fixx", "a"), "--fixx: no such key; did you mean 'fix'"),
        (("striate.datamodules.CocoDetektion",), "has no 'CocoDetektion'; did you mean '.*CocoDetection'"),
        (("torch.nn.Linear",), "torch.nn.Linear: not a data module"),
        (("--data", "striate.datamodules.YoloDetection", "--root", ".", "--task", "detecton"), "did you mean 'dete"),
    ],
)
def test_wrong_calls_exit_with_2(capsys, arguments, message):
    error = rejected(capsys, *arguments)
    assert error.startswith("striate: ") and error.count("\n") == 1
    assert re.search(message, error), error


def test_data_is_named_as_in_data_show(tmp_path, capsys):
    """One way to name data for all commands: short and full class paths, and keys with or without ``data.``."""
    small_datasets.write_folder(tmp_path / "set")
    (tmp_path / "short.yaml").write_text("data: {class_path: ImageFolder, init_args: {root: elsewhere}}\n")
    (tmp_path / "mine.py").write_text("from striate.datamodules import ImageFolder\nclass Mine(ImageFolder): pass\n")
    for name in (["--config", "short.yaml"], ["image_folder"], ["striate.datamodules.ImageFolder"], ["mine.Mine"]):
        assert run(*name, "--root", "set") == 0
        main(["data", "show", *name, "--root", "set", "--count", "2", "--out", "a.png", "--num_workers", "0"])
    assert (tmp_path / "runs/data_check/Mine.html").is_file()
    capsys.readouterr()
    assert "short.yaml" not in rejected(
        capsys, "--config", "short.yaml", "--root", "set", "--seed", "x"
    )  # the file is valid


def test_an_invalid_folder_for_the_copy_exits_with_2_before_reading(tmp_path, capsys):
    small_datasets.write_folder(tmp_path / "set")
    assert "--fix: must be new or empty" in rejected(capsys, "--format", "folder", "set", "--fix", "set")
    assert "--fix: must be outside" in rejected(capsys, "--format", "folder", "set", "--fix", "set/fixed")


def test_a_configuration_without_data(tmp_path, capsys):
    (tmp_path / "a.yaml").write_text("model: {}\n")
    assert "data: missing" in rejected(capsys, "--config", "a.yaml")
    (tmp_path / "a.yaml").write_text("data: [\n")
    assert "a.yaml, line 2: not valid YAML" in rejected(capsys, "--config", "a.yaml")
    (tmp_path / "a.yaml").write_text("data:\n  class_path: striate.datamodules.ImageFoldr\n")
    assert "did you mean 'striate.datamodules.ImageFolder'" in rejected(capsys, "--config", "a.yaml")


def test_a_wrong_root_is_named_as_given(tmp_path, capsys):
    small_datasets.write_coco(tmp_path / "set")
    (tmp_path / "a.yaml").write_text("data: {class_path: CocoDetection, init_args: {root: set}}\n")
    assert "--data.root nowhere: no file" in rejected(capsys, "--config", "a.yaml", "--root", "nowhere")
    (tmp_path / "set2").mkdir()
    assert run("--config", "a.yaml", "--root", "set2") == 1
    named = "no file 'set2/annotations/instances_train2017.json'"
    assert named in capsys.readouterr().out
    assert named in html.unescape((tmp_path / "runs/data_check/a.html").read_text())


def test_exit_codes_of_the_launcher(tmp_path, capsys):
    small_datasets.write_folder(tmp_path / "set")
    main(["data", "check", "--format", "folder", "set", "--workers", "0"])
    truncate(tmp_path / "set/train/cat/1.png")
    with pytest.raises(SystemExit) as exit_:
        main(["data", "check", "--format", "folder", "set", "--workers", "0"])
    assert exit_.value.code == 1
    with pytest.raises(SystemExit) as exit_:
        data_command(["chek"])
    assert exit_.value.code == 2 and "did you mean 'check'" in capsys.readouterr().err


@pytest.mark.parametrize("layout", ["publisher", "roboflow", "one file"])
def test_coco_files_are_guessed(tmp_path, layout):
    file = small_datasets.write_coco(tmp_path / "set")
    path = "set"
    if layout == "roboflow":
        for split in ("train", "val"):
            annotations = tmp_path / f"set/annotations/instances_{split}2017.json"
            folder = (tmp_path / f"set/{split}2017").rename(tmp_path / f"set/{'valid' if split == 'val' else split}")
            annotations.rename(folder / "_annotations.coco.json")
    elif layout == "one file":
        path = str(file)
    assert run("--format", "coco", path) == 0


@pytest.mark.parametrize("masks, code", [(True, "box taken from the mask"), (False, "dropped")])
def test_coco_masks_are_checked_if_most_objects_have_one(tmp_path, masks, code):
    def change(content):
        content["annotations"][0]["bbox"] = [5, 6, 0, 24]
        for item in content["annotations"][1 : 1 if masks else 5]:  # 8 or 4 of 8 objects have a mask
            item["segmentation"] = []

    small_datasets.edit(small_datasets.write_coco(tmp_path / "set"), change)
    assert run("--format", "coco", "set", "--fix", "fixed") == 1
    assert code in (tmp_path / "fixed/FIXES.md").read_text()
    items = json.loads((tmp_path / "fixed/annotations/instances_train2017.json").read_text())["annotations"]
    assert items[0]["bbox"] == ([5, 6, 20, 24] if masks else [30, 10, 25, 28])


def test_given_arguments_override_guesses(tmp_path, capsys):
    small_datasets.write_manifest(tmp_path / "set")
    (tmp_path / "set/lm.csv").write_text((tmp_path / "set/train.csv").read_text())
    assert run("--format", "manifest", "set/lm.csv", "--val", "set/val.csv") == 0
    assert "Clean: 6 images read" in capsys.readouterr().out
    assert run("--format", "manifest", "set/train.csv", "--data.init_args.val_fraction", "0.5") == 1
    assert re.search(r"train +2 +2 .*\n +val +2 +2 ", out := capsys.readouterr().out) and "orphan-image" in out
    assert run("--format", "coco", str(small_datasets.write_coco(tmp_path / "coco")), "--task", "detection") == 0
    files = ("--val_annotations", tmp_path / "coco/annotations/instances_val2017.json")
    images = ("--val_images", tmp_path / "coco/val2017")
    file = tmp_path / "coco/annotations/instances_train2017.json"
    capsys.readouterr()
    assert run("--format", "coco", file, *files, *images) == 0
    assert "Clean: 6 images read" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["folder", "manifest"])
def test_everything_is_read_without_a_validation_split(tmp_path, capsys, kind):
    """A class of one image could not be split."""
    if kind == "folder":
        small_datasets.write_folder(tmp_path / "set")
        shutil.rmtree(tmp_path / "set/val")
        for number in (1, 2):
            (tmp_path / f"set/train/dog/{number}.png").unlink()
        assert run("--format", "folder", "set") == 0
    else:
        file = small_datasets.write_manifest(tmp_path / "set")
        (tmp_path / "set/val.csv").unlink()
        file.write_text("path,label\nimages/train0.png,cat\nimages/train1.png,dog\n")
        assert run("--format", "manifest", "set/train.csv", "--ignore", "leaked-image") == 1
    out = capsys.readouterr().out
    assert ("4 images" if kind == "folder" else "4 warnings in 2 images") in out and "unopened-split" not in out
    assert kind == "folder" or "orphan-image" in out  # unlisted files are looked for
    assert "were not looked for" not in out


def test_other_formats_by_path(tmp_path, capsys):
    small_datasets.write_voc(tmp_path / "voc")
    small_datasets.write_masks(tmp_path / "masks")
    small_datasets.write_manifest(tmp_path / "table")
    assert run("--format", "voc", "voc") == 0
    assert run("--format", "masks", "masks") == 0
    assert "3 of 3" in capsys.readouterr().out  # classes 0, 1, 2; 255 is ignored
    assert run("--format", "manifest", "table/train.csv") == 0
    root = small_datasets.write_yolo(tmp_path / "tool")  # as Label Studio writes it: without images for validation
    (root / "data.yaml").unlink()
    for folder in ("images/val", "labels/val"):
        shutil.rmtree(root / folder)
    (root / "classes.txt").write_text("cat\ndog\n")
    assert run("--format", "yolo", "tool") == 0
    assert "Clean: 3 images read" in capsys.readouterr().out
    write_image(tmp_path / "masks/train/masks/stray.png", unique_image(1)[..., 0])
    assert run("--format", "masks", "masks") == 1


def test_ctrl_c_prints_the_findings_so_far(tmp_path):
    """One image is still being read when all others have been; then Ctrl-C reaches all processes."""
    small_datasets.write_folder(tmp_path / "set")
    truncate(tmp_path / "set/train/cat/0.png")
    (tmp_path / "slow.py").write_text(
        "import importlib, os, signal, time\nfrom pathlib import Path\n"
        "from striate.datamodules import ImageFolder\n"
        "check = importlib.import_module('striate.datamodules.doctor.check')\n"
        "class Slow(ImageFolder):\n"
        "    def make_source(self, split):\n"
        "        source = super().make_source(split)\n"
        "        return Lazy(source) if split == 'train' else source\n"
        "class Lazy:\n"
        "    def __init__(self, source): self.source = source\n"
        "    def __len__(self): return len(self.source)\n"
        "    def __getitem__(self, index):\n"
        "        while index == 5 and not Path('interrupted').exists(): time.sleep(0.05)\n"
        "        return self.source[index]\n"
        "def interrupted(*arguments, read_all=check.read_all):\n"
        "    done = 0\n"
        "    for task, summaries in read_all(*arguments):\n"
        "        yield task, summaries\n"
        "        done += len(summaries)\n"
        "        if done == 9:\n"
        "            Path('interrupted').touch()\n"
        "            os.killpg(0, signal.SIGINT)\n"
        "check.read_all = interrupted\n"
    )
    (tmp_path / "slow.yaml").write_text("data: {class_path: slow.Slow, init_args: {root: set}}\n")
    arguments = ("data", "check", "--config", "slow.yaml", "--workers", 2)
    with start_striate(tmp_path, *arguments, stderr=subprocess.PIPE) as process:
        out, error = process.communicate(timeout=HANG)
    assert process.returncode == 130, error
    assert "Interrupted after 8 images of 10; found so far: 1 error" in out and "train/cat/0.png" in out
    assert "Traceback" not in error


def test_a_narrow_terminal_truncates_no_number(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    small_datasets.write_coco(tmp_path / "set")
    assert run("--format", "coco", "set") == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.split()[:1] == ["split"])
    assert " ".join(lines[place].split()) == "split images readable classes objects per image empty width x height"
    assert lines[place + 1].split() == ["train", "4", "4", "2", "of", "2", "8", "2.00", "0", "60x40"]
    assert "…" not in "".join(lines)


def test_a_coco_file_of_another_name_is_found_by_its_content():
    small_datasets.write_coco(Path("set"))
    annotations = Path("set/annotations")
    (annotations / "instances_val2017.json").unlink()
    (annotations / "instances_train2017.json").rename(annotations / "instances_default.json")
    Path("set/images").mkdir()
    Path("set/train2017").rename("set/images/default")
    (annotations / "notes.json").write_text("{}")
    assert run("--format", "coco", "set") == 0


@pytest.mark.parametrize("command", ["check", "show", "export"])
def test_the_name_of_a_format_alone_says_how_it_is_given(command, capsys):
    with pytest.raises(SystemExit):
        data_command([command, "voc"])
    assert "voc: no such data module; for data in this format, write --format voc PATH" in capsys.readouterr().err


def test_show_takes_a_format_and_a_path():
    small_datasets.write_masks(Path("set"))
    data_command(["show", "--format", "masks", "set", "--count", "2", "--out", "set.png"])
    assert Path("set.png").is_file()
