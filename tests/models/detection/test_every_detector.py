"""Tests of every detector: invalid targets, images without objects or of one pixel, half precision."""

import pytest
import torch
from torch import nn
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator

from striate.models import (
    FCOS,
    SSD,
    Backbone,
    ExtraLayer,
    FasterRCNN,
    FullyConnectedHead,
    PlainCNN,
    ResizeAndPad,
    RetinaNet,
    SingleMapFasterRCNN,
    SlidingWindowDetector,
    TorchvisionDetector,
    TrunkWithHead,
    UnpaddedCNN,
    YOLOv1,
)
from striate.models.detection import RPNSettings

from ...helpers.detector_inputs import random_images, random_targets, target

PYRAMID = {"min_size": None, "max_size": None, "fpn_channels": 64, "finest_stride": 4}


def single_map():
    backbone = Backbone([nn.Sequential(nn.Conv2d(3, 16, 16, 16), nn.ReLU())])
    rpn = RPNSettings(anchor_scales=(1.0, 2.0, 4.0))
    return SingleMapFasterRCNN(3, backbone, resize=ResizeAndPad(size_divisible=16), rpn_channels=16, hidden=32, rpn=rpn)


def sliding_window():
    classifier = TrunkWithHead(UnpaddedCNN((8, 8)), FullyConnectedHead(8, 4, 4, hidden=16), 24)
    return SlidingWindowDetector(3, classifier, sides=(20.0, 40.0))


DETECTORS = {
    "faster_rcnn": lambda: FasterRCNN(3, PlainCNN((8, 16, 16)), hidden=32, **PYRAMID),
    "retinanet": lambda: RetinaNet(3, PlainCNN((8, 16, 16)), **PYRAMID),
    "fcos": lambda: FCOS(3, PlainCNN((8, 16, 16)), **PYRAMID),
    "single_map": single_map,
    "ssd": lambda: SSD(3, PlainCNN((16, 32), out_indices=(1,)), 64, extra=[ExtraLayer(32)]),
    "sliding_window": sliding_window,
    "yolo": lambda: YOLOv1(3, PlainCNN((8, 8, 8)), image_size=64, grid_size=8, convs=(8,), hidden=()),
    "torchvision": lambda: TorchvisionDetector("ssdlite320_mobilenet_v3_large", 3),
    "torchvision_two_stages": lambda: TorchvisionDetector(
        "fasterrcnn_mobilenet_v3_large_320_fpn", 3, options={"min_size": 64, "max_size": 100}
    ),
}

every_detector = pytest.mark.parametrize("name", DETECTORS)


def make(name):
    torch.manual_seed(0)
    detector = DETECTORS[name]().eval()  # batch norms with random statistics: a single pixel has none
    if hasattr(detector, "score_threshold"):
        detector.score_threshold = 0.0
    return detector


def gradients(detector, losses):
    sum(losses.values()).backward()
    return [parameter.grad for parameter in detector.parameters() if parameter.grad is not None]


@every_detector
@pytest.mark.parametrize(
    ("box", "label", "message"),
    [
        ([1.0, 1.0, float("nan"), 4.0], 0, "box 0 has a NaN"),
        ([1.0, 1.0, 1.0, 4.0], 0, "has no area"),
        ([1.0, 1.0, 65.0, 4.0], 0, "leaves the image"),
        ([1.0, 1.0, 6.0, 4.0], 3, "label 0 must be in 0 … 2, got 3"),
    ],
)
def test_invalid_targets_name_the_image(name, box, label, message):
    wrong = {**target([box], [label]), "image_id": torch.tensor(9)}
    with pytest.raises(ValueError, match=rf"targets\[1\] \(image_id 9\): .*{message}"):
        make(name).losses(random_images((64, 64), (64, 64)), [target(), wrong])


@every_detector
def test_without_objects_box_losses_are_exactly_zero(name):
    detector = make(name)
    losses = detector.losses(random_images((64, 64), (40, 70)), [target(), target()])
    boxes = [key for key in losses if "box" in key]
    assert boxes or name == "sliding_window"  # which has no regression of boxes
    assert all(losses[key] == 0 and losses[key].requires_grad for key in boxes)
    computed = gradients(detector, losses)
    assert computed and all(gradient.isfinite().all() for gradient in computed)


