"""What a run leaves in its folder: with any logger, after a search, after a failure; and the closing summary."""

import json
import logging
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from striate.callbacks.tracking.report import describe_classes
from striate.experiments.runs.run_state import RunState
from striate.tests.helpers.fixtures import TinyNet, make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch, launch_error, read_csv
from striate.tests.helpers.memory_logger import MemoryLogger
from striate.tests.helpers.processes import forked_striate


@pytest.fixture
def workdir(workdir):
    """A working folder with data and ``small.yaml``."""
    make_folder(workdir / "data", per_class=8)
    write_config("small")
    return workdir


def write_config(name, **trainer):
    config = CLASSIFICATION | {"trainer": CLASSIFICATION["trainer"] | {"max_epochs": 1} | trainer}
    Path(f"{name}.yaml").write_text(yaml.safe_dump(config))


HERE = __name__  # of the module as pytest imported it: by another name it would be imported twice


@pytest.mark.parametrize(
    "arguments", [["--trainer.logger", f"{MemoryLogger.__module__}.MemoryLogger"], ["--trainer.logger", "false"]]
)
def test_with_any_logger_the_run_is_in_its_folder(workdir, arguments):
    MemoryLogger.logged.clear()
    MemoryLogger.hyperparameters.clear()
    launch("fit", "--config", "small.yaml", *arguments)
    run = workdir / "runs" / "small" / "fit-1"
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert (run / "config.yaml").is_file() and (run / "pictures").is_dir()
    assert RunState.load(run).state == "finished" and RunState.load(run).epochs == 1
    assert RunState.load(run).monitor == "val/acc" and RunState.load(run).mode == "max"
    assert {path.name for path in workdir.iterdir()} == {"data", "small.yaml", "runs"}
    if arguments[1] == "false":
        assert not (run / "metrics.csv").exists()
    else:
        assert any(row["val/acc"] for row in read_csv(run / "metrics.csv"))
        assert any("val/acc" in metrics for metrics in MemoryLogger.logged)
        (known,) = MemoryLogger.hyperparameters
        facts = json.loads((run / "run_facts.json").read_text())
        assert known.items() >= facts.items() and known["trainer"]["max_epochs"] == 1
        assert facts["dataset"]["val"]["samples"] == 4 and len(facts["dataset"]["val"]["fingerprint"]) == 16
        assert facts["network"]["parameters"] == 258 and facts["network"]["flops"] > 258
        assert facts["versions"]["torch"] in torch.__version__ and facts["hardware"]["cpus"] >= 1
        # a launch of config.yaml writes to its own folder, not to this one
        assert (
            yaml.safe_load((run / "config.yaml").read_text())["trainer"]["logger"]["init_args"]["save_dir"] == "{run}"
        )
    launch("validate", "--config", "small.yaml", "--ckpt_path", "best")
    assert RunState.load(workdir / "runs" / "small" / "validate-1").state == "finished"


def test_a_logger_that_fails_stops_no_run(workdir, caplog):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    launch("fit", "--config", "small.yaml", "--trainer.logger", f"{MemoryLogger.__module__}.FailingLogger")
    (line,) = (record.getMessage() for record in caplog.records if "FailingLogger" in record.getMessage())
    assert line == (
        "FailingLogger: recording failed (no client); the run continues, its record there may be incomplete, and "
        "runs/small/fit-1 has all of it"
    )
    assert RunState.load(workdir / "runs/small/fit-1").state == "finished"
    assert any(row["val/acc"] for row in read_csv(workdir / "runs/small/fit-1/metrics.csv"))
    assert "accuracy per class" in caplog.text


def test_best_is_never_the_checkpoint_of_an_earlier_run(workdir, capsys):
    launch("fit", "--config", "small.yaml")
    own = {"class_path": "pytorch_lightning.callbacks.ModelCheckpoint", "init_args": {"filename": "mine"}}
    write_config("small", callbacks=[own])
    launch("fit", "--config", "small.yaml")
    message = launch_error(capsys, 1, "validate", "--config", "small.yaml", "--ckpt_path", "best")
    assert re.search(
        "^--ckpt_path best: the newest run, runs/small/fit-2, has no best.ckpt; .*fit-2/.*mine.ckpt", message
    )
    (workdir / "runs/small/fit-2/checkpoints/mine.ckpt").unlink()
    message = launch_error(capsys, 1, "validate", "--config", "small.yaml", "--ckpt_path", "best")
    assert message.endswith("has no best.ckpt; give a path, such as runs/small/fit-1/checkpoints/best.ckpt")


