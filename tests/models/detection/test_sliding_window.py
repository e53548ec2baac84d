"""The sliding window detector: both ways give the same, the windows and crops by hand, detection, losses, bad input."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import (
    AlexNet,
    Backbone,
    FullyConnectedHead,
    PlainCNN,
    SlidingWindowDetector,
    TrunkWithHead,
    UnpaddedCNN,
    ZFNet,
    box_iou_matrix,
)
from striate.models.detection.convolved_classifier import convolved_logits, inexact_layers, trunk_stride

from ...helpers.detector_inputs import map50, overfit, random_images, shake, target


def classifier(num_classes=4, backbone=None, in_size=4, window=24):
    """A trunk with fully connected layers whose logits differ widely between windows."""
    backbone = UnpaddedCNN((8, 12)) if backbone is None else backbone
    head = FullyConnectedHead(backbone.channels[-1], in_size, num_classes, hidden=16)
    network = TrunkWithHead(backbone, head, window)
    shake(network)
    with torch.no_grad():
        nn.init.zeros_(head.fc8.bias)
        logits = network.eval()(torch.rand(32, 3, window, window))
        scale = 2 / logits.std(dim=0)
        head.fc8.weight.mul_(scale[:, None])
        head.fc8.bias.copy_(-logits.mean(dim=0) * scale)
    return network


def detector(network=None, **options):
    options = {"sides": (12.0, 20.0), "ratios": (1.0, 1.6), **options}
    return SlidingWindowDetector(3, classifier() if network is None else network, **options)


@pytest.mark.parametrize("options", [{}, {"stride": 8}, {"dense_pooling": True}, {"dense_pooling": True, "stride": 6}])
def test_one_pass_equals_window_by_window(options):
    model = detector(**options)
    (pixels,) = random_images((50, 61))
    one_pass, crops = (model.probabilities(pixels[None], way) for way in ("convolutional", "crops"))
    assert model.way == "convolutional"
    assert one_pass.shape == (1, model.count_windows(50, 61), 4) == (1, len(model.windows(50, 61)), 4)
    assert one_pass.shape[1] > 40 and one_pass.std(dim=1).max() > 0.1
    torch.testing.assert_close(one_pass, crops, atol=1e-5, rtol=0)
    torch.testing.assert_close(one_pass.sum(-1), torch.ones_like(one_pass[..., 0]))


def test_dense_pooling_with_overlapping_windows_of_the_pooling():
    """A pooling of 3 with stride 2 has four offsets, as AlexNet's last."""
    trunk = Backbone([nn.Sequential(nn.Conv2d(3, 6, 5, 2), nn.ReLU(), nn.MaxPool2d(3, 2))])
    network = classifier(backbone=trunk, in_size=4, window=21)  # 9 cells, then 4
    model = SlidingWindowDetector(3, network, sides=[14], dense_pooling=True)
    assert model.stride == 2 and SlidingWindowDetector(3, network, sides=[14]).stride == 4
    pixels = random_images((40, 33))[0][None]
    ways = [model.probabilities(pixels, way) for way in ("convolutional", "crops")]
    torch.testing.assert_close(*ways, atol=1e-5, rtol=0)


def test_dense_pooling_refines_the_coarse_grid():
    fine, coarse = detector(dense_pooling=True, sides=[12], ratios=[1]), detector(sides=[12], ratios=[1])
    fine.classifier = coarse.classifier
    pixels = random_images((48, 48))[0][None]
    (grid,), (coarse_grid,) = fine.grids(48, 48), coarse.grids(48, 48)
    scores = fine.probabilities(pixels).view(*grid.steps, 4)[::2, ::2]
    torch.testing.assert_close(scores, coarse.probabilities(pixels).view(*coarse_grid.steps, 4), atol=1e-5, rtol=0)
    assert fine.stride == 2 and coarse.stride == 4


