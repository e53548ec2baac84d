"""The lines at the end of a run: its files, and the score thresholds that its validation recommends."""

import math

import pytest
import torch

from striate.callbacks.tracking.report import describe_run
from striate.callbacks.tracking.thresholds import threshold_note, threshold_rows


@pytest.mark.parametrize("count, text", [(0, "0 plots"), (1, "1 plot"), (2, "2 plots")])
def test_plots_are_counted(tmp_path, count, text):
    (tmp_path / "pictures").mkdir()
    for number in range(count):
        (tmp_path / "pictures" / f"{number}.png").touch()
    assert describe_run(tmp_path).splitlines()[1:] == [f"    pictures  {text}"]


def test_thresholds_are_those_of_float32_and_undefined_ones_are_empty():
    score = torch.tensor(0.43)
    columns = {"threshold": [score.double().item(), math.nan, 0.5], "f1": [0.66666, math.nan, 0.5]}
    assert columns["threshold"][0] > 0.43 and bool(score >= 0.43)  # as predict compares
    assert threshold_rows(columns, ["cat", "dog"]) == [
        ["cat", 0.43, 0.6667],
        ["dog", None, None],
        ["(all classes)", 0.5, 0.5],
    ]


def test_the_note_names_the_thresholds_of_eight_classes(tmp_path):
    assert threshold_note(tmp_path) == ""
    lines = [f"c{n},0.{n},0.5,0.5,0.5" for n in range(1, 10)]
    (tmp_path / "val_thresholds.csv").write_text(
        "\n".join(["class,threshold,f1,precision,recall", *lines, "c10,,,,", "(all classes),0.42,0.81,0.8,0.8"])
    )
    note = threshold_note(tmp_path)
    assert "0.42 (F1 0.81)" in note
    assert "--model.score_threshold; per class: c1 0.10, c2 0.20" in note
    assert note.endswith("c8 0.80 and 1 more in val_thresholds.csv")
    (tmp_path / "val_thresholds.csv").write_text("class,threshold,f1\ncat,,\n(all classes),,\n")
    assert threshold_note(tmp_path) == ""
    (tmp_path / "val_thresholds.csv").write_text("class,threshold,f1\ncat,0.02,0.01\n(all classes),0.02,0.01\n")
    assert threshold_note(tmp_path) == ""  # of an untrained network