@every_detector
def test_five_thousand_objects_and_images_of_one_pixel(name):
    detector = make(name)
    for sizes, targets in (
        ([(100, 100)], random_targets([(100, 100)], 3, each=5000)),
        ([(1, 1), (3, 90)], [target([[0.0, 0.0, 1.0, 1.0]]), target()]),
    ):
        losses = detector.losses(random_images(*sizes), targets)
        assert all(gradient.isfinite().all() for gradient in gradients(detector, losses))
        for (height, width), detected in zip(sizes, detector(random_images(*sizes)), strict=True):
            assert detected["boxes"].isfinite().all() and (detected["boxes"] >= 0).all()
            assert (detected["boxes"] <= torch.tensor([width, height] * 2)).all()
            assert (detected["scores"].diff() <= 0).all()


@every_detector
def test_detections_have_no_graph_and_the_mode_is_kept(name):
    detector = make(name)
    (detected,) = detector(random_images((64, 64)))
    assert not any(value.requires_grad for value in detected.values())
    assert not detector.training and not any(module.training for module in detector.modules())


@every_detector
def test_under_autocast_boxes_scores_and_losses_are_float32(name):
    """Near 600 pixels bfloat16 represents only every fourth pixel; an object of 2 pixels would have no area there."""
    detector, images = make(name), random_images((480, 640))
    anchors = []
    for module in detector.modules():
        if isinstance(module, AnchorGenerator | DefaultBoxGenerator):
            module.register_forward_hook(lambda module, inputs, outputs: anchors.extend(outputs))
    small = target([[600.0, 300.0, 602.0, 302.0]])
    with torch.autocast("cpu", torch.bfloat16):
        (detected,) = detector(images)
        losses = detector.losses(images, [small])
    assert detected["boxes"].dtype == detected["scores"].dtype == torch.float32
    assert all(one.dtype == torch.float32 for one in anchors)
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(detector, losses))
    if len(detected["boxes"]) > 20:  # bfloat16 has 8 bits of precision
        assert (detected["boxes"] != detected["boxes"].bfloat16().float()).any()


@every_detector
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_and_boxes_in_other_precisions(name, dtype):
    detector, images = make(name), [image / 255 for image in random_images((64, 64))]
    narrow, objects = [image.to(dtype) for image in images], target([[4.0, 6.0, 40.0, 50.0]])
    expected = detector([image.float() for image in narrow])[0]
    detected = detector(narrow)[0]
    assert len(detected["boxes"]) == len(expected["boxes"])
    if dtype != torch.bfloat16:
        torch.testing.assert_close(detected["scores"], expected["scores"], atol=2e-3, rtol=0)
    losses = detector.losses(narrow, [{**objects, "boxes": objects["boxes"].to(dtype)}])
    assert all(loss.isfinite() for loss in losses.values())
    assert all(gradient.isfinite().all() for gradient in gradients(detector, losses))


def test_a_box_in_half_precision_keeps_its_area_when_it_is_scaled():
    """1,801 and 1,802 differ in float16; 0.6 times each do not."""
    resize = {"min_size": 60, "max_size": 1200}
    detector = FasterRCNN(3, PlainCNN((8, 16, 16)), hidden=32, **{**PYRAMID, **resize}).eval()
    thin, images = target([[1801.0, 10.0, 1802.0, 60.0]]), random_images((100, 2000))
    half = {**thin, "boxes": thin["boxes"].half()}
    values = []
    for objects in (thin, half):
        torch.manual_seed(0)
        values.append(detector.losses(images, [objects]))
    for key, loss in values[0].items():
        torch.testing.assert_close(values[1][key], loss, rtol=1e-4, atol=1e-5)


def test_an_image_too_elongated_for_torchvisions_resizing():
    detector = make("torchvision_two_stages")
    with pytest.raises(ValueError, match=r"images\[1\].*got 3000 x 1 pixels"):
        detector(random_images((64, 64), (1, 3000)))
    assert len(detector(random_images((1, 100)))) == 1
