"""Whole runs recorded on W&B: a stand-in for its server says what it received."""

import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import wandb
import yaml

import striate
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error, read_csv
from striate.tests.helpers.processes import ENVIRONMENT, HANG, start_striate, wait_for
from striate.tests.helpers.wandb_runs import read_run
from striate.tests.helpers.wandb_server import wandb_server

HERE = __name__  # of the module as pytest imported it: by another name it would be imported twice
CONFIG = {key: value for key, value in CLASSIFICATION.items() if key != "wandb"}
STEPS = 3
"""Training steps of an epoch."""


@pytest.fixture
def server(monkeypatch, workdir):
    make_folder(workdir / "data", per_class=9)
    (workdir / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    with wandb_server(sweep_count=3) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        wandb.teardown()
        yield server
        wandb.teardown()
    assert not server.state.unknown


def fit(epochs, *arguments):
    launch("fit", "--config", "small.yaml", "--trainer.max_epochs", epochs, "--trainer.enable_model_summary", "false",
           *arguments)  # fmt: skip


def steps(server):
    return [row["trainer/global_step"] for row in server.history()]


def test_a_run_and_its_continuation_are_one_run_with_everything(server, workdir):
    notes = ["--wandb.tags", "[first, small]", "--wandb.notes", "two classes"]
    fit(2, *notes)
    run = server.run()
    wanted = {"project": "striate", "groupName": "small", "displayName": "classification/small/fit-1", "jobType": "fit",
              "tags": ["first", "small"], "notes": "two classes"}  # fmt: skip
    assert {key: run["settings"][key] for key in wanted} == wanted
    config = {key: entry["value"] for key, entry in run["config"].items()}
    assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.05  # nested, as in the YAML
    assert config["data"]["init_args"]["batch_size"] == 4 and config["trainer"]["max_epochs"] == 2
    assert config["dataset"]["train"]["samples"] == 14 and config["dataset"]["class_names"] == ["bright", "dark"]
    assert len({config["dataset"][split]["fingerprint"] for split in ("train", "val")}) == 2
    assert config["network"]["parameters"] == 258 and config["network"]["flops"] > 258
    assert config["versions"]["python"] == sys.version.split()[0] and config["hardware"]["cpus"] >= 1
    axes = {entry["1"]: entry.get("5") for entry in config["_wandb"]["m"]}
    names = list(axes)
    assert axes["val/acc"] == names.index("epoch") + 1 and axes["train/loss"] == names.index("trainer/global_step") + 1

    fit(3, *notes, "--ckpt_path", "last")
    assert list(server.state.runs) == [json.loads(Path("runs/small/fit-1/wandb_run.json").read_text())["id"]]
    rows = server.history()
    assert steps(server) == list(range(3 * STEPS)) and run["rewrites"] == 0 and run["exitcode"] == 0
    assert all("train/loss" in row for row in rows)
    for epoch, row in enumerate(rows[STEPS - 1 :: STEPS]):  # the media are in the row of their validation
        assert row["epoch"] == epoch and {"val/acc", "val/pictures", "val/confusion"} <= row.keys()
    # the images once for each process, and the predictions each time
    assert rows[2]["val/pictures"]["filenames"] == rows[5]["val/pictures"]["filenames"]
    assert all("val/pictures" not in row for row in rows if row["trainer/global_step"] % STEPS != STEPS - 1)
    assert {"val/classes", "val/confusion_table", "val/samples"} <= rows[5].keys() & rows[8].keys()
    written = read_csv(workdir / "runs/small/fit-1/metrics.csv")
    for row, line in zip(rows, written, strict=True):
        assert row["train/loss"] == pytest.approx(float(line["train/loss"]), rel=1e-5)
    scores = [float(line["val/acc"]) for line in written if line["val/acc"]]
    summary = run["summary"]
    assert summary["best/val/acc"] == max(scores) and summary["val/acc"] == scores[-1]
    assert summary["best/epoch"] == scores.index(max(scores))
    assert summary["best/step"] == STEPS * (summary["best/epoch"] + 1) - 1


class FailingServer(pl.Callback):
    """Lets the server fail from the second epoch on."""

    server = None
    fault: str | int = 500

    def on_train_epoch_start(self, trainer, pl_module):
        """Begin to fail."""
        if trainer.current_epoch == 1:
            self.server.fail(self.fault)


@pytest.mark.parametrize(
    "fault", [500, 401, *(pytest.param(fault, marks=pytest.mark.slow) for fault in ("hang", "drop"))]
)
def test_a_server_that_fails_while_training_costs_no_result_and_nothing_is_lost(server, workdir, fault, caplog):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    FailingServer.server, FailingServer.fault = server, fault
    fit(2, "--wandb.timeout", 2, "--trainer.callbacks", f"{HERE}.FailingServer")
    folder = workdir / "runs" / "small" / "fit-1"
    names = {path.name for path in folder.iterdir()}
    assert {"val_classes.csv", "val_confusion.csv", "metrics.csv", "checkpoints", "pictures"} <= names
    assert len(list((folder / "pictures").glob("*.png"))) == 4  # two epochs, confusion, curves
    printed = [line.getMessage() for line in caplog.records]
    assert any("accuracy per class" in line for line in printed)  # the report
    (end,) = (line for line in printed if line.startswith("W&B: the record is not complete on the server ("))
    assert "--ckpt_path last" in end and "wandb sync --include-online --id NEW_ID runs/small/fit-1/wandb/run-" in end
    assert len(server.history()) < 2 * STEPS

    server.fail("normal")
    caplog.clear()
    epochs = 2 if fault == 401 else 3  # 2: training has ended, and only its record is completed
    fit(epochs, "--ckpt_path", "last")  # without the callback
    rows = server.history()
    assert [row["trainer/global_step"] for row in rows] == list(range(epochs * STEPS)) and server.run()["rewrites"] == 0
    assert [step for step, row in enumerate(rows) if "val/acc" in row] == [2, 5, 8][:epochs]
    assert any("which it did not have, are sent again" in line.getMessage() for line in caplog.records)


def test_an_unreachable_server_does_not_stop_training(server, workdir, caplog):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    server.fail(403)
    fit(1)
    about = [line.getMessage() for line in caplog.records if line.getMessage().startswith("W&B")]
    assert len(about) == 1 and about[0].startswith("W&B: recording offline, because the server cannot be used (")
    (offline,) = workdir.glob("runs/small/fit-1/wandb/offline-run-*")
    assert [row["trainer/global_step"] for row in read_run(offline)["history"]] == list(range(STEPS))


def logger_of_lightning(**arguments):
    """Write ``small.yaml`` with Lightning's own logger for W&B."""
    logger = {"class_path": "pytorch_lightning.loggers.WandbLogger", "init_args": arguments}
    config = {**CONFIG, "trainer": {**CONFIG["trainer"], "logger": logger}}
    Path("small.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize("moment", ["never", "start", "middle"])
def test_a_wandb_logger_of_a_configuration_is_guarded(server, workdir, caplog, moment):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    logger_of_lightning(project="own", name="mine")
    FailingServer.server, FailingServer.fault = server, 500
    if moment == "start":
        server.fail(500)
    timeout = () if moment == "never" else ("--wandb.timeout", 2)
    callback = ("--trainer.callbacks", f"{HERE}.FailingServer") if moment == "middle" else ()
    fit(2, "--wandb.tags", "[a]", *timeout, *callback)
    about = [line.getMessage() for line in caplog.records if line.getMessage().startswith("W&B")]
    folder = workdir / "runs/small/fit-1"
    assert any("accuracy per class" in line.getMessage() for line in caplog.records)
    assert len(read_csv(folder / "metrics.csv")) == 2 * STEPS and not (workdir / "wandb").exists()
    if moment == "start":
        assert len(about) == 1 and "recording offline, because the server cannot be used (" in about[0]
        assert len(read_run(*folder.glob("wandb/offline-run-*"))["history"]) == 2 * STEPS
        return
    settings = server.run()["settings"]
    wanted = {"project": "own", "displayName": "mine", "groupName": "small", "tags": ["a"]}
    assert {name: settings[name] for name in wanted} == wanted
    if moment == "middle":
        assert (
            about[-1].startswith("W&B: the record is not complete on the server (") and "--ckpt_path last" in about[-1]
        )
    else:
        assert about == [] and steps(server) == list(range(2 * STEPS))


def test_a_wandb_logger_that_striate_cannot_replace_stops_no_run(server, workdir, caplog, monkeypatch):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "1")
    logger_of_lightning(project="own", prefix="mine")
    server.fail(500)
    fit(1)
    (line,) = (line.getMessage() for line in caplog.records if line.getMessage().startswith("WandbLogger"))
    assert line.startswith("WandbLogger: recording failed (") and line.endswith("runs/small/fit-1 has all of it")
    assert len(read_csv(workdir / "runs/small/fit-1/metrics.csv")) == STEPS


def test_an_offline_run_holds_everything_and_is_synced_with_its_continuation(server, workdir):
    fit(1, "--wandb.mode", "offline")
    fit(2, "--wandb.mode", "offline", "--ckpt_path", "last")
    first, second = sorted(workdir.glob("runs/small/fit-1/wandb/offline-run-*"))
    record = read_run(first)
    assert [row["trainer/global_step"] for row in record["history"]] == [0, 1, 2]
    assert [row["trainer/global_step"] for row in read_run(second)["history"]] == [3, 4, 5]
    assert record["config"]["model"]["class_path"] == "striate.tasks.Classification"
    assert record["summary"]["best/epoch"] == 0 and "best/val/acc" in record["summary"]
    pictures = record["history"][2]["val/pictures"]
    assert pictures["count"] == 4 and all((first / "files" / name).is_file() for name in pictures["filenames"])
    assert not server.state.runs
    environment = {**ENVIRONMENT, **server.environment}
    environment = {name: value for name, value in environment.items() if name not in ("WANDB_MODE", "WANDB_SILENT")}
    command = [sys.executable, "-m", "wandb", "sync", str(first), str(second)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert steps(server) == list(range(2 * STEPS)) and server.run()["rewrites"] == 0
    assert server.run()["settings"]["displayName"] == "classification/small/fit-1"
    assert {name for name in server.run()["files"] if name.startswith("media/images/val/pictures")}


BEST = {
    "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
    "init_args": {"monitor": "val/loss", "filename": "best", "enable_version_counter": False},
}


def test_checkpoints_are_artifacts_and_are_fetched_by_every_command(server, workdir, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(workdir / "torch"))
    (workdir / "best.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks": [BEST]}}))  # the loss falls each epoch
    launch("fit", "--config", "small.yaml", "--config", "best.yaml", "--trainer.max_epochs", 2, "--wandb.checkpoints",
           "best")  # fmt: skip
    first, second = (one for one in server.state.artifacts.values() if one["type"] == "model")
    assert first["deleted"] and not second["deleted"] and sorted(second["aliases"]) == ["best", "epoch-1", "latest"]
    facts = second["metadata"]
    assert (facts["epoch"], facts["global_step"], facts["monitor"]) == (1, 2 * STEPS, "val/loss")
    assert facts["value"] == pytest.approx(min(row["val/loss"] for row in server.history() if "val/loss" in row))
    assert facts["class_names"] == ["bright", "dark"] and facts["config"]["data"]["init_args"]["batch_size"] == 4
    name = f"wandb:standin/striate/{second['collection'][0]}"
    best = workdir / "runs" / "small" / "fit-1" / "checkpoints" / "best.ckpt"
    weights = torch.load(best, weights_only=True)["state_dict"]
    loaded = striate.load(f"{name}:best").state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    launch("validate", "--config", "small.yaml", "--ckpt_path", f"{name}:epoch-1", "--wandb.mode", "off")
    (row,) = read_csv(workdir / "runs" / "small" / "validate-1" / "metrics.csv")
    assert float(row["val/loss"]) == pytest.approx(facts["value"], rel=1e-4)
    message = launch_error(capsys, 1, "test", "--config", "small.yaml", "--ckpt_path", f"{name}:worst")
    assert message.startswith("--ckpt_path: W&B does not provide it (") and f"got '{name}:worst'" in message


