"""The detection task over a detector of a few layers: training targets, metrics, predictions."""

import math

import numpy as np
import pytest
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torchvision.models.detection import ssdlite320_mobilenet_v3_large

from striate.datamodules import DigitScenes, VOCDetection
from striate.datamodules.base import VisionDataModule
from striate.models import SSD, PlainCNN
from striate.models.detection import Detector, detector
from striate.tasks import Detection
from striate.tasks.detection import drop_ignored_targets
from striate.tests.helpers.coco_voc import write_voc
from striate.tests.helpers.components import ComponentBoxes, painted
from striate.tests.helpers.detector_inputs import detection_batch, detection_target, enlarged_batch, random_images
from striate.tests.helpers.tiny_detector import Known, TinyDetector
from striate.tests.helpers.tiny_segmenter import TinySegmenter
from striate.tests.helpers.training import Batches, make_trainer

# one correct detection (class 1, the lower right quarter), one of high score on the background
KNOWN = [[0.5, 0.5, 1.0, 1.0, 1, 0.9], [0.0, 0.0, 0.2, 0.2, 0, 0.8]]


def evaluated(task, batches, **more):
    (metrics,) = make_trainer(max_epochs=1).validate(task, Batches(batches, **more), verbose=False)
    return metrics


def test_boxes_are_compared_in_pixels_of_each_image():
    sizes = [(40, 60), (64, 32)]
    targets = [detection_target([[30, 20, 60, 40]], [1]), detection_target([[16, 32, 32, 64], [0, 40, 10, 60]], [1, 0])]
    metrics = evaluated(Detection(Known(KNOWN), voc=2007), [detection_batch(sizes, targets)])
    # class 1: both detected. Class 0: one object, missed
    assert metrics["val/map"] == metrics["val/map50"] == metrics["val/voc_map"] == pytest.approx(0.5)
    assert metrics["val/mar100"] == pytest.approx(0.5) and "val/loss" not in metrics
    assert math.isnan(metrics["val/map_large"])  # there are none
    half = [detection_target([[30, 20, 60, 36]], [1])]  # IoU 16 / 20: correct at seven of ten thresholds
    metrics = evaluated(Detection(Known(KNOWN[:1])), [detection_batch(sizes[:1], half)])
    assert metrics["val/map"] == pytest.approx(0.7) and metrics["val/map75"] == 1


def test_class_table_with_both_metrics():
    task = Detection(Known(KNOWN), voc=2012)
    targets = [detection_target([[30, 20, 60, 40], [0, 0, 5, 5]], [1, 1], difficult=[False, True])]
    evaluated(task, [detection_batch([(40, 60)], targets)])
    table = task.class_table("val")
    assert table["objects"].tolist() == [0, 2]
    assert math.isnan(table["ap"][0]) and float(table["ap50"][1]) == pytest.approx(51 / 101)
    assert float(table["voc_ap"][1]) == 1  # the difficult object is no miss


def test_crowds_are_neither_trained_on_nor_missed():
    targets = [detection_target([[30, 20, 60, 40], [0, 0, 12, 8]], [1, 0], iscrowd=[False, True])]
    assert evaluated(Detection(Known(KNOWN)), [detection_batch([(40, 60)], targets)])["val/map"] == 1
    model = Known(KNOWN)
    Detection(model).losses(detection_batch([(40, 60)], targets))
    assert model.seen[0]["boxes"].tolist() == [[30, 20, 60, 40]] and model.seen[0]["labels"].tolist() == [1]


def test_flags_select_the_training_targets_in_every_field():
    boxes = [[0, 0, 1, 1], [0, 0, 2, 2], [0, 0, 3, 3], [0, 0, 4, 4]]
    flags = {"iscrowd": [False, True, False, False], "difficult": [False, False, True, False]}
    one = detection_target(boxes, [0, 1, 0, 1], **flags) | {"masks": torch.arange(4).reshape(4, 1, 1)}
    for difficult, kept in ((True, [0, 2, 3]), (False, [0, 3])):
        (left,) = drop_ignored_targets([one], difficult)
        assert left["boxes"].tolist() == [boxes[k] for k in kept]
        assert left["masks"].flatten().tolist() == kept and left["labels"].tolist() == [k % 2 for k in kept]
        assert left["area"].tolist() == [(k + 1) ** 2 for k in kept] and int(left["image_id"]) == 7
        assert not left.keys() & {"iscrowd", "difficult"} and drop_ignored_targets([left], difficult) == [left]
    (empty,) = drop_ignored_targets([detection_target([], [])])
    assert empty["boxes"].shape == (0, 4)


