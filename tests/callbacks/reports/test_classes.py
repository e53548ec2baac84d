"""The report per class: confusion matrix and table of a classifier."""

import pytest
import torch

from striate.callbacks import ClassReport
from striate.datamodules import ImageFolder
from striate.tasks import Classification
from striate.tests.helpers.fixtures import TinyNet, make_folder
from striate.tests.helpers.launcher import read_csv
from striate.tests.helpers.training import make_trainer


def test_the_report_counts_the_last_validation(tmp_path):
    data = ImageFolder(str(make_folder(tmp_path / "data", 8)), val_fraction=0.5, batch_size=4, num_workers=0)
    task = Classification(TinyNet(), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.05))
    make_trainer(max_epochs=2, callbacks=[ClassReport()], default_root_dir=tmp_path).fit(task, data)
    assert (tmp_path / "pictures" / "val_confusion.png").is_file()
    rows = (tmp_path / "val_confusion.csv").read_text().splitlines()
    assert rows[0] == "true \\ predicted,bright,dark"
    counts = [list(map(int, row.split(",")[1:])) for row in rows[1:]]
    assert counts == task.confusion_matrix("val").tolist() and sum(map(sum, counts)) == 8
    points = read_csv(tmp_path / "val_curves.csv")
    assert len(points) == 2 * 101 and (tmp_path / "pictures" / "val_curves.png").is_file()
    for label, row in enumerate(read_csv(tmp_path / "val_classes.csv")):
        assert row["class"] == ("bright", "dark")[label] and int(row["images"]) == 4
        assert float(row["accuracy"]) == pytest.approx(counts[label][label] / 4)
