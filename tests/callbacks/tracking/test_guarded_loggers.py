"""Calls to loggers of a configuration: none stops a run, and one line says what became of the record."""

import logging
import threading

import numpy as np
import pytest
import pytorch_lightning as pl
from pytorch_lightning.loggers import CSVLogger, Logger

from striate.callbacks.tracking import guarded_loggers
from striate.callbacks.tracking.guarded_loggers import guard_logger, guard_of
from striate.callbacks.tracking.logging import log_picture, log_table


class Broken(Logger):
    """A logger whose calls fail from the moment at which `broken` is set; `release` ends those that hang."""

    name, version, broken, hangs = "broken", "1", True, False
    release = threading.Event()

    def __init__(self):
        super().__init__()
        self.logged = []

    def _fail(self, what):
        if self.hangs:
            self.release.wait()
        if self.broken:
            raise SystemExit(1) if what == "save" else ConnectionError(f"no {what}\nmore")
        self.logged.append(what)

    @property
    def experiment(self):
        """The client."""
        self._fail("client")
        return "client"

    def log_metrics(self, metrics, step=None):
        self._fail("metrics")

    def log_hyperparams(self, params, *args):
        self._fail("hyperparameters")

    def log_image(self, key, images):
        self._fail("image")

    def save(self):
        self._fail("save")

    def finalize(self, status):
        self._fail(status)


@pytest.fixture
def lines(caplog):
    caplog.set_level(logging.INFO, "pytorch_lightning")
    return lambda: [record.getMessage() for record in caplog.records]


def call_all(logger):
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"loss": 1.0}, step=3)
    logger.save()
    logger.finalize("success")


def test_a_failing_logger_costs_one_line(tmp_path, lines):
    logger = Broken()
    guard_logger(logger, tmp_path)
    assert isinstance(logger, Broken) and type(logger).__name__ == "Broken"
    assert logger.experiment.add_scalar("a", 1) is None  # as on other ranks, for callbacks that use the client
    call_all(logger)
    (line,) = lines()
    assert line == (
        "Broken: recording failed (no client); the run continues, its record there may be incomplete, and "
        f"{tmp_path} has all of it"
    )
    logger.broken = False
    call_all(logger)
    assert logger.logged == ["hyperparameters", "metrics", "save", "success"] and logger.experiment == "client"


def test_a_hanging_logger_is_left_alone_after_the_timeout(tmp_path, lines, monkeypatch):
    monkeypatch.setattr(guarded_loggers, "TIMEOUT", 0.05)
    logger = Broken()
    guard_logger(logger, tmp_path)
    logger.hangs, logger.broken = True, False
    call_all(logger)
    logger.release.set()
    (line,) = lines()
    assert "Broken: recording failed (not done after 0.05 s; no more calls that may wait); the run continues" in line
    assert logger.logged in ([], ["hyperparameters"])  # the first call alone was made


def test_plots_and_tables_of_a_logger_that_nobody_has_guarded(tmp_path, lines):
    logger, csv = Broken(), CSVLogger(tmp_path)
    trainer = pl.Trainer(logger=[csv, logger], accelerator="cpu", enable_checkpointing=False)
    log_picture(trainer, np.zeros((2, 2, 3), np.uint8), tmp_path / "a.png", "a")
    log_table(trainer, ["a"], [[1]], tmp_path / "a.csv", "a")
    (line,) = (line for line in lines() if line.startswith("Broken"))
    assert line == "Broken: recording failed (no image); the run continues, its record there may be incomplete"
    assert (tmp_path / "a.png").is_file() and (tmp_path / "a.csv").is_file()
    assert guard_of(logger) is guard_of(logger) is not guard_of(csv)
