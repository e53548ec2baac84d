"""What annotations may look like: extreme masks, many objects, and checkpoints of other networks."""

import pytest
import torch

from striate.models import FCOS, FasterRCNN, MaskRCNN, PlainCNN
from striate.models.weights import summarize_loaded_weights
from striate.tasks import Detection, InstanceSegmentation

from ...helpers.detector_inputs import random_images, sample_all, target
from ...helpers.tiny_instances import filled, instance_batch
from ...helpers.training import Batches, make_trainer

SLIM = {"fpn_channels": 16, "hidden": 16, "min_size": None, "max_size": None, "anchor_sizes": [[8], [16]]}


def slim(classes=2, **options):
    torch.manual_seed(0)
    return MaskRCNN(classes, PlainCNN((8, 16)), mask_channels=8, mask_layers=1, **{**SLIM, **options})


def mask_loss(boxes, masks):
    """The loss of masks when all proposals are trained on, so that it depends on the targets alone."""
    model = slim(proposals=(200, 100))
    sample_all(model.network)
    losses = model.losses(random_images((32, 48)), [{**target(boxes), "masks": masks}])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    return losses["loss_mask"].item()


def test_masks_that_fill_the_image_or_cover_each_other_train():
    whole = [[0, 0, 48, 32]]
    assert mask_loss(whole, torch.ones(1, 32, 48, dtype=torch.bool)) > 0
    # the same object twice: each region belongs to the first one, so the second changes nothing
    boxes = [[8, 4, 32, 24], [8, 4, 32, 24]]
    once, twice = mask_loss(boxes[:1], filled(boxes[:1], (32, 48))), mask_loss(boxes, filled(boxes, (32, 48)))
    assert twice == pytest.approx(once, rel=0.05)


def test_a_mask_outside_its_box_teaches_background_there():
    box, other = [[4, 4, 20, 20]], [[28, 8, 44, 28]]
    background = torch.zeros(1, 32, 48, dtype=torch.uint8)
    background[:, 31, 47] = 1  # far away from all regions
    assert mask_loss(box, filled(other, (32, 48))) == pytest.approx(mask_loss(box, background), rel=1e-4)
    assert mask_loss(box, filled(other, (32, 48))) != pytest.approx(mask_loss(box, filled(box, (32, 48))), rel=1e-3)


def test_a_thousand_objects_train_and_are_predicted():
    starts = [(x, y) for y in range(0, 250, 8) for x in range(0, 256, 8)][:1000]
    boxes = [[x, y, x + 6, y + 6] for x, y in starts]
    model = slim(proposals=(2000, 1000), score_threshold=0.0, nms_iou=1.0, max_detections=1000)
    masks = filled(boxes, (256, 256))
    images = random_images((256, 256))
    losses = model.losses(images, [{**target(boxes), "masks": masks}])
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_mask"] > 0
    (found,) = model(images)
    assert len(found["boxes"]) == len(found["masks"]) == 1000
    # the masks of all objects together take less than those of three as pixels
    assert 8 * len(found["masks"].edges) < 3 * 256 * 256 * 4 and found["masks"].size == (256, 256)


@pytest.mark.parametrize("classes", [2, 3])
def test_the_checkpoint_of_a_detection_run_gives_all_but_the_masks(tmp_path, classes):
    torch.manual_seed(1)
    detector = FasterRCNN(2, PlainCNN((8, 16)), **SLIM)
    trainer = make_trainer(max_epochs=1, default_root_dir=tmp_path)
    trainer.fit(Detection(detector), Batches([instance_batch([(32, 48)], [([[4, 4, 20, 20]], [1])])]))
    trainer.save_checkpoint(tmp_path / "detector.ckpt")
    model = slim(classes, detector_weights=str(tmp_path / "detector.ckpt"))
    state, given = model.state_dict(), detector.state_dict()
    scores = {name for name in given if "box_predictor" in name} if classes != 2 else set()
    assert all(torch.equal(state[name], value) for name, value in given.items() if name not in scores)
    report = model.load_report
    assert set(report.missing) == state.keys() - given.keys() and set(report.mismatched) == scores
    assert {name.split(".")[2] for name in report.missing} == {"mask_head", "mask_predictor"}
    (text,) = summarize_loaded_weights(InstanceSegmentation(model))
    assert "detector.ckpt" in text and "mask_head" in text and ("box_predictor" in text) == (classes != 2)


def test_the_checkpoint_of_another_kind_of_detector_is_refused(tmp_path):
    torch.save(FCOS(2, PlainCNN((8, 16, 16)), fpn_channels=64).state_dict(), tmp_path / "fcos.pth")
    with pytest.raises(ValueError, match=r"(?s)detector_weights: .*fcos.pth' does not match this MaskRCNN"):
        slim(detector_weights=str(tmp_path / "fcos.pth"))
