"""Faster R-CNN, RetinaNet and FCOS on a pyramid: torchvision's results with its weights, any backbone, bad input."""

from collections import OrderedDict

import pytest
import torch
import torchvision
from jsonargparse import ArgumentParser
from torch import nn
from torchvision.models import WeightsEnum, get_model
from torchvision.ops import FeaturePyramidNetwork

from striate.datamodules import DigitScenes
from striate.models import (
    FCOS,
    CondInst,
    FasterRCNN,
    FeaturePyramid,
    MaskRCNN,
    PlainCNN,
    RetinaNet,
    TorchvisionBackbone,
    skip_pretrained,
)
from striate.models.detection.network_detector import torchvision_mode
from striate.models.detection.one_stage.base import OneStageDetector
from striate.models.detection.two_stage.faster_rcnn import BlockwiseMatcher, BoxesAndAnchors
from striate.models.weights import frozen_without_weights, summarize_loaded_weights

from ...helpers.detector_inputs import (
    SIZES,
    assert_same_detections,
    assert_same_losses,
    map50,
    overfit,
    random_images,
    random_targets,
    sample_all,
    shake,
    target,
)
from ...helpers.networks import seeded_images

MODELS = {"fasterrcnn": FasterRCNN, "retinanet": RetinaNet, "fcos": FCOS}
NO_RESIZING = {"min_size": None, "max_size": None}


def slim(kind, classes=3, **options):
    """A small detector of each kind."""
    torch.manual_seed(0)
    finest = 4 if kind == "fasterrcnn" else 8
    more = {"hidden": 32, "proposals": (100, 50), "roi_samples": 32} if kind == "fasterrcnn" else {}
    backbone = PlainCNN((8, 16, 16, 32))
    settings = {"fpn_channels": 64 if kind == "fcos" else 32, "finest_stride": finest, **NO_RESIZING, **more, **options}
    return MODELS[kind](classes, backbone, **settings)


@pytest.mark.parametrize("kind", MODELS)
def test_with_torchvisions_weights_results_equal_torchvisions(kind, tmp_path):
    theirs = get_model(
        f"{kind}_resnet50_fpn",
        weights=None,
        weights_backbone=None,
        num_classes=3 + (kind == "fasterrcnn"),
        min_size=64,
        max_size=100,
    )
    sample_all(shake(theirs))
    path = tmp_path / "detector.pth"
    torch.save(theirs.state_dict(), path)
    backbone = TorchvisionBackbone("resnet50", freeze_norm=True, frozen_stages=2)
    ours = MODELS[kind](3, backbone, detector_weights=str(path), min_size=64, max_size=100)
    sample_all(ours.network)
    images, targets = random_images(*SIZES), random_targets(SIZES, 3)
    floats = [image / 255 for image in images]
    first = int(kind == "fasterrcnn")
    with torch.no_grad():
        expected = theirs.eval()(floats)
        with torchvision_mode(theirs, training=True):  # norms stay as they are
            losses = theirs(floats, [{**one, "labels": one["labels"] + first} for one in targets])
        for mode in (True, False):
            ours.train(mode)
            assert_same_detections(ours(images), expected, range(first, first + 3))
            assert_same_losses(ours.losses(images, targets), losses)


@pytest.fixture
def published(monkeypatch):
    """Replace downloads by random weights, for RetinaNet under the names from before torchvision 0.13."""
    states = {}

    def state(entry, *args, **kwargs):
        name = next(
            name
            for name in ("fasterrcnn_resnet50_fpn", "retinanet_resnet50_fpn", "fcos_resnet50_fpn")
            if torchvision.models.get_model_weights(name) is type(entry)
        )
        if name in states:
            return dict(states[name])
        model = shake(get_model(name, weights=None, weights_backbone=None, num_classes=91))
        state = dict(model.state_dict())  # a plain dictionary, without torch's version metadata
        if name.startswith("retinanet"):  # the published RetinaNet has the old names
            for index in range(4):
                for branch in ("classification", "regression"):
                    for part in ("weight", "bias"):
                        value = state.pop(f"head.{branch}_head.conv.{index}.0.{part}")
                        state[f"head.{branch}_head.conv.{2 * index}.{part}"] = value
        states[name] = dict(state)
        return state

    monkeypatch.setattr(WeightsEnum, "get_state_dict", state)
    return states


