"""How the benchmarks process their measurements; the measuring itself is not tested."""

import importlib
import inspect

import pytest
import torch

from striate.benchmarks import __main__ as program
from striate.benchmarks.harness import Goal, Row
from striate.benchmarks.training_step import check_same_work


def test_a_failing_benchmark_keeps_the_results_of_the_others(monkeypatch, capsys, tmp_path):
    def run(name):
        if name == "broken":
            raise RuntimeError("the last losses differ")
        yield Row(name, "1 ms", "2 ms", 0.5, Goal(1.0, at_least=False))

    monkeypatch.setattr(program, "run", run)
    monkeypatch.setattr(program, "BENCHMARKS", dict.fromkeys(("first", "broken", "last"), ""))
    with pytest.raises(SystemExit, match="failed.*broken"):
        program.main(["--markdown", str(tmp_path / "table.md")])
    out, err = capsys.readouterr()
    assert "first" in out and "last" in out and "the last losses differ" in err
    assert [line.split(" | ")[0] for line in (tmp_path / "table.md").read_text().splitlines()[2:4]] == [
        "| first",
        "| last",
    ]
    program.main(["first"])  # nothing failed


def test_a_row_is_printed_and_written_before_the_next_is_measured(monkeypatch, capsys, tmp_path):
    table = tmp_path / "table.md"

    def run():
        yield Row("step", "1 ms", "2 ms", 0.5)
        assert "| step | 1 ms | 2 ms | 0.500 |" in capsys.readouterr().out
        assert "| step | 1 ms | 2 ms | 0.500 |" in table.read_text()
        raise KeyboardInterrupt

    monkeypatch.setattr("striate.benchmarks.training_memory.run", run)
    with pytest.raises(KeyboardInterrupt):
        program.main(["training_memory", "--markdown", str(table)])
    assert table.read_text().splitlines()[0].startswith("| measurement |")


@pytest.mark.parametrize("name", program.BENCHMARKS)
def test_every_benchmark_yields_its_rows(name):
    assert inspect.isgeneratorfunction(importlib.import_module(f"striate.benchmarks.{name}").run)


def test_sides_that_did_different_work_are_rejected():
    def check(ours, peer, steps=4):
        check_same_work("case", 4, {"ours": torch.tensor(ours), "peer": torch.tensor(peer)}, {"ours": 4, "peer": steps},
                        0.05)  # fmt: skip

    check(0.5, 0.51)
    check(2.0e-5, 2.3e-5)  # both have memorized the batches
    with pytest.raises(RuntimeError, match="the last losses differ"):
        check(0.5, 0.55)
    with pytest.raises(RuntimeError, match="must make 4 steps"):
        check(0.5, 0.5, steps=3)
