"""Mask R-CNN: torchvision's results with its weights, mask targets by hand, weights of detectors, overfitting."""

import pytest
import torch
from torch import Tensor
from torchvision.models import get_model
from torchvision.models.detection.roi_heads import project_masks_on_boxes

from striate.datamodules import DigitScenes
from striate.models import FasterRCNN, PlainCNN, TorchvisionBackbone
from striate.models.detection.network_detector import torchvision_mode
from striate.models.instance import MaskRCNN, mask_targets

from ...helpers.detector_inputs import (
    SIZES,
    assert_same_detections,
    assert_same_losses,
    mask_map50,
    overfit,
    random_images,
    random_targets,
    sample_all,
    shake,
    target,
    with_masks,
)


def slim(classes: int = 3, **options: object) -> MaskRCNN:
    """A small Mask R-CNN without resizing."""
    torch.manual_seed(0)
    settings = {"fpn_channels": 32, "hidden": 32, "mask_channels": 16, "mask_layers": 2, "proposals": (100, 50)}
    return MaskRCNN(classes, PlainCNN((8, 16, 16, 32)), min_size=None, max_size=None, **{**settings, **options})


@pytest.mark.parametrize("version", ["", "_v2"])
def test_with_torchvisions_weights_results_equal_torchvisions(version: str, tmp_path) -> None:
    name = f"maskrcnn_resnet50_fpn{version}"
    theirs = get_model(name, weights=None, weights_backbone=None, num_classes=4, min_size=64, max_size=100).eval()
    sample_all(shake(theirs))
    torch.save(theirs.state_dict(), tmp_path / "segmenter.pth")
    backbone = TorchvisionBackbone("resnet50", freeze_norm=True, frozen_stages=2)
    ours = MaskRCNN(
        3,
        backbone,
        detector_weights=str(tmp_path / "segmenter.pth"),
        min_size=64,
        max_size=100,
        conv_heads=bool(version),
    ).eval()
    sample_all(ours.network)
    images, targets = random_images(*SIZES), with_masks(random_targets(SIZES, 3), SIZES)
    floats = [image / 255 for image in images]
    small: list[Tensor] = []  # before torchvision pastes them
    theirs.roi_heads.register_forward_hook(
        lambda module, inputs, outputs: small.extend(one["masks"][:, 0] for one in outputs[0])
    )
    with torch.no_grad():
        expected = theirs(floats)
        assert_same_detections(ours(images), expected, range(1, 4))
        for mine, their in zip(ours.detect(ours.resize(images)), small, strict=True):
            assert their.std() > 1e-3
            torch.testing.assert_close(mine["mask_probabilities"], their, atol=1e-5, rtol=0)
        with torchvision_mode(theirs, training=True):  # norms stay as they are
            losses = theirs(floats, [{**one, "labels": one["labels"] + 1} for one in targets])
        assert_same_losses(ours.losses(images, targets), losses)


def test_mask_targets_by_hand() -> None:
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    masks[0, 2:6, 1:5] = 1
    masks[1, :, 4:] = 1
    boxes = torch.tensor([[2.0, 0.0, 6.0, 8.0], [2.0, 0.0, 6.0, 8.0]])
    targets = mask_targets(masks, boxes, torch.tensor([1, 0]), 2, (8, 8))
    # torchvision's RoIAlign has the values of pixels at whole numbers, not at their centers. The left cells have
    # samples at x 2.5, between two zeros, and 3.5, between a zero and a one
    assert targets[0].tolist() == [[0.25, 1], [0.25, 1]]
    # of the other object. In y: samples at 0.5, 1.5, 2.5, 3.5 are 0, 0.5, 1, 1. In x: 1, 1 and 0.5, 0
    torch.testing.assert_close(targets[1, 0], torch.tensor([1, 0.25]) * 2.5 / 4)
    exact = mask_targets(masks, boxes, torch.tensor([1, 0]), 2, (8, 8), aligned=True)
    assert exact.tolist() == [[[0, 1], [0, 1]], [[0.5, 0.25], [0.5, 0.25]]]