def test_ignored_targets_are_dropped_in_training_and_kept_in_evaluation():
    targets = [
        detection_target([[30, 20, 60, 40], [0, 0, 12, 8]], [1, 0], iscrowd=[False, True], difficult=[True, False])
    ]
    model = Known(KNOWN)
    task = Detection(model, train_on_difficult=False, optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    trainer = make_trainer(max_epochs=1)
    trainer.fit(task, Batches([detection_batch([(40, 60)], targets)]))
    assert len(model.seen[0]["boxes"]) == 0
    assert trainer.callback_metrics["val/map"] == 1 and "val/loss" not in trainer.callback_metrics


@pytest.mark.filterwarnings("ignore:metrics of val will measure nothing")
def test_training_without_difficult_objects_needs_others(tmp_path):
    write_voc(tmp_path, {name: [("car", (1, 1, 30, 40), 1)] for name in ("000005", "000007")})
    data = VOCDetection(str(tmp_path), "2007", class_names=["car"], num_workers=0)
    task = Detection(TinyDetector(1), train_on_difficult=False)
    with pytest.raises(ValueError, match=r"^train_on_difficult: must be true, .*2 are difficult"):
        make_trainer(max_steps=1).fit(task, data)
    make_trainer(max_steps=1, limit_val_batches=0).fit(Detection(TinyDetector(1)), data)  # with them there is


def test_every_loss_is_logged_and_their_sum():
    data = DigitScenes("detection", image_size=32, train_size=4, val_size=2, batch_size=4, num_workers=0)
    trainer = make_trainer(max_epochs=1)
    trainer.fit(Detection(TinyDetector(10)), data)
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("train/")}
    assert logged.keys() == {"train/loss", "train/loss_class", "train/loss_box"}
    assert logged["train/loss"] == pytest.approx(logged["train/loss_class"] + logged["train/loss_box"])


def test_eight_images_are_overfitted():
    data = DigitScenes("detection", image_size=48, max_digits=2, train_size=8, val_size=1, batch_size=8, num_workers=0)
    data.setup("fit")
    scenes = next(iter(data.train_dataloader()))
    task = Detection(TinyDetector(10), optimizer=lambda groups: torch.optim.Adam(groups, lr=0.01))
    optimizer = task.train().configure_optimizers()
    for _ in range(140):
        losses, _ = task.losses(scenes)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
    metrics = evaluated(task.eval(), [scenes], class_names=[str(k) for k in range(10)])
    assert metrics["val/map50"] >= 0.95


def test_score_threshold_and_nms_apply_to_predictions_only():
    objects = [[0, 0, 0.5, 0.5, 1, 0.9], [0, 0, 0.5, 0.4, 1, 0.7], [0, 0, 0.5, 0.4, 0, 0.6], [0.5, 0, 1, 1, 1, 0.3]]
    task = Detection(Known(objects), score_threshold=0.4, nms_iou=0.6)
    (found,) = task.predict(random_images((20, 40)))
    assert found["labels"].tolist() == [1, 0] and found["boxes"].tolist() == [[0, 0, 20, 10], [0, 0, 20, 8]]
    (kept,) = Detection(Known([[0, 0, 1, 1, 1, 0.5]]), score_threshold=0.5).predict(random_images((20, 40)))
    assert len(kept["labels"]) == 1  # from that score on
    (all_of_them,) = Detection(Known(objects)).predict(random_images((20, 40))[0][None])
    assert all_of_them["scores"].tolist() == pytest.approx([0.9, 0.7, 0.6, 0.3])
    targets = [detection_target([[20, 0, 40, 20]], [1])]  # detected only by the box of lowest score
    assert evaluated(task, [detection_batch([(20, 40)], targets)])["val/map50"] == pytest.approx(1 / 3)


