"""``striate runs``: the table and JSON of all runs, whatever state they were left in."""

import json
import subprocess
import sys

import pytest

from striate.experiments.runs.commands import run as runs_command
from striate.experiments.runs.differences import differing_keys, flatten, without_details
from striate.experiments.runs.listing import best_run
from striate.experiments.runs.reading import find_runs, read_run
from striate.tests.helpers.run_folders import CONFIG, config_with, make_run


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A working folder with ``runs``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


def entries(capsys, *arguments):
    """What ``striate runs --json`` prints, by the name of the run."""
    runs_command([*arguments, "--json"])
    return {entry["run"]: entry for entry in json.loads(capsys.readouterr().out)}


def refused(capsys, *arguments):
    """The one-line message with which ``striate runs`` refuses arguments."""
    with pytest.raises(SystemExit) as exit_:
        runs_command(list(arguments))
    lines = capsys.readouterr().err.splitlines()
    assert exit_.value.code == 2 and len(lines) == 1
    return lines[0].removeprefix("striate: ")


def test_best_value_with_its_epoch(root, capsys):
    values = {"val/acc": [0.5, 0.9, 0.9], "val/loss": [3.0, 2.0, 1.0]}
    make_run(root / "a/fit-1", metrics=values, state="finished", epochs=3)
    make_run(root / "a/fit-2", metrics=values, state="finished", monitor="val/loss", mode="min")
    make_run(root / "a/fit-3", metrics=values)  # of an earlier version
    found = entries(capsys)
    best = [(one["monitor"], one["best"], one["best_epoch"], one["best_step"]) for one in found.values()]
    assert best == [("val/acc", 0.9, 1, 19), ("val/loss", 1.0, 2, 29), ("val/acc", 0.9, 1, 19)]
    assert [one["epochs"] for one in found.values()] == [3, 3, 3]
    assert [one["state"] for one in found.values()] == ["finished", "finished", "unknown"]
    assert found["a/fit-1"]["seconds"] == pytest.approx(75, abs=30) and found["a/fit-3"]["seconds"] is None


def test_nan_is_never_the_best(root, capsys):
    make_run(root / "a/fit-1", metrics={"val/acc": ["nan", 0.2, "inf"]}, state="failed", error="loss: is NaN")
    one = entries(capsys)["a/fit-1"]
    assert one["best"] == 0.2 and one["state"] == "failed" and one["error"] == "loss: is NaN"


def test_differences_from_the_first_run_of_the_experiment(root, capsys):
    make_run(root / "a/fit-1")
    make_run(root / "a/fit-2", config_with(lr=0.01, notes="slower"))
    make_run(root / "a/fit-10", config_with(optimizer="torch.optim.AdamW"))
    make_run(root / "b/fit-1", config_with(lr=5.0))  # the first of its own
    found = entries(capsys)
    assert list(found) == ["a/fit-1", "a/fit-2", "a/fit-10", "b/fit-1"]
    assert [one["differences"] for one in found.values()] == [
        {},
        {"model.optimizer.lr": 0.01},
        {"model.optimizer": "torch.optim.AdamW"},
        {},
    ]
    assert found["a/fit-2"]["notes"] == "slower"
    runs_command([])
    table = capsys.readouterr().out
    assert "lr 0.01" in table and "optimizer AdamW" in table and "slower" in table


def test_runs_of_sweeps_are_listed_and_large_sweeps_have_one_row(root, capsys):
    for number in range(8):
        values = {"val/acc": [0.1 * number] * 2}
        make_run(root / f"s/sweep-1/trial-{number}/fit-1", config_with(lr=number), values, state="finished")
    make_run(root / "a/fit-1")
    found = entries(capsys)
    assert len(found) == 9 and found["s/sweep-1/trial-7/fit-1"]["sweep"] == "s/sweep-1"
    assert found["s/sweep-1/trial-3/fit-1"]["differences"] == {"model.optimizer.lr": 3}
    assert found["a/fit-1"]["sweep"] is None
    runs_command([])
    table = capsys.readouterr().out
    assert "s/sweep-1 (8 trials)" in table and "8 finished" in table and "val/acc 0.7" in table
    assert "trial-7, lr 7" in table and "trial-3" not in table
    runs_command(["s/sweep-1"])
    assert "trial-3/fit-1" in capsys.readouterr().out


def test_names_select_runs(root, capsys):
    for name in ("a/fit-1", "a/fit-2", "a/validate-1", "ab/fit-1"):
        make_run(root / name)
    assert list(entries(capsys, "a")) == ["a/fit-1", "a/fit-2", "a/validate-1"]
    assert list(entries(capsys, "ab/fit-1", "runs/a/fit-2")) == ["a/fit-2", "ab/fit-1"]
    assert list(entries(capsys, str(root / "a/fit-1"))) == ["a/fit-1"]