@pytest.mark.parametrize("kind", MODELS)
def test_published_weights_detect_cocos_classes(kind, published):
    """80 classes in the order of COCO's ids; 12, 26, 29, … are not in use."""
    backbone = TorchvisionBackbone("resnet50", freeze_norm=True)
    ours = MODELS[kind](80, backbone, detector_weights="COCO_V1", min_size=64, max_size=100).eval()
    theirs = get_model(f"{kind}_resnet50_fpn", weights="COCO_V1", min_size=64, max_size=100).eval()
    ours.score_threshold = getattr(theirs, "roi_heads", theirs).score_thresh = 0.015
    unused = [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    ids = [number for number in range(91) if number not in unused]
    with torch.no_grad():  # ids that are not in use are never detected
        if kind == "fasterrcnn":
            for model, out in ((ours, 81), (theirs, 91)):
                predictor = getattr(model, "network", model).roi_heads.box_predictor
                assert predictor.cls_score.out_features == out
            theirs.roi_heads.box_predictor.cls_score.bias[unused[1:]] -= 1e6
        else:
            theirs.head.classification_head.cls_logits.bias.view(-1, 91)[:, unused] -= 1e6
    images = random_images(*SIZES)
    with torch.no_grad():
        assert_same_detections(ours(images), theirs([image / 255 for image in images]), ids)
    eps = {module.eps for module in ours.backbone.modules() if isinstance(module, nn.BatchNorm2d)}
    assert eps == ({1e-5} if kind == "fcos" else {0.0})


def test_with_other_classes_all_but_the_class_scores_is_loaded(published):
    backbone = TorchvisionBackbone("resnet50")
    ours = RetinaNet(5, backbone, detector_weights="RetinaNet_ResNet50_FPN_Weights.COCO_V1")
    state = published["retinanet_resnet50_fpn"]
    assert torch.equal(ours.network.head.regression_head.bbox_reg.weight, state["head.regression_head.bbox_reg.weight"])
    assert torch.equal(
        ours.network.head.classification_head.conv[3][0].bias, state["head.classification_head.conv.6.bias"]
    )
    assert torch.equal(backbone.stages[0].conv1.weight, state["backbone.body.conv1.weight"])
    assert ours.network.head.classification_head.cls_logits.weight.std() < 0.011  # RetinaNet's initialization
    ninety = RetinaNet(90, TorchvisionBackbone("resnet50"), detector_weights="COCO_V1")
    bias = state["head.classification_head.cls_logits.bias"].view(9, 91)[:, 1:].flatten()
    assert torch.equal(ninety.network.head.classification_head.cls_logits.bias, bias)


def test_load_report(tmp_path):
    path = tmp_path / "detector.pth"
    torch.save(slim("retinanet", classes=5).state_dict(), path)
    summary = summarize_loaded_weights(slim("retinanet", classes=4, detector_weights=str(path)))
    assert len(summary) == 1 and summary[0].startswith(f"from detector_weights {path}: ")
    assert "2 with another shape: " in summary[0]  # the layers that predict classes
    frozen = FasterRCNN(3, PlainCNN((8, 16, 16), frozen_stages=1, freeze_norm=True), finest_stride=4)
    assert frozen_without_weights(frozen) == ["network.backbone.body (frozen_stages: 1, freeze_norm: true)"]
    torch.save(frozen.state_dict(), path)
    backbone = PlainCNN((8, 16, 16), frozen_stages=1)
    assert frozen_without_weights(FasterRCNN(3, backbone, finest_stride=4, detector_weights=str(path))) == []
    assert frozen_without_weights(slim("fcos")) == []


def test_weights_for_another_backbone_are_rejected_before_a_file_is_read():
    with pytest.raises(ValueError, match="detector_weights.*'resnet50', got 'resnet18'"):
        FasterRCNN(80, "resnet18", detector_weights="COCO_V1")
    with pytest.raises(ValueError, match="did you mean 'COCO_V1'"):
        FCOS(80, "resnet50", detector_weights="COCO_V3")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        FCOS(80, "resnet18", detector_weights="nowhere.pth")
    with skip_pretrained():
        FCOS(80, "resnet18", detector_weights="nowhere.pth")


@pytest.mark.parametrize("kind", MODELS)
def test_a_checkpoint_of_ours_loads_only_into_the_same_architecture(kind, tmp_path):
    trained = slim(kind)
    path = tmp_path / "last.ckpt"
    torch.save({"state_dict": {f"model.{key}": value for key, value in trained.state_dict().items()}}, path)
    again = slim(kind, detector_weights=str(path), classes=3)
    state = trained.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in again.state_dict().items())
    fewer = slim(kind, detector_weights=str(path), classes=2)
    differing = {key for key, value in fewer.state_dict().items() if value.shape != state[key].shape}
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in differing} <= {"cls_score", "bbox_pred", "cls_logits"}
    with pytest.raises(ValueError, match="detector_weights.*does not match.*'PlainCNN'"):
        slim(kind, detector_weights=str(path), fpn_channels=96)


