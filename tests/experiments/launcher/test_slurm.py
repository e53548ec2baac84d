"""Jobs of SLURM, which variables of the environment and a program in place of ``scontrol`` stand for."""

import contextlib
import json
import os
import shutil
import signal
import socket

import pytest
import torch
import yaml

from striate.experiments.launcher import ranks
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, read_csv
from striate.tests.helpers.processes import ENVIRONMENT, HANG, start_striate

JOB = {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "train"}

SCONTROL = """#!/bin/sh
echo "$@" >> requeued.txt
"""


@pytest.fixture
def job(workdir, monkeypatch):
    """Start a job with this number; returns its exit code."""
    make_folder(workdir / "data", per_class=8)
    (workdir / "bin").mkdir()
    (workdir / "bin" / "scontrol").write_text(SCONTROL)
    (workdir / "bin" / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(workdir / "bin"), prepend=":")

    def run(number, *arguments, restarts=0, callbacks=(), array=None):
        write_job(workdir, callbacks=list(callbacks))
        job = {**JOB, "SLURM_JOB_ID": str(number), "SLURM_RESTART_COUNT": str(restarts)}
        job |= {"SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": array} if array else {}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in job.items():
                patch.setenv(name, value)
            try:
                launch("fit", "--config", "job.yaml", *arguments)
            except SystemExit as exit_:
                return exit_.code
        return 0

    return run


def write_job(workdir, **trainer):
    config = {**CLASSIFICATION, "wandb": {"mode": "offline"}}
    config["trainer"] = {**CLASSIFICATION["trainer"], **trainer}
    (workdir / "job.yaml").write_text(yaml.safe_dump(config))


def stop_at(hook, time):
    arguments = {"hook": hook, "time": time, "number": int(signal.SIGUSR1)}
    return [{"class_path": "striate.tests.helpers.training.SendSignal", "init_args": arguments}]


def weights(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def test_a_requeued_job_continues_its_run(workdir, job, caplog, capfd):
    runs = workdir / "runs" / "job"
    assert job(77, callbacks=stop_at("on_validation_batch_start", 2)) == 143  # in the second validation
    assert (workdir / "requeued.txt").read_text() == "requeue 77\n"
    wandb_run = json.loads((runs / "fit-1" / "wandb_run.json").read_text())
    assert job(77, restarts=1) == 0
    assert "in a validation, which will be repeated" in caplog.text
    assert "striate: job 77 was requeued: continuing runs/job/fit-1\n" in capfd.readouterr().err
    assert [path.name for path in runs.iterdir()] == ["fit-1"]
    assert json.loads((runs / "fit-1" / "wandb_run.json").read_text()) == wandb_run

    assert job(78, "--run.name", "whole") == 0
    whole = workdir / "runs" / "whole" / "fit-1"
    assert (runs / "fit-1" / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    torch.testing.assert_close(weights(runs / "fit-1"), weights(whole), rtol=0, atol=0)


def free_job():
    """A number of a job whose two ports, which follow from it, are free."""
    for number in range(1000, 9999):
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in (15000 + number, 15000 + number + ranks.PORT_DISTANCE):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return number
    raise AssertionError


@pytest.fixture
def two_nodes(workdir, job):
    """Start a job of two nodes with one task each on the loopback interface; returns exit codes and outputs."""

    def run(number, *arguments, restarts=0, callbacks=()):
        write_job(workdir, callbacks=list(callbacks), devices=1, num_nodes=2, strategy="ddp")
        processes = []
        for node in ("0", "1"):
            (workdir / f"tmp-{node}").mkdir(exist_ok=True)  # what is not on the shared file system
            environment = {
                **ENVIRONMENT, **JOB, "PATH": os.environ["PATH"], "TMPDIR": str(workdir / f"tmp-{node}"),
                "SLURM_JOB_ID": str(number), "SLURM_RESTART_COUNT": str(restarts), "SLURM_NODELIST": "127.0.0.1",
                "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_PROCID": node,
                "SLURM_NODEID": node,
            }  # fmt: skip
            processes.append(start_striate(workdir, "fit", "--config", "job.yaml", *arguments, env=environment))
        outputs = [process.communicate(timeout=HANG)[0] for process in processes]
        return [process.returncode for process in processes], outputs

    return run


@pytest.mark.slow
def test_two_nodes_are_one_run_also_when_they_are_requeued(workdir, two_nodes):
    runs, number = workdir / "runs" / "job", free_job()
    codes, outputs = two_nodes(number, callbacks=stop_at("on_validation_batch_start", 2))
    assert codes == [143, 143], outputs
    assert (workdir / "requeued.txt").read_text() == f"requeue {number}\n"
    assert [path.name for path in runs.iterdir()] == ["fit-1"]
    wandb_run = json.loads((runs / "fit-1" / "wandb_run.json").read_text())
    codes, outputs = two_nodes(number, restarts=1)
    assert codes == [0, 0], outputs
    assert "was requeued: continuing runs/job/fit-1" in outputs[0] and "requeued" not in outputs[1]
    assert [path.name for path in runs.iterdir()] == ["fit-1"]
    assert json.loads((runs / "fit-1" / "wandb_run.json").read_text()) == wandb_run
    recorded = {path.name[-8:] for path in (runs / "fit-1").glob("wandb/offline-run-*")}
    assert recorded == {wandb_run["id"]} and len(list((runs / "fit-1").glob("wandb/offline-run-*"))) == 2

    codes, outputs = two_nodes(free_job(), "--run.name", "whole")
    assert codes == [0, 0], outputs
    whole = workdir / "runs" / "whole" / "fit-1"
    assert (runs / "fit-1" / "metrics.csv").read_text() == (whole / "metrics.csv").read_text()
    torch.testing.assert_close(weights(runs / "fit-1"), weights(whole), rtol=0, atol=0)
    # 12 training images, 4 in each process: one whole step in each of three epochs
    assert torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 3


def test_another_job_starts_anew(workdir, job):
    """Also where a checkpoint of Lightning's own requeueing lies in the folder that it looks into."""
    options = ["--trainer.default_root_dir", "elsewhere", "--wandb.mode", "off", "--trainer.max_epochs", 1]
    assert job(77, *options) == 0
    (workdir / "elsewhere").mkdir(exist_ok=True)
    shutil.copy(workdir / "runs/job/fit-1/checkpoints/last.ckpt", workdir / "elsewhere" / "hpc_ckpt_1.ckpt")
    assert job(78, *options) == 0  # another number
    assert job(77, *options, "--model.optimizer.lr", 0.01, restarts=1) == 0  # another command of the script
    for number in (1, 2, 3):
        rows = read_csv(workdir / "runs" / "job" / f"fit-{number}" / "metrics.csv")
        assert rows[0]["step"] == "0" and rows[-1]["epoch"] == "0"
    assert job(77, *options, restarts=2) == 0  # finished: nothing is left to do
    assert len(list((workdir / "runs" / "job").iterdir())) == 3


def test_a_task_of_an_array_before_its_first_checkpoint(workdir, job):
    options = ["--wandb.mode", "off", "--trainer.max_epochs", "1"]
    run = workdir / "runs" / "job" / "fit-1"  # what is left when the node fails
    run.mkdir(parents=True)
    (run / "slurm_job.json").write_text(
        json.dumps({"job": "70_3", "command": ["fit", "--config", "job.yaml", *options]})
    )
    assert job(72, *options, array="4", restarts=1) == 0
    assert job(71, *options, array="3", restarts=1) == 0
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert len(list((workdir / "runs" / "job").iterdir())) == 2