def test_output_maps_of_overfeat():
    """The accurate network's sizes: stride 36, 12 with 3 x 3 offsets, and the output maps of its six scales."""
    convolutions = [nn.Conv2d(4, 4, 3, padding=1) for _ in range(4)]
    layers = [nn.Conv2d(3, 4, 7, 2), nn.MaxPool2d(3, 3), nn.Conv2d(4, 4, 7), nn.MaxPool2d(2, 2), *convolutions]
    trunk = Backbone([nn.Sequential(*layers, nn.MaxPool2d(3, 3))])
    network = classifier(backbone=trunk, in_size=5, window=221)
    model = SlidingWindowDetector(3, network, dense_pooling=True, allow_padding=True)
    assert model.stride == 12 and trunk_stride(network) == 36 and model.way == "convolutional"
    sizes = {(245, 245): (3, 3), (281, 317): (6, 9), (317, 389): (9, 15), (389, 461): (15, 21)}
    for size, expected in sizes.items():
        with torch.no_grad():
            logits = convolved_logits(network, torch.rand(1, 3, *size), dense=True)
        assert logits.shape[-2:] == expected


def grouped_norm():
    return Backbone([nn.Sequential(nn.Conv2d(3, 4, 5), nn.GroupNorm(2, 4))])


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (lambda: AlexNet(4, 227, width=0.1, hidden=8), ["1.conv2", "2.conv3", "2.conv4", "2.conv5"]),
        # pool1 and pool2 round up from 110 and 26 cells, pool5 from 13 does not have to
        (
            lambda: ZFNet(4, width=0.1, hidden=8),
            ["0.conv1", "1.pool1", "2.pool2", "2.conv3", "2.conv4", "2.conv5"],
        ),
        (lambda: classifier(backbone=PlainCNN((4,), depth=1), in_size=12), ["0.0"]),
        (lambda: classifier(backbone=grouped_norm(), in_size=20), ["0.1"]),
        (lambda: classifier(), []),
    ],
)  # fmt: skip
def test_layers_that_see_beyond_a_window(network, names):
    network = network()
    assert inexact_layers(network) == names
    if names:
        assert SlidingWindowDetector(3, network).way == "crops"
        with pytest.raises(ValueError, match=f"way: convolutional differs from crops.*{names[0]}.*allow_padding"):
            SlidingWindowDetector(3, network, way="convolutional")
        assert SlidingWindowDetector(3, network, way="convolutional", allow_padding=True).way == "convolutional"


def test_pooling_that_rounds_up_is_exact_if_it_divides_the_map():
    trunk = Backbone([nn.Sequential(nn.Conv2d(3, 4, 5), nn.MaxPool2d(2, 2, ceil_mode=True))])
    assert inexact_layers(classifier(backbone=trunk, in_size=10, window=24)) == []  # 20 cells
    assert inexact_layers(classifier(backbone=trunk, in_size=10, window=23)) == ["0.1"]  # 19 cells


def test_padding_does_change_the_probabilities():
    network = classifier(backbone=PlainCNN((4,), depth=2), in_size=12)
    comparison = detector(network, stride=2).compare_ways(random_images((40, 40)))
    assert comparison.difference > 1e-3


def test_comparison_of_both_ways():
    model = detector()
    comparison = model.compare_ways(random_images((50, 61), (50, 61)))
    assert comparison.windows == model.count_windows(50, 61) and comparison.difference < 1e-5
    assert comparison.crops > 0 and comparison.convolutional > 0 and not model.classifier.training


