"""Plots and tables reach loggers other than W&B's, under their key and step."""

import csv
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning.loggers import CometLogger, CSVLogger, MLFlowLogger, TensorBoardLogger

from striate.callbacks.tracking import logging
from striate.callbacks.tracking.logging import log_picture, log_table
from striate.callbacks.tracking.other_loggers import LogsImages

PICTURE = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)


@pytest.fixture
def trainer(monkeypatch):
    """A trainer at step 41."""
    monkeypatch.setattr(logging, "logged_step", lambda trainer: 41)
    return SimpleNamespace(loggers=[])


def stand_in(kind, **attributes):
    """An object that `isinstance` takes for a logger of a kind, and that records calls of its client."""
    made = MagicMock(spec=kind)
    made.experiment = MagicMock()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def log_both(trainer, folder):
    log_picture(trainer, PICTURE, folder / "pictures" / "val.png", "val/pictures")
    log_table(trainer, ["class", "iou"], [["a", 0.5], ["b", None]], folder / "val_classes.csv", "val/classes")


def test_tensorboard(trainer, tmp_path):
    logger = stand_in(TensorBoardLogger)
    trainer.loggers.append(logger)
    log_both(trainer, tmp_path)
    (key, picture, step), options = logger.experiment.add_image.call_args
    assert (key, step, options) == ("val/pictures", 41, {"dataformats": "HWC"}) and (picture == PICTURE).all()
    logger.experiment.add_text.assert_called_once_with(
        "val/classes", "| class | iou |\n| --- | --- |\n| a | 0.5 |\n| b |  |", 41
    )


def test_mlflow_gets_the_files_as_artifacts(trainer, tmp_path):
    logger = stand_in(MLFlowLogger, run_id="r7")
    trainer.loggers.append(logger)
    files = []
    logger.experiment.log_artifact.side_effect = lambda run, path, folder: files.append((run, path, folder, read(path)))
    log_both(trainer, tmp_path)
    (first, second) = files
    assert first[:3] == ("r7", str(tmp_path / "pictures" / "val.png"), "pictures") and (first[3] == PICTURE).all()
    assert second == ("r7", str(tmp_path / "val_classes.csv"), "tables", [["class", "iou"], ["a", "0.5"], ["b", ""]])


def read(path):
    """What a file holds when it is logged."""
    if path.endswith(".png"):
        return np.asarray(Image.open(path))
    with Path(path).open(newline="") as file:
        return list(csv.reader(file))


def test_comet(trainer, tmp_path):
    logger = stand_in(CometLogger)
    trainer.loggers.append(logger)
    log_both(trainer, tmp_path)
    (picture,), options = logger.experiment.log_image.call_args
    assert (picture == PICTURE).all() and options == {"name": "val/pictures", "step": 41}
    logger.experiment.log_table.assert_called_once_with(str(tmp_path / "val_classes.csv"))


def test_any_logger_with_log_image(trainer, tmp_path):
    logger = MagicMock(spec=LogsImages)
    trainer.loggers.append(logger)
    log_both(trainer, tmp_path)
    ((key, pictures),) = [call.args for call in logger.log_image.call_args_list]
    assert key == "val/pictures" and (pictures[0] == PICTURE).all()


def test_a_csv_logger_leaves_them_to_the_folder(trainer, tmp_path):
    trainer.loggers.append(CSVLogger(tmp_path / "csv"))
    log_both(trainer, tmp_path)
    assert (np.asarray(Image.open(tmp_path / "pictures" / "val.png")) == PICTURE).all()
    assert read(str(tmp_path / "val_classes.csv"))[1] == ["a", "0.5"]