def test_windows_join_the_boxes_that_they_divide():
    image = painted((40, 60), [(1, 200, slice(5, 30), slice(8, 58)), (0, 100, slice(32, 38), slice(2, 6))])
    task = Detection(ComponentBoxes(), window=(32, 24), score_threshold=0.5)
    (found,) = task.predict(image)
    assert found["boxes"].tolist() == [[8, 5, 58, 30]] and found["labels"].tolist() == [1]
    assert {view[1:] for view in task.model.views} == {(32, 24)}


def test_predicted_boxes_are_in_pixels_of_the_file():
    task = Detection(Known([[0.25, 0.5, 1.0, 1.0, 1, 0.9], [0, 0, 0.1, 1.0, 0, 0.8]]))
    (found,) = task.predict_step(enlarged_batch(), 0)
    assert found["boxes"].tolist() == [[4, 9, 40, 20]]  # the other lies in the padding
    assert found["labels"].tolist() == [1]


def test_one_class_is_enough():
    targets = [detection_target([[30, 20, 60, 40]], [0])]
    metrics = evaluated(
        Detection(Known([[0.5, 0.5, 1, 1, 0, 0.9]], 1)), [detection_batch([(40, 60)], targets)], class_names=["cat"]
    )
    assert metrics["val/map"] == 1
    with pytest.raises(ValueError, match="class_names: Batches must have >= 1 classes, got 0"):
        evaluated(Detection(Known(KNOWN)), [], class_names=[])
    with pytest.raises(ValueError, match="num_classes: .*Batches has 3 classes.*got 2 from .*Known"):
        evaluated(Detection(Known(KNOWN)), [], class_names=["a", "b", "c"])


@pytest.mark.parametrize(
    "losses, description",
    [
        (torch.zeros(()), r"a tensor \[\]"),
        ([torch.zeros(())], "a list"),
        ({}, "an empty dict"),
        ({"loss_box": torch.zeros(2, 3)}, r"a tensor \[2, 3\] as 'loss_box'"),
        ({"loss_class": torch.zeros(()), "loss_box": 1.5}, "a float as 'loss_box'"),
    ],
)
def test_losses_of_another_type_are_rejected(losses, description):
    class Half(TinyDetector):
        def losses(self, images, targets, targets_checked=False):
            return losses

    task, one = Detection(Half(2)), detection_batch([(16, 16)], [detection_target([[0, 0, 8, 8]], [1])])
    with pytest.raises(TypeError, match=f"^losses: must be a dict.*, got {description} from Half"):
        make_trainer(max_epochs=1).fit(task, Batches([one]))


def test_models_that_are_no_detectors_are_rejected():
    published = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    with pytest.raises(TypeError, match="model: .*losses.*got torchvision's SSD.*TorchvisionDetector"):
        Detection(published, num_classes=3)
    with pytest.raises(TypeError, match="model: must be a detector.*losses.*got TinySegmenter"):
        Detection(TinySegmenter(3))

    class Classifier(nn.Module):
        num_classes, losses = 2, Detector.losses

        def forward(self, images):
            return self.answer

    task, one = Detection(Classifier()), random_images((8, 8))
    for answer, message in (
        (torch.zeros(1, 2), "1 images, got Tensor"),
        ([{}, {}], "1 images, got a list of 2"),
        ([{"labels": 1, "masks": 2}], "boxes, scores and labels.*got the keys labels, masks for an image"),
        ([torch.zeros(2)], "got Tensor for an image"),
    ):
        task.model.answer = answer
        with pytest.raises(TypeError, match=message):
            task.predict(one)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"num_classes": 3}, "num_classes: the model Known has 2 classes, got 3"),
        ({"voc": 2008}, "voc.*2007.*got 2008"),
        ({"score_threshold": 30}, "score_threshold.*got 30"),
        ({"nms_iou": -0.1}, "nms_iou.*got -0.1"),
        ({"window": (0, 5)}, r"window: .*got \(0, 5\)"),
        ({"window": 32, "overlap": 0}, "overlap: must be > 0 with window.*got 0"),
        ({"overlap": 1.5}, "overlap: .*got 1.5"),
    ],
)
def test_invalid_arguments(settings, message):
    with pytest.raises(ValueError, match=message):
        Detection(Known(KNOWN), **settings)


