"""The instance segmentation task: metrics of masks beside those of boxes, training targets, predictions in the file."""

import math

import pytest
import torch

from striate.models import MaskRCNN, PlainCNN, RunLengths
from striate.tasks import Detection, InstanceSegmentation
from striate.tasks.detection import drop_ignored_targets
from striate.tasks.file_coordinates import masks_in_file
from striate.tasks.interfaces import DetectionReporter, ThresholdReporter
from striate.tests.helpers.components import Components, random_scene
from striate.tests.helpers.detector_inputs import detection_batch, detection_target, enlarged_batch, random_images
from striate.tests.helpers.tiny_detector import Known
from striate.tests.helpers.tiny_instances import KnownMasks, filled, instance_batch
from striate.tests.helpers.training import Batches, make_trainer

# one correct detection (class 1, the lower right quarter), one of high score on the background
KNOWN = [[0.5, 0.5, 1.0, 1.0, 1, 0.9], [0.0, 0.0, 0.2, 0.2, 0, 0.8]]


def evaluated(task, batches):
    (metrics,) = make_trainer(max_epochs=1).validate(task, Batches(batches), verbose=False)
    return metrics


def test_masks_and_boxes_are_evaluated_in_pixels_of_each_image():
    batch = instance_batch(
        [(40, 60), (64, 32)], [([[30, 20, 60, 40]], [1]), ([[16, 32, 32, 64], [0, 40, 10, 60]], [1, 0])]
    )
    for target in batch["target"]:
        target["masks"][target["labels"] == 1, ..., ::2] = 0  # every other column: boxes agree, masks overlap by half
    task = InstanceSegmentation(KnownMasks(KNOWN), voc=2007, boundary=True, map_r=True)
    metrics = evaluated(task, [batch])
    assert metrics["val/map"] == metrics["val/map50"] == metrics["val/voc_map"] == pytest.approx(0.5)
    assert metrics["val/mask_map50"] == pytest.approx(0.5) and metrics["val/mask_map"] == pytest.approx(0.05)
    assert (
        metrics["val/mask_map_r50_mnc"] == pytest.approx(0.5) and metrics["val/mask_map_r50"] == 0
    )  # IoU 0.5, not above
    assert metrics["val/mask_map_r70"] == metrics["val/mask_map_r70_mnc"] == 0
    assert metrics["val/boundary_map"] < metrics["val/mask_map"] and "val/mask_mar100" in metrics
    assert math.isnan(metrics["val/mask_map_large"]) and "val/loss" not in metrics
    table = task.class_table("val")
    assert list(table)[:5] == ["mask_ap", "mask_ap50", "mask_ap75", "mask_ar100", "ap"] and "voc_ap" in table
    assert table["ap"].tolist() == [0, 1] and table["mask_ap50"].tolist() == [0, 1]
    assert table["objects"].tolist() == [1, 2]
    assert task.monitor == "val/mask_map" and task.mode == "max"
    assert isinstance(task, DetectionReporter) and isinstance(task, ThresholdReporter)
    # the reports are of masks: no overlap is above 0.5, though all boxes of class 1 are right
    assert task.detection_metric("val").confusion_matrix(0.55)[1, 1] == 0
    assert task.best_thresholds("val")["threshold"][1] == pytest.approx(0.9)


def test_more_detections_count_where_asked_for():
    boxes = [[x, y, x + 3, y + 3] for y in range(0, 60, 4) for x in range(0, 60, 4)]
    size = 60.0
    known = [[*(side / size for side in box), 0, 1 - n / 1000] for n, box in enumerate(boxes)]
    batch = instance_batch([(60, 60)], [(boxes, [0] * len(boxes))])
    for limit, recall in ((100, 100 / 225), (300, 1)):
        metrics = evaluated(InstanceSegmentation(KnownMasks(known), max_detections=limit), [batch])
        assert metrics[f"val/mask_mar{limit}"] == metrics[f"val/mar{limit}"] == pytest.approx(recall)
    with pytest.raises(ValueError, match="max_detections: must be >= 1, got 0"):
        Detection(Known(KNOWN), max_detections=0)


def test_crowds_are_neither_trained_on_nor_missed():
    batch = instance_batch(
        [(40, 60)], [([[30, 20, 60, 40], [0, 0, 12, 8]], [1, 0])], iscrowd=[False, True]
    )  # fmt: skip
    metrics = evaluated(InstanceSegmentation(KnownMasks(KNOWN)), [batch])
    assert metrics["val/map"] == metrics["val/mask_map"] == 1
    model = KnownMasks(KNOWN)
    InstanceSegmentation(model).losses(batch)
    assert model.seen[0]["masks"].shape == (1, 40, 60) and model.seen[0]["masks"].sum() == 600
    (kept,) = drop_ignored_targets(batch["target"])
    assert torch.equal(kept["masks"], batch["target"][0]["masks"][:1])


