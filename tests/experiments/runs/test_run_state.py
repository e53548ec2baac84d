"""The state of a run: honest after every kind of end, also a kill."""

import copy
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from pytorch_lightning.utilities.exceptions import SIGTERMException

from striate.experiments.runs import run_state
from striate.experiments.runs.run_state import STATE_FILE, RunState, StateWriter, process_start
from striate.tests.helpers.run_folders import make_run

WRITE_AND_WAIT = """
import sys
from pathlib import Path
from striate.experiments.runs.run_state import StateWriter
StateWriter(Path(sys.argv[1])).describe("val/loss", "min")
print("ready", flush=True)
sys.stdin.read()
"""


def chained(error, cause):
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    "error, state, message",
    [
        (None, "finished", ""),
        (SystemExit(0), "finished", ""),
        (ValueError("lr: must be positive\nmore"), "failed", "lr: must be positive"),
        (KeyError("x"), "failed", "KeyError: 'x'"),
        (SystemExit(1), "failed", "SystemExit: 1"),
        (KeyboardInterrupt(), "interrupted", ""),
        (chained(SystemExit(1), KeyboardInterrupt()), "interrupted", ""),  # as Lightning ends after Ctrl-C
        (SIGTERMException(), "interrupted", ""),
        (SystemExit(143), "interrupted", ""),
    ],
)
def test_state_at_the_end(tmp_path, error, state, message):
    writer = StateWriter(tmp_path)
    assert RunState.load(tmp_path).state == "running"
    writer.describe("val/loss", "min")
    writer.close(error, epochs=4)
    found = RunState.load(tmp_path)
    assert (found.state, found.error, found.epochs) == (state, message, 4)
    assert (found.monitor, found.mode) == ("val/loss", "min")


def test_a_running_process_is_running_and_a_killed_one_interrupted(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE_AND_WAIT, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"ready\n"
    assert RunState.load(tmp_path).state == "running"
    os.kill(process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the table of processes
    assert RunState.load(tmp_path).state == "interrupted"
    process.communicate()
    assert RunState.load(tmp_path).state == "interrupted"


def test_another_process_with_the_same_number_is_not_the_run(tmp_path):
    StateWriter(tmp_path)
    values = json.loads((tmp_path / STATE_FILE).read_text())
    assert values["pid"] == os.getpid() and process_start(os.getpid()) == values["process_start"]
    (tmp_path / STATE_FILE).write_text(json.dumps(values | {"process_start": "1"}))
    assert RunState.load(tmp_path).state == "interrupted"


def test_without_proc_the_number_alone_decides(monkeypatch):
    monkeypatch.setattr(run_state.Path, "is_file", lambda self: False)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    assert process_start(os.getpid()) == "" and process_start(child.pid) is None


@pytest.mark.parametrize("age, state", [(run_state.EXPIRED - 60, "running"), (run_state.EXPIRED + 60, "interrupted")])
def test_on_another_machine_the_last_sign_of_life_decides(tmp_path, age, state):
    make_run(tmp_path / "fit-1", state="running", beat=time.time() - age)
    assert RunState.load(tmp_path / "fit-1").state == state


def test_signs_of_life_are_written_while_the_run_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state, "BEAT", 0.01)
    writer = StateWriter(tmp_path)
    first = json.loads((tmp_path / STATE_FILE).read_text())["beat"]
    while json.loads((tmp_path / STATE_FILE).read_text())["beat"] == first:
        time.sleep(0.01)
    writer.close(None)
    end = (tmp_path / STATE_FILE).read_text()
    writer._write(beat=0.0)  # a sign of life that was on its way
    assert (tmp_path / STATE_FILE).read_text() == end


def test_continuing_adds_the_time_of_before(tmp_path):
    now = time.time()
    make_run(tmp_path / "fit-1", state="interrupted", started=now - 5000, beat=now - 4900, earlier_seconds=20)
    StateWriter(tmp_path / "fit-1").close(None)
    assert RunState.load(tmp_path / "fit-1").seconds == pytest.approx(120, abs=10)


def test_it_can_be_copied_with_the_launcher(tmp_path):
    copy.deepcopy(StateWriter(tmp_path))
    assert json.loads((tmp_path / STATE_FILE).read_text())["state"] == "running"


def test_a_folder_that_has_vanished_stops_nothing(tmp_path):
    writer = StateWriter(tmp_path / "gone")
    writer.close(None)
    assert not (tmp_path / "gone").exists() and RunState.load(tmp_path / "gone") == RunState()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "running"}', '{"state": 3}', "null"])
def test_a_broken_file_is_unknown(tmp_path, content):
    (tmp_path / STATE_FILE).write_text(content)
    assert RunState.load(tmp_path) == RunState()
