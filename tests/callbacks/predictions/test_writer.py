"""Pictures of predictions: which objects they show, and in what shape."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from striate.callbacks import PredictionWriter
from striate.tests.helpers.fixtures import write_image

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
        assert drawn((60, 60), **task)[1] == ["cat  90%", "cat", "one.png, 1 of less than 50 % not drawn"]


def test_all_that_passes_the_users_threshold_is_drawn(drawn):
    assert drawn((60, 60), score_threshold=0.3)[1] == ["dog  31%", "cat  90%", "cat", "dog", "one.png"]


def seen(picture):
    """Height and width of the gray image on its paper; a box may cover some of it."""
    rows, columns = np.nonzero((picture == 128).all(axis=2))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


NOTHING = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
CLASS = {"label": 1, "score": 0.5, "top_labels": [1], "top_scores": [0.5]}


@pytest.mark.parametrize("prediction", [NOTHING, CLASS], ids=["objects", "class"])
@pytest.mark.parametrize(
    "size, shown",
    [((60, 3000), (60, 3000)), ((3000, 60), (3000, 60)), ((400, 4000), (112, 1120)), ((90, 9000), (36, 3584)),
     ((30, 40), (336, 448)), ((1200, 900), (448, 336))],
)  # fmt: skip
def test_the_paper_has_the_shape_of_the_image(drawn, prediction, size, shown):
    picture, texts = drawn(size, prediction)
    assert seen(picture) == pytest.approx(shown, abs=1)
    assert texts[-1] == "one.png"  # in full, however narrow the image
    assert picture.shape[0] <= shown[0] + 8 + 54
    assert picture.shape[1] <= max(shown[1], 120) + 8


def test_boxes_lie_right_in_a_strip(drawn):
    picture, _ = drawn((60, 3000), {**NOTHING, "boxes": torch.tensor([[1000.0, 20, 1100, 50]]),
                                    "labels": torch.tensor([0]), "scores": torch.tensor([0.9])})  # fmt: skip
    red = (picture[:68] == (242, 36, 36)).all(axis=2)
    assert red[4 + 40, 4 + 1000] and red[4 + 40, 4 + 1099] and not red[4 + 40, 4 + 1002 : 4 + 1098].any()
