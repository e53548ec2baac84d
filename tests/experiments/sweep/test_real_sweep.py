"""A packaged sweep with real trials, killed in the middle, within the time that a laptop takes."""

import os
import signal
import time

import pytest
import yaml

from striate.tests.helpers.launcher import read_csv
from striate.tests.helpers.processes import HANG, start_striate, wait_for
from striate.tests.helpers.sweeps import load_study, trial_rows
from striate.tests.helpers.wandb_runs import read_history

SWEEP = ("sweep", "sweeps/classification_digits", "--trials", 6, "--jobs", 2)


@pytest.mark.slow
def test_six_trials_killed_in_the_third_and_resumed_in_four_minutes(workdir):
    started, before = time.monotonic(), os.times()
    folder = workdir / "runs/classification_digits/sweep-1"
    process = start_striate(workdir, *SWEEP)
    wait_for((folder / "trial-2/fit-1/checkpoints/last.ckpt").is_file, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start_striate(workdir, *SWEEP, "--resume")
    output, _ = process.communicate(timeout=HANG)
    seconds, after = time.monotonic() - started, os.times()
    assert process.returncode == 0, output
    rows = trial_rows(folder)
    assert sorted(rows) == list(range(6)), output
    assert {row["state"] for row in rows.values()} <= {"finished", "stopped early"}, output
    assert len({row["model.optimizer.lr"] for row in rows.values()}) == 6
    assert float(next(iter(rows.values()))["val/acc"]) > 0.5
    for number in rows:
        run = next((folder / f"trial-{number}").glob("fit-*"))
        (offline,) = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}  # one id
        steps = [row["step"] for row in read_csv(run / "metrics.csv") if row["val/acc"]]
        assert len(steps) == len(set(steps)) and offline
    finished = next(number for number, row in rows.items() if row["state"] == "finished")
    (stored,) = (folder / f"trial-{finished}/fit-1/wandb").glob("offline-run-*") if finished > 2 else [None]
    if stored is not None:
        assert any("val/acc" in row for row in read_history(stored))
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["data"]["init_args"]["train_size"] == 3000 and "run" not in best
    assert len(load_study(folder / "study.journal", "classification_digits").trials) == 6
    # on two cores of its own, it takes as long as its CPU time divided by two
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    assert min(seconds, cpu / 2) < 240, (seconds, cpu)