@pytest.mark.parametrize("kind", MODELS)
def test_an_image_without_objects_has_no_box_loss_and_finite_gradients(kind):
    detector = slim(kind)
    losses = detector.losses(random_images((64, 64)), [target()])
    for name, loss in losses.items():
        assert loss.requires_grad
        is_box = name in ("loss_box_reg", "loss_rpn_box_reg", "loss_bbox_regression", "loss_bbox_ctrness")
        assert (loss == 0) == is_box, name
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("kind", MODELS)
def test_crowds_and_tiny_images(kind):
    detector = slim(kind)
    torch.manual_seed(0)
    corners = torch.rand(5000, 2) * 100
    crowd = {"boxes": torch.cat([corners, corners + 1 + torch.rand(5000, 2) * 20], 1), "labels": torch.arange(5000) % 3}
    images = random_images((128, 128), (3, 5), (1, 1), (40, 200))
    speck = target([[0.5, 0.5, 0.501, 0.501]])
    targets = [crowd, target([[1.0, 0.0, 4.0, 3.0]], [2]), speck, target()]
    losses = detector.losses(images, targets)
    total = sum(losses.values())
    assert total.isfinite()
    total.backward()
    assert all(parameter.grad.isfinite().all() for parameter in detector.parameters())
    detector.eval()
    detector.score_threshold = 0.0
    for (height, width), detected in zip([(128, 128), (3, 5), (1, 1), (40, 200)], detector(images), strict=True):
        boxes = detected["boxes"]
        assert boxes.isfinite().all()
        assert (boxes >= 0).all()
        assert (boxes[:, [0, 2]] <= width).all()
        assert (boxes[:, [1, 3]] <= height).all()
        assert (detected["scores"].diff() <= 0).all()
        assert detected["labels"].dtype == torch.int64
        assert ((detected["labels"] >= 0) & (detected["labels"] < 3)).all()


@pytest.mark.parametrize("kind", MODELS)
def test_padding_hardly_changes_detections(kind):
    """An image alone and next to a larger one has nearly the same detections, except at the border of the padding."""
    detector = slim(kind).eval()
    shake(detector.network)
    small, large = random_images((64, 64), (64, 128))
    (alone,) = detector([small])
    beside = detector([small, large])[0]
    assert (beside["boxes"][:, 2] <= 64).all()
    assert len(alone["boxes"]) > 3
    assert torch.allclose(alone["scores"][:1], beside["scores"][:1], atol=0.3)


def test_levels_of_regions_do_not_depend_on_the_first_batch():
    detector = slim("fasterrcnn").eval()
    detector(random_images((5, 5)))  # from this batch torchvision would infer a finest stride of 1
    pool = detector.network.roi_heads.box_roi_pool
    assert pool.scales == [1 / 4, 1 / 8, 1 / 16]
    # FPN's equation 1, k = 4 + log2(side / 224), on levels 2 to 4
    sides = torch.tensor([10.0, 111.0, 113.0, 223.0, 225.0, 2000.0])
    boxes = torch.stack([torch.zeros(6), torch.zeros(6), sides, sides], 1)
    assert pool.map_levels([boxes]).tolist() == [0, 0, 1, 1, 2, 2]


def test_anchors_follow_the_strides():
    two_stage, retina, fcos = (slim(kind).network for kind in MODELS)
    assert two_stage.rpn.anchor_generator.sizes == ((32,), (64,), (128,), (256,))
    assert retina.anchor_generator.sizes == ((32, 40, 50), (64, 80, 101), (128, 161, 203), (256, 322, 406))
    assert fcos.anchor_generator.sizes == ((8,), (16,), (32,), (64,))
    # torchvision's, for strides 8 to 128
    default = torchvision.models.detection.retinanet._default_anchorgen().sizes
    assert RetinaNet(2, "resnet18").network.anchor_generator.sizes == default


