"""Private names of other libraries that the launcher depends on still do what it needs."""

import inspect
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from jsonargparse import get_loader
from pytorch_lightning.callbacks import LearningRateFinder, RichProgressBar
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter

from striate.experiments.launcher.compat import MetricsLogger, PlainBar, TerminalBar
from striate.experiments.launcher.parser import load_value, prepare_parsing
from striate.tests.helpers.launcher import read_csv


def test_the_csv_writer_checks_its_folder_in_a_method_that_can_be_overridden():
    sources = [inspect.getsource(cls) for cls in inspect.getmro(ExperimentWriter)[:-1]]
    assert any("self._check_log_dir_exists()" in source for source in sources), (
        "Lightning's ExperimentWriter no longer calls _check_log_dir_exists: MetricsWriter would lose the metrics "
        "of a resumed run"
    )


def test_the_csv_logger_stores_its_writer(tmp_path):
    logger = CSVLogger(tmp_path)
    writer = logger.experiment
    assert getattr(logger, "_experiment", None) is writer, (
        "Lightning's CSVLogger no longer stores its writer as _experiment: MetricsLogger cannot replace it"
    )


def test_metrics_are_appended_when_a_run_is_resumed(tmp_path):
    for step in (1, 2):
        logger = MetricsLogger(tmp_path, "a", "fit-1")
        logger.log_metrics({"x": step} | ({"y": 5} if step == 2 else {}), step)
        logger.save()
    rows = read_csv(tmp_path / "a" / "fit-1" / "metrics.csv")
    assert rows == [{"step": "1", "x": "1", "y": ""}, {"step": "2", "x": "2", "y": "5"}]


@pytest.fixture
def logger(tmp_path):
    return MetricsLogger(tmp_path, "a", "fit-1")


def rows_of(logger):
    return read_csv(Path(logger.log_dir) / "metrics.csv")


def log(logger, step, **metrics):
    """Log and save, as Lightning does."""
    logger.log_metrics({name.replace("__", "/"): value for name, value in metrics.items()}, step)
    logger.save()


def test_metrics_of_a_step_are_one_row(logger):
    for step in range(3):
        logger.log_metrics({"lr-SGD/pg1": 0.1, "lr-SGD/pg2": 0.01}, step)  # not followed by save()
        log(logger, step, train__loss=1 / 3, epoch=0)
    log(logger, 2, val__acc=torch.tensor(2 / 3).item(), epoch=0)
    assert rows_of(logger) == [
        {"epoch": "0", "lr": "0.1", "step": str(step), "train/loss": "0.333333", "val/acc": "0.666667" * (step == 2)}
        for step in range(3)
    ]


def test_a_learning_rate_of_an_epoch_waits_for_its_first_row(logger):
    logger.log_metrics({"lr-SGD": 0.5}, 10)
    assert not (Path(logger.log_dir) / "metrics.csv").exists()
    log(logger, 14, train__loss=1.0)
    log(logger, 19, train__loss=2.0)
    assert [(row["step"], row["lr"]) for row in rows_of(logger)] == [("14", "0.5"), ("19", "")]


def test_a_second_optimizer_has_its_own_column(logger):
    log(logger, 1, **{"lr-SGD": 0.5, "lr-Adam": 0.1, "lr-SGD-momentum": 0.9, "x": 1})
    assert rows_of(logger) == [{"lr": "0.5", "lr-Adam": "0.1", "lr-SGD-momentum": "0.9", "step": "1", "x": "1"}]


def test_a_resumed_run_has_no_step_twice(tmp_path, logger):
    for step in (9, 19, 29, 39):
        log(logger, step, x=step)
    resumed = MetricsLogger(tmp_path, "a", "fit-1")
    log(resumed, 29, y=5)  # the validation of step 29 is repeated
    log(resumed, 35, x=35)
    assert [(row["step"], row["x"], row["y"]) for row in rows_of(resumed)] == [
        ("9", "9", ""), ("19", "19", ""), ("29", "29", "5"), ("35", "35", ""),
    ]  # fmt: skip


def test_steps_that_go_back_lose_no_row(logger):
    """A module may log its own ``step``, such as the epoch."""
    for step in (10, 1, 20, 2):
        log(logger, step, **{f"m{step}": step})
    assert [row["step"] for row in rows_of(logger)] == ["10", "1", "20", "2"]


def test_progress_bars_count_epochs_from_0_and_show_no_version():
    trainer = SimpleNamespace(max_epochs=10, loggers=[SimpleNamespace(version="fit-1")], progress_bar_metrics={"a": 1})
    for bar in (TerminalBar(), PlainBar()):
        bar._trainer = trainer
        assert "_get_train_description" in vars(RichProgressBar)  # Lightning's name of what is replaced
        assert bar._get_train_description(3) == "Epoch 3 (4 of 10)"
        assert bar.get_metrics(trainer, None) == {"a": 1}
        bar._trainer = SimpleNamespace(max_epochs=-1)  # as many as max_steps needs
        assert bar._get_train_description(3) == "Epoch 3"


def test_a_learning_rate_finder_can_leave_the_rate_alone():
    finder = LearningRateFinder()
    assert finder._update_attr is True, "Lightning's LearningRateFinder has no _update_attr: leave_rate_alone fails"


def test_the_loader_of_values_is_replaced_once():
    """A loader that called the one before would be called deeper with each command, up to a RecursionError."""
    for _ in range(2):
        prepare_parsing()
        assert get_loader("yaml") is load_value
    assert load_value("[None, 1]") == [None, 1] and load_value("a: null") == {"a": None}
