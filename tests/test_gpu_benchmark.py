"""The script for a GPU, tested on a CPU: its parts run, and a part that fails, hangs or lacks a package is one row."""

import importlib
import inspect
import sys

import pytest
import torch

from striate.benchmarks import __main__ as program
from striate.benchmarks import gpu, gpu_networks
from striate.benchmarks.gpu_settings import Settings, guarded, one_line
from striate.benchmarks.harness import Goal, Row

SCRIPT = """
import json, subprocess, sys, time
row = {"what": "first", "ours": "1", "peer": "2", "ratio": 0.5, "goal": {"bound": 1.0, "at_least": False}}
print("some output")
print("ROW " + json.dumps(row), flush=True)
"""


def rows_of(script: str, limit: float = 60.0) -> list[Row]:
    return list(gpu.run_process("part", [sys.executable, "-c", SCRIPT + script], limit))


def test_rows_of_a_part_arrive_as_they_are_printed():
    rows = gpu.run_process("part", [sys.executable, "-c", SCRIPT + "time.sleep(600)"], 60.0)
    assert next(rows) == Row("first", "1", "2", 0.5, Goal(1.0, at_least=False))  # while the part goes on
    rows.close()


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("raise MemoryError('no memory left')", "exit code 1: MemoryError: no memory left"),
        ("import os; os.kill(os.getpid(), 11)", "exit code -11"),
    ],
)
def test_a_part_that_fails_is_one_row(script, text):
    first, last = rows_of(script)
    assert first.what == "first" and not first.failed
    assert last.what == "part" and text in last.ours and last.cells()[-1] == "NO"


def test_a_part_that_hangs_is_ended_with_all_that_it_started():
    hang = f"subprocess.Popen([{sys.executable!r}, '-c', 'import time; time.sleep(600)']); time.sleep(600)"
    first, last = rows_of(hang, limit=2.0)  # the output stays open until the inner process has ended too
    assert first.what == "first" and "stopped after 2 s" in last.ours and last.failed


def test_a_part_without_its_packages_is_skipped_by_name(monkeypatch):
    part = gpu.Part("what it does", 10, ("nothing", "nothing"), needs=("no_such_package", "torch"))
    monkeypatch.setattr(gpu, "PARTS", {"part": part})
    (row,) = gpu.measure(["part"], "cpu", small=True)
    assert row.ours == "skipped: needs no_such_package; pip install no_such_package" and not row.failed


def test_the_table_is_written_as_it_grows_and_failures_end_with_an_error(monkeypatch, capsys, tmp_path):
    table = tmp_path / "table.md"

    def measure(names, device, small):
        assert (list(names), device, small) == (["ddp"], "cpu", True)
        yield Row("one", "1")
        assert "| one | 1 |" in table.read_text()
        yield Row("two", "failed: a | b", failed=True)

    monkeypatch.setattr(gpu, "measure", measure)
    with pytest.raises(SystemExit, match="failed.*two"):
        program.main(["gpu", "ddp", "--device", "cpu", "--small", "--markdown", str(table)])
    assert "| two | failed: a / b |  |  |  | NO |" in table.read_text()
    assert "no GPU used" in capsys.readouterr().out


def test_bad_arguments(capsys):
    for arguments, text in ((["speed"], "no part 'speed'; choose from networks"), ([], "no GPU was found")):
        if not arguments and torch.cuda.is_available():
            continue
        with pytest.raises(SystemExit):
            program.main(["gpu", *arguments])
        assert text in capsys.readouterr().err


def test_limits_of_the_parts_add_up_to_eight_minutes():
    assert sum(part.limit for part in gpu.PARTS.values()) == gpu.LIMIT == 480
    for part in gpu.PARTS.values():
        module, name = part.function
        assert inspect.isgeneratorfunction(getattr(importlib.import_module(f"striate.benchmarks.{module}"), name))


def test_an_error_becomes_a_row_after_those_before_it():
    def rows():
        yield Row("first", "1")
        raise ValueError("x" * 300 + "\nsecond line")

    first, last = guarded("what", rows)
    assert first.what == "first" and last.failed and last.ours.startswith("failed: ValueError: xxx")
    assert len(one_line(ValueError("x" * 300))) == 200


@pytest.mark.parametrize("name", ["Mask R-CNN", "U-Net"])
def test_differences_between_devices_are_found(name):
    network = gpu_networks.make(name)
    reference = gpu_networks.run(network, "cpu")
    assert reference.loss > 0 and reference.gradient > 0
    assert name == "U-Net" or len(reference.outputs[0]["boxes"]) > 20
    assert set(gpu_networks.differences(gpu_networks.run(network, "cpu"), reference).values()) == {0.0}
    with torch.no_grad():
        next(p for p in network.parameters() if p.requires_grad).mul_(1.01)
    found = gpu_networks.differences(gpu_networks.run(network, "cpu"), reference)
    for kind, tolerance in gpu_networks.TOLERANCES.items():
        assert kind not in found or found[kind] > tolerance
    assert ("masks" in found) == (name == "Mask R-CNN")


@pytest.mark.slow
@pytest.mark.parametrize("name", gpu.PARTS)
def test_every_part_runs_on_a_cpu(name):
    rows = list(gpu.measure([name], "cpu", small=True))
    assert rows and not [row for row in rows if row.failed or row.ours.startswith("skipped")]
    for row in rows:  # speed and memory are not tested
        assert row.goal is None or row.peer != "tolerance" or row.goal.met(row.ratio), row.markdown()


@pytest.mark.slow
def test_every_network_agrees_with_itself():
    for name in gpu_networks.NETWORKS.keys() - set(gpu_networks.SMALL):
        network = gpu_networks.make(name)
        reference = gpu_networks.run(network, "cpu")
        assert reference.gradient > 0, name
        assert set(gpu_networks.differences(gpu_networks.run(network, "cpu"), reference).values()) == {0.0}, name
    assert Settings("cpu").backend == "eager" and Settings().backend == "inductor"