def test_settings_reach_torchvisions_parts():
    slimmest = slim("fasterrcnn", nms_iou=0.33, rpn_samples=17, roi_samples=9, score_threshold=0.2, max_detections=5)
    assert (slimmest.nms_iou, slimmest.score_threshold, slimmest.max_detections) == (0.33, 0.2, 5)
    samplers = [part.fg_bg_sampler for part in (slimmest.network.rpn, slimmest.network.roi_heads)]
    assert [sampler.batch_size_per_image for sampler in samplers] == [17, 9]
    pyramid = slim("fcos", radius=0.7, nms_iou=0.4, head_depth=2)
    assert (pyramid.network.center_sampling_radius, pyramid.nms_iou) == (0.7, 0.4)
    assert sum(isinstance(m, nn.Conv2d) for m in pyramid.network.head.classification_head.conv) == 2
    assert slim("retinanet", nms_iou=0.45, max_detections=7).max_detections == 7


@pytest.mark.parametrize("kind", MODELS)
def test_settings_that_detect_nothing_are_rejected(kind):
    for wrong in ({"score_threshold": 5}, {"nms_iou": -0.1}, {"max_detections": 0}):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"^{name}: .*got {wrong[name]}"):
            slim(kind, **wrong)


def test_retinanets_head_norm_and_p6_from_the_backbone():
    torch.manual_seed(0)
    options = {"fpn_channels": 64, "head_norm": True, "p6_from_trunk": True, **NO_RESIZING}
    detector = RetinaNet(
        3, PlainCNN((8, 16, 16, 64)), **options
    )  # as wide as the pyramid: torchvision would infer use_P5
    assert sum(isinstance(module, nn.GroupNorm) for module in detector.network.head.modules()) == 8
    backbone, pyramid = detector.backbone, detector.network.backbone
    images = torch.rand(1, 3, 64, 64)
    levels = pyramid.eval().named_levels(images)
    assert torch.allclose(levels["p6"], pyramid.fpn.extra_blocks.p6(backbone(images)[-1]))
    pyramid.fpn.extra_blocks.use_P5 = True
    assert torch.allclose(pyramid.named_levels(images)["p6"], pyramid.fpn.extra_blocks.p6(levels["1"]))


@pytest.mark.parametrize(
    ("extra", "strides"), [(None, (4, 8, 16)), ("pool", (4, 8, 16, 32)), ("p6p7", (4, 8, 16, 32, 64))]
)
def test_a_pyramid_alone_has_the_interface_of_a_backbone(extra, strides):
    torch.manual_seed(0)
    pyramid = FeaturePyramid(PlainCNN((8, 16, 16, 32)), 24, extra=extra)
    assert (pyramid.strides, pyramid.channels) == (strides, (24,) * len(strides))
    images = torch.randint(0, 256, (2, 3, 128, 64), dtype=torch.uint8)
    levels = pyramid(images)
    assert [tuple(level.shape) for level in levels] == [(2, 24, 128 // s, 64 // s) for s in strides]
    sum(level.sum() for level in levels).backward()
    assert all(parameter.grad is not None for parameter in pyramid.parameters())
    # FPN's top-down path: the coarsest level is its own lateral connection, smoothed; a finer one adds it, upsampled
    maps = pyramid.body(images)
    lateral = pyramid.fpn.inner_blocks
    top = lateral[2](maps[3])
    torch.testing.assert_close(levels[2], pyramid.fpn.layer_blocks[2](top))
    middle = lateral[1](maps[2]) + top.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(levels[1], pyramid.fpn.layer_blocks[1](middle))


def test_detectors_use_the_public_pyramid_under_torchvisions_names():
    detector = slim("fasterrcnn")
    pyramid = detector.network.backbone
    assert isinstance(pyramid, FeaturePyramid) and pyramid.strides == (4, 8, 16, 32)
    assert {key.split(".")[2] for key in detector.state_dict() if key.startswith("network.backbone.")} == {
        "body",
        "fpn",
    }
    assert list(pyramid.named_levels(torch.zeros(1, 3, 64, 64))) == ["0", "1", "2", "pool"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 0}, "^channels: must be >= 1, got 0"),
        ({"extra": "p6"}, "^extra: must be one of None, 'pool', 'p6p7', got 'p6'; did you mean 'p6p7'?"),
        ({"extra": "pool", "extra_from_trunk": True}, "^extra_from_trunk: must be false without .*got true.*'pool'"),
        ({"finest_stride": 3}, "^finest_stride: .*got 3"),
    ],
)
def test_invalid_pyramids(arguments, message):
    with pytest.raises(ValueError, match=message):
        FeaturePyramid(PlainCNN((8, 8, 8)), **arguments)