def test_windows_by_hand():
    """An image of 24 x 40 pixels; windows of 12 x 12, enlarged to 24, 8 of the enlarged pixels apart."""
    model = detector(sides=[12], ratios=[1], stride=8)
    (grid,) = model.grids(24, 40)
    assert grid.size == (48, 80) and grid.steps == (4, 8)
    windows = model.windows(24, 40)
    assert windows[:3].tolist() == [[0, 0, 12, 12], [4, 0, 16, 12], [8, 0, 20, 12]]
    assert windows[8].tolist() == [0, 4, 12, 16] and windows[-1].tolist() == [28, 12, 40, 24]
    # a side that is no multiple: the last column leaves the image by less than the stride
    assert model.grids(24, 41)[0].steps == (4, 9) and model.windows(24, 41)[-1].tolist() == [32, 12, 44, 24]
    # twice as tall as wide: 17 x 8.5 pixels
    tall = detector(sides=[12], ratios=[2], stride=8)
    width, height = (tall.windows(100, 100)[0, 2:] - tall.windows(100, 100)[0, :2]).tolist()
    assert width == pytest.approx(12 / 2**0.5, rel=0.01) and height == pytest.approx(12 * 2**0.5, rel=0.01)


def test_windows_larger_than_the_image_are_left_out():
    model = detector(sides=[12, 200], ratios=[1])
    assert model.count_windows(24, 24) == detector(sides=[12], ratios=[1]).count_windows(24, 24) > 0
    assert model.count_windows(11, 90) == 0 and model(random_images((11, 90)))[0]["boxes"].shape == (0, 4)


def test_crops_are_the_pixels_of_the_windows():
    model = detector(sides=[15], ratios=[1.6])
    pixels = random_images((40, 50))[0][None]
    (grid,) = model.grids(40, 50)
    resized = F.interpolate(pixels / 255, size=grid.size, mode="bilinear")
    windows = model.windows(40, 50).view(*grid.steps, 4)
    for row, column in ((0, 0), (2, 3), (3, 1)):
        crop = model.crop(pixels, [windows[row, column][None]])[0]
        top, left = row * 4, column * 4
        torch.testing.assert_close(crop, resized[0, :, top : top + 24, left : left + 24], atol=1e-5, rtol=0)


class Brightness(nn.Module):
    """Class 0 for windows that are bright all over, class 1 for dark ones, and background otherwise."""

    def forward(self, images):
        low, high = images.amin(dim=(1, 2, 3)), images.amax(dim=(1, 2, 3))
        scores = torch.stack([20 * (low - 0.95), 20 * (0.05 - high), torch.zeros_like(low)], dim=1)
        return 20 * scores


def scene():
    """A bright square of 20 pixels and a dark one on gray, and their boxes."""
    image = torch.full((3, 60, 80), 128, dtype=torch.uint8)
    image[:, 10:30, 15:35] = 255
    image[:, 35:55, 55:75] = 0
    return image, target([[15, 10, 35, 30], [55, 35, 75, 55]], [0, 1])


def test_any_classifier_detects():
    image, objects = scene()
    model = SlidingWindowDetector(2, Brightness(), window=16, sides=[16], stride=1, nms_iou=0.2)
    assert model.way == "crops" and SlidingWindowDetector(2, Brightness(), window=16, sides=[16]).stride == 2
    (found,) = model([image])
    assert found["labels"].sort().values.tolist() == [0, 1]
    for box, label in zip(found["boxes"], found["labels"], strict=True):
        x1, y1, x2, y2 = objects["boxes"][label]
        assert x1 <= box[0] and y1 <= box[1] and box[2] <= x2 and box[3] <= y2  # one of the windows inside
    # as a batch with another image, each within its own size
    small = image[:, :40, :50]
    separate = model([image]) + model([small])
    for one, other in zip(model([image, small]), separate, strict=True):
        assert torch.equal(one["boxes"], other["boxes"]) and torch.equal(one["labels"], other["labels"])


def test_losses_are_those_of_the_sampled_windows():
    image, objects = scene()
    model = SlidingWindowDetector(2, Brightness(), window=16, sides=[16, 20], stride=2)
    torch.manual_seed(3)
    loss = model.losses([image], [objects])["loss_class"]
    seen = []
    model.classifier.register_forward_hook(lambda module, inputs, outputs: seen.append((inputs[0], outputs)))
    torch.manual_seed(3)
    model.losses([image], [objects])
    (crops, logits), sampling = seen[0], model.sampling
    assert crops.shape == (32, 3, 16, 16) and sampling.samples == 32
    # an IoU of at least 0.6 in windows of 20 or 16 pixels: mostly bright or dark; the others are background
    labels = torch.full((32,), 2)
    mean = crops.mean(dim=(1, 2, 3))
    labels[:8] = (mean[:8] < 0.5).long()
    torch.testing.assert_close(loss, F.cross_entropy(logits, labels))


