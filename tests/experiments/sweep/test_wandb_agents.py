"""``striate sweep --wandb`` against a stand-in for W&B's server; `launcher/test_wandb.py` has agents with real runs."""

import subprocess
import sys

import pytest
import yaml

from striate.tests.helpers.launcher import launch_error
from striate.tests.helpers.processes import ENVIRONMENT, HANG
from striate.tests.helpers.wandb_server import wandb_server

PROGRAM = """
import os, pathlib, sys
pathlib.Path(os.environ["WANDB_RUN_ID"] + ".txt").write_text("\\n".join([sys.executable, *sys.argv[1:]]))
"""

SWEEP = {
    "program": "write.py",
    "method": "grid",
    "metric": {"name": "val/acc", "goal": "maximize"},
    "project": "digits",
    "parameters": {
        "model.optimizer": {"parameters": {"lr": {"values": [0.125, 0.25, 0.5]}}},
        "model.scheduler": {"value": None},
    },
}


@pytest.fixture
def sweep(workdir):
    (workdir / "write.py").write_text(PROGRAM)
    (workdir / "lr.yaml").write_text(yaml.safe_dump(SWEEP))
    return workdir


def test_an_agent_launches_every_run_with_this_python(sweep):
    call = ["sweep", "lr.yaml", "--wandb", "--jobs", "1", "--trials", "3", "--trainer.max_epochs=1"]
    with wandb_server() as server:
        done = subprocess.run(
            [sys.executable, "-m", "striate", *call],
            cwd=sweep,
            env={**ENVIRONMENT, **server.environment},
            capture_output=True,
            text=True,
            timeout=HANG,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "starting 1 agent; on other machines: wandb agent digits/" in done.stderr
    (registered,) = server.state.sweeps.values()
    assert registered.config["parameters"] == SWEEP["parameters"] and registered.config["run_cap"] == 3
    written = {path.stem: path.read_text().splitlines() for path in sweep.glob("*.txt")}
    assert set(written) == set(registered.given)
    assert sorted(words[1] for words in written.values()) == [
        f"--model.optimizer={{'lr': {rate}}}" for rate in (0.125, 0.25, 0.5)
    ]
    for words in written.values():
        assert words[2:] == ["--model.scheduler=None", "--trainer.max_epochs=1"]
        assert words[0].rpartition("/")[0] == sys.executable.rpartition("/")[0]


def test_a_server_that_refuses_the_sweep_is_one_line(sweep, capsys, monkeypatch):
    with wandb_server() as server:
        server.fail(403, only="Sweep")
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        message = launch_error(capsys, 1, "sweep", "lr.yaml", "--wandb")
    assert message.startswith("--wandb: the sweep cannot be registered (")