def test_an_object_that_no_anchor_overlaps_makes_no_anchor_foreground():
    matcher = BlockwiseMatcher(0.7, 0.3)
    anchors = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 8.0, 4.0], [30.0, 0.0, 34.0, 4.0]])
    beside, small = [[20.0, 20.0, 24.0, 24.0]], [[4.0, 0.0, 5.0, 2.0]]
    assert matcher(BoxesAndAnchors(torch.tensor(beside + small), anchors)).tolist() == [-1, 1, -1]
    assert matcher(BoxesAndAnchors(torch.tensor(beside), anchors)).tolist() == [-1, -1, -1]


@pytest.mark.parametrize("kind", ["fasterrcnn", "retinanet"])
def test_no_matrix_of_all_objects_and_anchors_is_computed(kind, monkeypatch):
    """For 5,000 objects in an image of 800 pixels it would take 3 GB, and torchvision holds ten such at once."""
    sizes = []

    def counted(boxes, others):
        sizes.append(len(boxes) * len(others))
        return box_iou(boxes, others)

    box_iou = torchvision.ops.boxes.box_iou
    monkeypatch.setattr(torchvision.ops.boxes, "box_iou", counted)
    detector, images = slim(kind), random_images((192, 192))
    (crowd,) = random_targets([(192, 192)], 3, each=1500)
    assert sum(detector.losses(images, [crowd]).values()).isfinite()
    # Faster R-CNN's head matches the objects to 100 proposals and to themselves; there are thousands of anchors
    assert sizes == ([1500 * 1600] if kind == "fasterrcnn" else [])


@pytest.mark.parametrize("kind", MODELS)
def test_under_autocast_boxes_keep_their_precision(kind):
    """From 256 pixels on bfloat16 represents only even numbers, from 512 on only multiples of four."""
    detector = slim(kind).eval()
    shake(detector.network)
    detector.score_threshold = 0.0
    with torch.autocast("cpu", torch.bfloat16):
        (detected,) = detector(random_images((64, 640)))
        losses = detector.losses(random_images((64, 640)), [target([[601.0, 7.0, 633.0, 39.0]])])
    assert detected["boxes"].dtype == torch.float32
    far = detected["boxes"][(detected["boxes"] > 512) & (detected["boxes"] < 640)]
    assert len(far) > 3
    assert (far % 1 != 0).float().mean() > 0.2  # some sides of FCOS lie on its anchors
    assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in losses.values())
    images = detector.network.backbone.named_levels(torch.rand(1, 3, 64, 640))
    anchors = detector.network.rpn.anchor_generator if kind == "fasterrcnn" else detector.network.anchor_generator
    batch = torchvision.models.detection.image_list.ImageList(torch.empty(1, 3, 64, 640), [(64, 640)])
    levels = list(images.values())
    expected = anchors(batch, levels)[0]
    assert torch.equal(anchors(batch, [level.bfloat16() for level in levels])[0], expected)


