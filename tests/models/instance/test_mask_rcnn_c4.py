"""Mask R-CNN without a pyramid: its losses and masks recomputed from its parts, and bad input."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from striate.models import PlainCNN, TorchvisionBackbone
from striate.models.instance import MaskRCNNC4

from ...helpers.detector_inputs import random_images, random_targets, target, with_masks

SIZES = ((64, 80), (72, 64))


def slim(**options: object) -> MaskRCNNC4:
    """A small network without resizing, with few regions."""
    torch.manual_seed(0)
    roi = {"samples": 10**6, "score_threshold": 0.1, "nms_iou": 0.9, "max_detections": 7}
    settings = {"rpn_channels": 16, "mask_channels": 16, "roi": roi, "rpn": {"proposals": (60, 40), "min_size": 0.0}}
    return MaskRCNNC4(2, PlainCNN((8, 16, 16, 32)), min_size=None, max_size=None, **{**settings, **options}).eval()


def test_mask_loss_by_hand() -> None:
    model = slim()
    images, targets = random_images(*SIZES), with_masks(random_targets(SIZES, 2), SIZES)
    regions: list[list[Tensor]] = []
    sample = model.head.sample
    model.head.sample = lambda *args: regions.append(sample(*args)) or regions[-1]  # type: ignore[method-assign]
    losses = model.losses(images, targets)
    assert set(losses) == {"loss_objectness", "loss_rpn_box", "loss_class", "loss_box", "loss_mask"}
    batch = model.resize(images)
    x = model.backbone.normalize(batch.pixels)
    for stage in model.backbone.stages[:-1]:
        x = stage(x)
    terms = []
    for index, (sampled, one) in enumerate(zip(regions[0], targets, strict=True)):
        for box, label, number in zip(*sampled, strict=True):
            if label == 2:
                continue
            pooled = roi_align(x[index : index + 1], [box[None]], 14, 1 / 8, 2, aligned=True)
            logits = model.mask(model.backbone.stages[-1](pooled))[0, label]
            expected = roi_align(one["masks"][number][None, None].float(), [box[None]], 14, aligned=True)[0, 0]
            terms.append(F.binary_cross_entropy_with_logits(logits, expected))
    assert len(terms) > 3
    torch.testing.assert_close(losses["loss_mask"], torch.stack(terms).mean(), rtol=1e-4, atol=1e-5)


def test_masks_are_those_of_the_final_boxes_and_labels() -> None:
    model = slim()
    images = random_images(*SIZES)
    batch = model.resize(images)
    with torch.no_grad():
        x = model.backbone.normalize(batch.pixels)
        for stage in model.backbone.stages[:-1]:
            x = stage(x)
        detected = model.detect(batch)
        assert sum(len(one["boxes"]) for one in detected) > 5
        for index, one in enumerate(detected):
            pooled = roi_align(x[index : index + 1], [one["boxes"]], 14, 1 / 8, 2, aligned=True)
            masks = model.mask(model.backbone.stages[-1](pooled)).sigmoid()
            expected = torch.stack([mask[label] for mask, label in zip(masks, one["labels"], strict=True)])
            torch.testing.assert_close(one["mask_probabilities"], expected)
    assert model(images)[1]["masks"].size == (72, 64)


def test_resnet_has_the_papers_sizes() -> None:
    model = MaskRCNNC4(80, TorchvisionBackbone("resnet18"), min_size=None, max_size=None)
    assert len(model.rpn.cell) == 15 and model.rpn.stride == 16 and model.rpn.conv.in_channels == 256
    assert model.head.score.in_features == 512 and model.head.settings.samples == 64
    features = model.backbone.stages[-1](torch.zeros(1, 256, 14, 14))
    assert model.mask(features).shape == (1, 80, 14, 14)


def test_images_without_objects() -> None:
    model = slim()
    losses = model.losses(random_images((64, 80)), with_masks([target()], ((64, 80),)))
    assert losses["loss_mask"] == 0
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.mask.parameters())


@pytest.mark.parametrize("indices", [(1,), (0, 2)])
def test_backbone_without_its_last_two_maps(indices: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"backbone: must return.*last two stages.*out_indices"):
        MaskRCNNC4(2, PlainCNN((8, 16, 16, 32), out_indices=indices))
