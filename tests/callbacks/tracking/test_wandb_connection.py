"""The start and the end of a W&B run, where the server fails; against a stand-in on the loopback interface."""

import json
import logging
import struct
import time

import pytest
import wandb

from striate.callbacks.tracking.wandb_connection import connect
from striate.callbacks.tracking.wandb_guard import Guard, wait_for
from striate.callbacks.tracking.wandb_records import last_recorded_step
from striate.callbacks.tracking.wandb_run import WandbRun
from striate.tests.helpers.wandb_runs import read_run
from striate.tests.helpers.wandb_server import wandb_server

OPTIONS = {"project": "digits", "name": "classification/small/fit-1", "group": "small", "job_type": "fit"}
FAULTS = ["away", 500, "hang", "drop", 401, 403]


@pytest.fixture
def server(monkeypatch, tmp_path):
    with wandb_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_PROJECT", "WANDB_ENTITY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.chdir(tmp_path)
        yield server
        wandb.teardown()


@pytest.fixture
def lines(caplog):
    """A function that returns the lines about W&B that were printed since its last call."""
    caplog.set_level(logging.INFO, "pytorch_lightning")

    def lines():
        printed = [record.getMessage() for record in caplog.records if record.getMessage().startswith("W&B")]
        caplog.clear()
        return printed

    return lines


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_at_the_start_leaves_an_offline_record(server, tmp_path, monkeypatch, lines, fault):
    if fault == "away":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    else:
        server.fail(fault)
    logger = connect(tmp_path, OPTIONS, offline=False, timeout=1)
    assert logger.offline
    (line,) = lines()
    assert "recording offline, because the server cannot be used (" in line
    assert line.endswith(f"To upload: wandb sync {tmp_path}/wandb/offline-run-*")
    logger.log_metrics({"val/acc": 0.5}, 9)
    logger.log_metrics({"val/acc": 0.75}, 19)
    logger.finish(0)
    assert lines() == []
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    record = read_run(folder)
    assert [(row["trainer/global_step"], row["val/acc"]) for row in record["history"]] == [(9, 0.5), (19, 0.75)]
    known = json.loads((tmp_path / "wandb_run.json").read_text())
    assert known == {"id": folder.name[-8:], "entity": "", "project": "digits", "sweep": ""}
    assert last_recorded_step(tmp_path, known["id"]) == 19


def test_a_damaged_record_on_disk_counts_up_to_the_damage(server, tmp_path):
    logger = connect(tmp_path, OPTIONS, offline=True, timeout=10)
    logger.log_metrics({"val/acc": 0.5}, 9)
    logger.finish(0)
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    with path.open("ab") as file:
        file.write(struct.pack("<IHB", 0, 4, 1) + bytes([255] * 4))
    again = connect(tmp_path, OPTIONS, offline=True, timeout=10)
    assert again.last_step == 9
    again.finish(0)


@pytest.mark.parametrize("fault", [500, "hang", 403])
def test_a_server_that_fails_later_costs_a_line_each_and_no_more_than_the_timeout(server, tmp_path, lines, fault):
    logger = connect(tmp_path, OPTIONS, offline=False, timeout=2)
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.log_metrics({"train/loss": 0.5}, 1)
    server.fail(fault)
    start = time.monotonic()
    for step in (2, 3):
        logger.log_metrics({"train/loss": 0.25, "epoch": 1}, step)
        logger.log_table("val/classes", columns=["class"], data=[["cat"]], step=step)
    logger.finish(0)
    assert time.monotonic() - start < 2 * 2 + 15  # seconds: one table, the end, and a slow machine
    table, end = lines()
    assert "recording val/classes failed (" in table and "the run continues, and its record is in wandb/run-" in table
    assert "the record is not complete on the server (" in end and "--ckpt_path last" in end
    (file,) = tmp_path.glob("wandb/run-*")
    rows = read_run(file)["history"]
    assert [row["trainer/global_step"] for row in rows] == [0, 1, 2, 3]
    assert [row["train/loss"] for row in rows] == [1, 0.5, 0.25, 0.25]


