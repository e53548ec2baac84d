"""Runs in separate processes, as users start them: Ctrl-C, resuming, DDP with W&B."""

import os
import signal

import pytest
import torch
import yaml

from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, read_csv
from striate.tests.helpers.processes import HANG, start_striate, wait_for


@pytest.fixture
def folder(tmp_path):
    make_folder(tmp_path / "data", per_class=9)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(CLASSIFICATION))
    return tmp_path


def test_ctrl_c_saves_and_prints_how_to_resume(folder):
    run = folder / "runs" / "small" / "fit-1"
    process = start_striate(folder, "fit", "--config", "small.yaml", "--trainer.max_epochs", 100000)
    wait_for((run / "checkpoints" / "last.ckpt").exists, process)  # training is running
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 130 and "Traceback" not in output
    assert "--config small.yaml --trainer.max_epochs 100000 --ckpt_path last" in output
    stopped = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    epochs = int(stopped["epoch"]) + 2
    process = start_striate(
        folder, "fit", "--config", "small.yaml", "--trainer.max_epochs", epochs, "--ckpt_path", "last"
    )
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, output
    finished = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert finished["epoch"] == epochs - 1 and finished["global_step"] > stopped["global_step"]
    steps = [int(row["step"]) for row in read_csv(run / "metrics.csv") if row["val/acc"]]
    assert steps == sorted(set(steps)) and len(steps) >= epochs - 1  # no epoch is lost or counted twice


def test_ddp_trains_in_one_run_and_one_wandb_run(folder):
    process = start_striate(
        folder, "fit", "--config", "small.yaml", "--trainer.max_epochs", 1, "--trainer.devices", 2,
        "--trainer.strategy", "ddp", "--wandb.mode", "offline",
    )  # fmt: skip
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, output
    assert [path.name for path in (folder / "runs" / "small").iterdir()] == ["fit-1"]
    run = folder / "runs" / "small" / "fit-1"
    assert len(list((run / "wandb").glob("offline-run-*"))) == 1
    assert output.count("W&B: recording offline") == 1
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    (row,) = [row for row in read_csv(run / "metrics.csv") if row["val/acc"]]
    counts = [list(map(int, line.split(",")[1:])) for line in (run / "val_confusion.csv").read_text().splitlines()[1:]]
    assert sum(map(sum, counts)) == 4  # a quarter of nine, rounded, of each class
    assert float(row["val/acc"]) == pytest.approx((counts[0][0] + counts[1][1]) / 4)

    process = start_striate(
        folder, "predict", "--config", "small.yaml", "--ckpt_path", "last", "--data.images", "data/dark",
        "--trainer.devices", 2, "--trainer.strategy", "ddp",
    )  # fmt: skip
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0, output
    rows = read_csv(folder / "runs" / "small" / "predict-1" / "predictions.csv")
    assert sorted(row["path"] for row in rows) == [f"data/dark/{n:03d}.png" for n in range(9)]


ONE_PROCESS = ["--data.num_workers", 2]
TWO_PROCESSES = ["--trainer.devices", 2, "--trainer.strategy", "ddp"]


@pytest.mark.parametrize(
    "options, send",
    [
        (ONE_PROCESS, os.killpg),  # as clusters do: to the workers too
        (TWO_PROCESSES, os.kill),  # to the first rank only
        pytest.param(TWO_PROCESSES, os.killpg, marks=pytest.mark.slow),
    ],
    ids=["one-process", "ddp-first-rank", "ddp-all"],
)
def test_sigterm_saves_and_exits_with_143(folder, options, send):
    run = folder / "runs" / "small" / "fit-1"
    process = start_striate(folder, "fit", "--config", "small.yaml", "--trainer.max_epochs", 100000, *options)
    wait_for((run / "checkpoints" / "last.ckpt").exists, process)
    send(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 143, output
    assert "Traceback" not in output and "killed by signal" not in output and "Gloo" not in output
    assert output.count("SIGTERM: finishing this step") == 1 and output.count("--ckpt_path last") == 1
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    position = f"epoch {saved['epoch']}, step {saved['global_step']}"
    assert saved["global_step"] > 0 and position in output


@pytest.mark.parametrize("command", ["validate", "predict"])
def test_sigterm_ends_other_commands_at_once(folder, command):
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    config["trainer"]["callbacks"] = [{"class_path": "wait.Wait"}]
    (folder / "waiting.yaml").write_text(yaml.safe_dump(config))
    (folder / "wait.py").write_text(WAIT)
    images = ["--data.images", "data"] if command == "predict" else []
    process = start_striate(folder, command, "--config", "waiting.yaml", "--allow_random_weights", *images)
    wait_for((folder / "running").exists, process)
    process.terminate()
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 143 and "Traceback" not in output, output


WAIT = """
import pathlib, time
import pytorch_lightning as pl
class Wait(pl.Callback):
    def on_validation_batch_start(self, *_):
        pathlib.Path("running").touch()
        time.sleep(600)
    on_predict_batch_start = on_validation_batch_start
"""