def test_an_invalid_target_is_named_by_its_image():
    targets = [detection_target([[30, 20, 61, 40]], [1])]
    with pytest.raises(ValueError, match=r"targets\[0\] \(image_id 7\): box 0 leaves the image"):
        Detection(Known(KNOWN)).losses(detection_batch([(40, 60)], targets))


@pytest.mark.parametrize("checks_targets", [True, False])
def test_targets_are_checked_once(checks_targets, monkeypatch):
    """By the data module if it does so, else by the model."""
    checked = []
    monkeypatch.setattr(detector, "check_targets", lambda images, targets, num_classes: checked.append(num_classes))
    data = Batches([detection_batch([(40, 60)], [detection_target([[30, 20, 60, 40]], [1])])] * 3)
    data.checks_targets = checks_targets
    task = Detection(Known(KNOWN), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    make_trainer(max_epochs=1).fit(task, data)
    assert checked == [None if checks_targets else 2] * 3
    assert DigitScenes.checks_targets


def test_crowds_are_dropped_before_the_batch_is_moved_to_the_device():
    counts = []

    class Pair(VisionDataModule):
        """One image with an object and a crowd in each split."""

        class_names = ("cat", "dog")
        variable_size_images = True

        def make_source(self, split):
            boxes = np.array([[30, 20, 60, 40], [0, 0, 12, 8]], np.float32)
            image = np.zeros((40, 60, 3), np.uint8)
            return [{"image": image, "boxes": boxes, "labels": np.array([1, 0]), "iscrowd": np.array([False, True])}]

        def transfer_batch_to_device(self, batch, device, dataloader_idx):
            counts.append((self.trainer.training, len(batch["target"][0]["labels"])))
            return batch

    task = Detection(Known(KNOWN), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    make_trainer(max_epochs=1).fit(task, Pair(batch_size=1, num_workers=0))
    assert counts == [(True, 1), (False, 2)]
    targets = [detection_target([[30, 20, 60, 40]], [1])]
    # a second call reads no values, for which it would wait on a GPU, and fail on the meta device
    (plain,) = drop_ignored_targets(targets)
    drop_ignored_targets([{name: value.to("meta") for name, value in plain.items()}])


def test_averaged_weights_are_evaluated_and_saved(tmp_path):
    torch.manual_seed(0)
    data = DigitScenes("detection", image_size=32, train_size=12, val_size=4, batch_size=4, num_workers=0)
    task = Detection(TinyDetector(10), optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1))
    before = task.model.head.weight.detach().clone()
    callbacks = [ModelCheckpoint(tmp_path, "ema"), EMAWeightAveraging(decay=0.5)]
    make_trainer(max_epochs=1, enable_checkpointing=True, callbacks=callbacks).fit(task, data)
    content = torch.load(tmp_path / "ema.ckpt", weights_only=True)
    averaged, raw = (content[key]["model.head.weight"] for key in ("state_dict", "current_model_state"))
    assert not torch.equal(averaged, raw) and not torch.equal(averaged, before)


def test_an_empty_batch_and_images_without_objects():
    nothing = {"image": [], "unreadable": ["a.jpg: broken"]}
    targets = [detection_target([[30, 20, 60, 40]], [1]), detection_target([], [])]
    with pytest.warns(UserWarning, match=r"1 image\(s\) skipped"):
        found = evaluated(Detection(Known(KNOWN[:1])), [nothing, detection_batch([(40, 60)] * 2, targets)])
    # a false positive in the second image, with the score of the correct one and after it
    assert found["val/map"] == 1


def test_frozen_random_layers_warn():
    data = DigitScenes("detection", image_size=32, train_size=4, val_size=2, batch_size=4, num_workers=0)
    model = SSD(10, PlainCNN((8, 16), frozen_stages=1), 32)
    with (
        pytest.warns(UserWarning, match=r"random weights in backbone \(frozen_stages: 1\)"),
        pytest.warns(UserWarning, match="in eval mode at the start of training"),  # Lightning's, of what is frozen
    ):
        make_trainer(max_epochs=1, limit_val_batches=0).fit(Detection(model), data)
