"""The packaged sweep of a laptop with real but short trials, killed in the middle.

``python -m benchmarks sweep_overhead`` measures the sweep with its full trials.
"""

import signal

import pytest
import yaml

from striate.tests.helpers.launcher import read_csv
from striate.tests.helpers.processes import start_striate, wait_for, wait_for_end
from striate.tests.helpers.sweeps import load_study, trial_rows
from striate.tests.helpers.wandb_runs import read_history

SWEEP = ("sweep", "sweeps/classification_digits", "--trials", 6, "--jobs", 2)
SHORT = ("--data.train_size", 320, "--data.val_size", 100, "--data.num_workers", 0, "--trainer.max_epochs", 3)


@pytest.mark.slow
def test_six_trials_killed_in_the_third_and_resumed(workdir):
    folder = workdir / "runs/classification_digits/sweep-1"
    process = start_striate(workdir, *SWEEP, *SHORT)
    for number in range(3):
        wait_for((folder / f"trial-{number}/fit-1/checkpoints/last.ckpt").is_file, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    process = start_striate(workdir, *SWEEP, *SHORT, "--resume")
    output = wait_for_end(process)
    assert process.returncode == 0, output
    rows = trial_rows(folder)
    assert sorted(rows) == list(range(6)), output
    assert {row["state"] for row in rows.values()} <= {"finished", "stopped early"}, output
    assert len({row["model.optimizer.lr"] for row in rows.values()}) == 6
    assert all(0 <= float(row["val/acc"]) <= 1 for row in rows.values())
    for number in rows:
        run = next((folder / f"trial-{number}").glob("fit-*"))
        (offline,) = {path.name.rpartition("-")[2] for path in (run / "wandb").glob("offline-run-*")}  # one id
        steps = [row["step"] for row in read_csv(run / "metrics.csv") if row["val/acc"]]
        assert len(steps) == len(set(steps)) and offline
        parts = (run / "wandb").glob("offline-run-*")  # several of a trial that was killed
        assert any("val/acc" in row for part in parts for row in read_history(part))
    best = yaml.safe_load((folder / "best.yaml").read_text())
    assert best["data"]["init_args"]["train_size"] == 320 and "run" not in best
    assert len(load_study(folder / "study.journal", "classification_digits").trials) == 6