SWEEP = """
program: striate
method: grid
metric: {name: val/acc, goal: maximize}
parameters:
  model.optimizer.lr: {values: [0.01, 0.02, 0.05]}
command: ["${env}", python, -m, striate, fit, --config, small.yaml, --trainer.max_epochs, "1", "${args}"]
"""


@pytest.mark.slow
def test_two_processes_are_one_run(server, workdir):
    process = start_striate(
        workdir, "fit", "--config", "small.yaml", "--trainer.max_epochs", 2, "--trainer.devices", 2,
        "--trainer.strategy", "ddp", env={**ENVIRONMENT, **server.environment},
    )  # fmt: skip
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0 and "Traceback" not in output, output
    run = server.run()
    assert steps(server) == [0, 1] and run["rewrites"] == 0 and run["exitcode"] == 0  # one step an epoch
    assert {"val/pictures", "val/acc"} <= server.history()[0].keys() & server.history()[1].keys()
    assert run["config"]["dataset"]["value"]["name"] == "ImageFolder"


@pytest.mark.slow
def test_rows_that_a_killed_run_did_not_send_are_sent_when_it_is_resumed(server, workdir):
    environment = {**ENVIRONMENT, **server.environment}
    server.fail("hang", only="file_stream")
    arguments = ("fit", "--config", "small.yaml", "--trainer.max_epochs", 50)
    process = start_striate(workdir, *arguments, env=environment)
    metrics = workdir / "runs" / "small" / "fit-1" / "metrics.csv"
    last = metrics.parent / "checkpoints" / "last.ckpt"
    wait_for(lambda: last.exists() and metrics.exists() and len(read_csv(metrics)) > 20, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert server.history() == []
    server.fail("normal")
    epochs = torch.load(last, weights_only=True)["epoch"] + 2
    process = start_striate(workdir, *arguments[:-1], epochs, "--ckpt_path", "last", env=environment)
    output, _ = process.communicate(timeout=HANG)
    assert process.returncode == 0 and "which it did not have, are sent again" in output, output
    assert list(dict.fromkeys(steps(server))) == list(range(epochs * STEPS)) == steps(server)
    assert [step for step, row in enumerate(server.history()) if "val/acc" in row] == list(
        range(STEPS - 1, epochs * STEPS, STEPS)
    )


@pytest.mark.slow
def test_an_agent_launches_the_configurations_of_a_sweep(server, workdir):
    (workdir / "sweep.yaml").write_text(SWEEP)
    environment = {**ENVIRONMENT, **server.environment, "WANDB_PROJECT": "swept", "PATH": os.environ["PATH"]}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    wandb_command = [sys.executable, "-m", "wandb"]
    done = subprocess.run([*wandb_command, "sweep", "sweep.yaml"], env=environment, capture_output=True, text=True,
                          timeout=HANG)  # fmt: skip
    assert done.returncode == 0, done.stderr
    (name,) = server.state.sweeps
    done = subprocess.run([*wandb_command, "agent", f"standin/swept/{name}"], env=environment, capture_output=True,
                          text=True, timeout=HANG)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    given = server.state.sweeps[name].given
    runs = server.state.runs
    assert len(given) == 3 and {name for name, run in runs.items() if run["history"]} == given.keys()
    for number, point in given.items():
        config = {key: entry["value"] for key, entry in runs[number]["config"].items()}
        rate = point["model.optimizer.lr"]
        assert config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == rate
        assert runs[number]["settings"]["sweep"] == name and runs[number]["settings"]["project"] == "swept"
        assert runs[number]["summary"]["best/val/acc"] >= 0
    folders = [json.loads(file.read_text()) for file in workdir.glob("runs/small/fit-*/wandb_run.json")]
    assert {one["id"] for one in folders} == given.keys() and {one["sweep"] for one in folders} == {name}