def test_predictions_have_masks_in_pixels_of_the_image_and_names():
    task = InstanceSegmentation(KnownMasks(KNOWN), score_threshold=0.5)
    task.class_names = ["cat", "dog"]
    (found,) = task.predict(random_images((40, 60))[0])
    assert isinstance(found["masks"], RunLengths) and found["names"] == ["dog", "cat"]
    assert torch.equal(found["masks"].dense().int(), filled([[30, 20, 60, 40], [0, 0, 12, 8]], (40, 60)).int())
    task.score_threshold = 0.85
    (found,) = task.predict(random_images((40, 60))[0])
    assert found["masks"].area().tolist() == [600] and len(found["boxes"]) == 1


def test_predicted_masks_are_in_pixels_of_the_file():
    task = InstanceSegmentation(KnownMasks([[0.25, 0.5, 1.0, 1.0, 1, 0.9], [0, 0, 0.1, 1.0, 0, 0.8]]))
    (found,) = task.predict_step(enlarged_batch(), 0)
    assert found["boxes"].tolist() == [[4, 9, 40, 20]]  # the other lies in the padding
    assert torch.equal(found["masks"].dense().int(), filled([[4, 9, 40, 20]], (20, 40)).int())


def test_masks_return_to_the_file_from_any_size_and_crop():
    masks = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0)) > 0.5
    runs = RunLengths.from_dense(masks)
    same = torch.tensor([[0.0, 0], [30, 0], [0, 20]])
    assert masks_in_file(runs, same, 30, 20) is runs
    # enlarged two times along x, three times along y: each pixel of the file is one of its copies
    large = RunLengths.from_dense(masks.repeat_interleave(2, 2).repeat_interleave(3, 1))
    assert torch.equal(masks_in_file(large, torch.tensor([[0.0, 0], [60, 0], [0, 60]]), 30, 20).dense(), masks)
    # a crop that begins 4 pixels from the left and ends before the right side, in front of a border of 2 rows
    cropped = torch.zeros(3, 14, 20, dtype=torch.bool)
    cropped[:, 2:] = masks[:, :12, 4:24]
    expected = torch.zeros_like(masks)
    expected[:, :12, 4:24] = masks[:, :12, 4:24]
    corners = torch.tensor([[-4.0, 2], [26, 2], [-4, 22]])
    assert torch.equal(masks_in_file(RunLengths.from_dense(cropped), corners, 30, 20).dense(), expected)


def test_large_images_are_evaluated_and_predicted_in_windows():
    images = [random_scene((60, 90), 0), random_scene((70, 50), 1)]
    truth = Components()(images)
    targets = [
        detection_target(one["boxes"].tolist(), one["labels"].tolist())
        | {"masks": one["masks"].dense().to(torch.uint8)}
        for one in truth
    ]
    task = InstanceSegmentation(Components(), window=32)
    metrics = evaluated(task, [{**detection_batch([(60, 90), (70, 50)], targets), "image": images}])
    assert metrics["val/map"] == metrics["val/mask_map"] == 1
    for found, one in zip(task.predict(images), truth, strict=True):
        assert all(torch.equal(found[field], one[field]) for field in ("boxes", "scores", "labels"))
        assert torch.equal(found["masks"].dense(), one["masks"].dense())
    assert {view[1:] for view in task.model.views} == {(32, 32)}
    task.max_detections = 2  # of each class
    assert [len(found["boxes"]) for found in task.predict(images)] == [4, 4]


def test_targets_and_models_without_masks_are_rejected():
    batch = detection_batch([(40, 60)], [detection_target([[30, 20, 60, 40]], [1])])
    with pytest.raises(ValueError, match="InstanceSegmentation needs labeled boxes with masks.*got labeled boxes"):
        evaluated(InstanceSegmentation(KnownMasks(KNOWN)), [batch])
    with pytest.raises(TypeError, match="model: must return boxes, scores, labels and masks .*from Known"):
        InstanceSegmentation(Known(KNOWN)).predict(random_images((40, 60))[0])

    class Dense(KnownMasks):
        def forward(self, images):
            return [one | {"masks": one["masks"].dense()} for one in super().forward(images)]

    with pytest.raises(
        TypeError, match=r"model: must return masks as striate.models.RunLengths, got Tensor from Dense"
    ):
        InstanceSegmentation(Dense(KNOWN)).predict(random_images((40, 60))[0])


def test_mask_rcnn_trains_and_its_checkpoint_predicts_masks(tmp_path):
    torch.manual_seed(0)
    settings = {"fpn_channels": 16, "hidden": 32, "mask_channels": 8, "mask_layers": 1, "proposals": (60, 30)}
    model = MaskRCNN(2, PlainCNN((8, 16)), min_size=None, max_size=None, anchor_sizes=[[12], [20]], **settings)
    task = InstanceSegmentation(model)
    batch = instance_batch([(40, 48)], [([[8, 8, 24, 28]], [1])])
    losses, _ = task.losses(batch)
    assert "loss_mask" in losses and all(loss.isfinite() for loss in losses.values())
    trainer = make_trainer(max_epochs=1, default_root_dir=tmp_path)
    trainer.fit(InstanceSegmentation(model), Batches([batch]))
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = InstanceSegmentation.load_from_checkpoint(tmp_path / "last.ckpt", model=model)
    assert loaded.predict(batch["image"][0])[0]["masks"].size == (40, 48)