@pytest.mark.parametrize(
    "arguments, key",
    [
        (["--trainer.logger", "TensorBoardLogger"], "--trainer.logger TensorBoardLogger"),
        (["--trainer.callbacks+=DeviceStatsMonitor"], "--trainer.callbacks"),
    ],
)
def test_a_missing_package_is_named(workdir, capsys, monkeypatch, arguments, key):
    for module in ("tensorboard", "tensorboardX", "psutil"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARD_AVAILABLE", Absent("tensorboard"))
    monkeypatch.setattr("lightning_fabric.loggers.tensorboard._TENSORBOARDX_AVAILABLE", Absent("tensorboardX"))
    monkeypatch.setattr(
        "pytorch_lightning.callbacks.device_stats_monitor._PSUTIL_AVAILABLE", Absent("psutil"), raising=False
    )
    monkeypatch.setattr("pytorch_lightning.accelerators.cpu._PSUTIL_AVAILABLE", Absent("psutil"))
    message = launch_error(capsys, 1, "fit", "--config", "small.yaml", *arguments)
    name = "psutil" if "Device" in arguments[0] else "tensorboard"
    assert message.startswith(key) and f"needs the package '{name}', which is not installed" in message
    assert message.endswith(f"pip install {name}")
    assert not (workdir / "runs").exists()


class Absent:
    """A requirement that is not met, as Lightning's checks report it."""

    def __init__(self, name):
        self.name = name

    def __bool__(self):
        return False

    def __str__(self):
        return f"Module not found: {self.name!r}. HINT: Try running `pip install -U {self.name}`"


class Failing(TinyNet):
    """Fails in the second training step."""

    steps = 0

    def forward(self, images):
        if self.training:
            self.steps += 1
            if self.steps == 2:
                raise ValueError("steps: stop here")
        return super().forward(images)


def test_a_failed_call_leaves_no_folder_unless_it_has_results(workdir, capsys):
    wrong = ("--config", "small.yaml", "--model.model.num_classes", 5)  # seen after the loggers have started
    launch_error(capsys, 1, "fit", *wrong, "--wandb.mode", "offline")
    launch_error(capsys, 1, "predict", "--config", "small.yaml", "--data.images", "nothing/*")
    assert not (workdir / "runs").exists()
    (workdir / "runs" / "small").mkdir(parents=True)  # this one is the user's
    launch_error(capsys, 1, "fit", *wrong)
    assert [path.name for path in (workdir / "runs").rglob("*")] == ["small"]
    with pytest.raises((SystemExit, ValueError)):
        launch("fit", "--config", "small.yaml", "--model.model", f"{HERE}.Failing")
    assert (workdir / "runs" / "small" / "fit-1" / "metrics.csv").is_file()  # the first step is worth keeping
    state = RunState.load(workdir / "runs" / "small" / "fit-1")
    assert (state.state, state.error, state.epochs) == ("failed", "steps: stop here", 0)


def test_a_fast_dev_run_leaves_nothing(workdir):
    launch("fit", "--config", "small.yaml", "--trainer.fast_dev_run", "true")
    assert {path.name for path in workdir.iterdir()} == {"data", "small.yaml"}


FINDER = "pytorch_lightning.callbacks.LearningRateFinder"


def test_a_learning_rate_finder_works_from_yaml(workdir, capsys):
    finder = {"class_path": FINDER, "init_args": {"num_training_steps": 30, "min_lr": 1e-4}}
    write_config("search", callbacks=[finder])
    schedule = ["--model.scheduler", "striate.tasks.Cosine", "--model.backbone_lr_factor", 0.1]
    launch("fit", "--config", "search.yaml", *schedule)
    run = workdir / "runs" / "search" / "fit-1"
    assert (run / "pictures" / "lr_finder.png").is_file()
    config = yaml.safe_load((run / "config.yaml").read_text())
    found = config["model"]["init_args"]["optimizer"]["init_args"]["lr"]
    assert found != 0.05 and config["trainer"]["callbacks"] == []
    rates = [float(row["lr"]) for row in read_csv(run / "metrics.csv") if row["lr"]]
    assert rates[0] == pytest.approx(found, rel=1e-4) and rates[-1] < rates[0]  # the schedule starts from it
    groups = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["param_groups"]
    assert sorted({round(group["initial_lr"] / found, 4) for group in groups}) == [0.1, 1.0]
    # the recorded configuration gives the same run again, without a search
    launch("fit", "--config", run / "config.yaml")
    again = [float(row["lr"]) for row in read_csv(run.with_name("fit-2") / "metrics.csv") if row["lr"]]
    assert again == rates
    message = launch_error(capsys, 1, "fit", "--config", "search.yaml", *schedule, "--ckpt_path", "last")
    assert "LearningRateFinder cannot search when a run is resumed" in message and "config.yaml" in message


def test_a_batch_size_finder_works_from_yaml(workdir):
    finder = {"class_path": "pytorch_lightning.callbacks.BatchSizeFinder",
              "init_args": {"max_trials": 3, "steps_per_trial": 1, "init_val": 2}}  # fmt: skip
    write_config("search", callbacks=[finder])
    launch("fit", "--config", "search.yaml")
    run = workdir / "runs" / "search" / "fit-1"
    config = yaml.safe_load((run / "config.yaml").read_text())
    size = config["data"]["init_args"]["batch_size"]
    steps = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    assert size == 8 and steps == 12 // size and config["trainer"]["callbacks"] == []
    launch("validate", "--config", "search.yaml", "--ckpt_path", "best")  # the finder is of no use there


def test_the_summary_names_results_files_and_the_next_command(workdir, caplog):
    with caplog.at_level("INFO", logger="pytorch_lightning.utilities.rank_zero"):
        launch("fit", "--config", "small.yaml", "--trainer.max_epochs", 3)
    run = workdir / "runs" / "small" / "fit-1"
    summary = caplog.records[-1].getMessage()
    assert "Best val/acc: 1.0000" in summary and "accuracy per class: bright 1.000, dark 1.000" in summary
    for path in run.iterdir():
        assert re.search(rf"^    {re.escape(path.name)} ", summary, re.MULTILINE), path.name
    (command,) = re.findall("^Next: striate (.*) PATH$", summary, re.MULTILINE)
    launch(*command.split(), "data/dark")  # works as it is
    assert (workdir / "runs" / "small" / "predict-1" / "predictions.csv").is_file()


def test_only_the_best_and_the_worst_classes_are_named(tmp_path):
    path = tmp_path / "val_classes.csv"
    path.write_text("class,ap,ap50\n" + "".join(f"c{n},{n / 10},1\n" for n in range(8)) + "none,,\n")
    text = "AP per class: c7 0.700, c6 0.600, c5 0.500 … c2 0.200, c1 0.100, c0 0.000 (best and worst of 8)"
    assert describe_classes(path) == text
    path.write_text("class,images\na,1\n")
    assert describe_classes(path) is None and describe_classes(tmp_path / "none.csv") is None


def visible_lines(output):
    """The lines that a terminal shows after this output: moves of the cursor and erasures are applied."""
    lines, row, column = [""], 0, 0
    for match in re.finditer(r"[^\x1b\r\n]+|\x1b\[([\d;?]*)([A-Za-z])|\r|\n", output):
        token = match[0]
        if token == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif token == "\r":
            column = 0
        elif token[0] != "\x1b":
            line = lines[row].ljust(column)
            lines[row] = line[:column] + token + line[column + len(token) :]
            column += len(token)
        elif match[2] == "A":
            row = max(row - int(match[1] or 1), 0)
        elif match[2] == "K":
            lines[row] = "" if match[1] == "2" else lines[row][:column]
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_the_progress_bar_of_a_terminal_leaves_the_whole_summary(workdir, monkeypatch, command):
    if command == "predict":
        launch("fit", "--config", "small.yaml")
    more = " --ckpt_path best --data.images data/dark" if command == "predict" else ""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "150")
    line = f"{command} --config small.yaml --trainer.enable_progress_bar true"
    code, output = forked_striate(line + more, workdir, terminal=True)
    assert code == 0, output
    text = "\n".join(visible_lines(output))
    assert "Results in runs/small/" in text and "v_num" not in output
    if command == "fit":
        assert "Epoch 0 (1 of 1)" in output and re.search("^Next: striate predict .* PATH$", text, re.MULTILINE)
        # the bar, files and tables count epochs alike
        assert (workdir / "runs/small/fit-1/pictures/val_epoch_000.png").is_file()
        assert {row["epoch"] for row in read_csv(workdir / "runs/small/fit-1/metrics.csv")} == {"0"}
    else:
        assert "Predicted 8 image(s)" in text