def test_half_written_and_broken_files_are_named(root, capsys):
    make_run(root / "a/fit-1", metrics={"val/acc": [0.5, 0.6]})
    with (root / "a/fit-1/metrics.csv").open("a") as table:
        table.write("2,29,0.9")  # without its end, this could be the start of 0.95
    (make_run(root / "a/fit-2") / "config.yaml").write_text("model:\n  a: [1,\n b: }")
    (make_run(root / "a/fit-3") / "config.yaml").write_bytes(b"\xff\xfe\x00")
    (make_run(root / "a/fit-4", metrics={"val/acc": [0.5]}) / "config.yaml").write_text("- 1\n")
    (make_run(root / "a/fit-7") / "config.yaml").write_text("model: &itself [*itself]\n")
    make_run(root / "a/fit-5", None, state="interrupted")
    (make_run(root / "a/fit-6") / "metrics.csv").write_bytes(b"epoch,step,val/acc\n0,9,x\n1,\x00\xff,0.5,7\n")
    found = entries(capsys)
    assert found["a/fit-1"]["best"] == 0.6 and not found["a/fit-1"]["problems"]
    problems = [one["problems"] for one in found.values()][1:]
    assert problems[0][0].startswith("config.yaml: not valid YAML in line")
    assert problems[1:4] == [
        ["config.yaml: not valid YAML"],
        ["config.yaml: not a configuration"],
        ["config.yaml: missing"],
    ]
    assert problems[5] == ["config.yaml: not a configuration"]
    assert problems[4] == ["metrics.csv: 1 cells without a number are left out"] and found["a/fit-6"]["best"] == 0.5
    runs_command([])
    assert "a/fit-2: config.yaml: not valid YAML" in capsys.readouterr().out


def test_a_repeated_validation_replaces_its_first_value(root, capsys):
    make_run(root / "a/fit-1", metrics={"val/acc": [0.9, 0.5]})
    (root / "a/fit-1/metrics.csv").write_text("epoch,step,val/acc\n0,9,0.9\n0,9,0.4\n1,19,0.5\n")
    assert entries(capsys)["a/fit-1"]["best"] == 0.5


def test_other_folders_are_no_runs(root):
    (root / "a/fit-1").mkdir(parents=True)  # empty
    make_run(root / "a/fit-1-old")
    make_run(root / "a/fit-2" / "wandb" / "fit-1")
    make_run(root / ".hidden/fit-1")
    (root / "loop").symlink_to(root)
    assert find_runs(root) == [root / "a/fit-2/wandb/fit-1"]  # a/fit-2 has no file of its own
    (root / "a/fit-2/metrics.csv").write_text("")
    assert find_runs(root) == [root / "a/fit-2"]


def test_no_runs_and_wrong_calls_are_one_line(root, capsys):
    runs_command(["--json"])
    assert json.loads(capsys.readouterr().out) == []
    runs_command([])
    assert capsys.readouterr().err.startswith("striate: no runs in 'runs'; `striate fit")
    make_run(root / "quickstart/fit-1")
    assert refused(capsys, "quickstrat/fit-1") == (
        "runs: no such run or experiment, got 'quickstrat/fit-1'; did you mean 'quickstart/fit-1'?"
    )
    assert refused(capsys, "--root", "nowhere").startswith("--root: no such folder, got 'nowhere'; ")
    assert refused(capsys, "--jsn") == "runs: unknown argument, got --jsn; did you mean '--json'?"
    assert refused(capsys, "--root").startswith("--root: expected one argument")


def test_details_of_another_class_are_left_out_of_the_table():
    first, second = flatten(CONFIG), flatten(config_with(lr=2.0, optimizer="torch.optim.Adam"))
    keys = differing_keys([first, second])
    assert keys == ["model.optimizer", "model.optimizer.lr"] and without_details(keys) == ["model.optimizer"]


def test_values_of_other_types_differ():
    assert differing_keys([{"a": 1, "b": None}, {"a": "1"}]) == ["a", "b"]
    assert differing_keys([{"a": 1}, {}, {"a": 1}]) == []  # a run without a configuration says nothing


def test_callbacks_are_compared_one_by_one():
    config = {"callbacks": [{"class_path": "A", "init_args": {"n": 1}}, {"class_path": "B"}]}
    assert flatten(config) == {"callbacks[0]": "A", "callbacks[0].n": 1, "callbacks[1]": "B"}


def test_the_best_run_is_of_the_metric_that_the_first_monitors(root):
    make_run(root / "a/fit-1", metrics={"val/loss": [0.5]}, state="finished", monitor="val/loss", mode="min")
    make_run(root / "a/fit-2", metrics={"val/loss": [0.3]}, state="finished", monitor="val/loss", mode="min")
    make_run(root / "a/fit-3", metrics={"val/acc": [0.1]}, state="finished")
    runs = [read_run(folder, folder.name) for folder in find_runs(root)]
    assert best_run(runs).name == "fit-2" and best_run(runs[:0]) is None


def test_listing_imports_no_torch(root):
    make_run(root / "a/fit-1", metrics={"val/acc": [0.5]})
    code = "import sys; from striate.experiments.launcher.main import main; main(['runs']); "
    code += "assert not {'torch', 'wandb', 'optuna'} & set(sys.modules), sorted(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "a/fit-1" in done.stdout, done.stderr
