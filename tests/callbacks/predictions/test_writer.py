"""Prediction writers: one per kind of task, and the plots that they draw."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import nn

from striate.callbacks import PredictionWriter
from striate.models import ActivationPair
from striate.tasks import (
    ActivationComparison,
    Classification,
    Detection,
    Localization,
    SemanticSegmentation,
    Task,
)
from striate.tests.helpers.fixtures import TinyNet, write_image
from striate.tests.helpers.tiny_detector import Known
from striate.tests.helpers.tiny_segmenter import TinySegmenter

OBJECTS = {
    "boxes": torch.tensor([[2.0, 2, 20, 20], [30, 2, 50, 20]]),
    "labels": torch.tensor([0, 1]),
    "scores": torch.tensor([0.9, 0.31]),
}
NO_OBJECTS = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "scores": torch.zeros(0)}
CLASS = {"label": 1, "score": 0.5, "top_labels": [1], "top_scores": [0.5]}


class Detection2(Detection):
    """A subclass, which is written like its base class."""


def trainer_of(folder):
    return SimpleNamespace(log_dir=str(folder), global_rank=0, world_size=1, predict_dataloaders=None)


@pytest.mark.parametrize(
    "task, writer",
    [
        (Classification(TinyNet()), "TaskWriter"),
        (ActivationComparison(ActivationPair(2, widths=(4, 4, 4))), "TaskWriter"),
        (Localization(TinyNet()), "BoxWriter"),
        (SemanticSegmentation(TinySegmenter(2)), "MaskWriter"),
        (Detection(Known([])), "DetectionWriter"),
        (Detection2(Known([])), "DetectionWriter"),
    ],
)
def test_the_kind_of_task_selects_the_only_writer(task, writer, tmp_path):
    callback = PredictionWriter()
    callback.on_predict_start(trainer_of(tmp_path), task)
    assert type(callback._writer).__name__ == writer


def test_a_task_of_unknown_kind_is_rejected(tmp_path):
    model = nn.Identity()
    with pytest.raises(TypeError, match="PredictionWriter: .*classification, localization.*got Task"):
        PredictionWriter().on_predict_start(trainer_of(tmp_path), Task(model, num_classes=2))


@pytest.mark.parametrize("per_class", [False, True])
def test_columns_of_localization(per_class, tmp_path):
    boxes = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])
    prediction = {"top_labels": [1, 0], "top_scores": [0.75, 0.25], "box": boxes[0]}
    prediction |= {"top_boxes": boxes} if per_class else {}
    callback = PredictionWriter()
    callback.on_predict_start(trainer_of(tmp_path), Localization(TinyNet()))
    header = callback._writer.header(prediction)
    (row,) = callback._writer.rows("a.png", 0, prediction, (9, 9))
    first = {"path": "a.png", "label": "1", "score": "0.750000", "x1": "1.00", "y1": "2.00", "x2": "3.00", "y2": "4.00"}
    second = {"label_2": "0", "score_2": "0.250000"}
    second |= {"x1_2": "5.00", "y1_2": "6.00", "x2_2": "7.00", "y2_2": "8.00"} if per_class else {}
    assert dict(zip(header, row, strict=True)) == first | second


@pytest.fixture
def draw(tmp_path, monkeypatch):
    """Write a prediction, and return its plot as read from the file, and the texts in it."""
    texts, draw_text = [], ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text",
        lambda self, xy, text, *args, **kwargs: texts.append(text) or draw_text(self, xy, text, *args, **kwargs),
    )  # fmt: skip

    def draw(size, prediction=OBJECTS, settings=None, **arguments):
        texts.clear()
        path = tmp_path / "new" / "one.png"
        write_image(path, np.full((*size, 3), 128, np.uint8))
        task = Detection(Known([]), **arguments) if "boxes" in prediction else Classification(TinyNet())
        task.class_names = ["cat", "dog"]
        batch = {"path": [str(path)], "index": [3], "file_size": torch.tensor([size])}
        writer, trainer = PredictionWriter(**(settings or {})), trainer_of(tmp_path / "out")
        writer.on_predict_start(trainer, task)
        writer.write_on_batch_end(trainer, task, [prediction], None, batch, 0, 0)
        with Image.open(tmp_path / "out" / "pictures" / "00003_one.png") as file:
            return np.asarray(file), texts

    return draw


def test_objects_of_score_one_half_are_drawn_by_default(draw):
    assert draw((60, 60))[1] == ["cat  90%", "cat", "one.png, 1 below 50 % not drawn"]


def test_all_objects_above_the_threshold_of_the_task_are_drawn(draw):
    assert draw((60, 60), score_threshold=0.3)[1] == ["dog  31%", "cat  90%", "cat", "dog", "one.png"]


def test_the_plots_have_settings(draw, tmp_path):
    assert draw((60, 60), settings={"score_threshold": 0.3})[1][-1] == "one.png"
    assert draw((60, 60), settings={"labels": False})[1] == ["cat", "one.png, 1 below 50 % not drawn"]
    assert max(draw((60, 60), settings={"side": 200})[0].shape) < 270
    assert draw((60, 60), settings={"score_threshold": 0.95})[1][-1] == "one.png, 2 below 95 %"
    (tmp_path / "out" / "pictures" / "00003_one.png").unlink()
    with pytest.raises(FileNotFoundError):
        draw((60, 60), settings={"samples": [2, 4]})  # the image has index 3


def gray_area(picture):
    """Height and width of the gray image on its paper, which a box may partly cover."""
    rows, columns = np.nonzero((picture == 128).all(axis=2))
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


@pytest.mark.parametrize("prediction", [NO_OBJECTS, CLASS], ids=["objects", "class"])
@pytest.mark.parametrize(
    "size, drawn_size",
    [((60, 3000), (60, 3000)), ((3000, 60), (3000, 60)), ((400, 4000), (112, 1120)), ((90, 9000), (36, 3584)),
     ((30, 40), (336, 448)), ((1200, 900), (448, 336))],
)  # fmt: skip
def test_the_paper_has_the_shape_of_the_image(draw, prediction, size, drawn_size):
    picture, texts = draw(size, prediction)
    assert gray_area(picture) == pytest.approx(drawn_size, abs=1)
    assert texts[-1] == "one.png"  # in full, even for a narrow image
    assert picture.shape[0] <= drawn_size[0] + 8 + 60
    assert picture.shape[1] <= max(drawn_size[1], 140) + 8


def test_boxes_are_drawn_in_place_in_a_strip(draw):
    picture, _ = draw((60, 3000), {**NO_OBJECTS, "boxes": torch.tensor([[1000.0, 20, 1100, 50]]),
                                   "labels": torch.tensor([0]), "scores": torch.tensor([0.9])})  # fmt: skip
    red = (picture[:68] == (242, 36, 36)).all(axis=2)
    assert red[4 + 40, 4 + 1000] and red[4 + 40, 4 + 1099] and not red[4 + 40, 4 + 1002 : 4 + 1098].any()
