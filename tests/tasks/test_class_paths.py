"""Checkpoints whose hyperparameters name classes that have moved."""

import pytest
import torch
import yaml

from striate.tasks import ActivationComparison, Classification
from striate.tasks.class_paths import current_path, update_class_paths
from striate.tests.helpers.fixtures import make_folder
from striate.tests.helpers.launcher import CLASSIFICATION, launch


def test_paths_are_found_by_name_in_their_part():
    assert current_path("striate.models.fcn.FCN") == "striate.models.FCN"  # the file has moved
    assert current_path("striate.models.race.ActivationRace") == "striate.models.ActivationPair"  # a new name too
    assert current_path("striate.models.segmentation.FCN") == "striate.models.segmentation.FCN"  # exists
    assert current_path("mine.models.Net") == "mine.models.Net"
    nested = {"model": {"class_path": "striate.models.fcn.FCN", "init_args": {"parts": [{"class_path": "a.B"}]}}}
    assert update_class_paths(nested) == {
        "model": {"class_path": "striate.models.FCN", "init_args": {"parts": [{"class_path": "a.B"}]}}
    }


def test_an_old_checkpoint_loads_or_is_rejected_in_one_line(workdir):
    make_folder(workdir / "data", per_class=8)
    backbone = {"class_path": "striate.models.PlainCNN", "init_args": {"widths": [8]}}
    model = {"class_path": "striate.models.Classifier", "init_args": {"backbone": backbone, "num_classes": 2}}
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    config["model"]["init_args"] |= {"model": model, "scheduler": {"class_path": "striate.tasks.Cosine"}}
    (workdir / "plain.yaml").write_text(yaml.safe_dump(config))
    launch("fit", "--config", "plain.yaml", "--trainer.max_epochs", 1)
    path = workdir / "runs" / "plain" / "fit-1" / "checkpoints" / "last.ckpt"
    content = torch.load(path, weights_only=True)
    arguments = content["hyper_parameters"]
    arguments["model"]["class_path"] = "striate.models.classifier.Classifier"
    arguments["scheduler"]["class_path"] = "striate.tasks.lr_schedules.Cosine"
    torch.save(content, "moved.ckpt")
    task = Classification.load_from_checkpoint("moved.ckpt")
    for key, value in task.state_dict().items():
        assert torch.equal(value, content["state_dict"][key]), key

    arguments["model"]["class_path"] = "striate.models.classifier.Gone"
    torch.save(content, "gone.ckpt")
    with pytest.raises(ValueError, match=r"striate\.models\.classifier\.Gone.*no longer exists") as error:
        Classification.load_from_checkpoint("gone.ckpt")
    assert "\n" not in str(error.value)

    arguments["model"] |= {"class_path": "striate.models.Classifier", "init_args": {"bottleneck": 3}}
    torch.save(content, "arguments.ckpt")
    with pytest.raises(ValueError, match=r"arguments.ckpt.*bottleneck") as error:
        Classification.load_from_checkpoint("arguments.ckpt")
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_a_renamed_task_loads(workdir):
    make_folder(workdir / "data", per_class=8)
    pair = {"class_path": "striate.models.ActivationPair", "init_args": {"num_classes": 2, "widths": [4, 4, 4]}}
    optimizer = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1}}
    config = yaml.safe_load(yaml.safe_dump(CLASSIFICATION))
    arguments = {"model": pair, "optimizer": optimizer}
    config["model"] = {"class_path": "striate.tasks.ActivationComparison", "init_args": arguments}
    (workdir / "pair.yaml").write_text(yaml.safe_dump(config))
    launch("fit", "--config", "pair.yaml", "--trainer.max_epochs", 1)
    content = torch.load(workdir / "runs" / "pair" / "fit-1" / "checkpoints" / "last.ckpt", weights_only=True)
    content["hyper_parameters"]["_class_path"] = "striate.tasks.TrainingRace"
    content["hyper_parameters"]["model"]["class_path"] = "striate.models.ActivationRace"
    torch.save(content, "renamed.ckpt")
    task = ActivationComparison.load_from_checkpoint("renamed.ckpt")
    assert len(task.errors["relu"]) == 1 and task.num_classes == 2
