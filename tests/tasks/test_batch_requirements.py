"""Data of another task than the model's: one line with command is needed, command the data has, and command to set."""

import re

import pytest
import pytorch_lightning as pl
import torch

import striate.datamodules
from striate.datamodules import CocoDetection, DigitScenes, ImageFolder
from striate.tasks import Classification, Detection, Localization, SemanticSegmentation
from striate.tasks.batch_requirements import REQUIREMENTS, check_batch, task_of_batch
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.tiny_detector import TinyDetector
from striate.tests.helpers.tiny_segmenter import TinySegmenter

TASKS = {
    "classification": lambda classes: Classification(TinyNet(classes)),
    "localization": lambda classes: Localization(TinyNet(classes)),
    "semantic_segmentation": lambda classes: SemanticSegmentation(TinySegmenter(classes)),
    "detection": lambda classes: Detection(TinyDetector(classes)),
}


def run(task, data, command):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", fast_dev_run=1, enable_model_summary=False, **quiet, num_sanity_val_steps=0)
    getattr(trainer, command)(task, datamodule=data)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("command", ["fit", "validate"])
@pytest.mark.parametrize(
    "needed, provided_kind",
    [
        ("classification", "detection"),
        ("classification", "semantic_segmentation"),
        ("localization", "classification"),
        ("semantic_segmentation", "instance_segmentation"),
        ("detection", "classification"),
        ("detection", "localization"),
    ],
)
def test_data_of_another_task_is_rejected_in_one_line(needed, provided_kind, command):
    data = DigitScenes(provided_kind, image_size=32, train_size=4, val_size=4, batch_size=2, num_workers=0)
    task = TASKS[needed](len(data.class_names))
    with pytest.raises(
        ValueError, match=re.escape(f"needs {REQUIREMENTS[needed].description} ({needed}), got ")
    ) as error:
        run(task, data, command)
    message = str(error.value)
    assert "\n" not in message and message.startswith(f"data: {type(task).__name__} ")
    provided = f"got {REQUIREMENTS[provided_kind].description} ({provided_kind}) from the data module DigitScenes"
    assert message.endswith(f"{provided}; set task: {needed}")


def test_additional_fields_are_allowed():
    box = {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 4, 4)}
    check_batch({"label": 0, "box": 0}, "classification", "A", None)
    check_batch({"target": [box]}, "detection", "A", None)
    check_batch({"target": [box]}, "instance_segmentation", "A", None)
    with pytest.raises(ValueError, match=r"A needs labeled boxes with masks .*got labeled boxes \(det"):
        check_batch({"target": [{"boxes": 0}]}, "instance_segmentation", "A", None)
    assert task_of_batch({"image": 0}) is None


@pytest.mark.parametrize(
    "data, needed, fix",
    [
        (CocoDetection("x"), "instance_segmentation", "set task: instance_segmentation"),
        (CocoDetection("x"), "localization", "use CocoLocalization, .*LocalizationManifest"),
        (ImageFolder("x"), "detection", "use CocoDetection, VOCDetection or YoloDetection"),
        (None, "classification", "use ImageFolder or Manifest"),
    ],
)
def test_the_fix_is_an_argument_or_a_class(data, needed, fix):
    with pytest.raises(ValueError, match=f"images without targets.*; {fix}$"):
        check_batch({"image": 0}, needed, "Task", data)


def test_the_data_modules_in_messages_exist():
    for requirement in REQUIREMENTS.values():
        assert all(hasattr(striate.datamodules, name.split()[0]) for name in requirement.datamodules)
