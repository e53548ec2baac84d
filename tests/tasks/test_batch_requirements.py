"""Data of another task than the model's: one line that says what is wanted, what is given, and what to set."""

import re

import pytest
import pytorch_lightning as pl
import torch

import striate.datamodules
from striate.datamodules import CocoDetection, DigitScenes, ImageFolder
from striate.tasks import Classification, Detection, Localization, SemanticSegmentation
from striate.tasks.batch_requirements import WANTED, check_batch, task_of_batch
from striate.tests.helpers.fixtures import TinyNet
from striate.tests.helpers.tiny_detector import TinyDetector
from striate.tests.helpers.tiny_segmenter import TinySegmenter

TASKS = {
    "classification": lambda classes: Classification(TinyNet(classes)),
    "localization": lambda classes: Localization(TinyNet(classes)),
    "semantic_segmentation": lambda classes: SemanticSegmentation(TinySegmenter(classes)),
    "detection": lambda classes: Detection(TinyDetector(classes)),
}


def run(task, data, what):
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", fast_dev_run=1, enable_model_summary=False, **quiet, num_sanity_val_steps=0)
    getattr(trainer, what)(task, datamodule=data)


@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.parametrize("what", ["fit", "validate"])
@pytest.mark.parametrize(
    "wanted, given",
    [
        ("classification", "detection"),
        ("classification", "semantic_segmentation"),
        ("localization", "classification"),
        ("semantic_segmentation", "instance_segmentation"),
        ("detection", "classification"),
        ("detection", "localization"),
    ],
)
def test_data_of_another_task_is_refused_in_one_line(wanted, given, what):
    data = DigitScenes(given, image_size=32, train_size=4, val_size=4, batch_size=2, num_workers=0)
    task = TASKS[wanted](len(data.class_names))
    with pytest.raises(ValueError, match=re.escape(f"needs {WANTED[wanted][1]} ({wanted}), but the data ")) as error:
        run(task, data, what)
    said = str(error.value)
    assert "\n" not in said and said.startswith(type(task).__name__)
    assert said.endswith(f"DigitScenes gives {WANTED[given][1]} ({given}): set data.init_args.task: {wanted}")


def test_a_batch_with_more_will_do():
    box = {"boxes": torch.zeros(0, 4), "masks": torch.zeros(0, 4, 4)}
    check_batch({"label": 0, "box": 0}, "classification", "A", None)
    check_batch({"target": [box]}, "detection", "A", None)
    check_batch({"target": [box]}, "instance_segmentation", "A", None)
    with pytest.raises(
        ValueError, match=r"A needs boxes with labels and masks .*but the batch has boxes with labels \(det"
    ):
        check_batch({"target": [{"boxes": 0}]}, "instance_segmentation", "A", None)
    assert task_of_batch({"image": 0}) is None


@pytest.mark.parametrize(
    "data, wanted, cure",
    [
        (CocoDetection("x"), "instance_segmentation", "set data.init_args.task: instance_segmentation"),
        (CocoDetection("x"), "localization", "use CocoLocalization, VOCLocalization or LocalizationManifest"),
        (ImageFolder("x"), "detection", "use CocoDetection, VOCDetection or YoloDetection"),
        (None, "classification", "use ImageFolder or Manifest"),
    ],
)
def test_the_cure_is_an_argument_or_a_class(data, wanted, cure):
    with pytest.raises(ValueError, match=f"images without targets: {cure}$"):
        check_batch({"image": 0}, wanted, "Task", data)


def test_the_data_modules_named_are_there():
    for _, _, readers in WANTED.values():
        assert all(hasattr(striate.datamodules, reader.split()[0]) for reader in readers)