def test_a_run_of_a_sweep_stays_in_it_when_it_is_resumed(server, tmp_path, monkeypatch):
    agent = {"WANDB_SWEEP_ID": "sweep001", "WANDB_RUN_ID": "given123", "WANDB_PROJECT": "swept", "WANDB_ENTITY": "team"}
    with monkeypatch.context() as patch:
        for name, value in agent.items():
            patch.setenv(name, value)
        logger = connect(tmp_path, OPTIONS, offline=False, timeout=20)
        logger.log_metrics({"val/acc": 0.5}, 0)
        logger.finish(0)
    known = WandbRun.load(tmp_path)
    assert (known.id, known.project, known.sweep) == ("given123", "swept", "sweep001")
    logger = connect(tmp_path, OPTIONS, offline=False, timeout=20)
    assert logger.last_step == 0
    logger.restored = {"val/acc"}
    logger.log_metrics({"val/acc": 0.5}, 0)  # it has this row
    logger.log_metrics({"val/acc": 0.75}, 1)
    logger.finish(0)
    assert list(server.state.runs) == ["given123"]
    assert server.run()["settings"]["project"] == "swept" and server.run()["settings"]["sweep"] == "sweep001"
    rows = server.history()
    assert [row["trainer/global_step"] for row in rows] == [0, 1]
    with monkeypatch.context() as patch:  # an agent's new run does not continue the old one
        for name, value in {**agent, "WANDB_RUN_ID": "given456"}.items():
            patch.setenv(name, value)
        connect(tmp_path, OPTIONS, offline=False, timeout=20).finish(0)
    assert list(server.state.runs) == ["given123", "given456"]


def test_what_a_step_already_has_is_not_recorded_again(tmp_path, lines):
    """A run that was stopped within the validation of its last step is resumed, here from the step before."""
    logger = connect(tmp_path, OPTIONS, offline=True, timeout=20)
    for step in (0, 1):
        logger.log_metrics({"train/loss": 1.0 - step, "epoch": 0}, step)
    logger.finish(0)
    logger = connect(tmp_path, OPTIONS, offline=True, timeout=20)
    assert logger.last_step == 1
    logger.log_metrics({"train/loss": 0.0, "epoch": 0}, 1)
    logger.log_metrics({"val/acc": 0.5, "epoch": 0}, 1)
    logger.log_metrics({"train/loss": -1.0, "epoch": 1}, 2)
    logger.finish(0)
    names = ("trainer/global_step", "train/loss", "val/acc", "epoch")
    first, second = ([tuple(map(row.get, names)) for row in read_run(folder)["history"]]
                     for folder in sorted(tmp_path.glob("wandb/offline-run-*")))  # fmt: skip
    assert first == [(0, 1.0, None, 0), (1, 0.0, None, 0)]
    assert second == [(1, None, 0.5, 0), (2, -1.0, None, 1)]


def test_the_run_of_an_older_folder_is_known(tmp_path):
    assert WandbRun.load(tmp_path) is None
    (tmp_path / "wandb_id.txt").write_text("abcd1234")
    assert WandbRun.load(tmp_path) == WandbRun("abcd1234")
    run = WandbRun("efgh5678", "team", "digits", "sweep001")
    run.save(tmp_path)
    assert WandbRun.load(tmp_path) == run


def test_a_guard_reports_each_kind_once_and_gives_up_waiting(lines):
    guard = Guard(0.01, "training goes on")
    calls = []

    def fail():
        calls.append(1)
        raise RuntimeError("no answer.\nsecond line")

    assert guard.call("recording", fail) is guard.call("recording", fail) is None
    assert len(calls) == 2 and lines() == ["W&B: recording failed (no answer); training goes on"]
    assert guard.call("pictures", lambda: time.sleep(1), waits=True) is None and guard.hangs
    assert "pictures failed (not done after 0.01 s;" in lines()[0]
    assert guard.call("tables", fail, waits=True) is None and len(calls) == 2  # nothing that may wait is called
    assert guard.call("numbers", lambda: 3) == 3
    with pytest.raises(KeyboardInterrupt):  # the user's wish to stop is no failure of W&B
        guard.call("numbers", interrupt)
    assert wait_for(lambda: 4, 10) == 4


def interrupt():
    raise KeyboardInterrupt
