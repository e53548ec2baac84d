"""What whole runs of the five tasks record on W&B: samples chosen by seed, scores, matrices, curves, tables."""

import copy

import pytest
import wandb
import yaml

from striate.tests.helpers.digit_configs import CLASSIFICATION, DETECTION, INSTANCES, LOCALIZATION, SEGMENTATION
from striate.tests.helpers.launcher import launch, read_csv
from striate.tests.helpers.wandb_runs import read_run, read_table

CURVES = {"val/curves", "val/curves_chart_table", "val/curves_table"}
CONFUSION = {"val/confusion", "val/confusion_table"}
OBJECTS = {"val/objects_confusion", "val/objects_confusion_table", "val/thresholds"}

TASKS = {
    "classification": (CLASSIFICATION, "loss", set(), CURVES | CONFUSION),
    "localization": (LOCALIZATION, "IoU", {"boxes"}, CURVES | CONFUSION),
    "semantic_segmentation": (SEGMENTATION, "IoU", {"masks"}, CONFUSION),
    "detection": (DETECTION, "AP50", {"boxes"}, CURVES | OBJECTS),
    "instance_segmentation": (INSTANCES, "AP50", {"boxes", "masks"}, CURVES | OBJECTS),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools
@pytest.mark.parametrize("task", TASKS)
def test_media_of_a_run(task, workdir):
    config, score, layers, expected = TASKS[task]
    config = copy.deepcopy(config)
    config["trainer"] |= {"max_epochs": 2, "limit_train_batches": 1, "callbacks": [
        {"class_path": "striate.callbacks.Pictures", "init_args": {"count": 3}}]}  # fmt: skip
    config["wandb"] = {"mode": "offline"}
    (workdir / "run.yaml").write_text(yaml.safe_dump(config))
    orders = []
    for seed in (0, 1):
        launch("fit", "--config", "run.yaml", "--seed_everything", seed, "--trainer.enable_model_summary", "false")
        wandb.teardown()
        folder = workdir / "runs" / "run" / f"fit-{seed + 1}"
        (record,) = folder.glob("wandb/offline-run-*")
        found = read_run(record)
        history = found["history"]
        pictures = [row["val/pictures"] for row in history if "val/pictures" in row]
        assert len(pictures) == 2 and pictures[0]["filenames"] == pictures[1]["filenames"]  # one image, two predictions
        keys = {key for row in history for key in row if key.startswith("val/")} | {"val/samples"}
        assert expected | {"val/pictures", "val/classes", "val/samples"} <= keys
        assert ("val/curves" in keys) == ("val/curves" in expected)
        table = read_table(found, "val/samples")
        assert table["columns"] == ["image", "sample", score, "ground truth", "prediction"] and len(table["data"]) == 3
        assert {kind for kind in ("boxes", "masks") if table["data"][0][0].get(kind)} == layers
        scores = [row[2] for row in table["data"] if row[2] is not None]
        assert scores == sorted(scores, reverse=score == "loss")
        orders.append(sorted(row[1] for row in table["data"]))
        if "val/curves" in expected:
            assert read_csv(folder / "val_curves.csv") and (folder / "pictures" / "val_curves.png").is_file()
    assert orders[0] == orders[1]  # whatever the seed of the run
