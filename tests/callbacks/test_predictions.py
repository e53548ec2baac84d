"""Pictures of predictions: which objects they show, and in what shape."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from striate.callbacks import PredictionWriter
from striate.tests.fixtures import write_image

FOUND = {
    "boxes": torch.tensor([[2.0, 2, 20, 20], [30, 2, 50, 20]]),
    "labels": torch.tensor([0, 1]),
    "scores": torch.tensor([0.9, 0.31]),
}


@pytest.fixture
def drawn(tmp_path, monkeypatch):
    """The picture of a prediction, as its file has it, and its texts."""
    texts, draw = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, text, *a, **k: texts.append(text) or draw(self, xy, text, *a, **k)
    )

    def drawn(size, prediction=FOUND, **task):
        texts.clear()
        path = tmp_path / "new" / "one.png"
        write_image(path, np.full((*size, 3), 128, np.uint8))
        trainer = SimpleNamespace(log_dir=str(tmp_path / "out"), global_rank=0, world_size=1, predict_dataloaders=None)
        task = SimpleNamespace(class_names=["cat", "dog"], num_classes=2, **task)
        batch = {"path": [str(path)], "index": [3], "file_size": torch.tensor([size])}
        writer = PredictionWriter()
        writer.on_predict_start(trainer, task)
        writer.write_on_batch_end(trainer, task, [prediction], None, batch, 0, 0)
        with Image.open(tmp_path / "out" / "pictures" / "00003_one.png") as file:
            return np.asarray(file), texts

    return drawn


def test_objects_from_half_on_are_drawn(drawn):
    for task in ({}, {"score_threshold": 0.0}):
        assert drawn((60, 60), **task)[1] == ["cat 90%", "cat", "one.png, 1 of less than 50 % not drawn"]


def test_all_that_passes_the_users_threshold_is_drawn(drawn):
    assert drawn((60, 60), score_threshold=0.3)[1] == ["dog 31%", "cat 90%", "cat", "dog", "one.png"]
