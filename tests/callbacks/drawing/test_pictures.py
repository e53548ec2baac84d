"""Plots after validation: samples, content and destinations."""

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from striate.callbacks import Pictures, PredictionWriter
from striate.callbacks.drawing import pictures
from striate.callbacks.drawing.canvas import captions, confusion_figure, grid, panel
from striate.callbacks.drawing.colors import NEUTRAL, RIGHT, WRONG
from striate.datamodules import ImageFolder
from striate.tasks import Classification
from striate.tests.helpers.fixtures import TinyNet, make_folder
from striate.tests.helpers.text_fonts import use_fonts, write_font
from striate.tests.helpers.training import RecordingLogger


def test_captions_of_correct_wrong_and_unknown_predictions():
    prediction = {"label": 1, "score": 0.5}
    names = ["cat", "dog"]
    assert captions(prediction, {"label": torch.tensor(1)}, names) == [("dog  50 %", RIGHT), ("is dog", NEUTRAL)]
    assert captions(prediction, {"label": torch.tensor(0)}, names) == [("dog  50 %", WRONG), ("is cat", NEUTRAL)]
    assert captions(prediction, {}, []) == [("class 1  50 %", NEUTRAL)]


def test_panel_keeps_aspect_ratio_and_colors():
    image = np.zeros((10, 20, 3), np.uint8)
    image[:, :10] = (250, 0, 0)
    drawn = panel(image, [("a", RIGHT)], side=100, rows=1)
    assert drawn.shape == (126, 108, 3)
    assert drawn[54, 20].tolist() == [250, 0, 0] and drawn[54, 90].tolist() == [0, 0, 0]
    assert (drawn[10] == 255).all()  # twice as wide as high: white above


def test_grid_places_row_by_row():
    cells = [np.full((2, 3, 3), value, np.uint8) for value in (1, 2, 3)]
    assert grid(cells, columns=2)[:, :, 0].tolist() == [[1] * 3 + [2] * 3] * 2 + [[3] * 3 + [255] * 3] * 2


def test_confusion_figure_is_darkest_at_the_most_frequent_prediction():
    def middle(picture):
        return picture[picture.shape[0] // 4 : -picture.shape[0] // 4].astype(int)

    diagonal = confusion_figure(np.array([[9, 1], [0, 4]]), ["a", "b"], "t")
    swapped = confusion_figure(np.array([[1, 9], [4, 0]]), ["a", "b"], "t")
    assert diagonal.shape == swapped.shape and np.abs(middle(diagonal) - middle(swapped)).max() > 100
    assert confusion_figure(np.zeros((60, 60)), [str(k) for k in range(60)], "many").ndim == 3


def test_names_in_confusion_figures(tmp_path, monkeypatch):
    counts = np.eye(2)
    use_fonts(monkeypatch)
    with pytest.warns(UserWarning, match="class names drawn as numbers"):
        numbered = confusion_figure(counts, ["cat", "犬"], "t")
    np.testing.assert_array_equal(numbered, confusion_figure(counts, ["cat", "class 1"], "t"))
    use_fonts(monkeypatch, write_font(tmp_path / "blocks.ttf", "犬", "Confusion Blocks"))
    drawn = confusion_figure(counts, ["cat", "犬犬犬"], "t")
    dark = (drawn[:, :100] < 60).all(axis=2)
    assert np.lib.stride_tricks.sliding_window_view(dark, (10, 30)).all(axis=(2, 3)).any()  # three blocks in a row
    long = confusion_figure(counts, ["cat", "a very long name " * 20], "t")
    assert long.shape[1] <= 1.5 * drawn.shape[1] and not (long[:, :200] == long[0, 0]).all()


@pytest.fixture
def run(tmp_path):
    folder = make_folder(tmp_path / "data", per_class=8)

    def fit(*callbacks, epochs=2):
        data = ImageFolder(str(folder), val_fraction=0.5, batch_size=4, num_workers=0)
        logger = RecordingLogger(tmp_path / "out")
        torch.manual_seed(0)
        trainer = pl.Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=list(callbacks), logger=logger,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        task = Classification(TinyNet(), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05))
        trainer.fit(task, data)
        return logger, trainer, task

    return fit


def test_the_same_samples_each_epoch_as_png_and_on_loggers(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        pictures, "panel", lambda image, *more, **named: drawn.append(image) or panel(image, *more, **named)
    )
    logger, trainer, _ = run(Pictures(count=3))
    assert len(drawn) == 6  # the sanity check draws nothing
    dataset = trainer.val_dataloaders.dataset
    for number, index in enumerate(pictures.choose_samples(8, 3, seed=0)):
        np.testing.assert_array_equal(drawn[number], dataset[index]["image"])
        np.testing.assert_array_equal(drawn[number], drawn[number + 3])
    assert [key for key, _ in logger.images] == ["val/pictures"] * 2
    with Image.open(tmp_path / "out" / "pictures" / "val_epoch_001.png") as saved:
        np.testing.assert_array_equal(np.asarray(saved), logger.images[1][1])


def test_samples_are_chosen_by_seed_and_from_all_parts_of_the_data():
    first = pictures.choose_samples(1000, 16, seed=0)
    assert first == pictures.choose_samples(1000, 16, seed=0) != pictures.choose_samples(1000, 16, seed=1)
    assert [index * 16 // 1000 for index in first] == list(range(16)) != [index % 63 for index in first]
    assert pictures.choose_samples(6, 5, seed=0) == sorted(set(pictures.choose_samples(6, 5, seed=0)))
    assert pictures.choose_samples(0, 5, seed=0) == []
    with pytest.raises(ValueError, match="seed: must be >= 0, got -1"):
        Pictures(seed=-1)


def test_plots_every_second_epoch(run, tmp_path):
    run(Pictures(count=1, every_n_epochs=2), epochs=4)
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == [
        "val_epoch_001.png", "val_epoch_003.png"
    ]  # fmt: skip
    with pytest.raises(ValueError, match="count.*got 0"):
        Pictures(count=0)


def test_the_samples_and_their_size_can_be_chosen(run, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        pictures, "panel", lambda image, *more, **named: drawn.append(image) or panel(image, *more, **named)
    )
    _, trainer, _ = run(Pictures(samples=[5, 2], side=96), epochs=1)
    dataset = trainer.val_dataloaders.dataset
    for image, index in zip(drawn, (5, 2), strict=True):
        np.testing.assert_array_equal(image, dataset[index]["image"])
    with Image.open(tmp_path / "out" / "pictures" / "val_epoch_000.png") as saved:
        assert saved.size[0] == 2 * (96 + 8)


def test_an_index_beyond_the_data_is_rejected_before_training(run, tmp_path):
    with pytest.raises(ValueError, match="samples: must be < 8, the samples of val, got 9"):
        run(Pictures(samples=[0, 9]))
    assert not (tmp_path / "out" / "pictures").exists()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"side": 8}, "side: must be >= 32, got 8"),
        ({"score_threshold": 50}, r"score_threshold: must be in \[0, 1\], got 50"),
        ({"samples": []}, r"samples: must be indices >= 0, at least one, got \[\]"),
        ({"samples": [3, -1]}, r"samples: must be indices >= 0, .*got \[3, -1\]"),
    ],
)
def test_settings_out_of_range_are_rejected(arguments, message):
    for callback in (Pictures, PredictionWriter):
        with pytest.raises(ValueError, match=message):
            callback(**arguments)
