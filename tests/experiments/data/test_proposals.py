"""Tests of ``striate data proposals`` and of runs with the file that it writes."""

import numpy as np
import pytest
import yaml

import striate
from striate.datamodules.proposals import read_proposals
from striate.experiments.launcher.main import main

from ...helpers.launcher import run_config

DATA = {"task": "detection", "image_size": 32, "train_size": 8, "val_size": 4, "test_size": 4, "batch_size": 4}
MODEL = {
    "class_path": "striate.models.FastRCNN",
    "init_args": {
        "num_classes": 10,
        "backbone": {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [8, 8]}},
        "resize": {"class_path": "striate.models.ResizeAndPad", "init_args": {"size_divisible": 4}},
        "pool_size": 3,
        "hidden": 16,
        "proposer": {
            "class_path": "striate.models.Proposer",
            "init_args": {"method": "sliding", "min_side": 8, "max_proposals": 20},
        },
    },
}
OPTIONS = ["--method", "sliding", "--min_side", "8", "--max_proposals", "20", "--jobs", "0"]


@pytest.fixture(name="workdir")
def workdir_with_config(workdir):
    config = run_config("Detection", MODEL, {"class": "DigitScenes", **DATA}, lr=0.001, trainer={"max_epochs": 1})
    (workdir / "run.yaml").write_text(yaml.safe_dump(config))
    return workdir


def test_the_command_writes_all_splits_and_says_what_to_do_next(workdir, capsys):
    main(["data", "proposals", "--config", "run.yaml", "--out", "p.npz", *OPTIONS])
    table = read_proposals("p.npz")
    assert [split["name"] for split in table.settings["splits"]] == ["train", "val", "test"]
    assert table.settings["method"] == {"method": "sliding", "min_side": 8, "max_proposals": 20, "seed": 0}
    assert np.diff(table.offsets).tolist() == [20] * 16
    told = capsys.readouterr().err
    assert "p.npz: 320 boxes of 8 train, 4 val, 4 test images, 20 per image" in told
    assert "add --data.proposals p.npz" in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "p.txt"], r"--out: must end in \.npz, got 'p\.txt'"),
        ([], r"--out: must end in \.npz, got None"),
        (["--out", "none/p.npz"], "--out: no folder 'none'"),
        (["--out", "p.npz", "--mode", "quick"], "--mode: must be one of 'single', 'fast', 'quality', got 'quick'"),
        (["--out", "p.npz", "--box_seed", "-1"], "--box_seed: must be >= 0, got -1"),
        (["--out", "p.npz", "--splits", "tran"], "--splits: unknown name 'tran'.*did you mean 'train'"),
        (["--out", "p.npz", "--jobs", "-1"], "--jobs: must be >= 0"),
    ],
)
def test_wrong_calls(workdir, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_info:
        main(["data", "proposals", "--config", "run.yaml", "--method", "sliding", *arguments])
    assert exit_info.value.code == 2
    import re

    assert re.search(message, " ".join(capsys.readouterr().err.split()))


def test_other_tasks_and_other_settings_are_one_line(workdir, capsys):
    with pytest.raises(SystemExit):
        main(["data", "proposals", "digit_scenes", "--task", "classification", "--out", "p.npz", *OPTIONS])
    assert "must be a data module for detection or instance segmentation, got DigitScenes" in capsys.readouterr().err
    main(["data", "proposals", "--config", "run.yaml", "--out", "p.npz", *OPTIONS])
    with pytest.raises(SystemExit):
        main(["data", "proposals", "--config", "run.yaml", "--out", "p.npz", *OPTIONS, "--min_side", "9"])
    assert "which has min_side 8 instead of 9" in capsys.readouterr().err


def test_a_run_trains_tests_and_predicts_with_the_file_and_predicts_without(workdir, capsys):
    main(["data", "proposals", "--config", "run.yaml", "--out", "p.npz", *OPTIONS])
    main(["fit", "--config", "run.yaml", "--data.proposals", "p.npz"])
    (checkpoint,) = workdir.glob("runs/**/last.ckpt")
    task = striate.load(checkpoint)
    assert task.model.offsets_measured and not (task.model.head.box_std == task.model.head.box_std[0]).all()
    image = np.zeros((32, 32, 3), np.uint8)
    (predicted,) = task.predict(image)  # its proposals are computed
    assert predicted["boxes"].shape[1] == 4
    main(["test", "--config", "run.yaml", "--data.proposals", "p.npz", "--ckpt_path", str(checkpoint)])


def test_a_run_without_the_file_is_one_line_that_names_the_command(workdir, capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--config", "run.yaml"])
    told = " ".join(capsys.readouterr().err.split())
    assert "must have proposals" in told and "striate data proposals --config" in told


def test_a_run_with_the_file_of_another_data_set_is_one_line(workdir, capsys):
    main(["data", "proposals", "--config", "run.yaml", "--out", "p.npz", *OPTIONS])
    with pytest.raises(SystemExit):
        main(["fit", "--config", "run.yaml", "--data.proposals", "p.npz", "--data.seed", "5"])
    assert "it has the proposals of another data set: DigitScenes" in " ".join(capsys.readouterr().err.split())