def test_sampled_windows_have_the_labels_of_their_objects():
    image, objects = scene()
    model = SlidingWindowDetector(2, Brightness(), window=16, sides=[16, 20], stride=2)
    taken = []
    model.crop = lambda pixels, boxes: taken.extend(boxes) or SlidingWindowDetector.crop(model, pixels, boxes)
    model.losses([image], [objects])
    iou = box_iou_matrix(taken[0], objects["boxes"]).max(dim=1).values
    assert (iou[:8] >= 0.6).all() and (iou[8:] < 0.4).all()
    assert (taken[0] >= 0).all() and (taken[0] <= torch.tensor([80, 60, 80, 60])).all()


def test_one_batch_is_learned():
    image, objects = scene()
    torch.manual_seed(0)
    trunk = UnpaddedCNN((8, 8))
    network = TrunkWithHead(trunk, FullyConnectedHead(8, 4, 3, hidden=16, dropout=0.0), 24)
    model = SlidingWindowDetector(2, network, sides=[20], ratios=[1])
    overfit(model, [image], [objects], torch.optim.AdamW(model.parameters(), lr=0.01), steps=40)
    assert map50(model([image]), [objects], 2) > 0.9


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: detector(classifier(3)), ValueError, r"classifier: must have num_classes \+ 1 = 4 outputs.*got 3"),
        (lambda: SlidingWindowDetector(2, Brightness()), ValueError, "window: must be the side .* got None"),
        (lambda: SlidingWindowDetector(2, Brightness(), 16, way="convolutional"), TypeError, "TrunkWithHead"),
        (lambda: detector(way="both"), ValueError, "way: must be one of 'crops', 'convolutional', got 'both'"),
        (lambda: detector(stride=6), ValueError, "stride: must be a multiple of the trunk's stride 4, got 6"),
        (lambda: detector(stride=0), ValueError, "stride: must be >= 1, got 0"),
        (lambda: detector(window=30), ValueError, "fc6 was built for a last feature map of 4 x 4"),
        (lambda: detector(sides=[]), ValueError, "sides: must have at least one number"),
        (lambda: detector(ratios=[1, 0]), ValueError, r"ratios\[1\]: must be > 0, got 0"),
        (lambda: detector(sampling={"samples": 0}), ValueError, r"sampling\.samples: must be >= 1, got 0"),
        (lambda: detector(score_threshold=2), ValueError, r"score_threshold: must be in \[0, 1\], got 2"),
        (
            lambda: detector(classifier(backbone=UnpaddedCNN((8,), (5,), (1,)), in_size=20), dense_pooling=True),
            ValueError,
            "dense_pooling: needs a trunk whose last layer is a max pooling",
        ),
        (lambda: UnpaddedCNN((8, 8), (3,)), ValueError, r"kernels: must have 2 numbers, got \[3\]"),
        (lambda: UnpaddedCNN((8, 0)), ValueError, r"widths\[1\]: must be >= 1, got 0"),
        (lambda: UnpaddedCNN(()), ValueError, "widths: must have a number of channels"),
    ],
)  # fmt: skip
def test_invalid_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_an_unpadded_trunk_has_the_maps_of_each_window():
    trunk = UnpaddedCNN((4, 6), (5, 3), (2, 2)).eval()
    image = torch.rand(1, 3, 40, 48)
    maps, window = trunk(image)[-1], trunk(image[..., 8:32, 4:28])[-1]
    assert trunk.strides == (2, 4) and window.shape == (1, 6, 4, 4)
    torch.testing.assert_close(window, maps[..., 2:6, 1:5])
