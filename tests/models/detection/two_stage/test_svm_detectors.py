"""Tests of R-CNN and SPP-net: features, sampling and loss by hand, detection before and after the stages, weights."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from striate.models import RCNN, AlexNet, AlexNetBackbone, PaddedZFNetBackbone, PlainCNN, ResizeAndPad, SPPNet, ZFNet
from striate.models.detection.two_stage.region_boxes import BoxRegression
from striate.models.detection.two_stage.region_pyramid import project_windows
from striate.models.detection.two_stage.region_svms import SVMs
from striate.models.detection.two_stage.region_warping import warp_regions

from ....helpers.colored_squares import small_rcnn, small_spp
from ....helpers.detector_inputs import random_images, target

BOXES = torch.tensor([[0.0, 0.0, 12.0, 20.0], [4.0, 4.0, 20.0, 16.0], [10.0, 2.0, 14.0, 9.0]])
IMAGES = ((24, 30), (28, 24))


def with_proposals(boxes=BOXES, objects=((2.0, 2.0, 12.0, 12.0),), labels=(1,)):
    return {**target(list(objects), list(labels)), "proposals": boxes}


def trained(detector, seed=0):
    """Give a detector SVMs and a box regression of random numbers."""
    generator = torch.Generator().manual_seed(seed)
    k, d, p = detector.num_classes, detector.svm_weight.shape[1], detector.box_weight.shape[1]
    weight, box = torch.randn(k, d, generator=generator), torch.randn(k, p, 4, generator=generator) * 0.01
    detector.set_svms(SVMs(weight, torch.randn(k, generator=generator), 0.5, torch.zeros(k), []))
    detector.set_box_regression(BoxRegression(box, torch.full((k, 4), 0.05), torch.zeros(k)))
    return detector


def test_rcnn_features_are_those_of_warped_crops():
    detector = small_rcnn(regions_at_once=2).eval()
    images = random_images(*IMAGES)
    batch = ResizeAndPad()(images)
    with torch.no_grad():
        found = detector.region_features(batch, [BOXES, BOXES[:1]])
    crops = [warp_regions(images[0].float() / 255, BOXES, 10, 1, detector.backbone.normalize.mean.flatten())]
    crops += [warp_regions(images[1].float() / 255, BOXES[:1], 10, 1, detector.backbone.normalize.mean.flatten())]
    pooled = detector.backbone(torch.cat(crops))[-1].flatten(1)
    torch.testing.assert_close(found.pooled, pooled)
    torch.testing.assert_close(found.features, detector.body(pooled))
    alone = detector.extract(images[1], BOXES[:1])
    torch.testing.assert_close(alone.features, found.features[3:])


def test_the_missing_area_is_zero_for_the_network():
    detector = small_rcnn()
    crops = warp_regions(torch.ones(3, 24, 24), torch.tensor([[0.0, 0.0, 24.0, 24.0]]), 12, 3, detector.resize.fill)
    normalized = detector.backbone.normalize(crops)
    torch.testing.assert_close(normalized[..., 0], torch.zeros_like(normalized[..., 0]), atol=1e-6, rtol=0)
    assert bool((normalized[..., 6, 6] > 1).all())


def test_spp_features_are_adaptive_pools_of_the_map_of_the_nearest_scale():
    detector = small_spp(train_backbone=False).eval()  # scales 24 and 36, for regions of 12 pixels
    images = random_images(*IMAGES)
    with torch.no_grad():
        found = detector.region_features(ResizeAndPad()(images), [BOXES[:0], BOXES])
        expected = []
        # 4 x 7 is enlarged to 36; the areas of the others are nearer to 144 at 24
        for box, scale in zip(BOXES, (24, 24, 36), strict=True):
            resized = ResizeAndPad(scale, size_divisible=2, fill=detector.resize.fill)([images[1]])
            maps = detector.backbone(resized.pixels)[-1]
            factors = resized.sizes[0][1] / 24, resized.sizes[0][0] / 28
            scaled = box * torch.tensor(factors * 2)
            rows, columns = -(-resized.sizes[0][0] // 2), -(-resized.sizes[0][1] // 2)
            left, top, right, bottom = project_windows(scaled[None], 2, rows, columns)[0].tolist()
            crop = maps[0, :, top : bottom + 1, left : right + 1]
            bins = [nn.AdaptiveMaxPool2d(level)(crop).flatten(1) for level in (3, 1)]
            expected.append(torch.cat(bins, 1).flatten())
    torch.testing.assert_close(found.pooled, torch.stack(expected))
    assert detector.box_weight.shape[1] == found.pooled.shape[1] == 8 * 10


def test_spp_trains_fully_connected_layers_only():
    detector = small_spp(train_backbone=False).train()
    before = {name: value.clone() for name, value in detector.backbone.state_dict().items()}
    detector.losses(random_images(*IMAGES), [with_proposals(), with_proposals()])["loss_class"].backward()
    with_gradient = {name.split(".")[0] for name, p in detector.named_parameters() if p.grad is not None}
    assert with_gradient == {"body", "score"}
    assert all(torch.equal(before[name], value) for name, value in detector.backbone.state_dict().items())
    assert not any(parameter.requires_grad for parameter in detector.backbone.parameters())


class TestSampling:
    def targets(self, count, positive):
        objects = torch.tensor([[0.0, 0.0, 10.0, 10.0]])
        near = objects.repeat(positive, 1) + torch.arange(positive)[:, None] * 0.01
        far = torch.tensor([[12.0, 12.0, 20.0, 20.0]]).repeat(count - positive, 1)
        return {"boxes": objects, "labels": torch.tensor([1]), "proposals": torch.cat([near, far])}

    def test_32_positives_and_96_background_of_all_images(self):
        detector = RCNN(2, PlainCNN(widths=(8,), depth=1), size=10, context=1, hidden=8)
        samples = detector.sample([self.targets(200, 40), self.targets(50, 5), self.targets(3, 0)])
        labels = torch.cat([one.labels for one in samples])
        assert (labels == 1).sum() == 32 and (labels == 2).sum() == 96
        assert all(len(one.labels) for one in samples[:2])
        for one in samples:  # objects are those of the own image, and positives overlap them
            assert bool((one.boxes[one.labels == 1, 2] < 11).all()) and bool(
                (one.boxes[one.labels == 2, 0] == 12).all()
            )

    def test_background_fills_up_where_there_are_few_positives(self):
        detector = small_rcnn()
        (sample,) = detector.sample([self.targets(300, 2)])
        assert (sample.labels == 1).sum() == 3  # the object itself is one too
        assert len(sample.labels) == 128

    def test_spp_background_overlaps_an_object(self):
        boxes = torch.tensor(
            [[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 4.0], [0.0, 0.0, 10.0, 0.9], [20.0, 20.0, 23, 23]]
        )
        one = {"boxes": boxes[:1], "labels": torch.tensor([0]), "proposals": boxes}
        for make, count in ((small_spp, 1), (small_rcnn, 3)):
            (sample,) = make().sample([one])
            assert (sample.labels == 2).sum() == count


def test_the_loss_is_the_mean_cross_entropy_of_the_sampled_regions():
    detector = small_rcnn(sampling={"samples": 1000, "positive_fraction": 1.0}).eval()
    images, targets = random_images(*IMAGES), [with_proposals(), with_proposals(BOXES[:1])]
    loss = detector.losses(images, targets)["loss_class"]
    with torch.no_grad():
        features = [
            detector.extract(image, torch.cat([one["proposals"], one["boxes"]])).features
            for image, one in zip(images, targets, strict=True)
        ]
        # IoUs with the object: 0.38, 0.28, 0.1; itself 1
        labels = torch.tensor([2, 2, 2, 1, 2, 1])
        expected = F.cross_entropy(detector.score(torch.cat(features)), labels)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("make", [small_rcnn, small_spp])
class TestDetection:
    def test_by_the_softmax_until_svms_are_trained(self, make):
        detector = make(score_threshold=0.0, nms_iou=1.0, max_detections=1000).eval()
        image = random_images((24, 30))[0]
        (found,) = detector([image], [BOXES])
        features = detector.extract(image, BOXES).features
        probabilities = detector.score(features).softmax(1)[:, :-1]
        torch.testing.assert_close(found["scores"], probabilities.flatten().sort(descending=True).values)
        assert {tuple(box) for box in found["boxes"].tolist()} == {tuple(box) for box in BOXES.tolist()}

    def test_by_svms_and_corrected_boxes_afterwards(self, make):
        detector = trained(make(svm_threshold=-100.0, nms_iou=1.0, max_detections=1000).eval())
        image = random_images((24, 30))[0]
        (found,) = detector([image], [BOXES])
        features, pooled = (detector.extract(image, BOXES)._asdict()[name] for name in ("features", "pooled"))
        for label in range(2):
            scores = torch.sigmoid((features * 0.5) @ detector.svm_weight[label] + detector.svm_bias[label])
            own = found["labels"] == label
            order = scores.argsort(descending=True)
            torch.testing.assert_close(found["scores"][own], scores[order])
            dx, dy, dw, dh = (pooled @ detector.box_weight[label] + 0.05).T
            width, height = BOXES[:, 2] - BOXES[:, 0], BOXES[:, 3] - BOXES[:, 1]
            x = BOXES[:, 0] + width / 2 + dx * width
            y = BOXES[:, 1] + height / 2 + dy * height
            half_width, half_height = width * dw.exp() / 2, height * dh.exp() / 2
            expected = torch.stack([x - half_width, y - half_height, x + half_width, y + half_height], 1)
            expected = torch.minimum(expected.clamp(min=0), torch.tensor([30.0, 24.0, 30.0, 24.0]))
            torch.testing.assert_close(found["boxes"][own], expected[order], rtol=1e-4, atol=1e-3)

    def test_each_result_can_be_left_out(self, make):
        detector = trained(make(use_svms=False, use_box_regression=False, score_threshold=0.0).eval())
        plain = make(score_threshold=0.0).eval()
        plain.load_state_dict(detector.state_dict())
        plain.reset_stages()
        image = random_images((24, 30))[0]
        for key, value in detector([image], [BOXES])[0].items():
            torch.testing.assert_close(value, plain([image], [BOXES])[0][key])

    def test_svm_threshold_is_a_score_of_the_svms(self, make):
        detector = trained(make(svm_threshold=0.0).eval())
        for found in detector(random_images(*IMAGES), [BOXES, BOXES]):
            assert bool((found["scores"] > 0.5).all())

    def test_checkpoints_have_all_stages(self, make):
        detector, other = trained(make()).eval(), make().eval()
        assert not other.stages_finished
        other.load_state_dict(detector.state_dict())
        assert other.stages_finished
        image = random_images((24, 30))[0]
        for key, value in detector([image], [BOXES])[0].items():
            torch.testing.assert_close(value, other([image], [BOXES])[0][key])

    def test_no_proposals_in_detection_and_training(self, make):
        detector = trained(make())
        first, second = detector(random_images(*IMAGES), [BOXES[:0], BOXES])
        assert len(first["boxes"]) == 0 and second["boxes"].shape[1] == 4
        detector.train()
        none = {**target(), "proposals": BOXES[:0]}
        loss = detector.losses(random_images(*IMAGES), [none, none])["loss_class"]
        assert loss == 0 and loss.requires_grad
        one = detector.losses(random_images(*IMAGES), [none, with_proposals(BOXES[:0])])["loss_class"]
        assert one > 0  # the object itself is trained on


class TestWeights:
    def test_rcnn_takes_over_all_layers_of_alexnet_but_the_last(self, tmp_path):
        net = AlexNet(5, image_size=67, width=0.125, hidden=16, first_padding=0)
        torch.save(net.state_dict(), path := tmp_path / "alexnet.pt")
        backbone = AlexNetBackbone(0.125, first_padding=0, out_indices=(3,), weights=str(path))
        detector = RCNN(2, backbone, size=67, context=4, hidden=16).eval()
        crops = torch.rand(2, 3, 67, 67)
        torch.testing.assert_close(detector.body(detector.backbone(crops)[-1]), net.eval().features(crops))
        assert "fc6 and fc7: loaded" in detector.describe_weights()

    def test_spp_takes_over_the_trunk_and_fc7(self, tmp_path):
        net = ZFNet(5, image_size=96, width=0.125, hidden=16)
        torch.save(net.state_dict(), path := tmp_path / "zfnet.pt")
        detector = SPPNet(2, PaddedZFNetBackbone(str(path), width=0.125), hidden=16)
        torch.testing.assert_close(detector.body.fc7.weight, net.head.fc7.weight)
        assert detector.body.fc6.in_features == 50 * detector.backbone.channels[-1]
        assert "fc7: loaded" in detector.describe_weights()


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (RCNN, {"size": 32, "context": 16}, "size: must be > 2 [*] context, got 32"),
        (RCNN, {"regions_at_once": 0}, "regions_at_once: must be >= 1"),
        (RCNN, {"svms": {"c": -1}}, "svms.c: must be > 0, got -1"),
        (SPPNet, {"boxes": {"min_iou": 2}}, r"boxes.min_iou: must be in \[0, 1\], got 2"),
        (SPPNet, {"levels": ()}, "levels: must have at least one number"),
        (SPPNet, {"levels": (3, 0)}, r"levels\[1\]: must be >= 1"),
        (SPPNet, {"scales": ()}, "scales: must have at least one number"),
        (SPPNet, {"side": 0}, "side: must be >= 1"),
        (RCNN, {"nms_iou": 1.5}, "nms_iou: must be in"),
    ],
)
def test_wrong_arguments(make, arguments, message):
    with pytest.raises(ValueError, match=message):
        make(2, PlainCNN(widths=(8,), depth=1), hidden=8, **arguments)
