"""All ranks have the hyperparameters of the first one, also where each was started with others."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from striate.experiments.launcher import ranks
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION
from striate.tests.helpers.processes import ENVIRONMENT, HANG

SCRIPT = """
import os, sys
wandb_config = {"0": 0.125, "1": 0.25}  # what an agent has told each rank
rank = os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))
given = [f"--model.optimizer.lr={wandb_config[rank]}", f"--trainer.max_steps={3 + int(rank)}"]
sys.argv[1:] = ["fit", "--config", "tiny.yaml", *given]
from striate.experiments.launcher.main import main
main()
"""

CALLBACK = """
import pytorch_lightning as pl
class WriteRate(pl.Callback):
    def on_train_end(self, trainer, module):
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        with open(f"rank-{trainer.global_rank}.txt", "w") as file:
            file.write(f"{rate} {trainer.max_steps}")
"""


@pytest.mark.parametrize(
    "program",
    [["fit.py"], pytest.param(["-m", "torch.distributed.run", "--nproc_per_node=2", "fit.py"], marks=pytest.mark.slow)],
    ids=["lightning", "torchrun"],
)
def test_every_rank_has_the_hyperparameters_of_the_first(program, workdir):
    make_folder(workdir / "data", per_class=8)
    config = {**CLASSIFICATION, "trainer": {**CLASSIFICATION["trainer"], "devices": 2, "strategy": "ddp"}}
    config["trainer"]["callbacks"] = [{"class_path": "rates.WriteRate"}]
    (workdir / "tiny.yaml").write_text(yaml.safe_dump(config))
    (workdir / "fit.py").write_text(SCRIPT)
    (workdir / "rates.py").write_text(CALLBACK)
    done = subprocess.run(
        [sys.executable, *program], cwd=workdir, env=ENVIRONMENT, capture_output=True, text=True, timeout=HANG
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.name: path.read_text() for path in workdir.glob("rank-*.txt")} == {
        "rank-0.txt": "0.125 3",
        "rank-1.txt": "0.125 3",
    }
    recorded = yaml.safe_load((workdir / "runs/tiny/fit-1/config.yaml").read_text())
    assert recorded["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.125


def test_slurm_ranks_use_a_store_of_the_first(workdir, monkeypatch):
    slurm = {"SLURM_JOB_ID": "123", "SLURM_NTASKS": "2", "SLURM_JOB_NAME": "train", "SLURM_NODELIST": "localhost"}
    others = {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS_PER_NODE": "2", "MASTER_ADDR": "localhost"}
    for name, value in {**slurm, **others}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "_open", [])
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert ranks.receive_config(workdir) is None
    ranks.send_config("model: 1\n", workdir)
    monkeypatch.setenv("SLURM_PROCID", "1")
    received = ranks.receive_config(workdir)
    assert received is not None and received.read_text() == "model: 1\n"


def test_a_rank_without_a_first_one_says_so(workdir, monkeypatch, capsys):
    torchrun = {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
        "TORCHELASTIC_RUN_ID": "1",
    }
    for name, value in torchrun.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ranks, "TIMEOUT", 1)
    with pytest.raises(SystemExit):
        ranks.receive_config(workdir)
    message = capsys.readouterr().err
    assert message.startswith("striate: rank 1: got no configuration from the first rank at localhost:10008 (")


def test_one_process_needs_no_handover(workdir):
    assert ranks.receive_config(workdir) is None and ranks.external_rank() == (0, 1)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="lists threads as Linux does")
def test_no_thread_of_gloo_is_left_at_the_end(workdir):
    """One that still holds tensors while Python exits would abort the process."""

    def threads():
        return [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]

    meeting = (workdir / "meeting").as_uri()
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    torch.distributed.all_reduce(torch.ones(2))
    assert "pt_gloo_runloop" in threads()
    ranks.leave_group()
    assert "pt_gloo_runloop" not in threads() and not torch.distributed.is_initialized()
    ranks.leave_group()  # a run of one process has no group