@pytest.mark.parametrize("size", [(40, 60), (57, 33)])
def test_mask_targets_equal_torchvisions_in_resized_images(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    masks = (torch.rand(20, 50, 70, generator=generator) > 0.6).to(torch.uint8)
    boxes = random_targets([size], 1, each=90)[0]["boxes"]
    objects = torch.randint(0, 20, (90,), generator=generator)
    resized = torch.nn.functional.interpolate(masks[:, None].float(), size=size)[:, 0]
    expected = project_masks_on_boxes(resized, boxes, objects, 28)
    torch.testing.assert_close(mask_targets(masks, boxes, objects, 28, size), expected)
    assert mask_targets(masks[:0], boxes[:0], objects[:0], 28, size).shape == (0, 28, 28)


def test_loss_is_of_the_ground_truth_class_alone() -> None:
    model = slim().eval()
    sizes = ((64, 64),)
    images, targets = random_images(*sizes), with_masks(random_targets(sizes, 1), sizes)  # all of class 0
    sample_all(model.network)
    loss = model.losses(images, targets)["loss_mask"]
    for row, changes in ((0, False), (1, True), (2, False), (3, False)):  # background, then the classes
        with torch.no_grad():
            model.network.roi_heads.mask_predictor.mask_fcn_logits.bias[row] += 3
        changed = model.losses(images, targets)["loss_mask"]
        assert bool((changed - loss).abs() > 1e-3) == changes
        loss = changed


def test_masks_are_predicted_a_few_at_a_time_without_gradient() -> None:
    model = slim().eval()
    largest = []
    model.network.roi_heads.mask_head.register_forward_hook(lambda module, inputs, output: largest.append(len(output)))
    batch = model.resize(random_images((64, 64)))
    levels = model.network.backbone.named_levels(batch.pixels)
    boxes = random_targets(((64, 64),), 3, each=70)[0]["boxes"]
    labels = torch.arange(70) % 4
    whole = model.predict_masks(levels, [boxes], labels, batch.sizes)
    with torch.no_grad():
        parts = model.predict_masks(levels, [boxes], labels, batch.sizes)
        assert model.predict_masks(levels, [boxes[:0]], labels[:0], batch.sizes).shape == (0, 28, 28)
    assert largest[:4] == [70, 32, 32, 6]
    torch.testing.assert_close(parts, whole.detach())


def test_images_without_objects() -> None:
    model = slim()
    losses = model.losses(random_images((64, 64)), with_masks([target()], ((64, 64),)))
    assert losses["loss_mask"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.network.roi_heads.mask_predictor.parameters())
    model.score_threshold = 1.0
    detections = model.eval()(random_images((64, 48)))[0]
    assert detections["masks"].dense().shape == (0, 64, 48)


def test_checkpoint_of_a_detector_leaves_the_mask_branch_new(tmp_path) -> None:
    torch.manual_seed(1)
    backbone = PlainCNN((8, 16, 16, 32))
    detector = FasterRCNN(3, backbone, fpn_channels=32, hidden=32, min_size=None, max_size=None)
    path = tmp_path / "detector.pth"
    torch.save(detector.state_dict(), path)
    model = slim(detector_weights=str(path))
    assert model.load_report is not None and model.load_report.missing
    assert all("mask" in name for name in model.load_report.missing)
    torch.testing.assert_close(model.network.rpn.head.cls_logits.weight, detector.network.rpn.head.cls_logits.weight)
    assert "mask" in model.load_report.describe()
    state = {key: value for key, value in slim().state_dict().items() if "mask_predictor" not in key}
    torch.save(state, path)
    with pytest.raises(ValueError, match=r"(?s)detector_weights.*does not match.*mask_predictor"):
        slim(detector_weights=str(path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mask_threshold": 1.5}, "mask_threshold.*got 1.5"),
        ({"mask_layers": 0}, "mask_layers.*got 0"),
        ({"mask_channels": 0}, "mask_channels.*got 0"),
    ],
)
def test_invalid_arguments(options: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        slim(**options)


@pytest.mark.slow
def test_eight_scenes_are_overfitted() -> None:
    data = DigitScenes("instance_segmentation", 64, train_size=8, val_size=8, batch_size=8, num_workers=0)
    data.setup("fit")
    scenes = next(iter(data.val_dataloader()))
    images, targets = list(scenes["image"]), scenes["target"]
    torch.manual_seed(0)
    model = MaskRCNN(
        10,
        PlainCNN((16, 32, 64, 64)),
        min_size=None,
        max_size=None,
        fpn_channels=64,
        anchor_sizes=[[16], [24], [32], [48]],
        hidden=128,
        proposals=(200, 50),
        roi_samples=64,
        canonical_scale=56,
        mask_layers=2,
        mask_channels=32,
    )
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=250)
    overfit(model, images, targets, optimizer, schedule, steps=250)
    assert mask_map50(model.eval()(images), targets, 10) >= 0.95