@pytest.mark.parametrize("kind", MODELS)
def test_any_backbone_and_frozen_parts_stay_frozen(kind):
    detector = MODELS[kind](
        2, TorchvisionBackbone("mobilenet_v3_small", frozen_stages=2, freeze_norm=True), **NO_RESIZING
    )
    assert detector.backbone.name == "mobilenet_v3_small"
    detector.train()
    assert not any(module.training for module in detector.modules() if isinstance(module, nn.BatchNorm2d))
    losses = detector.losses(random_images((64, 64)), [target([[5.0, 5.0, 40.0, 40.0]])])
    sum(losses.values()).backward()
    trained = {
        name.split(".")[4]
        for name, p in detector.backbone.named_parameters(prefix="network.backbone.body")
        if p.grad is not None
    }
    assert "0" not in trained
    assert "4" in trained


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FasterRCNN(2, PlainCNN((8, 8))), None),
        (lambda: FasterRCNN(2, PlainCNN((8,))), r"finest_stride.*PlainCNN, which has \(2,\), got 4"),
        (
            lambda: FasterRCNN(2, PlainCNN((8, 8, 8, 8), out_indices=(1, 3))),
            r"finest_stride.*got \(4, 16\) from 4",
        ),
        (lambda: FasterRCNN(2, PlainCNN(), weights="a.pth"), "weights: has no effect.*got 'a.pth'"),
        (lambda: FasterRCNN(2, PlainCNN(), anchor_sizes=[[8]]), r"anchor_sizes.*3 levels.*got \[\[8\]\]"),
        (lambda: FasterRCNN(2, PlainCNN(), anchor_sizes=[[8], [8], [0]]), r"anchor_sizes.*above 0, got .*\[0\]"),
        (lambda: FCOS(2, PlainCNN(), radius=-5), "^radius: must be .*got -5"),
        (lambda: FCOS(2, PlainCNN(), head_depth=0), "^head_depth: must be .*got 0"),
        (lambda: FCOS(2, PlainCNN(), fpn_channels=32), "fpn_channels.*FCOS, got 32"),
        (lambda: RetinaNet(2, PlainCNN(), fpn_channels=0), "fpn_channels.*got 0"),
        (lambda: RetinaNet(2, PlainCNN(), fpn_channels=32, head_norm=True), "fpn_channels.*head_norm, got 32"),
        (lambda: RetinaNet(0, PlainCNN()), "num_classes.*got 0"),
    ],
)
def test_bad_arguments(make, message):
    if message is None:
        assert make().network.backbone.strides == (4, 8)
        return
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("cls", "defaults"),
    [
        (FasterRCNN, {"finest_stride": 4, "score_threshold": 0.05, "max_detections": 100, "hidden": 1024}),
        (RetinaNet, {"finest_stride": 8, "nms_iou": 0.5, "max_detections": 300, "p6_from_trunk": False}),
        (FCOS, {"finest_stride": 8, "score_threshold": 0.2, "nms_iou": 0.6, "level_scales": False}),
        (MaskRCNN, {"finest_stride": 4, "max_detections": 100, "hidden": 1024, "mask_layers": 4}),
        (CondInst, {"finest_stride": 8, "score_threshold": 0.2236, "nms_iou": 0.6, "level_scales": True}),
    ],
)
def test_a_yaml_sets_inherited_arguments_but_not_fixed_ones(cls, defaults):
    parser = ArgumentParser()
    parser.add_class_arguments(cls, "model")
    found = vars(parser.get_defaults().model)
    shared = {"weights": None, "detector_weights": None, "min_size": 800, "max_size": 1333, "fpn_channels": 256}
    assert found.items() >= (shared | defaults).items()
    assert not found.keys() & {"make_network", "builder", "extra", "fpn_norm", "kwargs"}
    assert ("p6_from_trunk" in found) == issubclass(cls, OneStageDetector)


def one_batch():
    """Eight scenes of digits, 64 pixels, one of them without objects."""
    data = DigitScenes(task="detection", image_size=64, train_size=8, val_size=1, batch_size=8, num_workers=0)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    empty = {name: value[:0] if value.ndim else value for name, value in batch["target"][0].items()}
    images = [batch["image"][0].flip(1, 2) * 0 + 99, *batch["image"][1:]]
    return images, [empty, *batch["target"][1:]]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "finest"), [("fasterrcnn", 4), ("retinanet", 4), ("fcos", 4)])
def test_eight_images_are_overfitted(kind, finest):
    more = {
        "fasterrcnn": {
            "anchor_sizes": [[16], [24], [32], [48]],
            "hidden": 128,
            "proposals": (200, 50),
            "roi_samples": 64,
        },
        "retinanet": {"anchor_sizes": [[12, 16, 20], [16, 20, 25], [20, 25, 32], [32, 40, 48], [32, 40, 48]]},
        "fcos": {},
    }[kind]
    torch.manual_seed(0)
    backbone = PlainCNN((16, 32, 64, 64))
    detector = MODELS[kind](10, backbone, fpn_channels=64, finest_stride=finest, **NO_RESIZING, **more)
    images, targets = one_batch()
    optimizer = torch.optim.AdamW(detector.parameters(), lr=2e-3)
    overfit(detector, images, targets, optimizer)
    assert map50(detector.eval()(images), targets, 10) >= 0.95


