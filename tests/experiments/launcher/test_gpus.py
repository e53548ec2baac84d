"""Runs of sweeps take GPUs of their own."""

import subprocess
import sys

import pytest

from striate.experiments.launcher import gpus


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A run of an agent on a machine with four GPUs."""
    monkeypatch.setattr(gpus, "visible_gpus", lambda: {name: name for name in ("GPU-a", "GPU-b", "GPU-c", "GPU-d")})
    monkeypatch.setattr(gpus, "_held", [])
    monkeypatch.setattr(gpus.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    yield monkeypatch
    for file in gpus._held:
        file.close()


def taken():
    return gpus.os.environ.get("CUDA_VISIBLE_DEVICES")


def test_runs_take_different_gpus_until_none_are_left(machine, capsys):
    found = []
    for devices in ("auto", 1, 2):
        machine.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        gpus.share_gpus("auto", devices)
        found.append(taken())
    assert found == ["GPU-a", "GPU-b", "GPU-c,GPU-d"]
    machine.delenv("CUDA_VISIBLE_DEVICES")
    gpus.share_gpus("auto", 1)
    assert taken() is None
    assert "fewer than 1 of 4 GPUs are free: this run shares them" in capsys.readouterr().err


def test_a_gpu_is_free_again_when_its_process_has_ended(machine, tmp_path):
    code = f"""
from pathlib import Path
from striate.experiments.launcher.gpus import claim_gpus
print(claim_gpus(1, {{"0": "GPU-a", "1": "GPU-b"}}, Path({str(tmp_path)!r})), flush=True)
input()
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "['0']\n"
    two = {"2": "GPU-a", "3": "GPU-b"}  # the same GPUs by other numbers
    assert gpus.claim_gpus(1, two, tmp_path) == ["3"]
    assert gpus.claim_gpus(1, two, tmp_path) == []
    process.communicate("\n")
    assert gpus.claim_gpus(1, two, tmp_path) == ["2"]


@pytest.mark.parametrize(
    ("accelerator", "devices", "variables"),
    [
        ("cpu", 1, {}),
        ("auto", [2], {}),
        ("auto", 4, {}),
        ("auto", 1, {"LOCAL_RANK": "1"}),
        ("auto", 1, {"WANDB_SWEEP_ID": None}),
    ],
)
def test_other_runs_choose_no_gpu(accelerator, devices, variables, machine):
    for name, value in variables.items():
        machine.setenv(name, value) if value else machine.delenv(name)
    gpus.share_gpus(accelerator, devices)
    assert taken() is None


def test_gpus_that_a_user_has_chosen(monkeypatch):
    monkeypatch.setattr(gpus, "installed_gpus", lambda: {"0": "GPU-a", "1": "GPU-b", "2": "GPU-c"})
    for chosen, found in {
        "2,0": {"2": "GPU-c", "0": "GPU-a"},
        "GPU-b": {"GPU-b": "GPU-b"},
        "MIG-1": {"MIG-1": "MIG-1"},
        "-1": {},
        "": {},
    }.items():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)
        assert gpus.visible_gpus() == found
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert list(gpus.visible_gpus()) == ["GPU-a", "GPU-b", "GPU-c"]


def test_gpus_are_listed_by_nvidia_smi(monkeypatch):
    def answer(*arguments, **options):
        return subprocess.CompletedProcess(arguments, 0, "0, GPU-a\n1, GPU-b\n")

    monkeypatch.setattr(gpus.subprocess, "run", answer)
    assert gpus.installed_gpus() == {"0": "GPU-a", "1": "GPU-b"}