class TestPyramidMemory:
    """The pyramid computes what torchvision's does, in place, and releases the trunk's maps."""

    @pytest.mark.parametrize("sides", [[(16, 24), (8, 12), (4, 6)], [(15, 23), (8, 12), (4, 6)]])
    @pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
    @pytest.mark.parametrize("extra", [None, "pool", "p6p7"])
    def test_levels_and_gradients_equal_torchvisions(self, sides, layout, extra):
        torch.manual_seed(0)
        ours = FeaturePyramid(PlainCNN((4, 8, 16)), channels=6, extra=extra, finest_stride=2).fpn
        maps = [
            torch.randn(2, channels, *side).to(memory_format=layout).requires_grad_()
            for channels, side in zip((4, 8, 16), sides, strict=True)
        ]
        results = []
        for forward in (FeaturePyramidNetwork.forward, type(ours).forward):
            ours.zero_grad()
            levels = forward(ours, OrderedDict((str(index), features) for index, features in enumerate(maps)))
            sum((level * level).sum() for level in levels.values()).backward()
            gradients = [p.grad.clone() for p in ours.parameters()] + [features.grad.clone() for features in maps]
            results.append((levels, gradients))
            for features in maps:
                features.grad = None
        (expected, expected_gradients), (levels, gradients) = results
        assert list(levels) == list(expected)
        with torch.no_grad():
            inferred = ours(OrderedDict((str(index), features) for index, features in enumerate(maps)))
        for name, level in expected.items():
            assert torch.equal(levels[name], level) and torch.equal(inferred[name], level)
        for gradient, other in zip(gradients, expected_gradients, strict=True):
            torch.testing.assert_close(gradient, other, rtol=1e-5, atol=1e-5)

    def test_unused_maps_are_not_kept_and_used_ones_are_released(self):
        pyramid = FeaturePyramid(PlainCNN((4, 8, 16)), channels=6, finest_stride=4)
        given = []
        pyramid.body.register_forward_hook(lambda module, inputs, output: given.append(len(output)))
        images = seeded_images(side=32)
        levels = pyramid.eval()(images)
        assert given == [2] and len(pyramid.body(images)) == 3
        for level, whole in zip(pyramid.body(images, only=(1, 2)), pyramid.body(images)[1:], strict=True):
            assert torch.equal(level, whole)
        alive = OrderedDict((str(index), level) for index, level in enumerate(pyramid.body(images)[1:]))
        pyramid.fpn(alive)
        assert not alive and len(levels) == 2

    def test_a_backbone_with_its_own_forward(self):
        class Own(PlainCNN):
            def forward(self, images):
                return super().forward(images)

        torch.manual_seed(0)
        own = FeaturePyramid(Own((4, 8, 16)), channels=6, finest_stride=4).eval()
        torch.manual_seed(0)
        plain = FeaturePyramid(PlainCNN((4, 8, 16)), channels=6, finest_stride=4).eval()
        for level, other in zip(own(seeded_images(side=32)), plain(seeded_images(side=32)), strict=True):
            assert torch.equal(level, other)


def test_regions_are_refined_in_parts(monkeypatch):
    torch.manual_seed(0)
    options = {"min_size": None, "max_size": None, "fpn_channels": 16, "hidden": 16, "proposals": (50, 30)}
    model = FasterRCNN(3, "resnet18", score_threshold=0.0, **options).eval()
    images = [torch.randint(256, (3, *size), dtype=torch.uint8) for size in ((64, 96), (80, 64))]
    pooled = []
    model.network.roi_heads.box_roi_pool.register_forward_hook(lambda _m, args, _o: pooled.append([*map(len, args[1])]))
    whole = model(images)
    batch = model.resize(images)
    levels, proposals, _ = model.propose(batch)
    found, _ = model.refine(levels, proposals, batch)  # with gradient: torchvision's own way
    torch.testing.assert_close([one["scores"] for one in model.restore(found, batch)], [one["scores"] for one in whole])
    counts = pooled[0]
    assert pooled == [counts, counts] and min(counts) > 8
    monkeypatch.setattr("striate.models.detection.two_stage.faster_rcnn._REGIONS_AT_ONCE", 4)
    pooled.clear()
    for one, part in zip(whole, model(images), strict=True):
        for field in ("labels", "boxes", "scores"):
            torch.testing.assert_close(part[field], one[field])
    assert len(pooled) == -(-sum(counts) // 8) and max(map(sum, pooled)) == 8
    assert [sum(part) for part in zip(*pooled, strict=True)] == counts
